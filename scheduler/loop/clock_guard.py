"""The guard of the clock that decides: a jump far ahead is believed once it has lasted, or once two clocks agree on it.

A clock that is wrong for seconds would otherwise decide years of slots. It is compared with the time since boot, which goes
on while the machine is suspended, so that waking up is no jump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

import structlog

from scheduler.clock import Clock, since_boot
from scheduler.domain.instants import SECOND, Micros
from scheduler.errors import ClockJumped

log = structlog.get_logger("scheduler.clock")

LASTING: Final[Micros] = 60 * SECOND


class _Seen(NamedTuple):
    """What the deciding clock said at an instant of the time since boot, and what this machine's own said then."""

    now: Micros
    elapsed: Micros
    wall: Micros | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """By how much the clock is ahead of what it should say, and for how much longer that is not believed."""

    ahead: Micros
    left: Micros

    def __str__(self) -> str:
        return f"ahead by {self.ahead / SECOND:,.0f} s, believed in {self.left / SECOND:.0f} s unless it is set back"


class ClockGuard:
    """Compares every instant that a transaction reads with the one before. Threads may share it."""

    def __init__(self, bound: Micros, wall: Clock, *, elapsed: Callable[[], Micros] = since_boot) -> None:
        """`bound` is the largest jump that is believed at once, `wall` this machine's own clock."""
        self._bound = bound
        self._clock = wall
        self._elapsed = elapsed
        self._alone = True
        self._last: _Seen | None = None
        self._first_doubted: _Seen | None = None
        self._lock = Lock()

    def begin(self, now: Micros, last_seen: Micros | None, *, alone: bool, unset: bool) -> None:
        """A process starts at `now`; `last_seen` is the last instant that the database knows of.

        `alone`: the deciding clock is this machine's own, so that no other can confirm it. `unset`: nobody set it since it
        was right.
        """
        self._alone = alone
        believed = last_seen is None or now - last_seen <= self._bound or unset
        self._last = self._seen(now if believed or last_seen is None else last_seen)

    def let_go(self) -> None:
        """From now on every instant is believed: who leaves has to write down what was done."""
        self._last = self._first_doubted = None

    def check(self, now: Micros) -> None:
        """Raises `ClockJumped` while the clock is further ahead than it can be, and that has not lasted yet."""
        with self._lock:
            doubt = self._judge(now)
        if doubt is not None:
            raise ClockJumped(f"the clock that decides is {doubt}")

    def doubt(self) -> Doubt | None:
        """What is not believed at present."""
        last, first = self._last, self._first_doubted
        if last is None or first is None:
            return None
        left = LASTING - (self._elapsed() - first.elapsed)
        return Doubt(first.now - last.now - (first.elapsed - last.elapsed), max(0, left))

    def _judge(self, now: Micros) -> Doubt | None:
        last = self._last
        if last is None:
            return None
        seen = self._seen(now)
        ahead = _gained(last, seen)
        if ahead <= self._bound:
            if self._first_doubted is not None:
                log.warning("the clock is right again: nothing was decided meanwhile")
            self._believe(seen)
            return None
        if self._is_confirmed(last, seen):
            log.warning("the clock jumped ahead, and this machine's agrees", seconds=round(ahead / SECOND))
            self._believe(seen)
            return None
        first = self._first_doubted
        if first is None or abs(_gained(first, seen)) > self._bound:
            # One that jumps again is as doubtful as before.
            first = self._first_doubted = seen
            log.error(
                "the clock jumped ahead: nothing is decided until that has lasted",
                seconds=round(ahead / SECOND),
                lasting_seconds=LASTING // SECOND,
            )
        left = LASTING - (seen.elapsed - first.elapsed)
        if left > 0:
            return Doubt(ahead, left)
        log.error("the clock stayed ahead, and is believed from now on", seconds=round(ahead / SECOND))
        self._believe(seen)
        return None

    def _is_confirmed(self, last: _Seen, seen: _Seen) -> bool:
        """Whether this machine's own clock says the same, and did not jump with the other."""
        if seen.wall is None or last.wall is None:
            return False
        steady = abs((seen.wall - last.wall) - (seen.elapsed - last.elapsed)) <= self._bound
        return steady and abs(seen.wall - seen.now) <= self._bound

    def _seen(self, now: Micros) -> _Seen:
        return _Seen(now, self._elapsed(), None if self._alone else self._clock.now())

    def _believe(self, seen: _Seen) -> None:
        self._last, self._first_doubted = seen, None


def _gained(last: _Seen, seen: _Seen) -> Micros:
    """By how much the clock went on faster than time did between the two."""
    return (seen.now - last.now) - (seen.elapsed - last.elapsed)
