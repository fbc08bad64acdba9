"""`scheduler backfill`: runs for slots of the past. `backfill TRIGGER` orders them; list, show and cancel look after orders.

A trigger's path contains a `/`, which no verb does: so both can stand in one place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from scheduler.cli.guard import FAILED
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    DomainOption,
    LimitOption,
    OutputOption,
    ProjectOption,
    TaskOption,
    TriggerArgument,
    TriggerOption,
)
from scheduler.cli.output import Output, counted, cut, details, dump, emit, note
from scheduler.cli.tables import Column, listing, table
from scheduler.cli.verbs import VerbGroup, new_group

if TYPE_CHECKING:
    from rich.progress import Progress

    from scheduler.client import Client

_ORDER: Final = "TRIGGER"
_LOOK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 5.0


class Backfills(VerbGroup):
    """Verbs on backfills, and the order itself, which is called by the trigger's path."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Options may come first, so it is enough that a path stands anywhere before another verb could.
        first = next((word for word in args if not word.startswith("-")), "")
        if args and args[0] not in ("-h", "--help") and (args[0].startswith("-") or "/" in first):
            args = [_ORDER, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        # Its usage line shows what is typed: `scheduler backfill [OPTIONS] TRIGGER`.
        return (None if name == _ORDER else name), command, rest


app = new_group(
    Backfills,
    "Fill a trigger's slots of the past: `scheduler backfill TRIGGER --from WHEN`. Then look after what was ordered.",
)

NumberArgument = Annotated[
    int, typer.Argument(metavar="NUMBER", min=1, help="The backfill's number.", show_default=False)
]


@app.command(_ORDER, short_help="Order runs for its slots of the past.")
def order(
    ctx: typer.Context,
    trigger: TriggerArgument,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="WHEN", help="The first slot: 3d (ago), 2026-11-25 or a time.", show_default=False
        ),
    ],
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="WHEN", help="The last slot, or its day; else the last one that is decided."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    reprocess: Annotated[
        str, typer.Option(metavar="none|failed|all", help="Which slots are done again although they had a run.")
    ] = "none",
    max_active: Annotated[
        int, typer.Option("--max-active", metavar="N", min=1, max=10_000, help="At most so many open runs at a time.")
    ] = 1,
    reverse: Annotated[bool, typer.Option("--reverse", help="The newest slot first.")] = False,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--detach", help="Stay until it is over, or not; on a terminal it stays.", show_default=False
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Order runs for a trigger's slots of the past, both ends included.

    Workers make the runs, a few at a time, whatever becomes of this command. A slot that has a run is left alone.
    Slots that are still to come the trigger fires itself. With --wait, exit code 1 says that not all runs succeeded.
    """
    from scheduler.cli.keys import trigger_key
    from scheduler.cli.time_arguments import typed_instant
    from scheduler.cli.times import zone_of_document

    scheduler = Invocation.of(ctx).app
    key = trigger_key(trigger, scheduler.settings.defaults)
    options: dict[str, Any] = {"reprocess": reprocess, "max_active": max_active, "reverse": reverse}
    with scheduler.client() as client:
        now, zone = client.now(), zone_of_document(client.show_trigger(key)["automation"])
        first = typed_instant(start, "--from", now, zone)
        last = None if end is None else typed_instant(end, "--to", now, zone, to_its_end=True)
        if dry_run:
            _foresee(client, client.preview_backfill(key, first, last, **options), last, output)
            return
        row = client.backfill(key, first, last, **options)
        _say_if_cut(row, last)
        stays = sys.stderr.isatty() if wait is None else wait
        if output is Output.TABLE:
            emit(f"backfill {row['backfill']}: {counted(row['slots'], 'slot')} of {key}")
        if stays:
            row = _watch(client, row)
        if output is not Output.TABLE:
            emit(dump(_document(row), output))
    if stays:
        _conclude(row, said=output is not Output.TABLE)


@app.command("list")
@listing
def list_backfills(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List backfills, newest first."""
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.times import common_zone, local, zone_of_document

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task, trigger=trigger)
    with scheduler.client() as client:
        rows = client.list_backfills(**wanted, limit=limit + 1)
    rows = cut(rows, limit, "backfills")
    if output is not Output.TABLE:
        emit(dump([_document(row) for row in rows], output))
    elif not rows:
        note("no backfill matches")
    else:
        zone = common_zone((zone_of_document(row["automation"]) for row in rows), defaults)
        table(
            (
                Column("NUMBER", right=True),
                Column("TRIGGER"),
                Column(f"FROM ({zone.name})", rank=3),
                Column("TO", rank=4),
                Column("STATE"),
                Column("SLOTS", right=True),
                Column("DONE", right=True),
                Column("RUNS", right=True, rank=2),
                Column("OPEN", right=True, rank=1, if_any=True),
                Column("FAILED", right=True, if_any=True),
                Column("NOTE", if_any=True, text=True),
            ),
            (
                (
                    row["backfill"],
                    shown(row, defaults, "task", "trigger"),
                    local(row["from"], zone),
                    local(row["to"], zone),
                    row["state"],
                    row["slots"],
                    row["considered"] - row["open"],
                    row["queued"],
                    row["open"] or None,
                    row["failed"] or None,
                    row["note"],
                )
                for row in rows
            ),
        )


@app.command("show")
def show(ctx: typer.Context, number: NumberArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one backfill and how far it has come."""
    from scheduler.cli.times import local, schedule_text, utc, zone_of_document

    with Invocation.of(ctx).app.client() as client:
        row = client.show_backfill(number)
    if output is not Output.TABLE:
        emit(dump(_document(row), output))
        return
    zone = zone_of_document(row["automation"])
    details(
        (
            ("backfill", row["backfill"]),
            ("trigger", f"{row['project']}/{row['domain']}/{row['task']}/{row['trigger']}"),
            ("schedule", schedule_text(row["automation"])),
            ("from", local(row["from"], zone)),
            ("to", local(row["to"], zone)),
            ("state", row["state"]),
            ("note", row["note"]),
            ("slots", f"{row['slots']}, {row['considered']} looked at, {row['left_alone']} left alone"),
            ("runs", _counts(row)),
            ("at a time", row["max_active"]),
            ("order", "newest first" if row["reverse"] else "oldest first"),
            ("reprocess", row["reprocess"]),
            ("ordered", f"{local(row['created_at'], utc())} by {row['created_by']}"),
            ("over", local(row["finished_at"], utc())),
        )
    )


@app.command("cancel")
def cancel(ctx: typer.Context, number: NumberArgument) -> None:
    """End a backfill: its queued runs are aborted, those that run finish."""
    with Invocation.of(ctx).app.client() as client:
        row = client.cancel_backfill(number)
    still = f", {counted(row['open'], 'run')} still open" if row["open"] else ""
    emit(f"{row['state']} backfill {number}: {row['queued']} of {counted(row['slots'], 'slot')} got a run{still}")


# --- printing --------------------------------------------------------------------------------------------------------


def _foresee(client: Client, row: Mapping[str, Any], last: int | None, output: Output) -> None:
    from scheduler.cli.keys import TriggerKey
    from scheduler.cli.times import local, reading, zone_of_document

    _say_if_cut(row, last)
    if output is not Output.TABLE:
        emit(dump(_foreseen(row), output))
        return
    key = TriggerKey(*(row[name] for name in ("project", "domain", "task", "trigger")))
    zone = zone_of_document(client.show_trigger(key)["automation"])
    details(
        (
            ("trigger", key),
            ("slots", row["slots"]),
            ("first", local(row["first"], zone)),
            ("last", local(row["last"], zone)),
            ("left alone", row["left_alone"]),
            ("to fill", row["to_fill"]),
        )
    )
    if row["next"]:
        emit("")
        again = "(a run that does it again)"
        table(
            (Column(f"NEXT ({zone.name})"), Column("RUN")),
            ((reading(item["scheduled_at"], zone), item["run"] or again) for item in row["next"]),
        )
    note("dry run, nothing was written")


def _say_if_cut(row: Mapping[str, Any], last: int | None) -> None:
    from scheduler.domain.instants import to_rfc3339

    if last is not None and row["to"] < last:
        note(f"cut at {to_rfc3339(row['to'])}: the trigger fires later slots itself")


def _counts(row: Mapping[str, Any]) -> str:
    names = ("open", "succeeded", "failed", "aborted")
    ends = ", ".join(f"{row[name]} {name}" for name in names if row[name])
    return f"{row['queued']}: {ends}" if ends else str(row["queued"])


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    from scheduler.cli import documents

    return documents.backfill(row)


def _foreseen(row: Mapping[str, Any]) -> dict[str, Any]:
    from scheduler.cli import documents

    return documents.foreseen_backfill(row)


# --- waiting ---------------------------------------------------------------------------------------------------------


def _watch(client: Client, row: dict[str, Any]) -> dict[str, Any]:
    """Looks until the backfill is over, with a bar on a terminal; Ctrl-C ends the looking only."""
    from scheduler.domain.backfill import BackfillState

    began, warned = time.monotonic(), False
    with _bar() as bar:
        line = bar.add_task(f"backfill {row['backfill']}", total=max(1, row["slots"]), counts="")
        try:
            while not BackfillState(row["state"]).over:
                time.sleep(_LOOK_SECONDS)
                row = client.show_backfill(row["backfill"])
                done = row["slots"] if BackfillState(row["state"]).over else row["considered"] - row["open"]
                bar.update(line, completed=done, counts=_counts(row))
                if not warned and not row["considered"] and time.monotonic() - began > _PATIENCE_SECONDS:
                    warned = True
                    if not client.list_workers():
                        note("no worker is alive: `scheduler serve` runs one, and the backfill goes on then")
        except KeyboardInterrupt:
            note(f"the backfill goes on: scheduler backfill show {row['backfill']}")
            raise
    return row


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _conclude(row: Mapping[str, Any], *, said: bool) -> None:
    if not said:
        why = f" ({row['note']})" if row["note"] else ""
        emit(f"{row['state']}{why}: {counted(row['queued'], 'run')}, {row['left_alone']} left alone; {_counts(row)}")
    if row["state"] != "done" or row["failed"] or row["aborted"]:
        raise typer.Exit(FAILED)
