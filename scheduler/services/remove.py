"""Taking tasks and versions away: never what happened, and never what something still needs."""

from __future__ import annotations

from scheduler.errors import Conflict, NotFound
from scheduler.services.many import delete_triggers
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from scheduler.store.transaction import Transaction


def delete_task(
    tx: Transaction, project: str, domain: str, name: str, planning: Planning, *, by: str
) -> list[TriggerKey]:
    """Takes a task out of the listings, and deletes its triggers, whoever deployed them; returns those.

    Versions, revisions and runs stay. A deploy brings the task back, a restart does not. Raises `NotFound`.
    """
    key = (project, domain, name)
    task = tx.tasks.lock_present([key]).get(key)
    if task is None or task["deleted_at"] is not None:
        raise NotFound("task", "/".join(key))
    live = [TriggerKey(*key, row["name"]) for row in tx.triggers.of_task(task["id"]) if row["deleted_at"] is None]
    deleted = delete_triggers(tx, live, planning, by=by)
    tx.tasks.mark_deleted(task["id"], tx.now())
    return deleted


def delete_version(tx: Transaction, project: str, domain: str, name: str, version: str) -> None:
    """Removes one version of a task; runs that pinned it are not touched.

    Raises `NotFound`, and `Conflict` where a trigger points at it or it is the latest of a task that is not deleted.
    """
    key = (project, domain, name)
    task = tx.tasks.lock_present([key]).get(key)
    if task is None or tx.tasks.version_of(task["id"], version) is None:
        raise NotFound("task version", "/".join((*key, version)))
    if task["deleted_at"] is None and task["latest_version"] == version:
        raise Conflict(
            f"{version} is the latest version of {'/'.join(key)}: deploy another one first, or delete the task"
        )
    pointing = [
        row["name"]
        for row in tx.triggers.of_task(task["id"])
        if row["deleted_at"] is None and row["version"] == version
    ]
    if pointing:
        raise Conflict(
            f"{version} of {'/'.join(key)} is what its trigger {pointing[0]!r} runs: delete the trigger first"
        )
    tx.tasks.delete_version(task["id"], version)
