"""Slots that an operator leaves out: a snooze with an end, the next one only; and what a restored backup owes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.errors import Conflict, NotFound, SpecError
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World, instant, key, only, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    return World(store, clock)


def test_a_snoozed_trigger_owes_nothing_and_goes_on_by_itself(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.at("12:01:30")
    world.client.snooze(key(), instant("12:10"))
    assert (world.trigger()["state"], world.next_fire()) == ("snoozed", "12:11")
    assert world.phases() == {"12:01": "ABORTED"}, "what had not started is aborted, as by any pause"
    assert world.step("12:05") == []
    assert world.fire_all() == []
    world.at("12:11")
    assert world.fire_all() == ["12:11"], "nobody has to wake it"
    assert world.trigger()["state"] == "scheduled"
    assert world.ledger() == ["12:01", "12:11"]


def test_slots_due_when_a_snooze_begins_are_skipped_as_paused(world: World) -> None:
    world.deploy(trigger())
    world.at("12:03:30")
    world.client.snooze(key(), instant("12:05"))
    assert world.ledger() == ["paused 12:01–12:03 ×3"]
    world.step("12:06")
    assert world.ledger() == ["paused 12:01–12:03 ×3", "12:06"]


def test_activating_ends_a_snooze_at_once(world: World) -> None:
    world.deploy(trigger())
    world.client.snooze(key(), instant("22 12:00"))
    world.at("12:04:30")
    assert world.client.activate(key())
    assert world.step("12:05") == ["12:05"]


def test_deactivating_ends_a_snooze_for_good(world: World) -> None:
    world.deploy(trigger())
    world.client.snooze(key(), instant("12:05"))
    world.client.deactivate(key())
    assert world.step("12:10") == []
    assert world.trigger()["state"] == "inactive"


def test_a_snooze_keeps_the_grid_of_an_interval(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(7, "minute")))
    assert world.next_fire() == "12:07"
    world.client.snooze(key(), instant("12:20"))
    assert world.next_fire() == "12:21"


def test_a_snooze_longer_than_the_one_before_replaces_it(world: World) -> None:
    world.deploy(trigger())
    world.client.snooze(key(), instant("12:05"))
    world.client.snooze(key(), instant("12:08"))
    assert world.next_fire() == "12:09"
    assert world.step("12:07") == []
    assert world.trigger()["revision"] == 3


def test_a_snooze_that_plain_sql_writes_or_takes_away_holds(world: World) -> None:
    world.deploy(trigger())
    world.sql(f"UPDATE triggers SET snoozed_until = {instant('12:30')}")
    assert world.step("12:02") == []
    assert world.next_fire() == "12:31"
    world.sql("UPDATE triggers SET snoozed_until = NULL")
    world.step("12:03:30")
    assert world.step("12:04") == ["12:04"]


def test_snoozing_into_the_past_or_what_is_inactive_is_refused(world: World) -> None:
    world.deploy(trigger())
    with pytest.raises(SpecError, match="is past"):
        world.client.snooze(key(), instant("11:00"))
    world.client.deactivate(key())
    with pytest.raises(Conflict, match="is inactive already"):
        world.client.snooze(key(), instant("13:00"))


def test_skip_next_leaves_out_the_first_slot_after_the_command(world: World) -> None:
    world.deploy(trigger())
    assert spoken(world.client.skip_next(key()) or 0) == "12:01"
    assert spoken(world.client.skip_next(key()) or 0) == "12:01", "asked twice, it is one slot"
    world.step("12:03")
    assert world.ledger() == ["skip_next 12:01–12:01 ×1", "12:02", "12:03"]


JITTERED = trigger(automation=Cron("0 * * * *"), jitter=timedelta(minutes=50))


def test_skip_next_leaves_out_the_slot_that_waits_out_its_jitter(world: World) -> None:
    world.deploy(JITTERED)
    world.step("13:00")
    due_at = only(world.rows("SELECT due_at FROM trigger_due"))[0]
    assert due_at > instant("13:01"), "its jitter is not over"
    assert (world.at("13:01").next_fire(), spoken(world.client.skip_next(key()) or 0)) == ("13:00", "13:00")
    assert spoken(world.client.skip_next(key()) or 0) == "13:00", "asked twice, it is one slot"
    assert spoken(world.trigger()["skip_next_at"]) == "13:00"
    assert world.next_fire() == "14:00"
    assert [spoken(fire["scheduled_at"]) for fire in simulated(world, "13:01", "16:00")] == ["14:00", "15:00"]
    assert world.step("13:59:59") == []
    assert world.trigger()["skip_next_at"] is None
    assert world.step("14:59:59") == ["14:00"]
    assert world.ledger() == ["skip_next 13:00–13:00 ×1", "14:00"]


def test_skip_next_leaves_out_the_slot_after_one_whose_jitter_is_over(world: World) -> None:
    world.deploy(JITTERED)
    due_at = only(world.rows("SELECT due_at FROM trigger_due"))[0]
    world.at(spoken(due_at - due_at % SECOND + SECOND))
    assert spoken(world.client.skip_next(key()) or 0) == "14:00"
    assert world.step("15:59:59") == ["13:00", "15:00"]


def test_skip_next_of_a_trigger_activated_during_a_jitter_is_not_a_slot_of_before(world: World) -> None:
    world.at("13:00:01").deploy(JITTERED)
    assert spoken(world.client.skip_next(key()) or 0) == "14:00"
    assert [spoken(fire["scheduled_at"]) for fire in simulated(world, "13:00:01", "16:00")] == ["15:00"]


def test_what_is_simulated_leaves_out_the_slot_to_be_skipped_and_keeps_its_fires(world: World) -> None:
    world.deploy(trigger(max_fires=2))
    world.client.skip_next(key())
    assert [spoken(fire["scheduled_at"]) for fire in simulated(world, "12:00", "12:30")] == ["12:02", "12:03"]
    assert world.step("12:01") + world.step("12:02") + world.step("12:10") == ["12:02", "12:03"]


def test_skip_next_of_what_has_fired_its_last_skips_nothing(world: World) -> None:
    world.deploy(trigger(max_fires=1))
    world.step("12:01")
    assert world.client.skip_next(key()) is None


def test_skip_next_of_what_has_fired_by_a_clock_that_was_ahead_skips_nothing(world: World) -> None:
    world.deploy(trigger(automation=At(to_datetime(instant("12:01")))))
    assert world.step("12:01") == ["12:01"]
    world.clock_set_back("12:00:50")
    assert world.next_fire() is None
    assert world.client.skip_next(key()) is None


def simulated(world: World, after: str, until: str) -> Sequence[dict[str, Any]]:
    return world.client.simulate(instant(after), instant(until)).fires


def test_skip_next_of_what_is_inactive_or_finished_skips_nothing(world: World) -> None:
    world.deploy(trigger(active=False), trigger("by-hand", None))
    assert world.client.skip_next(key()) is None
    assert world.client.skip_next(key("by-hand")) is None


# --- a restored backup -----------------------------------------------------------------------------------------------


def test_after_a_restore_nothing_of_before_counts_and_open_runs_are_executed_again(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    (execution,) = world.take()
    assert world.client.restored(catch_up=True) == 1
    assert world.succeed(execution).refused == (execution.run.name,)
    world.recover()
    assert world.phases() == {"12:01": "QUEUED"}
    world.register("w2")
    (again,) = world.take("w2")
    assert (again.key, again.run.lost) == (execution.key, 1)
    assert world.succeed(again).refused == ()


def test_after_a_restore_slots_may_be_caught_up(world: World) -> None:
    world.deploy(trigger())
    world.at("12:05")
    world.client.restored(catch_up=True)
    assert world.fire_all() == ["12:01", "12:02", "12:03", "12:04", "12:05"]


def test_after_a_restore_slots_may_be_skipped_and_open_runs_aborted(world: World) -> None:
    world.register()
    world.deploy(trigger(), trigger("other", active=False))
    world.step("12:01")
    world.take()
    world.at("12:05")
    world.client.restored(catch_up=False)
    assert world.ledger() == ["12:01", "restored 12:02–12:05 ×4"]
    assert world.phases() == {"12:01": "ABORTED"}
    assert only(run["error"] for run in world.runs()) == "aborted: the database was restored from a backup"
    assert world.step("12:06") == ["12:06"]


def test_an_incarnation_of_before_the_restore_counts_no_more_even_where_its_fence_fits(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    (execution,) = world.take()
    world.client.restored(catch_up=True)
    world.recover()
    world.register("w2")
    (again,) = world.take("w2")
    # As if the backup were older than the first taking: both executions bear the same fence.
    world.sql(f"UPDATE runs SET fence = {execution.run.fence}")
    assert world.succeed(execution).refused == (execution.run.name,)
    assert again.run.name == execution.run.name


def test_many_are_snoozed_as_each_of_them_is_and_all_or_none(world: World) -> None:
    world.deploy(trigger("one"), trigger("two"), trigger("off", active=False))
    world.at("12:03:30")
    with pytest.raises(Conflict, match=r"inactive already: .*/off$"):
        world.client.snooze_many([key("one"), key("off")], instant("12:10"))
    with pytest.raises(SpecError, match="is past"):
        world.client.snooze_many([key("one")], instant("12:03"))
    with pytest.raises(NotFound, match="nothing"):
        world.client.snooze_many([key("one"), key("nothing")], instant("12:10"))
    assert world.next_fire("one") == "12:01"
    assert world.client.snooze_many([], instant("12:10")) == []
    assert world.client.snooze_many([key("two"), key("one"), key("two")], instant("12:10")) == [key("one"), key("two")]
    for name in ("one", "two"):
        assert (world.trigger(name)["state"], world.trigger(name)["revision"]) == ("snoozed", 2)
        assert world.next_fire(name) == "12:11"
        assert world.ledger(name) == ["paused 12:01–12:03 ×3"]
