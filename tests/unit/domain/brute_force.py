"""A second, slow opinion on cron schedules: the local calendar minute by minute, on zoneinfo's reading of the same data.

Shares nothing with the engine but the release of the time-zone database. An expression is made together with what it means,
so the grammar is checked as well.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise, product
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def zoneinfo_of(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, name)


@dataclass(frozen=True)
class Case:
    """An expression, and what it means."""

    text: str
    dialect: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    day: Callable[[date], bool]
    interval: bool


def fires(case: Case, zone: str, dst: str, first: date, last: date) -> list[int]:
    """The fires that local days first…last lead to, in epoch seconds, sorted."""
    found: set[int] = set()
    info = zoneinfo_of(zone)

    @cache  # neighbouring days look at the same hours
    def offset(instant: int) -> int:
        return int(datetime.fromtimestamp(instant, info).utcoffset().total_seconds())  # type: ignore[union-attr]

    for number in range((last - first).days + 1):
        today = first + timedelta(days=number)
        if not case.day(today):
            continue
        midnight = (today - EPOCH.date()).days * 86_400
        hourly = [(instant, offset(instant)) for instant in range(midnight - 100_800, midnight + 187_200, 3_600)]
        offsets = {shift for _, shift in hourly}
        for hour, minute, second in product(case.hours, case.minutes, case.seconds):
            reading = midnight + hour * 3_600 + minute * 60 + second
            instants = sorted(reading - o for o in offsets if len(offsets) == 1 or offset(reading - o) == o)
            if dst == "instant" or (dst == "once" and case.interval):
                found.update(instants)
            elif instants:
                found.add(instants[0])
            elif dst == "once":
                found.add(_gap_end(reading, hourly, offset))
    return sorted(found)


def _gap_end(reading: int, hourly: list[tuple[int, int]], offset: Callable[[int], int]) -> int:
    """The first instant after the gap that swallowed a reading."""
    for (low, before), (high, after) in pairwise(hourly):
        if low + before < reading < high + after and before < after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            if high + before <= reading < high + after:
                return high
    raise AssertionError(f"{reading} is in no gap")


def random_case(draw: random.Random) -> Case:
    """An expression of any dialect, with forms of every kind."""
    dialect = draw.choice(("standard", "standard", "standard", "aws", "quartz"))
    minute, minutes, stars_minute = _field(draw, 0, 59, dialect)
    hour, hours, stars_hour = _field(draw, 0, 23, dialect)
    month, months, _ = _field(draw, 1, 12, dialect) if draw.random() < 0.25 else ("*", frozenset(range(1, 13)), True)
    with_seconds = dialect == "quartz" or (dialect == "standard" and draw.random() < 0.1)
    second, seconds = draw.choice((("0", {0}), ("30", {30}), ("0,59", {0, 59}), ("*/20", {0, 20, 40})))
    days, day = _days(draw, dialect)
    fields = [minute, hour, days[0], month, days[1]]
    if with_seconds:
        fields.insert(0, second)
    if dialect == "aws":
        fields.append("*")
    return Case(
        text=" ".join(fields),
        dialect=dialect,
        seconds=frozenset(seconds if with_seconds else {0}),
        minutes=minutes,
        hours=hours,
        day=lambda today: today.month in months and day(today),
        interval=with_seconds or stars_minute or stars_hour,
    )


def _field(draw: random.Random, low: int, high: int, dialect: str) -> tuple[str, frozenset[int], bool]:
    kind = draw.choice(("star", "one", "one", "list", "range", "step", "open", "stepped"))
    everything = range(low, high + 1)
    if kind == "star":
        return "*", frozenset(everything), True
    if kind == "one":
        number = draw.choice((low, draw.randint(low, high), min(high, draw.randint(1, 3))))
        return f"{number}", frozenset({number}), False
    if kind == "list":
        numbers = draw.sample(everything, 3)
        return ",".join(map(str, numbers)), frozenset(numbers), False
    start, end = sorted(draw.sample(everything, 2))
    step = draw.randint(1, high // 2)
    if kind == "range" and dialect != "standard" and draw.random() < 0.5:
        return f"{end}-{start}", frozenset(everything) - frozenset(range(start + 1, end)), False
    if kind == "range":
        return f"{start}-{end}", frozenset(range(start, end + 1)), False
    if kind == "step":
        return f"*/{step}", frozenset(everything[::step]), True
    if kind == "open":
        return f"{start}/{step}", frozenset(range(start, high + 1, step)), False
    return f"{start}-{end}/{step}", frozenset(range(start, end + 1, step)), False


def _days(draw: random.Random, dialect: str) -> tuple[tuple[str, str], Callable[[date], bool]]:
    """Texts of day-of-month and day-of-week, and the days they mean under the robfig rule."""
    zero = 0 if dialect == "standard" else 1
    star = "*" if dialect == "standard" else "?"
    day, weekday, nth = draw.randint(1, 31), draw.randint(0, 6), draw.randint(1, 5)
    monthly: list[tuple[str, Callable[[date], bool]]] = [
        (f"{day}", lambda d: d.day == day),
        (f"{day}-31", lambda d: d.day >= day),
        ("1,15", lambda d: d.day in (1, 15)),
        ("L", lambda d: d.day == _length(d)),
        ("L-3", lambda d: d.day == _length(d) - 3),
        ("LW", lambda d: d == _nearest(d, _length(d))),
        (f"{day}W", lambda d: day <= _length(d) and d == _nearest(d, day)),
    ]
    weekly: list[tuple[str, Callable[[date], bool]]] = [
        (f"{weekday + zero}", lambda d: d.isoweekday() % 7 == weekday),
        ("MON-FRI", lambda d: d.isoweekday() <= 5),
        (f"{weekday + zero}L", lambda d: d.isoweekday() % 7 == weekday and d.day > _length(d) - 7),
        (f"{weekday + zero}#{nth}", lambda d: d.isoweekday() % 7 == weekday and (d.day + 6) // 7 == nth),
    ]
    (month_text, in_month), (week_text, in_week) = draw.choice(monthly), draw.choice(weekly)
    kind = draw.choice(("every", "every", "month", "week", "both"))
    if kind == "both" and dialect == "standard":
        return (month_text, week_text), lambda d: in_month(d) or in_week(d)
    if kind in ("month", "both"):
        return (month_text, star), in_month
    if kind == "week":
        return (star, week_text), in_week
    return ("*", star), lambda d: True


def _length(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _nearest(day: date, number: int) -> date:
    """The Monday to Friday of the month that is nearest to day `number` of it."""
    wanted = day.replace(day=number)
    month = [day.replace(day=n) for n in range(1, _length(day) + 1)]
    return min((d for d in month if d.isoweekday() <= 5), key=lambda d: abs((d - wanted).days))


def random_bases(draw: random.Random, changes: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    """(zone, instant) pairs without end: two thirds of them near an offset change, odd zones preferred."""
    odd = ("Australia/Lord_Howe", "Pacific/Apia", "Asia/Pyongyang", "Asia/Beirut", "Africa/Casablanca")
    more = ("Antarctica/Troll", "Pacific/Chatham", "America/Havana", "America/Goose_Bay", "Pacific/Kwajalein")
    names = sorted(changes)
    while True:
        zone = draw.choice(odd + more) if draw.random() < 0.25 else draw.choice(names)
        if changes[zone] and draw.random() < 0.67:
            yield zone, draw.choice(changes[zone]) + draw.choice((0, -1, 1, draw.randint(-90_000, 90_000)))
        else:
            yield zone, draw.randrange(86_400 * 1_200, 86_400 * 83_000)
