"""Instants and durations as the house keeps them: whole microseconds since 1970-01-01T00:00:00Z.

Inside services and store an instant is an `int` in a name that ends in `_at` or is a slot, so no zone can be mistaken
and both databases keep the same BIGINT. Datetimes exist at the edges only: settings, manifests, the command line, the
public API. Slots are whole seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from scheduler.errors import SpecError

Micros: TypeAlias = int

SECOND: Final[Micros] = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE: Final = timedelta(microseconds=1)

_DURATION_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3_600 * SECOND,
    "d": 86_400 * SECOND,
}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)", re.ASCII)


def from_datetime(moment: datetime, field: str = "instant") -> Micros:
    """Microseconds since the epoch of an aware datetime; a naive one raises `SpecError`, because its zone is a guess."""
    if moment.tzinfo is None:
        raise SpecError(field, f"{moment.isoformat()} has no zone: add Z or an offset")
    return (moment - _EPOCH) // _ONE


def to_datetime(instant: Micros) -> datetime:
    """The aware UTC datetime of an instant."""
    return _EPOCH + timedelta(microseconds=instant)


def to_rfc3339(instant: Micros) -> str:
    """`2026-11-21T02:00:00Z`; a fraction is printed only where there is one."""
    moment = to_datetime(instant)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    if moment.microsecond:
        text += f".{moment.microsecond:06d}".rstrip("0")
    return text + "Z"


def parse_rfc3339(text: str, field: str = "instant") -> Micros:
    """The instant that an RFC 3339 text names; without a zone it raises `SpecError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError(field, f"{text!r} is not a time like 2026-11-21T02:00:00Z") from None
    return from_datetime(moment, field)


def parse_duration(text: str, field: str = "duration") -> timedelta:
    """`500ms`, `30s`, `10m`, `24h`, `7d` or a sum such as `1h30m`; anything else raises `SpecError`."""
    total, position = 0.0, 0
    stripped = text.strip()
    for part in _DURATION_PART.finditer(stripped):
        if part.start() != position:
            break
        total += float(part[1]) * _DURATION_UNITS[part[2]]
        position = part.end()
    if not stripped or position != len(stripped):
        raise SpecError(field, f"{text!r} is not a duration: write 500ms, 30s, 10m, 24h, 7d or 1h30m")
    try:
        return timedelta(microseconds=round(total))
    except OverflowError:
        raise SpecError(field, f"{text!r} is too long: at most 999999999d") from None


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: `1h30m`, `10s`, `500ms`."""
    rest = to_micros(duration)
    if rest == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _DURATION_UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def to_micros(duration: timedelta) -> Micros:
    """A duration in whole microseconds."""
    return duration // _ONE
