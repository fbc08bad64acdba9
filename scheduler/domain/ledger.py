"""What became of the slots that got no run: ranges with a count and a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from scheduler.domain.instants import Micros


class Reason(StrEnum):
    """Why a slot was skipped."""

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


@dataclass(frozen=True, slots=True)
class SkippedRange:
    """`count` slots from the first to the last, all skipped for one reason; no slot between them got a run."""

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
