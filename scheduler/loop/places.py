"""A worker's places: how many runs it may hold at once, of each executor too, and how fast an executor may start them."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_second` starts a second in the long run, and `burst` at once after a pause."""

    per_second: float
    burst: int


class _Bucket:
    """Starts that a rate still allows, refilled with time."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left = float(rate.burst)
        self._at = -math.inf

    def left(self, now: float) -> int:
        """How many runs may start at `now`."""
        if now > self._at:
            refilled = (now - self._at) * self._rate.per_second if self._at > -math.inf else 0.0
            self._left = min(float(self._rate.burst), self._left + refilled)
            self._at = now
        # Sums of small numbers fall short of whole ones by less than this.
        return int(self._left + 1e-6)

    def take(self, now: float) -> None:
        """A run starts at `now`."""
        # Filled up to this moment first: what a full bucket would have gained since it was looked at is not saved up, or
        # a burst that was decided on a while before it starts would be followed too closely.
        self.left(now)
        self._left -= 1

    def seconds_to_next(self, now: float) -> float:
        """How long until one more run may start; 0 where it may."""
        return 0.0 if self.left(now) >= 1 else (1 - self._left) / self._rate.per_second


class Places:
    """Counts who sits where. `clock` gives monotonic seconds."""

    def __init__(
        self,
        total: int,
        executors: Iterable[str],
        *,
        limits: Mapping[str, int],
        rates: Mapping[str, Rate],
        clock: Callable[[], float],
    ) -> None:
        self.total = total
        self._executors = tuple(sorted(executors))
        self._limits = limits
        self._buckets = {name: _Bucket(rate) for name, rate in rates.items()}
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._apart: Counter[str] = Counter()
        self._all_apart = 0
        self._resting: dict[str, float] = {}
        self._closed = False

    def close(self) -> None:
        """No place is free any more."""
        self._closed = True

    def rest(self, executor: str, seconds: float) -> None:
        """The executor has no room for so long."""
        self._resting[executor] = self._clock() + seconds

    def free(self) -> int:
        """How many more runs there is room for."""
        return 0 if self._closed else max(0, self.total - self._held.total())

    def room(self) -> dict[str, int]:
        """How many runs of each executor may start now."""
        free, now = self.free(), self._clock()
        return {name: self._room_of(name, free, now) for name in self._executors}

    def _room_of(self, name: str, free: int, now: float) -> int:
        if self._rests(name, now) > 0:
            return 0
        room = min(free, self._limits.get(name, self.total) - self._held[name])
        bucket = self._buckets.get(name)
        return max(0, room if bucket is None else min(room, bucket.left(now)))

    def unspoken(self) -> int:
        """How many of the free places nobody has set apart."""
        return max(0, self.free() - self._all_apart)

    @contextlib.contextmanager
    def set_apart(self, most: int) -> Iterator[dict[str, int]]:
        """Room for at most that many runs, in which until the end of the block nobody else gets a part."""
        most = min(most, self.unspoken())
        room = {name: max(0, min(places - self._apart[name], most)) for name, places in self.room().items()}
        self._apart.update(room)
        self._all_apart += most
        try:
            yield room
        finally:
            self._apart.subtract(room)
            self._all_apart -= most

    def occupy(self, executor: str) -> None:
        """A run starts."""
        self._held[executor] += 1
        bucket = self._buckets.get(executor)
        if bucket is not None:
            bucket.take(self._clock())

    def leave(self, executor: str) -> None:
        """A run's code has ended."""
        self._held[executor] -= 1

    def _rests(self, name: str, now: float) -> float:
        return max(0.0, self._resting[name] - now) if name in self._resting else 0.0

    def seconds_to_refill(self) -> float | None:
        """When some executor that has room may start a run again; None where neither a rate nor a rest holds any back."""
        now, free = self._clock(), self.free()
        waits = [
            max(self._rests(name, now), self._buckets[name].seconds_to_next(now) if name in self._buckets else 0.0)
            for name in self._buckets.keys() | self._resting.keys()
            if free > 0 and self._limits.get(name, self.total) > self._held[name]
        ]
        return min((wait for wait in waits if wait > 0), default=None)
