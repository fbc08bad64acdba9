"""What would fire in a period if nothing changed: every deployed trigger's slots, and how they heap up."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from scheduler.domain.instants import SECOND, Micros
from scheduler.errors import SpecError
from scheduler.services.jobs import identity_of, is_live, job_of
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import trigger_filters

_BATCH = 1000
_DAY = 86_400 * SECOND
_MINUTE = 60 * SECOND
MOST_FIRES = 5_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """The first fires of a period, how many there are in all, and how many start in each UTC minute of the day."""

    fires: tuple[dict[str, Any], ...]
    total: int
    by_minute: Mapping[int, int]
    unreadable: tuple[str, ...]


def forecast(
    tx: Transaction,
    after: Micros,
    until: Micros,
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    name: str | None = None,
    limit: int = 50,
) -> Forecast:
    """Every fire in (after, until] of the live, active triggers; slots that calendars or skip-next leave out do not fire.

    Raises `SpecError` where the period holds more than five million: it must be shorter, or of fewer triggers.
    """
    now = tx.now()
    first: list[tuple[int, int, Micros, str]] = []
    keys: dict[str, tuple[str, str, str, str]] = {}
    by_minute: Counter[int] = Counter()
    unreadable: list[str] = []
    total = 0
    for row in _live(tx, project, domain, task, name):
        if not is_live(row, now):
            continue
        identity = identity_of(row)
        try:
            fires = _fires_of(row, after, until)
            for slot, due_at in fires:
                total += 1
                by_minute[due_at % _DAY // _MINUTE] += 1
                keys[identity] = (row["project"], row["domain"], row["task"], row["name"])
                # The largest of the kept ones is on top, so memory stays with the limit, not with the period.
                entry = (-due_at, -slot, slot, identity)
                (heapq.heappush if len(first) < limit else heapq.heappushpop)(first, entry)
                if total > MOST_FIRES:
                    raise SpecError("period", f"holds more than {MOST_FIRES:,} fires: make it shorter, or name a task")
        except SpecError as error:
            if error.field == "period":
                raise
            unreadable.append(f"{identity}: {error}")
    return Forecast(
        fires=tuple(
            dict(zip(("project", "domain", "task", "trigger"), keys[identity], strict=True))
            | {"scheduled_at": slot, "due_at": -negative}
            for negative, _, slot, identity in sorted(first, reverse=True)
        ),
        total=total,
        by_minute=dict(by_minute),
        unreadable=tuple(unreadable),
    )


def _fires_of(row: Row, after: Micros, until: Micros) -> Iterator[tuple[Micros, Micros]]:
    job = job_of(row)
    begin, activated = after - _jitter_reach(row), row["activated_at"] or 0
    if row["max_fires"] is not None:
        begin = max(begin, row["last_slot"] or 0)
    slots: Iterator[Micros] = (slot for slot in job.between(begin, until) if slot != row["skip_next_at"])
    if row["max_fires"] is not None:
        slots = islice(slots, max(0, row["max_fires"] - (row["fires"] or 0)))
    for slot in slots:
        due_at = job.due_at(slot)
        # One whose jitter was not over when its trigger was activated is of before: it is not owed.
        if after < due_at <= until and not slot <= activated < due_at:
            yield slot, due_at


def _jitter_reach(row: Row) -> Micros:
    return int(row["jitter"])


def _live(
    tx: Transaction, project: str | None, domain: str | None, task: str | None, name: str | None
) -> Iterator[Row]:
    after = 0
    while True:
        rows = tx.triggers.walk_live(after, *trigger_filters(project, domain, task, name, True), limit=_BATCH)
        yield from rows
        if len(rows) < _BATCH:
            return
        after = rows[-1]["id"]
