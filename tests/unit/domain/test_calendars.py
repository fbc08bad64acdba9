"""Blackout dates."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar, with_calendars
from scheduler.domain.occurrences import HORIZON, bounded, compile_schedule
from scheduler.domain.simple_schedules import fingerprint_of
from scheduler.errors import SpecError


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def days(*texts: str) -> frozenset[date]:
    return frozenset(date.fromisoformat(text) for text in texts)


def month(schedule: Any, start: str = "2026-12-20T00:00", end: str = "2027-01-05T00:00") -> list[str]:
    fires = list(schedule.between(at(start), at(end)))
    assert schedule.count(at(start), at(end)) == len(fires)
    backwards, fire = [], schedule.previous_before(at(end) + 1)
    while fire is not None and fire > at(start):
        backwards.append(fire)
        fire = schedule.previous_before(fire)
    assert backwards[::-1] == fires
    return [datetime.fromtimestamp(fire, UTC).strftime("%m-%dT%H:%M") for fire in fires]


def test_skip_marks_slots_and_moves_none() -> None:
    daily = compile_schedule(Cron("0 2 * * *", "Europe/Paris"))
    quiet = with_calendars(daily, [Calendar("holidays", days("2026-12-25"))], "Europe/Paris")
    slots = list(quiet.between(at("2026-12-24T00:00"), at("2026-12-26T12:00")))
    assert [quiet.is_blackout(slot) for slot in slots] == [False, True, False]


def test_a_blackout_day_is_a_day_of_the_trigger_s_zone() -> None:
    late = compile_schedule(Cron("0 23 * * *", "UTC"))
    quiet = with_calendars(late, [Calendar("holidays", days("2026-12-25"))], "Asia/Tokyo")
    # 23:00 UTC on the 24th is 08:00 on the 25th in Tokyo.
    assert quiet.is_blackout(at("2026-12-24T23:00"))
    assert not quiet.is_blackout(at("2026-12-25T23:00"))


def test_previous_moves_to_the_last_free_day_at_the_same_time() -> None:
    weekly = compile_schedule(Cron("30 6 * * 5"))
    calendar = Calendar("holidays", days("2026-12-24", "2026-12-25", "2027-01-01"), "previous")
    moved = with_calendars(weekly, [calendar])
    assert month(moved) == ["12-23T06:30", "12-31T06:30"]


def test_next_moves_to_the_next_free_day_and_slots_that_meet_are_one() -> None:
    daily = compile_schedule(Cron("0 12 * * *"))
    moved = with_calendars(daily, [Calendar("holidays", days("2026-12-25", "2026-12-26"), "next")])
    expected = [f"12-{day}T12:00" for day in (20, 21, 22, 23, 24, 27, 28, 29, 30, 31)]
    assert month(moved, end="2026-12-31T23:00") == expected


def test_no_slot_moves_onto_another_calendar_s_day() -> None:
    weekly = compile_schedule(Cron("0 12 * * 5"))
    calendars = [Calendar("a", days("2026-12-25"), "next"), Calendar("b", days("2026-12-26"), "skip")]
    assert month(with_calendars(weekly, calendars), end="2026-12-31T00:00") == ["12-27T12:00"]


def test_a_moved_slot_keeps_its_local_time_over_an_offset_change() -> None:
    daily = compile_schedule(Cron("30 8 * * 6", "Europe/Paris"))
    # Clocks went forward in the night to the 29th.
    moved = with_calendars(daily, [Calendar("x", days("2026-03-28"), "next")], "Europe/Paris")
    assert month(moved, "2026-03-22T00:00", "2026-03-31T00:00") == ["03-29T06:30"]


def test_a_rate_within_blackout_days_moves_as_a_whole() -> None:
    hourly = compile_schedule(FixedRate(6, "hour"), anchor=at("2026-12-01T01:00"))
    moved = with_calendars(hourly, [Calendar("x", days("2026-12-24"), "next")])
    assert month(moved, "2026-12-23T20:00", "2026-12-25T20:00") == [
        *("12-25T01:00", "12-25T07:00", "12-25T13:00", "12-25T19:00")
    ]


@pytest.mark.parametrize("zone", ["America/Goose_Bay", "America/Havana", "Pacific/Apia", "America/Sao_Paulo"])
def test_a_day_whose_midnight_is_repeated_or_missing_does_no_harm(zone: str) -> None:
    minutely = compile_schedule(Cron("*/30 * * * *", zone))
    blackouts = days("2010-11-06", "2010-11-07", "2011-12-29", "2011-12-31", "2011-10-16", "2010-03-14")
    for policy in ("previous", "next"):
        moved = with_calendars(minutely, [Calendar("x", blackouts, policy)], zone)
        for start, end in (("2010-11-03", "2010-11-10"), ("2011-12-27", "2012-01-03"), ("2011-10-13", "2011-10-19")):
            fires = month(moved, f"{start}T00:00", f"{end}T00:00")
            assert len(fires) > 100


def test_the_fingerprint_follows_what_can_change_the_fires() -> None:
    base = compile_schedule(Cron("0 2 * * *", "Europe/Paris"))
    one = with_calendars(base, [Calendar("a", days("2026-12-25"))], "Europe/Paris").fingerprint
    assert one == with_calendars(base, [Calendar("renamed", days("2026-12-25"))], "Europe/Paris").fingerprint
    others = {
        one,
        base.fingerprint,
        with_calendars(base, [Calendar("a", days("2026-12-25"), "next")], "Europe/Paris").fingerprint,
        with_calendars(base, [Calendar("a", days("2026-12-26"))], "Europe/Paris").fingerprint,
        bounded(base, 5, None).fingerprint,
        bounded(base, 5, 10).fingerprint,
    }
    assert len(others) == 6


def test_calendars_go_with_bounds() -> None:
    daily = compile_schedule(Cron("0 12 * * *"))
    moved = with_calendars(daily, [Calendar("x", days("2026-12-25"), "previous")])
    assert bounded(moved, at("2026-12-25T00:00"), None).next_after(-1) == at("2026-12-26T12:00")
    assert moved.next_after(HORIZON - 1) is None


@pytest.mark.parametrize(
    ("dates", "policy"), [(frozenset({datetime(2026, 1, 1, tzinfo=UTC)}), "skip"), (days(), "later")]
)
def test_a_faulty_calendar_is_refused(dates: Any, policy: Any) -> None:
    with pytest.raises(SpecError):
        Calendar("x", dates, policy)


# --- start and end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["skip", "previous", "next"])
@given(st.data())
def test_bounds_hold_for_slots_that_have_moved(policy: Any, data: st.DataObject) -> None:
    cron = compile_schedule(Cron(data.draw(st.sampled_from(["0 12 * * *", "*/37 * * * *", "0 9 * * 1"]))))
    calendar = Calendar("x", days("2026-12-24", "2026-12-25", "2026-12-28"), policy)
    free = with_calendars(cron, [calendar], "Europe/Paris")
    begin = at("2026-12-20T00:00")
    seconds = st.one_of(
        st.sampled_from(list(free.between(begin, begin + 14 * 86_400))), st.integers(begin, begin + 10**6)
    )
    start, end = sorted([data.draw(seconds), data.draw(seconds)])
    bound = with_calendars(cron, [calendar], "Europe/Paris", start=start, end=end)
    slots = list(free.between(start - 1, end))
    assert list(bound.between(-1, HORIZON)) == slots
    assert bound.count(-1, HORIZON) == len(slots)
    assert bound.previous_before(HORIZON) == (slots[-1] if slots else None)
    instant = data.draw(seconds)
    assert bound.previous_before(instant) == max((slot for slot in slots if slot < instant), default=None)
    assert bound.next_after(instant) == min((slot for slot in slots if slot > instant), default=None)
    quiet = bound.blacked_out(-1, HORIZON)
    assert sum(stretch.count for stretch in quiet) == sum(map(bound.is_blackout, slots))


def test_a_fingerprint_stays_what_it_was_where_an_inclusive_end_changes_no_slot() -> None:
    """So that a new version does not plan anew, as a changed schedule, what is the same."""
    daily = compile_schedule(Cron("0 12 * * *"))
    start, end = at("2026-12-20T00:00"), at("2026-12-30T18:00")
    before = fingerprint_of("bounded", daily.fingerprint, start, end)
    assert bounded(daily, start, end).fingerprint == before
    noon = at("2026-12-30T12:00")
    assert bounded(daily, start, noon).fingerprint != fingerprint_of("bounded", daily.fingerprint, start, noon)
    for policy, days_off, same in [
        ("skip", "2026-12-30", True),
        ("next", "2026-12-25", True),
        ("next", "2026-12-30", False),
        ("previous", "2026-12-20", False),
    ]:
        calendar = Calendar("x", days(days_off), policy)
        earlier = with_calendars(bounded(daily, start, end), [calendar]).fingerprint
        assert (with_calendars(daily, [calendar], start=start, end=end).fingerprint == earlier) is same
