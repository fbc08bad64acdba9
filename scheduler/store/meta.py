"""Small facts about the whole database: its epoch, the zone data it was planned with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Executable, Integer, bindparam, cast, func, select

from scheduler.store.dialect import Dialect
from scheduler.store.prepared import prepared
from scheduler.store.schema import meta

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


class MetaTable:
    """Named values; one row each."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def get(self, key: str) -> str | None:
        """The value, or None where it was never set."""
        value: str | None = self._tx.connection.execute(_GET, {"of": key}).scalar()
        return value

    def put(self, key: str, value: str) -> None:
        """Sets the value."""
        self._tx.connection.execute(_put(self._tx.dialect), {"key": key, "value": value})

    def epoch(self) -> int:
        """How many times this database was restored from a backup; older incarnations are void."""
        return int(self.get("epoch") or 0)

    def begin_epoch(self) -> int:
        """Starts a new epoch, in which no incarnation of before counts; returns its number."""
        epoch = self.epoch() + 1
        self.put("epoch", str(epoch))
        return epoch


_GET = select(meta.c.value).where(meta.c.key == bindparam("of"))


@prepared
def _put(dialect: Dialect) -> Executable:
    insert = dialect.insert(meta)
    put: Executable = insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded.value})
    return put


def sql_epoch() -> ColumnElement[int]:
    """The epoch as a SQL expression."""
    value = select(cast(meta.c.value, Integer)).where(meta.c.key == "epoch").scalar_subquery()
    return func.coalesce(value, 0)
