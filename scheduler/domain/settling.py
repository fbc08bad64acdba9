"""What an old plan still owes when its schedule changes, or when its trigger stops being active.

Owed are the planned slot and all that follow it up to now. A slot that waits out its jitter is one of them: nothing that is
said about the schedule afterwards may lose it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.planning import Plan, plan_fires
from scheduler.domain.simple_schedules import Schedule

# So many slots of an old plan are compared with the new schedule, the newest ones; what is older counts as changed.
_COMPARED: Final = 100_000
# Ranges of these reasons hold blacked-out slots too.
_OF_ALL_SLOTS: Final = {Reason.PAUSED, Reason.DELETED, Reason.RESTORED, Reason.SCHEDULE_CHANGED}


def skip_owed(
    job: Job | None,
    planned: Micros | None,
    now: Micros,
    reason: Reason,
    *,
    due_only: bool = False,
    decided: Callable[[Micros], bool] | None = None,
) -> Plan:
    """Skips all that an old plan owes, for `reason`; slots that are `decided` keep the entry they have.

    `job` is the old schedule where it is known; without it only the planned slot is. `due_only` leaves a slot alone whose
    jitter is not over. Nothing follows: the caller plans anew.
    """
    if planned is None or planned > now:
        return _NOTHING
    if job is None:
        skips = [SkippedRange(planned, planned, 1, reason)]
    else:
        newest = job.last_due(now) if due_only else job.last_before(now + 1, free=False)
        if due_only and (newest is None or newest < planned):
            return _NOTHING
        newest = max(planned, newest or planned)
        # With new zone data the planned slot need not be one of the job's.
        skips = [SkippedRange(planned, newest, 1 + job.count(planned, newest), reason)]
    last = skips[-1].to_slot
    if decided is not None:
        slots = [planned] if job is None else [planned, *job.every(planned, last)]
        skips = _grouped((slot, None if decided(slot) else reason) for slot in slots)
    return Plan((), tuple(skips), last, None, None)


def settle(
    job: Job | None,
    following: Job,
    planned: Micros | None,
    planned_due: Micros | None,
    now: Micros,
    misfire_grace: Micros,
    *,
    fires: int = 0,
    open_runs: int = 0,
    skip_next: Micros | None = None,
    decided: Callable[[Micros], bool] | None = None,
) -> Plan:
    """Decides all that an old plan owes, because its schedule changed to that of `following`.

    A slot that both schedules have is owed as before. Of the others those within the grace fire, one that waits out its
    jitter among them; older ones are skipped. `job` is the old schedule where it is still known; without it only the
    planned slot is, due at `planned_due`. Overlap, catch-up and `max_fires` are what `following` says. Nothing follows: the
    caller plans anew.
    """
    if planned is None or planned > now:
        return _NOTHING
    due_at = planned if planned_due is None else planned_due
    late_until = _newest_late(job, planned, due_at, now - misfire_grace - 1)
    if job is not None and _has_the_same_slots(job, following, planned):
        every, free, refused = job.schedule, job.free, job.blacked_out
    else:
        compared = _Compared(job, following, planned, now, late_until, whole=decided is not None)
        every, free, refused = compared.every, compared.free, compared.refused
    owed = _Owed(
        following.identity,
        every,
        following.activated_at,
        catchup=following.catchup,
        overlap=following.overlap,
        max_fires=following.max_fires,
        now=now,
        unrefused=free,
        refused=refused,
        late=lambda until: _newest_late(job, planned, due_at, until),
    )
    plan = plan_fires(
        owed,
        planned - SECOND,
        now,
        misfire_grace,
        fires=fires,
        open_runs=open_runs,
        skip_next=skip_next,
        decided=decided,
    )
    return plan._replace(next_slot=None, due_at=None)


def cut_off(item: SkippedRange, job: Job, now: Micros) -> SkippedRange | None:
    """What is left of a skipped range once its slots after `now` are taken out; None if nothing is.

    They are counted by `job`. Where the range is of an older schedule the count is as good as can be known.
    """
    if item.to_slot <= now or item.from_slot > now:
        return item if item.to_slot <= now else None
    before = item.from_slot - SECOND
    if item.reason is Reason.CALENDAR:
        stretches = job.blacked_out(before, now)
        count, last = sum(each.count for each in stretches), stretches[-1].to_slot if stretches else 0
    else:
        free = item.reason not in _OF_ALL_SLOTS
        count = job.count_free(before, now) if free else job.count(before, now)
        last = job.last_before(now + 1, free=free) or 0
    count = min(max(count, 1), item.count)
    return SkippedRange(item.from_slot, max(item.from_slot, last), count, item.reason)


@dataclass(slots=True)
class _Owed(Job):
    """The slots that an old plan owes, as a job: whichever began by now is due, and how late it is goes by the old jitter."""

    now: Micros = 0
    unrefused: Schedule | None = None
    refused: Callable[[Micros, Micros], list[SkippedRange]] = lambda *_: []
    late: Callable[[Micros], Micros | None] = lambda _: None

    @property
    def free(self) -> Schedule | None:
        return self.unrefused

    def last_due(self, until: Micros) -> Micros | None:
        return self.last_before(until + 1, free=False) if until >= self.now else self.late(until)

    def due_at(self, slot: Micros) -> Micros:
        return slot

    def blacked_out(self, after: Micros, until: Micros) -> list[SkippedRange]:
        return self.refused(after, until)


class _Compared:
    """The slots of an old plan, one by one: those that may fire, and those that do not, each with its reason."""

    def __init__(
        self, job: Job | None, following: Job, planned: Micros, now: Micros, late_until: Micros | None, *, whole: bool
    ) -> None:
        after, self._older = planned, None
        if job is not None and not whole and job.count(planned, now) > _COMPARED:
            after = _newest_but(_COMPARED, job, now)
            self._older = SkippedRange(planned, after, 1 + job.count(planned, after), Reason.SCHEDULE_CHANGED)
        slots = [] if self._older is not None else [planned]
        if job is not None:
            slots += job.every(after, now)
        self._reasons: dict[Micros, Reason] = {}
        for slot in slots:
            if job is not None and job.calendars is not None and job.calendars.is_blackout(slot // SECOND):
                self._reasons[slot] = Reason.CALENDAR
            elif late_until is not None and slot <= late_until and following.next_free(slot - SECOND) != slot:
                self._reasons[slot] = Reason.SCHEDULE_CHANGED
        self._slots = slots
        self.every = _Listed(slots)
        self.free = _Listed([slot for slot in slots if slot not in self._reasons])

    def refused(self, after: Micros, until: Micros) -> list[SkippedRange]:
        """The slots in (after, until] that do not fire, as ranges with no other slot between."""
        older = [] if self._older is None or after >= self._older.from_slot else [self._older]
        within = self._slots[bisect_right(self._slots, after) : bisect_right(self._slots, until)]
        return older + _grouped((slot, self._reasons.get(slot)) for slot in within)


class _Listed:
    """A schedule of the slots that it was given."""

    def __init__(self, slots: list[Micros]) -> None:
        self._seconds = [slot // SECOND for slot in slots]

    def next_after(self, t: int) -> int | None:
        place = bisect_right(self._seconds, t)
        return self._seconds[place] if place < len(self._seconds) else None

    def previous_before(self, t: int) -> int | None:
        place = bisect_left(self._seconds, t)
        return self._seconds[place - 1] if place > 0 else None

    def count(self, after: int, until: int) -> int:
        return max(0, bisect_right(self._seconds, until) - bisect_right(self._seconds, after))

    def between(self, after: int, until: int) -> Iterator[int]:
        return iter(self._seconds[bisect_right(self._seconds, after) : bisect_right(self._seconds, until)])

    @property
    def fingerprint(self) -> str:
        return "listed"


def _newest_late(job: Job | None, planned: Micros, planned_due: Micros, until: Micros) -> Micros | None:
    """The newest slot of an old plan that was due at `until` or before; None where none was."""
    newest = None if job is None else job.last_due(until)
    if newest is not None and newest > planned:
        return newest
    return planned if planned_due <= until else None


def _has_the_same_slots(job: Job, following: Job, planned: Micros) -> bool:
    if job.schedule is None or following.schedule is None or job.next_after(planned - SECOND) != planned:
        return False
    return job.schedule.fingerprint == following.schedule.fingerprint


def _newest_but(count: int, job: Job, until: Micros) -> Micros:
    """The slot before the newest `count` up to an instant."""
    slot = until + 1
    for _ in range(count + 1):
        slot = job.last_before(slot, free=False) or slot
    return slot


def _grouped(slots: Iterable[tuple[Micros, Reason | None]]) -> list[SkippedRange]:
    """Neighbours of one reason as ranges; a slot without a reason stands between its neighbours."""
    ranges: list[SkippedRange] = []
    before: Reason | None = None
    for slot, reason in slots:
        if reason is not None and reason is before:
            first = ranges.pop()
            ranges.append(SkippedRange(first.from_slot, slot, first.count + 1, reason))
        elif reason is not None:
            ranges.append(SkippedRange(slot, slot, 1, reason))
        before = reason
    return ranges


_NOTHING: Final = Plan((), (), None, None, None)
