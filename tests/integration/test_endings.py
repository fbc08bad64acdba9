"""How attempts and runs end, and what is kept of them: by an answer, a cancel, a loss, a deadline, a pause."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.instants import SECOND
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.services.finish import Ended
from scheduler.services.recover import Recovered, expire_runs, recover_runs
from scheduler.services.take import Execution
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import LEASE, World, instant, key, only, retrying, trigger

COLUMNS = "phase, attempt, known_ends, lost, owner, fence, not_before, state, error, outputs, finished_at, event, links, intent"


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def row(world: World, name: str | None = None) -> dict[str, Any]:
    name = only(world.runs())["name"] if name is None else name
    return dict(
        zip(COLUMNS.split(", "), only(world.rows(f"SELECT {COLUMNS} FROM runs WHERE name = '{name}'")), strict=True)
    )


def running(world: World, spec: TaskSpec | None = None, **options: Any) -> Execution:
    world.deploy(trigger(**options), spec=spec)
    world.step("12:01")
    execution: Execution = only(world.take())
    return execution


def named(world: World, **changes: str) -> dict[str, str]:
    """A queued scheduled run of each of these triggers, changed by SQL; their names by trigger."""
    world.deploy(*(trigger(name) for name in changes))
    world.step("12:01")
    names = {run["name"].partition("-")[0]: run["name"] for run in world.runs()}
    for name, change in changes.items():
        if change:
            world.sql(f"UPDATE runs SET {change} WHERE name = '{names[name]}'")
    return names


def phases(world: World) -> dict[str, str]:
    return {run["name"].partition("-")[0]: run["phase"] for run in world.runs()}


# --- an answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "kept"), [(None, None), ({}, "{}"), ({"ä": [1, 2]}, '{"ä":[1,2]}')], ids=["none", "empty", "some"]
)
def test_outputs_are_kept_as_they_were_returned(world: World, outputs: dict[str, Any] | None, kept: str | None) -> None:
    world.finish(Ended(running(world), Phase.SUCCEEDED, outputs=outputs))
    assert row(world)["outputs"] == kept


def test_outputs_that_were_made_into_text_before_are_kept_as_they_are(world: World) -> None:
    world.finish(Ended(running(world), Phase.SUCCEEDED, outputs={"a": 1}, outputs_text='{"a": 1}'))
    assert row(world)["outputs"] == '{"a": 1}'


def test_an_answer_closes_the_run_and_leaves_nothing_of_the_attempt(world: World) -> None:
    execution = running(world, retrying())
    world.fail(execution)
    world.at("12:02:30")
    again = only(world.take())
    world.sql("UPDATE runs SET state = 'cursor'")
    world.finish(Ended(again, Phase.SUCCEEDED, output="done"))
    found = row(world)
    assert (found["phase"], found["state"], found["error"], found["owner"]) == ("SUCCEEDED", None, None, None)
    assert (found["attempt"], found["fence"], found["finished_at"]) == (2, 4, instant("12:02:30"))
    assert found["not_before"] == again.run.not_before
    attempts = world.rows(
        "SELECT attempt, phase, started_at, finished_at, worker, error, output FROM attempts ORDER BY attempt"
    )
    assert attempts == [
        (1, "FAILED", instant("12:01"), instant("12:01"), "worker-w1", "it broke", None),
        (2, "SUCCEEDED", instant("12:02:30"), instant("12:02:30"), "worker-w1", None, "done"),
    ]


def test_a_run_that_is_tried_again_is_open_and_keeps_what_it_returned(world: World) -> None:
    execution = running(world, retrying())
    world.finish(Ended(execution, Phase.FAILED, error="it broke", outputs={"a": 1}))
    found = row(world)
    assert (found["phase"], found["finished_at"], found["outputs"]) == ("QUEUED", None, '{"a":1}')
    world.clock.advance(60)
    world.finish(Ended(only(world.take()), Phase.SUCCEEDED))
    assert row(world)["outputs"] == '{"a":1}'


@pytest.mark.parametrize(
    ("ending", "known_ends"),
    [
        ({"phase": Phase.FAILED}, 1),
        ({"phase": Phase.FAILED, "known": False}, 0),
        ({"phase": Phase.TIMED_OUT}, 0),
        ({"phase": Phase.TIMED_OUT, "event": {"status": "gone"}}, 1),
        ({"phase": Phase.TIMED_OUT, "event": {"status": "gone"}, "known": False}, 0),
        ({"phase": Phase.SUCCEEDED, "event": {"status": "done"}}, 0),
        ({"phase": Phase.SUCCEEDED}, 0),
    ],
    ids=str,
)
def test_an_end_is_known_where_the_code_failed_or_its_job_is_over(
    world: World, ending: dict[str, Any], known_ends: int
) -> None:
    world.finish(Ended(running(world), **ending))
    assert row(world)["known_ends"] == known_ends


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.ABORTED])
def test_what_succeeded_or_was_cancelled_is_not_tried_again_though_attempts_are_left(
    world: World, phase: Phase
) -> None:
    world.finish(Ended(running(world, retrying(5)), phase))
    assert row(world)["phase"] == phase


@pytest.mark.parametrize(("left", "phase"), [(0, "FAILED"), (1, "QUEUED")])
def test_a_retry_has_to_start_before_the_deadline(world: World, left: int, phase: str) -> None:
    execution = running(world, retrying(5))
    run = execution.run._replace(deadline_at=world.clock.now() + 60 * SECOND + left)
    held = Execution(run, *execution[1:])
    world.finish(Ended(held, Phase.FAILED, retry_after=timedelta(seconds=60)))
    assert row(world)["phase"] == phase


def test_of_a_job_the_links_are_kept_always_and_the_event_once_the_run_is_over(world: World) -> None:
    execution = running(world, retrying(2))
    links = [{"name": "Läufe", "uri": "http://a/b"}]
    world.finish(Ended(execution, Phase.FAILED, event={"status": "FAILED"}, links=links))
    found = row(world)
    assert (found["event"], json.loads(found["links"])) == (None, links)
    world.clock.advance(60)
    world.finish(Ended(only(world.take()), Phase.SUCCEEDED, event={"status": "ö", "at": timedelta(seconds=1)}))
    found = row(world)
    assert (found["event"], json.loads(found["links"])) == ('{"status":"ö","at":"0:00:01"}', links)


def test_events_of_results_that_came_too_late_are_not_kept(world: World) -> None:
    execution = running(world)
    world.succeed(execution)
    world.finish(Ended(execution, Phase.FAILED, event={"status": "late"}, links=[]))
    assert (row(world)["event"], row(world)["links"]) == (None, None)


def test_a_result_of_before_a_restore_counts_no_more(world: World) -> None:
    execution = running(world)
    world.store.run(lambda tx: tx.meta.begin_epoch())
    assert world.succeed(execution).refused == (execution.run.name,)
    assert row(world)["phase"] == "RUNNING"


def test_one_batch_may_hold_what_counts_and_what_does_not(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), trigger("c"), spec=retrying())
    world.step("12:01")
    first, second, third = world.take()
    world.succeed(second)
    finished = world.fail(third, second, first)
    names = [execution.run.name for execution in (first, second, third)]
    assert finished.counted == {names[0], names[2]}
    assert finished.refused == (names[1],)
    assert sorted(finished.retried) == [names[0], names[2]]
    assert finished.paused == ()


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.TIMED_OUT])
def test_failed_and_timed_out_scheduled_runs_pause_their_trigger(world: World, phase: Phase) -> None:
    execution = running(world, pause_on_failure=1)
    assert world.finish(Ended(execution, phase)).paused == ("flytesnacks/development/report/nightly",)


# --- a cancel, a pause -----------------------------------------------------------------------------------------------


def test_of_open_runs_the_queued_end_and_the_others_are_asked_to(world: World) -> None:
    names = named(
        world, a="", b="phase = 'RUNNING', owner = 'w1', error = 'before'", c="phase = 'DEFERRED'", d="phase = 'FAILED'"
    )
    now = world.clock.advance(1)
    done = world.store.run(lambda tx: tx.runs.cancel([*names.values(), "nobody"], now, "enough"))
    assert done == {names["a"]: "ABORTED", names["b"]: "RUNNING", names["c"]: "DEFERRED"}
    found = {name: row(world, names[name]) for name in sorted(names)}
    assert [(r["intent"], r["error"], r["finished_at"], r["fence"]) for r in found.values()] == [
        ("cancel", "enough", now, 1),
        ("cancel", "before", None, 0),
        ("cancel", None, None, 0),
        (None, None, None, 0),
    ]
    world.store.run(lambda tx: tx.runs.cancel([names["b"]], now, "again"))
    world.sql(f"UPDATE runs SET owner = 'w1' WHERE name IN ('{names['c']}', '{names['d']}')")
    world.sql("UPDATE runs SET intent_note = NULL WHERE phase = 'DEFERRED'")
    intended = {(names["b"], 0): "enough", (names["c"], 0): ""}
    assert world.store.run(lambda tx: tx.runs.intended("w1")) == intended
    assert world.store.run(lambda tx: tx.runs.intended("w2")) == {}


def test_only_scheduled_runs_of_the_triggers_named_are_cancelled_for_a_newer_one(world: World) -> None:
    named(world, a="", b="", c="kind = 'manual'")
    ids = dict(world.rows("SELECT name, id FROM triggers"))
    world.store.run(lambda tx: tx.runs.cancel_open([ids["a"], ids["c"]], tx.now(), "enough"))
    assert phases(world) == {"a": "ABORTED", "b": "QUEUED", "c": "QUEUED"}


def test_a_pause_ends_scheduled_runs_that_never_started_and_no_others(world: World) -> None:
    names = named(
        world, a="", b="", c="kind = 'manual'", d="started_at = 5", e="phase = 'RUNNING'", f="phase = 'DEFERRED'"
    )
    ids = dict(world.rows("SELECT name, id FROM triggers"))
    wanted = [number for name, number in ids.items() if name != "b"]
    now = world.clock.advance(1)
    assert world.store.run(lambda tx: tx.runs.abort_unstarted(wanted, now, "paused")) == 1
    assert phases(world) == {
        "a": "ABORTED",
        "b": "QUEUED",
        "c": "QUEUED",
        "d": "QUEUED",
        "e": "RUNNING",
        "f": "DEFERRED",
    }
    found = row(world, names["a"])
    assert (found["error"], found["finished_at"], found["fence"]) == ("paused", now, 1)


def test_after_a_restore_open_runs_are_ended_a_few_at_a_time(world: World) -> None:
    named(world, a="", b="phase = 'RUNNING', owner = 'w1'", c="phase = 'DEFERRED'", d="phase = 'FAILED'")

    def abort() -> int:
        return world.store.run(lambda tx: tx.runs.abort_open(tx.now(), 2, "restored"))

    assert [abort(), abort(), abort()] == [2, 1, 0]
    assert phases(world) == {"a": "ABORTED", "b": "ABORTED", "c": "ABORTED", "d": "FAILED"}
    ended = world.rows("SELECT owner, fence, error, finished_at FROM runs WHERE phase = 'ABORTED'")
    assert ended == [(None, 1, "restored", world.clock.now())] * 3


# --- a deadline ------------------------------------------------------------------------------------------------------


def test_queued_runs_end_at_their_deadline_the_longest_overdue_first(world: World) -> None:
    now = instant("12:01")
    names = named(
        world,
        a=f"deadline_at = {now}",
        b=f"deadline_at = {now - 5}, error = 'it broke'",
        c=f"deadline_at = {now + 1}",
        d=f"deadline_at = {now - 9}, phase = 'RUNNING'",
        e="",
    )
    assert world.store.run(lambda tx: tx.runs.next_deadline()) == now - 5
    ids = dict(world.rows("SELECT name, id FROM triggers"))
    assert sorted(world.store.run(lambda tx: tx.runs.overdue(now, 9))) == [ids["a"], ids["b"]]
    assert len(world.store.run(lambda tx: tx.runs.overdue(now, 1))) == 1
    assert world.store.run(expire_runs, 1, world.planning) == ((names["b"],), ())
    assert world.store.run(expire_runs, 9, world.planning) == ((names["a"],), ())
    assert world.store.run(expire_runs, 9, world.planning) == ((), ())
    assert phases(world) == {"a": "TIMED_OUT", "b": "TIMED_OUT", "c": "QUEUED", "d": "RUNNING", "e": "QUEUED"}
    over = "the deadline was over before it could start"
    found = [row(world, names[name]) for name in "ab"]
    assert [(r["error"], r["finished_at"], r["fence"]) for r in found] == [
        (over, now, 1),
        (f"{over} again; before: it broke", now, 1),
    ]


def test_runs_that_ended_at_their_deadlines_are_told_by_name(world: World) -> None:
    now = instant("12:01")
    names = named(world, a=f"deadline_at = {now - 1}", b=f"deadline_at = {now - 2}", c=f"deadline_at = {now - 3}")
    assert world.store.run(lambda tx: tx.runs.expire(now, 9)) == sorted(names.values())


# --- a loss ----------------------------------------------------------------------------------------------------------


def recover(world: World, **options: Any) -> Recovered:
    given = {"lease": LEASE, "max_lost": 5, "limit": 9, **options}
    return world.store.run(recover_runs, "judge", **given)


def lose(world: World, **options: Any) -> Recovered:
    world.clock.advance(LEASE / SECOND + 1)
    return recover(world, **options)


def test_only_runs_of_workers_that_are_gone_are_taken_back_and_the_loss_names_the_worker(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), trigger("c"))
    world.step("12:01")
    lost = only(world.take("w1", on_time=1)).run.name
    world.clock.advance(LEASE / SECOND + 1)
    world.register("w2")
    kept = only(world.take("w2", on_time=1)).run.name
    assert recover(world).requeued == (lost,)
    assert {run["name"]: run["phase"] for run in world.runs()}[kept] == "RUNNING"
    assert world.rows("SELECT run_name, worker FROM lost_attempts") == [(lost, "worker-w1")]


def test_of_many_lost_runs_some_are_taken_back_at_a_time(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(3)))
    world.step("12:01")
    assert len(world.take()) == 3
    first, second, third = lose(world, limit=2), recover(world, limit=2), recover(world, limit=2)
    assert [len(found.requeued) for found in (first, second, third)] == [2, 1, 0]
    assert [found.more for found in (first, second, third)] == [True, True, False]
    assert [found.workers for found in (first, second, third)] == [("worker-w1",), (), ()]


@pytest.mark.parametrize(("max_lost", "phase"), [(1, "FAILED"), (2, "QUEUED")])
def test_a_run_may_be_lost_less_often_than_the_limit_says(world: World, max_lost: int, phase: str) -> None:
    execution = running(world)
    found = lose(world, max_lost=max_lost)
    name = (execution.run.name,)
    assert (found.failed, found.requeued) == (((), name) if phase == "QUEUED" else (name, ()))
    after = row(world)
    assert (after["phase"], after["lost"], after["owner"]) == (phase, 1, None)
    assert after["fence"] == (1 if phase == "QUEUED" else 2)
    assert after["finished_at"] == (None if phase == "QUEUED" else world.clock.now())
    assert found.more


def test_a_run_that_must_not_be_executed_twice_ends_with_its_first_loss_however_many_are_allowed(world: World) -> None:
    running(world, TaskSpec("logging", on_lost="fail"))
    assert len(lose(world, max_lost=1).failed) == 1
    assert (row(world)["phase"], row(world)["error"]) == ("FAILED", "lost its worker")


def test_a_loss_pauses_as_a_failure_does_and_a_manual_runs_does_not(world: World) -> None:
    once = TaskSpec("logging", on_lost="fail")
    running(world, once, pause_on_failure=1)
    assert lose(world).paused == ("flytesnacks/development/report/nightly",)
    world.register("w2")
    world.client.activate(key())
    world.client.fire(key())
    assert len(world.take("w2")) == 1
    found = lose(world)
    assert (len(found.failed), found.paused) == (1, ())


def test_a_cancelled_run_ends_with_its_worker_whatever_its_task_says_of_losses(world: World) -> None:
    execution = running(world, TaskSpec("logging", on_lost="fail"))
    world.client.cancel_run(execution.run.name)
    found = lose(world)
    assert found.failed == (execution.run.name,)
    after = row(world)
    assert (after["phase"], after["error"]) == ("ABORTED", "cancelled by tester; its worker was lost")
    last = world.run(execution.run.name)["attempts"][-1]
    assert (last["phase"], last["worker"], last["finished_at"]) == ("ABORTED", "worker-w1", world.clock.now())


# --- handed back, tried again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda name, fence: ("w2", [(name, fence)]),
        lambda name, fence: ("w1", [(name, fence + 1)]),
        lambda *_: ("w1", []),
    ],
    ids=["another's", "of another time", "nothing"],
)
def test_nobody_hands_back_what_is_not_his(world: World, wrong: Callable[[str, int], Any]) -> None:
    execution = running(world)
    owner, held = wrong(execution.run.name, execution.run.fence)
    assert world.store.run(lambda tx: tx.runs.hand_back(owner, held, tx.now())) == 0
    assert (row(world)["phase"], row(world)["owner"]) == ("RUNNING", "w1")


def test_of_ones_runs_only_those_given_back_go(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    first, second = world.take()
    assert world.hand_back("w1", second) == 1
    assert [row(world, execution.run.name)["phase"] for execution in (first, second)] == ["RUNNING", "QUEUED"]


def test_a_run_handed_back_is_as_it_was_before_and_may_start_now(world: World) -> None:
    execution = running(world, retrying())
    world.fail(execution)
    world.clock.advance(60)
    world.take()
    now = world.clock.advance(1)
    world.hand_back("w1", *world.executions([only([execution.run._replace(fence=3)])]))
    after = row(world)
    assert (after["phase"], after["owner"], after["not_before"], after["fence"]) == ("QUEUED", None, now, 3)
    assert (after["error"], after["finished_at"], after["attempt"]) == ("it broke", None, 2)


def test_a_cancelled_run_handed_back_is_over(world: World) -> None:
    execution = running(world)
    world.client.cancel_run(execution.run.name)
    now = world.clock.advance(1)
    world.hand_back("w1", execution)
    after = row(world)
    assert (after["phase"], after["owner"], after["finished_at"], after["fence"]) == ("ABORTED", None, now, 2)


@pytest.mark.parametrize("phase", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_what_ended_badly_is_open_again_with_nothing_of_its_end(world: World, phase: str) -> None:
    names = named(world, a="", b="")
    world.sql(
        f"UPDATE runs SET phase = '{phase}', intent = 'cancel', intent_note = 'x', event = '1', finished_at = 5, priority = 3"
    )
    now = world.clock.advance(1)
    assert world.store.run(lambda tx: tx.runs.reopen(names["a"], now, now + 9))
    after = row(world, names["a"])
    assert (after["phase"], after["intent"], after["event"], after["finished_at"]) == ("QUEUED", None, None, None)
    assert (after["attempt"], after["not_before"], after["fence"]) == (1, now, 1)
    rest = world.rows(f"SELECT intent_note, priority, deadline_at, gated FROM runs WHERE name = '{names['a']}'")
    assert [(*found[:3], bool(found[3])) for found in rest] == [(None, 0, now + 9, False)]
    assert row(world, names["b"])["phase"] == phase
    assert not world.store.run(lambda tx: tx.runs.reopen(names["a"], now, None))


@pytest.mark.parametrize(
    ("limit", "overlap", "waits"), [(1, "allow_all", True), (None, "skip", True), (None, "allow_all", False)]
)
def test_a_run_that_is_open_again_waits_for_its_turn_where_its_own_task_or_trigger_says_so(
    world: World, limit: int | None, overlap: str, waits: bool
) -> None:
    world.deploy(trigger(), task="another", spec=TaskSpec("logging", max_concurrent_runs=None if waits else 1))
    world.client.deactivate(key(task="another"))
    execution = running(world, overlap=overlap)
    world.fail(execution)
    world.deploy(trigger(overlap=overlap), version="v2", spec=TaskSpec("logging", max_concurrent_runs=limit))
    world.client.retry_run(execution.run.name)
    assert [bool(found[0]) for found in world.rows("SELECT gated FROM runs")] == [waits]
