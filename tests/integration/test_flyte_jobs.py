"""`flyte_service` in a real worker, against a connector server over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from executors.flyte.service import FlyteServiceExecutor
from scheduler.domain.retry import RetryPolicy
from tests.fakes.connectors import FakeConnectors
from tests.integration.waiting_world import WaitingWorld

BATCH = {"type": "batch_job", "poll_interval": "50ms", "error_budget": "20s"}
AGAIN = RetryPolicy(2, initial=timedelta(milliseconds=10))


@pytest.fixture
def server() -> Iterator[FakeConnectors]:
    with FakeConnectors() as server:
        yield server


@pytest.fixture
def world(sqlite_url: str, server: FakeConnectors) -> Iterator[WaitingWorld]:
    executor = FlyteServiceExecutor(endpoint=server.endpoint, insecure=True, timeout=timedelta(seconds=2))
    with WaitingWorld(sqlite_url, {"remote": executor}, max_concurrent_runs=2) as world:
        yield world


def ended(world: WaitingWorld, run: str) -> dict[str, Any]:
    return world.until_phase(run, "SUCCEEDED", "FAILED", "ABORTED")


def test_a_job_leaves_outputs_links_and_a_log(world: WaitingWorld, server: FakeConnectors) -> None:
    server.log = ["one", "two"]
    run = world.fire("batch", "remote", BATCH, inputs={"val": 42})
    world.until_waiting(run)
    server.fail(grpc.StatusCode.UNAVAILABLE, "not now", on="GetTask", times=2)
    server.fail(grpc.StatusCode.INTERNAL, "failed to get", on="GetTask")
    server.end("SUCCEEDED", message="done", links={"log": "https://x/1"}, outputs={"rows": 3, "parts": [{"a": 1}]})
    found = ended(world, run)
    assert (found["phase"], found["outputs"]) == ("SUCCEEDED", {"rows": 3, "parts": [{"a": 1}]})
    assert found["links"] == [{"name": "log", "uri": "https://x/1"}]
    assert found["event"] == {"status": "success", "message": "done", "job_id": "job-1"}
    assert server.asked["CreateTask"] == 1
    with world.store.read() as tx:
        (attempt,) = tx.runs.attempts_of(run)
    assert attempt["output"] == "one\ntwo\n"


def test_an_end_that_may_be_tried_again_ends_the_attempt(world: WaitingWorld, server: FakeConnectors) -> None:
    run = world.fire("batch", "remote", BATCH, retries=AGAIN)
    world.until_waiting(run)
    server.end("RETRYABLE_FAILED", message="preempted")
    world.until(lambda: server.asked["CreateTask"] == 2, "a second job")
    world.until_waiting(run)
    server.end("SUCCEEDED", outputs={})
    found = ended(world, run)
    assert [each["error"] for each in found["attempts"]] == ["preempted", None]
    execution = server.request("CreateTask")["task_execution_metadata"]["task_execution_id"]
    assert execution["node_execution_id"]["execution_id"]["name"] == f"{run}-2"


def test_a_connector_that_fails_to_submit_says_that_a_job_may_be_running(
    world: WaitingWorld, server: FakeConnectors
) -> None:
    server.fail(grpc.StatusCode.INTERNAL, "failed to create batch_job task with error:\n boom.", on="CreateTask")
    found = ended(world, world.fire("batch", "remote", BATCH, retries=AGAIN))
    assert found["phase"] == "FAILED"
    assert "answered CreateTask with INTERNAL: failed to create batch_job task with error:\n boom." in found["error"]
    assert "one may be running" in found["error"]
    assert server.asked["CreateTask"] == 1


def test_a_type_that_the_server_does_not_know_has_failed_for_good(world: WaitingWorld, server: FakeConnectors) -> None:
    found = ended(world, world.fire("batch", "remote", {**BATCH, "type": "batch_jbo"}, retries=AGAIN))
    assert (found["phase"], found["attempt"]) == ("FAILED", 1)
    assert "no connector for the task type 'batch_jbo', version 0 (did you mean batch_job?)" in found["error"]
    assert not server.asked["CreateTask"]


def test_a_server_that_is_away_is_waited_for_before_in_the_midst_and_to_cancel(
    world: WaitingWorld, server: FakeConnectors
) -> None:
    with server.away():
        run = world.fire("batch", "remote", BATCH)
        world.until(lambda: "connection refused" in str(_state(world, run)), "it was tried in vain")
    world.until_waiting(run)
    with server.away():
        world.until(lambda: (world.wait_of(run) or {})["last_error"], "it is asked for in vain")
        world.client.cancel_run(run)
        world.until_waiting(run, "cancelling")
    found = ended(world, run)
    assert (found["phase"], found["event"]["status"]) == ("ABORTED", "cancelled")
    assert server.jobs == {"job-1": "ABORTED"}


def _state(world: WaitingWorld, run: str) -> str | None:
    with world.store.read() as tx:
        row = tx.runs.find(run)
    return None if row is None else row["state"]
