"""`scheduler triggers`: when tasks run, and what an operator does about it."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli import trigger_actions, trigger_fire
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import (
    DomainOption,
    LimitOption,
    OutputOption,
    PageOption,
    ProjectOption,
    SinceOption,
    SortOption,
    TaskOption,
    TriggerArgument,
    TriggerOption,
    WhereOption,
)
from scheduler.cli.output import Output, compact, details, dump, emit, note
from scheduler.cli.tables import Column, listing, table
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look at triggers and act on them.")


@app.command("list")
@listing
def list_triggers(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    trigger: TriggerOption = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Only those that are on, or only those that are off.")
    ] = None,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: SortOption = None,
    limit: LimitOption = 50,
    page: PageOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List triggers with what they fire next.

    --since is when they were changed.
    """
    from scheduler.cli import documents
    from scheduler.cli.keys import filters, shown
    from scheduler.cli.paging import filters_of, tell_of_the_next
    from scheduler.cli.times import ago, common_zone, default_zone, local, schedule_text, zone_of_document

    scheduler = Invocation.of(ctx).app
    defaults = scheduler.settings.defaults
    wanted = filters(defaults, project=project, domain=domain, task=task, trigger=trigger)
    wanted["name"] = wanted.pop("trigger")
    with scheduler.client() as client:
        now = client.now()
        chosen = filters_of(where, now, default_zone(defaults), {**wanted, "active": active}, ("updated_at", since))
        found = client.find_triggers(chosen, sort=sort, limit=limit, token=page)
    rows = found.rows
    if output is not Output.TABLE:
        emit(dump([documents.trigger(row) for row in rows], output))
    elif not rows:
        note("no trigger matches")
    else:
        zone = common_zone((zone_of_document(row["automation"]) for row in rows), defaults)
        table(
            (
                Column("TRIGGER"),
                Column("SCHEDULE"),
                Column("STATE"),
                Column("IN", live=True),
                Column(f"NEXT ({zone.name})", rank=2),
                Column("LAST", rank=3, if_any=True),
                Column("VERSION", rank=4),
                Column("REVISION", rank=5, right=True),
                Column("ERROR", if_any=True, text=True),
            ),
            (
                (
                    shown(row, defaults, "task", "name"),
                    schedule_text(row["automation"]),
                    row["state"],
                    ago(row["next_fire_at"], now),
                    local(row["next_fire_at"], zone),
                    local(row["triggered_at"], zone),
                    row["version"],
                    row["revision"],
                    row["error"],
                )
                for row in rows
            ),
        )
    tell_of_the_next(found, "triggers")


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
            ("note", row["note"]),
            ("snoozed until", local(row["snoozed_until"], zone)),
            ("will skip", local(row["skip_next_at"], zone)),
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


@app.command("revisions")
@listing
def revisions(
    ctx: typer.Context,
    trigger: TriggerArgument,
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision", metavar="N", min=1, max=2**31 - 1, help="This one in full, with all the trigger said."
        ),
    ] = None,
    since: SinceOption = None,
    where: WhereOption = None,
    sort: SortOption = None,
    limit: LimitOption = 50,
    page: PageOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the changes of a trigger, newest first.

    Of a deleted one, too.
    """
    from scheduler.cli import documents
    from scheduler.cli.keys import trigger_key
    from scheduler.cli.paging import filters_of, tell_of_the_next
    from scheduler.cli.times import default_zone, local, schedule_text, utc

    scheduler = Invocation.of(ctx).app
    key = trigger_key(trigger, scheduler.settings.defaults)
    with scheduler.client() as client:
        if revision is not None:
            row = client.show_revision(key, revision)
            # What a trigger said is a tree: people read it best as YAML.
            emit(dump(documents.revision_in_full(row), Output.YAML if output is Output.TABLE else output))
            return
        chosen = filters_of(where, client.now(), default_zone(scheduler.settings.defaults), {}, ("at", since))
        found = client.find_revisions(key, chosen, sort=sort, limit=limit, token=page)
    rows = found.rows
    if output is not Output.TABLE:
        emit(dump([documents.revision(row) for row in rows], output))
        tell_of_the_next(found, "revisions")
        return
    if not rows:
        note("no revision matches")
        return
    table(
        (
            Column("REVISION", right=True),
            Column("ACTION"),
            Column("AT (UTC)"),
            Column("BY", rank=1),
            Column("VERSION", rank=2),
            Column("ACTIVE", rank=3),
            Column("SCHEDULE"),
            Column("NOTE", if_any=True, text=True),
        ),
        (
            (
                row["revision"],
                row["action"],
                local(row["at"], utc()),
                row["by"],
                row["version"],
                "yes" if row["active"] else "no",
                schedule_text(row["automation"]),
                row["note"],
            )
            for row in rows
        ),
    )
    tell_of_the_next(found, "revisions")


trigger_actions.add_to(app)
trigger_fire.add_to(app)
