"""External jobs in a real worker: submitted once, watched through faults, ended for certain, one event a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest

from executors.airbyte import AirbyteExecutor
from scheduler.domain.retry import RetryPolicy
from scheduler.services.cancel import cancel_run
from tests.fakes.airbyte import FIRST_ID, FakeAirbyte
from tests.fakes.serving import Kind
from tests.integration.waiting_world import WaitingWorld, seconds

pytestmark = pytest.mark.heavy

SYNC = {"connection_id": "c", "poll_interval": "60ms", "error_budget": "20s"}
RETRY = RetryPolicy(2, timedelta(milliseconds=10))


@pytest.fixture
def airbyte() -> Iterator[FakeAirbyte]:
    with FakeAirbyte() as server:
        yield server


def working(url: str, airbyte: FakeAirbyte, **options: Any) -> AbstractContextManager[WaitingWorld]:
    return WaitingWorld(url, {"airbyte": AirbyteExecutor(airbyte.options)}, **options)


@pytest.fixture
def world(sqlite_url: str, airbyte: FakeAirbyte) -> Iterator[WaitingWorld]:
    with working(sqlite_url, airbyte) as world:
        yield world


def cancel(world: WaitingWorld, run: str) -> None:
    world.store.run(cancel_run, run, by="anna")


def facts(run: dict[str, Any]) -> tuple[Any, ...]:
    event = run["event"] or {}
    return run["phase"], event.get("status"), event.get("message"), event.get("job_id")


# --- how jobs end ---------------------------------------------------------------------------------------------------


def test_a_job_is_submitted_watched_and_its_outputs_are_recorded(database_url: str) -> None:
    plan = ("pending", "queued", "running", "incomplete", "succeeded")
    with FakeAirbyte(plan=plan) as airbyte, working(database_url, airbyte) as world:
        name = world.fire("sync", "airbyte", SYNC)
        run = world.until_phase(name, "SUCCEEDED", "FAILED")
        assert facts(run) == ("SUCCEEDED", "success", "Job run 12345 has completed successfully.", 12345)
        assert (run["outputs"]["rows_synced"], run["outputs"]["job_id"]) == (16, 12345)
        assert [(item["attempt"], item["phase"]) for item in run["attempts"]] == [(1, "SUCCEEDED")]
        assert world.wait_of(name) is None
        assert airbyte.submitted == {"c": 1}


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [("failed", "error", "has failed."), ("cancelled", "cancelled", "has been cancelled.")],
)
def test_a_job_that_ends_badly_ends_its_run_with_one_event(
    world: WaitingWorld, airbyte: FakeAirbyte, word: str, status: str, message: str
) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.end(word)
    run = world.until_phase(name, "FAILED")
    assert facts(run) == ("FAILED", status, f"Job run 12345 {message}", 12345)
    assert run["error"] == f"Job run 12345 {message}"
    assert airbyte.cancels == {}


def test_a_job_that_failed_is_tried_again_when_it_is_over(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC, retries=RETRY)
    world.until_waiting(name)
    airbyte.end("failed")
    world.until(lambda: len(airbyte.jobs) == 2, "a second job")
    assert world.run(name)["event"] is None
    airbyte.end("succeeded")
    run = world.until_phase(name, "SUCCEEDED")
    assert facts(run)[1:] == ("success", "Job run 12346 has completed successfully.", 12346)
    assert [item["phase"] for item in run["attempts"]] == ["FAILED", "SUCCEEDED"]


def test_a_job_that_is_gone_ends_its_run(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.forget(FIRST_ID)
    run = world.until_phase(name, "FAILED")
    assert run["event"]["status"] == "error"
    assert "does not know the job 12345" in run["event"]["message"]


def test_a_job_that_exists_already_is_watched_and_not_made(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    job = airbyte.add("other")
    names = [world.fire(f"watch-{n}", "airbyte", {"job_id": job.job_id, "poll_interval": "60ms"}) for n in range(2)]
    for name in names:
        world.until_waiting(name)
    airbyte.end("succeeded")
    for name in names:
        assert facts(world.until_phase(name, "SUCCEEDED"))[3] == job.job_id
    assert airbyte.submitted == {}


def test_two_places_keep_forty_jobs_going(sqlite_url: str, airbyte: FakeAirbyte) -> None:
    airbyte.one_at_a_time = False
    with working(sqlite_url, airbyte, max_concurrent_runs=2) as world:
        key = world.deploy("sync", "airbyte", SYNC)
        names = [world.again(key) for _ in range(40)]
        world.until(lambda: len(airbyte.jobs) == 40, "forty jobs run")
        world.until(lambda: world.client.list_workers()[0]["waits"] == 40, "all are waits of the worker")
        assert world.client.list_workers()[0]["running"] == 0
        airbyte.end("succeeded")
        for name in names:
            world.until_phase(name, "SUCCEEDED")
        assert airbyte.submitted == {"c": 40}


def test_what_a_run_waits_for_is_shown(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    world.until(lambda: world.run(name)["waiting_for"] == "job 12345, RUNNING", "the phase of the job is shown")
    airbyte.fail(503, on="status", times=None)
    world.until(lambda: "no answer since" in world.run(name)["waiting_for"], "the errors are shown")
    airbyte.heal()
    airbyte.end("succeeded")
    world.until_phase(name, "SUCCEEDED")


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [500, 503, 429, 401, 403, "drop", "html", "bad json", "not an object", "unknown status"]
)
def test_no_fault_short_of_the_budget_ends_a_run(world: WaitingWorld, airbyte: FakeAirbyte, kind: Kind) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.fail(kind, on="status", times=5)
    world.until(lambda: airbyte.seen["status"] >= 7, "it goes on asking")
    row = world.until_waiting(name)
    world.until(lambda: world.until_waiting(name)["error_since"] is None, "it is well again")
    assert row["stage"] == "waiting"
    airbyte.end("succeeded")
    assert facts(world.until_phase(name, "SUCCEEDED", "FAILED"))[0] == "SUCCEEDED"
    assert airbyte.submitted == {"c": 1}


def test_a_service_that_asks_for_time_gets_it(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.fail(429, on="status", retry_after=6)
    row = world.until(lambda: (row := world.wait_of(name)) and row["error_since"] and row, "it was refused")
    assert row
    assert 5_000_000 < row["look_at"] - row["error_since"] < 7_000_000
    asked = airbyte.seen["status"]
    time.sleep(1)
    assert airbyte.seen["status"] == asked


def test_a_spent_budget_is_told_once_and_the_run_ends_when_its_job_has(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    name = world.fire("sync", "airbyte", {**SYNC, "error_budget": "400ms"}, retries=RETRY)
    world.until_waiting(name)
    airbyte.fail(503, times=None)
    row = world.until_waiting(name, "cancelling")
    assert "503" in row["ending"]
    time.sleep(0.5)
    assert world.run(name)["phase"] == "DEFERRED"
    assert "owed since" in world.run(name)["waiting_for"]
    assert len(airbyte.jobs) == 1
    airbyte.heal()
    world.until(lambda: len(airbyte.jobs) == 2, "another attempt, now that the job is over")
    assert airbyte.jobs[FIRST_ID].status == "cancelled"
    airbyte.end("failed")
    run = world.until_phase(name, "FAILED")
    assert [item["phase"] for item in run["attempts"]] == ["FAILED", "FAILED"]
    assert "503" in run["attempts"][0]["error"]
    assert facts(run)[2] == "Job run 12346 has failed."


def test_a_job_that_cannot_be_ended_is_given_up_some_day(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC, cancel_give_up=seconds(0.8))
    world.until_waiting(name)
    airbyte.fail(503, times=None)
    cancel(world, name)
    run = world.until_phase(name, "ABORTED")
    assert facts(run) == ("ABORTED", "cancelled", "Job run 12345 has been cancelled.", 12345)
    assert "may still be running" in run["error"]


# --- cancels, timeouts, deadlines -----------------------------------------------------------------------------------


def test_a_cancelled_run_ends_when_its_job_has_been_ended(database_url: str, airbyte: FakeAirbyte) -> None:
    with working(database_url, airbyte) as world:
        name = world.fire("sync", "airbyte", {**SYNC, "poll_interval": "60s"}, retries=RETRY)
        world.until_waiting(name)
        begun = time.monotonic()
        cancel(world, name)
        run = world.until_phase(name, "ABORTED")
        assert facts(run) == ("ABORTED", "cancelled", "Job run 12345 has been cancelled.", 12345)
        assert run["error"] == "cancelled by anna"
        assert airbyte.cancels == {FIRST_ID: 1}
        assert time.monotonic() - begun < 5


def test_a_cancel_is_not_delayed_by_back_off(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", {**SYNC, "error_budget": "1h"})
    world.until_waiting(name)
    airbyte.fail(429, on="status", retry_after=3600)
    world.until(lambda: (world.wait_of(name) or {}).get("error_since"), "it was refused for an hour")
    cancel(world, name)
    world.until_phase(name, "ABORTED", within=5)


def test_a_cancel_breaks_off_a_question_that_nobody_answers(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.fail("hold", on="status")
    assert airbyte.held.acquire(timeout=5)
    cancel(world, name)
    world.until_phase(name, "ABORTED", within=5)


def test_a_cancel_while_the_service_is_away_is_carried_out_when_it_is_back(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    with airbyte.away():
        cancel(world, name)
        world.until_waiting(name, "cancelling")
        time.sleep(0.5)
        assert world.run(name)["phase"] == "DEFERRED"
    assert facts(world.until_phase(name, "ABORTED"))[:2] == ("ABORTED", "cancelled")
    assert airbyte.jobs[FIRST_ID].status == "cancelled"


def test_a_timeout_ends_the_job_and_says_how_long_it_was(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", {**SYNC, "poll_interval": "60s"}, timeout=seconds(0.7))
    run = world.until_phase(name, "TIMED_OUT")
    said = "Job run 12345 has not reached a terminal status after 0.7 seconds."
    assert facts(run) == ("TIMED_OUT", "error", said, 12345)
    assert airbyte.jobs[FIRST_ID].status == "cancelled"


def test_an_attempt_that_timed_out_is_tried_again_when_its_job_is_over(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    name = world.fire("sync", "airbyte", SYNC, timeout=seconds(0.5), retries=RETRY)
    world.until(lambda: len(airbyte.jobs) == 2, "a second job")
    assert airbyte.jobs[FIRST_ID].status == "cancelled"
    airbyte.end("succeeded")
    run = world.until_phase(name, "SUCCEEDED")
    assert [item["phase"] for item in run["attempts"]] == ["TIMED_OUT", "SUCCEEDED"]
    # The key of the second attempt is another: what the first one did is known.
    with world.store.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT known_ends FROM runs").scalar_one() == 1


def test_a_deadline_ends_the_run_in_its_own_words(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC, deadline=seconds(0.7), retries=RETRY)
    run = world.until_phase(name, "TIMED_OUT")
    assert facts(run) == ("TIMED_OUT", "timeout", "Job run 12345 has reached execution timeout.", 12345)
    assert airbyte.submitted == {"c": 1}
    assert airbyte.jobs[FIRST_ID].status == "cancelled"


def test_a_timeout_is_not_delayed_by_back_off(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", {**SYNC, "error_budget": "1h"}, timeout=seconds(3))
    world.until_waiting(name)
    airbyte.fail(429, on="status", retry_after=3600)
    world.until(lambda: (world.wait_of(name) or {}).get("error_since"), "it was refused for an hour")
    world.until_phase(name, "TIMED_OUT", within=8)


# --- submissions ----------------------------------------------------------------------------------------------------


def test_a_submission_whose_answer_is_lost_is_found_and_not_repeated(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    airbyte.fail("lost answer", on="create")
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    airbyte.end("succeeded")
    assert facts(world.until_phase(name, "SUCCEEDED"))[3] == FIRST_ID
    assert airbyte.submitted == {"c": 1}


def test_a_submission_that_never_arrived_is_repeated_when_that_is_certain(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    airbyte.fail("drop", on="create", times=2)
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    assert airbyte.submitted == {"c": 1}
    airbyte.end("succeeded")
    run = world.until_phase(name, "SUCCEEDED")
    assert [item["attempt"] for item in run["attempts"]] == [1]


@pytest.mark.parametrize("kind", [503, 429])
def test_a_submission_that_is_refused_for_now_is_made_later_in_the_same_attempt(
    world: WaitingWorld, airbyte: FakeAirbyte, kind: Kind
) -> None:
    airbyte.fail(kind, on="create", times=3)
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    assert airbyte.submitted == {"c": 1}
    run = world.run(name)
    assert (run["attempt"], run["lost"]) == (1, 0)


def test_a_connection_that_is_busy_is_waited_for(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    other = airbyte.add("c", ago=timedelta(hours=1))
    name = world.fire("sync", "airbyte", SYNC)
    world.until(lambda: airbyte.seen["create"] >= 2, "it was refused twice", 20)
    assert airbyte.submitted == {}
    assert world.run(name)["phase"] in ("QUEUED", "RUNNING", "DEFERRED")
    airbyte.end("succeeded", other.job_id)
    world.until_waiting(name)
    assert airbyte.submitted == {"c": 1}


def test_a_submission_that_fails_for_longer_than_the_budget_fails(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    airbyte.fail(503, on="create", times=None)
    name = world.fire("sync", "airbyte", {**SYNC, "error_budget": "500ms"})
    run = world.until_phase(name, "FAILED")
    assert facts(run)[:2] == ("FAILED", "error")
    assert "503" in facts(run)[2]
    assert facts(run)[3] is None


def test_a_submission_that_is_rejected_fails_at_once(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", {**SYNC, "connection_id": "unknown"}, retries=RETRY)
    run = world.until_phase(name, "FAILED")
    assert (facts(run)[1], facts(run)[3]) == ("error", None)
    assert len(run["attempts"]) == 1


def test_a_cancel_during_the_submission_lets_it_come_to_its_end_and_then_ends_the_job(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    airbyte.fail("hold", on="create")
    name = world.fire("sync", "airbyte", SYNC)
    assert airbyte.held.acquire(timeout=5)
    cancel(world, name)
    time.sleep(1.0)
    assert airbyte.jobs[FIRST_ID].status == "running"
    airbyte.release()
    assert facts(world.until_phase(name, "ABORTED")) == (
        "ABORTED",
        "cancelled",
        "Job run 12345 has been cancelled.",
        12345,
    )
    assert airbyte.jobs[FIRST_ID].status == "cancelled"


def test_a_cancel_while_a_lost_submission_is_looked_for_ends_the_job_that_is_found(
    sqlite_url: str, airbyte: FakeAirbyte
) -> None:
    with working(sqlite_url, airbyte, settled_after=3.0) as world:
        airbyte.fail("lost answer", on="create")
        airbyte.fail(503, on="find", times=4)
        name = world.fire("sync", "airbyte", {**SYNC, "poll_interval": "300ms"})
        world.until(lambda: airbyte.seen["find"] >= 1, "it is looked for")
        cancel(world, name)
        run = world.until_phase(name, "ABORTED")
        assert airbyte.jobs[FIRST_ID].status == "cancelled"
        assert run["event"]["status"] == "cancelled"


# --- workers come and go --------------------------------------------------------------------------------------------


def test_a_worker_that_leaves_lets_its_jobs_go_and_the_next_one_watches_them(
    database_url: str, airbyte: FakeAirbyte
) -> None:
    with working(database_url, airbyte) as world:
        name = world.fire("sync", "airbyte", SYNC)
        world.until_waiting(name)
        world.stop()
        row = world.wait_of(name)
        assert row is not None
        assert (row["owner"], row["stage"], row["job_id"]) == (None, "waiting", "12345")
        airbyte.end("succeeded")
        world.start()
        run = world.until_phase(name, "SUCCEEDED")
        assert (run["lost"], run["attempt"], facts(run)[3]) == (0, 1, FIRST_ID)
        assert airbyte.submitted == {"c": 1}


def test_a_submission_that_is_under_way_when_the_worker_is_told_to_stop_is_finished(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    airbyte.fail("hold", on="create")
    name = world.fire("sync", "airbyte", SYNC)
    assert airbyte.held.acquire(timeout=5)
    world.call(world.worker.stop)
    time.sleep(0.5)
    airbyte.release()
    world.stop()
    row = world.wait_of(name)
    assert row is not None
    assert (row["owner"], row["stage"], row["job_id"]) == (None, "waiting", "12345")
    assert airbyte.jobs[FIRST_ID].status == "running"


def test_a_worker_that_was_declared_dead_forgets_its_jobs_and_ends_none(
    world: WaitingWorld, airbyte: FakeAirbyte
) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    fence = world.until_waiting(name)["fence"]
    with world.store.begin() as tx:
        tx.workers.void_all()
    row = world.until(
        lambda: (row := world.wait_of(name)) is not None and row["fence"] > fence and row, "it was taken over"
    )
    assert row
    assert row["stage"] == "waiting"
    assert airbyte.cancels == {}
    airbyte.end("succeeded")
    assert world.until_phase(name, "SUCCEEDED")["lost"] == 0


def test_a_wait_somebody_else_took_over_is_forgotten(world: WaitingWorld, airbyte: FakeAirbyte) -> None:
    name = world.fire("sync", "airbyte", SYNC)
    world.until_waiting(name)
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE waits SET owner = 'other', fence = fence + 1")
        connection.exec_driver_sql("UPDATE runs SET fence = fence + 1")
        connection.exec_driver_sql(
            "INSERT INTO workers SELECT 'other', 'other', version, fingerprint, executors, epoch, started_at, "
            "renewed_at, lease_until + 3600000000, alive FROM workers"
        )
    world.until(lambda: world.call(lambda: world.worker.deferring.count) == 0, "it is forgotten")
    asked = airbyte.seen["status"]
    time.sleep(0.5)
    assert airbyte.seen["status"] == asked
    assert airbyte.cancels == {}
    assert world.run(name)["phase"] == "DEFERRED"


def test_the_database_says_what_time_it_is(world: WaitingWorld) -> None:
    apart = world.call(world.worker.deferring.waiting.now) - time.time_ns() // 1_000
    assert abs(apart) < 500_000
