"""The values, their texts and their documents."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from scheduler.domain.automation import (
    At,
    Automation,
    Cron,
    FixedRate,
    automation_from_document,
    automation_to_document,
    describe,
    parse_schedule,
)
from scheduler.domain.occurrences import compile_schedule
from scheduler.errors import BadCron, BadRate, NeverFires, SpecError, UnknownTimezone


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("expression", "options", "reason"),
    [
        ("61 * * * *", {}, "minute: 61 is not within 0–59"),
        ("61 25 * * *", {}, "minute: 61 is not within 0–59; hour: 25 is not within 0–23"),
        ("61,62 * * * *", {}, "minute: 61 is not within 0–59, 62 is not within 0–59"),
        ("* 5-3 * * *", {}, "hour: 5-3 runs backwards"),
        ("* * * * fri-sun", {}, "write 5-7"),
        ("1,,2 * * * *", {}, "an item of the list is empty"),
        ("* * * * * * * *", {}, "has 8 fields"),
        ("", {}, "has 0 fields"),
        ("٥ * * * *", {}, "ASCII"),
        ("R * * * *", {}, "use H"),
        ("H * * * *", {"dialect": "standard"}, "auto dialect only"),
        ("H(50-70) * * * *", {}, "minute: H(50-70) is not H(a-b) within 0–59"),
        ("*/0 * * * *", {}, "a step of 0 never moves"),
        ("0 0 12 * * ?", {}, "looks like quartz: set dialect"),
        ("0 0 12 * * ? 2030", {}, "looks like quartz: set dialect"),
        ("0 0 * * * *", {"dialect": "quartz"}, "exactly one of them must be ?"),
        ("cron(0 10 * * ? *)", {"dialect": "quartz"}, "aws dialect"),
        ("@every 5m", {}, "fixed rate"),
        ("rate(5 minutes)", {}, "fixed rate"),
        ("@reboot", {}, "none of @yearly"),
        ("* * * * L", {}, "5L is the last Friday"),
        ("CRON_TZ=Europe/Paris", {}, "lacks the fields"),
        ("CRON_TZ=Europe/Paris 0 2 * * *", {"timezone": "Asia/Tokyo"}, "name one zone only"),
        ("CRON_TZ=Europe/Paris TZ=Asia/Tokyo 0 2 * * *", {}, "two zones"),
        ("0 2 * * *", {"dst": "twice"}, "none of once, instant, skip_once"),
        ("0 2 * * *", {"day_rule": "vixie"}, "none of robfig, debian"),
        (5, {}, "quote it"),
    ],
)
def test_a_faulty_expression_is_refused_with_what_is_wrong_and_where(
    expression: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadCron) as refused:
        Cron(expression, **options)
    assert reason in str(refused.value)


@pytest.mark.parametrize("zone", ["Europe/Pari", "europe/paris", "Mars/Base", "", "../../etc/passwd", "+02:00"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(UnknownTimezone):
        Cron("0 2 * * *", timezone=zone)


def test_an_unknown_zone_names_the_nearest_known_one() -> None:
    with pytest.raises(UnknownTimezone, match=r"did you mean Europe/Paris\?"):
        Cron("0 2 * * *", timezone="europe/pariss")


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30 2 ?", "0 0 31 4,6,9,11 *", "H H 31 2 *"])
def test_what_fires_at_no_time_is_refused(expression: str) -> None:
    with pytest.raises(NeverFires):
        Cron(expression)


def test_a_schedule_that_only_ever_meets_a_gap_never_fires_unless_gaps_are_made_up_for() -> None:
    # Clocks in New York jumped from 02:00 to 03:00 on that day.
    expression, options = "30 2 10 3 ? 2024", {"timezone": "America/New_York"}
    for policy in ("skip_once", "instant"):
        with pytest.raises(NeverFires):
            Cron(expression, dst=policy, **options)  # type: ignore[arg-type]
    assert Cron(expression, **options).next_after(utc(2024, 1, 1)) == utc(2024, 3, 10, 7)  # type: ignore[arg-type]


def test_a_schedule_whose_last_fire_is_past_is_finished_not_refused() -> None:
    assert Cron("cron(0 0 1 1 ? 2020)").next_after(utc(2026, 1, 1)) is None


def test_an_inline_zone_replaces_a_default_one() -> None:
    cron = Cron("CRON_TZ=Europe/Paris 0 2 * * *")
    assert cron == Cron("0 2 * * *", timezone="Europe/Paris")
    assert cron == Cron("TZ=Europe/Paris 0 2 * * *", timezone="Europe/Paris")
    assert str(cron) == "CRON_TZ=Europe/Paris 0 2 * * *"


def test_instants_may_have_any_zone_and_fires_are_utc() -> None:
    cron = Cron("0 9 * * 1-5", timezone="Europe/Paris")
    paris_noon = datetime(2026, 3, 27, 12, tzinfo=timezone(timedelta(hours=1)))
    fire = cron.next_after(paris_noon)
    assert fire == utc(2026, 3, 30, 7)
    assert fire is not None
    assert fire.tzinfo is UTC
    assert cron.previous_before(utc(2026, 3, 30, 7)) == utc(2026, 3, 27, 8)
    assert list(cron.between(utc(2026, 3, 27, 8), utc(2026, 3, 31, 7))) == [utc(2026, 3, 30, 7), utc(2026, 3, 31, 7)]


def test_a_fraction_of_a_second_after_a_fire_still_has_it_behind() -> None:
    cron = Cron("0 12 * * *")
    assert cron.previous_before(utc(2026, 1, 1, 12, 0, 0, 500_000)) == utc(2026, 1, 1, 12)
    assert cron.next_after(utc(2026, 1, 1, 11, 59, 59, 999_999)) == utc(2026, 1, 1, 12)


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(SpecError, match="has no zone"):
        Cron("0 12 * * *").next_after(datetime(2026, 1, 1))


def test_twelve_oclock_every_five_minutes_activated_at_four_past_fires_at_five_past() -> None:
    activated_at = utc(2026, 11, 21, 12, 4)
    assert FixedRate(5, "minute", utc(2026, 11, 21, 12)).next_after(activated_at) == utc(2026, 11, 21, 12, 5)
    assert FixedRate(5, "minute").next_after(activated_at, activated_at) == utc(2026, 11, 21, 12, 9)


def test_a_rate_without_start_needs_its_activation() -> None:
    with pytest.raises(BadRate, match="activation"):
        FixedRate(5, "minute").next_after(utc(2026, 1, 1))


@pytest.mark.parametrize(
    ("value", "unit"),
    [(0, "minute"), (-1, "minute"), (True, "minute"), (1.5, "hour"), ("5", "hour"), (1, "week"), (10**9, "day")],
)
def test_a_faulty_rate_is_refused(value: Any, unit: Any) -> None:
    with pytest.raises(BadRate):
        FixedRate(value, unit)


def test_starts_and_instants_are_floored_to_the_second() -> None:
    assert FixedRate(1, "hour", utc(2026, 1, 1, 0, 0, 0, 999)).start_time == utc(2026, 1, 1)
    assert At(utc(2026, 1, 1, 0, 0, 0, 999)) == At(utc(2026, 1, 1))
    with pytest.raises(NeverFires):
        At(utc(2200, 1, 1))


def test_at_fires_once() -> None:
    at = At(utc(2026, 12, 24, 18))
    assert at.next_after(utc(2026, 1, 1)) == utc(2026, 12, 24, 18)
    assert at.next_after(utc(2026, 12, 24, 18)) is None
    assert list(at.between(utc(2026, 1, 1), utc(2027, 1, 1))) == [utc(2026, 12, 24, 18)]


TEXTS: list[tuple[str, Automation]] = [
    ("0 9 * * 1-5", Cron("0 9 * * 1-5")),
    ("  @daily ", Cron("@daily")),
    ("CRON_TZ=Asia/Tokyo @hourly", Cron("@hourly", "Asia/Tokyo")),
    ("cron(0 10 * * ? *)", Cron("cron(0 10 * * ? *)")),
    ("@every 1h30m", FixedRate(90, "minute")),
    ("@every 1500ms", FixedRate(1, "second")),
    ("@every 24h", FixedRate(1, "day")),
    ("rate(5 minutes)", FixedRate(5, "minute")),
    ("rate(1 hour)", FixedRate(1, "hour")),
    ("rate(1 day) from 2026-11-21T12:00:00Z", FixedRate(1, "day", utc(2026, 11, 21, 12))),
    ("at(2026-11-21T12:00:00)", At(utc(2026, 11, 21, 12))),
    ("at(2026-11-21T12:00:00+02:00)", At(utc(2026, 11, 21, 10))),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_a_text_is_read_and_written_back(text: str, expected: Automation) -> None:
    schedule = parse_schedule(text)
    assert schedule == expected
    assert parse_schedule(str(schedule)) == schedule
    assert hash(schedule) == hash(expected)
    assert automation_from_document(automation_to_document(schedule)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert copy.deepcopy(schedule) == schedule


def test_at_without_offset_is_read_in_the_zone_given() -> None:
    assert parse_schedule("at(2026-07-01T12:00:00)", timezone="Europe/Paris") == At(utc(2026, 7, 1, 10))
    # 02:30 did not exist in Paris that night.
    assert parse_schedule("at(2026-03-29T02:30:00)", timezone="Europe/Paris") == At(utc(2026, 3, 29, 1))


@pytest.mark.parametrize(
    "text", ["rate(0 minutes)", "rate(5 weeks)", "rate(x hours)", "rate()", "@every", "@every 5", "@every -5m"]
)
def test_a_faulty_rate_text_is_refused(text: str) -> None:
    with pytest.raises(BadRate):
        parse_schedule(text)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"did you mean timezone\?"):
        parse_schedule("0 2 * * *", timezon="UTC")


def test_documents_leave_defaults_out() -> None:
    assert automation_to_document(Cron("0 2 * * *")) == {"cron": {"expression": "0 2 * * *"}}
    assert automation_to_document(Cron("0 2 * * *", "Europe/Paris", dst="instant")) == {
        "cron": {"expression": "0 2 * * *", "timezone": "Europe/Paris", "dst": "instant"}
    }
    assert automation_to_document(FixedRate(5, "minute", utc(2026, 1, 1))) == {
        "fixed_rate": {"value": 5, "unit": "minute", "start_time": "2026-01-01T00:00:00Z"}
    }
    assert automation_to_document(At(utc(2026, 1, 1))) == {"at": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"cron": "0 2 * * *"}, Cron("0 2 * * *")),
        ({"cron": "@every 1h"}, FixedRate(1, "hour")),
        ({"every": "1h30m"}, FixedRate(90, "minute")),
        ({"at": utc(2026, 12, 24, 18)}, At(utc(2026, 12, 24, 18))),
        ({"fixed_rate": {"value": 5, "unit": "minute", "start_time": None}}, FixedRate(5, "minute")),
    ],
)
def test_documents_written_by_hand_are_read(document: dict[str, Any], expected: Automation) -> None:
    assert automation_from_document(document) == expected


def test_a_default_zone_holds_where_the_document_names_none() -> None:
    def zone(cron: object) -> str:
        automation = automation_from_document({"cron": cron}, default_timezone="Asia/Tokyo")
        assert isinstance(automation, Cron)
        return automation.timezone

    assert zone("0 2 * * *") == "Asia/Tokyo"
    assert zone("CRON_TZ=Europe/Paris 0 2 * * *") == "Europe/Paris"
    assert zone({"expression": "0 2 * * *", "timezone": "UTC"}) == "UTC"


@pytest.mark.parametrize(
    ("document", "field", "reason"),
    [
        ([], "automation", "not a mapping"),
        ({}, "automation", "names nothing"),
        ({"cron": "0 2 * * *", "every": "1h"}, "automation", "names cron and every"),
        ({"crom": "0 2 * * *"}, "crom", "did you mean cron?"),
        ({"cron": {"expression": "0 2 * * *", "timezon": "UTC"}}, "cron.timezon", "did you mean timezone?"),
        ({"cron": {"timezone": "UTC"}}, "cron.expression", "is missing"),
        ({"cron": {"expression": 5}}, "cron.expression", "quote it"),
        ({"cron": 5}, "cron", "quote it"),
        ({"cron": "at(2026-01-01T00:00:00)"}, "cron", "write at"),
        ({"every": 60}, "every", "quote it"),
        ({"every": "1500ms"}, "every", "whole"),
        ({"at": "tomorrow"}, "at", "not a time"),
        ({"at": 5}, "at", "not a time"),
        ({"fixed_rate": "5m"}, "fixed_rate", "not a mapping"),
        ({"fixed_rate": {"value": 5}}, "fixed_rate.unit", "is missing"),
        ({"fixed_rate": {"value": 5, "unit": "minute", "start": "x"}}, "fixed_rate.start", "did you mean start_time?"),
    ],
)
def test_a_faulty_document_is_refused_with_the_path(document: Any, field: str, reason: str) -> None:
    with pytest.raises(SpecError) as refused:
        automation_from_document(document)
    assert refused.value.field == field
    assert reason in refused.value.reason


def test_h_spreads_over_the_whole_day_and_stays_where_it_is() -> None:
    def fire(identity: str) -> int:
        first = compile_schedule(Cron("H H * * *"), identity=identity).next_after(0)
        assert first is not None
        return first

    times = {fire(f"p/d/task/{number}") for number in range(2_000)}
    assert len(times) > 900
    assert fire("p/d/task/1") == fire("p/d/task/1")
    # A stored promise: another value would move every trigger that uses H.
    assert fire("p/d/task/nightly") == 57_780


def test_h_keeps_to_its_range_and_step() -> None:
    for number in range(200):
        schedule = compile_schedule(Cron("H(10-19)/4 2 H * *"), identity=f"{number}")
        fires = list(schedule.between(0, 86_400 * 31))
        minutes = [fire % 3_600 // 60 for fire in fires]
        assert len(fires) in (2, 3)
        assert all(10 <= minute <= 19 for minute in minutes)
        assert all(later - earlier == 4 for earlier, later in pairwise(minutes))


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("*/5 * * * *", "Every 5 minutes (UTC)"),
        ("CRON_TZ=Europe/Paris 0 2 * * 1-5", "At 02:00, Monday to Friday (Europe/Paris)"),
        ("@daily", "At 00:00, every day (UTC)"),
        ("0 9-17 * * *", "Every hour from 09:00 to 17:00 (UTC)"),
        ("0 */2 * * *", "Every 2 hours (UTC)"),
        ("30 1-23/2 * * *", "Every 2 hours from 01:30 (UTC)"),
        ("*/15 9-17 * * MON-FRI", "Every 15 minutes from 09:00 to 17:59, Monday to Friday (UTC)"),
        ("7 * * * *", "At minute 7 past every hour (UTC)"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month and also Friday (UTC)"),
        ("cron(0 10 ? * 6L 2026-2028)", "At 10:00, the last Friday of the month, in 2026 to 2028 (UTC)"),
        ("0 0 LW * *", "At 00:00, on the last weekday of the month (UTC)"),
        ("0 0 1 1 *", "At 00:00, on day 1 of the month, in January (UTC)"),
        ("*/10 * * * * *", "Every 10 seconds (UTC)"),
        ("rate(5 minutes)", "Every 5 minutes"),
        ("at(2026-11-21T12:00:00)", "Once, at 2026-11-21 12:00 UTC"),
    ],
)
def test_a_schedule_describes_itself(text: str, english: str) -> None:
    assert describe(parse_schedule(text)) == english


def test_a_hashed_schedule_says_that_it_depends_on_the_trigger() -> None:
    assert describe(Cron("H 2 * * *")).endswith("where H depends on the trigger")
    assert "depends" not in describe(Cron("H 2 * * *"), "p/d/t/n")


def test_the_compiled_schedule_is_no_part_of_the_value() -> None:
    assert repr(Cron("0 2 * * *")).startswith("Cron(expression='0 2 * * *', timezone='UTC'")
    assert "_Schedule" not in repr(Cron("0 2 * * *"))
