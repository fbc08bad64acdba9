"""Blackout dates: local days on which a trigger stays quiet, or from which its slots move to a day that is free."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal, get_args

from scheduler.domain.identity import check_name
from scheduler.domain.simple_schedules import HORIZON, Schedule, bounded, fingerprint_of, walk
from scheduler.domain.zones import Zone, zone_of
from scheduler.errors import SpecError

BlackoutPolicy = Literal["skip", "previous", "next"]

_DAY: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_REMEMBERED: Final = 16


@dataclass(frozen=True, slots=True)
class Calendar:
    """Named blackout dates. `skip`: their slots do not fire; `previous`, `next`: they move to the nearest free day."""

    name: str
    dates: frozenset[date] = field(default_factory=frozenset)
    policy: BlackoutPolicy = "skip"

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.policy not in get_args(BlackoutPolicy):
            raise SpecError("policy", f"{self.policy!r} is none of {', '.join(get_args(BlackoutPolicy))}")
        for day in self.dates:
            # A datetime is a date too, but its zone would be a guess.
            if type(day) is not date:
                raise SpecError("dates", f"{day!r} is not a date like 2026-12-25")


def calendar_to_document(calendar: Calendar) -> dict[str, object]:
    """The JSON form of a calendar: name, dates in order, policy."""
    return {
        "name": calendar.name,
        "dates": [day.isoformat() for day in sorted(calendar.dates)],
        "policy": calendar.policy,
    }


def calendar_from_document(document: object) -> Calendar:
    """The calendar that `calendar_to_document` wrote; anything else raises `SpecError`."""
    if not isinstance(document, dict) or not {"name", "dates"} <= document.keys():
        raise SpecError("calendars", f"{document!r} is not a calendar: name, dates and policy are needed")
    try:
        dates = frozenset(date.fromisoformat(day) for day in document["dates"])
    except (TypeError, ValueError) as error:
        raise SpecError("calendars", f"{document['name']}: dates: {error}") from None
    return Calendar(document["name"], dates, document.get("policy", "skip"))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Blacked-out slots with no free slot between them; epoch seconds."""

    first: int
    last: int
    count: int


def with_calendars(
    schedule: Schedule,
    calendars: Iterable[Calendar],
    timezone: str = "UTC",
    *,
    start: int | None = None,
    end: int | None = None,
) -> CalendarSchedule:
    """The schedule as the calendars leave it; the days are those of `timezone`, the trigger's zone.

    Slots that `previous` or `next` move are simply elsewhere. Slots that `skip` blacks out stay, so that each can be
    accounted for: ask `is_blackout`. No slot lies before `start` or after `end` (epoch seconds) once it has moved.
    """
    return CalendarSchedule(schedule, tuple(calendars), timezone, start, end)


class CalendarSchedule:
    """A schedule under calendars. A slot keeps its local time of day when it moves; slots that meet become one.

    No slot moves to a day that any of the calendars blacks out. If several calendars name a day, `skip` outranks
    `previous`, which outranks `next`.
    """

    __slots__ = ("_blacked", "_bounds", "_end", "_inner", "_landed", "_moved", "_start", "_targets", "_zone")

    def __init__(
        self,
        inner: Schedule,
        calendars: tuple[Calendar, ...],
        timezone: str,
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        self._inner = inner
        self._bounds = start, end
        self._start = max(start or 0, 0)
        self._end = HORIZON - 1 if end is None else min(end, HORIZON - 1)
        self._zone: Zone = zone_of(timezone)
        policies: dict[int, str] = {}
        for policy in ("next", "previous", "skip"):
            for calendar in calendars:
                if calendar.policy == policy:
                    policies.update(dict.fromkeys(map(_number, calendar.dates), policy))
        self._blacked = frozenset(day for day, policy in policies.items() if policy == "skip")
        self._moved = self._movements(policies)
        self._targets = sorted((target, day) for day, target in self._moved.items())
        self._landed: dict[int, tuple[int, ...]] = {}

    def is_blackout(self, slot: int) -> bool:
        """Whether a `skip` calendar names the local day of this slot."""
        return self._local_day(slot) in self._blacked

    def next_after(self, t: int) -> int | None:
        t = max(t, self._start - 1)
        fire = self._inner.next_after(t)
        while fire is not None and self._local_day(fire) in self._moved:
            # All slots of a moved day are elsewhere: go on behind the day.
            fire = self._inner.next_after(self._same_day(fire)[1])
        arrivals = self._arrivals(t, forward=True)
        return min((slot for slot in (fire, arrivals) if slot is not None and slot <= self._end), default=None)

    def previous_before(self, t: int) -> int | None:
        t = min(t, self._end + 1)
        fire = self._inner.previous_before(t)
        while fire is not None and self._local_day(fire) in self._moved:
            fire = self._inner.previous_before(self._same_day(fire)[0])
        arrivals = self._arrivals(t, forward=False)
        return max((slot for slot in (fire, arrivals) if slot is not None and slot >= self._start), default=None)

    def count(self, after: int, until: int) -> int:
        """Walks the slots of moved days only."""
        after, until = max(after, self._start - 1), min(until, self._end)
        if after >= until:
            return 0
        total, arrived = self._inner.count(after, until), set[int]()
        for day, target in self._moved.items():
            start, end = self._window(day)
            if start <= until and end > after:
                total -= sum(1 for slot in self._slots_of(day) if after < slot <= until)
            start, end = self._window(target)
            if start <= until and end > after:
                arrived.update(slot for slot in self._landings(day) if after < slot <= until)
        # Those that land where a slot is anyway are no slots more.
        return total + sum(1 for slot in arrived if self._inner.count(slot - 1, slot) == 0)

    def between(self, after: int, until: int) -> Iterator[int]:
        return walk(self, after, until)

    @property
    def fingerprint(self) -> str:
        days = sorted(self._moved.items()), sorted(self._blacked)
        inner = bounded(self._inner, *self._bounds).fingerprint
        # That bounds hold once slots have moved makes a difference only where slots move near one.
        near = ("moved",) if any(self._moves_near(bound) for bound in self._bounds) else ()
        return fingerprint_of("calendars", inner, self._zone.fingerprint, days, *near)

    def _moves_near(self, bound: int | None) -> bool:
        if bound is None:
            return False
        day = self._local_day(bound)
        # Clocks set back over midnight repeat the end of a day: one day either way is near too.
        return any(min(move) - 1 <= day <= max(move) + 1 for move in self._moved.items())

    def free(self) -> FreeSchedule:
        """The slots that are not blacked out: those that fire."""
        return FreeSchedule(self)

    def blacked_out(self, after: int, until: int) -> list[Stretch]:
        """The blacked-out slots in (after, until], oldest first, as stretches."""
        found: list[Stretch] = []
        for day in sorted(self._blacked):
            start, end = self._window(day)
            start, end = max(start, after + 1), min(end, until)
            first = self.next_after(start - 1) if start <= end else None
            last = self.previous_before(end + 1) if first is not None and first <= end else None
            if first is None or last is None:
                continue
            stretch = Stretch(first, last, self.count(first - 1, last))
            before = found[-1] if found else None
            if before is not None and self.next_after(before.last) == first:
                found[-1] = Stretch(before.first, last, before.count + stretch.count)
            else:
                found.append(stretch)
        return found

    def beyond_day(self, slot: int, *, forward: bool) -> int:
        """The last (or first) instant of the calm part of the local day that holds the slot."""
        return self._same_day(slot)[1 if forward else 0]

    def _movements(self, policies: dict[int, str]) -> dict[int, int]:
        moved: dict[int, int] = {}
        for day, policy in sorted(policies.items()):
            if policy == "skip":
                continue
            step = -1 if policy == "previous" else 1
            target = day + step
            # Ends: there are only so many blackout days in a row, and hardly a day that a zone jumped over.
            while target in policies or self._missing(target):
                target += step
            moved[day] = target
        return moved

    def _arrivals(self, t: int, *, forward: bool) -> int | None:
        """The first moved slot after t, or the last before it."""
        # Clocks set back over midnight repeat the end of a day: one day either way is looked at too.
        near = self._local_day(t) + (-1 if forward else 1)
        place = bisect_left(self._targets, (near, 0)) if forward else bisect_left(self._targets, (near + 1, 0)) - 1
        best: int | None = None
        best_target = 0
        while 0 <= place < len(self._targets):
            target, day = self._targets[place]
            if best is not None and abs(target - best_target) > 1:
                break
            landings = self._landings(day)
            index = bisect_right(landings, t) if forward else bisect_left(landings, t) - 1
            if 0 <= index < len(landings):
                slot = landings[index]
                if best is None:
                    best_target = target
                best = slot if best is None else min(best, slot) if forward else max(best, slot)
            place += 1 if forward else -1
        return best

    def _landings(self, day: int) -> tuple[int, ...]:
        """Where the slots of a moved day land, in order."""
        known = self._landed.get(day)
        if known is None:
            shift = (self._moved[day] - day) * _DAY
            zone = self._zone
            landed = {zone.earliest(slot + zone.offset_at(slot) + shift) for slot in self._slots_of(day)}
            known = tuple(sorted(slot for slot in landed if 0 <= slot < HORIZON))
            if len(self._landed) >= _REMEMBERED:
                self._landed.clear()
            self._landed[day] = known
        return known

    def _slots_of(self, day: int) -> list[int]:
        start, end = self._window(day)
        return [slot for slot in self._inner.between(start - 1, end) if self._local_day(slot) == day]

    def _window(self, day: int) -> tuple[int, int]:
        """The first and the last instant of a local day; the last is before the first if clocks jumped over the day."""
        return self._zone.earliest(day * _DAY), self._zone.latest((day + 1) * _DAY - 1)

    def _missing(self, day: int) -> bool:
        start, end = self._window(day)
        return end < start

    def _same_day(self, instant: int) -> tuple[int, int]:
        """An interval around the instant, ends included, that lies within its local day."""
        first, last = self._zone.calm_around(instant)
        offset = self._zone.offset_at(instant)
        start = (instant + offset) // _DAY * _DAY - offset
        return max(first, start), min(last, start + _DAY - 1)

    def _local_day(self, instant: int) -> int:
        return (instant + self._zone.offset_at(instant)) // _DAY


class FreeSchedule:
    """A schedule under calendars without the slots that are blacked out."""

    __slots__ = ("inner",)

    def __init__(self, inner: CalendarSchedule) -> None:
        self.inner = inner

    def next_after(self, t: int) -> int | None:
        fire = self.inner.next_after(t)
        while fire is not None and self.inner.is_blackout(fire):
            fire = self.inner.next_after(self.inner.beyond_day(fire, forward=True))
        return fire

    def previous_before(self, t: int) -> int | None:
        fire = self.inner.previous_before(t)
        while fire is not None and self.inner.is_blackout(fire):
            fire = self.inner.previous_before(self.inner.beyond_day(fire, forward=False))
        return fire

    def count(self, after: int, until: int) -> int:
        return self.inner.count(after, until) - sum(s.count for s in self.inner.blacked_out(after, until))

    def between(self, after: int, until: int) -> Iterator[int]:
        return walk(self, after, until)

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint


def _number(day: date) -> int:
    return day.toordinal() - _EPOCH_ORDINAL
