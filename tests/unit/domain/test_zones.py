"""Zone data: right at every instant, and nobody else's business."""

from __future__ import annotations

import random
import sys
import zoneinfo
from datetime import timedelta

import pytest

from scheduler.domain.occurrences import HORIZON
from scheduler.domain.posix_tz import future_changes
from scheduler.domain.zones import tzdata_version, zone_names, zone_of
from scheduler.errors import UnknownTimezone
from tests.unit.domain.brute_force import EPOCH, zoneinfo_of


def test_offsets_are_those_that_zoneinfo_reads_from_the_same_data() -> None:
    draw = random.Random(5)
    for name in sorted(zone_names()):
        zone, info = zone_of(name), zoneinfo_of(name)
        instants = [draw.randrange(HORIZON) for _ in range(10)]
        instants += [change + shift for change in zone.ends[:-1] for shift in (-1, 0, 3_601) if draw.random() < 0.05]
        for instant in instants:
            if 0 <= instant < HORIZON:
                offset = (EPOCH + timedelta(seconds=instant)).astimezone(info).utcoffset()
                assert offset == timedelta(seconds=zone.offset_at(instant)), (name, instant)


def test_a_reading_shown_twice_has_a_first_and_a_last_instant() -> None:
    paris = zone_of("Europe/Paris")
    half_past_two = 1_792_895_400  # 2026-10-25 02:30 on the clock
    assert paris.latest(half_past_two) - paris.earliest(half_past_two) == 3_600
    jumped_over = 1_774_751_400  # 2026-03-29 02:30 on the clock
    assert paris.earliest(jumped_over) - paris.latest(jumped_over) == 1


def test_a_day_that_a_zone_jumped_over_has_no_instant() -> None:
    apia = zone_of("Pacific/Apia")
    midnight = 15_338 * 86_400  # 2011-12-30
    assert apia.latest(midnight + 86_399) < apia.earliest(midnight)


@pytest.mark.parametrize("name", ["", "Nowhere", "Europe/paris", "/etc/passwd", "../zones", "Europe", "posixrules"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownTimezone):
        zone_of(name)


def test_zoneinfo_is_left_as_it_was() -> None:
    before = zoneinfo.TZPATH
    zone_of("Europe/Paris")
    assert before == zoneinfo.TZPATH
    assert tzdata_version() == sys.modules["tzdata"].IANA_VERSION


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("UTC0", []),
        ("", []),
        ("CET-1CEST,M3.5.0,M10.5.0/3", [(1_774_746_000, 7_200), (1_792_890_000, 3_600)]),
        # Days of the year, with and without 29 February, and times beyond a day.
        ("AAA0BBB,J60/0,J300/0", [(1_772_323_200, 3_600), (1_793_059_200 - 3_600, 0)]),
        ("AAA0BBB,59/24,299/-1", [(1_772_323_200 + 86_400, 3_600), (1_793_059_200 - 7_200, 0)]),
    ],
)
def test_the_rule_for_ever_after_is_read(rule: str, changes: list[tuple[int, int]]) -> None:
    first, last = 1_767_225_600, 1_798_761_599  # 2026
    assert future_changes(rule, first, last) == changes


def test_a_zone_is_cut_into_stretches_in_order() -> None:
    for name in ("Africa/Casablanca", "Antarctica/Troll", "Pacific/Apia", "Asia/Pyongyang", "UTC"):
        zone = zone_of(name)
        assert len(zone.knots) == len(zone.starts) - 1
        for number, knot in enumerate(zone.knots):
            assert knot[0].start == zone.ends[number]
            assert knot[-1].end == zone.starts[number + 1]
            assert zone.local_ends[number] < zone.local_starts[number + 1]
