"""`scheduler db`: the database's schema."""

from __future__ import annotations

import typer

from scheduler.cli.guard import FAILED
from scheduler.cli.invocation import Invocation
from scheduler.cli.output import details, emit, note
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look after the database's schema.")


@app.command("upgrade")
def upgrade(ctx: typer.Context) -> None:
    """Bring the schema up to date; an embedded database is made if it is not there."""
    before = Invocation.of(ctx).app.upgrade()
    if before.current:
        emit(f"the schema is {before.needed} already")
    else:
        emit(f"upgraded the schema from {before.found or 'none'} to {before.needed}")


@app.command("current")
def current(ctx: typer.Context) -> None:
    """Print which schema the database has and which one is needed; exit 1 unless they are the same."""
    state = Invocation.of(ctx).app.schema_state()
    details((("found", state.found or "none"), ("needed", state.needed)))
    if state.current:
        return
    note("run `scheduler db upgrade`" if state.known else "the schema is newer than this version of trigger-scheduler")
    raise typer.Exit(FAILED)
