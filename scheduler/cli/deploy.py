"""`scheduler deploy`: from manifests to tasks and triggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from scheduler.cli.guard import Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.output import counted, emit, note, one_line
from scheduler.cli.verbs import new_app

if TYPE_CHECKING:
    from scheduler.app import App
    from scheduler.client import DeployResult
    from scheduler.manifests import Manifests

app = new_app()

_DID: Final = (("+", "created"), ("~", "changed"), ("=", "unchanged"), ("-", "pruned"))


@app.command()
def deploy(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...", help="Manifests, files or folders; else those of the settings.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
) -> None:
    """Deploy tasks and their triggers from manifests.

    Nothing is deployed if anything is wrong in any file. Triggers that a task's manifest deployed before and does not
    name now are deleted.
    """
    scheduler = Invocation.of(ctx).app
    if not paths and not scheduler.settings.tasks:
        raise Refused("no manifests: name files or folders, or set `tasks` in the settings")
    manifests = scheduler.load_manifests(paths or None)
    for warning in scheduler.warnings(manifests):
        note(f"warning: {warning}")
    tasks: Counter[str] = Counter()
    triggers: Counter[str] = Counter()
    for result in _would_deploy(scheduler, manifests) if dry_run else _deploy(scheduler, manifests):
        emit(one_line(f"{result.key} {result.version} {'deployed' if result.applied else 'unchanged'}"))
        tasks["deployed" if result.applied else "unchanged"] += 1
        for symbol, did in _DID:
            names = getattr(result, did)
            triggers[did] += len(names)
            if names and result.applied:
                emit(one_line(f"  {symbol} {did}: {', '.join(names)}"))
    told = ", ".join(f"{triggers[did]} {did}" for _, did in _DID)
    emit(
        f"{'dry run, nothing was written: ' if dry_run else ''}{counted(tasks.total(), 'task')}: "
        f"{tasks['deployed']} deployed, {tasks['unchanged']} unchanged; triggers: {told}"
    )


def _deploy(scheduler: App, manifests: Manifests) -> Iterator[DeployResult]:
    with scheduler.deploying_client() as client:
        yield from client.deploy(manifests.definitions)


def _would_deploy(scheduler: App, manifests: Manifests) -> Iterator[DeployResult]:
    from scheduler.client import DeployResult

    if scheduler.schema_state().found is None:
        # A dry run makes no database; without one, everything would be new.
        for definition in manifests.definitions:
            names = tuple(trigger.name for trigger in definition.triggers)
            yield DeployResult(definition.key, definition.version, True, created=names)
        return
    with scheduler.client() as client:
        yield from client.deploy(manifests.definitions, dry_run=True)
