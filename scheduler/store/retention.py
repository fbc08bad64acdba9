"""Old history: which of it is over its age, found in the order of indexes, a batch at a time, and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    TextClause,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
)

from scheduler.domain.instants import Micros
from scheduler.domain.run import Kind, Phase
from scheduler.store.dialect import BIGINT, INTEGER, TEXT, Batch, Dialect, Each
from scheduler.store.prepared import prepared
from scheduler.store.run_lookups import AGAIN, OPEN_TEXT, SLOTTED
from scheduler.store.schema import attempts, backfills, lost_attempts, meta, runs, trigger_revisions, triggers, waits

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

_KEY = "retention"


class RunFamily(NamedTuple):
    """Runs that one index holds, by trigger and then by `order`; `having` steps through its triggers."""

    condition: TextClause
    order: ColumnElement[Micros]
    having: TextClause


def _family(condition: str, order: ColumnElement[Micros]) -> RunFamily:
    # The condition is word for word the index's, or it would not be used.
    first = f"SELECT min(runs.trigger_id) FROM runs WHERE {condition} AND runs.trigger_id > "  # noqa: S608  # constants
    having = (
        f"WITH RECURSIVE found(trigger_id) AS ({first} :after UNION ALL "  # noqa: S608
        f"SELECT ({first} found.trigger_id) FROM found WHERE found.trigger_id IS NOT NULL) "
        "SELECT trigger_id FROM found WHERE trigger_id IS NOT NULL LIMIT :most"
    )
    return RunFamily(text(condition), order, text(having))


OWN_SLOTS = _family(SLOTTED.text, runs.c.scheduled_at)
DONE_AGAIN = _family(AGAIN.text, runs.c.scheduled_at)
BY_HAND = _family("runs.kind = 'manual'", runs.c.created_at)


class OldRun(NamedTuple):
    """A run to be removed."""

    name: str
    trigger_id: int
    scheduled_at: Micros | None


class Gap(NamedTuple):
    """A slot, and an instant before it."""

    trigger_id: int
    after: Micros
    slot: Micros


class RetentionTable:
    """What is removed for its age, through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # --- whose turn --------------------------------------------------------------------------------------------------

    def lock(self) -> str | None:
        """Where the last batch left off, as `put` wrote it (empty at first), locked; None while another worker is at it."""
        locked = _lock(self._tx.dialect)
        value: str | None = self._tx.connection.execute(locked).scalar()
        if value is None and self._tx.meta.get(_KEY) is None:
            first = self._tx.dialect.insert(meta).values(key=_KEY, value="")
            self._tx.connection.execute(first.on_conflict_do_nothing(index_elements=["key"]))
            value = self._tx.connection.execute(locked).scalar()
        return value

    def put(self, value: str) -> None:
        """Writes down where to go on; the caller holds the lock."""
        self._tx.meta.put(_KEY, value)

    # --- runs --------------------------------------------------------------------------------------------------------

    def triggers_after(self, family: RunFamily, after: int, limit: int) -> list[int]:
        """The next triggers that have runs of a family: one step in its index a trigger, however many runs each has."""
        answer = self._tx.connection.execute(family.having, {"after": after, "most": limit})
        return list(answer.scalars())

    def removable_before(
        self, family: RunFamily, trigger_ids: Sequence[int], keep: int, cutoff: Micros
    ) -> dict[int, Micros]:
        """Triggers whose oldest runs are older than `cutoff` and not among the newest `keep`, with where those begin.

        Of a trigger that pauses on failure as many ended scheduled runs stay as it looks at.
        """
        statement, batch = _removable_before(self._tx.dialect, family, keep > 0)
        given = batch.send([(trigger_id,) for trigger_id in trigger_ids]) | {"cutoff": cutoff, "newer": keep - 1}
        found = {
            row.trigger_id: min(row.first, cutoff)
            for row in self._tx.connection.execute(statement, given)
            if row.first is not None
        }
        if family is OWN_SLOTS and found:
            for trigger_id, first_counted in self._still_counted(sorted(found)).items():
                found[trigger_id] = min(found[trigger_id], first_counted)
        return found

    def old_runs(self, family: RunFamily, before: Mapping[int, Micros], cutoff: Micros, most: int) -> list[OldRun]:
        """Runs of these triggers before the given instants that were over before `cutoff`: of each the `most` oldest.

        Left out is what is open, what an external job is still waited for, and what a backfill under way still counts.
        """
        oldest = _old_runs(self._tx.dialect, family)
        found = oldest(self._tx.connection, sorted(before.items()), cutoff=cutoff, most=most)
        return [OldRun(*row) for row in found]

    def remove_runs(self, names: Sequence[str]) -> None:
        """Removes these runs and their attempts."""
        statements, batch = _remove_runs(self._tx.dialect)
        given = batch.send([(name,) for name in sorted(names)])
        for statement in statements:
            self._tx.connection.execute(statement, given)

    def runs_within(self, windows: Sequence[Gap]) -> dict[int, bool]:
        """Of each window's trigger, whether a slot after its instant and up to its slot has a run still."""
        return {gap.trigger_id: first is not None or still for gap, first, still in self.runs_left(windows)}

    def runs_left(self, gaps: Sequence[Gap]) -> list[tuple[Gap, Micros | None, bool]]:
        """For each gap the first slot strictly within it that has a run, and whether its own slot has one still."""
        statement, batch = _runs_left(self._tx.dialect)
        found = self._tx.connection.execute(statement, batch.send(gaps)).all()
        return [(Gap(row[0], row[1], row[2]), row[3], row[4] is not None) for row in found]

    def _still_counted(self, trigger_ids: Sequence[int]) -> dict[int, Micros]:
        """The oldest slot that `pause_on_failure` may look at, of those triggers that have it; 0 where that is any."""
        statement = select(triggers.c.id, triggers.c.pause_on_failure).where(
            triggers.c.id.in_(trigger_ids), triggers.c.pause_on_failure.is_not(None)
        )
        by_number: dict[int, list[int]] = {}
        for trigger_id, number in self._tx.connection.execute(statement):
            by_number.setdefault(number, []).append(trigger_id)
        found: dict[int, Micros] = {}
        ended = [Phase.SUCCEEDED.value, Phase.FAILED.value, Phase.TIMED_OUT.value]
        for number, ids in by_number.items():
            batch = self._tx.dialect.rows("t", {"trigger_id": BIGINT}, [(trigger_id,) for trigger_id in ids])
            last = (
                select(runs.c.scheduled_at)
                .where(
                    SLOTTED,
                    runs.c.trigger_id == batch.c.trigger_id,
                    runs.c.kind == Kind.SCHEDULED.value,
                    runs.c.phase.in_(ended),
                )
                .order_by(runs.c.scheduled_at.desc())
                .limit(1)
                .offset(number - 1)
            )
            rows = self._tx.connection.execute(select(batch.c.trigger_id, last.scalar_subquery().label("slot")))
            found.update({row.trigger_id: row.slot or 0 for row in rows})
        return found

    # --- everything else ---------------------------------------------------------------------------------------------

    def remove_revisions(self, after: int, triggers_at_once: int, cutoff: Micros, limit: int) -> tuple[int, int | None]:
        """Removes revisions older than `cutoff` of some triggers that follow `after`, never a trigger's newest.

        Returns how many, and the trigger to go on after; None where there is none left.
        """
        ids = select(triggers.c.id).where(triggers.c.id > after).order_by(triggers.c.id).limit(triggers_at_once)
        window = list(self._tx.connection.execute(ids).scalars())
        if not window:
            return 0, None
        later = trigger_revisions.alias("later")
        newer = select(later.c.revision).where(
            later.c.trigger_id == trigger_revisions.c.trigger_id, later.c.revision > trigger_revisions.c.revision
        )
        old = (
            select(trigger_revisions.c.trigger_id, trigger_revisions.c.revision)
            .where(
                trigger_revisions.c.trigger_id > after,
                trigger_revisions.c.trigger_id <= window[-1],
                trigger_revisions.c.at < cutoff,
                newer.exists(),
            )
            .order_by(trigger_revisions.c.trigger_id, trigger_revisions.c.revision)
            .limit(limit)
        )
        found = [tuple(row) for row in self._tx.connection.execute(old)]
        if found:
            batch = self._tx.dialect.rows("o", {"trigger_id": BIGINT, "revision": BIGINT}, found)
            key = tuple_(trigger_revisions.c.trigger_id, trigger_revisions.c.revision)
            self._tx.connection.execute(delete(trigger_revisions).where(key.in_(select(*batch.c))))
        # A full batch leaves the rest of these triggers to the next one.
        return len(found), after if len(found) == limit else window[-1]

    def remove_backfills(self, cutoff: Micros, limit: int) -> int:
        """Removes backfills that were over before `cutoff` and whose runs are gone; returns how many."""
        left = select(runs.c.name).where(runs.c.backfill_id == backfills.c.id).exists()
        old = (
            select(backfills.c.id).where(backfills.c.finished_at < cutoff, ~left).order_by(backfills.c.id).limit(limit)
        )
        result = self._tx.connection.execute(delete(backfills).where(backfills.c.id.in_(old)))
        return int(result.rowcount)


@prepared
def _lock(dialect: Dialect) -> Select[Any]:
    return dialect.locked(select(meta.c.value).where(meta.c.key == _KEY), of=meta, skip=True)


@prepared
def _removable_before(dialect: Dialect, family: RunFamily, keeps: bool) -> tuple[Executable, Batch]:
    batch = dialect.batch("t", {"trigger_id": BIGINT})
    cutoff: Any = bindparam("cutoff", type_=BIGINT)
    mine = select(family.order).where(family.condition, runs.c.trigger_id == batch.rows.c.trigger_id)
    oldest = mine.with_only_columns(func.min(family.order)).scalar_subquery()
    bound = cutoff
    if keeps:
        newest = mine.order_by(family.order.desc()).limit(1)
        bound = newest.offset(bindparam("newer", type_=INTEGER)).scalar_subquery()
    # Nothing ends before its slot: where the oldest one is young, its newer ones need not be counted.
    first = case((oldest < cutoff, bound))
    return select(batch.rows.c.trigger_id, first.label("first")), batch


@prepared
def _old_runs(dialect: Dialect, family: RunFamily) -> Each:
    under_way = select(backfills.c.id).where(
        backfills.c.id == runs.c.backfill_id, text("backfills.state IN ('running', 'cancelling')")
    )

    def oldest(trigger_id: Any, first_kept: Any) -> Select[Any]:
        return (
            select(runs.c.name, runs.c.trigger_id, runs.c.scheduled_at)
            .where(
                family.condition,
                runs.c.trigger_id == trigger_id,
                family.order < first_kept,
                text(f"NOT ({OPEN_TEXT})"),
                func.coalesce(runs.c.finished_at, runs.c.created_at) < bindparam("cutoff", type_=BIGINT),
                ~select(waits.c.run_name).where(waits.c.run_name == runs.c.name).exists(),
                or_(runs.c.backfill_id.is_(None), ~under_way.exists()),
            )
            .order_by(family.order)
            .limit(bindparam("most", type_=INTEGER))
        )

    return dialect.each({"trigger_id": BIGINT, "first_kept": BIGINT}, oldest)


@prepared
def _remove_runs(dialect: Dialect) -> tuple[list[Executable], Batch]:
    batch = dialect.batch("o", {"name": TEXT})
    wanted = select(batch.rows.c.name)
    of_runs = [delete(table).where(table.c.run_name.in_(wanted)) for table in (attempts, lost_attempts)]
    return [*of_runs, delete(runs).where(runs.c.name.in_(wanted))], batch


@prepared
def _runs_left(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("g", dict.fromkeys(Gap._fields, BIGINT))
    gap = batch.rows
    firsts, stills = [], []
    for condition in (SLOTTED, AGAIN):
        mine = select(func.min(runs.c.scheduled_at)).where(condition, runs.c.trigger_id == gap.c.trigger_id)
        within = mine.where(runs.c.scheduled_at > gap.c.after, runs.c.scheduled_at < gap.c.slot)
        firsts.append(within.scalar_subquery())
        stills.append(mine.where(runs.c.scheduled_at == gap.c.slot).scalar_subquery())
    return select(*gap.c, func.coalesce(*firsts), func.coalesce(*stills)), batch
