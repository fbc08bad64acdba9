"""`scheduler slots`: the ledger of a trigger, which says what became of every slot."""

from __future__ import annotations

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import LimitOption, OutputOption, SinceOption, TriggerArgument
from scheduler.cli.output import Output, cut, dump, emit, note
from scheduler.cli.tables import Column, is_narrow, listing, table
from scheduler.cli.verbs import new_app

app = new_app()


@app.command()
@listing
def slots(
    ctx: typer.Context,
    trigger: TriggerArgument,
    since: SinceOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say what became of each slot of a trigger: the newest ones, oldest first.

    A slot was run, or skipped with a reason; a range of skipped slots is one row. Pruned slots were run, longer ago than
    history is kept.
    """
    from scheduler.cli import documents
    from scheduler.cli.keys import short_names, trigger_key
    from scheduler.cli.time_arguments import since_instant
    from scheduler.cli.times import local, zone_of_document

    scheduler = Invocation.of(ctx).app
    key = trigger_key(trigger, scheduler.settings.defaults)
    with scheduler.client() as client:
        zone = zone_of_document(client.show_trigger(key)["automation"])
        start = since_instant(since, client.now(), zone)
        rows = client.list_slots(key, limit + 1)
    if start is not None:
        rows = [row for row in rows if (row["scheduled_at"] if row["kind"] == "run" else row["to"]) >= start]
    rows = cut(rows, limit, "slots", newest_last=True)
    if output is not Output.TABLE:
        emit(dump([documents.slot(row) for row in rows], output))
    elif not rows:
        note("no slot yet" if start is None else "no slot since then")
    else:
        shown_run = short_names((row["run"] for row in rows if row["kind"] == "run"), short=is_narrow())
        table(
            (
                Column(f"SLOT ({zone.name})"),
                Column("UNTIL", if_any=True),
                Column("SLOTS", right=True, rank=1),
                Column("BECAME", rank=2),
                Column("WHY"),
                Column("RUN", rank=3),
            ),
            (
                (local(row["scheduled_at"], zone), None, 1, "run", row["phase"], shown_run(row["run"]))
                if row["kind"] == "run"
                else (
                    local(row["from"], zone),
                    local(row["to"], zone) if row["to"] != row["from"] else None,
                    row["count"],
                    row["kind"],
                    row["reason"] if row["kind"] == "skipped" else None,
                    None,
                )
                for row in rows
            ),
        )
