"""Compiled schedules: caches, fingerprints, speed of refusal, and what a count costs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler.domain import occurrences
from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.instants import to_datetime
from scheduler.domain.occurrences import HORIZON, build_cron, compile_schedule, tzdata_version
from scheduler.errors import BadRate, NeverFires


def fingerprint(expression: str, timezone: str = "UTC", **options: Any) -> str:
    return compile_schedule(Cron(expression, timezone, **options)).fingerprint


def test_two_spellings_of_one_schedule_have_one_fingerprint() -> None:
    assert (
        fingerprint("0 0 * * 0") == fingerprint("@weekly") == fingerprint("0 0 * * SUN") == fingerprint("0 0 0 * * 7")
    )
    assert fingerprint("cron(0 2 * * ? *)") == fingerprint("0 2 * * *")
    # Where clocks never change the policy cannot matter.
    assert fingerprint("0 2 * * *") == fingerprint("0 2 * * *", dst="instant")


def test_whatever_can_change_the_fires_changes_the_fingerprint() -> None:
    prints = [
        fingerprint("0 2 * * *"),
        fingerprint("1 2 * * *"),
        fingerprint("0 2 * * *", "Europe/Paris"),
        fingerprint("0 2 * * *", "Europe/Paris", dst="instant"),
        fingerprint("0 2 * * *", "Europe/Paris", dst="skip_once"),
        fingerprint("0 2 */2 * 1"),
        fingerprint("0 2 */2 * 1", day_rule="debian"),
        fingerprint("cron(0 2 * * ? 2030)"),
        compile_schedule(FixedRate(5, "minute"), anchor=7).fingerprint,
        compile_schedule(FixedRate(5, "minute"), anchor=8).fingerprint,
        compile_schedule(FixedRate(6, "minute"), anchor=7).fingerprint,
        compile_schedule(At(to_datetime(0))).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 16 for text in prints)


def test_compiled_schedules_come_from_bounded_caches() -> None:
    assert compile_schedule(Cron("0 2 * * *")) is compile_schedule(Cron("0 2 * * *"), identity="p/d/t/n")
    assert compile_schedule(Cron("0 2 * * THU"), identity="a") is compile_schedule(Cron("0 2 * * THU"), identity="b")
    assert compile_schedule(Cron("H 2 * * *"), identity="a") is not compile_schedule(Cron("H 2 * * *"), identity="b")
    assert occurrences._compile_cron.cache_info().maxsize is not None


@pytest.mark.parametrize(
    "expression", ["0 0 31 2 *", "0 0 30 2 ?", "0 0 31 4,6,9,11 *", "0 0 29W 2 ? 2023", "0 0 ? 2 1#5 2027"]
)
def test_an_unsatisfiable_expression_is_refused_at_once(expression: str) -> None:
    started = time.process_time()
    with pytest.raises(NeverFires):
        build_cron(expression, "Europe/Paris", "auto", "robfig", "once")
    assert time.process_time() - started < 0.05


def test_counting_two_centuries_of_seconds_does_not_walk_them() -> None:
    schedule = compile_schedule(Cron("* * * * * *", "Europe/Paris"))
    started = time.process_time()
    assert schedule.count(-1, HORIZON) == HORIZON
    assert time.process_time() - started < 0.5


def test_a_leap_day_of_2104_is_not_missed() -> None:
    schedule = compile_schedule(Cron("0 0 29 2 *"))
    leap_days = [int(datetime(year, 2, 29, tzinfo=UTC).timestamp()) for year in (2096, 2104)]  # 2100 has none
    assert schedule.next_after(leap_days[0]) == leap_days[1]
    assert schedule.previous_before(leap_days[1]) == leap_days[0]


def test_nothing_fires_outside_1970_to_2199() -> None:
    schedule = compile_schedule(Cron("0 0 * * *"))
    assert schedule.next_after(-(10**12)) == 0
    assert schedule.next_after(HORIZON - 86_401) == HORIZON - 86_400
    assert schedule.next_after(HORIZON - 86_400) is None
    assert schedule.previous_before(10**12) == HORIZON - 86_400
    assert schedule.previous_before(0) is None
    assert schedule.count(5, 5) == schedule.count(9, 5) == 0


def test_the_edges_of_the_horizon_are_reached_from_every_zone() -> None:
    for zone in ("Etc/GMT-14", "Etc/GMT+12", "Australia/Brisbane", "America/New_York"):
        schedule = compile_schedule(Cron("0 * * * *", zone))
        assert schedule.next_after(-1) == 0
        assert schedule.previous_before(HORIZON) == HORIZON - 3_600


def test_a_rate_keeps_its_phase_for_ever() -> None:
    schedule = compile_schedule(FixedRate(7, "minute"), anchor=1_767_225_600)
    assert schedule.next_after(0) == 1_767_225_600 + 420
    assert schedule.next_after(4_000_000_000) == 1_767_225_600 + ((4_000_000_000 - 1_767_225_600) // 420 + 1) * 420
    assert schedule.count(0, 1_767_225_600) == 0
    assert schedule.count(1_767_225_600, 1_767_225_600 + 42_000) == 100
    with pytest.raises(BadRate):
        compile_schedule(FixedRate(7, "minute"))


def test_a_start_before_1970_keeps_its_phase() -> None:
    schedule = compile_schedule(FixedRate(1, "hour", to_datetime(-1_000_000)))
    assert schedule.next_after(-1) == 3_599
    assert schedule.previous_before(3_599) is None


def test_threads_may_share_a_schedule() -> None:
    schedule = build_cron("*/7 3 * * 1-5", "America/New_York", "auto", "robfig", "once")
    starts = [number * 40_000_000 for number in range(180)]
    expected = [list(_first(schedule, start)) for start in starts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda start: list(_first(schedule, start)), starts)) == expected


def _first(schedule: Any, t: int) -> list[int]:
    fires = []
    for _ in range(50):
        t = schedule.next_after(t)
        fires.append(t)
    return fires


def test_the_release_of_the_zone_data_is_known() -> None:
    assert tzdata_version()[:4].isdigit()
