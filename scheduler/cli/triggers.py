"""`scheduler triggers`: when tasks run, and what an operator does about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.guard import CONFLICT, NOT_FOUND, Refused, lines
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    DomainOption,
    LimitOption,
    OutputOption,
    ProjectOption,
    TaskOption,
    TriggerArgument,
    TriggerOption,
    TriggersArgument,
)
from scheduler.cli.output import Output, compact, cut, details, dump, emit, note, table
from scheduler.cli.verbs import VerbGroup, new_group
from scheduler.errors import Conflict, NotFound

if TYPE_CHECKING:
    from scheduler.cli.keys import TriggerKey
    from scheduler.client import Client


class Triggers(VerbGroup):
    """Verbs on triggers."""

    later = frozenset({"revisions", "delete"})


app = new_group(Triggers, "Look at triggers and act on them.")


@app.command("list")
def list_triggers(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Only those that are on, or only those that are off.")
    ] = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List triggers by name, with what they fire next."""
    from scheduler.cli import documents
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.times import local, schedule_text, zone_of_document

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task, trigger=trigger)
    with scheduler.client() as client:
        rows = client.list_triggers(
            project=wanted["project"],
            domain=wanted["domain"],
            task=wanted["task"],
            name=wanted["trigger"],
            active=active,
            limit=limit + 1,
        )
    rows = cut(rows, limit, "triggers")
    if output is not Output.TABLE:
        emit(dump([documents.trigger(row) for row in rows], output))
    elif not rows:
        note("no trigger matches")
    else:
        zones = [zone_of_document(row["automation"]) for row in rows]
        table(
            ("TRIGGER", "SCHEDULE", "STATE", "NEXT", "LAST", "VERSION", "REVISION", "ERROR"),
            (
                (
                    shown(row, defaults, "task", "name"),
                    schedule_text(row["automation"]),
                    row["state"],
                    local(row["next_fire_at"], zone),
                    local(row["triggered_at"], zone),
                    row["version"],
                    row["revision"],
                    row["error"],
                )
                for row, zone in zip(rows, zones, strict=True)
            ),
            right=("REVISION",),
            if_any=("LAST", "ERROR"),
        )


@app.command("show")
def show_trigger(ctx: typer.Context, trigger: TriggerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one trigger."""
    from scheduler.cli import documents
    from scheduler.cli.keys import trigger_key
    from scheduler.cli.times import described, local, schedule_text, took, utc, zone_of_document

    scheduler = Invocation.of(ctx).app
    key = trigger_key(trigger, scheduler.settings.defaults)
    with scheduler.client() as client:
        row = client.show_trigger(key)
    if output is not Output.TABLE:
        emit(dump(documents.trigger(row), output))
        return
    zone, catchup = zone_of_document(row["automation"]), row["catchup"]
    details(
        (
            ("trigger", key),
            ("description", row["description"] or None),
            ("schedule", schedule_text(row["automation"])),
            ("in words", described(row["automation"], str(key))),
            ("state", row["state"]),
            ("next", local(row["next_fire_at"], zone)),
            ("last", local(row["triggered_at"], zone)),
            ("error", row["error"]),
            ("version", row["version"]),
            ("inputs", compact(row["inputs"])),
            ("kickoff time input", row["kickoff_time_input_arg"]),
            (
                "catch-up",
                f"{catchup['policy']}, not older than {took(0, round(catchup['window'] * 1_000_000))}, "
                f"at most {catchup['max_runs']}",
            ),
            ("overlap", row["overlap"]),
            ("source", row["source"]),
            ("revision", f"{row['revision']}, {local(row['updated_at'], utc())} by {row['updated_by']}"),
        )
    )


@app.command("activate")
def activate(ctx: typer.Context, triggers: TriggersArgument) -> None:
    """Make triggers owe slots again, from now on."""

    def one(client: Client, key: TriggerKey) -> str:
        return f"{'activated' if client.activate(key) else 'already active'} {key}"

    _each(ctx, triggers, one)


@app.command("deactivate")
def deactivate(ctx: typer.Context, triggers: TriggersArgument) -> None:
    """Make triggers owe nothing; their runs that have not started are aborted."""

    def one(client: Client, key: TriggerKey) -> str:
        return f"{'deactivated' if client.deactivate(key) else 'already inactive'} {key}"

    _each(ctx, triggers, one)


@app.command("fire")
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
) -> None:
    """Queue a run of each trigger now, and print the runs' names."""
    given = parse_inputs(inputs or ())
    _each(ctx, triggers, lambda client, trigger: client.fire(trigger, inputs=given, request_key=key))


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


def _each(ctx: typer.Context, triggers: list[str], act: Callable[[Client, TriggerKey], str]) -> None:
    # Every path is read before anything is done. What does not exist then keeps nobody from the rest.
    from scheduler.cli.keys import trigger_keys

    scheduler = Invocation.of(ctx).app
    keys = trigger_keys(triggers, scheduler.settings.defaults)
    codes = set()
    with scheduler.client() as client:
        for key in keys:
            try:
                emit(act(client, key))
            except (NotFound, Conflict) as error:
                codes.add(NOT_FOUND if isinstance(error, NotFound) else CONFLICT)
                for line in lines(error):
                    note(line)
    if codes:
        raise typer.Exit(min(codes))
