"""The texts of schedules that are no cron: `@every 1h30m`, `rate(5 minutes)`, `at(2026-11-21T12:00:00)`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Final

from scheduler.domain.instants import parse_rfc3339
from scheduler.errors import BadRate, SpecError

_UNITS: Final = {
    "ns": Fraction(1, 1_000_000_000),
    "us": Fraction(1, 1_000_000),
    "µs": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1_000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3_600),
    "d": Fraction(86_400),
}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_RATE: Final = re.compile(r"rate\(\s*(\S+)\s+([A-Za-z]+?)s?\s*\)(?:\s+from\s+(\S+))?", re.ASCII)
_AT: Final = re.compile(r"at\((.*)\)")
_LONGEST: Final = 100


def parse_every(text: str, *, exact: bool = False) -> tuple[int, str]:
    """A duration such as `1h30m` as (90, "minute"): the largest unit that divides it.

    Fractions of a second are cut off, with at least one second left; under `exact` they are refused instead.
    """
    stripped = text.strip()
    if not stripped or len(stripped) > _LONGEST or not _WHOLE.fullmatch(stripped):
        raise BadRate("every", f"{text!r} is not a duration: write 30s, 10m, 24h, 7d or 1h30m")
    total = sum((Fraction(part[1]) * _UNITS[part[2]] for part in _PART.finditer(stripped)), Fraction(0))
    if exact and (total.denominator != 1 or total <= 0):
        raise BadRate("every", f"{text!r} is not a whole, positive number of seconds")
    seconds = max(1, int(total))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0:
            return seconds // size, unit
    return seconds, "second"


def parse_rate(text: str) -> tuple[int, str, int | None] | None:
    """(value, unit, start in epoch microseconds or None) of `@every …` and `rate(…)`; None if the text is neither."""
    if text.startswith("@every") and (len(text) == 6 or text[6].isspace()):
        return *parse_every(text[6:]), None
    if not text.startswith("rate("):
        return None
    rate = _RATE.fullmatch(text)
    if rate is None:
        raise BadRate("rate", f"{text!r} is not like rate(5 minutes)")
    value, unit = rate[1], rate[2].lower()
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise BadRate("rate", f"{value!r} is not a positive whole number")
    if unit not in ("second", "minute", "hour", "day"):
        raise BadRate("rate", f"{rate[2]!r} is none of second, minute, hour, day")
    return int(value), unit, None if rate[3] is None else parse_rfc3339(rate[3], "rate")


def parse_at(text: str) -> datetime | None:
    """The moment of `at(…)`, naive where the text has no offset; None if the text is something else."""
    at = _AT.fullmatch(text)
    if at is None:
        return None
    try:
        return datetime.fromisoformat(at[1].strip())
    except ValueError:
        raise SpecError("at", f"{at[1]!r} is not a time like 2026-11-21T12:00:00") from None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say about a key nobody reads, with the nearest known one."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"is unknown: did you mean {near[0]}?" if near else f"is unknown: known are {', '.join(names)}"
