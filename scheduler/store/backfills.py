"""Backfills: what was ordered, how far each has come, and the runs they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import RowMapping, Select, func, literal, select, text, update

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.store.dialect import BIGINT, TEXT
from scheduler.store.run_lookups import AGAIN, OPEN_PHASES, SLOTTED
from scheduler.store.schema import backfills, runs, tasks, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

# Word for word what the index `backfills_open` says.
_UNDER_WAY = text("backfills.state IN ('running', 'cancelling')")
# Behind every late run: a backfill has time, and may have very many.
_LAST = 1_000_000


class FilledSlot(NamedTuple):
    """A slot that a backfill gives a run; everything else is copied from the backfill. Slots start in order of `not_before`."""

    name: str
    kind: str
    scheduled_at: Micros
    not_before: Micros


class BackfillTable:
    """Backfills through one transaction. Whoever moves one on holds its row, which is locked before any trigger's."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # --- orders ------------------------------------------------------------------------------------------------------

    def insert(self, values: Mapping[str, Any]) -> int:
        """A new backfill; returns its number, which none had before."""
        statement = backfills.insert().values(values).returning(backfills.c.id)
        return int(self._tx.connection.execute(statement).scalar_one())

    def find(self, number: int) -> RowMapping | None:
        """One backfill with the names of its task and trigger."""
        return self._tx.connection.execute(_listing().where(backfills.c.id == number)).mappings().one_or_none()

    def list_newest(
        self,
        *,
        project: str | None = None,
        domain: str | None = None,
        task: str | None = None,
        trigger: str | None = None,
        limit: int,
    ) -> Sequence[RowMapping]:
        """Backfills, newest first; None leaves a part open."""
        wanted = (
            (tasks.c.project, project),
            (tasks.c.domain, domain),
            (tasks.c.name, task),
            (triggers.c.name, trigger),
        )
        conditions = [column == value for column, value in wanted if value is not None]
        statement = _listing().where(*conditions).order_by(backfills.c.id.desc()).limit(limit)
        return self._tx.connection.execute(statement).mappings().all()

    def claim(self, number: int) -> RowMapping | None:
        """The backfill, locked; None where it is over or somebody else holds it."""
        statement = select(backfills.c.id).where(_UNDER_WAY, backfills.c.id == number)
        locked = self._tx.dialect.locked(statement, of=backfills, skip=True)
        return self.find(number) if self._tx.connection.execute(locked).first() is not None else None

    def under_way(self) -> list[int]:
        """The numbers of those that are not over, oldest first."""
        statement = select(backfills.c.id).where(_UNDER_WAY).order_by(backfills.c.id)
        return list(self._tx.connection.execute(statement).scalars())

    def lock(self, number: int) -> RowMapping | None:
        """The backfill, locked, once whoever holds it is through."""
        statement = select(backfills.c.id).where(backfills.c.id == number)
        self._tx.connection.execute(self._tx.dialect.locked(statement, of=backfills, skip=False))
        return self.find(number)

    def update(self, number: int, **values: Any) -> None:
        """Writes how far it has come; the caller holds the row."""
        self._tx.connection.execute(update(backfills).where(backfills.c.id == number).values(values))

    # --- slots -------------------------------------------------------------------------------------------------------

    def outcomes(
        self, trigger_id: int, after: Micros, until: Micros, limit: int | None = None
    ) -> tuple[dict[Micros, Phase], Micros]:
        """The slots in (after, until] that have a run, each with the phase of its newest one.

        With a limit at most so many, the oldest; the second answer is how far the first one reaches.
        """
        statement = (
            select(runs.c.scheduled_at, runs.c.phase)
            .where(runs.c.trigger_id == trigger_id, runs.c.scheduled_at > after)
            .order_by(runs.c.scheduled_at, runs.c.created_at)
        )
        own = self._tx.connection.execute(statement.where(SLOTTED, runs.c.scheduled_at <= until).limit(limit)).all()
        reach = own[-1].scheduled_at if limit is not None and len(own) == limit else until
        again = self._tx.connection.execute(statement.where(AGAIN, runs.c.scheduled_at <= reach)).all()
        return {row.scheduled_at: Phase(row.phase) for row in [*own, *again]}, reach

    def insert_runs(self, number: int, slots: Sequence[FilledSlot], now: Micros) -> list[Micros]:
        """Queues runs of a backfill, and returns the slots that got one: a name that is there already gets none."""
        if not slots:
            return []
        # Sorted by name, as every batch of runs is, so that two of them cannot wait for each other in a circle.
        types = dict(zip(FilledSlot._fields, (TEXT, TEXT, BIGINT, BIGINT), strict=True))
        batch = self._tx.dialect.rows("s", types, sorted(slots))
        values: dict[str, Any] = {
            "name": batch.c.name,
            "kind": batch.c.kind,
            "trigger_id": backfills.c.trigger_id,
            "task_id": backfills.c.task_id,
            "scheduled_at": batch.c.scheduled_at,
            "version": backfills.c.version,
            "spec_digest": backfills.c.spec_digest,
            "revision": backfills.c.revision,
            "inputs": backfills.c.inputs,
            "kickoff_arg": backfills.c.kickoff_arg,
            "executor": backfills.c.executor,
            # Overlap is between scheduled runs; a task's limit holds for all.
            "gated": tasks.c.max_concurrent_runs.is_not(None),
            "deadline_at": literal(now, BIGINT) + backfills.c.deadline,
            "phase": literal(Phase.QUEUED.value, TEXT),
            "priority": literal(_LAST),
            "not_before": batch.c.not_before,
            "fence": literal(0),
            "created_at": literal(now, BIGINT),
            "backfill_id": backfills.c.id,
        }
        source = (
            select(*(value.label(f"v_{name}") for name, value in values.items()))
            .select_from(batch.join(backfills, backfills.c.id == number).join(tasks, tasks.c.id == backfills.c.task_id))
            .order_by(batch.c.name)
        )
        statement = (
            self._tx.dialect.insert(runs)
            .from_select(list(values), source, include_defaults=False)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(runs.c.scheduled_at, runs.c.kind)
        )
        filled = sorted(self._tx.connection.execute(statement).all())
        self._tx.tally.inserted.update(row.kind for row in filled)
        return [row.scheduled_at for row in filled]

    def mismatched(self, trigger_id: int, slots: Sequence[FilledSlot]) -> list[str]:
        """Names of this batch under which a run for another trigger or slot is stored."""
        wanted = {item.name: item.scheduled_at for item in slots}
        statement = select(runs.c.name, runs.c.trigger_id, runs.c.scheduled_at).where(runs.c.name.in_(sorted(wanted)))
        return [
            row.name
            for row in self._tx.connection.execute(statement)
            if (row.trigger_id, row.scheduled_at) != (trigger_id, wanted[row.name])
        ]

    # --- runs --------------------------------------------------------------------------------------------------------

    def phases(self, numbers: Sequence[int]) -> dict[int, dict[str, int]]:
        """How many runs each backfill has in each phase."""
        statement = (
            select(runs.c.backfill_id, runs.c.phase, func.count())
            .where(runs.c.backfill_id.in_(numbers))
            .group_by(runs.c.backfill_id, runs.c.phase)
        )
        found: dict[int, dict[str, int]] = {number: {} for number in numbers}
        for number, phase, count in self._tx.connection.execute(statement):
            found[number][phase] = int(count)
        return found

    def count_open(self, number: int) -> int:
        """How many of its runs are not over."""
        statement = select(func.count()).where(runs.c.backfill_id == number, runs.c.phase.in_(OPEN_PHASES))
        return int(self._tx.connection.execute(statement).scalar_one())

    def abort_queued(self, number: int, now: Micros, note: str) -> int:
        """Its queued runs are over, but for those that a worker is taking just now."""
        queued = (
            select(runs.c.name)
            .where(runs.c.backfill_id == number, runs.c.phase == Phase.QUEUED.value)
            .order_by(runs.c.name)
        )
        claimed = self._tx.dialect.locked(queued, of=runs, skip=True).cte("queued")
        claimed = claimed.prefix_with("MATERIALIZED", dialect="postgresql")
        statement = (
            update(runs)
            .where(runs.c.name.in_(select(claimed.c.name)))
            .values(phase=Phase.ABORTED.value, fence=runs.c.fence + 1, error=note, finished_at=now)
            .returning(runs.c.executor)
        )
        aborted = list(self._tx.connection.execute(statement).scalars())
        self._tx.tally.ended.update((Phase.ABORTED.value, executor) for executor in aborted)
        return len(aborted)


def _listing() -> Select[Any]:
    return (
        select(
            backfills,
            tasks.c.project,
            tasks.c.domain,
            tasks.c.name.label("task"),
            triggers.c.name,
            triggers.c.deleted_at,
        )
        .join(tasks, tasks.c.id == backfills.c.task_id)
        .join(triggers, triggers.c.id == backfills.c.trigger_id)
    )
