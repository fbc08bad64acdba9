"""What stands between queued or deferred runs and their next step, read for many runs at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from sqlalchemy import RowMapping, func, select, text

from scheduler.store.run_lookups import is_behind_another
from scheduler.store.schema import runs, tasks, waits
from scheduler.store.transaction import Transaction

T = TypeVar("T")

# A statement takes only so many values.
_BATCH: Final = 1_000


def runs_behind(tx: Transaction, names: Iterable[str]) -> set[str]:
    """Those of these runs of whose triggers an earlier scheduled run is open."""
    run, other = runs.alias("r"), runs.alias("o")
    found: set[str] = set()
    for batch in _batches(sorted(names)):
        statement = select(run.c.name).where(run.c.name.in_(batch), is_behind_another(run, other))
        found.update(tx.connection.execute(statement).scalars())
    return found


def full_tasks(tx: Transaction, task_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Of these tasks those that have no room for one more run: how many are under way, and how many may be."""
    full: dict[int, tuple[int, int]] = {}
    for batch in _batches(sorted(set(task_ids))):
        started = (
            select(func.count())
            .where(runs.c.task_id == tasks.c.id, text("runs.gated AND runs.phase IN ('RUNNING', 'DEFERRED')"))
            .scalar_subquery()
        )
        statement = select(tasks.c.id, started.label("started"), tasks.c.max_concurrent_runs).where(
            tasks.c.id.in_(batch), tasks.c.max_concurrent_runs.is_not(None)
        )
        for row in tx.connection.execute(statement):
            if row.started >= row.max_concurrent_runs:
                full[row.id] = (int(row.started), int(row.max_concurrent_runs))
    return full


def waits_of(tx: Transaction, names: Sequence[str]) -> dict[str, RowMapping]:
    """What these deferred runs wait for, by run."""
    found: dict[str, RowMapping] = {}
    for batch in _batches(sorted(names)):
        rows = tx.connection.execute(select(waits).where(waits.c.run_name.in_(batch))).mappings()
        found |= {row["run_name"]: row for row in rows}
    return found


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]
