"""Schedules that can be counted on fingers: each lists its slots by trying every candidate, with no code of the product."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from scheduler.domain.automation import At, Automation, Cron, FixedRate
from scheduler.domain.instants import SECOND, Micros, to_datetime

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


@dataclass(frozen=True)
class EveryMinutes:
    """At each full multiple of `step` minutes past the hour; `step` divides 60."""

    step: int

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        first = after // MINUTE * MINUTE
        candidates = range(first, until + 1, MINUTE)
        return [at for at in candidates if at > after and at // MINUTE % self.step == 0]

    def automation(self) -> Automation:
        return Cron(f"*/{self.step} * * * *")


@dataclass(frozen=True)
class Hourly:
    """Once an hour, at one minute of it."""

    minute: int

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        first = after // MINUTE * MINUTE
        candidates = range(first, until + 1, MINUTE)
        return [at for at in candidates if at > after and at // MINUTE % 60 == self.minute]

    def automation(self) -> Automation:
        return Cron(f"{self.minute} * * * *")


@dataclass(frozen=True)
class Rate:
    """Every so many seconds: from `start` on, or one interval after the anchor."""

    seconds: int
    start: Micros | None = None

    def slots(self, after: Micros, until: Micros, anchor: Micros) -> list[Micros]:
        found = []
        at = anchor + self.seconds * SECOND if self.start is None else self.start
        while at <= until:
            if at > after:
                found.append(at)
            at += self.seconds * SECOND
        return found

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


def next_slot(grid: Grid, after: Micros, anchor: Micros) -> Micros | None:
    """The first slot after an instant."""
    if isinstance(grid, Once):
        return grid.at if grid.at > after else None
    begin, reach = after, HOUR
    if isinstance(grid, Rate) and grid.start is not None:
        reach = max(reach, grid.start - after)
    elif isinstance(grid, Rate):
        reach = max(reach, anchor + grid.seconds * SECOND - after)
    found = grid.slots(begin, after + reach + HOUR, anchor)
    return found[0]


def any_grid(random: Random, now: Micros) -> Grid:
    """Some schedule, most of them busy enough to owe something soon."""
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
