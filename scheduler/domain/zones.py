"""Offsets from UTC of the world's time zones, from the `tzdata` package.

Not from the system: replicas of one schedule must agree whatever their images carry. Nothing is changed for `zoneinfo`,
which code that runs in the same process keeps using as it is configured.

A zone is cut into *calm* stretches, in which a local reading names exactly one instant and later instants have later
readings, and *knots* around each offset change, where readings repeat or are missing. Schedules run on plain arithmetic
in the first and look closely only in the second.
"""

from __future__ import annotations

import difflib
import hashlib
import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, resources
from itertools import pairwise
from typing import Final, NamedTuple

from scheduler.domain.posix_tz import future_changes
from scheduler.errors import UnknownTimezone

# Instants of 1970–2199 have readings up to a day outside; a little more keeps the edges out of every calculation.
_FROM: Final = -40 * 86_400
_UNTIL: Final = 7_258_118_400 + 40 * 86_400
_FAR: Final = 1 << 40


class Piece(NamedTuple):
    """A part of a knot with one offset: instants start ≤ t < end read t + offset.

    Readings gap_start ≤ r < gap_end were jumped over at `start` (none if they are equal).
    """

    start: int
    end: int
    offset: int
    gap_start: int
    gap_end: int


@dataclass(frozen=True, slots=True)
class Zone:
    """The calm stretches of a zone, oldest first, as parallel lists, and the knots: knot n follows stretch n."""

    name: str
    starts: list[int]
    """First instant of each calm stretch, in epoch seconds."""
    ends: list[int]
    """First instant after it."""
    offsets: list[int]
    """Seconds to add to an instant to get its local reading."""
    local_starts: list[int]
    local_ends: list[int]
    knots: list[tuple[Piece, ...]]
    fingerprint: str
    """Changes whenever an offset of 1970–2199 does."""

    def earliest(self, reading: int) -> int:
        """The first instant that reads so; for a reading that was jumped over, the first instant after the jump."""
        stretch = bisect_right(self.local_starts, reading) - 1
        if reading < self.local_ends[stretch]:
            return reading - self.offsets[stretch]
        knot = self.knots[stretch]
        for piece in knot:
            if piece.start <= reading - piece.offset < piece.end:
                return reading - piece.offset
        return next(piece.start for piece in knot if piece.gap_start <= reading < piece.gap_end)

    def latest(self, reading: int) -> int:
        """The last instant that reads so; for a reading that was jumped over, the last instant before the jump."""
        stretch = bisect_right(self.local_starts, reading) - 1
        if reading < self.local_ends[stretch]:
            return reading - self.offsets[stretch]
        knot = self.knots[stretch]
        for piece in reversed(knot):
            if piece.start <= reading - piece.offset < piece.end:
                return reading - piece.offset
        return next(piece.start for piece in reversed(knot) if piece.gap_start <= reading < piece.gap_end) - 1

    def calm_around(self, instant: int) -> tuple[int, int]:
        """The first and the last instant of the calm stretch around an instant; the instant alone inside a knot."""
        stretch = max(0, bisect_right(self.starts, instant) - 1)
        if instant < self.ends[stretch]:
            return self.starts[stretch], self.ends[stretch] - 1
        return instant, instant

    def offset_at(self, instant: int) -> int:
        """Seconds to add to the instant to get its local reading."""
        stretch = max(0, bisect_right(self.starts, instant) - 1)
        if instant < self.ends[stretch]:
            return self.offsets[stretch]
        return next(piece.offset for piece in self.knots[stretch] if instant < piece.end)


@lru_cache(maxsize=256)
def zone_of(name: str) -> Zone:
    """The zone of an IANA name such as `Europe/Paris`; raises `UnknownTimezone` with the nearest name."""
    if name not in _names():
        raise UnknownTimezone("timezone", _unknown(name))
    changes, offsets = _transitions(resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes())
    return _build(name, changes, offsets)


def zone_names() -> frozenset[str]:
    """Every name that `zone_of` knows."""
    return _names()


@lru_cache(maxsize=1)
def tzdata_version() -> str:
    """The release of the time-zone database in use, such as `2026a`."""
    return str(import_module("tzdata").IANA_VERSION)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("ascii").split())


def _unknown(name: str) -> str:
    folded = {known.casefold(): known for known in _names()}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    hint = f": did you mean {folded[near[0]]}?" if near else ": write an IANA name such as Europe/Paris"
    return f"{name!r} is not in the time-zone database {tzdata_version()}{hint}"


def _transitions(data: bytes) -> tuple[list[int], list[int]]:
    """The instants of offset changes around 1970–2199, and the offsets: one more, the first holds before them all."""
    header = struct.Struct(">4s1c15x6l")
    magic, version, isutc, isstd, leaps, times, types, chars = header.unpack_from(data)
    start, width = header.size, 4
    if magic == b"TZif" and version >= b"2":
        # The first block is for readers of 32-bit times; what counts follows it.
        start += times * 5 + types * 6 + chars + leaps * 8 + isstd + isutc
        _, _, isutc, isstd, leaps, times, types, chars = header.unpack_from(data, start)
        start, width = start + header.size, 8
    instants = struct.unpack_from(f">{times}{'q' if width == 8 else 'l'}", data, start)
    kinds = struct.unpack_from(f">{times}B", data, start + times * width)
    first_type = start + times * (width + 1)
    utc_offsets = [struct.unpack_from(">l", data, first_type + 6 * number)[0] for number in range(types)]
    end = first_type + types * 6 + chars + leaps * (width + 4) + isstd + isutc
    footer = data[end:].strip(b"\n").decode("ascii") if width == 8 else ""

    changes: list[tuple[int, int]] = [
        (instant, utc_offsets[kind]) for instant, kind in zip(instants, kinds, strict=True)
    ]
    changes += future_changes(footer, instants[-1] if instants else _FROM, _UNTIL)
    offset = utc_offsets[0]
    kept: list[int] = []
    offsets: list[int] = []
    for instant, following in changes:
        if instant < _FROM:
            offset = following
            continue
        if not offsets:
            offsets.append(offset)
        # A change of name or of the daylight flag alone is no change for a schedule.
        if following != offsets[-1]:
            kept.append(instant)
            offsets.append(following)
    return kept, offsets or [offset]


def _build(name: str, changes: list[int], offsets: list[int]) -> Zone:
    count = len(changes)
    # Readings below upper[i] may be from before change i; readings from lower[i] on may be from after change i + 1.
    upper, lower = [-_FAR], [_FAR]
    for instant, (before, after) in zip(changes, pairwise(offsets), strict=True):
        # One second more, so that the instant of a change, where jumped-over times fire, belongs to the knot.
        upper.append(max(upper[-1], instant + max(before, after) + 1))
    for number in range(count - 1, -1, -1):
        lower.append(min(lower[-1], changes[number] + min(offsets[number], offsets[number + 1])))
    lower.reverse()
    calm = [number for number in range(count + 1) if upper[number] < lower[number]]
    bounds = [-_FAR, *changes, _FAR]
    knots: list[tuple[Piece, ...]] = []
    for left, right in pairwise(calm):
        pieces: list[Piece] = []
        for number in range(left, right + 1):
            start = lower[left] - offsets[left] if number == left else bounds[number]
            end = upper[right] - offsets[right] if number == right else bounds[number + 1]
            jump = (0, 0)
            if number > left and offsets[number] > offsets[number - 1]:
                jump = (start + offsets[number - 1], start + offsets[number])
            if start < end:
                pieces.append(Piece(start, end, offsets[number], *jump))
        knots.append(tuple(pieces))
    return Zone(
        name=name,
        starts=[upper[number] - offsets[number] for number in calm],
        ends=[lower[number] - offsets[number] for number in calm],
        offsets=[offsets[number] for number in calm],
        local_starts=[upper[number] for number in calm],
        local_ends=[lower[number] for number in calm],
        knots=knots,
        fingerprint=hashlib.sha256(repr((changes, offsets)).encode()).hexdigest()[:16],
    )
