"""`scheduler triggers fire`: a run now, and waiting until it is over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from scheduler.cli.acting import each
from scheduler.cli.guard import FAILED, Refused, lines
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import TriggersArgument
from scheduler.cli.output import counted, emit, first_line, note
from scheduler.domain.run import Phase
from scheduler.errors import StoreUnavailable

if TYPE_CHECKING:
    from scheduler.cli.keys import TriggerKey
    from scheduler.client import Client

_LOOK_EVERY: Final = 0.2
_PATIENCE: Final = 2.0


def fire(
    ctx: typer.Context,
    triggers: TriggersArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="KEY=VALUE", help="An input of the run, as JSON or else as text; may be repeated."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="TEXT", help="The same key gives the same run, so one may try again.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the runs are over; exit 1 unless all SUCCEEDED.")] = False,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="With --wait: not longer than this, such as 10m."),
    ] = None,
) -> None:
    """Queue a run of each trigger now, and print the runs' names.

    With --wait, each run's name and phase are printed when it is over. Ctrl-C ends the waiting, not the runs.
    """
    from scheduler.cli.keys import trigger_keys
    from scheduler.domain.instants import parse_duration

    if timeout is not None and not wait:
        raise Refused("--timeout is for --wait: give both")
    longest = None if timeout is None else parse_duration(timeout, "--timeout").total_seconds()
    given = parse_inputs(inputs or ())
    scheduler = Invocation.of(ctx).app
    keys = trigger_keys(triggers, scheduler.settings.defaults)
    with scheduler.client() as client:
        if not wait:
            each(keys, lambda trigger: client.fire(trigger, inputs=given, request_key=key))
            return
        fired: list[str] = []

        def one(trigger: TriggerKey) -> str:
            name = client.fire(trigger, inputs=given, request_key=key)
            fired.append(name)
            return f"fired {name}"

        try:
            each(keys, one, tell=note)
        finally:
            # Where one of several does not exist, the others were fired all the same.
            succeeded = wait_for(client, fired, longest)
    if not succeeded:
        raise typer.Exit(FAILED)


def wait_for(client: Client, names: Sequence[str], longest: float | None) -> bool:
    """Prints each run's name and phase once it is over; whether all SUCCEEDED within so many seconds.

    While the database is away it goes on waiting, as the workers do.
    """
    waiting = dict.fromkeys(names, "")
    start = time.monotonic()
    succeeded, away = True, False
    while waiting:
        try:
            rows = [client.show_run(name) for name in waiting]
            away = False
        except StoreUnavailable as error:
            if not away:
                note(f"{lines(error)[0]}: trying again")
            rows, away = [], True
        elapsed = time.monotonic() - start
        for row in rows:
            name, phase = row["name"], Phase(row["phase"])
            if not phase.open:
                del waiting[name]
                emit(f"{name} {phase}")
                succeeded &= phase is Phase.SUCCEEDED
                if row["error"] is not None:
                    note(f"{name}: {first_line(row['error'])}")
            elif elapsed > _PATIENCE and (words := row["waiting_for"] or "") != waiting[name]:
                waiting[name] = words
                if words:
                    note(f"{name} waits for {words}")
        if waiting and longest is not None and elapsed >= longest:
            note(f"still open after {longest:g} s: {counted(len(waiting), 'run')}, {', '.join(waiting)}")
            return False
        if waiting:
            time.sleep(_LOOK_EVERY if longest is None else min(_LOOK_EVERY, max(longest - elapsed, 0.01)))
    return succeeded


def parse_inputs(pairs: Iterable[str]) -> dict[str, Any]:
    """`region=eu`, `count=3`, `when={"day": 1}`: JSON where it is JSON, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise Refused(f"--input {pair!r} is not KEY=VALUE, such as region=eu")
        if name in found:
            raise Refused(f"--input {name} is given twice")
        try:
            found[name] = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def add_to(app: typer.Typer) -> None:
    """Makes this a verb of a group."""
    app.command("fire")(fire)
