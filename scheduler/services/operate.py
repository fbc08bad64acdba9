"""What an operator does to one trigger: activate, deactivate, fire by hand."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from scheduler.domain.identity import manual_run_name
from scheduler.domain.run import Kind, Phase
from scheduler.domain.task import check_json
from scheduler.errors import Conflict, NotFound, RevisionConflict
from scheduler.services.jobs import jobs_of
from scheduler.services.plan import Batch, Planning, plan_anew, write_plans
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction


class TriggerKey(NamedTuple):
    """Which trigger: project, domain, task and its own name."""

    project: str
    domain: str
    task: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


def set_active(
    tx: Transaction,
    key: TriggerKey,
    active: bool,
    planning: Planning,
    *,
    by: str,
    expected_revision: int | None = None,
) -> bool:
    """Activates or deactivates a trigger; returns False where it already was so.

    Deactivated, it owes nothing: due slots are skipped as paused, runs that have not started are aborted. Activated, its
    first slot is strictly after now. Raises `NotFound`, and `RevisionConflict` if somebody changed it first.
    """
    tx.tasks.lock(key.project, key.domain, key.task)
    trigger_id = _find(tx, key)["id"]
    due = tx.triggers.lock_due([trigger_id])
    row = tx.triggers.load([trigger_id])[trigger_id]
    if expected_revision is not None and row["revision"] != expected_revision:
        raise RevisionConflict(str(key), expected_revision, row["revision"])
    if bool(row["active"]) == active and row["snoozed_until"] is None:
        return False
    now = tx.now()
    changed = {
        "id": trigger_id,
        "active": active,
        "snoozed_until": None,
        "revision": row["revision"] + 1,
        "updated_at": now,
        "updated_by": by,
    }
    tx.triggers.update([changed])
    tx.triggers.append_revisions(
        [
            {
                "trigger_id": trigger_id,
                "revision": row["revision"] + 1,
                "action": "ACTIVATE" if active else "DEACTIVATE",
                "at": now,
                "by": by,
                "version": row["version"],
                "active": active,
                "spec": row["deployed"] or "{}",
            }
        ]
    )
    batch = Batch()
    plan_anew(tx, due.values(), tx.triggers.load([trigger_id]), planning, batch, old_jobs=jobs_of([row]))
    write_plans(tx, batch)
    tx.tasks.refresh_summary([row["task_id"]])
    tx.notify()
    return True


def fire_by_hand(
    tx: Transaction, key: TriggerKey, *, inputs: Mapping[str, Any] | None = None, request_key: str | None = None
) -> str:
    """Queues a run of the trigger's task now; returns its name.

    The same `request_key` gives the same run, so a caller may repeat itself; without one every call is a run of its own.
    Raises `NotFound`, `SpecError` for inputs that JSON cannot carry, and `Conflict` where the task has no version yet.
    """
    row = _find(tx, key)
    overrides = dict(inputs or {})
    check_json(overrides, "inputs")
    if row["spec_digest"] is None:
        raise Conflict(f"trigger {str(key)!r} has not been planned yet: its task needs a deployed version")
    now = tx.now()
    name = manual_run_name(*key, request_key or secrets.token_hex(8))
    tx.runs.insert_manual(
        {
            "name": name,
            "kind": Kind.MANUAL.value,
            "trigger_id": row["id"],
            "task_id": row["task_id"],
            "version": row["version"],
            "spec_digest": row["spec_digest"],
            "revision": row["revision"],
            "inputs": json.dumps(json.loads(row["inputs"]) | overrides, separators=(",", ":"), ensure_ascii=False),
            "kickoff_arg": row["kickoff_arg"],
            "executor": row["executor"],
            "gated": False,
            "deadline_at": None if row["deadline"] is None else now + row["deadline"],
            "phase": Phase.QUEUED.value,
            "priority": 0,
            "not_before": now,
            "fence": 0,
            "created_at": now,
        }
    )
    tx.notify()
    return name


def _find(tx: Transaction, key: TriggerKey) -> Row:
    row = tx.triggers.find(*key)
    if row is None:
        raise NotFound("trigger", str(key))
    return row
