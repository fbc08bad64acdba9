"""`scheduler runs`: what was executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from scheduler.cli import run_actions, run_logs
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    DomainOption,
    LimitOption,
    OutputOption,
    PageOption,
    PhaseOption,
    ProjectOption,
    RunArgument,
    SinceOption,
    SortOption,
    TaskOption,
    TriggerOption,
    WhereOption,
)
from scheduler.cli.output import Output, compact, details, dump, emit, first_line, note
from scheduler.cli.tables import Column, is_narrow, listing, table
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look at runs and act on them.")


@app.command("list")
@listing
def list_runs(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    phase: PhaseOption = None,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: SortOption = None,
    limit: LimitOption = 50,
    page: PageOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, newest first."""
    from scheduler.cli import documents
    from scheduler.cli.keys import filters, short_names, shown
    from scheduler.cli.paging import filters_of, tell_of_the_next
    from scheduler.cli.phases import phase_named
    from scheduler.cli.times import TriggerZones, ago, common_zone, default_zone, local, took

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task, trigger=trigger)
    equal = {**wanted, "phase": None if phase is None else str(phase_named(phase))}
    with scheduler.client() as client:
        now = client.now()
        chosen = filters_of(where, now, default_zone(defaults), equal, ("created_at", since))
        found = client.find_runs(chosen, sort=sort, limit=limit, token=page)
        rows = found.rows
        if output is not Output.TABLE:
            emit(dump([documents.run(row) for row in rows], output))
            tell_of_the_next(found, "runs")
            return
        zones = TriggerZones(client)
        zone = common_zone(map(zones.of, rows), defaults)
    if not rows:
        note("no run matches")
        return
    short = short_names((row["name"] for row in rows), short=is_narrow())
    table(
        (
            Column("RUN"),
            Column("TRIGGER"),
            Column(f"SCHEDULED ({zone.name})", rank=2),
            Column("PHASE"),
            Column("ATTEMPT", right=True, rank=5),
            Column("LOST", right=True, rank=4, if_any=True),
            Column("STARTED", rank=3),
            Column("WHEN", live=True),
            Column("TOOK", right=True),
            Column("WAITS FOR", if_any=True, text=True),
            Column("ERROR", if_any=True, text=True),
        ),
        (
            (
                short(row["name"]),
                shown(row, defaults, "task", "trigger"),
                local(row["scheduled_at"], zone) or "by hand",
                phase_shown(row),
                row["attempt"],
                row["lost"] or None,
                local(row["started_at"], zone),
                ago(row["finished_at"] or row["started_at"] or row["created_at"], now),
                took(row["started_at"], row["finished_at"]),
                row["waiting_for"],
                first_line(row["error"]),
            )
            for row in rows
        ),
    )
    tell_of_the_next(found, "runs")


@app.command("show")
def show_run(
    ctx: typer.Context,
    run: RunArgument,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one run with its inputs, outputs and attempts."""
    from scheduler.cli import documents
    from scheduler.cli.keys import run_named
    from scheduler.cli.times import TriggerZones, local, took

    scheduler = Invocation.of(ctx).app
    with scheduler.client() as client:
        row = client.show_run(run_named(client, run, scheduler.settings.defaults))
        zone = TriggerZones(client).of(row)
    if output is not Output.TABLE:
        emit(dump(documents.run_in_full(row), output))
        return
    covers, event = row["covers"], row["event"]
    details(
        (
            ("run", row["name"]),
            ("trigger", f"{row['project']}/{row['domain']}/{row['task']}/{row['trigger']}"),
            ("version", row["version"]),
            ("executor", row["executor"]),
            ("scheduled", local(row["scheduled_at"], zone) or "by hand"),
            ("covers", f"{local(covers[0], zone)} to {local(covers[1], zone)}" if covers else None),
            ("phase", phase_shown(row)),
            ("waiting for", row["waiting_for"]),
            ("attempt", row["attempt"]),
            ("lost", row["lost"] or None),
            ("created", local(row["created_at"], zone)),
            ("started", local(row["started_at"], zone)),
            ("finished", local(row["finished_at"], zone)),
            ("took", took(row["started_at"], row["finished_at"])),
            ("error", row["error"]),
            ("inputs", compact(row["inputs"])),
            ("outputs", compact(row["outputs"])),
            ("event", compact(event)),
            *(("link", compact(link)) for link in row["links"]),
        )
    )
    if row["attempts"]:
        emit("")
        table(
            (
                Column("ATTEMPT", right=True),
                Column("PHASE"),
                Column(f"STARTED ({zone.name})", rank=1),
                Column("TOOK", right=True),
                Column("WORKER"),
                Column("ERROR", if_any=True, text=True),
            ),
            (
                (
                    attempt["attempt"],
                    attempt["phase"],
                    local(attempt["started_at"], zone),
                    took(attempt["started_at"], attempt["finished_at"]),
                    attempt["worker"],
                    first_line(attempt["error"]),
                )
                for attempt in row["attempts"]
            ),
        )


def phase_shown(row: Mapping[str, Any]) -> str:
    """The phase, and that somebody wants an open run ended."""
    return f"{row['phase']}, aborting" if row["aborting"] else str(row["phase"])


run_actions.add_to(app)
run_logs.add_to(app)
