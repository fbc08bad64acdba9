"""Taking over from workers that are gone: by state, never by event, so any replica may do it at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.instants import Micros
from scheduler.domain.retry import delay_after_loss
from scheduler.domain.run import Kind, Phase
from scheduler.services.pause import lock_pausing, pause_failing
from scheduler.services.plan import Planning
from scheduler.store.rows import Row
from scheduler.store.run_endings import LostRun
from scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Recovered:
    """Workers declared dead, runs queued again, runs that ended, triggers paused because theirs kept failing."""

    workers: tuple[str, ...] = ()
    requeued: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()

    @property
    def more(self) -> bool:
        """Whether another pass may find more."""
        return bool(self.requeued or self.failed)


def recover_runs(
    tx: Transaction,
    me: str,
    *,
    lease: Micros,
    max_lost: int,
    limit: int,
    judge: bool = True,
    planning: Planning | None = None,
) -> Recovered:
    """Declares workers dead whose lease is over (if `judge`) and takes their runs back.

    The first loss is queued again at once, the n-th after lease × 2ⁿ⁻² and up to a lease more; at `max_lost`, or where the
    task says `on_lost: fail`, the run ends FAILED. One whose cancel is owed ends ABORTED.
    """
    buried = tx.workers.bury_expired(me, lease) if judge else []
    seen = tx.runs.orphans(limit, lock=False)
    if not seen:
        return Recovered(workers=tuple(buried))
    # Tasks and triggers are locked before runs, everywhere: so it is seen first which runs are about to fail.
    may_fail = [row["trigger_id"] for row in seen if row["kind"] == Kind.SCHEDULED.value]
    pausing = lock_pausing(tx, may_fail)
    now = tx.now()
    rows = _outcomes(tx, tx.runs.orphans(limit), now, lease, max_lost)
    tx.runs.requeue_lost(rows, now)
    return Recovered(
        workers=tuple(buried),
        requeued=tuple(row.name for row in rows if row.phase == Phase.QUEUED),
        failed=tuple(row.name for row in rows if row.phase != Phase.QUEUED),
        paused=pause_failing(tx, pausing, planning or Planning()),
    )


def expire_runs(
    tx: Transaction, limit: int, planning: Planning | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Queued runs whose deadline is over end TIMED_OUT; returns their names and the triggers this paused."""
    now = tx.now()
    overdue = tx.runs.overdue(now, limit)
    if not overdue:
        return (), ()
    pausing = lock_pausing(tx, overdue)
    return tuple(tx.runs.expire(now, limit)), pause_failing(tx, pausing, planning or Planning())


def hand_back(tx: Transaction, owner: str, held: Sequence[tuple[str, int]]) -> int:
    """Gives unfinished runs back to the queue and wakes the other workers; returns how many were still ours.

    One whose cancel is owed ends ABORTED: its code has ended.
    """
    count = tx.runs.hand_back(owner, held, tx.now())
    if count:
        tx.notify()
    return count


def _outcomes(tx: Transaction, orphans: Sequence[Row], now: Micros, lease: Micros, max_lost: int) -> list[LostRun]:
    specs = tx.tasks.specs(row["spec_digest"] for row in orphans)
    rows = []
    for row in orphans:
        lost, at, phase, error = row["lost"] + 1, now, Phase.FAILED, "lost its worker"
        if row["intent"] is not None:
            phase, error = Phase.ABORTED, f"{row['intent_note']}; its worker was lost"
        elif specs[row["spec_digest"]].on_lost == "retry" and lost >= max_lost:
            error = f"lost its worker {lost} times"
        elif specs[row["spec_digest"]].on_lost == "retry":
            phase, at = Phase.QUEUED, now + delay_after_loss(row["name"], lost, lease)
        rows.append(LostRun(row["name"], phase, lost, at, error, row["attempt"], row["started_at"], row["worker"]))
    return rows
