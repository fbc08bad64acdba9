"""Looking runs up: when the next may start, which slots have one, and what listings show. Nothing here changes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, select, text, union_all

from scheduler.domain.instants import Micros
from scheduler.domain.run import OPEN, Kind
from scheduler.store.schema import attempts, runs, tasks, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

# Word for word what the index `runs_ready` says: with a bound phase, or `gated = 0`, SQLite would read the whole table.
READY = text("runs.phase = 'QUEUED' AND NOT runs.gated")
OPEN_PHASES = sorted(phase.value for phase in OPEN)


class RunLookups:
    """The reading half of `tx.runs`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def next_ready_at(self, executors: Iterable[str]) -> Micros | None:
        """When the next queued run of these executors may start; None where none waits."""
        now = self._tx.sql_now()
        earliest: list[Select[Any]] = []
        for executor in sorted(executors):
            ready = select(runs.c.not_before).where(READY, runs.c.executor == executor, runs.c.intent.is_(None))
            on_time = ready.where(runs.c.priority == 0).order_by(runs.c.not_before).limit(1).scalar_subquery()
            # Among many late runs the first that may start will do; only where none may, the earliest is looked for.
            late = ready.where(runs.c.priority > 0)
            startable = late.where(runs.c.not_before <= now).limit(1).scalar_subquery()
            later = late.with_only_columns(func.min(runs.c.not_before)).scalar_subquery()
            earliest += [select(on_time.label("at")), select(func.coalesce(startable, later).label("at"))]
        if not earliest:
            return None
        value: Micros | None = self._tx.connection.execute(
            select(func.min(union_all(*earliest).subquery("earliest").c.at))
        ).scalar()
        return value

    def slots_with_run(self, trigger_id: int, after: Micros, until: Micros) -> set[Micros]:
        """The slots of a trigger in (after, until] that have a run."""
        statement = select(runs.c.scheduled_at).where(
            runs.c.trigger_id == trigger_id,
            runs.c.kind != Kind.MANUAL.value,
            runs.c.scheduled_at > after,
            runs.c.scheduled_at <= until,
        )
        return set(self._tx.connection.execute(statement).scalars())

    def newest_slots(self, trigger_id: int, limit: int) -> Sequence[RowMapping]:
        """The newest slots of a trigger that have a run, newest first."""
        statement = (
            select(runs.c.name, runs.c.scheduled_at, runs.c.phase)
            .where(runs.c.trigger_id == trigger_id, runs.c.kind != Kind.MANUAL.value)
            .order_by(runs.c.scheduled_at.desc())
            .limit(limit)
        )
        return self._tx.connection.execute(statement).mappings().all()

    def find(self, name: str) -> RowMapping | None:
        """One run with its task's and trigger's names."""
        return self._tx.connection.execute(_listing().where(runs.c.name == name)).mappings().one_or_none()

    def attempts_of(self, name: str) -> Sequence[RowMapping]:
        """The recorded attempts of a run, first to last."""
        statement = select(attempts).where(attempts.c.run_name == name).order_by(attempts.c.attempt)
        return self._tx.connection.execute(statement).mappings().all()

    def list_newest(self, *conditions: ColumnElement[bool], limit: int) -> Sequence[RowMapping]:
        """Runs, newest first: by creation, then by slot."""
        statement = _listing().where(*conditions)
        ordered = statement.order_by(runs.c.created_at.desc(), runs.c.scheduled_at.desc(), runs.c.name.desc())
        return self._tx.connection.execute(ordered.limit(limit)).mappings().all()

    def counts_by_phase(self) -> dict[str, int]:
        """How many runs are open, by phase."""
        statement = select(runs.c.phase, func.count()).where(runs.c.phase.in_(OPEN_PHASES)).group_by(runs.c.phase)
        return {phase: int(count) for phase, count in self._tx.connection.execute(statement)}


def run_filters(
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    trigger: str | None = None,
    phase: str | None = None,
    since: Micros | None = None,
) -> list[ColumnElement[bool]]:
    """Conditions for `list_newest`; None leaves a part open, `since` is when the run was created."""
    wanted = (
        (tasks.c.project, project),
        (tasks.c.domain, domain),
        (tasks.c.name, task),
        (triggers.c.name, trigger),
        (runs.c.phase, phase),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in wanted if value is not None]
    if since is not None:
        conditions.append(runs.c.created_at >= since)
    return conditions


def _listing() -> Select[Any]:
    return (
        select(
            runs,
            tasks.c.project,
            tasks.c.domain,
            tasks.c.name.label("task"),
            triggers.c.name.label("trigger"),
            triggers.c.automation,
        )
        .join(tasks, tasks.c.id == runs.c.task_id, isouter=True)
        .join(triggers, triggers.c.id == runs.c.trigger_id, isouter=True)
    )
