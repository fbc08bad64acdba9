"""`scheduler workers`: who executes."""

from __future__ import annotations

import typer

from scheduler.cli.invocation import Invocation
from scheduler.cli.options import LimitOption, OutputOption
from scheduler.cli.output import Output, cut, dump, emit, note, table
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look at the living workers.")


@app.command("list")
def list_workers(ctx: typer.Context, limit: LimitOption = 50, output: OutputOption = Output.TABLE) -> None:
    """List the living workers and how many runs each holds."""
    from scheduler.cli import documents
    from scheduler.cli.times import local, utc

    with Invocation.of(ctx).app.client() as client:
        rows = client.list_workers()
    rows = cut(rows, limit, "workers")
    if output is not Output.TABLE:
        emit(dump([documents.worker(row) for row in rows], output))
    elif not rows:
        note("no worker is alive: `scheduler serve` runs one")
    else:
        table(
            ("WORKER", "VERSION", "STARTED", "RENEWED", "LEASE UNTIL", "RUNNING", "WAITS"),
            (
                (
                    row["name"],
                    row["version"],
                    local(row["started_at"], utc()),
                    local(row["renewed_at"], utc()),
                    local(row["lease_until"], utc()),
                    row["running"],
                    row["waits"],
                )
                for row in rows
            ),
            right=("RUNNING", "WAITS"),
        )
