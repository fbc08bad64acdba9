"""New zone data, found by whoever looks first: no slot that was missed is lost, whatever the data changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.instants import SECOND
from scheduler.services.sync import plan_with_new_zones
from tests.integration.worlds import World, instant, key, trigger
from tests.zone_data import shifted, zone_data

NOW = instant("12:00") // SECOND
YEAR = 365 * 86_400
MINUTELY = [Cron("* * * * *", "America/Bogota"), Cron("* * * * *", "America/Winnipeg")]


def fired(world: World) -> None:
    world.fire_all()


def walked(world: World) -> None:
    after: int | None = 0
    while after is not None:
        after = world.store.run(plan_with_new_zones, world.planning, "2099z", after, 1)
    world.fire_all()


def deployed(world: World) -> None:
    """The new release brings the new data, and its manifests another version of the task."""
    world.deploy(*(trigger(f"t{number}", automation=each) for number, each in enumerate(MINUTELY)), version="v2")
    world.step()


@pytest.mark.parametrize("found", [fired, walked, deployed])
@pytest.mark.parametrize("years", [-51, 64, 0])
def test_new_zone_data_drops_no_missed_slot(world: World, years: int, found: Callable[[World], None]) -> None:
    world.deploy(*(trigger(f"t{number}", automation=each) for number, each in enumerate(MINUTELY)))
    world.step("12:01")
    at = NOW + years * YEAR
    with zone_data(*(shifted(each.timezone, at, at + 86_400, 3_600) for each in MINUTELY)):
        world.at("12:05:30")
        found(world)
        for number in range(2):
            assert world.ledger(f"t{number}") == ["12:01", "12:02", "12:03", "12:04", "12:05"]
            assert world.next_fire(f"t{number}") == "12:06"


def test_more_missed_slots_than_catch_up_keeps_are_skipped_as_ever(world: World) -> None:
    world.deploy(trigger(automation=MINUTELY[0]))
    with zone_data(shifted("America/Bogota", NOW - 40 * YEAR, NOW - 39 * YEAR, 60)):
        world.at("12:30:30").fire_all()
        assert world.ledger()[:2] == ["catchup_cap 12:01–12:19 ×19", "12:20"]
        assert world.ledger()[-1] == "12:30"


def test_a_slot_that_new_zone_data_moves_later_waits_for_it(world: World) -> None:
    world.deploy(trigger(automation=Cron("30 7 * * *", "America/Bogota")))
    assert world.next_fire() == "12:30"
    with zone_data(shifted("America/Bogota", NOW - 60, NOW + YEAR, -1_800)):
        walked(world.at("12:10"))
        assert (world.ledger(), world.next_fire()) == ([], "13:00")


def test_a_slot_that_new_zone_data_took_away_is_accounted_for_and_what_follows_is_caught_up(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/30 * * * *", "America/Bogota")))
    with zone_data(shifted("America/Bogota", NOW - 60, NOW + YEAR, 600)):
        walked(world.at("13:55:30"))
        assert world.ledger() == ["schedule_changed 12:30–12:30 ×1", "12:50", "13:20", "13:50"]


def test_a_planned_slot_that_waits_out_its_jitter_fires_under_new_zone_data(world: World) -> None:
    world.deploy(trigger(automation=Cron("0 8 * * *", "America/Bogota"), jitter=timedelta(hours=9)))
    with zone_data(shifted("America/Bogota", NOW - 60, NOW + YEAR, 3_600)):
        walked(world.at("13:00:01"))
        assert world.ledger() == ["13:00"]


def test_a_quarantined_trigger_that_is_released_by_new_zone_data_owes_all_since(world: World) -> None:
    world.deploy(trigger(automation=MINUTELY[0]))
    world.step("12:01")
    world.sql("UPDATE triggers SET error = 'it broke', error_fingerprint = 'one'")
    world.sql("UPDATE trigger_due SET due_at = NULL")
    with zone_data(shifted("America/Bogota", NOW - 40 * YEAR, NOW - 39 * YEAR, 60)):
        world.at("12:05:30").sync("two")
        world.fire_all()
        assert world.ledger() == ["12:01", "12:02", "12:03", "12:04", "12:05"]


def test_a_restore_that_skips_what_is_owed_skips_it_under_new_zone_data_too(world: World) -> None:
    world.deploy(trigger(automation=MINUTELY[0]))
    with zone_data(shifted("America/Bogota", NOW - 40 * YEAR, NOW - 39 * YEAR, 60)):
        world.at("12:03:30").client.restored(catch_up=False)
        assert world.ledger() == ["restored 12:01–12:03 ×3"]


@pytest.mark.parametrize("minutes", [10, 30])
def test_a_pause_counts_a_planned_slot_that_new_zone_data_took_away(world: World, minutes: int) -> None:
    world.deploy(trigger(automation=Cron("*/30 * * * *", "America/Bogota")))
    with zone_data(shifted("America/Bogota", NOW - 60, NOW + YEAR, minutes * 60)):
        world.at("13:55:30").client.deactivate(key())
        world.fire_all()
        expected = {10: "paused 12:30–13:50 ×4", 30: "paused 12:30–13:30 ×3"}
        assert world.ledger() == [expected[minutes]]
