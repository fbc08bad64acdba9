"""What every compiled schedule answers, and the two kinds that need no calendar: a fixed rate and a single instant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Protocol

HORIZON: Final = 7_258_118_400
"""Epoch seconds of 2200-01-01T00:00:00Z: no schedule fires then or later, nor before 1970."""


class Schedule(Protocol):
    """A compiled schedule; instants are epoch seconds, UTC, within 1970–2199. Safe to share between threads."""

    def next_after(self, t: int) -> int | None:
        """The earliest fire strictly after t; None if there is none."""
        ...

    def previous_before(self, t: int) -> int | None:
        """The latest fire strictly before t; None if there is none."""
        ...

    def count(self, after: int, until: int) -> int:
        """How many fires lie in (after, until], without walking them."""
        ...

    def between(self, after: int, until: int) -> Iterator[int]:
        """The fires in (after, until], oldest first."""
        ...

    @property
    def fingerprint(self) -> str:
        """Short hexadecimal text that changes whenever the set of fires could."""
        ...


def walk(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    """The fires in (after, until] by repeated `next_after`."""
    fire = schedule.next_after(after)
    while fire is not None and fire <= until:
        yield fire
        fire = schedule.next_after(fire)


def fingerprint_of(*parts: object) -> str:
    """Sixteen hexadecimal digits over the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


# Schedules of a few numbers are made anew at every fire, often of the same ones.
_fingerprint_of_few: Final = lru_cache(maxsize=4096)(fingerprint_of)


class RateSchedule:
    """Fires at `first`, then every `interval` seconds: integers only, so no drift and no walking."""

    __slots__ = ("first", "interval")

    def __init__(self, first: int, interval: int) -> None:
        # What lies before 1970 is never asked for: begin at the first fire that can be.
        self.first = first if first >= 0 else first % interval
        self.interval = interval

    def next_after(self, t: int) -> int | None:
        fire = self.first
        if t >= fire:
            fire += ((t - fire) // self.interval + 1) * self.interval
        return fire if fire < HORIZON else None

    def previous_before(self, t: int) -> int | None:
        t = min(t, HORIZON)
        if t <= self.first:
            return None
        return self.first + (t - 1 - self.first) // self.interval * self.interval

    def count(self, after: int, until: int) -> int:
        return max(0, self._until(until) - self._until(after))

    def between(self, after: int, until: int) -> Iterator[int]:
        start = self.next_after(after)
        if start is None:
            return iter(())
        return iter(range(start, min(until + 1, HORIZON), self.interval))

    @property
    def fingerprint(self) -> str:
        return _fingerprint_of_few("rate", self.first, self.interval)

    def _until(self, t: int) -> int:
        """How many fires lie at or before t."""
        return max(0, (min(t, HORIZON - 1) - self.first) // self.interval + 1)


class SingleSchedule:
    """Fires once."""

    __slots__ = ("instant",)

    def __init__(self, instant: int) -> None:
        self.instant = instant

    def next_after(self, t: int) -> int | None:
        return self.instant if t < self.instant else None

    def previous_before(self, t: int) -> int | None:
        return self.instant if t > self.instant else None

    def count(self, after: int, until: int) -> int:
        return 1 if after < self.instant <= until else 0

    def between(self, after: int, until: int) -> Iterator[int]:
        return walk(self, after, until)

    @property
    def fingerprint(self) -> str:
        return _fingerprint_of_few("at", self.instant)


def bounded(schedule: Schedule, start: int | None, end: int | None) -> Schedule:
    """Only the fires in start ≤ t ≤ end, epoch seconds; None leaves that side open."""
    return schedule if start is None and end is None else _Bounded(schedule, start or 0, end)


class _Bounded:
    __slots__ = ("_beyond", "_inner", "_start")

    def __init__(self, inner: Schedule, start: int, end: int | None) -> None:
        self._inner = inner
        self._start = max(start, 0)
        # The first second that is out of bounds. Where no fire lies on the end itself that is the end: such a schedule
        # has kept its fingerprint since ends were exclusive, so nothing that is planned by it is planned anew.
        beyond = HORIZON if end is None else min(end, HORIZON)
        self._beyond = beyond + inner.count(beyond - 1, beyond)

    def next_after(self, t: int) -> int | None:
        fire = self._inner.next_after(max(t, self._start - 1))
        return fire if fire is not None and fire < self._beyond else None

    def previous_before(self, t: int) -> int | None:
        fire = self._inner.previous_before(min(t, self._beyond))
        return fire if fire is not None and fire >= self._start else None

    def count(self, after: int, until: int) -> int:
        return self._inner.count(max(after, self._start - 1), min(until, self._beyond - 1))

    def between(self, after: int, until: int) -> Iterator[int]:
        return walk(self, after, until)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of("bounded", self._inner.fingerprint, self._start, self._beyond)
