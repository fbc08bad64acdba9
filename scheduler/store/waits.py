"""Runs that wait outside the worker: one row each, while they wait. Owned like runs: by a worker's incarnation.

A wait names the fence its run had when it was deferred, and has one of its own that grows whenever somebody takes the
wait over. Whoever writes names both, so what a former holder still sends changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import RowMapping, and_, delete, func, literal, or_, select, text, true, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, WaitKind
from scheduler.store.dialect import BIGINT, BOOLEAN, TEXT
from scheduler.store.engine import TransactionUndoneError
from scheduler.store.runs import TakenRun
from scheduler.store.schema import runs, waits, workers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

WaitKey: TypeAlias = tuple[str, int, int]
"""The run's name, the fence it was deferred under, the fence of its wait."""

# Word for word what the partial indexes say: a bound value would keep SQLite from using them.
_UNTIL: Final = text("waits.kind = 'until'")
_FREE: Final = text("waits.owner IS NULL AND waits.kind <> 'until'")
_INTENDED: Final = text("runs.intent IS NOT NULL AND runs.phase = 'DEFERRED'")


class NewWait(NamedTuple):
    """A run that begins to wait; `owner` None leaves it to the database, or to whoever takes it over."""

    run_name: str
    run_fence: int
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


class WaitState(NamedTuple):
    """All that changes about a wait while somebody holds it."""

    run_name: str
    run_fence: int
    fence: int
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
    run_fence: int
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


class ResumedRun(NamedTuple):
    """A run whose wait is over and that is to be executed again; `state` is what it is given."""

    name: str
    fence: int
    not_before: Micros
    state: str | None


_TEXTS: Final = {"run_name", "executor", "kind", "stage", "owner", "state", "job_id", "last_error", "ending", "seen"}
_STORED: Final = [waits.c[name] for name in StoredWait._fields]
_KEY: Final = {"run_name": TEXT, "run_fence": BIGINT, "fence": BIGINT}


class WaitTable:
    """Waits through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # --- begun -------------------------------------------------------------------------------------------------------

    def begin(self, new: Sequence[NewWait], now: Micros) -> dict[tuple[str, int], str | None]:
        """Runs become DEFERRED and get their waits; returns name and fence of those that did, and their intents.

        One left out was taken by somebody else since, or is over. Told again, because an answer was lost on the way, it
        changes nothing and answers the same.
        """
        if not new:
            return {}
        ordered = sorted(new)
        batch = self._tx.dialect.rows("d", {"name": TEXT, "fence": BIGINT}, [row[:2] for row in ordered])
        present = select(workers.c.incarnation).where(workers.c.incarnation == runs.c.owner).exists()
        deferred = self._tx.connection.execute(
            update(runs)
            .where(
                runs.c.name == batch.c.name,
                runs.c.fence == batch.c.fence,
                or_(runs.c.owner.is_(None), present),
            )
            .values(phase=Phase.DEFERRED.value, owner=None, state=None)
            .returning(runs.c.name, runs.c.fence, runs.c.intent)
        )
        begun = {(row.name, row.fence): row.intent for row in deferred}
        rows = [row for row in ordered if row[:2] in begun]
        if rows:
            values = self._tx.dialect.rows("w", _types(NewWait), rows)
            added = [*NewWait._fields, "fence", "created_at"]
            source = select(*values.c, literal(0, BIGINT), literal(now, BIGINT)).where(true())
            statement = self._tx.dialect.insert(waits).from_select(added, source, include_defaults=False)
            self._tx.connection.execute(statement.on_conflict_do_nothing(index_elements=["run_name"]))
        return begun

    # --- held --------------------------------------------------------------------------------------------------------

    def claim(self, owner: str, executors: Iterable[str], limit: int) -> list[tuple[StoredWait, TakenRun, str | None]]:
        """Waits of these executors that nobody holds become `owner`'s; with each its run, and how somebody wants it to end.

        Rows that another worker is claiming are left out.
        """
        statement = select(waits.c.run_name).where(_FREE, waits.c.executor.in_(sorted(executors)))
        chosen = self._tx.dialect.locked(statement.order_by(waits.c.look_at).limit(limit), of=waits, skip=True)
        free = chosen.cte("free").prefix_with("MATERIALIZED", dialect="postgresql")
        claimed = self._tx.connection.execute(
            update(waits)
            .where(waits.c.run_name.in_(select(free.c.run_name)))
            .values(owner=owner, fence=waits.c.fence + 1)
            .returning(*_STORED)
        )
        return self._with_runs([StoredWait(*row) for row in claimed])

    def held(self, owner: str) -> dict[str, tuple[int, int]]:
        """The waits this incarnation holds: by the run's name, the run's fence and the wait's."""
        statement = select(waits.c.run_name, waits.c.run_fence, waits.c.fence).where(waits.c.owner == owner)
        return {row.run_name: (row.run_fence, row.fence) for row in self._tx.connection.execute(statement)}

    def load(self, names: Iterable[str], owner: str) -> list[tuple[StoredWait, TakenRun, str | None]]:
        """Waits that this incarnation holds, as `claim` returns them."""
        statement = select(*_STORED).where(waits.c.run_name.in_(sorted(names)), waits.c.owner == owner)
        return self._with_runs([StoredWait(*row) for row in self._tx.connection.execute(statement)])

    def write(self, states: Sequence[WaitState]) -> set[WaitKey]:
        """Stores how waits stand; returns those that were still held under these fences.

        Where another open wait has the same job, `taken_jobs` says so beforehand.
        """
        if not states:
            return set()
        batch = self._tx.dialect.rows("s", _types(WaitState), sorted(states))
        changed = {name: batch.c[name] for name in WaitState._fields if name not in _KEY}
        statement = update(waits).where(_is(batch)).values(changed)
        try:
            rows = self._tx.connection.execute(statement.returning(waits.c.run_name, waits.c.run_fence, waits.c.fence))
            return {(row.run_name, row.run_fence, row.fence) for row in rows}
        except IntegrityError as error:
            # Somebody saved the same job at this moment: the next time the look beforehand finds it.
            raise TransactionUndoneError(str(error.orig)) from error

    def taken_jobs(self, jobs: Sequence[tuple[str, str, str]]) -> set[str]:
        """Of these (run, executor, job id), the runs whose job another open wait holds."""
        if not jobs:
            return set()
        batch = self._tx.dialect.rows("j", {"run_name": TEXT, "executor": TEXT, "job_id": TEXT}, jobs)
        statement = select(batch.c.run_name).where(
            select(waits.c.run_name)
            .where(
                waits.c.executor == batch.c.executor,
                waits.c.job_id == batch.c.job_id,
                waits.c.run_name != batch.c.run_name,
                text("waits.job_id IS NOT NULL AND NOT waits.watched"),
            )
            .exists()
        )
        return set(self._tx.connection.execute(statement).scalars())

    # --- let go ------------------------------------------------------------------------------------------------------

    def release(self, owner: str) -> int:
        """This incarnation holds none of its waits any more; others may take them over."""
        result = self._tx.connection.execute(update(waits).where(waits.c.owner == owner).values(owner=None))
        return int(result.rowcount)

    def release_lost(self, limit: int) -> int:
        """Waits of workers that are not alive lose their owner, and nothing else: the runs stay DEFERRED."""
        living = select(workers.c.incarnation).where(workers.c.incarnation == waits.c.owner, workers.c.alive).exists()
        statement = select(waits.c.run_name).where(waits.c.owner.is_not(None), ~living).limit(limit)
        chosen = self._tx.dialect.locked(statement, of=waits, skip=True).cte("gone")
        gone = chosen.prefix_with("MATERIALIZED", dialect="postgresql")
        result = self._tx.connection.execute(
            update(waits).where(waits.c.run_name.in_(select(gone.c.run_name))).values(owner=None)
        )
        return int(result.rowcount)

    # --- over --------------------------------------------------------------------------------------------------------

    def lock_runs(self, names: Iterable[str]) -> dict[str, tuple[int, str | None]]:
        """Locks deferred runs, as must be done before their waits are touched; returns fences and intents."""
        statement = select(runs.c.name, runs.c.fence, runs.c.intent).where(runs.c.name.in_(sorted(names)))
        locked = self._tx.dialect.locked(statement.order_by(runs.c.name), of=runs, skip=False)
        return {row.name: (row.fence, row.intent) for row in self._tx.connection.execute(locked)}

    def end(self, keys: Sequence[WaitKey]) -> set[WaitKey]:
        """Removes waits whose runs are locked; returns those that were still held under these fences."""
        if not keys:
            return set()
        batch = self._tx.dialect.rows("k", _KEY, sorted(keys))
        parts = tuple_(waits.c.run_name, waits.c.run_fence, waits.c.fence)
        statement = delete(waits).where(parts.in_(select(*batch.c)))
        rows = self._tx.connection.execute(statement.returning(waits.c.run_name, waits.c.run_fence, waits.c.fence))
        return {(row.run_name, row.run_fence, row.fence) for row in rows}

    def resume(self, resumed: Sequence[ResumedRun]) -> None:
        """Runs whose waits are gone are queued again, to be executed with what they are given."""
        if not resumed:
            return
        types: dict[str, TypeEngine[Any]] = {"name": TEXT, "fence": BIGINT, "not_before": BIGINT, "state": TEXT}
        batch = self._tx.dialect.rows("r", types, sorted(resumed))
        self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.name, runs.c.fence == batch.c.fence)
            .values(phase=Phase.QUEUED.value, not_before=batch.c.not_before, state=batch.c.state)
        )

    def record_events(self, events: Sequence[tuple[str, str | None, str | None]]) -> None:
        """Keeps with runs the outcome event and the links, as texts; an event or link that is None leaves what is there."""
        if not events:
            return
        batch = self._tx.dialect.rows("e", {"name": TEXT, "event": TEXT, "links": TEXT}, sorted(events, key=_name))
        self._tx.connection.execute(
            update(runs)
            .where(runs.c.name == batch.c.name)
            .values(event=func.coalesce(batch.c.event, runs.c.event), links=func.coalesce(batch.c.links, runs.c.links))
        )

    # --- looked for --------------------------------------------------------------------------------------------------

    def due_untils(self, now: Micros, limit: int) -> list[tuple[StoredWait, TakenRun, str | None]]:
        """Waits for an instant that has come, or whose attempt's time is over; not locked."""
        statement = select(*_STORED).where(_UNTIL, waits.c.look_at <= now).order_by(waits.c.look_at).limit(limit)
        return self._with_runs([StoredWait(*row) for row in self._tx.connection.execute(statement)])

    def next_until_at(self) -> Micros | None:
        """When the next wait for an instant is over."""
        value: Micros | None = self._tx.connection.execute(select(func.min(waits.c.look_at)).where(_UNTIL)).scalar()
        return value

    def intended(self, owner: str) -> dict[str, str]:
        """The runs this incarnation waits for and somebody wants to end, and the reasons."""
        statement = (
            select(waits.c.run_name, runs.c.intent_note)
            .join(runs, runs.c.name == waits.c.run_name)
            .where(_INTENDED, waits.c.owner == owner)
        )
        return {row.run_name: row.intent_note or "" for row in self._tx.connection.execute(statement)}

    def intended_untils(self, limit: int) -> list[tuple[StoredWait, TakenRun, str | None]]:
        """Waits for an instant whose run somebody wants to end; not locked."""
        statement = select(*_STORED).join(runs, runs.c.name == waits.c.run_name).where(_INTENDED, _UNTIL).limit(limit)
        return self._with_runs([StoredWait(*row) for row in self._tx.connection.execute(statement)])

    def of_run(self, name: str) -> RowMapping | None:
        """What a run waits for."""
        return self._tx.connection.execute(select(waits).where(waits.c.run_name == name)).mappings().one_or_none()

    def _with_runs(self, stored: Sequence[StoredWait]) -> list[tuple[StoredWait, TakenRun, str | None]]:
        if not stored:
            return []
        statement = select(*(runs.c[name] for name in TakenRun._fields), runs.c.intent).where(
            runs.c.name.in_(sorted(wait.run_name for wait in stored))
        )
        found = {row[0]: (TakenRun(*row[:-1]), row[-1]) for row in self._tx.connection.execute(statement)}
        return [(wait, *found[wait.run_name]) for wait in stored if wait.run_name in found]


def _types(row: type[NewWait] | type[WaitState]) -> Mapping[str, TypeEngine[Any]]:
    return {name: TEXT if name in _TEXTS else BOOLEAN if name == "watched" else BIGINT for name in row._fields}


def _is(batch: Any) -> Any:
    return and_(
        waits.c.run_name == batch.c.run_name,
        waits.c.run_fence == batch.c.run_fence,
        waits.c.fence == batch.c.fence,
    )


def _name(event: tuple[str, str | None, str | None]) -> str:
    return event[0]


__all__ = ["NewWait", "ResumedRun", "Stage", "StoredWait", "WaitKey", "WaitKind", "WaitState", "WaitTable"]
