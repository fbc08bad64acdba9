"""What became of the slots that got no run: ranges with a count and a reason."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from scheduler.domain.instants import Micros


class Reason(StrEnum):
    """Why a slot was skipped; PRUNED tells of slots that had a run, whose history is over its age."""

    CATCHUP_CAP = "catchup_cap"
    CATCHUP_WINDOW = "catchup_window"
    CATCHUP_POLICY = "catchup_policy"
    COALESCED = "coalesced"
    COVERED_BY_GAP = "covered_by_gap"
    OVERLAP = "overlap"
    BUFFER_FULL = "buffer_full"
    PAUSED = "paused"
    DELETED = "deleted"
    SCHEDULE_CHANGED = "schedule_changed"
    CALENDAR = "calendar"
    SKIP_NEXT = "skip_next"
    RESTORED = "restored"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class SkippedRange:
    """`count` slots from the first to the last, all skipped for one reason; no slot between them has a run."""

    from_slot: Micros
    to_slot: Micros
    count: int
    reason: Reason


def merge_ranges(ranges: Iterable[SkippedRange]) -> list[SkippedRange]:
    """Ranges of one trigger, oldest first, neighbours of one reason made one.

    Neighbours in the list are neighbours in the schedule only if the caller passes runs' slots as breaks: it does so by
    calling once per stretch without a run.
    """
    merged: list[SkippedRange] = []
    for item in ranges:
        if item.count == 0:
            continue
        if merged and merged[-1].reason == item.reason:
            merged[-1] = replace(merged[-1], to_slot=item.to_slot, count=merged[-1].count + item.count)
        else:
            merged.append(item)
    return merged


def merge_pruned(
    known: Iterable[SkippedRange],
    slots: Iterable[Micros],
    others: Iterable[Micros],
    adjoin: Callable[[Micros, Micros], bool],
) -> list[SkippedRange]:
    """The pruned ranges of a trigger once these slots have joined them, oldest first.

    `known` are its pruned ranges so far, `slots` those that lost their last run just now. No range may reach over anything
    else: `others` is one slot of every other entry near them, and `adjoin` tells whether a schedule has no slot strictly
    between two, for such a one has no entry at all. A slot within a known range is in it already.
    """
    ranges = sorted((item.from_slot, item.to_slot, item.count) for item in known)
    starts = [first for first, _, _ in ranges]
    breaks = sorted(others)
    merged: list[tuple[Micros, Micros, int]] = []
    new = [(slot, slot, 1) for slot in set(slots) if not _within(ranges, starts, slot)]
    for first, last, count in sorted([*ranges, *new]):
        if merged:
            before = merged[-1]
            # The first other entry behind the last range: does it lie before this one?
            place = bisect_right(breaks, before[1])
            if (place == len(breaks) or breaks[place] >= first) and adjoin(before[1], first):
                merged[-1] = (before[0], max(before[1], last), before[2] + count)
                continue
        merged.append((first, last, count))
    return [SkippedRange(*item, Reason.PRUNED) for item in merged]


def _within(ranges: Sequence[tuple[Micros, Micros, int]], starts: Sequence[Micros], slot: Micros) -> bool:
    place = bisect_right(starts, slot)
    return place > 0 and slot <= ranges[place - 1][1]
