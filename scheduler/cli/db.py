"""`scheduler db`: the database's schema, and what to do after a restore."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.guard import FAILED, Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.output import details, emit, note
from scheduler.cli.verbs import VerbGroup, new_group

app = new_group(VerbGroup, "Look after the database.")


@app.command("upgrade")
def upgrade(ctx: typer.Context) -> None:
    """Bring the schema up to date.

    An embedded database is made if it is not there.
    """
    before = Invocation.of(ctx).app.upgrade()
    if before.current:
        emit(f"the schema is {before.needed} already")
    else:
        emit(f"upgraded the schema from {before.found or 'none'} to {before.needed}")


@app.command("current")
def current(ctx: typer.Context) -> None:
    """Print which schema the database has and needs.

    The exit code is 1 unless they are the same.
    """
    state = Invocation.of(ctx).app.schema_state()
    details((("found", state.found or "none"), ("needed", state.needed)))
    if state.current:
        return
    note("run `scheduler db upgrade`" if state.known else "the schema is newer than this version of trigger-scheduler")
    raise typer.Exit(FAILED)


@app.command("restored")
def restored(
    ctx: typer.Context,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Fire what the backup owes, under each trigger's policy.")
    ] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Skip what the backup owes, and abort its open runs.")] = False,
) -> None:
    """Say that the database was restored from a backup.

    Say it before any worker is started on it. Workers of before are void: what they still send does not count. Slots that
    were decided after the backup was taken are owed again; their runs have the names and keys they had.
    """
    if catch_up == skip:
        raise Refused("choose what becomes of the slots the backup owes: --catch-up or --skip")
    with Invocation.of(ctx).app.client() as client:
        epoch = client.restored(catch_up=catch_up)
    owed = "what is owed will be caught up" if catch_up else "what was owed is skipped, open runs are aborted"
    emit(f"epoch {epoch} has begun: {owed}")
