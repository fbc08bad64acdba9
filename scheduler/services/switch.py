"""Switching triggers on and off: whoever does it, their plans, their waiting runs and their history follow at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.domain.instants import Micros
from scheduler.services.jobs import jobs_of
from scheduler.services.plan import Batch, Planning, plan_anew, write_plans
from scheduler.services.standing import standing_document
from scheduler.store.transaction import Transaction


def switch_triggers(
    tx: Transaction,
    trigger_ids: Iterable[int],
    active: bool,
    planning: Planning,
    *,
    by: str,
    notes: Mapping[int, str] | None = None,
    snoozed_until: Micros | None = None,
) -> None:
    """Makes triggers active or not; the caller holds their tasks and their places in the due-queue.

    Inactive, they owe nothing: due slots are skipped as paused, runs that have not started are aborted. Active, their
    first slot is strictly after now, or after `snoozed_until`. `notes` say why, by trigger.
    """
    wanted = sorted(trigger_ids)
    rows = tx.triggers.load(wanted)
    dues = tx.triggers.lock_due(wanted)
    now = tx.now()
    snoozed = snoozed_until is not None
    notes = notes or {}
    tx.triggers.update(
        [
            {
                "id": key,
                "active": active,
                "snoozed_until": snoozed_until,
                "note": notes.get(key),
                "revision": row["revision"] + 1,
                "updated_at": now,
                "updated_by": by,
            }
            for key, row in rows.items()
        ]
    )
    tx.triggers.append_revisions(
        [
            {
                "trigger_id": key,
                "revision": row["revision"] + 1,
                "action": "ACTIVATE" if active and not snoozed else "DEACTIVATE",
                "at": now,
                "by": by,
                "version": row["version"],
                "active": active and not snoozed,
                "spec": standing_document(row),
                "note": notes.get(key),
            }
            for key, row in rows.items()
        ]
    )
    batch = Batch()
    stood, activated = jobs_of(rows.values()), wanted if active else ()
    # Of a snooze that is cut short the planned activation must not stay.
    plan_anew(tx, dues.values(), tx.triggers.load(wanted), planning, batch, old_jobs=stood, activated=activated)
    write_plans(tx, batch)
    tx.tasks.refresh_summary(sorted({row["task_id"] for row in rows.values()}))
    tx.notify()
