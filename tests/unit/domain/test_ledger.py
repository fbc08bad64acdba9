"""Ranges of skipped slots become one where they may."""

from __future__ import annotations

import itertools
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.ledger import Reason, SkippedRange, merge_pruned, merge_ranges

RANGES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([Reason.PAUSED, Reason.CATCHUP_CAP]))).map(
    lambda items: [
        SkippedRange(place * 10, place * 10 + 9, count, reason) for place, (count, reason) in enumerate(items)
    ]
)


def test_neighbours_of_one_reason_become_one() -> None:
    first, second = SkippedRange(1, 3, 3, Reason.PAUSED), SkippedRange(4, 9, 2, Reason.PAUSED)
    assert merge_ranges([first, second]) == [SkippedRange(1, 9, 5, Reason.PAUSED)]


def test_neighbours_of_two_reasons_stay_two() -> None:
    ranges = [SkippedRange(1, 3, 3, Reason.CATCHUP_WINDOW), SkippedRange(4, 9, 2, Reason.CATCHUP_CAP)]
    assert merge_ranges(ranges) == ranges


@given(RANGES)
def test_no_slot_is_lost_and_no_two_neighbours_share_a_reason(ranges: list[SkippedRange]) -> None:
    merged = merge_ranges(ranges)
    assert sum(item.count for item in merged) == sum(item.count for item in ranges)
    assert all(before.reason != after.reason for before, after in itertools.pairwise(merged))
    assert all(before.to_slot < after.from_slot for before, after in itertools.pairwise(merged))


def test_the_reasons_are_the_documented_words() -> None:
    words = (
        "catchup_cap catchup_window catchup_policy coalesced covered_by_gap overlap buffer_full paused deleted "
        "schedule_changed calendar skip_next restored pruned"
    )
    assert [str(reason) for reason in Reason] == words.split()


@pytest.mark.parametrize("seed", range(100))
def test_pruned_ranges_hold_each_forgotten_slot_once_and_reach_over_nothing(seed: int) -> None:
    """In rounds, as runs are forgotten: against a plain list of what each slot is."""
    dice = random.Random(seed)
    # A slot may have no entry at all: before an activation, or in a pause.
    entries = {slot: dice.choice(["run"] * 6 + ["skip", "none"]) for slot in range(0, 60, dice.choice([1, 2, 3]))}
    slots = sorted(entries)
    ranges: list[SkippedRange] = []
    while "run" in entries.values():
        left = [slot for slot, what in entries.items() if what == "run"]
        gone = dice.sample(left, dice.randrange(1, len(left) + 1))
        entries.update(dict.fromkeys(gone, "pruned"))
        others = [slot for slot, what in entries.items() if what in ("run", "skip")]
        ranges = merge_pruned(
            dice.sample(ranges, len(ranges)),
            dice.sample(gone, len(gone)),
            others,
            lambda before, after: slots.index(after) == slots.index(before) + 1,
        )
        pruned = [slot for slot, what in entries.items() if what == "pruned"]
        assert sum(item.count for item in ranges) == len(pruned)
        for item in ranges:
            within = [what for slot, what in entries.items() if item.from_slot <= slot <= item.to_slot]
            assert within == ["pruned"] * item.count
        # As few as there can be: between two of them lies something else.
        for before, after in pairwise(ranges):
            assert any(entries[slot] != "pruned" for slot in slots if before.to_slot < slot < after.from_slot)
    assert all(item.reason is Reason.PRUNED for item in ranges)


def test_a_slot_that_is_in_a_range_already_is_not_counted_twice() -> None:
    known = SkippedRange(10, 30, 3, Reason.PRUNED)
    assert merge_pruned([known], [20], [], lambda *_: True) == [known]
    assert merge_pruned([known], [10, 30], [], lambda *_: True) == [known]
