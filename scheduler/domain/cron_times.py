"""The local wall-clock times that a cron expression matches: days of the calendar × times of the day.

Readings are local seconds: what a wall clock shows, counted from its 1970-01-01T00:00:00 as if there were no zones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from scheduler.domain.cron_days import BASE_YEAR, END_YEAR, JANUARY_FIRST, YEAR_TYPES, DayTable
from scheduler.domain.cron_fields import FIRST_YEAR

_DAY: Final = 86_400
_YEARS: Final = END_YEAR - BASE_YEAR
_FIRST_DAY: Final = JANUARY_FIRST[0]
_END_DAY: Final = JANUARY_FIRST[-1]


@lru_cache(maxsize=128)
def _numbers(mask: int) -> tuple[int, ...]:
    numbers = []
    while mask:
        numbers.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return tuple(numbers)


@lru_cache(maxsize=512)
def _within_hour(minutes: int, seconds: int) -> Sequence[int]:
    """The matching seconds of an hour, sorted; a range where that saves a list of up to 3,600 numbers."""
    if minutes == seconds == (1 << 60) - 1:
        return range(3_600)
    return tuple([minute * 60 + second for minute in _numbers(minutes) for second in _numbers(seconds)])


class LocalTimes:
    """An ordered set of local readings: the next, the previous, and how many in a stretch."""

    __slots__ = (
        "_cumulative",
        "_days",
        "_earliest",
        "_hours",
        "_last",
        "_latest",
        "_within",
        "_year",
        "_years",
    )

    def __init__(self, days: DayTable, hours: int, minutes: int, seconds: int, years: int | None) -> None:
        self._days = days
        self._hours = hours
        # Bit n stands for BASE_YEAR + n; without a year field every year of the horizon and its edges counts.
        self._years = (1 << _YEARS) - 1 if years is None else years << (FIRST_YEAR - BASE_YEAR)
        self._within = _within_hour(minutes, seconds)
        self._last = self._within[-1]
        self._earliest = (hours & -hours).bit_length() * 3_600 - 3_600 + self._within[0]
        self._latest = (hours.bit_length() - 1) * 3_600 + self._last
        self._cumulative: list[int] | None = None
        # The year last asked about: (first day, day after its last, mask). One tuple: threads see all of it or nothing.
        self._year = (0, 0, 0)

    def after(self, reading: int) -> int | None:
        """The first member later than `reading`."""
        day = reading // _DAY
        first, end, mask = self._year
        if not first <= day < end:
            if day < _FIRST_DAY:
                return self._first_from(0)
            if day >= _END_DAY:
                return None
            first, end, mask = self._turn_to(day)
        days = mask >> (day - first)
        if days & 1:
            second = reading - day * _DAY
            if second < self._latest:
                hour = second // 3_600
                if self._hours >> hour & 1:
                    rest = second - hour * 3_600
                    if rest < self._last:
                        within = self._within
                        return reading - rest + within[bisect_right(within, rest)]
                later = self._hours >> (hour + 1)
                return day * _DAY + (hour + (later & -later).bit_length()) * 3_600 + self._within[0]
        days >>= 1
        if days:
            return (day + (days & -days).bit_length()) * _DAY + self._earliest
        return self._first_from(bisect_right(JANUARY_FIRST, first))

    def before(self, reading: int) -> int | None:
        """The last member earlier than `reading`."""
        day = reading // _DAY
        first, end, mask = self._year
        if not first <= day < end:
            if day < _FIRST_DAY:
                return None
            if day >= _END_DAY:
                return self._last_until(_YEARS - 1)
            first, end, mask = self._turn_to(day)
        number = day - first
        if mask >> number & 1:
            second = reading - day * _DAY
            if second > self._earliest:
                hour = second // 3_600
                if self._hours >> hour & 1:
                    rest = second - hour * 3_600
                    if rest > self._within[0]:
                        return reading - rest + self._within[bisect_left(self._within, rest) - 1]
                earlier = self._hours & ((1 << hour) - 1)
                return day * _DAY + (earlier.bit_length() - 1) * 3_600 + self._last
        days = mask & ((1 << number) - 1)
        if days:
            return (first + days.bit_length() - 1) * _DAY + self._latest
        return self._last_until(bisect_right(JANUARY_FIRST, first) - 2)

    def count(self, start: int, end: int) -> int:
        """How many members lie in start ≤ reading < end."""
        return self._below(end) - self._below(start) if start < end else 0

    def key(self) -> tuple[object, ...]:
        """What the set is made of: equal keys, equal sets. An hour-long range and its tuple count as the same."""
        masks = [0] * 14
        years = self._years
        for index in range(_YEARS):
            if years >> index & 1:
                masks[YEAR_TYPES[index]] = self._days.mask(YEAR_TYPES[index])
        return tuple(masks), years, self._hours, tuple(self._within)

    def _turn_to(self, day: int) -> tuple[int, int, int]:
        index = bisect_right(JANUARY_FIRST, day) - 1
        mask = self._days.mask(YEAR_TYPES[index]) if self._years >> index & 1 else 0
        self._year = year = (JANUARY_FIRST[index], JANUARY_FIRST[index + 1], mask)
        return year

    def _first_from(self, index: int) -> int | None:
        years = self._years >> index
        while years:
            skipped = (years & -years).bit_length() - 1
            index += skipped
            days = self._days.mask(YEAR_TYPES[index])
            if days:
                return (JANUARY_FIRST[index] + (days & -days).bit_length() - 1) * _DAY + self._earliest
            index += 1
            years >>= skipped + 1
        return None

    def _last_until(self, index: int) -> int | None:
        years = self._years & ((1 << (index + 1)) - 1) if index >= 0 else 0
        while years:
            index = years.bit_length() - 1
            days = self._days.mask(YEAR_TYPES[index])
            if days:
                return (JANUARY_FIRST[index] + days.bit_length() - 1) * _DAY + self._latest
            years &= (1 << index) - 1
        return None

    def _below(self, reading: int) -> int:
        """How many members are earlier than `reading`."""
        day, second = divmod(reading, _DAY)
        if day < _FIRST_DAY:
            return 0
        cumulative = self._cumulative or self._sum_up()
        within = len(self._within)
        a_day = self._hours.bit_count() * within
        if day >= _END_DAY:
            return cumulative[-1] * a_day
        first, end, mask = self._year
        index = bisect_right(JANUARY_FIRST, day) - 1
        if not first <= day < end:
            first, _, mask = self._turn_to(day)
        number = day - first
        total = (cumulative[index] + (mask & ((1 << number) - 1)).bit_count()) * a_day
        if mask >> number & 1:
            hour, rest = divmod(second, 3_600)
            total += (self._hours & ((1 << hour) - 1)).bit_count() * within
            if self._hours >> hour & 1:
                total += bisect_left(self._within, rest)
        return total

    def _sum_up(self) -> list[int]:
        """Matching days before each year: made once, when first counted."""
        total, sums = 0, [0]
        for index in range(_YEARS):
            if self._years >> index & 1:
                total += self._days.mask(YEAR_TYPES[index]).bit_count()
            sums.append(total)
        self._cumulative = sums
        return sums
