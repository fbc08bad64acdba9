"""What an operator does to one trigger: activate, deactivate, snooze, skip its next slot, fire by hand."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from scheduler.domain.identity import manual_run_name
from scheduler.domain.instants import Micros, to_rfc3339
from scheduler.domain.run import Kind, Phase
from scheduler.domain.values import check_json
from scheduler.errors import Conflict, NotFound, RevisionConflict, SpecError
from scheduler.services.jobs import is_live, job_of, to_come_after, wakes_at
from scheduler.services.plan import Planning, pointed_versions
from scheduler.services.switch import switch_triggers
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
    tx.triggers.lock_due([trigger_id])
    row = tx.triggers.load([trigger_id])[trigger_id]
    if expected_revision is not None and row["revision"] != expected_revision:
        raise RevisionConflict(str(key), expected_revision, row["revision"])
    if bool(row["active"]) == active and wakes_at(row, tx.now()) is None:
        return False
    switch_triggers(tx, [trigger_id], active, planning, by=by)
    return True


def skip_next(tx: Transaction, key: TriggerKey) -> Micros | None:
    """The slot that fires next will be skipped; returns it, or None where nothing is to come. Raises `NotFound`.

    It is the one that listings show as next, also while it waits out its jitter. What is due already, and only waits for a
    worker, is not to come: the slot after it is skipped. Asked twice before that slot is decided, it is the same slot.
    """
    trigger_id = _find(tx, key)["id"]
    due = tx.triggers.lock_due([trigger_id])[trigger_id]
    row = tx.triggers.load([trigger_id])[trigger_id]
    now = tx.now()
    if not is_live(row, now) and wakes_at(row, now) is None:
        return None
    job = job_of(row)
    if job.max_fires is not None and due.fires >= job.max_fires:
        return None
    after = to_come_after(row, job, due.next_slot, now)
    if due.next_slot is None and row["planned_from"] == row["plan_source"]:
        after = max(after, due.last_slot or 0)  # All is decided, by a clock that was ahead perhaps.
    slot = job.next_free(after)
    if slot is not None:
        tx.triggers.update([{"id": trigger_id, "skip_next_at": slot}])
    return slot


def snooze(tx: Transaction, key: TriggerKey, until: Micros, planning: Planning, *, by: str) -> None:
    """A trigger owes nothing until an instant, and then goes on by itself: its next slot is strictly after it.

    Raises `NotFound`, `Conflict` for an inactive trigger and `SpecError` for an instant that is past.
    """
    tx.tasks.lock(key.project, key.domain, key.task)
    row = _find(tx, key)
    tx.triggers.lock_due([row["id"]])
    if not row["active"]:
        raise Conflict(f"trigger {str(key)!r} is inactive already: activate it to end that, or leave it so")
    if until <= tx.now():
        raise SpecError("until", f"{to_rfc3339(until)} is past: a snooze ends in the future")
    note = f"snoozed until {to_rfc3339(until)}"
    switch_triggers(tx, [row["id"]], True, planning, by=by, notes={row["id"]: note}, snoozed_until=until)


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
    # What is written down, also where no worker has looked at it: a run pins a version and that version's specification.
    pinned = pointed_versions(tx, [row]).get(row["id"])
    if pinned is None:
        raise Conflict(f"trigger {str(key)!r} points at version {row['version']!r}, which its task does not have")
    now = tx.now()
    name = manual_run_name(*key, request_key or secrets.token_hex(8))
    tx.runs.insert_manual(
        {
            "name": name,
            "kind": Kind.MANUAL.value,
            "trigger_id": row["id"],
            "task_id": row["task_id"],
            "version": pinned.version,
            "spec_digest": pinned.spec_digest,
            "revision": row["revision"],
            "inputs": json.dumps(json.loads(row["inputs"]) | overrides, separators=(",", ":"), ensure_ascii=False),
            "kickoff_arg": row["kickoff_arg"],
            "executor": pinned.executor,
            "gated": pinned.gated,
            "deadline_at": None if pinned.deadline is None else now + pinned.deadline,
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
