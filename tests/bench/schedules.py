"""How fast schedules are, beside croniter and cronsim in one and the same run: `python -m tests.bench.schedules`.

Ratios are what to look at: figures in microseconds drift with the machine, and all columns drift together.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim
from rich.console import Console
from rich.table import Table

from scheduler.domain import cron_days, cron_fields, cron_times, occurrences
from scheduler.domain.automation import Cron
from scheduler.domain.zones import zone_of
from scheduler.errors import SpecError

TYPICAL = (
    ("*/5 * * * *", "Europe/Paris"),
    ("0 9 * * 1-5", "America/New_York"),
    ("30 2 * * *", "Europe/Berlin"),
    ("0 0 1 * *", "Asia/Tokyo"),
    ("15 */6 * * *", "Australia/Sydney"),
)
RARE = (("0 0 1 1 *", "Europe/Paris"), ("0 0 29 2 *", "America/New_York"))
START = 1_767_225_600  # 2026-01-01
ROUNDS = 5


def microseconds(work: Callable[[int], None], steps: int) -> float:
    """The best of some rounds, for one step."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work(steps)
        best = min(best, time.perf_counter() - started)
    return best / steps * 1e6


def core(expression: str, zone: str) -> Callable[[int], None]:
    following = occurrences.compile_schedule(Cron(expression, zone)).next_after

    def work(steps: int) -> None:
        t = START
        for _ in range(steps):
            t = following(t) or START

    return work


def public(expression: str, zone: str) -> Callable[[int], None]:
    cron, start = Cron(expression, zone), datetime.fromtimestamp(START, UTC)

    def work(steps: int) -> None:
        t = start
        for _ in range(steps):
            t = cron.next_after(t) or start

    return work


def by_croniter(expression: str, zone: str) -> Callable[[int], None]:
    other = croniter(expression, datetime.fromtimestamp(START, ZoneInfo(zone)), ret_type=datetime)

    def work(steps: int) -> None:
        for _ in range(steps):
            other.get_next()

    return work


def by_cronsim(expression: str, zone: str) -> Callable[[int], None]:
    def work(steps: int) -> None:
        other = CronSim(expression, datetime.fromtimestamp(START, ZoneInfo(zone)))
        for _ in range(steps):
            next(other)

    return work


def stepping(console: Console) -> None:
    table = Table(title="One step, µs (times faster than croniter's stateful get_next)")
    for column in ("expression", "zone", "core", "datetimes", "croniter", "cronsim"):
        table.add_column(column, justify="left" if column in ("expression", "zone") else "right")
    for expression, zone in TYPICAL + RARE:
        few = 20 if (expression, zone) in RARE else 1_500
        ours, dates = microseconds(core(expression, zone), 20_000), microseconds(public(expression, zone), 10_000)
        theirs, sim = microseconds(by_croniter(expression, zone), few), microseconds(by_cronsim(expression, zone), few)
        table.add_row(
            expression,
            zone,
            f"{ours:.2f} ({theirs / ours:.0f}×)",
            f"{dates:.2f} ({theirs / dates:.0f}×)",
            f"{theirs:.1f}",
            f"{sim:.1f}",
        )
    console.print(table)


def distinct_expressions(count: int) -> list[tuple[str, str]]:
    draw = random.Random(7)
    zones = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Sydney", "America/Sao_Paulo")
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        minute = draw.choice(
            ("*", "*/5", "*/15", str(draw.randrange(60)), f"{draw.randrange(30)},{30 + draw.randrange(30)}")
        )
        hour = draw.choice(("*", "*/2", "9-17", str(draw.randrange(24)), str(draw.randrange(24))))
        days = draw.choice(("* *", "* *", "* 1-5", "1 *", "L *", "* 1#1", f"{draw.randint(1, 28)} *"))
        dom, dow = days.split()
        found[f"{minute} {hour} {dom} * {dow}", draw.choice(zones)] = None
    return list(found)


def a_million(console: Console) -> None:
    schedules = [occurrences.compile_schedule(Cron(*pair)) for pair in distinct_expressions(200)]

    def work(steps: int) -> None:
        for schedule in schedules:
            t, following = START, schedule.next_after
            for _ in range(steps // len(schedules)):
                t = following(t) or START

    took = microseconds(work, 1_000_000)
    console.print(f"A million next-fires over 200 expressions: {took:.2f} s")


def construction(console: Console) -> None:
    pairs = distinct_expressions(200)
    for name in {zone for _, zone in pairs}:
        zone_of(name)

    def cached(steps: int) -> None:
        for number in range(steps):
            Cron(*pairs[number % len(pairs)])

    def built(steps: int) -> None:
        for number in range(steps):
            occurrences.build_cron(*pairs[number % len(pairs)], "auto", "robfig", "once")

    def cold(steps: int) -> None:
        for number in range(steps):
            for cache in (
                *(cron_fields._parse_field, cron_days._shared),
                *(cron_times._numbers, cron_times._within_hour),
            ):
                cache.cache_clear()
            occurrences.build_cron(*pairs[number % len(pairs)], "auto", "robfig", "once")

    def theirs(steps: int) -> None:
        for number in range(steps):
            croniter(pairs[number % len(pairs)][0], START)

    for cache_name, work in (
        ("Cron(…), seen before", cached),
        ("past the cache of schedules", built),
        ("past every cache but that of zones", cold),
        ("croniter(…)", theirs),
    ):
        console.print(f"Construction, {cache_name}: {microseconds(work, 400):.1f} µs")


def refusal(console: Console) -> None:
    worst = 0.0
    for expression in ("0 0 31 2 *", "* * 30 2 ?", "0 0 31 4,6,9,11 *", "cron(0 0 ? 2 1#5 2027)"):
        started = time.perf_counter()
        try:
            occurrences.build_cron(expression, "Europe/Paris", "auto", "robfig", "once")
        except SpecError:
            worst = max(worst, time.perf_counter() - started)
    console.print(f"An unsatisfiable expression is refused within {worst * 1e3:.2f} ms")


def main() -> int:
    console = Console(width=110)
    stepping(console)
    a_million(console)
    construction(console)
    refusal(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
