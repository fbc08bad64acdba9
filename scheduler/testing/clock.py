"""A clock that is moved by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.domain.instants import Micros, from_datetime, parse_duration, parse_rfc3339, to_datetime, to_micros


class ManualClock:
    """Stands still until it is moved, in either direction. Give it to a `Scheduler`, a `Client` or a `Harness`."""

    def __init__(self, start: datetime | str = "2026-01-01T00:00:00Z") -> None:
        """`start`: an aware datetime or an RFC 3339 text."""
        self._now = _instant(start)

    def now(self) -> Micros:
        """The present instant in epoch microseconds, as a store's clock tells it."""
        return self._now

    @property
    def time(self) -> datetime:
        """The present instant as an aware datetime, UTC."""
        return to_datetime(self._now)

    def advance(self, duration: timedelta | str) -> None:
        """Moves by a `timedelta` (back if negative) or a text such as `10m`. Nothing happens meanwhile: see `tick`."""
        self._now += micros_of(duration)

    def set(self, instant: datetime | str) -> None:
        """Makes it this instant, an aware datetime or an RFC 3339 text: earlier or later, as clocks are set."""
        self._now = _instant(instant)


def micros_of(duration: timedelta | str) -> Micros:
    """A `timedelta` or a text such as `10m` in microseconds."""
    return to_micros(parse_duration(duration) if isinstance(duration, str) else duration)


def _instant(instant: datetime | str) -> Micros:
    return parse_rfc3339(instant) if isinstance(instant, str) else from_datetime(instant)
