"""Cancelling runs, trying ended ones again, and runs that nobody starts before their deadline."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import Overlap
from scheduler.errors import Conflict, NotFound
from scheduler.services.finish import Ended
from scheduler.services.recover import expire_runs
from scheduler.services.take import Execution, next_ready_at
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World, key, only, retrying, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def running(world: World, spec: TaskSpec | None = None) -> Execution:
    world.deploy(trigger(), spec=spec)
    world.step("12:01")
    execution: Execution = only(world.take())
    return execution


def shown(world: World) -> dict[str, object]:
    return world.run(only(world.runs())["name"])


def intended(world: World, owner: str = "w1") -> dict[tuple[str, int], str]:
    return world.store.run(lambda tx: tx.runs.intended(owner))


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_a_queued_run_is_aborted_at_once(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    name = only(world.runs())["name"]
    assert world.client.cancel_run(name).ended == (name,)
    run = shown(world)
    assert (run["phase"], run["error"], run["attempts"]) == ("ABORTED", "cancelled by tester", [])
    assert run["finished_at"] is not None
    assert world.take() == []


def test_a_running_run_is_aborted_when_its_code_has_ended(world: World) -> None:
    execution = running(world)
    assert world.client.cancel_run(execution.run.name).ending == (execution.run.name,)
    assert (shown(world)["phase"], shown(world)["aborting"]) == ("RUNNING", True)
    assert intended(world) == {(execution.run.name, 1): "cancelled by tester"}
    world.finish(Ended(execution, Phase.ABORTED, error="cancelled by tester", retryable=False, known=False))
    assert (shown(world)["phase"], shown(world)["aborting"]) == ("ABORTED", False)
    assert intended(world) == {}


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_an_answer_that_comes_before_the_code_was_ended_stands(world: World, phase: Phase) -> None:
    execution = running(world)
    world.client.cancel_run(execution.run.name)
    world.finish(Ended(execution, phase, outputs={"rows": 3} if phase is Phase.SUCCEEDED else None))
    assert shown(world)["phase"] == phase
    assert shown(world)["outputs"] == ({"rows": 3} if phase is Phase.SUCCEEDED else None)


def test_a_cancelled_run_is_not_tried_again(world: World) -> None:
    execution = running(world, retrying())
    world.client.cancel_run(execution.run.name)
    world.fail(execution)
    assert shown(world)["phase"] == "ABORTED"
    assert [attempt["phase"] for attempt in shown(world)["attempts"]] == ["FAILED"]  # type: ignore[attr-defined]


def test_a_retry_that_waits_is_aborted_at_once(world: World) -> None:
    execution = running(world, retrying())
    world.fail(execution)
    assert world.client.cancel_run(execution.run.name).ended == (execution.run.name,)
    assert shown(world)["phase"] == "ABORTED"


def test_a_cancelled_run_whose_worker_is_lost_is_aborted(world: World) -> None:
    execution = running(world)
    world.client.cancel_run(execution.run.name)
    world.lose_worker("w1")
    assert (shown(world)["phase"], shown(world)["lost"]) == ("ABORTED", 1)
    assert shown(world)["error"] == "cancelled by tester; its worker was lost"
    assert world.succeed(execution).refused == (execution.run.name,)


def test_a_cancelled_run_that_is_handed_back_is_aborted(world: World) -> None:
    execution = running(world)
    world.client.cancel_run(execution.run.name)
    assert world.hand_back("w1", execution) == 1
    assert (shown(world)["phase"], shown(world)["error"]) == ("ABORTED", "cancelled by tester")


@pytest.mark.parametrize("overlap", ["allow_all", "buffer_all"])
def test_a_queued_run_whose_end_is_intended_is_not_started(world: World, overlap: Overlap) -> None:
    world.deploy(trigger(overlap=overlap))
    world.step("12:01")
    world.sql("UPDATE runs SET intent = 'cancel', intent_note = 'by plain SQL'")
    assert world.take() == []
    assert world.store.run(next_ready_at, ["logging"]) is None
    world.sql("UPDATE runs SET intent = NULL")
    assert len(world.take()) == 1


def test_a_run_whose_end_is_intended_keeps_no_other_from_its_tasks_place(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), spec=TaskSpec("logging", max_concurrent_runs=1))
    world.step("12:01")
    world.sql("UPDATE runs SET intent = 'cancel' WHERE substr(name, 1, 2) = 'a-'")
    assert [execution.trigger for execution in world.take()] == ["b"]


def test_a_second_cancel_of_a_running_run_changes_nothing(world: World) -> None:
    execution = running(world)
    world.client.cancel_run(execution.run.name)
    assert world.client.cancel_run(execution.run.name).ending == (execution.run.name,)


def test_what_is_over_or_unknown_cannot_be_cancelled(world: World) -> None:
    execution = running(world)
    world.succeed(execution)
    with pytest.raises(Conflict, match="is SUCCEEDED already"):
        world.client.cancel_run(execution.run.name)
    with pytest.raises(NotFound):
        world.client.cancel_run("nobody")


# --- again -----------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_tried_once_more_under_a_new_key(world: World) -> None:
    execution = running(world)
    world.fail(execution)
    world.client.retry_run(execution.run.name)
    again = only(world.take())
    assert (again.run.attempt, again.key) == (2, execution.run.name + "-2")
    world.succeed(again)
    assert [attempt["phase"] for attempt in shown(world)["attempts"]] == ["FAILED", "SUCCEEDED"]  # type: ignore[attr-defined]


def test_a_timed_out_run_is_tried_again_under_the_same_key(world: World) -> None:
    execution = running(world)
    world.finish(Ended(execution, Phase.TIMED_OUT, error="timeout", known=False))
    world.client.retry_run(execution.run.name)
    assert only(world.take()).key == execution.run.name


def test_a_run_that_never_started_is_tried_again_as_its_first_attempt(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    name = only(world.runs())["name"]
    world.client.cancel_run(name)
    world.client.retry_run(name)
    assert only(world.take()).run.attempt == 1
    assert not shown(world)["aborting"]


def test_a_retried_run_that_fails_again_ends(world: World) -> None:
    execution = running(world)
    world.fail(execution)
    world.client.retry_run(execution.run.name)
    world.fail(*world.take())
    assert shown(world)["phase"] == "FAILED"
    assert world.succeed(execution).refused == (execution.run.name,), "the first attempt's result comes too late"


def test_what_is_open_or_succeeded_is_not_tried_again(world: World) -> None:
    execution = running(world)
    with pytest.raises(Conflict, match="is RUNNING"):
        world.client.retry_run(execution.run.name)
    world.succeed(execution)
    with pytest.raises(Conflict, match="is SUCCEEDED: fire its trigger"):
        world.client.retry_run(execution.run.name)
    with pytest.raises(NotFound):
        world.client.retry_run("nobody")


def test_what_attempts_printed_can_be_read(world: World) -> None:
    execution = running(world)
    world.finish(Ended(execution, Phase.FAILED, error="no", output="line\n"))
    assert world.client.run_output(execution.run.name) == [{"attempt": 1, "phase": "FAILED", "output": "line\n"}]
    with pytest.raises(NotFound):
        world.client.run_output("nobody")


# --- deadlines -------------------------------------------------------------------------------------------------------


def expire(world: World) -> tuple[str, ...]:
    return world.store.run(expire_runs, 100, world.planning)[0]


def test_a_queued_run_ends_at_its_deadline_and_is_not_started_after_it(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", deadline=timedelta(seconds=90)))
    world.step("12:01")
    assert expire(world) == ()
    assert world.store.run(lambda tx: tx.runs.next_deadline()) == world.clock.now() + 90_000_000
    world.at("12:02:30")
    assert world.take() == []
    assert expire(world) == (only(world.runs())["name"],)
    assert (shown(world)["phase"], shown(world)["error"]) == (
        "TIMED_OUT",
        "the deadline was over before it could start",
    )


def test_a_retry_whose_turn_never_comes_keeps_its_last_error(world: World) -> None:
    execution = running(world, retrying(deadline=timedelta(minutes=5)))
    world.fail(execution)
    world.at("12:06")
    expire(world)
    assert shown(world)["phase"] == "TIMED_OUT"
    assert shown(world)["error"] == "the deadline was over before it could start again; before: it broke"


def test_a_deadline_counts_anew_for_a_run_that_is_tried_again(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", deadline=timedelta(minutes=1)))
    world.step("12:01")
    world.at("12:03")
    expire(world)
    name = only(world.runs())["name"]
    world.client.retry_run(name)
    assert only(world.take()).run.name == name


# --- pause on failure ------------------------------------------------------------------------------------------------


def fail_next(world: World, minute: int) -> None:
    world.step(f"12:{minute:02}")
    world.fail(*world.take())


def test_a_trigger_whose_runs_keep_failing_is_deactivated_with_a_note(world: World) -> None:
    world.deploy(trigger(pause_on_failure=3))
    for minute in (1, 2):
        fail_next(world, minute)
    assert world.trigger()["active"]
    world.step("12:03")
    finished = world.fail(*world.take())
    assert finished.paused == ("flytesnacks/development/report/nightly",)
    assert (world.trigger()["active"], world.trigger()["revision"]) == (False, 2)
    assert world.rows("SELECT action, note FROM trigger_revisions WHERE revision = 2") == [
        ("DEACTIVATE", "paused after 3 failed runs in a row")
    ]
    assert world.step("12:04") == []
    assert world.client.list_tasks()[0]["active_triggers"] == 0


def test_a_success_between_failures_begins_the_count_anew_and_aborted_runs_do_not(world: World) -> None:
    world.deploy(trigger(pause_on_failure=2))
    fail_next(world, 1)
    world.step("12:02")
    world.succeed(*world.take())
    fail_next(world, 3)
    world.step("12:04")
    world.client.cancel_run(world.runs(phase="QUEUED")[0]["name"])
    assert world.trigger()["active"]
    fail_next(world, 5)
    assert not world.trigger()["active"]


def test_failures_before_an_activation_do_not_count(world: World) -> None:
    world.deploy(trigger(pause_on_failure=2))
    fail_next(world, 1)
    fail_next(world, 2)
    world.client.activate(key())
    fail_next(world, 3)
    assert world.trigger()["active"]
    fail_next(world, 4)
    assert not world.trigger()["active"]


def test_a_run_that_will_be_tried_again_has_not_failed_and_manual_runs_do_not_count(world: World) -> None:
    world.deploy(trigger(pause_on_failure=1), spec=retrying(2))
    world.step("12:01")
    world.fail(*world.take())
    assert world.trigger()["active"]
    world.client.fire(key())
    world.clock.advance(3)
    for execution in world.take():
        world.finish(Ended(execution, Phase.FAILED, error="no", retryable=False))
    assert world.trigger()["active"]


def test_lost_and_overdue_runs_pause_as_well(world: World) -> None:
    world.deploy(trigger(pause_on_failure=1), spec=TaskSpec("logging", on_lost="fail"))
    world.step("12:01")
    world.take()
    assert world.lose_worker("w1").paused == ("flytesnacks/development/report/nightly",)
    world.deploy(
        trigger("late", pause_on_failure=1), task="bill", spec=TaskSpec("logging", deadline=timedelta(seconds=1))
    )
    world.step("12:05")
    world.at("12:06")
    assert world.store.run(expire_runs, 100, world.planning)[1] == ("flytesnacks/development/bill/late",)
