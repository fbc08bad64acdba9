"""A deploy of everything that one source wants: what it no longer names is taken away, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.domain.task import Environment, TaskDefinition
from scheduler.errors import Conflict
from scheduler.services.deploy import DeployResult, Source, deploy_task
from scheduler.services.plan import Planning
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction


def deploy_set(
    tx: Transaction, definitions: Sequence[TaskDefinition], planning: Planning, *, by: str, source: Source
) -> list[DeployResult]:
    """Makes the definitions' triggers the whole set of this source; triggers of other sources stay as they are.

    Tasks, projects and domains are made as needed. A task that is no longer named keeps its version and loses the source's
    triggers. Raises `Conflict` where a trigger of that name belongs to another source.
    """
    wanted = {(item.project, item.domain, item.name): item for item in definitions}
    abandoned = [key for key in tx.tasks.with_triggers_of(source) if key not in wanted]
    tx.tasks.ensure_projects({project: _domains(wanted, project) for project, _, _ in wanted})
    # Every task before any trigger, and always in one order: two sets deployed at once wait instead of deadlocking.
    rows = {key: tx.tasks.lock(*key) for key in sorted({*wanted, *abandoned})}
    for key, definition in wanted.items():
        _refuse_what_others_deployed(tx, rows[key], definition, source)
    everything = wanted | {key: _without_triggers(tx, rows[key]) for key in abandoned}
    return [deploy_task(tx, everything[key], planning, by=by, source=source) for key in rows]


def _domains(wanted: dict[tuple[str, str, str], TaskDefinition], project: str) -> set[str]:
    return {key[1] for key in wanted if key[0] == project}


def _refuse_what_others_deployed(tx: Transaction, task: Row, definition: TaskDefinition, source: Source) -> None:
    names = {trigger.name for trigger in definition.triggers}
    for row in tx.triggers.of_task(task["id"]):
        if row["name"] in names and row["deleted_at"] is None and row["source"] != source:
            raise Conflict(
                f"trigger {definition.key}/{row['name']} exists already and comes from {row['source']}: "
                "take it away there, or choose another name"
            )


def _without_triggers(tx: Transaction, task: Row) -> TaskDefinition:
    version = tx.tasks.version_of(task["id"], task["latest_version"])
    assert version is not None  # a task with deployed triggers has the version they came with
    return TaskDefinition(
        task["project"],
        task["domain"],
        task["name"],
        version["version"],
        tx.tasks.specs([version["spec_digest"]])[version["spec_digest"]],
        environment=Environment(version["environment"], version["environment_description"]),
        description=version["description"],
        long_description=version["long_description"],
    )
