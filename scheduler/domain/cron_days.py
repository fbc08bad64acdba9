"""Which days of a year a cron expression matches, as one bit per day.

The Gregorian calendar knows only fourteen years: leap or not, beginning on one of seven weekdays. One integer of 366
bits each, made when first asked for, answers every question about days from 1970 to 2199.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Final

from scheduler.domain.cron_fields import CronFields, FieldSet

# Local days reach one past each end of the horizon: zones are up to a day away from UTC.
BASE_YEAR: Final = 1969
END_YEAR: Final = 2201
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

JANUARY_FIRST: Final[tuple[int, ...]] = tuple(
    date(year, 1, 1).toordinal() - _EPOCH_ORDINAL for year in range(BASE_YEAR, END_YEAR + 1)
)
"""Days since 1970-01-01 of each 1 January, from BASE_YEAR on."""

_LENGTHS: Final = (
    (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
    (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
)


def _year_type(index: int) -> int:
    first, following = JANUARY_FIRST[index], JANUARY_FIRST[index + 1]
    weekday = (first + 4) % 7  # 1970-01-01 was a Thursday; Sunday is 0
    return weekday + (7 if following - first == 366 else 0)


YEAR_TYPES: Final[tuple[int, ...]] = tuple(_year_type(index) for index in range(END_YEAR - BASE_YEAR))
"""For each year from BASE_YEAR on, which of the fourteen it is: weekday of 1 January, plus 7 in leap years."""


class DayTable:
    """The days that one combination of months and days matches, for each of the fourteen years."""

    __slots__ = ("_both", "_dom", "_dow", "_masks", "_months")

    def __init__(self, months: int, dom: FieldSet, dow: FieldSet, both: bool) -> None:
        self._months = months
        self._dom = dom
        self._dow = dow
        self._both = both
        self._masks: list[int | None] = [None] * 14

    def mask(self, year_type: int) -> int:
        """Bit n is set if day n of such a year, counted from 0, matches."""
        known = self._masks[year_type]
        if known is None:
            known = self._masks[year_type] = self._build(year_type)
        return known

    def _build(self, year_type: int) -> int:
        leap, weekday = divmod(year_type, 7)
        days, first = 0, 0
        for month, length in enumerate(_LENGTHS[leap], start=1):
            if self._months >> month & 1:
                days |= self._month(length, (weekday + first) % 7) << first
            first += length
        return days

    def _month(self, length: int, weekday: int) -> int:
        """The days of a month that begins on `weekday`; bit 0 is the first."""
        dom, dow = self._dom.mask >> 1, _WEEKS[self._dow.mask] >> weekday
        for kind, number, _ in self._dom.specials:
            dom |= _day_of_month(kind, number, length, weekday)
        for _, day, nth in self._dow.specials:
            dow |= _day_of_week(day, nth, length, weekday)
        return (dom & dow if self._both else dom | dow) & ((1 << length) - 1)


# Each set of weekdays as a row of six weeks that begins on a Sunday.
_WEEKS: Final = tuple(sum(days << 7 * week for week in range(6)) for days in range(128))


def _day_of_month(kind: str, number: int, length: int, weekday: int) -> int:
    day = number if kind == "W" else length - number
    if not 1 <= day <= length:
        return 0
    if kind == "L":
        return 1 << (day - 1)
    # The nearest Monday to Friday of the same month.
    on = (weekday + day - 1) % 7
    if on == 6:
        day += 2 if day == 1 else -1
    elif on == 0:
        day += -2 if day == length else 1
    return 1 << (day - 1)


def _day_of_week(day: int, nth: int, length: int, weekday: int) -> int:
    first = (day - weekday) % 7
    if nth == 0:
        # Quartz: a bare L is every last day of a week.
        return _WEEKS[1 << day] >> weekday
    if nth > 0:
        return 1 << (first + 7 * (nth - 1))
    return 1 << (first + 7 * ((length - 1 - first) // 7))


@lru_cache(maxsize=2048)
def _shared(months: int, dom: FieldSet, dow: FieldSet, both: bool) -> DayTable:
    return DayTable(months, dom, dow, both)


def day_table(fields: CronFields, day_rule: str) -> DayTable:
    """The days of an expression under `robfig` or `debian`; expressions with the same days share one table."""
    dom, dow = fields.day_of_month, fields.day_of_week
    both = dom.leads or dow.leads if day_rule == "debian" else dom.star or dow.star
    return _shared(fields.months, dom, dow, both)
