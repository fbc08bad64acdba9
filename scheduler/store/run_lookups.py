"""Looking runs up: when the next may start, which slots have one, and what listings show. Nothing here changes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    RowMapping,
    Select,
    bindparam,
    func,
    or_,
    select,
    text,
    union_all,
)

from scheduler.domain.instants import Micros
from scheduler.domain.run import OPEN, Kind, Phase
from scheduler.store.dialect import BIGINT, INTEGER, Dialect, asked_now
from scheduler.store.prepared import prepared
from scheduler.store.schema import attempts, lost_attempts, runs, tasks, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

# Word for word what the index `runs_ready` says: with a bound phase, or `gated = 0`, SQLite would read the whole table.
READY = text("runs.phase = 'QUEUED' AND NOT runs.gated")
# One step in that index an executor, however many runs wait for it.
_EXECUTORS = text(
    "WITH RECURSIVE wanted(executor) AS ("
    "SELECT min(executor) FROM runs WHERE phase = 'QUEUED' AND NOT gated "
    "UNION ALL SELECT (SELECT min(r.executor) FROM runs r WHERE r.phase = 'QUEUED' AND NOT r.gated "
    "AND r.executor > wanted.executor) FROM wanted WHERE wanted.executor IS NOT NULL) "
    "SELECT executor FROM wanted WHERE executor IS NOT NULL"
)
OPEN_PHASES = sorted(phase.value for phase in OPEN)
# The same for the index `runs_slot`, of the run that a slot has by right; for `runs_again`, of those that do a slot again;
# and for `runs_open`.
SLOTTED = text("runs.kind NOT IN ('manual', 'reprocess')")
AGAIN = text("runs.kind = 'reprocess'")
OPEN_TEXT = "runs.phase IN ('QUEUED', 'RUNNING', 'DEFERRED')"


def may_start(now: Micros | ColumnElement[int], run: FromClause = runs) -> ColumnElement[bool]:
    """Whether a run's deadline leaves it any time."""
    return or_(run.c.deadline_at.is_(None), run.c.deadline_at > now)


def is_behind_another(run: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Whether a scheduled run of the same trigger is under way, or waits with an older slot; `other` is aliased "o"."""
    return (
        select(other.c.name)
        .where(
            other.c.trigger_id == run.c.trigger_id,
            other.c.kind == Kind.SCHEDULED.value,
            other.c.name != run.c.name,
            text("o.phase IN ('QUEUED', 'RUNNING', 'DEFERRED')"),
            or_(other.c.phase != "QUEUED", other.c.scheduled_at < run.c.scheduled_at),
        )
        .exists()
    )


class RunLookups:
    """The reading half of `tx.runs`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def next_ready_at(self, executors: Iterable[str]) -> Micros | None:
        """When the next queued run of these executors may start; None where none waits."""
        wanted = {f"executor_{index}": name for index, name in enumerate(sorted(executors))}
        if not wanted:
            return None
        given = self._tx.given_now()
        statement = _next_ready_at(self._tx.dialect, not given, len(wanted))
        value: Micros | None = self._tx.connection.execute(statement, {**given, **wanted}).scalar()
        return value

    def next_gated_at(self, now: Micros, executors: Iterable[str]) -> Micros | None:
        """When the next of the gated runs that wait for an instant may ask for its turn."""
        statement = select(func.min(runs.c.not_before)).where(
            text("runs.gated AND runs.phase = 'QUEUED'"),
            runs.c.not_before > now,
            runs.c.executor.in_(sorted(executors)),
        )
        value: Micros | None = self._tx.connection.execute(statement).scalar()
        return value

    def next_deadline(self) -> Micros | None:
        """When the deadline of the next queued run passes."""
        value: Micros | None = self._tx.connection.execute(_next_deadline(self._tx.dialect)).scalar()
        return value

    def count_open_scheduled(self, trigger_ids: Sequence[int]) -> dict[int, int]:
        """How many scheduled runs of these triggers are open; triggers without one are left out."""
        rows = self._tx.connection.execute(_open_scheduled(self._tx.dialect), {"trigger_ids": trigger_ids})
        return {trigger_id: int(count) for trigger_id, count in rows}

    def executors_wanted(self) -> set[str]:
        """The executors that queued runs wait for."""
        return set(self._tx.connection.execute(_EXECUTORS).scalars())

    def newest_ends(self, wanted: Sequence[tuple[int, Micros, int]]) -> dict[int, list[str]]:
        """The phases in which scheduled runs ended, by trigger, newest slot first.

        `wanted` are triggers with the instant after which their slots lie and how many of their runs count. Aborted runs
        are left out: they tell neither of success nor of failure.
        """

        def ends(trigger_id: Any, since: Any, most: Any) -> Select[Any]:
            return (
                select(runs.c.trigger_id, runs.c.phase)
                .where(
                    runs.c.trigger_id == trigger_id,
                    SLOTTED,
                    runs.c.kind == Kind.SCHEDULED.value,
                    runs.c.scheduled_at > since,
                    runs.c.phase.in_([Phase.SUCCEEDED.value, Phase.FAILED.value, Phase.TIMED_OUT.value]),
                )
                .order_by(runs.c.scheduled_at.desc())
                .limit(most)
            )

        found: dict[int, list[str]] = {}
        columns = {"trigger_id": BIGINT, "since": BIGINT, "most": INTEGER}
        for trigger_id, phase in self._tx.dialect.each(columns, ends)(self._tx.connection, wanted) if wanted else ():
            found.setdefault(trigger_id, []).append(phase)
        return found

    def slots_with_run(self, trigger_id: int, after: Micros, until: Micros) -> set[Micros]:
        """The slots of a trigger in (after, until] that have a run."""
        within = [runs.c.trigger_id == trigger_id, runs.c.scheduled_at > after, runs.c.scheduled_at <= until]
        statement = union_all(*(select(runs.c.scheduled_at).where(kind, *within) for kind in (SLOTTED, AGAIN)))
        return set(self._tx.connection.execute(statement).scalars())

    def newest_slots(self, trigger_id: int, limit: int) -> list[RowMapping]:
        """The newest slots of a trigger that have a run, newest first, each with the newest of its runs."""
        statement = (
            select(runs.c.name, runs.c.scheduled_at, runs.c.phase, runs.c.created_at)
            .where(runs.c.trigger_id == trigger_id)
            .order_by(runs.c.scheduled_at.desc(), runs.c.created_at)
        )
        own = self._tx.connection.execute(statement.where(SLOTTED).limit(limit)).mappings().all()
        again = statement.where(AGAIN)
        if len(own) == limit:
            again = again.where(runs.c.scheduled_at >= own[-1]["scheduled_at"])
        newest = {row["scheduled_at"]: row for row in own}
        newest.update({row["scheduled_at"]: row for row in self._tx.connection.execute(again).mappings()})
        return [newest[slot] for slot in sorted(newest, reverse=True)[:limit]]

    def find(self, name: str) -> RowMapping | None:
        """One run with its task's and trigger's names."""
        return self._tx.connection.execute(_listing().where(runs.c.name == name)).mappings().one_or_none()

    def names_beginning(self, text: str, limit: int) -> list[str]:
        """The names of runs that begin so, in their order; a whole name comes first."""
        # Names are of a-z, 0-9 and hyphens, compared by byte: all that begin so come before the text and a tilde.
        statement = select(runs.c.name).where(runs.c.name >= text, runs.c.name < text + "~").order_by(runs.c.name)
        return list(self._tx.connection.execute(statement.limit(limit)).scalars())

    def latest_name(self, trigger_id: int | None) -> str | None:
        """The run that was made last, of a trigger or of all."""
        statement = select(runs.c.name).order_by(
            runs.c.created_at.desc(), runs.c.scheduled_at.desc(), runs.c.name.desc()
        )
        if trigger_id is not None:
            statement = statement.where(runs.c.trigger_id == trigger_id)
        name: str | None = self._tx.connection.execute(statement.limit(1)).scalar()
        return name

    def attempts_of(self, name: str) -> Sequence[RowMapping]:
        """The recorded attempts of a run, first to last."""
        statement = select(attempts).where(attempts.c.run_name == name).order_by(attempts.c.attempt)
        return self._tx.connection.execute(statement).mappings().all()

    def lost_attempts_of(self, name: str) -> Sequence[RowMapping]:
        """The executions of a run whose worker was lost, first to last."""
        statement = select(lost_attempts).where(lost_attempts.c.run_name == name).order_by(lost_attempts.c.lost)
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


@prepared
def _next_deadline(_dialect: Dialect) -> Executable:
    return select(func.min(runs.c.deadline_at)).where(text("runs.phase = 'QUEUED'"), runs.c.deadline_at.is_not(None))


@prepared
def _open_scheduled(_dialect: Dialect) -> Executable:
    return (
        select(runs.c.trigger_id, func.count())
        .where(
            runs.c.trigger_id.in_(bindparam("trigger_ids", expanding=True)),
            runs.c.kind == Kind.SCHEDULED.value,
            text(OPEN_TEXT),
        )
        .group_by(runs.c.trigger_id)
    )


@prepared
def _next_ready_at(_dialect: Dialect, asks_server: bool, executors: int) -> Executable:
    now = asked_now(asks_server)
    earliest: list[Select[Any]] = []
    for index in range(executors):
        mine = runs.c.executor == bindparam(f"executor_{index}")
        ready = select(runs.c.not_before).where(READY, mine, runs.c.intent.is_(None))
        on_time = ready.where(runs.c.priority == 0).order_by(runs.c.not_before).limit(1).scalar_subquery()
        # Among many late runs the first that may start will do; only where none may, the earliest is looked for.
        late = ready.where(runs.c.priority > 0)
        startable = late.where(runs.c.not_before <= now).limit(1).scalar_subquery()
        later = late.with_only_columns(func.min(runs.c.not_before)).scalar_subquery()
        earliest += [select(on_time.label("at")), select(func.coalesce(startable, later).label("at"))]
    return select(func.min(union_all(*earliest).subquery("earliest").c.at))


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
