"""When triggers that were set aside are tried again: those that the database failed on, at growing intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, bindparam, select, update

from scheduler.domain.instants import SECOND, Micros
from scheduler.store.schema import trigger_retries

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

_FIRST: Final[Micros] = 60 * SECOND
_LONGEST: Final[Micros] = 3_600 * SECOND
# Whoever was well for so long begins with short intervals again.
_FORGOTTEN_AFTER: Final[Micros] = 86_400 * SECOND


class RetryTable:
    """The retries of set-aside triggers through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def set_aside(self, trigger_id: int, now: Micros) -> None:
        """The trigger was set aside: it is tried again after a minute, or after twice as long as the last time."""
        found = {row.trigger_id: row for row in self._rows([trigger_id])}.get(trigger_id)
        if found is None:
            first = {"trigger_id": trigger_id, "retry_at": now + _FIRST, "retries": 0}
            self._tx.connection.execute(trigger_retries.insert(), first)
        elif found.retry_at <= now - _FORGOTTEN_AFTER:
            self._write([(trigger_id, now + _FIRST, 0)])
        elif found.retry_at <= now:
            self._write([(trigger_id, now + interval(found.retries + 1), found.retries + 1)])

    def begin(self, trigger_ids: Iterable[int], now: Micros) -> None:
        """These triggers are being tried now: if it is in vain, the next time is after twice as long."""
        rows = self._rows(trigger_ids)
        self._write([(row.trigger_id, now + interval(row.retries + 1), row.retries + 1) for row in rows])

    def _rows(self, trigger_ids: Iterable[int]) -> list[Any]:
        chosen = trigger_retries.c.trigger_id.in_(sorted(trigger_ids))
        return list(self._tx.connection.execute(select(trigger_retries).where(chosen)))

    def _write(self, rows: list[tuple[int, Micros, int]]) -> None:
        if rows:
            given = [{"of_trigger": number, "at": at, "count": count} for number, at, count in rows]
            self._tx.connection.execute(_WRITE, given)


def due(now: Any) -> Select[Any]:
    """The ids of the triggers that are to be tried again by an instant."""
    return select(trigger_retries.c.trigger_id).where(trigger_retries.c.retry_at <= now)


def interval(retries: int) -> Micros:
    """Microseconds from one try to the next, after so many: a minute, doubled each time, at most an hour."""
    return min(_FIRST << min(retries, 16), _LONGEST)


_WRITE = (
    update(trigger_retries)
    .where(trigger_retries.c.trigger_id == bindparam("of_trigger"))
    .values(retry_at=bindparam("at"), retries=bindparam("count"))
)
