"""The only reader of wall time. Everything else asks a transaction or is handed a clock."""

from __future__ import annotations

import time
from typing import Protocol

from scheduler.domain.instants import Micros


def since_boot() -> Micros:
    """How long this machine has been running, the time it was suspended included; no clock that is set changes it."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000


class Clock(Protocol):
    """Where wall time comes from; a test's clock stands still until it is moved."""

    def now(self) -> Micros:
        """The present instant, in epoch microseconds."""
        ...


class SystemClock:
    """The machine's wall clock: it may be set, stepped or slewed by anyone at any time."""

    def now(self) -> Micros:
        """The present instant, in epoch microseconds."""
        return time.time_ns() // 1_000
