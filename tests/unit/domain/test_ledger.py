"""Ranges of skipped slots become one where they may."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.ledger import Reason, SkippedRange, merge_ranges

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
