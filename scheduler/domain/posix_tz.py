"""The rule at the end of a zone file: how clocks change for ever after, such as `CET-1CEST,M3.5.0,M10.5.0/3`."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

_NAME: Final = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+\-]+>)"
_TIME: Final = r"[+\-]?\d{1,3}(?::\d{1,2}(?::\d{1,2})?)?"
_RULE: Final = re.compile(rf"{_NAME}({_TIME})(?:{_NAME}({_TIME})?,([^,/]+)(?:/({_TIME}))?,([^,/]+)(?:/({_TIME}))?)?")
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY: Final = 86_400


def future_changes(rule: str, after: int, until: int) -> list[tuple[int, int]]:
    """(instant, offset from then on) of every change in (after, until), epoch seconds; empty where clocks stay put."""
    parts = _RULE.fullmatch(rule)
    if parts is None or parts[3] is None:
        return []
    # POSIX counts offsets westwards.
    standard = -_seconds(parts[1])
    summer = -_seconds(parts[2]) if parts[2] else standard + 3_600
    begins, ends = (parts[3], _seconds(parts[4] or "2")), (parts[5], _seconds(parts[6] or "2"))
    changes: list[tuple[int, int]] = []
    for year in range(_year(after) - 1, _year(until) + 2):
        for (day, time), before, following in ((begins, standard, summer), (ends, summer, standard)):
            instant = _day_of(day, year) * _DAY + time - before
            if after < instant < until:
                changes.append((instant, following))
    return sorted(changes)


def _year(instant: int) -> int:
    return date.fromordinal(instant // _DAY + _EPOCH_ORDINAL).year


def _seconds(text: str) -> int:
    sign = -1 if text[0] == "-" else 1
    hours, minutes, seconds = (*(int(part) for part in text.lstrip("+-").split(":")), 0, 0)[:3]
    return sign * (hours * 3_600 + minutes * 60 + seconds)


def _day_of(text: str, year: int) -> int:
    """Days since 1970-01-01 of `M3.5.0` (last Sunday of March), `J60` (29 February not counted) or `59` (counted)."""
    first = date(year, 1, 1).toordinal() - _EPOCH_ORDINAL
    if text[0] == "J":
        number = int(text[1:])
        leap = date(year, 12, 31).timetuple().tm_yday == 366
        return first + number - 1 + (leap and number >= 60)
    if text[0] != "M":
        return first + int(text)
    month, week, weekday = (int(part) for part in text[1:].split("."))
    start = date(year, month, 1).toordinal()
    following = date(year + month // 12, month % 12 + 1, 1).toordinal()
    day = start + (weekday - start) % 7  # an ordinal divisible by 7 is a Sunday
    day += 7 * (week - 1)
    while day >= following:
        day -= 7
    return day - _EPOCH_ORDINAL
