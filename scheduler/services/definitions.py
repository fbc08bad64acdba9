"""Reading the history of definitions: versions of tasks, revisions of triggers."""

from __future__ import annotations

import json
from typing import Any

from scheduler.errors import NotFound
from scheduler.services.operate import TriggerKey
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction


def list_versions(tx: Transaction, project: str, domain: str, name: str, *, limit: int = 50) -> list[dict[str, Any]]:
    """The versions of a task, newest first; raises `NotFound`."""
    task = tx.tasks.find(project, domain, name)
    if task is None or task["deleted_at"] is not None:
        raise NotFound("task", f"{project}/{domain}/{name}")
    return [_version(row) for row in tx.tasks.versions(task["id"], limit)]


def list_revisions(tx: Transaction, key: TriggerKey, *, limit: int = 50) -> list[dict[str, Any]]:
    """The changes of a trigger, newest first, a deleted one's too; raises `NotFound`."""
    return [_revision(row) for row in tx.triggers.revisions(_trigger_id(tx, key), limit)]


def show_revision(tx: Transaction, key: TriggerKey, revision: int) -> dict[str, Any]:
    """One revision with all that the trigger said then, in the words of a deploy; raises `NotFound`."""
    row = tx.revisions.find(_trigger_id(tx, key), revision)
    if row is None:
        raise NotFound("revision", f"{key}@{revision}")
    return _revision(row) | {"spec": json.loads(row["spec"])}


def _trigger_id(tx: Transaction, key: TriggerKey) -> int:
    found = tx.revisions.trigger_id(*key)
    if found is None:
        raise NotFound("trigger", str(key))
    return found


def _version(row: Row) -> dict[str, Any]:
    return {
        "version": row["version"],
        "digest": row["spec_digest"],
        "environment": row["environment"],
        "function_name": row["function_name"],
        "description": row["description"],
        "deployed_at": row["deployed_at"],
        "deployed_by": row["deployed_by"],
    }


def _revision(row: Row) -> dict[str, Any]:
    return {
        "revision": row["revision"],
        "action": row["action"],
        "at": row["at"],
        "by": row["by"],
        "version": row["version"],
        "active": bool(row["active"]),
        "automation": json.loads(row["spec"]).get("automation"),
        "note": row["note"],
    }
