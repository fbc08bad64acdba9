"""Runs that end, or begin again, without an answer of their code: cancelled, overdue, lost, handed back, reopened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Executable,
    RowMapping,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    text,
    update,
)

from scheduler.domain.instants import Micros
from scheduler.domain.run import FINAL, Kind, Phase
from scheduler.store.dialect import BIGINT, INTEGER, TEXT, Dialect
from scheduler.store.prepared import prepared
from scheduler.store.run_lookups import OPEN_TEXT, RunLookups
from scheduler.store.schema import attempts, lost_attempts, runs, tasks, workers

# Word for word what the index `runs_deadline` says.
_QUEUED = "runs.phase = 'QUEUED'"


class LostRun(NamedTuple):
    """What becomes of a run whose worker is gone; the last three tell of the execution that was lost."""

    name: str
    phase: str
    lost: int
    not_before: Micros
    error: str
    attempt: int
    started_at: Micros | None
    worker: str | None


class RunEndings(RunLookups):
    """The half of `tx.runs` that nobody's answer causes."""

    # --- cancelled ---------------------------------------------------------------------------------------------------

    def cancel(self, names: Sequence[str], now: Micros, note: str) -> dict[str, str]:
        """Queued runs among these end now; of those under way the wish is stored. Returns names and resulting phases.

        A run that is over already is left out. Of those that stay open their worker ends the code, then the run.
        """
        return self._cancel(runs.c.name.in_(sorted(names)), now, note)

    def cancel_open(self, trigger_ids: Sequence[int], now: Micros, note: str) -> dict[str, str]:
        """The same for the open scheduled runs of these triggers."""
        condition = and_(runs.c.trigger_id.in_(trigger_ids), runs.c.kind == Kind.SCHEDULED.value)
        return self._cancel(condition, now, note)

    def _cancel(self, condition: ColumnElement[bool], now: Micros, note: str) -> dict[str, str]:
        # Locked in the order of their names, as every batch that waits for runs.
        wanted = select(runs.c.name).where(condition, text(OPEN_TEXT)).order_by(runs.c.name)
        names = list(self._tx.connection.execute(self._tx.dialect.locked(wanted, of=runs, skip=False)).scalars())
        if not names:
            return {}
        queued = runs.c.phase == Phase.QUEUED.value
        ended = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name.in_(names), text(OPEN_TEXT))
            .values(
                intent="cancel",
                intent_note=func.coalesce(runs.c.intent_note, note),
                phase=case((queued, Phase.ABORTED.value), else_=runs.c.phase),
                fence=runs.c.fence + case((queued, 1), else_=0),
                error=case((queued, note), else_=runs.c.error),
                finished_at=case((queued, literal(now, BIGINT)), else_=null()),
            )
            .returning(runs.c.name, runs.c.phase, runs.c.executor)
        ).all()
        self._count_ends((row.phase, row.executor) for row in ended)
        return {row.name: row.phase for row in ended}

    def intended(self, owner: str) -> dict[tuple[str, int], str]:
        """The runs this incarnation executes and somebody wants to end: name and fence, and the reason."""
        statement = select(runs.c.name, runs.c.fence, runs.c.intent_note).where(
            runs.c.owner == owner, runs.c.intent.is_not(None)
        )
        return {(row.name, row.fence): row.intent_note or "" for row in self._tx.connection.execute(statement)}

    def abort_unstarted(self, trigger_ids: Sequence[int], now: Micros, note: str) -> int:
        """Scheduled runs of these triggers that never started are over; started, deferred and retrying ones go on."""
        ended = self._tx.connection.execute(
            update(runs)
            .where(
                runs.c.trigger_id.in_(trigger_ids),
                runs.c.phase == Phase.QUEUED.value,
                runs.c.kind == Kind.SCHEDULED.value,
                runs.c.started_at.is_(None),
            )
            .values(phase=Phase.ABORTED.value, fence=runs.c.fence + 1, error=note, finished_at=now)
            .returning(runs.c.executor)
        )
        return self._count_ends((Phase.ABORTED.value, executor) for executor in ended.scalars())

    def abort_open(self, now: Micros, limit: int, note: str) -> int:
        """Open runs are over, whoever holds them, at most `limit`; returns how many were."""
        wanted = select(runs.c.name).where(text(OPEN_TEXT)).order_by(runs.c.name).limit(limit)
        chosen = self._tx.dialect.locked(wanted, of=runs, skip=False).cte("open")
        claimed = chosen.prefix_with("MATERIALIZED", dialect="postgresql")
        ended = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name.in_(select(claimed.c.name)))
            .values(phase=Phase.ABORTED.value, owner=None, fence=runs.c.fence + 1, error=note, finished_at=now)
            .returning(runs.c.executor)
        )
        return self._count_ends((Phase.ABORTED.value, executor) for executor in ended.scalars())

    def overdue(self, now: Micros, limit: int) -> list[int | None]:
        """The triggers of queued runs whose deadline is over."""
        statement = select(runs.c.trigger_id).where(text(_QUEUED), runs.c.deadline_at <= now).limit(limit)
        return list(self._tx.connection.execute(statement).scalars())

    def expire(self, now: Micros, limit: int) -> list[str]:
        """Queued runs whose deadline is over end TIMED_OUT, at most `limit`; those somebody else holds are left out."""
        statement = select(runs.c.name).where(text(_QUEUED), runs.c.deadline_at <= now)
        chosen = self._tx.dialect.locked(statement.order_by(runs.c.deadline_at).limit(limit), of=runs, skip=True)
        claimed = chosen.cte("overdue").prefix_with("MATERIALIZED", dialect="postgresql")
        over = "the deadline was over before it could start"
        ended = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name.in_(select(claimed.c.name)))
            .values(
                phase=Phase.TIMED_OUT.value,
                fence=runs.c.fence + 1,
                # A run that waited for its next attempt keeps telling why the last one failed.
                error=case((runs.c.error.is_(None), over), else_=over + " again; before: " + runs.c.error),
                finished_at=literal(now, BIGINT),
            )
            .returning(runs.c.name, runs.c.executor)
        ).all()
        self._count_ends((Phase.TIMED_OUT.value, row.executor) for row in ended)
        return sorted(row.name for row in ended)

    # --- their worker is gone, or leaves -----------------------------------------------------------------------------

    def orphans(self, limit: int, *, lock: bool = True) -> Sequence[RowMapping]:
        """Runs held by a worker that is not alive, locked; by state, never by event, so nothing depends on order."""
        return self._tx.connection.execute(_orphans(self._tx.dialect, lock), {"most": limit}).mappings().all()

    def requeue_lost(self, rows: Sequence[LostRun], now: Micros) -> None:
        """Runs whose worker is gone, locked by `orphans`, are queued again or end; queued, their fence stays, so a late
        result counts. Each execution is recorded: that of a run that ends here as its attempt, the others as lost ones.
        """
        if not rows:
            return
        types = {"name": TEXT, "phase": TEXT, "lost": INTEGER, "not_before": BIGINT, "error": TEXT}
        batch = self._tx.dialect.rows("l", types, [row[: len(types)] for row in rows])
        queued = batch.c.phase == Phase.QUEUED.value
        changed = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.name)
            .values(
                phase=batch.c.phase,
                lost=batch.c.lost,
                not_before=batch.c.not_before,
                error=batch.c.error,
                owner=None,
                fence=runs.c.fence + case((queued, 0), else_=1),
                finished_at=case((queued, null()), else_=literal(now, BIGINT)),
            )
            .returning(runs.c.phase, runs.c.executor)
        ).all()
        self._tx.tally.lost.update(row.phase for row in changed)
        self._count_ends((row.phase, row.executor) for row in changed)
        ended = [row for row in rows if row.phase != Phase.QUEUED]
        if ended:
            kept = [_execution(row, now) | {"phase": row.phase} for row in ended]
            self._tx.connection.execute(attempts.insert(), kept)
        lost = [row for row in rows if row.phase == Phase.QUEUED]
        if lost:
            # Somebody may have set the count back by hand: runs must not stay lost for that.
            recording = self._tx.dialect.insert(lost_attempts).on_conflict_do_nothing()
            self._tx.connection.execute(recording, [_execution(row, now) | {"lost": row.lost} for row in lost])

    def hand_back(self, owner: str, held: Sequence[tuple[str, int]], now: Micros) -> int:
        """Runs a worker gives back unfinished when it leaves: queued again, counted as neither attempt nor loss."""
        if not held:
            return 0
        batch = self._tx.dialect.rows("h", {"name": TEXT, "fence": BIGINT}, sorted(held))
        cancelled = runs.c.intent == "cancel"
        given = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.name, runs.c.fence == batch.c.fence, runs.c.owner == owner)
            .values(
                phase=case((cancelled, Phase.ABORTED.value), else_=Phase.QUEUED.value),
                owner=None,
                not_before=now,
                fence=runs.c.fence + case((cancelled, 1), else_=0),
                error=case((cancelled, runs.c.intent_note), else_=runs.c.error),
                finished_at=case((cancelled, literal(now, BIGINT)), else_=null()),
            )
            .returning(runs.c.phase, runs.c.executor)
        ).all()
        self._count_ends((row.phase, row.executor) for row in given)
        return len(given)

    def _count_ends(self, changed: Iterable[tuple[str, str]]) -> int:
        """Counts those of the phases and executors that are final; returns how many there were in all."""
        rows = list(changed)
        self._tx.tally.ended.update((phase, executor) for phase, executor in rows if Phase(phase) in FINAL)
        return len(rows)

    # --- begun again -------------------------------------------------------------------------------------------------

    def reopen(self, name: str, now: Micros, deadline_at: Micros | None) -> bool:
        """A run that ended without success is queued for one more attempt; False where it is open or succeeded."""
        failed = [Phase.FAILED.value, Phase.TIMED_OUT.value, Phase.ABORTED.value]
        # A run that ended before its first attempt was recorded has its next attempt as its first.
        recorded = select(func.count()).where(attempts.c.run_name == runs.c.name).scalar_subquery()
        # Its task may have been given a limit while it was over.
        limit = select(tasks.c.max_concurrent_runs).where(tasks.c.id == runs.c.task_id).scalar_subquery()
        result = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == name, runs.c.phase.in_(failed))
            .values(
                phase=Phase.QUEUED.value,
                attempt=recorded + 1,
                gated=or_(runs.c.serial, limit.is_not(None)),
                priority=0,
                not_before=now,
                deadline_at=deadline_at,
                intent=None,
                intent_note=None,
                event=None,
                finished_at=None,
                fence=runs.c.fence + 1,
            )
        )
        return bool(result.rowcount)


def _execution(row: LostRun, now: Micros) -> dict[str, Any]:
    """What the two tables of attempts say alike of a lost execution."""
    return {
        "run_name": row.name,
        "attempt": row.attempt,
        "started_at": row.started_at,
        "finished_at": now,
        "worker": row.worker,
        "error": row.error,
    }


@prepared
def _orphans(dialect: Dialect, lock: bool) -> Executable:
    living = select(workers.c.incarnation).where(workers.c.incarnation == runs.c.owner, workers.c.alive).exists()
    worker = select(workers.c.name).where(workers.c.incarnation == runs.c.owner).scalar_subquery().label("worker")
    columns = [
        runs.c.name,
        runs.c.kind,
        runs.c.trigger_id,
        runs.c.lost,
        runs.c.spec_digest,
        runs.c.intent,
        runs.c.intent_note,
        runs.c.attempt,
        runs.c.started_at,
    ]
    statement = select(*columns, worker).where(runs.c.owner.is_not(None), ~living)
    statement = statement.order_by(runs.c.owner).limit(bindparam("most", type_=INTEGER))
    if not lock:
        return statement
    claimed = dialect.locked(statement, of=runs, skip=True).cte("gone")
    return select(claimed.prefix_with("MATERIALIZED", dialect="postgresql"))
