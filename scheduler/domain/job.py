"""A job: a trigger with its compiled schedule, as the planner sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.domain.calendars import CalendarSchedule
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.occurrences import Schedule, jitter_of
from scheduler.domain.trigger import CatchUp, Overlap


@dataclass(slots=True)
class Job:
    """All that decides which slots fire; instants are epoch microseconds, `schedule` itself counts seconds.

    Never changed once it is made: `frozen` would take five times as long to make one, and each fire does.

    `schedule` is None for a trigger that is fired by hand only. It holds every slot that is owed an entry; where
    `calendars` black days out, only the *free* ones among them may fire.
    """

    identity: str
    schedule: Schedule | None
    activated_at: Micros
    jitter: Micros = 0
    catchup: CatchUp = CatchUp()
    overlap: Overlap = "allow_all"
    max_fires: int | None = None
    calendars: CalendarSchedule | None = None

    @property
    def fingerprint(self) -> str:
        """What a plan of this job was made from; another fingerprint means another schedule."""
        if self.schedule is None:
            return "manual"
        text = f"{self.schedule.fingerprint}|{self.activated_at}|{self.jitter}"
        return hashlib.blake2s(text.encode(), digest_size=12).hexdigest()

    def next_after(self, slot: Micros) -> Micros | None:
        """The first slot strictly after an instant, free or not."""
        if self.schedule is None:
            return None
        second = self.schedule.next_after(slot // SECOND)
        return None if second is None else second * SECOND

    def next_free(self, slot: Micros) -> Micros | None:
        """The first slot strictly after an instant that may fire."""
        free = self.free
        second = None if free is None else free.next_after(slot // SECOND)
        return None if second is None else second * SECOND

    @property
    def free(self) -> Schedule | None:
        """The slots that may fire."""
        return self.schedule if self.calendars is None else self.calendars.free()

    def due_at(self, slot: Micros) -> Micros:
        """The instant at which the slot's run may start: the slot plus its jitter, always before the next slot."""
        if not self.jitter or self.schedule is None:
            return slot
        second = slot // SECOND
        return slot + jitter_of(self.identity, second, self.jitter, self.schedule.next_after(second))

    def last_due(self, until: Micros) -> Micros | None:
        """The newest slot whose due instant is not after `until`."""
        if self.schedule is None:
            return None
        second = self.schedule.previous_before(until // SECOND + 1)
        if second is not None and self.jitter and self.due_at(second * SECOND) > until:
            # Jitter is less than the gap between slots, so only the newest one can still be waiting.
            second = self.schedule.previous_before(second)
        return None if second is None else second * SECOND

    def last_before(self, slot: Micros, *, free: bool) -> Micros | None:
        """The newest slot strictly before an instant; with `free` only one that may fire."""
        schedule = self.free if free else self.schedule
        second = None if schedule is None else schedule.previous_before(-(-slot // SECOND))
        return None if second is None else second * SECOND

    def count(self, after: Micros, until: Micros) -> int:
        """How many slots lie in (after, until], free or not."""
        if self.schedule is None or until <= after:
            return 0
        return self.schedule.count(after // SECOND, until // SECOND)

    def count_free(self, after: Micros, until: Micros) -> int:
        """How many of the slots in (after, until] may fire."""
        free = self.free
        return 0 if free is None or until <= after else free.count(after // SECOND, until // SECOND)

    def between(self, after: Micros, until: Micros) -> Iterator[Micros]:
        """The slots in (after, until] that may fire, oldest first."""
        free = self.free
        if free is None or until <= after:
            return
        for second in free.between(after // SECOND, until // SECOND):
            yield second * SECOND

    def every(self, after: Micros, until: Micros) -> Iterator[Micros]:
        """The slots in (after, until], free or not, oldest first."""
        if self.schedule is not None and until > after:
            for second in self.schedule.between(after // SECOND, until // SECOND):
                yield second * SECOND

    def newest(self, after: Micros, until: Micros, limit: int) -> list[Micros]:
        """At most `limit` of the newest slots in (after, until] that may fire, oldest first."""
        free = self.free
        if free is None or limit <= 0:
            return []
        found: list[Micros] = []
        second = free.previous_before(until // SECOND + 1)
        while second is not None and second > after // SECOND and len(found) < limit:
            found.append(second * SECOND)
            second = free.previous_before(second)
        found.reverse()
        return found

    def blacked_out(self, after: Micros, until: Micros) -> list[SkippedRange]:
        """The slots in (after, until] that a calendar keeps from firing, as ranges, oldest first."""
        if self.calendars is None or until <= after:
            return []
        return [
            SkippedRange(stretch.first * SECOND, stretch.last * SECOND, stretch.count, Reason.CALENDAR)
            for stretch in self.calendars.blacked_out(after // SECOND, until // SECOND)
        ]
