"""Instants and durations, to the microsecond and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.instants import (
    format_duration,
    from_datetime,
    parse_duration,
    parse_rfc3339,
    to_datetime,
    to_micros,
    to_rfc3339,
)
from scheduler.errors import SpecError

MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(MOMENTS)
def test_an_instant_keeps_every_microsecond(moment: datetime) -> None:
    assert to_datetime(from_datetime(moment)) == moment
    assert parse_rfc3339(to_rfc3339(from_datetime(moment))) == from_datetime(moment)


@given(MOMENTS.filter(lambda moment: 2 < moment.year < 9998), st.integers(-14 * 60, 14 * 60))
def test_an_instant_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert from_datetime(elsewhere) == from_datetime(moment)
    assert parse_rfc3339(elsewhere.isoformat()) == from_datetime(moment)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:00:00Z", 0), ("2026-11-21T02:00:00+02:00", 1_795_219_200), ("1969-12-31T23:59:59Z", -1)],
)
def test_a_text_names_an_instant(text: str, seconds: int) -> None:
    assert parse_rfc3339(text) == seconds * 1_000_000


def test_a_fraction_is_printed_only_where_there_is_one() -> None:
    assert to_rfc3339(0) == "1970-01-01T00:00:00Z"
    assert to_rfc3339(500_000) == "1970-01-01T00:00:00.5Z"
    assert to_rfc3339(1) == "1970-01-01T00:00:00.000001Z"


def test_a_time_without_zone_is_a_guess_and_refused() -> None:
    with pytest.raises(SpecError, match="has no zone: add Z or an offset"):
        parse_rfc3339("2026-11-21T02:00:00", "start")
    with pytest.raises(SpecError, match="start"):
        from_datetime(datetime(2026, 11, 21), "start")


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "2026-11-21T25:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not a time like"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400), ("1.5s", 1.5)],
)
def test_a_duration_is_written_with_its_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1 h", "1h 30m", "-5s", "5x", "1h30", "٣s", "1e3s", "5M"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match="write 500ms, 30s, 10m, 24h, 7d or 1h30m"):
        parse_duration(text, "grace")


def test_a_duration_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(SpecError, match="too long"):
        parse_duration("9" * 30 + "d")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=20_000)))
def test_a_duration_is_read_back_as_it_was_written(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration
    assert timedelta(microseconds=to_micros(duration)) == duration
