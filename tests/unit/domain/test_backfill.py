"""What a backfill does with a slot, how it walks its period, and what is left of ranges that it fills."""

from __future__ import annotations

import random
from datetime import date
from itertools import pairwise

import pytest

from scheduler.domain.backfill import BackfillOrder, BackfillState, Period, carve, fill_of
from scheduler.domain.calendars import Calendar, with_calendars
from scheduler.domain.instants import SECOND, Micros, parse_rfc3339
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.occurrences import compile_cron
from scheduler.domain.run import Phase
from scheduler.domain.simple_schedules import RateSchedule
from scheduler.errors import SpecError

NOON = parse_rfc3339("2026-11-21T12:00:00Z")
HOUR = 3_600 * SECOND
MINUTE = 60 * SECOND


def job(every: int = 3_600) -> Job:
    return Job("p/d/t/x", RateSchedule(0, every), activated_at=0)


def closed_on_the_twentieth() -> Job:
    hourly = compile_cron("0 * * * *", "UTC", "auto", "robfig", "once")
    calendars = with_calendars(hourly, [Calendar("closed", frozenset({date(2026, 11, 20)}))])
    return Job("p/d/t/x", calendars, activated_at=0, calendars=calendars)


# --- what a slot gets ------------------------------------------------------------------------------------------------

OPEN = (Phase.QUEUED, Phase.RUNNING, Phase.DEFERRED)
BAD = (Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED)


def test_a_slot_without_a_run_is_filled_whatever_is_to_be_done_again() -> None:
    assert {fill_of(reprocess, None, pruned=False) for reprocess in ("none", "failed", "all")} == {"fill"}


@pytest.mark.parametrize(
    ("reprocess", "again"),
    [("none", ()), ("failed", BAD), ("all", (Phase.SUCCEEDED, *BAD))],
    ids=["none", "failed", "all"],
)
def test_of_slots_with_a_run_only_those_named_are_done_again(reprocess: str, again: tuple[Phase, ...]) -> None:
    for phase in Phase:
        expected = "again" if phase in again else None
        assert fill_of(reprocess, phase, pruned=False) == expected, phase  # type: ignore[arg-type]
        # A newer run outranks what was forgotten.
        assert fill_of(reprocess, phase, pruned=True) == expected, phase  # type: ignore[arg-type]


def test_how_a_forgotten_run_ended_nobody_knows() -> None:
    assert [fill_of(reprocess, None, pruned=True) for reprocess in ("none", "failed", "all")] == [None, None, "again"]


def test_an_order_is_checked_whole() -> None:
    BackfillOrder(NOON, NOON)
    for wrong in (
        {"end": NOON - 1},
        {"reprocess": "some"},
        {"max_active": 0},
        {"max_active": 10_001},
    ):
        with pytest.raises(SpecError):
            BackfillOrder(NOON, **wrong)  # type: ignore[arg-type]


def test_only_two_states_go_on() -> None:
    assert [state.value for state in BackfillState if not state.over] == ["running", "cancelling"]


# --- walking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_a_walk_meets_each_slot_once_and_in_order(reverse: bool, limit: int) -> None:
    for start, end, expected in (
        (NOON, NOON + 9 * HOUR, 10),
        (NOON + 1, NOON + 9 * HOUR - 1, 8),
        (NOON + 1, NOON + HOUR - 1, 0),
        (NOON, NOON, 1),
        (NOON, NOON - HOUR, 0),
    ):
        period = Period(job(), start, end, reverse)
        met: list[Micros] = []
        cursor = None
        while slots := period.following(cursor, limit):
            assert len(slots) <= limit
            met += slots
            cursor = slots[-1]
        assert len(met) == period.count == expected
        assert met == sorted(met, reverse=reverse)
        assert all(start <= slot <= end for slot in met)
        assert len(set(met)) == len(met)


def test_slots_that_a_calendar_blacks_out_are_not_met() -> None:
    day = 24 * HOUR
    midnight = NOON - 12 * HOUR
    period = Period(closed_on_the_twentieth(), midnight - 2 * day, midnight)
    assert period.count == len(period.following(None, 1_000)) == 25
    assert not [slot for slot in period.following(None, 1_000) if midnight - day <= slot < midnight]


# --- ranges ----------------------------------------------------------------------------------------------------------


def slots_of(found: Job, item: SkippedRange) -> list[Micros]:
    return list(found.between(item.from_slot - SECOND, item.to_slot))


@pytest.mark.parametrize("seed", range(50))
def test_what_is_left_of_a_range_is_exactly_what_was_not_filled(seed: int) -> None:
    dice = random.Random(seed)
    found = dice.choice([job(), job(60), closed_on_the_twentieth()])
    every = list(found.between(NOON - 48 * HOUR, NOON))
    first = dice.randrange(len(every) - 1)
    last = dice.randrange(first, min(len(every), first + 60))
    item = SkippedRange(every[first], every[last], last - first + 1, Reason.CATCHUP_CAP)
    whole = slots_of(found, item)
    filled = sorted(dice.sample(whole, dice.randrange(1, len(whole) + 1)))
    left = carve(found, item, filled)
    assert left is not None
    assert [slot for part in left for slot in slots_of(found, part)] == [slot for slot in whole if slot not in filled]
    assert all(part.count == len(slots_of(found, part)) and part.reason is item.reason for part in left)
    # Each part ends at a slot, and none could be longer.
    assert all(before.to_slot < after.from_slot for before, after in pairwise(left))
    assert all(part.from_slot in whole and part.to_slot in whole for part in left)


def test_a_range_that_counts_something_else_stays() -> None:
    assert carve(job(), SkippedRange(NOON, NOON + 4 * HOUR, 3, Reason.PAUSED), [NOON]) is None


def test_a_range_that_counts_blacked_out_slots_too_is_carved_by_them() -> None:
    """What a pause skipped it counted without looking at calendars."""
    found = closed_on_the_twentieth()
    start = NOON - 40 * HOUR
    item = SkippedRange(start, NOON, 41, Reason.PAUSED)
    left = carve(found, item, [NOON - 2 * HOUR])
    assert left == [
        SkippedRange(start, NOON - 3 * HOUR, 38, Reason.PAUSED),
        SkippedRange(NOON - HOUR, NOON, 2, Reason.PAUSED),
    ]
