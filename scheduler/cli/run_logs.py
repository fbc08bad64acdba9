"""`scheduler runs logs`: what the attempts of a run printed."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import OutputOption, RunArgument
from scheduler.cli.output import Output, dump, emit, note
from scheduler.errors import NotFound

# What a terminal may be told by a log: lines, columns and colours. Anything else could move the cursor or worse.
_HARMLESS: Final = re.compile(r"\x1b\[[0-9;]*m|[\n\t]")


def logs(
    ctx: typer.Context,
    run: RunArgument,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="Of this attempt only; else of every one.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="On a terminal too as it was printed: it may move the cursor, and more.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print what a run's code printed.

    It is kept when an attempt ends, and only its end where it is long.
    """
    from scheduler.cli.keys import run_named

    scheduler = Invocation.of(ctx).app
    with scheduler.client() as client:
        name = run_named(client, run, scheduler.settings.defaults)
        found = client.run_output(name)
        phase = client.show_run(name)["phase"]
    if attempt is not None:
        found = [item for item in found if item["attempt"] == attempt]
        if not found:
            raise NotFound("attempt", f"{name} {attempt}")
    if output is not Output.TABLE:
        emit(dump(found, output))
        return
    for item in found:
        if len(found) > 1:
            note(f"# attempt {item['attempt']}: {item['phase']}")
        if item["output"]:
            text = str(item["output"])
            emit((_tame(text) if sys.stdout.isatty() and not raw else text).removesuffix("\n"))
        else:
            note(f"attempt {item['attempt']} printed nothing")
    if not found:
        note(f"no attempt has ended yet: the run is {phase}")


def _tame(text: str) -> str:
    """The text with everything escaped that is neither printable nor harmless."""
    return "".join(
        part if _HARMLESS.fullmatch(part) or part.isprintable() else part.encode("unicode_escape").decode("ascii")
        for part in re.split(r"(\x1b\[[0-9;]*m|[^\x20-\x7e])", text)
        if part
    )


def add_to(app: typer.Typer) -> None:
    """Makes this a verb of a group."""
    app.command("logs")(logs)
