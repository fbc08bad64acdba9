"""Runs that wait outside the worker: one row each, while they wait. Owned like runs: by a worker's incarnation.

A wait has the fence of its run, and both grow when somebody takes the wait over: what a former holder still sends, be it
how the job stands or how it ended, then counts no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Executable,
    RowMapping,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    null,
    select,
    text,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.store.dialect import BIGINT, BOOLEAN, INTEGER, TEXT, Dialect
from scheduler.store.failures import TransactionUndoneError
from scheduler.store.meta import sql_epoch
from scheduler.store.prepared import prepared
from scheduler.store.runs import TakenRun
from scheduler.store.schema import runs, waits, workers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

WaitKey: TypeAlias = tuple[str, int]
"""The run's name and the fence that it and its wait have."""

# Word for word what the partial indexes say: a bound value would keep SQLite from using them.
_UNTIL: Final = text("waits.kind = 'until'")
_FREE: Final = text("waits.owner IS NULL AND waits.kind <> 'until'")
_NO_JOB: Final = text("(waits.kind = 'until' OR waits.kind = 'poll' AND waits.owner IS NULL)")
_INTENDED: Final = text("runs.intent IS NOT NULL AND runs.phase = 'DEFERRED'")
_OWN_JOB: Final = text("waits.job_id IS NOT NULL AND NOT waits.watched")


class NewWait(NamedTuple):
    """A run that begins to wait; `owner` None leaves it to the database, or to whoever takes it over."""

    run_name: str
    fence: int
    executor: str
    kind: str
    stage: str
    owner: str | None
    look_at: Micros
    interval: Micros
    budget: Micros
    ends_at: Micros | None
    state: str | None
    job_id: str | None
    watched: bool
    seen: str | None


class WaitState(NamedTuple):
    """All that changes about a wait while somebody holds it. Without an `owner` it is given to the database."""

    run_name: str
    fence: int
    owner: str | None
    kind: str
    stage: str
    look_at: Micros
    interval: Micros
    budget: Micros
    state: str | None
    job_id: str | None
    error_since: Micros | None
    last_error: str | None
    ending: str | None
    seen: str | None


class StoredWait(NamedTuple):
    """A wait as its new holder gets it."""

    run_name: str
    fence: int
    executor: str
    kind: str
    stage: str
    look_at: Micros
    interval: Micros
    budget: Micros
    ends_at: Micros | None
    state: str | None
    job_id: str | None
    watched: bool
    created_at: Micros
    error_since: Micros | None
    last_error: str | None
    ending: str | None
    seen: str | None


class FoundWait(NamedTuple):
    """A wait, its run, and why somebody wants the run to end, if somebody does."""

    wait: StoredWait
    run: TakenRun
    intent: str | None


class ResumedRun(NamedTuple):
    """A run whose wait is over and that is to be executed again; `state` is what it is given."""

    name: str
    fence: int
    not_before: Micros
    state: str | None


_TEXTS: Final = {"run_name", "executor", "kind", "stage", "owner", "state", "job_id", "last_error", "ending", "seen"}
_STORED: Final = [waits.c[name] for name in StoredWait._fields]
_KEY: Final[Mapping[str, TypeEngine[Any]]] = {"run_name": TEXT, "fence": BIGINT}
_TAKEN: Final = [runs.c[name] for name in TakenRun._fields]
_INTENT_TEXT: Final = func.coalesce(runs.c.intent_note, runs.c.intent)
_INTENT: Final = _INTENT_TEXT.label("intent")


class WaitTable:
    """Waits through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # --- begun -------------------------------------------------------------------------------------------------------

    def begin(self, new: Sequence[NewWait], by: str, now: Micros) -> dict[WaitKey, str | None]:
        """Runs that `by` executes become DEFERRED and get their waits; returns those that did, and why somebody wants
        them to end.

        One left out was taken by somebody else since, or is over. Told again, because an answer was lost on the way, it
        changes nothing and answers the same.
        """
        if not new:
            return {}
        ordered = sorted(new, key=_key)
        batch = self._tx.dialect.rows("d", _KEY, [_key(row) for row in ordered])
        deferred = self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.run_name, runs.c.fence == batch.c.fence, self._of_this_epoch(by))
            .values(phase=Phase.DEFERRED.value, owner=None, state=None)
            .returning(runs.c.name, runs.c.fence, _INTENT)
        )
        begun = {(row.name, row.fence): row.intent for row in deferred}
        rows = [row for row in ordered if _key(row) in begun]
        if rows:
            values = self._tx.dialect.rows("w", _types(NewWait), rows)
            source = select(*values.c, literal(now, BIGINT)).where(true())
            insert = self._tx.dialect.insert(waits).from_select(
                [*NewWait._fields, "created_at"], source, include_defaults=False
            )
            self._tx.connection.execute(insert.on_conflict_do_nothing(index_elements=["run_name"]))
        return begun

    # --- held --------------------------------------------------------------------------------------------------------

    def claim(self, owner: str, executors: Iterable[str], limit: int) -> list[FoundWait]:
        """Waits of these executors that nobody holds become `owner`'s, under a new fence.

        Rows that another worker is claiming are left out.
        """
        wanted = {"executors": sorted(executors), "most": limit}
        names = list(self._tx.connection.execute(_lock_free(self._tx.dialect), wanted).scalars())
        if not names:
            return []
        claimed = [
            StoredWait(*row)
            for row in self._tx.connection.execute(
                update(waits)
                .where(waits.c.run_name.in_(names), waits.c.owner.is_(None))
                .values(owner=owner, fence=waits.c.fence + 1)
                .returning(*_STORED)
            )
        ]
        batch = self._tx.dialect.rows("c", _KEY, sorted(_key(wait) for wait in claimed))
        fenced = self._tx.connection.execute(
            update(runs).where(runs.c.name == batch.c.run_name).values(fence=batch.c.fence).returning(*_TAKEN, _INTENT)
        )
        return _found(claimed, fenced, owner)

    def held(self, owner: str) -> set[WaitKey]:
        """The waits this incarnation holds."""
        statement = select(waits.c.run_name, waits.c.fence).where(waits.c.owner == owner)
        return {(row.run_name, row.fence) for row in self._tx.connection.execute(statement)}

    def load(self, names: Iterable[str], owner: str) -> list[FoundWait]:
        """Waits of these runs that this incarnation holds."""
        return self._look_up(owner, waits.c.run_name.in_(sorted(names)), waits.c.owner == owner)

    def write(self, states: Sequence[WaitState], by: str) -> set[WaitKey]:
        """Stores how waits stand that `by` has taken over; returns those that were still held under these fences.

        Where another open wait may have the same job, ask `taken_jobs` before.
        """
        if not states:
            return set()
        batch = self._tx.dialect.rows("s", _types(WaitState), sorted(states, key=_key))
        changed: dict[str, Any] = {name: batch.c[name] for name in WaitState._fields if name not in _KEY}
        # What was let go stays free: whoever still writes has nothing more to do with it.
        changed["owner"] = case((waits.c.owner.is_(None), null()), else_=batch.c.owner)
        statement = (
            update(waits)
            .where(waits.c.run_name == batch.c.run_name, waits.c.fence == batch.c.fence, self._of_this_epoch(by))
            .values(changed)
            .returning(waits.c.run_name, waits.c.fence)
        )
        try:
            return {(row.run_name, row.fence) for row in self._tx.connection.execute(statement)}
        except IntegrityError as error:
            # Somebody saved the same job at this moment: the next time, `taken_jobs` finds it.
            raise TransactionUndoneError(str(error.orig)) from error

    def taken_jobs(self, jobs: Sequence[tuple[str, str, str]]) -> set[str]:
        """Of these (run, executor, job id), the runs whose job another open wait holds."""
        if not jobs:
            return set()
        batch = self._tx.dialect.rows("j", {"run_name": TEXT, "executor": TEXT, "job_id": TEXT}, jobs)
        holder = select(waits.c.run_name).where(
            waits.c.executor == batch.c.executor,
            waits.c.job_id == batch.c.job_id,
            waits.c.run_name != batch.c.run_name,
            _OWN_JOB,
        )
        return set(self._tx.connection.execute(select(batch.c.run_name).where(holder.exists())).scalars())

    # --- let go ------------------------------------------------------------------------------------------------------

    def release(self, owner: str, keep: Iterable[str] = ()) -> int:
        """This incarnation holds none of its waits any more, but those of the runs to `keep`; others may take them over."""
        statement = update(waits).where(waits.c.owner == owner, waits.c.run_name.not_in(sorted(keep)))
        return len(self._tx.connection.execute(statement.values(owner=None).returning(waits.c.run_name)).all())

    def release_lost(self, limit: int) -> int:
        """Waits of workers that are not alive lose their owner, and nothing else: the runs stay DEFERRED."""
        return len(self._tx.connection.execute(_release_lost(self._tx.dialect), {"most": limit}).all())

    # --- over --------------------------------------------------------------------------------------------------------

    def lock_runs(self, names: Iterable[str]) -> dict[str, int]:
        """Locks deferred runs, as must be done before their waits go; returns their fences. Rows in use are left out."""
        statement = select(runs.c.name, runs.c.fence).where(
            runs.c.name.in_(sorted(names)), runs.c.phase == Phase.DEFERRED.value
        )
        locked = self._tx.dialect.locked(statement.order_by(runs.c.name), of=runs, skip=True)
        return {row.name: row.fence for row in self._tx.connection.execute(locked)}

    def remove(self, names: Iterable[str]) -> None:
        """Forgets the waits of runs that are locked, and over or queued again."""
        gone = sorted(names)
        if gone:
            self._tx.connection.execute(delete(waits).where(waits.c.run_name.in_(gone)))

    def resume(self, resumed: Sequence[ResumedRun], by: str) -> set[WaitKey]:
        """Deferred runs are queued again by `by`, to be executed with what they are given, and their waits go.

        Returns those whose fence was still this one. A run that somebody wants to end is ABORTED instead: nothing of it
        is left to end.
        """
        if not resumed:
            return set()
        types: dict[str, TypeEngine[Any]] = {"name": TEXT, "fence": BIGINT, "not_before": BIGINT, "state": TEXT}
        batch = self._tx.dialect.rows("r", types, sorted(resumed))
        unwanted = runs.c.intent.is_not(None)
        statement = (
            update(runs)
            .where(runs.c.name == batch.c.name, runs.c.fence == batch.c.fence, self._of_this_epoch(by))
            .values(
                phase=case((unwanted, Phase.ABORTED.value), else_=Phase.QUEUED.value),
                not_before=batch.c.not_before,
                state=case((unwanted, null()), else_=batch.c.state),
                fence=runs.c.fence + case((unwanted, 1), else_=0),
                error=case((unwanted, _INTENT_TEXT), else_=runs.c.error),
                finished_at=case((unwanted, literal(self._tx.now(), BIGINT)), else_=null()),
            )
            .returning(
                runs.c.name,
                (runs.c.fence - case((runs.c.phase == Phase.ABORTED.value, 1), else_=0)).label("fence"),
                runs.c.phase,
                runs.c.executor,
            )
        )
        found = self._tx.connection.execute(statement).all()
        self._tx.tally.ended.update((row.phase, row.executor) for row in found if row.phase == Phase.ABORTED)
        gone = {(row.name, row.fence) for row in found}
        self.remove(name for name, _ in gone)
        return gone

    def record_events(self, events: Sequence[tuple[str, str | None, str | None]]) -> None:
        """Keeps with runs the links, and with those that are over the outcome event, as texts; None leaves what is there."""
        if not events:
            return
        batch = self._tx.dialect.rows("e", {"name": TEXT, "event": TEXT, "links": TEXT}, sorted(events, key=_key))
        self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.name)
            .values(
                event=case(
                    (runs.c.finished_at.is_(None), runs.c.event), else_=func.coalesce(batch.c.event, runs.c.event)
                ),
                links=func.coalesce(batch.c.links, runs.c.links),
            )
        )

    # --- looked for --------------------------------------------------------------------------------------------------

    def due_untils(self, now: Micros, limit: int) -> list[FoundWait]:
        """Waits for an instant that has come, or whose attempt's time is over; not locked."""
        due = select(waits.c.run_name).where(_UNTIL, waits.c.look_at <= now).order_by(waits.c.look_at).limit(limit)
        return self._look_up(None, waits.c.run_name.in_(due))

    def next_until_at(self) -> Micros | None:
        """When the next wait for an instant is over."""
        value: Micros | None = self._tx.connection.execute(select(func.min(waits.c.look_at)).where(_UNTIL)).scalar()
        return value

    def intended(self, owner: str) -> dict[str, str]:
        """The runs this incarnation waits for and somebody wants to end, and the reasons."""
        statement = (
            select(waits.c.run_name, _INTENT)
            .join(runs, runs.c.name == waits.c.run_name)
            .where(_INTENDED, waits.c.owner == owner)
        )
        return {row.run_name: row.intent for row in self._tx.connection.execute(statement)}

    def intended_untils(self, limit: int) -> list[FoundWait]:
        """Waits for an instant, and polls that nobody holds, whose run somebody wants to end; not locked."""
        wanted = select(waits.c.run_name).join(runs, runs.c.name == waits.c.run_name).where(_INTENDED, _NO_JOB)
        return self._look_up(None, waits.c.run_name.in_(wanted.limit(limit)))

    def executors_wanted(self) -> set[str]:
        """The executors of waits that nobody holds."""
        statement = select(waits.c.executor).where(_FREE).distinct()
        return set(self._tx.connection.execute(statement).scalars())

    def intents_of(self, names: Iterable[str]) -> dict[str, str]:
        """Of these deferred runs, those that somebody wants to end, and the reasons."""
        statement = select(runs.c.name, _INTENT).where(runs.c.name.in_(sorted(names)), runs.c.intent.is_not(None))
        return {row.name: row.intent for row in self._tx.connection.execute(statement)}

    def of_run(self, name: str) -> RowMapping | None:
        """What a run waits for."""
        return self._tx.connection.execute(select(waits).where(waits.c.run_name == name)).mappings().one_or_none()

    def _of_this_epoch(self, incarnation: str) -> ColumnElement[bool]:
        # Who was there before the database was restored from a backup speaks of another history.
        return (
            select(workers.c.incarnation)
            .where(workers.c.incarnation == incarnation, workers.c.epoch == sql_epoch())
            .exists()
        )

    def _look_up(self, owner: str | None, *conditions: Any) -> list[FoundWait]:
        stored = [StoredWait(*row) for row in self._tx.connection.execute(select(*_STORED).where(and_(*conditions)))]
        if not stored:
            return []
        statement = select(*_TAKEN, _INTENT).where(runs.c.name.in_(sorted(wait.run_name for wait in stored)))
        return _found(stored, self._tx.connection.execute(statement), owner)


@prepared
def _lock_free(dialect: Dialect) -> Executable:
    statement = (
        select(runs.c.name)
        .join(waits, waits.c.run_name == runs.c.name)
        .where(_FREE, waits.c.executor.in_(bindparam("executors", expanding=True)))
        .order_by(waits.c.look_at)
        .limit(bindparam("most", type_=INTEGER))
    )
    locked = dialect.locked(statement, of=runs, skip=True).cte("free")
    return select(locked.prefix_with("MATERIALIZED", dialect="postgresql"))


@prepared
def _release_lost(dialect: Dialect) -> Executable:
    living = select(workers.c.incarnation).where(workers.c.incarnation == waits.c.owner, workers.c.alive).exists()
    statement = select(waits.c.run_name).where(waits.c.owner.is_not(None), ~living)
    chosen = dialect.locked(statement.limit(bindparam("most", type_=INTEGER)), of=waits, skip=True).cte("gone")
    gone = chosen.prefix_with("MATERIALIZED", dialect="postgresql")
    release = update(waits).where(waits.c.run_name.in_(select(gone.c.run_name))).values(owner=None)
    return release.returning(waits.c.run_name)


def _found(stored: Sequence[StoredWait], rows: Iterable[Any], owner: str | None) -> list[FoundWait]:
    known = {row[0]: row for row in rows}
    found = []
    for wait in stored:
        row = known.get(wait.run_name)
        if row is not None:
            # The run's own owner is empty while it waits: whoever holds its wait speaks for it.
            found.append(FoundWait(wait, TakenRun(*row[:-1])._replace(owner=owner or ""), row[-1]))
    return found


def _types(row: type[NewWait] | type[WaitState]) -> Mapping[str, TypeEngine[Any]]:
    return {name: TEXT if name in _TEXTS else BOOLEAN if name == "watched" else BIGINT for name in row._fields}


def _key(row: Sequence[Any]) -> Any:
    return row[:2]
