"""What a process that starts can know about the clock that decides: when it was last seen, and whether anybody set it."""

from __future__ import annotations

from typing import Final, NamedTuple

from scheduler.domain.instants import Micros
from scheduler.store.transaction import Transaction

_BOOTED_KEY: Final = "booted_at"


class ClockHistory(NamedTuple):
    """`last_seen` is None in a new database. `booted_at` is when this machine began, as the clock said when it was right."""

    now: Micros
    last_seen: Micros | None
    alone: bool
    """Whether the clock that decides is this machine's own."""
    booted_at: Micros | None


def read_clock_history(tx: Transaction) -> ClockHistory:
    """What the database knows; it may be empty still."""
    alone = tx.is_on_this_machine()
    if not tx.has_tables():
        return ClockHistory(tx.now(), None, alone, None)
    booted_at = tx.meta.get(_BOOTED_KEY) if alone else None
    last_seen = tx.workers.last_seen()
    return ClockHistory(tx.now(), last_seen, alone, None if booted_at is None else int(booted_at))


def record_boot(tx: Transaction, since_boot: Micros) -> None:
    """Writes down when this machine began, by a clock that is believed."""
    tx.meta.put(_BOOTED_KEY, str(tx.now() - since_boot))
