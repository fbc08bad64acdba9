"""What becomes of a slot while an earlier run of its trigger is open, and how many runs of a task start at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.domain.automation import FixedRate
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import PLENTY, World, key, only, retrying, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def started(world: World, owner: str = "w1") -> list[str]:
    return [spoken(execution.run.scheduled_at or 0) for execution in world.take(owner)]


def test_skip_leaves_out_every_slot_while_a_run_is_open(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    assert world.step("12:01") == ["12:01"]
    assert world.step("12:02") == []
    (execution,) = world.take()
    assert world.step("12:03") == []
    world.succeed(execution)
    assert world.step("12:04") == ["12:04"]
    assert world.ledger() == ["12:01", "overlap 12:02–12:03 ×2", "12:04"]


def test_a_run_that_waits_for_its_retry_is_open(world: World) -> None:
    world.deploy(trigger(overlap="skip"), spec=retrying())
    world.step("12:01")
    world.fail(*world.take())
    assert world.step("12:02") == []


def test_buffer_one_lets_one_run_wait(world: World) -> None:
    world.deploy(trigger(overlap="buffer_one"))
    world.step("12:01")
    (execution,) = world.take()
    assert world.step("12:02") == ["12:02"]
    assert world.step("12:03") == []
    assert started(world) == []
    world.succeed(execution)
    assert started(world) == ["12:02"]
    assert world.ledger() == ["12:01", "12:02", "overlap 12:03–12:03 ×1"]


def test_buffer_all_keeps_a_thousand_open_and_skips_the_rest(world: World) -> None:
    world.deploy(trigger(overlap="buffer_all", catchup=CatchUp(window=timedelta(days=30), max_runs=5_000)))
    world.step("22 06:00")
    kinds = world.client.list_slots(key(), 5_000)
    assert sum(entry["kind"] == "run" for entry in kinds) == 1_000
    assert [(entry["reason"], entry["count"]) for entry in kinds if entry["kind"] == "skipped"] == [("buffer_full", 80)]


def test_buffered_runs_start_one_at_a_time_oldest_first(world: World) -> None:
    world.deploy(trigger(overlap="buffer_all"))
    for minute in ("12:01", "12:02", "12:03"):
        world.step(minute)
    seen = []
    while found := world.take():
        seen.append(spoken(only(found).run.scheduled_at or 0))
        world.succeed(*found)
    assert seen == ["12:01", "12:02", "12:03"]


def test_cancel_other_ends_what_waits_and_asks_what_runs_to_end(world: World) -> None:
    world.deploy(trigger(overlap="cancel_other"))
    world.step("12:01")
    (first,) = world.take()
    world.step("12:02")
    assert world.run(first.run.name)["aborting"]
    assert started(world) == []
    world.step("12:03")
    assert world.phases() == {"12:01": "RUNNING", "12:02": "ABORTED", "12:03": "QUEUED"}
    world.fail(first)
    assert started(world) == ["12:03"]


def test_of_slots_decided_together_only_the_newest_is_kept(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    assert world.step("12:05") == ["12:05"]
    assert world.ledger() == ["overlap 12:01–12:04 ×4", "12:05"]


def test_the_newest_speaks_for_a_gap(world: World) -> None:
    world.deploy(trigger(overlap="skip", catchup=CatchUp("gap")))
    world.step("12:10")
    run = world.run(only(world.runs())["name"])
    assert spoken(run["scheduled_at"]) == "12:10"
    assert [spoken(moment) for moment in run["covers"]] == ["12:01", "12:08"]


def test_a_serial_run_is_taken_as_it_fires_where_nothing_else_is_open(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    world.at("12:01")
    fired = world.fire(owner="w1", room={"logging": 5}, places=5)
    assert len(fired.taken) == 1
    assert world.phases() == {"12:01": "RUNNING"}


def test_of_several_serial_runs_fired_together_only_the_first_is_taken(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(10, "second"), overlap="buffer_all"))
    fired = world.at("12:01:10").fire(owner="w1", room=PLENTY, places=9)
    assert len(fired.runs) == 7
    assert [spoken(run.scheduled_at or 0) for run in fired.taken] == ["12:00:10"]
    assert sorted(world.phases().values()) == ["QUEUED"] * 6 + ["RUNNING"]
    assert world.take() == []


def test_a_serial_run_is_not_taken_as_it_fires_while_an_earlier_one_is_open(world: World) -> None:
    world.deploy(trigger(overlap="buffer_all"))
    assert len(world.at("12:01").fire(owner="w1", room=PLENTY, places=9).taken) == 1
    fired = world.at("12:02").fire(owner="w1", room=PLENTY, places=9)
    assert (len(fired.runs), fired.taken) == (1, ())


def test_manual_runs_neither_count_nor_wait(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    world.client.fire(key())
    assert world.step("12:01") == ["12:01"]
    assert len(world.take()) == 2
    world.client.fire(key())
    assert len(world.take()) == 1


def test_an_overlap_that_plain_sql_set_holds_for_the_next_slot(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql("UPDATE triggers SET overlap = 'skip'")
    assert world.step("12:02") == []


def test_overlapping_slots_do_not_use_up_max_fires(world: World) -> None:
    world.deploy(trigger(overlap="skip", max_fires=2))
    world.step("12:01")
    world.step("12:02")
    world.succeed(*world.take())
    assert world.step("12:03") == ["12:03"]
    assert world.trigger()["state"] == "finished"


def test_a_serial_attempt_has_a_day_where_its_task_names_no_time(world: World) -> None:
    world.deploy(trigger(overlap="skip"), trigger("free"))
    world.step("12:01")
    times = {execution.trigger: execution.timeout for execution in world.take()}
    assert times == {"nightly": timedelta(hours=24), "free": None}


# --- limits ----------------------------------------------------------------------------------------------------------


def limited(limit: int) -> TaskSpec:
    return TaskSpec("logging", max_concurrent_runs=limit)


def test_a_task_limit_holds_over_all_workers(world: World) -> None:
    world.register("w2")
    world.deploy(*(trigger(f"t{n}") for n in range(5)), spec=limited(2))
    world.step("12:01")
    first = world.take("w1")
    assert len(first) == 2
    assert world.take("w2") == []
    world.succeed(first[0])
    assert len(world.take("w2")) == 1
    assert world.take("w1") == []


def test_a_saturated_task_hides_nobody_elses_runs(world: World) -> None:
    world.deploy(*(trigger(f"t{n}") for n in range(30)), spec=limited(1))
    world.deploy(trigger("other"), task="bill")
    world.step("12:01")
    assert {execution.task for execution in world.take(on_time=10)} == {"report", "bill"}


def test_a_limit_that_a_deploy_brings_or_takes_away_holds_for_runs_already_queued(world: World) -> None:
    triggers = [trigger(f"t{n}") for n in range(4)]
    world.deploy(*triggers)
    world.step("12:01")
    (running,) = world.take(on_time=1)
    world.deploy(*triggers, version="v2", spec=limited(2))
    assert len(world.take()) == 1, "what ran before the limit came counts"
    world.deploy(*triggers, version="v3")
    assert len(world.take()) == 2
    world.succeed(running)


def test_a_limit_that_comes_back_holds_for_runs_of_triggers_deleted_meanwhile(world: World) -> None:
    world.deploy(trigger(), spec=limited(1))
    for _ in range(3):
        world.client.fire(key())
    world.deploy(version="v2")
    world.deploy(trigger("other"), version="v3", spec=limited(1))
    assert len(world.take()) == 1


def test_a_limit_holds_for_triggers_that_another_source_deployed(world: World) -> None:
    world.deploy(trigger("a"), source="api")
    world.deploy(trigger("b"), version="v2", spec=limited(1))
    world.step("12:03")
    assert len(world.take()) == 1


def test_a_manual_run_obeys_its_tasks_limit(world: World) -> None:
    world.deploy(trigger(), spec=limited(1))
    for _ in range(2):
        world.client.fire(key())
    assert len(world.take()) == 1
    waiting = [run for run in world.runs() if run["phase"] == "QUEUED"]
    assert world.run(only(waiting)["name"])["waiting_for"] == "its task, of which 1 of 1 runs are under way"


def test_more_limited_tasks_than_are_looked_at_in_one_call_all_have_their_turn(world: World) -> None:
    for number in range(230):
        world.deploy(trigger(), task=f"task{number:03}", spec=limited(1))
    world.step("12:01")
    assert len(world.take(on_time=10_000)) in (200, 230)
    assert len(world.runs(phase="QUEUED")) <= 30
    from scheduler.services.take import take_runs

    after = 0
    for _ in range(3):
        after = world.store.run(take_runs, "w1", {"logging": 10_000}, on_time=10_000, late=0, after=after).after
    assert world.runs(phase="QUEUED") == []


def test_a_late_run_waits_for_its_turn_as_well(world: World) -> None:
    world.deploy(trigger(overlap="buffer_all"), spec=limited(1))
    world.step("12:10")
    assert len(world.take()) == 1
    assert world.take() == []
