"""`scheduler workers`: who executes."""

from __future__ import annotations

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import LimitOption, OutputOption
from scheduler.cli.output import Output, cut, dump, emit, note
from scheduler.cli.tables import Column, listing, table
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look at the living workers.")


@app.command("list")
@listing
def list_workers(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List the living workers and how many runs each holds."""
    from scheduler.cli import documents
    from scheduler.cli.times import ago, local, utc

    with Invocation.of(ctx).app.client() as client:
        rows, now = client.list_workers(), client.now()
    rows = cut(rows, limit, "workers")
    if output is not Output.TABLE:
        emit(dump([documents.worker(row) for row in rows], output))
    elif not rows:
        note("no worker is alive: `scheduler serve` runs one")
    else:
        table(
            (
                Column("WORKER"),
                Column("RUNNING", right=True),
                Column("WAITS", right=True),
                Column("SEEN", live=True),
                Column("VERSION", rank=2),
                Column("STARTED (UTC)", rank=1),
                Column("RENEWED (UTC)", rank=4),
                Column("LEASE UNTIL (UTC)", rank=3),
            ),
            (
                (
                    row["name"],
                    row["running"],
                    row["waits"],
                    ago(row["renewed_at"], now),
                    row["version"],
                    local(row["started_at"], utc()),
                    local(row["renewed_at"], utc()),
                    local(row["lease_until"], utc()),
                )
                for row in rows
            ),
        )
