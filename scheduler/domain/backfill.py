"""What a backfill does with each slot of its period, and how it walks them. Pure: the caller looks runs up and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, Literal, get_args

from scheduler.domain.instants import SECOND, Micros, to_rfc3339
from scheduler.domain.job import Job
from scheduler.domain.ledger import SkippedRange
from scheduler.domain.run import FINAL, Phase
from scheduler.errors import SpecError

Reprocess = Literal["none", "failed", "all"]

MOST_ACTIVE: Final = 10_000
_DONE_BADLY: Final = FINAL - {Phase.SUCCEEDED}


class BackfillState(StrEnum):
    """RUNNING → DONE, or RUNNING → CANCELLING → CANCELLED; FAILED where the backfill itself cannot go on."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in (BackfillState.RUNNING, BackfillState.CANCELLING)


@dataclass(frozen=True, slots=True)
class BackfillOrder:
    """What somebody wants filled: the slots from `start` to `end`, both included, and how.

    `end` None means as far as slots are decided. At most `max_active` of its runs are open at a time; with `reverse` the
    newest slot comes first. `reprocess` names the slots that are done again although they had a run.
    """

    start: Micros
    end: Micros | None = None
    reprocess: Reprocess = "none"
    max_active: int = 1
    reverse: bool = False

    def __post_init__(self) -> None:
        if self.end is not None and self.end < self.start:
            raise SpecError("to", f"{to_rfc3339(self.end)} lies before {to_rfc3339(self.start)}")
        if self.reprocess not in get_args(Reprocess):
            raise SpecError("reprocess", f"{self.reprocess!r} is none of {', '.join(get_args(Reprocess))}")
        if not 1 <= self.max_active <= MOST_ACTIVE:
            raise SpecError("max_active", f"{self.max_active} is not within 1 to {MOST_ACTIVE:,}")


@dataclass(frozen=True, slots=True)
class Period:
    """The slots of a job from `start` to `end`, both included, that may fire; walked from one end to the other."""

    job: Job
    start: Micros
    end: Micros
    reverse: bool = False

    @property
    def count(self) -> int:
        """How many slots there are, without walking them."""
        return self.job.count_free(self.start - 1, self.end)

    def following(self, cursor: Micros | None, limit: int) -> list[Micros]:
        """At most `limit` slots in the order of the walk, after the slot `cursor`; None begins."""
        if self.reverse:
            until = self.end if cursor is None else min(self.end, cursor - SECOND)
            return self.job.newest(self.start - 1, until, limit)[::-1]
        after = self.start - 1 if cursor is None else max(self.start - 1, cursor)
        return list(islice(self.job.between(after, self.end), limit))


def fill_of(reprocess: Reprocess, newest: Phase | None, *, pruned: bool) -> Literal["fill", "again"] | None:
    """What a slot gets: its own run, another one, or none.

    `newest` is the phase of the slot's newest run, `pruned` whether it had one that is forgotten. A run that is open is
    waited for by nobody and left alone; how a forgotten one ended nobody knows, so only `all` does it again.
    """
    if newest is None and not pruned:
        return "fill"
    if reprocess == "all":
        return "again" if newest is None or newest in FINAL else None
    return "again" if reprocess == "failed" and newest in _DONE_BADLY else None


def carve(job: Job, item: SkippedRange, slots: Sequence[Micros]) -> list[SkippedRange] | None:
    """What is left of a range when these slots of it, oldest first, have got a run; None where it cannot be told.

    A range that does not count what the job has there was made under another schedule: which slots it stands for is not
    known any more, so it stays as it is.
    """
    free = job.count_free(item.from_slot - SECOND, item.to_slot) == item.count
    if not free and job.count(item.from_slot - SECOND, item.to_slot) != item.count:
        return None
    count = job.count_free if free else job.count
    following = job.next_free if free else job.next_after
    left: list[SkippedRange] = []
    after = item.from_slot - SECOND
    for slot in [*slots, item.to_slot + SECOND]:
        number = count(after, slot - SECOND)
        first, last = following(after), job.last_before(slot, free=free)
        if number and first is not None and last is not None:
            left.append(SkippedRange(first, last, number, item.reason))
        after = slot
    return left
