"""Blackout calendars at the database: what fires, what is skipped with the reason, and what a changed calendar does."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import to_datetime
from scheduler.domain.trigger import CatchUp
from tests.integration.worlds import World, instant, key, once, spoken, trigger

HOLIDAYS = Calendar("holidays", frozenset({date(2026, 11, 22), date(2026, 11, 23)}))
NOON = Cron("0 12 * * *")
SIX_HOURLY = Cron("0 */6 * * *")


def test_blacked_out_days_do_not_fire_and_are_in_the_ledger_with_their_reason(world: World) -> None:
    world.deploy(trigger(automation=SIX_HOURLY, calendars=(HOLIDAYS,)))
    assert world.step("21 18:00") == ["18:00"]
    assert world.next_fire() == "24 00:00"
    assert world.step("23 23:00") == []
    assert world.step("24 00:00") == ["24 00:00"]
    assert world.ledger() == ["18:00", "calendar 22 00:00–23 18:00 ×8", "24 00:00"]


def test_a_cut_range_goes_round_a_blacked_out_day(world: World) -> None:
    world.deploy(
        trigger(automation=SIX_HOURLY, calendars=(HOLIDAYS,), catchup=CatchUp(max_runs=1, window=timedelta(30)))
    )
    assert world.step("24 18:01") == ["24 12:00", "24 18:00"]
    assert world.ledger() == [
        "catchup_cap 18:00–18:00 ×1",
        "calendar 22 00:00–23 18:00 ×8",
        "catchup_cap 24 00:00–24 06:00 ×2",
        "24 12:00",
        "24 18:00",
    ]


def test_the_cap_counts_free_days_only(world: World) -> None:
    world.deploy(trigger(automation=NOON, calendars=(HOLIDAYS,), catchup=CatchUp(max_runs=2)))
    assert world.step("25 12:02") == ["24 12:00", "25 12:00"]
    assert world.ledger() == ["calendar 22 12:00–23 12:00 ×2", "24 12:00", "25 12:00"]


def test_slots_move_to_the_next_or_the_previous_free_day(world: World) -> None:
    later = Calendar("later", HOLIDAYS.dates, "next")
    earlier = Calendar("earlier", frozenset({date(2026, 11, 25)}), "previous")
    world.deploy(trigger("later", Cron("0 9 23 * *"), calendars=(later,)))
    world.deploy(trigger("earlier", Cron("0 9 25 * *"), calendars=(earlier,)), task="other")
    assert world.next_fire("later") == "24 09:00"
    assert world.next_fire("earlier", "other") == "24 09:00"


SIX = Cron("0 6 * * *")


def on(day: int, policy: Any) -> tuple[Calendar, ...]:
    return (Calendar("moved", frozenset({date(2026, 11, day)}), policy),)


@pytest.mark.parametrize(
    ("policy", "day", "bounds", "fires"),
    [
        ("next", 25, {"end": "25 12:00"}, ["22 06:00", "23 06:00", "24 06:00"]),
        ("next", 25, {"end": "26 06:00"}, ["22 06:00", "23 06:00", "24 06:00", "26 06:00"]),
        ("next", 25, {"end": "26 05:59:59"}, ["22 06:00", "23 06:00", "24 06:00"]),
        ("previous", 26, {"end": "25 06:00"}, ["22 06:00", "23 06:00", "24 06:00", "25 06:00"]),
        ("previous", 25, {"start": "24 07:00", "end": "26 06:00"}, ["26 06:00"]),
        ("next", 22, {"start": "22 07:00", "end": "23 06:00"}, ["23 06:00"]),
        ("skip", 25, {"end": "25 12:00"}, ["22 06:00", "23 06:00", "24 06:00"]),
        ("skip", 24, {"start": "23 06:00", "end": "25 06:00"}, ["23 06:00", "25 06:00"]),
    ],
)
def test_start_and_end_bind_where_a_slot_fires(
    world: World, policy: Any, day: int, bounds: dict[str, str], fires: list[str]
) -> None:
    given: dict[str, Any] = {name: to_datetime(instant(moment)) for name, moment in bounds.items()}
    world.deploy(trigger(automation=SIX, calendars=on(day, policy), **given))
    assert world.next_fire() == fires[0]
    foreseen = world.client.simulate(instant("12:00"), instant("30 00:00")).fires
    assert [spoken(fire["scheduled_at"]) for fire in foreseen] == fires
    assert [slot for day in range(22, 30) for slot in world.step(f"{day} 23:00")] == fires
    assert [entry for entry in world.ledger() if not entry.startswith("calendar")] == fires
    assert world.trigger()["state"] == "finished"
    number = world.client.backfill(key(), instant("20 00:00"), instant("30 00:00"), reprocess="all")["slots"]
    again = number - (bounds.get("start") is None) * 2
    assert again == len(fires), "a backfill fills the same slots, and those of the two days before the deploy"


def test_a_rate_and_a_single_instant_end_with_their_last_slot(world: World) -> None:
    end = to_datetime(instant("12:20"))
    world.deploy(trigger("every", FixedRate(10, "minute"), end=end), trigger("once", once("12:20"), start=end, end=end))
    assert world.step("12:20") == ["12:10", "12:20", "12:20"]
    assert [world.trigger(name)["state"] for name in ("every", "once")] == ["finished", "finished"]


def test_a_calendar_that_changes_is_a_schedule_change_and_fires_nothing_of_the_past(world: World) -> None:
    world.deploy(trigger(automation=SIX_HOURLY, calendars=(HOLIDAYS,)))
    revision = world.trigger()["revision"]
    world.at("22 07:00")
    world.deploy(trigger(automation=SIX_HOURLY))
    assert world.trigger()["revision"] == revision + 1
    assert world.next_fire() == "22 12:00"
    assert world.step("22 12:00") == ["22 12:00"]


def test_the_same_calendar_again_changes_nothing(world: World) -> None:
    world.deploy(trigger(automation=NOON, calendars=(HOLIDAYS,)))
    again = Calendar("holidays", frozenset(sorted(HOLIDAYS.dates, reverse=True)))
    assert not world.deploy(trigger(automation=NOON, calendars=(again,))).applied


def test_every_slot_of_a_rate_under_a_calendar_is_accounted_for_once(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(1, "hour"), calendars=(HOLIDAYS,), catchup=CatchUp(max_runs=3)))
    for moment in ("21 18:30", "22 08:30", "24 02:30", "24 20:30"):
        world.step(moment)
    entries = world.client.list_slots(key(), 1_000)
    counted = sum(1 if entry["kind"] == "run" else entry["count"] for entry in entries)
    assert counted == 80  # from 13:00 on the 21st to 20:00 on the 24th
    assert sum(entry["count"] for entry in entries if entry.get("reason") == "calendar") == 48
