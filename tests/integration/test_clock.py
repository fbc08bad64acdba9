"""Clocks that are set back and forth: no slot is lost or decided twice, and what has an entry keeps it."""

from __future__ import annotations

import random

import pytest

from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.instants import SECOND, Micros, to_datetime
from scheduler.domain.trigger import CatchUp
from scheduler.services.sync import plan_after_clock_set_back
from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema
from tests.conftest import ManualClock
from tests.integration.worlds import HOUR, World, instant, key, spoken, trigger

DAILY = Cron("0 13 * * *")


def test_a_clock_that_jumped_ahead_and_back_decides_no_slot_twice(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.step("15:00:30")
    kept = [f"14:{minute}" for minute in range(50, 60)]
    assert world.ledger() == ["12:01", "catchup_cap 12:02–14:49 ×168", *kept, "15:00"]
    world.clock_set_back("12:01:30")
    assert world.ledger() == ["12:01", *kept, "15:00"]
    assert world.step("12:02") == ["12:02"]
    again = [f"14:{minute}" for minute in range(40, 50)]
    assert world.step("14:59:30") == again
    assert world.step("15:00:30") == []
    assert world.step("15:02") == ["15:01", "15:02"]
    rest = ["catchup_cap 12:03–14:39 ×157", *again, *kept, "15:00", "15:01", "15:02"]
    assert world.ledger() == ["12:01", "12:02", *rest]


def test_a_clock_a_year_ahead_for_seconds_silences_nothing(world: World) -> None:
    world.deploy(trigger(), trigger("daily", automation=DAILY), trigger("newest", catchup=CatchUp("latest")))
    world.at("12:00:20").clock.advance(365 * 86_400)
    world.fire_all()
    assert len(world.ledger()) > 10
    world.clock_set_back("12:00:24")
    for minute in range(1, 31):
        assert world.step(f"12:{minute:02}") == [f"12:{minute:02}"] * 2
    slots = [f"12:{minute:02}" for minute in range(1, 31)]
    assert [entry for entry in world.ledger() if entry.startswith("12:")][:30] == slots
    assert not [entry for entry in world.ledger() if "×" in entry]
    assert "13:00" in world.step("13:00")


def test_a_trigger_that_was_finished_ahead_of_time_is_not_after_the_clock_was_right_again(world: World) -> None:
    world.deploy(
        trigger("once", automation=At(to_datetime(instant("28 12:00"))), catchup=CatchUp("none")),
        trigger("ending", automation=DAILY, end=to_datetime(instant("24 00:00")), catchup=CatchUp("none")),
    )
    world.at("30 12:00").fire_all()
    assert {world.trigger(name)["state"] for name in ("once", "ending")} == {"finished"}
    world.clock_set_back("12:01")
    assert (world.next_fire("once"), world.next_fire("ending")) == ("28 12:00", "13:00")
    assert (world.ledger("once"), world.ledger("ending")) == ([], [])
    assert world.step("28 12:00") == ["28 12:00"]


def test_one_that_had_its_last_fire_ahead_of_time_stays_finished(world: World) -> None:
    world.deploy(trigger(max_fires=1))
    world.step("15:00")
    world.clock_set_back("12:01")
    assert world.step("12:02") == []
    assert world.trigger()["state"] == "finished"


def test_a_skipped_range_is_cut_off_where_the_clock_stands(world: World) -> None:
    world.deploy(trigger(catchup=CatchUp("none")))
    world.step("15:00:30")
    assert world.ledger() == ["catchup_policy 12:01–14:59 ×179", "15:00"]
    world.clock_set_back("13:30:30")
    assert world.ledger() == ["catchup_policy 12:01–13:30 ×90", "15:00"]
    assert world.step("13:31") == ["13:31"]


def test_a_quarantined_trigger_whose_plan_lies_ahead_is_released_to_the_present(world: World) -> None:
    world.deploy(trigger())
    world.step("18:00:30")
    world.sql("UPDATE triggers SET error = 'it broke', error_fingerprint = 'one'")
    world.sql("UPDATE trigger_due SET due_at = NULL")
    world.clock_set_back("12:00:30")
    world.sync("two")
    assert world.step("12:01") == ["12:01"]


def test_a_trigger_paused_ahead_of_time_owes_what_comes_after_its_activation(world: World) -> None:
    world.deploy(trigger(catchup=CatchUp("none")))
    world.step("18:00:30")
    world.client.deactivate(key())
    world.clock_set_back("12:00:30")
    world.client.activate(key())
    assert world.step("12:01") == ["12:01"]
    assert world.ledger() == ["12:01", "18:00"]


@pytest.mark.parametrize("silenced", ["switched off and on", "snoozed"])
def test_a_batch_of_what_is_not_planned_after_the_clock_was_set_back_does_not_keep_the_worker(
    world: World, silenced: str
) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("15:00")
    if silenced == "snoozed":
        world.at("13:00").client.snooze(key("a"), instant("13:00") + 20 * SECOND)
    else:
        world.sql("UPDATE triggers SET active = false WHERE name = 'a'")
        world.step()
        world.sql("UPDATE triggers SET active = true WHERE name = 'a'")
        world.at("13:00")
    counts = [world.store.run(plan_after_clock_set_back, world.planning, 1) for _ in range(2)]
    assert counts == [1, 0]


def test_an_edit_that_nobody_had_seen_is_seen_after_the_clock_was_set_back(world: World) -> None:
    world.deploy(trigger())
    world.step("15:00")
    world.sql('UPDATE triggers SET automation = \'{"cron": "30 * * * *"}\'')
    world.clock_set_back("12:00:30")
    assert world.next_fire() == "12:01"
    world.step()
    assert world.next_fire() == "12:30"


def test_slots_that_have_no_entry_fire_after_the_clock_was_set_back(world: World) -> None:
    every_ten = Cron("*/10 * * * *")
    world.deploy(trigger(automation=every_ten))
    world.step("12:10")
    world.clock_set_back("09:05")
    assert world.step("09:10") == ["09:10"]
    assert len(world.step("12:10")) == 10
    assert world.step("12:20") == ["12:20"]
    assert slots_of(world, every_ten) == list(range(instant("09:10"), instant("12:20") + 1, 600 * SECOND))


def test_a_trigger_that_never_fired_goes_on_right_after_the_jump_back(world: World) -> None:
    world.at("15:00").deploy(trigger("daily", automation=DAILY), trigger("minutely"))
    world.clock_set_back("12:00:30")
    assert (world.next_fire("daily"), world.next_fire("minutely")) == ("13:00", "12:01")
    assert world.step("12:01") == ["12:01"]


def test_a_fixed_rate_goes_on_right_after_the_jump_back_on_the_grid_it_had(world: World) -> None:
    world.at("15:00:07").deploy(
        trigger("seconds", automation=FixedRate(1, "second")), trigger("tens", automation=FixedRate(10, "minute"))
    )
    world.clock_set_back("12:00:30")
    assert (world.next_fire("seconds"), world.next_fire("tens")) == ("12:00:31", "12:10:07")
    assert world.step("12:00:31") == ["12:00:31"]


def test_a_jump_back_within_the_grace_only_waits(world: World) -> None:
    world.deploy(trigger())
    world.step("12:05")
    world.clock_set_back("12:04:30")
    assert world.step("12:05") == []
    assert world.step("12:06") == ["12:06"]


def test_a_clock_set_back_twice_remembers_the_furthest_position(world: World) -> None:
    world.deploy(trigger())
    world.step("15:00:30")
    world.clock_set_back("13:00:30")
    world.step("13:10")
    world.clock_set_back("12:30:30")
    assert world.step("12:31") == ["12:31"]
    assert len(world.step("15:00:30")) == 10
    assert world.step("15:01") == ["15:01"]


def test_a_trigger_activated_while_the_clock_is_behind_repeats_no_slot(world: World) -> None:
    world.deploy(trigger())
    world.step("15:00:30")
    world.client.deactivate(key())
    world.clock_set_back("14:50:30")
    world.client.activate(key())
    assert world.step("15:00:30") == []
    assert world.step("15:01") == ["15:01"]
    assert len(world.ledger()) == 13


def test_an_instant_that_fired_does_not_fire_again(world: World) -> None:
    moment = to_datetime(instant("14:00"))
    world.deploy(trigger(automation=At(moment)))
    world.step("14:00")
    world.clock_set_back("12:00")
    assert world.step("14:00:30") == []
    assert world.ledger() == ["14:00"]


def test_runs_queued_ahead_of_a_jump_back_wait_for_no_instant_that_lies_ahead(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("15:00")
    world.clock_set_back("12:30")
    assert [spoken(item.run.scheduled_at or 0) for item in world.take(late=0)] == ["14:59", "15:00"]


def test_a_job_that_cannot_be_planned_after_a_jump_back_is_set_aside_alone(world: World) -> None:
    world.at("15:00").deploy(trigger("a"), trigger("b"))
    world.sql("UPDATE triggers SET automation = 'nonsense' WHERE name = 'a'")
    world.sql("UPDATE triggers SET planned_from = plan_source WHERE name = 'a'")
    world.clock_set_back("12:00:30")
    assert world.trigger("a")["state"] == "quarantined"
    assert world.step("12:01") == ["12:01"]


def slots_of(world: World, automation: Cron | FixedRate, anchor: Micros = 0) -> list[Micros]:
    """Every slot of the ledger, one by one; a range is spelt out by the schedule it skips."""
    schedule = automation.schedule(anchor // SECOND)
    slots: list[Micros] = []
    for entry in world.client.list_slots(key(), 100_000):
        if entry["kind"] == "run":
            slots.append(entry["scheduled_at"])
        else:
            inside = list(schedule.between(entry["from"] // SECOND - 1, entry["to"] // SECOND))
            assert len(inside) == entry["count"], "a range that does not count its slots"
            slots += [second * SECOND for second in inside]
    return slots


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("policy", ["all", "latest", "none", "gap"])
def test_random_jumps_lose_no_slot_and_decide_none_twice(sqlite_url: str, seed: int, policy: str) -> None:
    dice = random.Random(f"{seed} {policy}")
    clock = ManualClock()
    store = Store.open(sqlite_url, clock=clock)
    upgrade_schema(store)
    world = World(store, clock)
    automation: Cron | FixedRate = dice.choice([Cron("* * * * *"), Cron("*/7 * * * *"), FixedRate(50, "second")])
    world.deploy(trigger(automation=automation, catchup=CatchUp(policy, max_runs=3)))  # type: ignore[arg-type]
    started = latest = clock.now()
    for _ in range(60):
        jump = dice.choice([10 * SECOND, 50 * SECOND, 200 * SECOND, 3 * HOUR, -40 * SECOND, -2 * HOUR])
        clock.set(max(started, clock.now() + jump))
        if jump < 0:
            world.clock_set_back(spoken(clock.now()))
        world.step()
        latest = max(latest, clock.now())
    clock.set(latest + HOUR)
    world.step()
    slots = slots_of(world, automation, started)
    store.close()
    assert len(set(slots)) == len(slots), "a slot has two entries"
    schedule = automation.schedule(started // SECOND)
    owed = {second * SECOND for second in schedule.between(started // SECOND, clock.now() // SECOND)}
    assert owed <= set(slots), "a slot has no entry"
