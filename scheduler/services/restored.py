"""After a restore from a backup: a new epoch, in which nothing that was under way before counts."""

from __future__ import annotations

from scheduler.domain.instants import Micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason
from scheduler.domain.planning import Plan
from scheduler.domain.settling import skip_owed
from scheduler.errors import SpecError
from scheduler.services.jobs import is_live, job_of
from scheduler.services.plan import Batch, Planning, decide, entries_before, plan_anew, position_of, write_plans
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import DueRow


def begin_epoch(tx: Transaction) -> int:
    """Declares every worker of before void: their late results do not count, their runs are taken back. Returns the epoch.

    A worker that still runs notices at its next renewal, ends what it executes and comes back as somebody new.
    """
    epoch = tx.meta.begin_epoch()
    tx.workers.void_all()
    tx.notify()
    return epoch


def abort_restored(tx: Transaction, limit: int) -> int:
    """Open runs of the backup end ABORTED, at most `limit`: nobody knows which of them ended since. Returns how many."""
    return tx.runs.abort_open(tx.now(), limit, "aborted: the database was restored from a backup")


def skip_restored(tx: Transaction, planning: Planning, limit: int) -> tuple[int, list[int]]:
    """Skips the slots that are due, of at most `limit` triggers, as `restored`.

    Returns how many triggers it claimed, and the tasks of those that somebody had written to: their summaries are the
    caller's to refresh, in another transaction.
    """
    dues = tx.triggers.claim_due(limit)
    rows = tx.triggers.load(due.trigger_id for due in dues)
    now = tx.now()
    batch, changed = Batch(), []
    for due in dues:
        row = rows.get(due.trigger_id)
        job = _planned_job(row, due, now)
        if row is None or job is None:
            changed.append(due)
            continue
        position = position_of(due, now)
        decided = entries_before(tx, due, position)
        old = skip_owed(job, due.next_slot, now, Reason.RESTORED, due_only=True, decided=decided)
        # Behind the last one that is skipped, not behind now: one that its jitter holds back is still to come.
        next_slot = job.next_after(old.position if old.position is not None else position)
        plan = Plan((), old.skips, old.position, next_slot, None if next_slot is None else job.due_at(next_slot))
        decide(batch, due, row, job, plan, now)
    plan_anew(tx, changed, rows, planning, batch)
    write_plans(tx, batch)
    return len(dues), sorted({rows[due.trigger_id]["task_id"] for due in changed if due.trigger_id in rows})


def _planned_job(row: Row | None, due: DueRow, now: Micros) -> Job | None:
    """The job that the plan was made from; None for a trigger that was written to since, which is planned anew."""
    if row is None or not is_live(row, now):
        return None
    try:
        job = job_of(row)
    except SpecError:
        return None
    # With other zone data it has another fingerprint, though nobody wrote to it.
    unwritten = row["planned_from"] == row["plan_source"]
    return job if unwritten or job.fingerprint == due.fingerprint else None
