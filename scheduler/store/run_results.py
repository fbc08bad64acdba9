"""Recording what came of attempts: the run's next phase and the attempt itself, by name and fence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Executable, and_, bindparam, case, func, null, select, update

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.store.dialect import BIGINT, BOOLEAN, TEXT, Batch, Dialect
from scheduler.store.meta import sql_epoch
from scheduler.store.prepared import prepared
from scheduler.store.run_lookups import OPEN_PHASES, RunLookups
from scheduler.store.schema import attempts, runs, workers


class FinishedAttempt(NamedTuple):
    """How an attempt ended: the run's next phase and what to keep of the attempt."""

    name: str
    fence: int
    owner: str
    phase: str
    not_before: Micros | None
    known_end: bool
    error: str | None
    outputs: str | None
    attempt_phase: str
    started_at: Micros
    output: str | None


_KINDS = dict(
    zip(
        FinishedAttempt._fields,
        (TEXT, BIGINT, TEXT, TEXT, BIGINT, BOOLEAN, TEXT, TEXT, TEXT, BIGINT, TEXT),
        strict=True,
    )
)
_ATTEMPT = {
    "run_name": TEXT,
    "attempt": BIGINT,
    "phase": TEXT,
    "started_at": BIGINT,
    "finished_at": BIGINT,
    "worker": TEXT,
    "error": TEXT,
    "output": TEXT,
}


class RunResults(RunLookups):
    """The part of `tx.runs` that answers of code cause."""

    def finish(self, ended: Sequence[FinishedAttempt], worker: str, now: Micros) -> dict[tuple[str, int], str]:
        """Records attempts' ends; returns the names and fences that counted, with the phases their runs are in now.

        One left out lost by its fence.

        The condition is name and fence, and that the worker's incarnation is of this epoch: a result counts as long as
        nobody took the run since. A retry that meets a stored intent to end becomes that end; any other answer stands.
        """
        if not ended:
            return {}
        ordered = sorted(ended)
        statement, batch = _finish(self._tx.dialect)
        found = self._tx.connection.execute(statement, {**batch.send(ordered), "now": now, "worker": worker}).all()
        if not self._tx.dialect.writes_in_ctes:
            counted = {(row.name, row.fence): row.attempt for row in found}
            self._record([item for item in ordered if (item.name, item.fence) in counted], counted, worker, now)
        for (phase, executor), number in Counter(row[3:] for row in found).items():
            if phase == Phase.QUEUED:
                self._tx.tally.retried[executor] += number
            else:
                self._tx.tally.ended[phase, executor] += number
        self._tx.tally.refused += len(ended) - len(found)
        return {(name, fence): phase for name, fence, _, phase, _ in found}

    def _record(
        self, ended: Sequence[FinishedAttempt], numbers: dict[tuple[str, int], int], worker: str, now: Micros
    ) -> None:
        rows: list[tuple[Any, ...]] = [
            (
                item.name,
                numbers[item.name, item.fence],
                item.attempt_phase,
                item.started_at,
                now,
                worker,
                item.error,
                item.output,
            )
            for item in ended
        ]
        if rows:
            statement, batch = _record(self._tx.dialect)
            self._tx.connection.execute(statement, batch.send(rows))


@prepared
def _record(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("r", _ATTEMPT)
    return attempts.insert().from_select(list(_ATTEMPT), select(batch.rows), include_defaults=False), batch


@prepared
def _finish(dialect: Dialect) -> tuple[Executable, Batch]:
    """Ends attempts; records them, too, where one statement may write two tables."""
    sent = dialect.batch("f", _KINDS)
    ended, now = sent.rows.c, bindparam("now", type_=BIGINT)
    asked = ended.phase == Phase.QUEUED.value
    again = and_(asked, func.coalesce(runs.c.intent, "") != "cancel")
    phase = case((asked, case((again, Phase.QUEUED.value), else_=Phase.ABORTED.value)), else_=ended.phase)
    stays_open = phase.in_(OPEN_PHASES)
    # Who was there before the database was restored from a backup speaks of another history.
    current = (
        select(workers.c.incarnation)
        .where(workers.c.incarnation == ended.owner, workers.c.epoch == sql_epoch())
        .exists()
    )
    answer = (
        runs.c.name,
        (runs.c.fence - 1).label("fence"),
        (runs.c.attempt - case((again, 1), else_=0)).label("attempt"),
        runs.c.phase,
        runs.c.executor,
    )
    ending = (
        update(runs)
        .where(runs.c.name == ended.name, runs.c.fence == ended.fence, current)
        .values(
            phase=phase,
            owner=None,
            fence=runs.c.fence + 1,
            attempt=runs.c.attempt + case((again, 1), else_=0),
            known_ends=runs.c.known_ends + case((ended.known_end, 1), else_=0),
            not_before=func.coalesce(ended.not_before, runs.c.not_before),
            error=ended.error,
            outputs=func.coalesce(ended.outputs, runs.c.outputs),
            state=None,
            finished_at=case((stays_open, null()), else_=now),
        )
    )
    # One batch may hold two ends of a run: that of an attempt taken back from this worker, and of the one it took then.
    if not dialect.writes_in_ctes:
        return ending.returning(*answer), sent
    told = ended.attempt_phase, ended.started_at, ended.error, ended.output
    end = ending.returning(*answer, *(item.label(f"told_{item.name}") for item in told)).cte("ended")
    attempt = end.c.name, end.c.attempt, end.c.told_attempt_phase, end.c.told_started_at
    kept = select(*attempt, now, bindparam("worker", type_=TEXT), end.c.told_error, end.c.told_output)
    record = attempts.insert().from_select(list(_ATTEMPT), kept, include_defaults=False).cte("recorded")
    return select(*(end.c[item.name] for item in answer)).add_cte(record), sent
