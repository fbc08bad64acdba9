"""Moving backfills on, a step a transaction: any worker may, whenever it looks, and no slot gets two runs by it.

All there is to know stands in the backfill's row. A step holds that row, so a backfill is moved on by one worker at a time;
a step that did not happen, or whose worker died after its commit, is simply done by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from scheduler.domain.backfill import BackfillState, Period, Reprocess, carve, fill_of
from scheduler.domain.identity import reprocess_run_name, slot_run_name
from scheduler.domain.instants import Micros
from scheduler.domain.job import Job
from scheduler.domain.run import Kind
from scheduler.errors import Conflict
from scheduler.services.backfill import close, holds, pinned_period, pruned_within, wind_up
from scheduler.store.backfills import FilledSlot
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

# Slots looked at in one transaction at most, and the fewest that are worth a look.
_MOST: Final = 1_000
_LEAST: Final = 16


@dataclass(frozen=True, slots=True)
class BackfillStep:
    """What a step did to one backfill. `more` says that another step would do something at once."""

    number: int
    trigger: str
    state: BackfillState
    queued: int = 0
    more: bool = False
    note: str | None = None


@dataclass(slots=True)
class _Walk:
    """How far a step has walked, and the slots it gives a run."""

    cursor: Micros | None
    considered: int
    chosen: list[FilledSlot]
    ended: bool


def backfills_under_way(tx: Transaction) -> list[int]:
    """The numbers of backfills that are not over, oldest first."""
    return tx.backfills.under_way()


def advance_backfill(tx: Transaction, number: int, room: Mapping[str, int]) -> BackfillStep | None:
    """Moves a backfill on by a step; None where it is over, or somebody else is moving it on.

    It queues runs until `max_active` are open. `room` is how many runs of each executor this worker could start: other
    workers are told where there is work for them too.
    """
    row = tx.backfills.claim(number)
    if row is None:
        return None
    now = tx.now()
    step = BackfillStep(number, f"{row['project']}/{row['domain']}/{row['task']}/{row['name']}", _state(row))
    if step.state is BackfillState.RUNNING and row["deleted_at"] is not None:
        step = replace(step, state=BackfillState.CANCELLING, note="its trigger was deleted")
        tx.backfills.update(number, state=step.state.value, note=step.note)
    if step.state is BackfillState.CANCELLING:
        return replace(step, state=BackfillState.CANCELLED) if wind_up(tx, number, now) else step
    period = pinned_period(row)
    places = row["max_active"] - tx.backfills.count_open(number)
    walk = _walk(tx, row, period, places, now)
    filled = _fill(tx, row, period.job, walk.chosen, now)
    # Workers that have begun go on by themselves: each looks here when one of its runs has ended.
    if len(filled) > room.get(row["executor"], 0) or 1 < row["max_active"] <= 2 * len(filled):
        tx.notify()
    progress = {
        "cursor": walk.cursor,
        "considered": row["considered"] + walk.considered,
        "queued": row["queued"] + len(filled),
    }
    if walk.ended and not filled and places == row["max_active"]:
        close(tx, number, BackfillState.DONE, now, **progress)
        return replace(step, state=BackfillState.DONE)
    if walk.considered:
        tx.backfills.update(number, **progress)
    return replace(step, queued=len(filled), more=not walk.ended and len(filled) < places)


def fail_backfill(tx: Transaction, number: int, error: Exception) -> None:
    """Ends a backfill that cannot be moved on; its runs that are queued already go on."""
    row = tx.backfills.lock(number)
    if row is not None and not _state(row).over:
        close(tx, number, BackfillState.FAILED, tx.now(), note=f"{type(error).__name__}: {error}")


def _state(row: Row) -> BackfillState:
    return BackfillState(row["state"])


def _walk(tx: Transaction, row: Row, period: Period, places: int, now: Micros) -> _Walk:
    """Goes on from the cursor until there are slots for all places, the period is over, or it is enough for one step."""
    walk = _Walk(row["cursor"], 0, [], ended=False)
    size = min(_MOST, max(_LEAST, 2 * places))
    reprocess: Reprocess = row["reprocess"]
    while walk.considered < _MOST and len(walk.chosen) < max(places, 0):
        slots = period.following(walk.cursor, size)
        after, until = (min(slots) - 1, max(slots)) if slots else (0, 0)
        # Runs before ranges: a run that is forgotten between the two reads is then found in a range.
        outcomes, _ = tx.backfills.outcomes(row["trigger_id"], after, until)
        pruned = pruned_within(tx.ledger.overlapping(row["trigger_id"], after, until))
        for slot in slots:
            if len(walk.chosen) == places:
                return walk
            how = fill_of(reprocess, outcomes.get(slot), pruned=holds(pruned, slot))
            if how is not None:
                # All may start now; a microsecond between them keeps the order of the walk.
                walk.chosen.append(_filled(row, slot, how == "again", now - places + len(walk.chosen)))
            walk.considered += 1
            walk.cursor = slot
        size = _MOST
        if not slots:
            walk.ended = True
            break
    return walk


def _filled(row: Row, slot: Micros, again: bool, not_before: Micros) -> FilledSlot:
    key = (row["project"], row["domain"], row["task"], row["name"], slot)
    if again:
        return FilledSlot(reprocess_run_name(*key, row["id"]), Kind.REPROCESS.value, slot, not_before)
    return FilledSlot(slot_run_name(*key), Kind.BACKFILL.value, slot, not_before)


def _fill(tx: Transaction, row: Row, job: Job, chosen: list[FilledSlot], now: Micros) -> list[Micros]:
    """Inserts the runs and takes their slots out of skipped ranges; returns the slots that got one."""
    if not chosen:
        return []
    trigger_id = row["trigger_id"]
    slots = sorted(item.scheduled_at for item in chosen)
    after, until = slots[0] - 1, slots[-1]
    skipped = tx.ledger.overlapping(trigger_id, after, until)
    if any(holds(skipped, slot) for slot in slots):
        # A fire that goes on skipping extends the newest range: only one of us at a time.
        tx.triggers.lock_due([trigger_id])
    filled = tx.backfills.insert_runs(row["id"], chosen, now)
    if len(filled) < len(chosen) and (wrong := tx.backfills.mismatched(trigger_id, chosen)):
        raise Conflict(f"run {wrong[0]!r} exists for another slot")
    if skipped:
        for item in tx.ledger.lock(trigger_id, after, until):
            within = [slot for slot in filled if item.from_slot <= slot <= item.to_slot]
            left = carve(job, item, within) if within else None
            if left is not None:
                tx.ledger.replace({trigger_id: [item]}, {trigger_id: left})
    return filled
