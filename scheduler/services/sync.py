"""Finding what anyone wrote: triggers changed by plain SQL, new zone data, a clock that was set back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from scheduler.domain.instants import SECOND
from scheduler.domain.planning import Plan
from scheduler.services.jobs import is_live, job_of, row_when_planned, shifted_anchor
from scheduler.services.plan import Batch, Planning, decide, plan_anew, set_aside, write_changes, write_plans
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import DueRow, PlanChange

_ZONES_KEY = "planned_with"


def sync_triggers(tx: Transaction, planning: Planning, limit: int, *, only: int | None = None) -> tuple[int, list[int]]:
    """Plans at most `limit` triggers whose plan was made from something else than what stands there now.

    Returns how many it planned (as many as `limit` means there may be more) and their tasks, whose summaries the caller
    refreshes in a transaction of its own: a task is never locked after a trigger. `only` narrows it to one trigger, to
    find the one that spoils a batch.
    """
    if only is None:
        dues = _unplanned(tx, planning, limit)
    else:
        dues = list(tx.triggers.lock_due([only]).values())
    return len(dues), _plan(tx, dues, planning)


def unplanned_triggers(tx: Transaction, planning: Planning, limit: int) -> list[int]:
    """The ids of the triggers that `sync_triggers` would plan."""
    return [due.trigger_id for due in _unplanned(tx, planning, limit)]


def refresh_summaries(tx: Transaction, task_ids: Sequence[int]) -> None:
    """Counts the triggers of these tasks anew."""
    if task_ids:
        tx.tasks.refresh_summary(task_ids)


def record_zones(tx: Transaction, zones: str) -> None:
    """A database without triggers was planned with whatever zone data this process has: there is nothing to walk."""
    if tx.meta.get(_ZONES_KEY) is None and not tx.triggers.any_planned():
        tx.meta.put(_ZONES_KEY, zones)


def plan_with_new_zones(tx: Transaction, planning: Planning, zones: str, after: int, limit: int) -> int | None:
    """One batch of the walk that new zone data calls for; returns where to go on, None when all is done.

    `zones` is the version of the zone data this worker has. A walk that is cut short starts again with the next worker.
    """
    if tx.meta.get(_ZONES_KEY) == zones:
        return None
    dues = tx.triggers.claim_after(after, limit)
    if not dues:
        tx.meta.put(_ZONES_KEY, zones)
        return None
    _plan(tx, dues, planning)
    return dues[-1].trigger_id


def plan_after_clock_set_back(tx: Transaction, planning: Planning, limit: int) -> int:
    """Plans triggers anew whose position lies ahead of now by more than the grace; returns how many.

    Slots that have a run already keep it: the old position is remembered until it is passed. Skipped ranges are cut off at
    now, and their slots ahead of it are decided when they are due.
    """
    now = tx.now()
    beyond = now + planning.misfire_grace
    tx.runs.release_future(now, beyond)
    dues = tx.triggers.claim_ahead(limit, beyond)
    rows = tx.triggers.load(due.trigger_id for due in dues)
    batch = Batch()
    for due in dues:
        row = rows.get(due.trigger_id)
        if row is None or not is_live(row, now) or row["activated_at"] is None:
            continue  # One that was switched on since it was planned is the next look's.
        try:
            anchor = shifted_anchor(row, now)
            activated = min(row["activated_at"], now)
            # What was written since it was planned is the next look's.
            job = job_of(row_when_planned(row) or row, activated_at=activated, anchor_at=anchor)
        except ValueError as error:
            set_aside(due, row, error, planning, batch)
            continue
        old = PlanChange(due.trigger_id, *(row[name] for name in PlanChange._fields[1:]))
        batch.changes.append(
            old._replace(activated_at=activated, anchor_at=row["anchor_at"] if anchor is None else anchor)
        )
        position = now - now % SECOND
        spent = job.max_fires is not None and due.fires >= job.max_fires
        next_slot = None if spent else job.next_after(position)
        plan = Plan((), (), position, next_slot, None if next_slot is None else job.due_at(next_slot))
        high = max(due.last_slot or 0, due.decided_to or 0) or None
        decide(batch, due._replace(decided_to=high), row, job, plan, now)
        batch.rewound[due.trigger_id] = (job, now)
    write_changes(tx, batch)
    return len(dues)


def _unplanned(tx: Transaction, planning: Planning, limit: int) -> list[DueRow]:
    dues = tx.triggers.claim_unplanned(limit)
    if len(dues) >= limit:
        return dues
    # What is set aside may have been written to as well: it is planned once, and takes nobody else's place.
    found = {due.trigger_id for due in dues}
    aside = tx.triggers.claim_quarantined(planning.fingerprint, limit)
    chosen = list(islice((due for due in aside if due.trigger_id not in found), limit - len(dues)))
    if chosen:
        tx.retries.begin([due.trigger_id for due in chosen], tx.now())
    return [*dues, *chosen]


def _plan(tx: Transaction, dues: list[DueRow], planning: Planning) -> list[int]:
    if not dues:
        return []
    rows = tx.triggers.load(due.trigger_id for due in dues)
    batch = Batch()
    plan_anew(tx, dues, rows, planning, batch)
    write_plans(tx, batch)
    return sorted({row["task_id"] for row in rows.values()})
