"""What the whole database shows at an instant: for graphs and alerts, and for a worker's judgement of itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.store.census import OTHER, Census
from scheduler.store.transaction import Transaction
from scheduler.store.upgrade import SchemaState, schema_seen

__all__ = ["OTHER", "Sample", "take_sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the database."""

    schema: SchemaState
    open_runs: Mapping[Phase, int] = field(default_factory=dict)
    startable: Mapping[tuple[str, bool], int] = field(default_factory=dict)
    """Queued runs that may start now, by executor (`OTHER`: all not asked for) and whether they are late."""
    oldest_due: Micros = 0
    """For how long the trigger that is longest due has been; 0 where none is."""
    seconds: float = 0.0
    """How long looking took, waiting for a connection not included."""


def take_sample(tx: Transaction, executors: Iterable[str]) -> Sample:
    """Looks through indexes only; nothing but the schema where that is too old to be looked at."""
    begun = time.perf_counter()
    schema = schema_seen(tx)
    if not schema.bearable:
        return Sample(schema)
    census, due_at = Census(tx), tx.triggers.next_due_at()
    return Sample(
        schema,
        open_runs=census.open_runs(),
        startable=census.startable(executors),
        oldest_due=0 if due_at is None else max(0, tx.now() - due_at),
        seconds=time.perf_counter() - begun,
    )
