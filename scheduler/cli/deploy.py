"""`scheduler deploy`: from manifests to tasks and triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.guard import Refused, exit_code, lines
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import OutputOption
from scheduler.cli.output import Output, dump, emit, note
from scheduler.cli.verbs import new_app
from scheduler.errors import Conflict, NotFound, SpecError

if TYPE_CHECKING:
    from scheduler.app import App
    from scheduler.client import DeployPlan
    from scheduler.domain.task import TaskDefinition

    Deploy = Callable[[TaskDefinition], DeployPlan]

app = new_app()


@app.command()
def deploy(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH", help="Manifests, files or folders; else those of the settings.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Deploy tasks and their triggers from manifests, and say what that changes.

    Nothing is deployed if anything is wrong in any file. Triggers that a task's manifest deployed before and does not
    name now are deleted.
    """
    from scheduler.cli.plans import Tally, plan_document, plan_lines
    from scheduler.cli.progress import progress

    scheduler = Invocation.of(ctx).app
    if not paths and not scheduler.settings.tasks:
        raise Refused("no manifests: name files or folders, or set `tasks` in the settings")
    manifests = scheduler.load_manifests(paths or None)
    for warning in scheduler.warnings(manifests):
        note(f"warning: {warning}")
    plans: list[DeployPlan] = []
    tally, codes = Tally(), []
    try:
        with (
            _dry(scheduler) if dry_run else _real(scheduler) as deploy_one,
            progress(len(manifests.definitions), "planning" if dry_run else "deploying") as (advance, tell),
        ):
            for definition in manifests.definitions:
                try:
                    plan = deploy_one(definition)
                except (SpecError, Conflict, NotFound) as error:
                    # Each task is a transaction of its own: what is wrong with one keeps no other from being deployed.
                    codes.append(exit_code(error))
                    for line in lines(error):
                        note(f"{definition.key}: {line}")
                    continue
                finally:
                    advance()
                tally.add(plan)
                for trigger in plan.triggers:
                    if trigger.warning is not None:
                        note(f"warning: {plan.key}/{trigger.name} fires no more: {trigger.warning}")
                if output is Output.TABLE:
                    tell("\n".join(plan_lines(plan)))
                else:
                    plans.append(plan)
    finally:
        # Also when the database goes away half-way: what is told was done.
        if output is not Output.TABLE:
            emit(dump([plan_document(plan) for plan in plans], output))
    if output is Output.TABLE:
        emit(f"{'dry run, nothing was written: ' if dry_run else ''}{tally.text()}")
    if codes:
        raise typer.Exit(min(codes))


@contextmanager
def _real(scheduler: App) -> Iterator[Deploy]:
    with scheduler.deploying_client() as client:
        yield lambda definition: next(client.deploy_planned([definition]))


@contextmanager
def _dry(scheduler: App) -> Iterator[Deploy]:
    from scheduler.client import plan_of_new
    from scheduler.clock import SystemClock

    if scheduler.schema_state().found is None:
        # A dry run makes no database; without one, everything would be new.
        now = SystemClock().now()
        yield lambda definition: plan_of_new(definition, now)
        return
    with scheduler.client() as client:
        yield lambda definition: next(client.plan_deploy([definition]))
