"""The engine against the brute-force evaluator, over all zones."""

from __future__ import annotations

import os
import random
from datetime import timedelta

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.occurrences import compile_schedule
from scheduler.domain.zones import zone_names, zone_of
from scheduler.errors import NeverFires
from tests.unit.domain.brute_force import EPOCH, Case, fires, random_bases, random_case, zoneinfo_of

QUICK = int(os.environ.get("SCHEDULER_BRUTE_FORCE_CASES", "400"))
SEED = int(os.environ.get("SCHEDULER_BRUTE_FORCE_SEED", "20261121"))
FULL = 20_000
# Whole local days around the base; the outermost are left out of the comparison, as zones move readings by up to a day.
MARGIN = timedelta(days=3)


def changes_of_all_zones() -> dict[str, list[int]]:
    return {
        name: [change for change in zone_of(name).ends[:-1] if 86_400 * 1_200 < change < 86_400 * 83_000]
        for name in zone_names()
    }


def agree(cases: int, seed: int) -> None:
    draw = random.Random(seed)
    bases = random_bases(draw, changes_of_all_zones())
    compared = 0
    for _ in range(cases):
        zone, base = next(bases)
        compared += check(random_case(draw), zone, base, draw.choice(("once", "instant", "skip_once")))
    assert compared > cases


def check(case: Case, zone: str, base: int, dst: str) -> int:
    """Compares all that lies around one base; how many fires that was."""
    day = (EPOCH + timedelta(seconds=base)).astimezone(zoneinfo_of(zone)).date()
    days = 60 if len(case.minutes) * len(case.hours) < 100 else 4
    expected = fires(case, zone, dst, day - MARGIN, day + MARGIN + timedelta(days=days))
    start = base - 2 * 86_400 + 43_200
    end = base + days * 86_400
    expected = [fire for fire in expected if start < fire <= end]
    what = f"Cron({case.text!r}, {zone!r}, dialect={case.dialect!r}, dst={dst!r}) around {base}"
    try:
        cron = Cron(case.text, zone, dialect=case.dialect, dst=dst)  # type: ignore[arg-type]
    except NeverFires:
        assert not expected, what
        return 0
    schedule = compile_schedule(cron)
    assert list(schedule.between(start, end)) == expected, what
    assert schedule.count(start, end) == len(expected), what
    after = [fire for fire in expected if fire > base]
    following = schedule.next_after(base)
    assert following == after[0] if after else following is None or following > end, what
    backwards: list[int] = []
    previous = schedule.previous_before(end + 1)
    while previous is not None and previous > start and len(backwards) <= 300:
        backwards.append(previous)
        previous = schedule.previous_before(previous)
    assert backwards == expected[::-1][: len(backwards)], what
    assert len(backwards) == min(len(expected), 301), what
    return len(expected)


def test_hundreds_of_random_schedules_fire_as_the_brute_force_evaluator_says() -> None:
    agree(QUICK, SEED)


@pytest.mark.heavy
@pytest.mark.parametrize("part", range(10))
def test_twenty_thousand_random_schedules_fire_as_the_brute_force_evaluator_says(part: int) -> None:
    agree(FULL // 10, SEED + 1 + part)
