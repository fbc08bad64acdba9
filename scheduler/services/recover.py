"""Taking over from workers that are gone: by state, never by event, so any replica may do it at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.store.runs import LostRun
from scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Recovered:
    """Workers declared dead, runs queued again, runs that were lost too often."""

    workers: tuple[str, ...] = ()
    requeued: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def more(self) -> bool:
        """Whether another pass may find more."""
        return bool(self.requeued or self.failed)


def recover_runs(
    tx: Transaction, me: str, *, lease: Micros, max_lost: int, limit: int, judge: bool = True
) -> Recovered:
    """Declares workers dead whose lease is over (if `judge`) and takes their runs back.

    The first loss is queued again at once, the n-th after lease × 2ⁿ⁻²; at `max_lost`, or where the task says
    `on_lost: fail`, the run ends FAILED.
    """
    buried = tx.workers.bury_expired(me, lease) if judge else []
    orphans = tx.runs.orphans(limit)
    if not orphans:
        return Recovered(workers=tuple(buried))
    now = tx.now()
    specs = tx.tasks.specs(row["spec_digest"] for row in orphans)
    rows = []
    for row in orphans:
        lost, at, phase, error = row["lost"] + 1, now, Phase.FAILED, "lost its worker"
        if row["intent"] == "cancel":
            phase, error = Phase.ABORTED, "cancelled; its worker was lost"
        elif specs[row["spec_digest"]].on_lost == "retry" and lost >= max_lost:
            error = f"lost its worker {lost} times"
        elif specs[row["spec_digest"]].on_lost == "retry":
            phase, at = Phase.QUEUED, now + (0 if lost == 1 else lease * 2 ** min(lost - 2, 32))
        rows.append(LostRun(row["name"], phase, lost, at, error, row["attempt"], row["started_at"], row["worker"]))
    tx.runs.requeue_lost(rows, now)
    return Recovered(
        workers=tuple(buried),
        requeued=tuple(row.name for row in rows if row.phase == Phase.QUEUED),
        failed=tuple(row.name for row in rows if row.phase != Phase.QUEUED),
    )


def hand_back(tx: Transaction, owner: str, held: Sequence[tuple[str, int]]) -> int:
    """Gives unfinished runs back to the queue and wakes the other workers; returns how many were still ours."""
    count = tx.runs.hand_back(owner, held, tx.now())
    if count:
        tx.notify()
    return count
