"""Runs that wait, in a real worker, in short: the long way round is in the files beside this one, among the heavy tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from executors import Deferred, Executor, Outcome, Poll, PythonExecutor, RunContext, Succeeded, Until
from executors.airbyte import AirbyteExecutor
from scheduler.services.cancel import cancel_run
from tests.fakes.airbyte import FIRST_ID, FakeAirbyte
from tests.integration.waiting_world import WaitingWorld

SYNC = {"connection_id": "c", "poll_interval": "60ms", "error_budget": "30s"}


@pytest.fixture
def airbyte() -> Iterator[FakeAirbyte]:
    with FakeAirbyte() as server:
        yield server


def test_a_job_is_watched_through_faults_and_a_change_of_workers_to_its_end(
    database_url: str, airbyte: FakeAirbyte
) -> None:
    with WaitingWorld(database_url, {"airbyte": AirbyteExecutor(airbyte.options)}) as world:
        airbyte.fail("lost answer", on="create")
        name = world.fire("sync", "airbyte", SYNC)
        world.until_waiting(name)
        airbyte.fail(503, on="status", times=2)
        world.stop()
        world.start()
        world.until(lambda: airbyte.seen["status"] >= 4, "it is asked for again")
        airbyte.end("succeeded")
        run = world.until_phase(name, "SUCCEEDED", "FAILED")
        said = "Job run 12345 has completed successfully."
        assert run["event"] == {"status": "success", "message": said, "job_id": FIRST_ID}
        assert (run["outputs"]["rows_synced"], run["attempt"], run["lost"]) == (16, 1, 0)
        assert airbyte.submitted == {"c": 1}


def test_a_cancel_ends_the_job_before_the_run(sqlite_url: str, airbyte: FakeAirbyte) -> None:
    with WaitingWorld(sqlite_url, {"airbyte": AirbyteExecutor(airbyte.options)}) as world:
        name = world.fire("sync", "airbyte", {**SYNC, "poll_interval": "60s"})
        world.until_waiting(name)
        world.store.run(cancel_run, name, by="anna")
        assert world.until_phase(name, "ABORTED")["event"]["status"] == "cancelled"
        assert airbyte.jobs[FIRST_ID].status == "cancelled"


class Patient(Executor):
    """Polls twice, waits for an instant, and is done."""

    async def execute(self, run: RunContext) -> Outcome:
        """Begins to poll; goes on after the instant."""
        if run.resumed is not None:
            return Succeeded({"state": run.resumed.state})
        return Deferred(Poll(timedelta(milliseconds=50)), 0)

    async def poll(self, run: RunContext) -> Outcome:
        """Counts."""
        assert run.resumed is not None
        polls = run.resumed.state + 1
        soon = run.now() + timedelta(milliseconds=300)
        return Deferred(Poll(timedelta(milliseconds=50)), polls) if polls < 2 else Deferred(Until(soon), polls)


def test_an_executor_polls_waits_for_an_instant_and_is_executed_again(database_url: str) -> None:
    with WaitingWorld(database_url, {"it": Patient()}) as world:
        run = world.until_phase(world.fire("task", "it"), "SUCCEEDED", "FAILED")
        assert (run["outputs"], run["attempt"]) == ({"state": 2}, 1)


def test_a_function_is_called_again_with_its_state(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "patient_function.py").write_text(
        "from datetime import timedelta\n"
        "from executors import Deferred, Poll\n"
        "def polls(run):\n"
        "    n = 0 if run.resumed is None else run.resumed.state\n"
        "    return n if n == 2 else Deferred(Poll(timedelta(milliseconds=50)), n + 1)\n"
    )
    with WaitingWorld(sqlite_url, {"it": PythonExecutor(path=[str(tmp_path)])}) as world:
        name = world.fire("task", "it", {"callable": "patient_function:polls"})
        assert world.until_phase(name, "SUCCEEDED", "FAILED")["outputs"] == {"result": 2}
