"""The skipped ranges: the half of the ledger that is stored (the runs are the other half)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable, RowMapping, Select, and_, bindparam, delete, func, select, true, tuple_

from scheduler.domain.instants import Micros
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.store.dialect import BIGINT, TEXT, Batch, Dialect
from scheduler.store.prepared import prepared
from scheduler.store.schema import skips

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


_KEY = {"trigger_id": BIGINT, "from_slot": BIGINT}


class LedgerTable:
    """Skipped ranges through one transaction; the caller holds the triggers' due rows."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def append(self, ranges: Mapping[int, Sequence[SkippedRange]], positions: Mapping[int, Micros | None]) -> None:
        """Adds ranges by trigger, oldest first.

        `positions` are the triggers' positions before this decision: a first range that follows a stored one of the same
        reason, with nothing decided between, extends it instead of adding a row.
        """
        if not any(ranges.values()):
            return
        for items in ranges.values():
            for item in items:
                self._tx.tally.skipped[str(item.reason)] += item.count
        last = self._last(trigger for trigger, items in ranges.items() if items)
        rows = [
            _row(trigger, item)
            for trigger, items in ranges.items()
            for item in _extended(items, last.get(trigger), positions.get(trigger))
        ]
        self._tx.connection.execute(
            _append(self._tx.dialect), sorted(rows, key=lambda row: (row["trigger_id"], row["from_slot"]))
        )

    def overlapping(self, trigger_id: int, after: Micros, until: Micros) -> list[SkippedRange]:
        """The ranges of a trigger that touch (after, until], oldest first."""
        statement = _touching(trigger_id, after, until)
        return [_range(row) for row in self._tx.connection.execute(statement).mappings()]

    def newest(self, trigger_id: int, limit: int) -> list[SkippedRange]:
        """The newest ranges of a trigger, newest first."""
        statement = select(skips).where(skips.c.trigger_id == trigger_id).order_by(skips.c.to_slot.desc()).limit(limit)
        return [_range(row) for row in self._tx.connection.execute(statement).mappings()]

    def replace(self, old: Mapping[int, Sequence[SkippedRange]], new: Mapping[int, Sequence[SkippedRange]]) -> None:
        """Puts ranges, by trigger, in place of others, which the caller has locked."""
        before = {(trigger, item.from_slot): item for trigger, items in old.items() for item in items}
        after = {(trigger, item.from_slot): item for trigger, items in new.items() for item in items}
        if gone := sorted(before.keys() - after.keys()):
            statement, batch = _remove(self._tx.dialect)
            self._tx.connection.execute(statement, batch.send(gone))
        rows = [
            (trigger, *astuple(item))
            for (trigger, slot), item in sorted(after.items())
            if before.get((trigger, slot)) != item
        ]
        if rows:
            statement, batch = _put(self._tx.dialect)
            self._tx.connection.execute(statement, batch.send(rows))

    def lock(self, trigger_id: int, after: Micros, until: Micros) -> list[SkippedRange]:
        """The ranges of a trigger that touch (after, until], locked once whoever changes them is through."""
        locked = self._tx.dialect.locked(_touching(trigger_id, after, until), of=skips, skip=False)
        return [_range(row) for row in self._tx.connection.execute(locked).mappings()]

    def lock_ahead(self, instants: Sequence[tuple[int, Micros]]) -> dict[int, list[SkippedRange]]:
        """The ranges of triggers that reach beyond an instant of each, locked; those of slots that had a run are left out."""
        statement, batch = _lock_ahead(self._tx.dialect)
        found: dict[int, list[SkippedRange]] = {}
        for row in self._tx.connection.execute(statement, batch.send(instants)).mappings():
            found.setdefault(row["trigger_id"], []).append(_range(row))
        return found

    def lock_near(self, windows: Sequence[tuple[int, Micros, Micros]]) -> dict[int, list[SkippedRange]]:
        """Ranges by trigger, locked: those within its window (first and last slot), the last before it, the next after."""
        statement, batch = _lock_near(self._tx.dialect)
        found: dict[int, list[SkippedRange]] = {}
        for row in self._tx.connection.execute(statement, batch.send(windows)).mappings():
            found.setdefault(row["trigger_id"], []).append(_range(row))
        return found

    def counts_by_reason(self) -> dict[str, int]:
        """How many slots were skipped so far, by reason."""
        statement = select(skips.c.reason, func.sum(skips.c.count)).where(skips.c.reason != Reason.PRUNED.value)
        statement = statement.group_by(skips.c.reason)
        return {reason: int(total) for reason, total in self._tx.connection.execute(statement)}

    def _last(self, trigger_ids: Iterable[int]) -> dict[int, SkippedRange]:
        rows = self._tx.connection.execute(_LAST, {"trigger_ids": sorted(trigger_ids)}).mappings()
        return {row["trigger_id"]: _range(row) for row in rows}


def _touching(trigger_id: int, after: Micros, until: Micros) -> Select[Any]:
    # Ranges do not overlap: of those that begin at or before `after` only the last can reach beyond it. A condition on both
    # ends alone would read every range on one side.
    before = select(func.max(skips.c.from_slot)).where(skips.c.trigger_id == trigger_id, skips.c.from_slot <= after)
    return (
        select(skips)
        .where(
            skips.c.trigger_id == trigger_id,
            skips.c.from_slot >= func.coalesce(before.scalar_subquery(), after),
            skips.c.from_slot <= until,
            skips.c.to_slot > after,
        )
        .order_by(skips.c.from_slot)
    )


def _extended(
    items: Sequence[SkippedRange], last: SkippedRange | None, position: Micros | None
) -> Iterable[SkippedRange]:
    first = items[0]
    if last is not None and last.reason == first.reason and position is not None and last.to_slot == position:
        yield SkippedRange(last.from_slot, first.to_slot, last.count + first.count, first.reason)
    else:
        yield first
    yield from items[1:]


def _row(trigger_id: int, item: SkippedRange) -> dict[str, Any]:
    return {
        "trigger_id": trigger_id,
        "from_slot": item.from_slot,
        "to_slot": item.to_slot,
        "count": item.count,
        "reason": str(item.reason),
    }


def _range(row: RowMapping) -> SkippedRange:
    return SkippedRange(row["from_slot"], row["to_slot"], row["count"], Reason(row["reason"]))


_NEWEST = (
    select(skips.c.trigger_id, func.max(skips.c.to_slot).label("to_slot"))
    .where(skips.c.trigger_id.in_(bindparam("trigger_ids", expanding=True)))
    .group_by(skips.c.trigger_id)
    .subquery()
)
_LAST = select(skips).join(
    _NEWEST, (skips.c.trigger_id == _NEWEST.c.trigger_id) & (skips.c.to_slot == _NEWEST.c.to_slot)
)


@prepared
def _append(dialect: Dialect) -> Any:
    statement = dialect.insert(skips)
    return statement.on_conflict_do_update(
        index_elements=["trigger_id", "from_slot"],
        set_={"to_slot": statement.excluded.to_slot, "count": statement.excluded["count"]},
    )


@prepared
def _remove(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("g", _KEY)
    chosen = tuple_(skips.c.trigger_id, skips.c.from_slot).in_(select(*batch.rows.c))
    return delete(skips).where(chosen), batch


@prepared
def _put(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("r", _KEY | {"to_slot": BIGINT, "count": BIGINT, "reason": TEXT})
    source = select(*batch.rows.c).where(true())
    statement = dialect.insert(skips).from_select([column.name for column in batch.rows.c], source)
    changed = {name: statement.excluded[name] for name in ("to_slot", "count", "reason")}
    return statement.on_conflict_do_update(index_elements=["trigger_id", "from_slot"], set_=changed), batch


@prepared
def _lock_ahead(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("h", {"trigger_id": BIGINT, "instant": BIGINT})
    ahead = and_(skips.c.trigger_id == batch.rows.c.trigger_id, skips.c.to_slot > batch.rows.c.instant)
    statement = select(skips).select_from(batch.rows.join(skips, ahead)).where(skips.c.reason != Reason.PRUNED.value)
    ordered = statement.order_by(skips.c.trigger_id, skips.c.from_slot)
    return dialect.locked(ordered, of=skips, skip=False), batch


@prepared
def _lock_near(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("w", {"trigger_id": BIGINT, "low": BIGINT, "high": BIGINT})
    window = batch.rows
    other = skips.alias("o")
    mine = other.c.trigger_id == window.c.trigger_id
    before = select(func.max(other.c.from_slot)).where(mine, other.c.from_slot <= window.c.low).scalar_subquery()
    after = select(func.min(other.c.from_slot)).where(mine, other.c.from_slot > window.c.high).scalar_subquery()
    near = and_(
        skips.c.trigger_id == window.c.trigger_id,
        skips.c.from_slot >= func.coalesce(before, window.c.low),
        skips.c.from_slot <= func.coalesce(after, window.c.high),
    )
    statement = select(skips).select_from(window.join(skips, near)).order_by(skips.c.trigger_id, skips.c.from_slot)
    return dialect.locked(statement, of=skips, skip=False), batch
