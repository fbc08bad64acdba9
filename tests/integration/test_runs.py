"""Runs in workers' hands: taken under a fence, finished once, tried again, taken back from workers that are gone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.domain.instants import SECOND
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.services.finish import Ended
from scheduler.services.take import Execution, next_ready_at
from tests.integration.worlds import LEASE, PLENTY, World, instant, key, only, retrying, spoken, trigger


def running(world: World, spec: TaskSpec | None = None) -> Execution:
    """A run of worker w1, fired and taken at 12:01."""
    world.register()
    world.deploy(trigger(), spec=spec)
    world.step("12:01")
    execution: Execution = only(world.take())
    return execution


def row(world: World) -> dict[str, object]:
    name = only(world.runs())["name"]
    columns = "phase, attempt, known_ends, lost, owner, fence, not_before, error, finished_at"
    values = only(world.rows(f"SELECT {columns} FROM runs WHERE name = '{name}'"))
    return dict(zip(columns.split(", "), values, strict=True))


# --- taking ---------------------------------------------------------------------------------------------------------


def test_a_taken_run_is_running_under_its_worker_and_nobody_else_gets_it(world: World) -> None:
    execution = running(world)
    assert (execution.run.fence, execution.run.attempt, execution.trigger) == (1, 1, "nightly")
    assert row(world)["owner"] == "w1"
    assert world.take("w2") == []


def test_a_worker_takes_only_what_its_executors_can_do(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    taken = world.store.run(lambda tx: tx.runs.take("w1", {"shell": 5}, late=False, limit=9, now=tx.now()))
    assert taken == []


def test_a_worker_takes_no_more_than_its_executors_have_room_for(world: World) -> None:
    world.register()
    world.deploy(*(trigger(f"t{number}") for number in range(5)))
    world.deploy(trigger(), task="other", spec=TaskSpec("shell"))
    world.step("12:01")
    room = {"logging": 2, "shell": 3}
    taken = world.store.run(lambda tx: tx.runs.take("w1", room, late=False, limit=9, now=tx.now()))
    assert sorted(run.executor for run in taken) == ["logging", "logging", "shell"]


def test_late_runs_are_taken_round_robin_over_their_triggers(world: World) -> None:
    world.register()
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:05:30")
    assert len(world.take(late=0)) == 2
    taken = [(item.trigger, spoken(item.run.scheduled_at or 0)) for item in world.take(late=4)]
    assert sorted(taken[:2]) == [("a", "12:01"), ("b", "12:01")]
    assert sorted(taken[2:]) == [("a", "12:02"), ("b", "12:02")]


def test_a_firing_worker_takes_its_on_time_runs_in_the_same_transaction(world: World) -> None:
    world.register()
    world.deploy(*(trigger(f"t{number}") for number in range(4)))
    fired = world.at("12:01").fire(owner="w1", room=PLENTY, places=3)
    assert (len(fired.runs), len(fired.taken)) == (4, 3)
    assert sorted(world.rows("SELECT phase, count(*) FROM runs GROUP BY phase")) == [("QUEUED", 1), ("RUNNING", 3)]
    assert {run.fence for run in fired.taken} == {1}
    assert world.succeed(*world.executions(fired.taken)).refused == ()


def test_a_firing_worker_leaves_late_runs_to_the_queue(world: World) -> None:
    world.register()
    world.deploy(trigger())
    fired = world.at("12:03:30").fire(owner="w1", room=PLENTY, places=9)
    assert [spoken(run.scheduled_at or 0) for run in fired.taken] == ["12:03"]


def test_a_run_pins_its_version_specification_and_inputs_when_it_fires(world: World) -> None:
    world.register()
    spec = retrying(inputs={"a": 1, "b": 1, "c": 1})
    world.deploy(trigger(inputs={"b": 2}, kickoff_time_input_arg="c"), spec=spec)
    world.step("12:01")
    world.deploy(trigger(inputs={"b": 3}), spec=TaskSpec("logging", inputs={"a": 9}), version="v2")
    first = only(world.take())
    expected = {"a": 1, "b": 2, "c": "2026-11-21T12:01:00Z"}
    assert (first.run.version, first.spec, first.inputs) == ("v1", spec, expected)
    world.fail(first)
    world.clock.advance(15)
    again = only(world.take())
    assert (again.run.version, again.spec, again.inputs) == ("v1", spec, expected)


# --- finishing ------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_closed_with_its_attempt_recorded(world: World) -> None:
    execution = running(world)
    world.clock.advance(3)
    done = Ended(execution, Phase.SUCCEEDED, outputs={"rows": 7}, output="hello")
    assert world.finish(done).counted == {execution.run.name}
    run = world.run(execution.run.name)
    assert (run["phase"], run["outputs"], run["finished_at"]) == ("SUCCEEDED", {"rows": 7}, world.clock.now())
    assert [(item["attempt"], item["phase"], item["worker"]) for item in run["attempts"]] == [
        (1, "SUCCEEDED", "worker-w1")
    ]
    assert row(world)["owner"] is None


def test_a_result_counts_only_once(world: World) -> None:
    execution = running(world)
    world.succeed(execution)
    late = world.fail(execution)
    assert (late.counted, late.refused) == (frozenset(), (execution.run.name,))
    assert row(world)["phase"] == "SUCCEEDED"
    assert len(world.run(execution.run.name)["attempts"]) == 1


def test_results_of_many_runs_are_recorded_together(world: World) -> None:
    world.register()
    world.deploy(*(trigger(f"t{number}") for number in range(40)), spec=retrying())
    world.step("12:01")
    taken = world.take()
    ended = [Ended(item, Phase.SUCCEEDED if place % 2 else Phase.FAILED) for place, item in enumerate(taken)]
    finished = world.finish(*ended)
    assert (len(finished.counted), len(finished.retried)) == (40, 20)
    assert sorted(world.rows("SELECT phase, count(*) FROM runs GROUP BY phase")) == [("QUEUED", 20), ("SUCCEEDED", 20)]


# --- retries --------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_queued_again_with_back_off(world: World) -> None:
    execution = running(world, retrying(3))
    finished = world.fail(execution)
    assert finished.retried == (execution.run.name,)
    state = row(world)
    assert (state["phase"], state["attempt"], state["error"]) == ("QUEUED", 2, "it broke")
    wait = int(str(state["not_before"])) - world.clock.now()
    assert 8 * SECOND <= wait <= 12 * SECOND
    assert world.take() == []
    assert world.store.run(next_ready_at, ["logging"]) == state["not_before"]
    world.clock.advance(12)
    assert only(world.take()).run.attempt == 2


def test_the_last_attempt_ends_the_run(world: World) -> None:
    execution = running(world, retrying(2))
    world.fail(execution)
    world.clock.advance(60)
    world.fail(only(world.take()))
    run = world.run(execution.run.name)
    assert (run["phase"], run["attempt"], run["error"]) == ("FAILED", 2, "it broke")
    assert [item["attempt"] for item in run["attempts"]] == [1, 2]


def test_a_permanent_failure_is_not_tried_again(world: World) -> None:
    world.fail(running(world, retrying(5)), retryable=False)
    assert row(world)["phase"] == "FAILED"


def test_a_target_that_asks_for_more_time_gets_it(world: World) -> None:
    world.fail(running(world, retrying()), retry_after=timedelta(minutes=10))
    assert row(world)["not_before"] == world.clock.now() + 600 * SECOND


def test_a_retry_that_could_not_start_before_the_deadline_ends_the_run_now(world: World) -> None:
    execution = running(world, retrying(9, deadline=timedelta(seconds=15)))
    world.clock.advance(8)
    world.fail(execution)
    run = world.run(execution.run.name)
    assert (run["phase"], run["attempt"], run["error"]) == ("FAILED", 1, "it broke")


def test_the_key_changes_only_after_an_end_that_is_known(world: World) -> None:
    execution = running(world, retrying(9))
    name = execution.run.name
    assert execution.key == name
    world.finish(Ended(execution, Phase.TIMED_OUT))
    world.clock.advance(3_600)
    after_timeout = only(world.take())
    assert after_timeout.key == name
    world.fail(after_timeout, known=False)
    world.clock.advance(3_600)
    after_broken_connection = only(world.take())
    assert after_broken_connection.key == name
    world.fail(after_broken_connection)
    world.clock.advance(3_600)
    after_known_end = only(world.take())
    assert after_known_end.key == f"{name}-2"
    world.sql("UPDATE workers SET lease_until = 0")
    world.recover()
    world.register("w2")
    assert only(world.take("w2")).key == f"{name}-2"


def test_attempts_go_on_beyond_what_sixteen_bits_count(world: World) -> None:
    running(world, retrying(40_000))
    name = only(world.runs())["name"]
    world.sql("UPDATE runs SET attempt = 32766, known_ends = 32766, lost = 32766, phase = 'QUEUED', owner = NULL")
    for attempt in range(32_766, 32_770):
        execution = only(world.take())
        assert (execution.run.attempt, execution.key) == (attempt, f"{name}-{attempt + 1}")
        world.fail(execution)
        world.clock.advance(5_000)
    for incarnation in ("w2", "w3"):
        world.sql("UPDATE workers SET lease_until = 0")
        world.sql("UPDATE runs SET phase = 'RUNNING', owner = 'w1'")
        world.recover(max_lost=32_768)
        world.sql("UPDATE runs SET not_before = 0")
        world.register(incarnation)
    run = world.run(name)
    assert (run["phase"], run["attempt"], run["lost"]) == ("FAILED", 32_770, 32_768)
    assert [item["attempt"] for item in run["attempts"] if item["phase"] == "FAILED"] == [*range(32_766, 32_771)]


# --- lost workers ---------------------------------------------------------------------------------------------------


def test_runs_of_a_worker_whose_lease_is_over_are_queued_again_at_once(world: World) -> None:
    execution = running(world)
    recovered = world.lose_worker("w1")
    assert recovered.workers == ("worker-w1",)
    assert recovered.requeued == (execution.run.name,)
    state = row(world)
    assert (state["phase"], state["lost"], state["attempt"], state["owner"]) == ("QUEUED", 1, 1, None)
    assert state["not_before"] == world.clock.now()


def test_each_execution_whose_worker_was_lost_is_shown(world: World) -> None:
    first = running(world)
    world.lose_worker("w1")
    lost_at = world.clock.now()
    world.register("w2")
    second = only(world.take("w2"))
    world.clock.advance(5)
    world.succeed(second)
    run = world.run(first.run.name)
    assert [(item["attempt"], item["phase"], item["worker"]) for item in run["attempts"]] == [
        (1, "LOST", "worker-w1"),
        (1, "SUCCEEDED", "worker-w1"),  # The test's worlds have one worker that writes all ends.
    ]
    lost = run["attempts"][0]
    assert (lost["started_at"], lost["finished_at"]) == (first.run.started_at, lost_at)
    assert lost["error"] == "lost its worker"
    # What attempts printed is kept by attempt, and a lost execution leaves nothing.
    assert [item["attempt"] for item in world.client.run_output(run["name"])] == [1]


def test_losses_are_shown_with_the_attempt_that_was_under_way_and_the_last_one_as_the_end(world: World) -> None:
    execution = running(world, retrying(2))
    world.fail(execution)
    world.clock.advance(60)
    world.take()
    world.lose_worker("w1")
    world.register("w2")
    world.take("w2")
    world.clock.advance(LEASE / SECOND + 1)
    world.recover(max_lost=2)
    run = world.run(execution.run.name)
    assert (run["phase"], run["lost"], run["error"]) == ("FAILED", 2, "lost its worker 2 times")
    assert [(item["attempt"], item["phase"]) for item in run["attempts"]] == [
        (1, "FAILED"),
        (2, "LOST"),
        (2, "FAILED"),
    ]


def test_a_run_whose_worker_was_lost_and_that_was_handed_back_shows_the_loss_alone(world: World) -> None:
    execution = running(world)
    world.lose_worker("w1")
    world.register("w2")
    world.hand_back("w2", *world.take("w2"))
    assert [item["phase"] for item in world.run(execution.run.name)["attempts"]] == ["LOST"]


def test_a_lost_run_whose_losses_somebody_counted_back_by_hand_is_taken_back_all_the_same(world: World) -> None:
    execution = running(world)
    for incarnation in ("w2", "w3"):
        world.sql("UPDATE workers SET lease_until = 0")
        assert world.recover().requeued == (execution.run.name,)
        world.sql("UPDATE runs SET lost = 0")
        world.register(incarnation)
        only(world.take(incarnation))


def test_runs_of_a_living_worker_are_left_alone(world: World) -> None:
    running(world)
    world.clock.advance(29)
    with world.store.begin() as tx:
        assert tx.workers.renew("w1", LEASE) == world.clock.now()
    world.clock.advance(29)
    assert world.recover().requeued == ()


def test_runs_of_a_worker_nobody_knows_are_taken_back_too(world: World) -> None:
    running(world)
    world.sql("DELETE FROM workers")
    assert len(world.recover().requeued) == 1


def test_a_worker_that_may_not_judge_buries_nobody(world: World) -> None:
    from scheduler.services.recover import recover_runs

    running(world)
    world.clock.advance(3_600)
    recovered = world.store.run(recover_runs, "w2", lease=LEASE, max_lost=5, limit=10, judge=False)
    assert (recovered.workers, recovered.requeued) == ((), ())


def test_a_buried_worker_cannot_renew(world: World) -> None:
    running(world)
    world.lose_worker("w1")
    with world.store.begin() as tx:
        assert tx.workers.renew("w1", LEASE) is None


def test_a_buried_worker_takes_nothing_and_fires_for_others(world: World) -> None:
    running(world)
    world.lose_worker("w1")
    assert world.take("w1") == []
    world.clock.advance(120)
    fired = world.fire(owner="w1", room=PLENTY, places=100)
    assert fired.runs
    assert not fired.taken
    world.register("w2")
    assert {held.run.name for held in world.take("w2")} >= {run.name for run in fired.runs}


def test_later_losses_wait_longer_each_time_and_the_last_ends_the_run(world: World) -> None:
    execution = running(world, retrying(3))
    waits = []
    for number in range(1, 6):
        recovered = world.lose_worker(f"w{number}")
        if recovered.failed:
            break
        state = row(world)
        waits.append((int(str(state["not_before"])) - world.clock.now()) // LEASE)
        world.clock.advance(LEASE * 8 // SECOND)
        world.register(f"w{number + 1}")
        assert len(world.take(f"w{number + 1}")) == 1
    assert waits == [0, 1, 2, 4]
    run = world.run(execution.run.name)
    assert (run["phase"], run["error"], run["lost"]) == ("FAILED", "lost its worker 5 times", 5)
    assert run["finished_at"] == world.clock.now()
    *lost, last = [(item["attempt"], item["phase"], item["error"]) for item in run["attempts"]]
    assert lost == [(1, "LOST", "lost its worker")] * 4
    assert last == (1, "FAILED", "lost its worker 5 times")


def test_a_task_that_must_not_run_twice_fails_with_its_worker(world: World) -> None:
    execution = running(world, TaskSpec("logging", on_lost="fail"))
    assert world.lose_worker("w1").failed == (execution.run.name,)
    assert (row(world)["phase"], row(world)["error"]) == ("FAILED", "lost its worker")
    assert world.succeed(execution).refused == (execution.run.name,)


def test_a_late_result_counts_while_nobody_has_taken_the_run_since(world: World) -> None:
    execution = running(world)
    world.lose_worker("w1")
    assert world.succeed(execution).counted == {execution.run.name}
    assert row(world)["phase"] == "SUCCEEDED"
    assert world.take("w2") == []


def test_a_late_result_does_not_count_once_another_worker_has_the_run(world: World) -> None:
    execution = running(world)
    world.lose_worker("w1")
    world.register("w2")
    second = only(world.take("w2"))
    assert world.fail(execution).refused == (execution.run.name,)
    assert row(world)["owner"] == "w2"
    assert world.succeed(second).refused == ()


def test_losses_and_attempts_are_counted_apart(world: World) -> None:
    execution = running(world, retrying(2))
    world.lose_worker("w1")
    world.register("w2")
    world.fail(only(world.take("w2")))
    state = row(world)
    assert (state["phase"], state["attempt"], state["lost"]) == ("QUEUED", 2, 1)
    assert execution.key == execution.run.name


# --- handing back ---------------------------------------------------------------------------------------------------


def test_a_run_handed_back_counts_as_neither_attempt_nor_loss(world: World) -> None:
    execution = running(world)
    assert world.hand_back("w1", execution) == 1
    state = row(world)
    assert (state["phase"], state["attempt"], state["lost"], state["owner"]) == ("QUEUED", 1, 0, None)
    assert only(world.take("w2")).key == execution.key


def test_only_runs_still_held_are_handed_back(world: World) -> None:
    execution = running(world)
    world.lose_worker("w1")
    world.register("w2")
    world.take("w2")
    assert world.hand_back("w1", execution) == 0
    assert row(world)["owner"] == "w2"


def test_a_worker_that_left_is_forgotten_once_no_run_names_it(world: World) -> None:
    running(world)
    with world.store.begin() as tx:
        tx.workers.retire("w1")
        assert tx.workers.forget_dead(world.clock.now() + 1) == 0
    world.recover()
    with world.store.begin() as tx:
        assert tx.workers.forget_dead(world.clock.now() + 1) == 1


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_run_fired_by_hand_pins_like_any_other_and_takes_no_slot(world: World) -> None:
    world.register()
    world.deploy(trigger(inputs={"b": 2}, active=False), spec=TaskSpec("logging", inputs={"a": 1, "b": 1, "c": 1}))
    name = world.client.fire(key(), inputs={"c": 3})
    run = world.run(name)
    assert (run["manual"], run["phase"], run["scheduled_at"]) == (True, "QUEUED", None)
    execution = only(world.take())
    assert (execution.key, execution.inputs) == (name, {"a": 1, "b": 2, "c": 3})
    assert world.ledger() == []
    assert world.succeed(execution).refused == ()


@pytest.mark.parametrize("nonce", ["same", "same again, with spaces and ünïcode"])
def test_the_same_request_key_gives_the_same_run(world: World, nonce: str) -> None:
    world.deploy(trigger("a"), trigger("b"))
    names = [world.client.fire(key(name), request_key=nonce) for name in ("a", "a", "b")]
    assert names[0] == names[1] != names[2]
    assert world.client.fire(key("a")) != world.client.fire(key("a"))
    assert len(world.runs()) == 4


def test_a_run_that_never_started_tells_which_executor_it_waits_for(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("shell"))
    world.register(executors=("logging",))
    world.step("12:01")
    run = world.run(only(world.runs())["name"])
    assert run["waiting_for"] == "no worker for executor shell"
    world.register("w2", executors=("shell",))
    assert world.run(run["name"])["waiting_for"] == "a free place in a worker"


def test_the_oldest_on_time_run_starts_first(world: World) -> None:
    world.register()
    world.deploy(trigger())
    for minute in (1, 2, 3):
        world.step(f"12:0{minute}")
    taken = world.take(on_time=2)
    assert [item.run.scheduled_at for item in taken] == [instant("12:01"), instant("12:02")]


@pytest.mark.parametrize(
    "text",
    ["a\x00b", "a\ud800b", "\udcff", "\U0001f600", "ünïcödé", '"],["'],
    ids=["nul", "surrogate", "lone", "emoji", "umlauts", "brackets"],
)
def test_whatever_an_executor_printed_can_be_stored(world: World, text: str) -> None:
    execution = running(world)
    ended = Ended(execution, Phase.FAILED, error=text, output=text, outputs={"printed": text, text: 1})
    assert world.finish(ended).counted == {execution.run.name}
    run = world.run(execution.run.name)
    assert run["phase"] == "FAILED"
    assert run["outputs"]["printed"]


def test_after_the_clock_was_set_back_a_dead_worker_is_noticed_and_a_living_one_is_left_alone(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.register("gone")
    held = world.take("gone")
    world.register("alive")
    world.at("10:00")
    judge = world.register("judge")
    # Whoever renewed by the old time has one lease from now: it may have done so a second ago.
    assert world.recover(judge).workers == ()
    world.clock.advance(LEASE / SECOND + 1)
    with world.store.begin() as tx:
        for living in ("alive", judge):
            assert tx.workers.renew(living, LEASE) is not None
    recovered = world.recover(judge)
    assert recovered.workers == ("worker-gone",)
    assert recovered.requeued == tuple(execution.run.name for execution in held)


def test_a_worker_that_has_not_renewed_since_the_clock_was_set_back_judges_nobody(world: World) -> None:
    world.register("one")
    world.register("two")
    world.at("10:00")
    assert world.recover("two").workers == ()
