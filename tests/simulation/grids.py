"""Schedules that can be counted on fingers: each lists its slots one after the other, with no code of the product."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from random import Random
from typing import Any, Final, TypeAlias

from scheduler.domain.automation import At, Automation, Cron, FixedRate
from scheduler.domain.calendars import BlackoutPolicy, Calendar
from scheduler.domain.instants import SECOND, Micros, to_datetime

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
# No world gets this far ahead of itself.
_FAR: Final = 6 * DAY


@dataclass(frozen=True)
class EveryMinutes:
    """At each full multiple of `step` minutes past the hour; `step` divides 60."""

    step: int

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        step = self.step * MINUTE
        return list(range((after // step + 1) * step, until + 1, step))

    def automation(self) -> Automation:
        return Cron(f"*/{self.step} * * * *")


@dataclass(frozen=True)
class Hourly:
    """Once an hour, at one minute of it."""

    minute: int

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        hours = range(after // HOUR * HOUR, until + 1, HOUR)
        return [at for hour in hours if after < (at := hour + self.minute * MINUTE) <= until]

    def automation(self) -> Automation:
        return Cron(f"{self.minute} * * * *")


@dataclass(frozen=True)
class Rate:
    """Every so many seconds: from `start` on, or one interval after the anchor."""

    seconds: int
    start: Micros | None = None

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        step = self.seconds * SECOND
        first = anchor + step if self.start is None else self.start
        passed = max(0, (after - first) // step + 1)
        return list(range(first + passed * step, until + 1, step))

    def automation(self) -> Automation:
        return FixedRate(self.seconds, "second", None if self.start is None else to_datetime(self.start))


@dataclass(frozen=True)
class Once:
    """At one instant."""

    at: Micros

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        return [self.at] if after < self.at <= until else []

    def automation(self) -> Automation:
        return At(to_datetime(self.at))


Grid: TypeAlias = EveryMinutes | Hourly | Rate | Once


@dataclass(frozen=True)
class Blackout:
    """Days, counted from 1970, on which nothing fires: their slots are skipped, or move to the nearest other day."""

    days: tuple[int, ...]
    policy: BlackoutPolicy

    def target(self, day: int) -> int:
        """Where the slots of one of these days go."""
        step = -1 if self.policy == "previous" else 1
        while day in self.days:
            day += step
        return day

    def calendar(self) -> Calendar:
        return Calendar("quiet", frozenset(date(1970, 1, 1) + timedelta(day) for day in self.days), self.policy)


@dataclass(frozen=True)
class Timetable:
    """A grid under a calendar of UTC days, and of that what fires between two instants, both included."""

    grid: Grid
    start: Micros | None = None
    end: Micros | None = None
    blackout: Blackout | None = None

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        """Every slot in (after, until] that is owed an entry."""
        if self.start is not None:
            after = max(after, self.start - 1)
        if self.end is not None:
            until = min(until, self.end)
        return self._moved(after, until, anchor) if until > after else []

    def quiet(self, slot: Micros) -> bool:
        """Whether the slot lies on a day on which it does not fire."""
        return self.blackout is not None and self.blackout.policy == "skip" and slot // DAY in self.blackout.days

    def options(self) -> dict[str, Any]:
        """What a trigger's specification says of it."""
        return {
            "automation": self.grid.automation(),
            "start": None if self.start is None else to_datetime(self.start),
            "end": None if self.end is None else to_datetime(self.end),
            "calendars": () if self.blackout is None else (self.blackout.calendar(),),
        }

    def _moved(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        if self.blackout is None or self.blackout.policy == "skip":
            return self.grid.slots(after, until, anchor)
        moved = self.blackout.days
        slots = {slot for slot in self.grid.slots(after, until, anchor) if slot // DAY not in moved}
        for day in moved:
            shift = (self.blackout.target(day) - day) * DAY
            if day * DAY + shift <= until and (day + 1) * DAY + shift > after:
                home = self.grid.slots(day * DAY - 1, (day + 1) * DAY - 1, anchor)
                slots |= {slot + shift for slot in home if after < slot + shift <= until}
        return sorted(slots)


@lru_cache(maxsize=4096)
def next_slot(timetable: Timetable, after: Micros, anchor: Micros) -> Micros | None:
    """The first slot after an instant, None if there is none."""
    begin, reach = after, 5 * MINUTE
    while begin < after + _FAR:
        if found := timetable.slots(begin, begin + reach, anchor):
            return found[0]
        begin, reach = begin + reach, reach * 4
    return None


def any_timetable(random: Random, now: Micros) -> Timetable:
    """Some schedule, most of them busy enough to owe something soon, and without an end or quiet days."""
    start = end = blackout = None
    minute = now // MINUTE * MINUTE
    choice = random.random()
    if choice < 0.06:
        start = minute + random.randrange(-10, 40) * MINUTE + random.choice([0, 0, 30 * SECOND])
    elif choice < 0.12:
        end = minute + random.randrange(2, 90) * MINUTE + random.choice([0, 0, 1, 30 * SECOND])
    elif choice < 0.20:
        today = now // DAY
        days = random.choice([(today,), (today + 1,), (today, today + 1), (today - 1,), (today - 1, today + 1)])
        blackout = Blackout(days, random.choice(["skip", "skip", "next", "previous"]))
        if blackout.policy != "skip" and random.random() < 0.7:
            # What moves may leave the time between start and end, or come into it.
            start = random.choice([None, None, minute + random.randrange(-10, 90) * MINUTE])
            end = max(minute, start or 0) + random.choice([random.randrange(30, 150) * MINUTE, DAY])
    return Timetable(any_grid(random, now), start, end, blackout)


def any_grid(random: Random, now: Micros) -> Grid:
    second = now - now % SECOND
    return random.choice(
        [
            EveryMinutes(random.choice([1, 1, 1, 2, 5, 10])),
            EveryMinutes(1),
            Hourly(random.randrange(60)),
            Rate(random.choice([20, 45, 60, 90, 600])),
            Rate(random.choice([30, 60, 300]), second + random.randrange(-3_600, 3_600) * SECOND),
            Once(second + random.randrange(-600, 3_600) * SECOND),
        ]
    )
