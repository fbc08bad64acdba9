"""What simulated worlds found, each told as the shortest story that shows it, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.domain.automation import FixedRate
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended
from scheduler.services.sync import refresh_summaries
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World, key, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    return World(store, clock)


def test_two_ends_of_one_run_in_one_batch_record_the_rightful_one(world: World) -> None:
    world.register("w1")
    world.deploy(trigger())
    world.step("12:01")
    (lost,) = world.take("w1")
    world.lose_worker("w1")
    (again,) = world.take("w1")
    finished = world.finish(Ended(lost, Phase.FAILED, error="late"), Ended(again, Phase.SUCCEEDED))
    assert finished.refused == (again.run.name,)
    assert [finished.counts(Ended(item, Phase.SUCCEEDED)) for item in (lost, again)] == [False, True]
    run = world.run(again.run.name)
    assert (run["phase"], [attempt["phase"] for attempt in run["attempts"]]) == ("SUCCEEDED", ["SUCCEEDED"])


def test_after_a_clock_set_back_a_pause_gives_no_slot_a_second_entry(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.step("12:02")
    world.clock_set_back("12:00:30")
    world.at("12:01:30").client.deactivate(key())
    assert world.ledger() == ["12:01", "12:02"]


def test_after_a_clock_set_back_a_changed_schedule_gives_no_slot_a_second_entry(world: World) -> None:
    world.deploy(trigger())
    for minute in range(1, 11):
        world.step(f"12:{minute:02}")
    world.clock_set_back("12:00:30")
    world.at("12:05:30").sql('UPDATE triggers SET automation = \'{"cron": "0 * * * *"}\'')
    world.sync()
    assert world.ledger() == [f"12:{minute:02}" for minute in range(1, 11)]


def test_what_an_old_schedule_still_fires_is_due_by_its_own_jitter(world: World) -> None:
    world.deploy(trigger())
    world.at("12:01:10").deploy(trigger(jitter=timedelta(minutes=1)))
    (fired,) = world.rows("SELECT scheduled_at, not_before FROM runs")
    assert [spoken(moment) for moment in fired] == ["12:01", "12:01"]


def test_a_change_that_a_fire_finds_is_counted_in_the_tasks_summary(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:01").sql("UPDATE triggers SET deleted_at = 1 WHERE name = 'a'")
    fired = world.fire()
    world.store.run(refresh_summaries, fired.replanned)
    task = world.client.show_task("flytesnacks", "development", "report")
    assert (task["total_triggers"], task["active_triggers"]) == (1, 1)


def test_a_rate_activated_after_the_clock_was_set_back_fires_an_interval_later(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(10, "minute")))
    world.at("12:05").client.deactivate(key())
    world.clock_set_back("08:03")
    world.client.activate(key())
    assert world.next_fire() == "08:10"
