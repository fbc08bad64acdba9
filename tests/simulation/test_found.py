"""What simulated worlds found, each told as the shortest story that shows it, on both databases."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.errors import Conflict
from scheduler.services.cancel import cancel_run
from scheduler.services.finish import Ended
from scheduler.services.reopen import retry_run
from scheduler.services.sync import refresh_summaries, sync_triggers
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import LEASE, World, instant, key, retrying, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    return World(store, clock)


def test_two_ends_of_one_run_in_one_batch_record_the_rightful_one(world: World) -> None:
    world.register("w1")
    world.deploy(trigger())
    world.step("12:01")
    (lost,) = world.take("w1")
    world.lose_worker("w1")
    world.register("w2")
    (again,) = world.take("w2")
    finished = world.finish(Ended(lost, Phase.FAILED, error="late"), Ended(again, Phase.SUCCEEDED))
    assert finished.refused == (again.run.name,)
    assert [finished.counts(Ended(item, Phase.SUCCEEDED)) for item in (lost, again)] == [False, True]
    run = world.run(again.run.name)
    assert (run["phase"], [attempt["phase"] for attempt in run["attempts"]]) == ("SUCCEEDED", ["LOST", "SUCCEEDED"])


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


# --- clocks ----------------------------------------------------------------------------------------------------------


def renew(world: World, *incarnations: str) -> None:
    with world.store.begin() as tx:
        for incarnation in incarnations:
            assert tx.workers.renew(incarnation, LEASE) is not None


def test_nobody_is_declared_dead_by_one_that_has_not_renewed_since_the_clock_was_set_forward(world: World) -> None:
    world.register("judge")
    world.register("w1")
    world.deploy(trigger())
    world.step("12:01")
    renew(world, "w1")
    (held,) = world.take("w1")
    renew(world, "judge")
    world.at("13:00")  # An hour that nobody lived through, so that nobody could renew in it.
    assert world.recover("judge").workers == ()
    assert world.run(held.run.name)["phase"] == "RUNNING"


def test_one_whose_lease_was_over_when_its_judge_renewed_is_declared_dead(world: World) -> None:
    world.register("judge")
    world.register("w1")
    world.at("12:00:31")
    assert world.recover("judge").workers == ()
    renew(world, "judge")
    assert world.recover("judge").workers == ("worker-w1",)


# --- slots -----------------------------------------------------------------------------------------------------------


def test_after_a_clock_set_back_a_pause_accounts_for_slots_that_were_skipped_ahead_of_it(world: World) -> None:
    world.deploy(trigger(calendars=(Calendar("quiet", frozenset({date(2026, 11, 21)})),)))
    world.step("12:02")
    world.clock_set_back("12:00:30")
    world.at("12:04:30").client.deactivate(key())
    assert world.ledger() == ["paused 12:01–12:04 ×4"]


def test_a_slot_held_back_by_its_jitter_is_not_lost_with_those_that_a_restore_skips(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/10 * * * *"), jitter=timedelta(minutes=9)))
    world.at("12:20:01").client.restored(catch_up=False)
    assert world.ledger() == ["restored 12:10–12:10 ×1"]
    assert world.step("12:29:59") == ["12:20"]


def test_a_changed_schedule_fires_nothing_that_overlap_forbids(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    world.step("12:01")
    world.at("12:02:10").sql('UPDATE triggers SET automation = \'{"cron": "*/5 * * * *"}\'')
    world.sync()
    assert world.ledger() == ["12:01", "overlap 12:02–12:02 ×1"]


def test_activating_what_a_snooze_has_long_released_loses_no_slot(world: World) -> None:
    world.deploy(trigger())
    world.client.snooze(key(), instant("12:01:30"))
    world.at("12:30")
    assert not world.client.activate(key())
    assert world.step() == [f"12:{minute}" for minute in range(19, 31)]


def test_a_snoozed_trigger_that_cannot_be_planned_still_owes_every_slot(world: World) -> None:
    world.deploy(trigger())
    world.at("12:03:30").sql("UPDATE triggers SET version = 'v9'")
    world.client.snooze(key(), instant("12:05"))
    world.at("12:03:40").client.deactivate(key())
    assert world.ledger() == ["paused 12:01–12:03 ×3"]


def test_a_pause_skips_the_slot_of_a_set_aside_trigger_that_its_jitter_still_held_back(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/10 * * * *"), jitter=timedelta(minutes=9)))
    world.sql("UPDATE triggers SET version = 'v9'")
    world.sync()
    world.at("12:10:01").client.deactivate(key())
    assert world.ledger() == ["paused 12:10–12:10 ×1"]


def test_a_change_fires_no_slot_of_a_set_aside_trigger_before_its_jitter_is_over(world: World) -> None:
    world.register()
    world.deploy(trigger(automation=Cron("*/10 * * * *"), jitter=timedelta(minutes=9)))
    world.sql("UPDATE triggers SET version = 'v9'")
    world.sync()
    world.at("12:10:01").deploy(trigger(automation=Cron("5 * * * *")))
    assert (world.ledger(), world.next_fire()) == (["12:10"], "13:05")
    assert world.take() == []


def test_a_finished_trigger_that_is_asked_for_by_itself_stays_finished(world: World) -> None:
    world.deploy(trigger(max_fires=1))
    assert world.step("12:01") == ["12:01"]
    world.fire(only=1)
    assert world.next_fire() is None


def test_a_set_aside_trigger_that_is_asked_for_by_itself_fires_nothing(world: World) -> None:
    world.deploy(trigger())
    world.sql("UPDATE triggers SET version = 'v9'")
    world.sync()
    assert world.at("12:02").fire(only=1).runs == ()
    assert (world.ledger(), world.next_fire()) == ([], None)


def test_what_is_set_aside_and_written_to_takes_one_place_in_a_batch(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.sql("UPDATE triggers SET version = 'v9'")
    world.sync("other code")
    world.sql("UPDATE triggers SET max_fires = 3 WHERE name = 'a'")
    assert world.store.run(sync_triggers, world.planning, 2)[0] == 2
    assert {fingerprint for (fingerprint,) in world.rows("SELECT error_fingerprint FROM triggers")} == {"one"}


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_fired_by_hand_pins_the_version_that_is_written_down(world: World) -> None:
    world.deploy(trigger(), version="v1", spec=TaskSpec("logging", config={"said": 1}))
    world.deploy(trigger(), version="v2", spec=TaskSpec("logging", config={"said": 2}))
    world.sql("UPDATE triggers SET version = 'v1'")
    name = world.client.fire(key())
    world.register("w1")
    (execution,) = world.take("w1")
    assert (execution.run.name, execution.run.version, execution.spec.config) == (name, "v1", {"said": 1})


def test_a_version_that_does_not_exist_is_not_fired_by_hand(world: World) -> None:
    world.deploy(trigger())
    world.sql("UPDATE triggers SET version = 'v9'")
    with pytest.raises(Conflict, match="'v9'"):
        world.client.fire(key())


def test_a_failed_attempt_of_a_cancelled_run_is_its_last(world: World) -> None:
    world.register("w1")
    world.deploy(trigger(), spec=retrying())
    world.step("12:01")
    (execution,) = world.take("w1")
    world.store.run(cancel_run, execution.run.name, by="tester")
    finished = world.fail(execution)
    run = world.run(execution.run.name)
    assert (finished.retried, run["phase"], run["attempt"], len(run["attempts"])) == ((), "ABORTED", 1, 1)


def test_a_run_that_begins_again_obeys_the_limit_its_task_was_given_meanwhile(world: World) -> None:
    world.register("w1")
    world.deploy(trigger())
    world.step("12:02")
    for execution in world.take("w1"):
        world.fail(execution)
    world.deploy(trigger(), version="v2", spec=TaskSpec("logging", max_concurrent_runs=1))
    for run in world.runs():
        world.store.run(retry_run, run["name"])
    assert len(world.take("w1")) == 1


def test_a_trigger_at_an_older_version_obeys_its_tasks_limit(world: World) -> None:
    world.register("w1")
    world.deploy(trigger(), version="v1")
    world.deploy(trigger(), version="v2", spec=TaskSpec("logging", max_concurrent_runs=1))
    world.sql("UPDATE triggers SET version = 'v1'")
    world.step("12:03")
    assert len(world.take("w1")) == 1


def test_a_deploy_that_tells_a_trigger_to_be_active_loses_none_of_its_slots(world: World) -> None:
    world.deploy(trigger(active=False))
    world.client.activate(key())
    world.client.snooze(key(), instant("12:01:30"))
    world.at("12:05").deploy(trigger())
    assert world.step() == ["12:02", "12:03", "12:04", "12:05"]


def test_nobody_is_declared_dead_by_one_that_has_not_renewed_since_the_clock_was_set_back(world: World) -> None:
    world.register("judge")
    world.at("12:00:10").register("w1")
    world.at("11:59:35")  # Ahead of now lies one renewal by less than a lease, the other by more.
    assert world.recover("judge").workers == ()


def test_one_that_began_after_the_clock_was_set_is_not_declared_dead_by_one_that_has_not_renewed(world: World) -> None:
    for moment in ("11:00", "13:00"):
        world.at("12:00").register(f"judge of {moment}")
        world.at(moment).register(f"w1 of {moment}")
        assert f"worker-w1 of {moment}" not in world.recover(f"judge of {moment}").workers


def test_a_text_that_was_never_planned_does_not_speak_for_the_slots_that_were_owed(world: World) -> None:
    world.deploy(trigger())
    world.sql("UPDATE triggers SET version = 'v9'")
    world.sync()
    world.at("12:10:30").sql('UPDATE triggers SET automation = \'{"cron": "*/5 * * * *"}\'')
    world.sync()
    world.at("12:20:30").deploy(trigger(), version="v9")
    assert (world.ledger(), world.next_fire()) == (["schedule_changed 12:01–12:01 ×1"], "12:25")
