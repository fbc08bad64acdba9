"""Runs that wait outside the worker: begun, taken over, written down, resumed and ended, under one fence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from executors.protocol import Deferred
from executors.waits import Poll, Until
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import Overlap
from scheduler.domain.wait import Ending, Stage, WaitKind, outcome_event
from scheduler.services.cancel import cancel_run
from scheduler.services.defer import Deferral, defer_runs, deferral_of, ends_at
from scheduler.services.finish import Ended
from scheduler.services.resume import (
    Due,
    PutBack,
    Tries,
    next_until_at,
    put_back,
    resume_due,
    resumed_of,
    submitting_state,
    tries_of,
)
from scheduler.services.take import Execution
from scheduler.services.watch import (
    Claimed,
    Written,
    claim_waits,
    compare_waits,
    release_lost_waits,
    release_waits,
    wanted_ends,
    write_waits,
)
from scheduler.store.waits import StoredWait, WaitState
from tests.integration.worlds import World, instant, only, retrying, trigger


def running(world: World, number: int = 1, spec: TaskSpec | None = None) -> list[Execution]:
    """Runs of worker w1, fired and taken at 12:01."""
    world.register()
    world.deploy(*(trigger(f"t{index}") for index in range(number)), spec=spec)
    world.step("12:01")
    return world.take()


def defer(world: World, *deferrals: Deferral, by: str = "w1") -> dict[tuple[str, int], str | None]:
    return world.store.run(defer_runs, deferrals, by)


def job(execution: Execution, job_id: str | None = "7", **options: Any) -> Deferral:
    state = json.dumps({"meta": {"id": job_id}, "created_at": None})
    values = {"interval": 10 * SECOND, "budget": 600 * SECOND, "state": state, "job_id": job_id, **options}
    return Deferral(execution, WaitKind.JOB, **values)


def submitting(execution: Execution) -> Deferral:
    return job(execution, None, stage=Stage.SUBMITTING, state=None)


def until(world: World, execution: Execution, text: str, state: Any = None) -> Deferral:
    return deferral_of(execution, Deferred(Until(to_datetime(instant(text))), state))


def claim(world: World, owner: str = "w2", executor: str = "logging", limit: int = 100) -> list[Claimed]:
    return world.store.run(claim_waits, owner, [executor], limit, {})[0]


def resume(world: World, by: str = "w1") -> Due:
    return world.store.run(resume_due, 100, by, f"worker-{by}", world.planning)


def state_of(wait: StoredWait, **changes: Any) -> WaitState:
    fields = {name: getattr(wait, name) for name in WaitState._fields if name != "owner"}
    return WaitState(**{"owner": "w1", **fields, **changes})


def write(world: World, *states: WaitState, by: str = "w1", jobs: Mapping[str, str] | None = None) -> Written:
    return world.store.run(write_waits, states, jobs or {}, by)


def stored(world: World, execution: Execution) -> StoredWait:
    with world.store.read() as tx:
        row = tx.waits.of_run(execution.run.name)
    assert row is not None
    return StoredWait(**{name: row[name] for name in StoredWait._fields})


def run_row(world: World, execution: Execution) -> dict[str, Any]:
    columns = "phase, attempt, known_ends, lost, owner, fence, not_before, started_at, state, error, event, links"
    values = only(world.rows(f"SELECT {columns} FROM runs WHERE name = '{execution.run.name}'"))
    return dict(zip(columns.split(", "), values, strict=True))


def lose(world: World, incarnation: str = "w1") -> None:
    """A worker's lease runs out, and another one looks after what it held."""
    world.lose_worker(incarnation)
    world.store.run(release_lost_waits, 1_000)


# --- begun ----------------------------------------------------------------------------------------------------------


def test_a_run_that_waits_is_deferred_held_by_nobody_as_a_run_and_by_its_worker_as_a_wait(world: World) -> None:
    (execution,) = running(world)
    key = (execution.run.name, 1)
    assert defer(world, job(execution)) == {key: None}
    row = run_row(world, execution)
    assert (row["phase"], row["owner"], row["fence"]) == ("DEFERRED", None, 1)
    wait = stored(world, execution)
    assert (wait.kind, wait.stage, wait.job_id, wait.fence) == ("job", "waiting", "7", 1)
    with world.store.read() as tx:
        assert tx.waits.held("w1") == {key}


def test_a_wait_begun_again_because_the_answer_was_lost_changes_nothing(world: World) -> None:
    (execution,) = running(world)
    first = defer(world, job(execution))
    wait = stored(world, execution)
    world.clock.advance(5)
    assert defer(world, job(execution, "8")) == first
    assert stored(world, execution) == wait


def test_a_run_that_was_taken_since_does_not_wait(world: World) -> None:
    (execution,) = running(world)
    world.lose_worker("w1")
    world.register("w2")
    world.take("w2")
    assert defer(world, job(execution)) == {}
    assert world.rows("SELECT count(*) FROM waits") == [(0,)]
    assert run_row(world, execution)["phase"] == "RUNNING"


def test_a_run_that_nobody_took_since_may_still_wait(world: World) -> None:
    (execution,) = running(world)
    world.lose_worker("w1")
    assert len(defer(world, job(execution))) == 1
    assert run_row(world, execution)["phase"] == "DEFERRED"


def test_a_worker_of_another_history_defers_nothing(world: World) -> None:
    executions = running(world, 3)
    with world.store.begin() as tx:
        tx.meta.begin_epoch()
    assert defer(world, *(job(execution, str(n)) for n, execution in enumerate(executions))) == {}


def test_whoever_defers_a_run_is_told_that_somebody_wants_it_to_end(world: World) -> None:
    (execution,) = running(world)
    world.store.run(cancel_run, execution.run.name, by="anna")
    assert only(defer(world, job(execution)).values()) == "cancelled by anna"


def test_the_attempts_time_is_kept_with_its_wait(world: World) -> None:
    spec = TaskSpec("logging", timeout=timedelta(minutes=10), deadline=timedelta(minutes=8))
    (execution,) = running(world, spec=spec)
    assert ends_at(execution) == instant("12:09")
    defer(world, job(execution))
    assert stored(world, execution).ends_at == instant("12:09")


def test_hundreds_of_runs_wait_at_once(world: World) -> None:
    executions = running(world, 300)
    assert len(defer(world, *(job(execution, str(n)) for n, execution in enumerate(executions)))) == 300
    assert world.rows("SELECT count(*) FROM waits WHERE owner = 'w1'") == [(300,)]


# --- taken over -----------------------------------------------------------------------------------------------------


def test_a_wait_whose_worker_is_gone_is_taken_over_and_nothing_is_counted(world: World) -> None:
    (execution,) = running(world)
    defer(world, job(execution))
    assert claim(world) == []
    lose(world)
    row = run_row(world, execution)
    assert (row["phase"], row["lost"], row["attempt"]) == ("DEFERRED", 0, 1)
    world.register("w2")
    claimed = only(claim(world))
    assert (claimed.wait.job_id, claimed.wait.fence, claimed.execution.run.fence) == ("7", 2, 2)
    assert claimed.execution.run.owner == "w2"
    assert claimed.execution.trigger == "t0"
    assert run_row(world, execution)["fence"] == 2
    assert claim(world, "w3") == []


def test_only_who_declares_the_executor_takes_a_wait_over(world: World) -> None:
    (execution,) = running(world)
    defer(world, job(execution))
    lose(world)
    assert claim(world, executor="shell") == []
    assert len(claim(world)) == 1


def test_waits_that_are_let_go_are_free_at_once_but_those_to_keep(world: World) -> None:
    first, second = running(world, 2)
    defer(world, job(first), job(second, "8"))
    assert world.store.run(release_waits, "w1", [second.run.name]) == 1
    assert [claimed.execution.run.name for claimed in claim(world)] == [first.run.name]


def test_what_a_former_holder_writes_changes_nothing(world: World) -> None:
    (execution,) = running(world)
    defer(world, job(execution))
    before = stored(world, execution)
    lose(world)
    world.register("w2")
    claim(world)
    assert write(world, state_of(before, last_error="late")).held == frozenset()
    assert stored(world, execution).last_error is None
    late = Ended(execution, Phase.SUCCEEDED, outputs={"late": True}, waited=True)
    assert world.finish(late).refused == (execution.run.name,)
    assert run_row(world, execution)["phase"] == "DEFERRED"
    assert world.rows("SELECT count(*) FROM waits") == [(1,)]


def test_what_the_holder_of_a_free_wait_still_writes_counts_until_somebody_takes_it(world: World) -> None:
    (execution,) = running(world)
    defer(world, submitting(execution))
    before = stored(world, execution)
    lose(world)
    made = state_of(before, stage="waiting", state='{"meta":{},"created_at":null}', job_id="7")
    assert write(world, made, jobs={execution.run.name: "logging"}).held == {(execution.run.name, 1)}
    world.register("w2")
    assert only(claim(world)).wait.job_id == "7"


def test_a_worker_finds_out_what_it_holds_and_what_it_lost(world: World) -> None:
    first, second = running(world, 2)
    defer(world, job(first), job(second, "8"))
    known = {(second.run.name, 1), ("gone", 4)}
    found, lost, now = world.store.run(compare_waits, "w1", known, {})
    assert [item.execution.run.name for item in found] == [first.run.name]
    assert lost == {("gone", 4)}
    assert now == world.clock.now()


# --- written --------------------------------------------------------------------------------------------------------


def test_how_waits_stand_is_written_in_one_batch(world: World) -> None:
    executions = running(world, 40)
    defer(world, *(job(execution, str(n)) for n, execution in enumerate(executions)))
    ending = Ending(Phase.TIMED_OUT, "took too long", world.clock.now(), outcome_event("error", "took too long", 7))
    changes = {"error_since": 5, "last_error": "503", "stage": "cancelling", "ending": ending.encode(), "look_at": 9}
    written = write(world, *(state_of(stored(world, execution), **changes) for execution in executions))
    assert len(written.held) == 40
    wait = stored(world, executions[7])
    assert (wait.error_since, wait.last_error, wait.stage, wait.look_at) == (5, "503", "cancelling", 9)
    assert wait.ending is not None
    assert Ending.decode(wait.ending) == ending


def test_two_open_waits_never_have_one_job(world: World) -> None:
    first, second, third = running(world, 3)
    defer(world, job(first), submitting(second), submitting(third))
    jobs = {execution.run.name: "logging" for execution in (second, third)}
    written = write(
        world, *(state_of(stored(world, item), job_id="7", stage="waiting") for item in (second, third)), jobs=jobs
    )
    assert written.conflicts == jobs.keys()
    assert written.held == frozenset()
    both = write(
        world, *(state_of(stored(world, item), job_id="8", stage="waiting") for item in (second, third)), jobs=jobs
    )
    assert len(both.conflicts) == len(both.held) == 1


def test_a_job_that_was_there_before_may_be_watched_by_many(world: World) -> None:
    first, second, third = running(world, 3)
    assert len(defer(world, job(first), job(second, watched=True), job(third, watched=True))) == 3


def test_the_job_of_a_run_that_is_over_may_be_held_again(world: World) -> None:
    first, second = running(world, 2)
    defer(world, job(first), submitting(second))
    world.finish(Ended(first, Phase.SUCCEEDED, waited=True))
    jobs = {second.run.name: "logging"}
    assert len(write(world, state_of(stored(world, second), job_id="7", stage="waiting"), jobs=jobs).held) == 1


# --- over -----------------------------------------------------------------------------------------------------------


def test_a_run_whose_job_is_over_ends_with_its_outputs_its_links_and_one_event(world: World) -> None:
    (execution,) = running(world)
    defer(world, job(execution))
    event = outcome_event("success", "Job run 7 has completed successfully.", 7)
    links = [{"name": "log", "uri": "https://example.com/7"}]
    done = Ended(execution, Phase.SUCCEEDED, outputs={"rows": 3}, waited=True, event=event, links=links)
    assert world.finish(done).counted == {execution.run.name}
    run = world.run(execution.run.name)
    assert (run["phase"], run["outputs"], run["event"], run["links"]) == ("SUCCEEDED", {"rows": 3}, event, links)
    assert [(item["attempt"], item["phase"], item["started_at"]) for item in run["attempts"]] == [
        (1, "SUCCEEDED", instant("12:01"))
    ]
    assert world.rows("SELECT count(*) FROM waits") == [(0,)]
    again = Ended(execution, Phase.FAILED, error="no", waited=True, event=outcome_event("error", "no", 7))
    assert world.finish(again).counted == frozenset()
    assert world.run(execution.run.name)["event"] == event


def test_a_job_that_failed_is_tried_again_under_a_new_key_and_leaves_no_event(world: World) -> None:
    (execution,) = running(world, spec=retrying(2))
    defer(world, job(execution))
    event = outcome_event("error", "Job run 7 has timed out.", 7)
    world.finish(Ended(execution, Phase.TIMED_OUT, error="x", waited=True, event=event))
    row = run_row(world, execution)
    assert (row["phase"], row["attempt"], row["known_ends"], row["event"]) == ("QUEUED", 2, 1, None)
    world.clock.advance(60)
    again = only(world.take())
    assert again.key == f"{execution.run.name}-2"
    defer(world, job(again, "8"))
    world.finish(Ended(again, Phase.FAILED, error="y", waited=True, event=event))
    assert world.run(execution.run.name)["event"] == event


def test_a_job_nobody_knows_the_end_of_leaves_its_key_to_the_next_attempt(world: World) -> None:
    (execution,) = running(world, spec=retrying(2))
    defer(world, job(execution))
    event = outcome_event("error", "gave up", 7)
    world.finish(Ended(execution, Phase.FAILED, error="x", waited=True, known=False, event=event))
    world.clock.advance(60)
    assert only(world.take()).key == execution.run.name


# --- resumed --------------------------------------------------------------------------------------------------------


def test_a_run_waits_for_its_instant_and_goes_on_with_its_state(world: World) -> None:
    (execution,) = running(world, spec=TaskSpec("logging", timeout=timedelta(hours=3)))
    defer(world, until(world, execution, "13:00", {"cursor": [1, "ü"]}))
    assert world.store.run(next_until_at) == instant("13:00")
    assert resume(world.at("12:59:59")).resumed == ()
    assert resume(world.at("13:00")).resumed == (execution.run.name,)
    assert run_row(world, execution)["phase"] == "QUEUED"
    assert world.rows("SELECT count(*) FROM waits") == [(0,)]
    again = only(world.take())
    resumed = resumed_of(again)
    assert resumed is not None
    assert (resumed.state, resumed.event) == ({"cursor": [1, "ü"]}, None)
    # Still the same attempt: its time runs since it began.
    assert (again.run.attempt, again.run.fence, again.run.started_at) == (1, 2, instant("12:01"))
    assert ends_at(again) == instant("15:01")
    assert resumed_of(execution) is None


def test_a_resumed_run_whose_worker_is_lost_is_resumed_once_more(world: World) -> None:
    (execution,) = running(world)
    defer(world, until(world, execution, "12:02", "here"))
    resume(world.at("12:02"))
    world.take()
    world.lose_worker("w1")
    world.register("w2")
    again = only(world.take("w2"))
    resumed = resumed_of(again)
    assert resumed is not None
    assert resumed.state == "here"
    world.finish(Ended(again, Phase.SUCCEEDED))
    assert run_row(world, execution)["state"] is None


def test_the_attempt_after_a_resumed_one_begins_anew(world: World) -> None:
    (execution,) = running(world, spec=retrying(2))
    defer(world, until(world, execution, "12:02", "here"))
    resume(world.at("12:02"))
    world.fail(only(world.take()))
    world.clock.advance(60)
    again = only(world.take())
    assert resumed_of(again) is None
    assert again.run.started_at == world.clock.now()


def test_a_wait_for_an_instant_ends_when_the_attempts_time_is_over(world: World) -> None:
    (execution,) = running(world, spec=retrying(2, timeout=timedelta(minutes=5)))
    defer(world, until(world, execution, "13:00"))
    assert world.store.run(next_until_at) == instant("12:06")
    due = resume(world.at("12:06"))
    assert (due.resumed, [item.error for item in due.ended]) == ((), ["timeout of 300 s was over"])
    row = run_row(world, execution)
    assert (row["phase"], row["attempt"], row["error"]) == ("QUEUED", 2, "timeout of 300 s was over")
    assert only(world.rows("SELECT phase, worker FROM attempts")) == ("TIMED_OUT", "worker-w1")


def test_the_deadline_ends_a_run_that_waits_for_an_instant(world: World) -> None:
    (execution,) = running(world, spec=retrying(2, deadline=timedelta(minutes=5)))
    defer(world, until(world, execution, "13:00"))
    resume(world.at("12:06"))
    row = run_row(world, execution)
    assert (row["phase"], row["error"]) == ("TIMED_OUT", "deadline of 300 s was over")


def test_an_instant_that_is_past_resumes_at_once(world: World) -> None:
    (execution,) = running(world)
    defer(world, until(world, execution, "11:00"))
    assert resume(world).resumed == (execution.run.name,)


def test_a_cancelled_wait_for_an_instant_ends_without_waiting_for_it(world: World) -> None:
    (execution,) = running(world, spec=retrying(5))
    defer(world, until(world, execution, "13:00"))
    world.store.run(cancel_run, execution.run.name, by="anna")
    assert len(resume(world).ended) == 1
    row = run_row(world, execution)
    assert (row["phase"], row["error"]) == ("ABORTED", "cancelled by anna")
    assert world.rows("SELECT count(*) FROM waits") == [(0,)]


def test_a_cancelled_run_is_not_resumed_although_its_instant_has_come(world: World) -> None:
    (execution,) = running(world)
    defer(world, until(world, execution, "12:02"))
    world.store.run(cancel_run, execution.run.name, by="anna")
    assert resume(world.at("12:03")).resumed == ()
    assert run_row(world, execution)["phase"] == "ABORTED"


def test_any_worker_resumes_whatever_it_can_execute(world: World) -> None:
    (execution,) = running(world)
    defer(world, until(world, execution, "12:02"))
    world.register("other", ["shell"])
    assert resume(world.at("12:02"), "other").resumed == (execution.run.name,)


def test_hundreds_of_waits_for_an_instant_are_resumed_in_batches(world: World) -> None:
    executions = running(world, 250)
    defer(world, *(until(world, execution, "12:02", n) for n, execution in enumerate(executions)))
    world.at("12:02")
    passes = 0
    more = True
    while more:
        more = resume(world).more
        passes += 1
    assert passes == 3
    assert world.rows("SELECT count(*) FROM runs WHERE phase = 'QUEUED' AND state IS NOT NULL") == [(250,)]


@pytest.mark.parametrize("overlap", ["allow_all", "buffer_all"])
def test_a_run_that_goes_on_has_its_turn_before_those_that_were_fired_since(world: World, overlap: Overlap) -> None:
    world.register()
    spec = TaskSpec("logging", max_concurrent_runs=1 if overlap == "allow_all" else None)
    world.deploy(trigger(overlap=overlap), spec=spec)
    world.step("12:01")
    (first,) = world.take()
    defer(world, until(world, first, "12:04"))
    world.step("12:02")
    world.step("12:03")
    assert world.take() == []
    world.step("12:04")
    assert resume(world).resumed == (first.run.name,)
    (again,) = world.take()
    assert again.run.name == first.run.name
    assert world.take() == []
    world.finish(Ended(again, Phase.SUCCEEDED))
    (second,) = world.take()
    assert second.run.scheduled_at == instant("12:02")


def test_a_poll_that_nobody_holds_can_be_cancelled_all_the_same(world: World) -> None:
    (execution,) = running(world)
    defer(world, deferral_of(execution, Deferred(Poll(), None)))
    world.store.run(cancel_run, execution.run.name, by="anna")
    assert resume(world).ended == ()
    lose(world)
    world.register("w2", ["shell"])
    assert len(resume(world, "w2").ended) == 1
    assert run_row(world, execution)["phase"] == "ABORTED"


def test_what_a_run_waits_for_is_told_in_words(world: World) -> None:
    executions = running(world, 4)
    event = outcome_event("error", "too long", 9)
    ending = Ending(Phase.TIMED_OUT, "too long", instant("12:03"), event)
    defer(
        world,
        until(world, executions[0], "13:00"),
        deferral_of(executions[1], Deferred(Poll(timedelta(seconds=20)), None)),
        submitting(executions[2]),
        job(executions[3], "9"),
    )

    def words(number: int) -> str:
        return str(world.run(executions[number].run.name)["waiting_for"])

    assert words(0) == "an instant: 2026-11-21T13:00:00Z"
    assert words(1) == "what its executor looks at every 20 s"
    assert words(2).startswith("its job: being submitted")
    assert words(3) == "job 9"
    seen = '{"phase":"RUNNING","message":"half way","links":[{"name":"log","uri":"https://jobs.example/9"}]}'
    write(world, state_of(stored(world, executions[3]), seen=seen, error_since=instant("12:02"), last_error="503"))
    assert words(3) == "job 9, RUNNING: half way; no answer since 2026-11-21T12:02:00Z: 503"
    assert world.run(executions[3].run.name)["links"] == [{"name": "log", "uri": "https://jobs.example/9"}]
    write(world, state_of(stored(world, executions[3]), stage="cancelling", ending=ending.encode(), error_since=None))
    assert words(3) == "the end of job 9, owed since 2026-11-21T12:03:00Z: too long"
    assert [(item["running"], item["waits"]) for item in world.client.list_workers()] == [(0, 3)]
    lose(world)
    world.register("w2", ["shell"])
    assert words(1) == "what its executor looks at every 20 s; no worker for executor logging"
    with world.store.read() as tx:
        assert tx.waits.executors_wanted() == {"logging"}


# --- ends that somebody wants ---------------------------------------------------------------------------------------


def test_the_holder_of_a_wait_is_told_that_somebody_wants_its_run_to_end(world: World) -> None:
    first, second = running(world, 2)
    defer(world, job(first), job(second, "8"))
    world.store.run(cancel_run, second.run.name, by="anna")
    assert world.store.run(wanted_ends, "w1") == {second.run.name: "cancelled by anna"}
    assert world.store.run(wanted_ends, "w2") == {}
    assert run_row(world, second)["phase"] == "DEFERRED"
    lose(world)
    world.register("w2")
    assert {item.execution.run.name: item.intent for item in claim(world)} == {
        first.run.name: None,
        second.run.name: "cancelled by anna",
    }


# --- submitted again ------------------------------------------------------------------------------------------------


def test_a_run_whose_job_was_not_made_is_queued_again_in_the_same_attempt(world: World) -> None:
    (execution,) = running(world)
    defer(world, submitting(execution))
    tries = Tries(3, world.clock.now(), "503")
    item = PutBack(execution, instant("12:05"), submitting_state(tries))
    assert world.store.run(put_back, [item], "w1") == {(execution.run.name, 1)}
    assert world.store.run(put_back, [item], "w1") == {(execution.run.name, 1)}
    assert world.take() == []
    again = only(world.at("12:05").take())
    assert (again.run.attempt, again.run.started_at, again.key) == (1, instant("12:01"), execution.key)
    assert tries_of(again) == tries
    assert tries_of(execution) == Tries()
    assert world.store.run(put_back, [item], "w1") == frozenset()


def test_a_run_that_somebody_wants_to_end_is_not_queued_again(world: World) -> None:
    (execution,) = running(world)
    defer(world, submitting(execution))
    world.store.run(cancel_run, execution.run.name, by="anna")
    item = PutBack(execution, instant("12:05"), submitting_state(Tries(1, 1, "503")))
    assert world.store.run(put_back, [item], "w1") == {(execution.run.name, 1)}
    row = run_row(world, execution)
    assert (row["phase"], row["error"], row["fence"], row["state"]) == ("ABORTED", "cancelled by anna", 2, None)


def test_a_wait_taken_over_since_is_not_put_back(world: World) -> None:
    (execution,) = running(world)
    defer(world, submitting(execution))
    lose(world)
    world.register("w2")
    claim(world)
    assert world.store.run(put_back, [PutBack(execution, 0, None)], "w1") == frozenset()
    assert run_row(world, execution)["phase"] == "DEFERRED"


def test_a_poll_waits_with_its_interval_and_budget(world: World) -> None:
    (execution,) = running(world)
    wait = Poll(timedelta(seconds=20), timedelta(minutes=3))
    defer(world, deferral_of(execution, Deferred(wait, [1])))
    kept = stored(world, execution)
    assert (kept.kind, kept.interval, kept.budget, kept.state) == ("poll", 20 * SECOND, 180 * SECOND, "[1]")
    assert kept.look_at == world.clock.now() + 20 * SECOND
    assert kept.ends_at is None
