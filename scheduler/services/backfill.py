"""Backfills as people see them: ordered, foreseen, looked at, cancelled. `backfill_steps` is what fills the slots."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from scheduler.domain.automation import FixedRate
from scheduler.domain.backfill import BackfillOrder, BackfillState, Period, fill_of
from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.run import Phase
from scheduler.errors import Conflict, NotFound, SpecError
from scheduler.services.jobs import automation_of, job_of
from scheduler.services.operate import TriggerKey
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

_PAGE: Final = 10_000
_PINNED: Final = ("automation", "start_at", "end_at", "calendars")
_COPIED: Final = ("task_id", "version", "spec_digest", "revision", "inputs", "kickoff_arg", "executor", "deadline")
_SHOWN: Final = (
    "project",
    "domain",
    "task",
    "reprocess",
    "max_active",
    "reverse",
    "state",
    "slots",
    "considered",
    "queued",
    "created_at",
    "created_by",
    "finished_at",
    "note",
)


def order_backfill(tx: Transaction, key: TriggerKey, order: BackfillOrder, *, by: str) -> dict[str, Any]:
    """Stores a backfill of the trigger's slots; workers fill them from now on. Returns what `show_backfill` shows.

    Slots that are not decided yet are the trigger's own to fire: the period is cut short before them. What the runs pin is
    what the trigger says now. Raises `NotFound`, `SpecError` for a trigger without a schedule, and `Conflict` for one that
    nobody has planned as it stands.
    """
    row, period = _period_of(tx, key, order)
    now = tx.now()
    values = {name: row[name] for name in (*_PINNED, *_COPIED)} | {
        "trigger_id": row["id"],
        "anchor_at": row["activated_at"] if row["anchor_at"] is None else row["anchor_at"],
        "from_slot": period.start,
        "to_slot": period.end,
        "reprocess": order.reprocess,
        "max_active": order.max_active,
        "reverse": order.reverse,
        "created_at": now,
        "created_by": by,
        "state": BackfillState.RUNNING.value,
        "slots": period.count,
    }
    if not values["slots"]:
        # Nothing to do is done at once, not an error: a script may ask for a period that happens to be empty.
        values |= {"state": BackfillState.DONE.value, "finished_at": now, "phases": "{}"}
    number = tx.backfills.insert(values)
    tx.notify()
    return show_backfill(tx, number)


def preview_backfill(tx: Transaction, key: TriggerKey, order: BackfillOrder, names: int = 5) -> dict[str, Any]:
    """What ordering this backfill now would do; raises as `order_backfill` does. `next` are the first slots it would fill."""
    row, period = _period_of(tx, key, order)
    slots = period.count
    left_alone = _left_alone(tx, row["id"], period, order) if slots else 0
    ends = [found[0] for found in (period.following(None, 1), _reversed(period).following(None, 1)) if found]
    first = [slot for slot, _ in zip(_wanted(tx, row["id"], period, order), range(names), strict=False)]
    return {
        **dict(zip(("project", "domain", "task", "trigger"), key, strict=True)),
        "from": period.start,
        "to": period.end,
        "slots": slots,
        "first": min(ends, default=None),
        "last": max(ends, default=None),
        "left_alone": left_alone,
        "to_fill": slots - left_alone,
        # A slot that is done again is named by the backfill's number, which it does not have yet.
        "next": [
            {"scheduled_at": slot, "run": slot_run_name(*key, slot) if how == "fill" else None} for slot, how in first
        ],
    }


def cancel_backfill(tx: Transaction, number: int, *, by: str) -> dict[str, Any]:
    """Queues no more of its runs and aborts those that have not started; what runs goes on. Returns what it is then.

    Raises `NotFound`, and `Conflict` where it is over already.
    """
    row = tx.backfills.lock(number)
    if row is None:
        raise NotFound("backfill", str(number))
    if BackfillState(row["state"]).over:
        raise Conflict(f"backfill {number} is {row['state']} already")
    if row["state"] == BackfillState.RUNNING:
        tx.backfills.update(number, state=BackfillState.CANCELLING.value, note=f"cancelled by {by}")
    wind_up(tx, number, tx.now())
    tx.notify()
    return show_backfill(tx, number)


def wind_up(tx: Transaction, number: int, now: Micros) -> bool:
    """Aborts what is queued of a cancelled backfill, and closes it once none of its runs is open; True if it is closed."""
    tx.backfills.abort_queued(number, now, f"backfill {number} was cancelled before it started")
    if tx.backfills.count_open(number):
        return False
    close(tx, number, BackfillState.CANCELLED, now)
    return True


def close(tx: Transaction, number: int, state: BackfillState, now: Micros, **values: Any) -> None:
    """The end of a backfill, with how its runs ended; the caller holds its row."""
    phases = json.dumps(tx.backfills.phases([number])[number])
    tx.backfills.update(number, state=state.value, finished_at=now, phases=phases, **values)


# --- looking ---------------------------------------------------------------------------------------------------------


def show_backfill(tx: Transaction, number: int) -> dict[str, Any]:
    """One backfill and how far it has come; raises `NotFound`."""
    row = tx.backfills.find(number)
    if row is None:
        raise NotFound("backfill", str(number))
    return _documents(tx, [row])[0]


def list_backfills(
    tx: Transaction,
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    trigger: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Backfills, newest first."""
    rows = tx.backfills.list_newest(project=project, domain=domain, task=task, trigger=trigger, limit=limit)
    return _documents(tx, rows)


def _documents(tx: Transaction, rows: Sequence[Row]) -> list[dict[str, Any]]:
    under_way = [row["id"] for row in rows if row["phases"] is None]
    counted = tx.backfills.phases(under_way) if under_way else {}
    return [_document(row, counted.get(row["id"])) for row in rows]


def _document(row: Row, phases: Mapping[str, int] | None) -> dict[str, Any]:
    counts = json.loads(row["phases"]) if phases is None else phases
    return {
        "backfill": row["id"],
        **{name: row[name] for name in _SHOWN},
        "trigger": row["name"],
        "automation": json.loads(row["automation"]),
        "from": row["from_slot"],
        "to": row["to_slot"],
        "left_alone": row["considered"] - row["queued"],
        "open": sum(count for phase, count in counts.items() if Phase(phase).open),
        "succeeded": counts.get(Phase.SUCCEEDED, 0),
        "failed": counts.get(Phase.FAILED, 0) + counts.get(Phase.TIMED_OUT, 0),
        "aborted": counts.get(Phase.ABORTED, 0),
        "executor": row["executor"],
    }


# --- periods and their slots -----------------------------------------------------------------------------------------


def pinned_period(row: Row) -> Period:
    """The period of a stored backfill, under the schedule that it pinned; raises `SpecError` where that cannot be read."""
    pinned = {name: row[name] for name in (*_PINNED, "anchor_at", "project", "domain", "task", "name")}
    others = {"activated_at": 0, "jitter": 0, "overlap": "allow_all", "max_fires": None}
    catchup = {"catchup_policy": "none", "catchup_window": 0, "catchup_max_runs": 0}
    job = job_of(cast(Row, pinned | others | catchup))
    return Period(job, row["from_slot"], row["to_slot"], bool(row["reverse"]))


def pruned_within(ranges: Sequence[SkippedRange]) -> list[SkippedRange]:
    """Those of the ranges whose slots had runs that are forgotten."""
    return [item for item in ranges if item.reason is Reason.PRUNED]


def holds(ranges: Sequence[SkippedRange], slot: Micros) -> bool:
    """Whether one of the ranges, oldest first, holds the slot."""
    place = bisect_right(ranges, slot, key=lambda item: item.from_slot)
    return place > 0 and slot <= ranges[place - 1].to_slot


def _period_of(tx: Transaction, key: TriggerKey, order: BackfillOrder) -> tuple[Row, Period]:
    row = tx.triggers.find(*key)
    if row is None:
        raise NotFound("trigger", str(key))
    if row["automation"] is None:
        raise SpecError("trigger", f"{key} has no schedule: it is fired by hand")
    if row["spec_digest"] is None or row["planned_from"] != row["plan_source"]:
        raise Conflict(f"trigger {str(key)!r} has not been planned yet as it stands: a worker does it, then try again")
    automation = automation_of(row)
    grounded = row["anchor_at"] is not None or row["activated_at"] is not None
    if isinstance(automation, FixedRate) and automation.start_time is None and not grounded:
        raise Conflict(f"trigger {str(key)!r} was never active: the slots of its rate count from its activation")
    job, until = job_of(row), _decided_until(row, tx.now())
    return row, Period(job, order.start, until if order.end is None else min(order.end, until), order.reverse)


def _decided_until(row: Row, now: Micros) -> Micros:
    """The end of what the trigger will never fire by itself: what is past, and before the slot that is planned next."""
    second = now - now % SECOND
    return second if row["next_slot"] is None else min(second, row["next_slot"] - SECOND)


def _reversed(period: Period) -> Period:
    return Period(period.job, period.start, period.end, not period.reverse)


def _wanted(tx: Transaction, trigger_id: int, period: Period, order: BackfillOrder) -> Iterator[tuple[Micros, str]]:
    """The slots that would be filled, in order, each with how."""
    cursor: Micros | None = None
    while slots := period.following(cursor, _PAGE // 10):
        after, until = min(slots) - 1, max(slots)
        outcomes, _ = tx.backfills.outcomes(trigger_id, after, until)
        pruned = pruned_within(tx.ledger.overlapping(trigger_id, after, until))
        for slot in slots:
            how = fill_of(order.reprocess, outcomes.get(slot), pruned=holds(pruned, slot))
            if how is not None:
                yield slot, how
        cursor = slots[-1]


def _left_alone(tx: Transaction, trigger_id: int, period: Period, order: BackfillOrder) -> int:
    """How many slots of the period keep what they have, found by walking runs and ranges, of which there may be far fewer."""
    after = period.start - 1
    pruned = pruned_within(tx.ledger.overlapping(trigger_id, after, period.end))
    kept = order.reprocess != "all"
    count = sum(_free_within(period, item) for item in pruned) if kept else 0
    while after < period.end:
        outcomes, reach = tx.backfills.outcomes(trigger_id, after, period.end, _PAGE)
        for slot, phase in outcomes.items():
            if period.job.count_free(slot - SECOND, slot):
                # A forgotten run that was done again is counted with its range already.
                before = kept and holds(pruned, slot)
                count += (fill_of(order.reprocess, phase, pruned=before) is None) - before
        after = reach
    return count


def _free_within(period: Period, item: SkippedRange) -> int:
    start, end = max(period.start, item.from_slot), min(period.end, item.to_slot)
    return period.job.count_free(start - 1, end)
