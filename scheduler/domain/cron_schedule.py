"""From local wall-clock times to instants: where a cron schedule fires, also around offset changes.

In a calm stretch of the zone the next fire is the next local reading minus the offset. In a knot three policies part:

- every reading: each instant whose reading matches (`instant`, and `once` for jobs that fire at intervals);
- first reading: of repeated readings the first, missing ones never (`skip_once`);
- exactly once: as first reading, and missing ones fire together at the first instant after the gap (`once`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from scheduler.domain.cron_times import LocalTimes
from scheduler.domain.simple_schedules import HORIZON, fingerprint_of, walk
from scheduler.domain.zones import Piece, Zone

EVERY_READING: Final = 0
FIRST_READING: Final = 1
EXACTLY_ONCE: Final = 2


class CronSchedule:
    """The fires of a set of local times in a zone under one policy. Thread-safe: all it remembers is a shortcut."""

    __slots__ = ("_calm", "_fingerprint", "_policy", "_times", "_zone")

    def __init__(self, times: LocalTimes, zone: Zone, policy: int) -> None:
        self._times = times
        self._zone = zone
        self._policy = policy
        self._fingerprint: str | None = None
        # The calm stretch last used: (first instant, end, offset, local end).
        self._calm = (0, 0, 0, 0)

    def next_after(self, t: int) -> int | None:
        if t < -1:
            t = -1
        start, end, offset, local_end = self._calm
        if not start <= t < end:
            zone = self._zone
            stretch = bisect_right(zone.starts, t) - 1
            if t >= zone.ends[stretch]:
                fire = self._next_in_knot(zone.knots[stretch], t)
                return self._within_horizon(
                    self._first_fire(zone.local_starts[stretch + 1] - 1) if fire is None else fire
                )
            offset, local_end = zone.offsets[stretch], zone.local_ends[stretch]
            self._calm = zone.starts[stretch], zone.ends[stretch], offset, local_end
        reading = self._times.after(t + offset)
        if reading is None:
            return None
        if reading < local_end:
            fire = reading - offset
            return fire if fire < HORIZON else None
        return self._within_horizon(self._first_fire(reading - 1))

    def previous_before(self, t: int) -> int | None:
        t = min(t, HORIZON)
        if t <= 0:
            return None
        zone = self._zone
        stretch = bisect_right(zone.starts, t - 1) - 1
        if t - 1 < zone.ends[stretch]:
            fire = self._last_fire(t + zone.offsets[stretch])
        else:
            fire = self._previous_in_knot(zone.knots[stretch], t)
            if fire is None:
                fire = self._last_fire(zone.local_ends[stretch])
        return fire if fire is not None and fire >= 0 else None

    def between(self, after: int, until: int) -> Iterator[int]:
        return walk(self, after, until)

    def count(self, after: int, until: int) -> int:
        start, end = max(after + 1, 0), min(until + 1, HORIZON)
        if start >= end:
            return 0
        zone, total = self._zone, 0
        for stretch in range(bisect_right(zone.starts, start) - 1, bisect_right(zone.starts, end - 1)):
            calm_start, calm_end = max(start, zone.starts[stretch]), min(end, zone.ends[stretch])
            if calm_start < calm_end:
                offset = zone.offsets[stretch]
                total += self._times.count(calm_start + offset, calm_end + offset)
            if stretch < len(zone.knots) and end > zone.ends[stretch]:
                total += self._count_in_knot(zone.knots[stretch], start, end)
        return total

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            # Where clocks never change the policy makes no difference.
            policy = self._policy if self._zone.knots else EVERY_READING
            self._fingerprint = fingerprint_of("cron", self._times.key(), self._zone.fingerprint, policy)
        return self._fingerprint

    def _within_horizon(self, fire: int | None) -> int | None:
        return fire if fire is not None and fire < HORIZON else None

    def _first_fire(self, reading: int) -> int | None:
        """The first fire of a reading later than `reading`, which is calm or the last before a knot or a stretch."""
        zone, after = self._zone, self._times.after
        following = after(reading)
        # Each turn leaves a knot behind for good, and a zone has some hundreds of them.
        while following is not None:
            stretch = bisect_right(zone.local_starts, following) - 1
            if following < zone.local_ends[stretch]:
                return following - zone.offsets[stretch]
            knot = zone.knots[stretch]
            fire = self._next_in_knot(knot, knot[0].start - 1)
            if fire is not None:
                return fire
            following = after(zone.local_starts[stretch + 1] - 1)
        return None

    def _last_fire(self, reading: int) -> int | None:
        """The last fire of a reading earlier than `reading`: the mirror image of `_first_fire`."""
        zone, before = self._zone, self._times.before
        preceding = before(reading)
        while preceding is not None:
            stretch = bisect_right(zone.local_starts, preceding) - 1
            if preceding < zone.local_ends[stretch]:
                return preceding - zone.offsets[stretch]
            knot = zone.knots[stretch]
            fire = self._previous_in_knot(knot, knot[-1].end)
            if fire is not None:
                return fire
            preceding = before(zone.local_ends[stretch])
        return None

    def _next_in_knot(self, knot: tuple[Piece, ...], t: int) -> int | None:
        for number, piece in enumerate(knot):
            start, end, offset, _, _ = piece
            if end <= t + 1:
                continue
            if start > t and self._fires_after_gap(knot, piece):
                return start
            reading = self._times.after(max(t, start - 1) + offset)
            while reading is not None and reading < end + offset:
                repeated = self._read_before(knot, number, reading)
                if repeated is None:
                    return reading - offset
                reading = self._times.after(repeated.end + repeated.offset - 1)
        return None

    def _previous_in_knot(self, knot: tuple[Piece, ...], t: int) -> int | None:
        for number in range(len(knot) - 1, -1, -1):
            start, end, offset, _, _ = piece = knot[number]
            if start >= t:
                continue
            reading = self._times.before(min(t, end) + offset)
            while reading is not None and reading >= start + offset:
                repeated = self._read_before(knot, number, reading)
                if repeated is None:
                    return reading - offset
                reading = self._times.before(repeated.start + repeated.offset)
            if self._fires_after_gap(knot, piece):
                return start
        return None

    def _read_before(self, knot: tuple[Piece, ...], number: int, reading: int) -> Piece | None:
        """The earlier piece that showed this reading already, where that rules a second fire out."""
        if self._policy != EVERY_READING:
            for piece in knot[:number]:
                if piece.start <= reading - piece.offset < piece.end:
                    return piece
        return None

    def _fires_after_gap(self, knot: tuple[Piece, ...], piece: Piece) -> bool:
        """Whether a matching reading was jumped over at the start of `piece` and is shown at no other instant."""
        if self._policy != EXACTLY_ONCE or piece.gap_start == piece.gap_end:
            return False
        reading = self._times.after(piece.gap_start - 1)
        while reading is not None and reading < piece.gap_end:
            shown = next((other for other in knot if other.start <= reading - other.offset < other.end), None)
            if shown is None:
                return True
            reading = self._times.after(shown.end + shown.offset - 1)
        return False

    def _count_in_knot(self, knot: tuple[Piece, ...], start: int, end: int) -> int:
        total = 0
        for number, piece in enumerate(knot):
            first, last = max(start, piece.start), min(end, piece.end)
            if first >= last:
                continue
            shown = [(first + piece.offset, last + piece.offset)]
            if self._policy != EVERY_READING:
                for earlier in knot[:number]:
                    shown = _without(shown, earlier.start + earlier.offset, earlier.end + earlier.offset)
            total += sum(self._times.count(low, high) for low, high in shown)
            if start <= piece.start and self._fires_after_gap(knot, piece):
                # Unless a reading of the same instant was counted: equal instants are one fire.
                reading = piece.start + piece.offset
                total += not (self._times.count(reading, reading + 1) and any(lo <= reading < hi for lo, hi in shown))
        return total


def _without(stretches: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """The stretches less start ≤ x < end."""
    left = [(low, min(high, start)) for low, high in stretches if low < start]
    right = [(max(low, end), high) for low, high in stretches if high > end]
    return left + right
