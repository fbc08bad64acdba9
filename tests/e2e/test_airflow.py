"""Airflow itself, unmodified, in an environment of its own that knows nothing of this package: its triggers and operators.

The first of these tests makes the environment.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.airflow.operator import AirflowOperatorExecutor
from executors.airflow.trigger import AirflowTriggerExecutor
from tests.e2e.conftest import NewWorld
from tests.e2e.web import ANY_PORT, Web
from tests.e2e.worlds import WorkerProcess, World, task
from tests.environments import environment
from tests.fakes.airbyte import FakeAirbyte
from tests.integration.waiting_world import WaitingWorld
from tests.pages import blocks_in

pytestmark = pytest.mark.heavy

AIRFLOW = ("apache-airflow==3.3.2", "apache-airflow-providers-airbyte==6.2.0")
SYNC = "airflow.providers.airbyte.triggers.airbyte.AirbyteSyncTrigger"
OPERATOR = "airflow.providers.airbyte.operators.airbyte.AirbyteTriggerSyncOperator"
SENSORS = "airflow.providers.standard.sensors"


@pytest.fixture(scope="session")
def airflow_python() -> Path:
    """An interpreter that has Airflow with Airbyte's provider, and nothing of this package."""
    return environment("airflow", *AIRFLOW, apart=True)


@pytest.fixture
def airbyte() -> Iterator[FakeAirbyte]:
    with FakeAirbyte() as server:
        yield server


def connection(airbyte: FakeAirbyte) -> str:
    """The Airflow connection to the server."""
    return json.dumps(
        {"conn_type": "airbyte", "host": airbyte.host, "login": airbyte.client_id, "password": airbyte.client_secret}
    )


def watch(job_id: Any, **kwargs: Any) -> dict[str, Any]:
    """A task's config that watches a job."""
    told = {"job_id": job_id, "conn_id": "airbyte_default", "poll_interval": 0.2, **kwargs}
    return {"classpath": SYNC, "kwargs": told, "after": {"end_time": "1h"}, "poll_interval": "1s"}


def test_the_real_trigger_tells_every_end(
    airflow_python: Path, airbyte: FakeAirbyte, sqlite_url: str, tmp_path: Path
) -> None:
    (of_the_page,) = blocks_in("docs/airflow.md", "python")
    (tmp_path / str(of_the_page.file)).write_text(of_the_page.text)
    executor = AirflowTriggerExecutor(
        python=str(airflow_python),
        path=[str(tmp_path)],
        env={"AIRFLOW_CONN_AIRBYTE_DEFAULT": connection(airbyte)},
    )
    jobs = {end: airbyte.add(f"c-{end}").job_id for end in ("succeeded", "failed", "cancelled", "late", "deadline")}
    late = {**watch(jobs["late"]), "after": {"end_time": "1s"}}
    deadline = {**watch(jobs["deadline"]), "after": {"end_time": "1h", "execution_deadline": "1s"}}
    making = {**watch(0), "create": "my_jobs:start_sync"}
    del making["kwargs"]["job_id"]
    with WaitingWorld(sqlite_url, {"airflow": executor}) as world:
        runs = {end: world.fire(end, "airflow", watch("{inputs.job}"), inputs={"job": jobs[end]}) for end in jobs}
        runs["late"] = world.fire("late2", "airflow", late)
        runs["deadline"] = world.fire("deadline2", "airflow", deadline)
        runs["unknown connection"] = world.fire("nowhere", "airflow", watch(1, conn_id="nowhere"))
        runs["unknown job"] = world.fire("nothing", "airflow", watch(999))
        runs["created"] = world.fire("created", "airflow", making, inputs={"connection_id": "made"})
        world.until(lambda: airbyte.submitted["made"] == 1, "its job is made", 60)
        world.until(lambda: all(airbyte.jobs[number].asked for number in jobs.values()), "all are watched", 60)
        for end in ("succeeded", "failed", "cancelled"):
            airbyte.end(end, jobs[end])
        made = airbyte.newest.job_id
        airbyte.end("succeeded", made)
        ends = {end: world.until_phase(run, "SUCCEEDED", "FAILED", "TIMED_OUT", within=60) for end, run in runs.items()}
        printed = str([world.client.run_output(run) for run in runs.values()])

    def event(end: str, phase: str, status: str, message: str, job: int | None = None) -> None:
        told = {"status": status, "message": message, "job_id": jobs[end] if job is None else job}
        assert (ends[end]["phase"], ends[end]["event"]) == (phase, told)

    event("succeeded", "SUCCEEDED", "success", f"Job run {jobs['succeeded']} has completed successfully.")
    assert ends["succeeded"]["outputs"]["job_id"] == jobs["succeeded"]
    event("failed", "FAILED", "error", f"Job run {jobs['failed']} has failed.")
    event("cancelled", "FAILED", "cancelled", f"Job run {jobs['cancelled']} has been cancelled.")
    event("deadline", "TIMED_OUT", "timeout", f"Job run {jobs['deadline']} has reached execution timeout.")
    event("created", "SUCCEEDED", "success", f"Job run {made} has completed successfully.", made)
    assert ends["late"]["phase"] == "FAILED"
    assert f"Job run {jobs['late']} has not reached a terminal status after" in ends["late"]["error"]
    assert ends["unknown connection"]["phase"] == "FAILED"
    assert "The conn_id `nowhere` isn't defined" in ends["unknown connection"]["error"]
    assert ends["unknown job"]["event"]["status"] == "error"
    assert "Getting the status of job run" in printed
    assert str(airbyte.client_secret) not in printed + str(ends)


def test_real_operators_and_sensors_run_through(
    airflow_python: Path, airbyte: FakeAirbyte, sqlite_url: str, tmp_path: Path
) -> None:
    executor = AirflowOperatorExecutor(
        python=str(airflow_python), env={"AIRFLOW_CONN_AIRBYTE_DEFAULT": connection(airbyte)}
    )
    deferrable = {"deferrable": True}

    def fire(world: WaitingWorld, name: str, classpath: str, **config: Any) -> str:
        return world.fire(name, "operators", {"classpath": classpath, "poll_interval": "2s", **config})

    with WaitingWorld(sqlite_url, {"operators": executor}) as world:
        at = fire(world, "at", f"{SENSORS}.date_time.DateTimeSensorAsync", after={"target_time": "6s"})
        delta = fire(
            world, "delta", f"{SENSORS}.time_delta.TimeDeltaSensor", kwargs={"delta": "1s", "deferrable": True}
        )
        bash = "airflow.providers.standard.operators.bash.BashOperator"
        shell = fire(world, "shell", bash, kwargs={"bash_command": "echo {{ ds }} {{ params.region }}"})
        broken = fire(world, "broken", bash, kwargs={"bash_command": "exit 3"})
        skipped = fire(world, "skipped", bash, kwargs={"bash_command": "exit 99"})
        wrong = fire(world, "wrong", bash)
        world.until_phase(shell, "SUCCEEDED", "FAILED", within=60)
        # Its trigger asks a first time at once, and then once a minute.
        airbyte.plan = ("running", "succeeded")
        works = fire(world, "works", OPERATOR, kwargs={"connection_id": "works", **deferrable})
        world.until(lambda: airbyte.submitted["works"], "a sync", 60)
        airbyte.end("succeeded")
        airbyte.plan = ("running", "failed")
        fails = fire(world, "fails", OPERATOR, kwargs={"connection_id": "fails", **deferrable})
        world.until(lambda: airbyte.submitted["fails"], "another", 60)
        airbyte.end("failed")
        runs = {"at": at, "delta": delta, "shell": shell, "broken": broken, "skipped": skipped, "wrong": wrong}
        runs |= {"works": works, "fails": fails}
        ends = {name: world.until_phase(run, "SUCCEEDED", "FAILED", within=60) for name, run in runs.items()}
        printed = {name: str(world.client.run_output(run)) for name, run in runs.items()}

    phases = {name: end["phase"] for name, end in ends.items()}
    good = dict.fromkeys(("at", "delta", "shell", "skipped", "works"), "SUCCEEDED")
    assert phases == {**good, "broken": "FAILED", "wrong": "FAILED", "fails": "FAILED"}, (ends, printed)
    assert ends["shell"]["outputs"]["result"].startswith("20")
    assert "returned a non-zero exit code 3" in ends["broken"]["error"]
    assert "skipped" in ends["skipped"]["outputs"]
    assert "cannot be made with these kwargs" in ends["wrong"]["error"]
    assert "has failed" in ends["fails"]["error"]
    assert "was submitted to Airbyte Server" in printed["works"]
    assert "completed successfully" in printed["works"]
    assert airbyte.submitted == {"works": 1, "fails": 1}


# --- the real process ------------------------------------------------------------------------------------------------


def world_of(
    new_world: NewWorld, url: str, airflow_python: Path, airbyte: FakeAirbyte, jobs: list[int], **sections: Any
) -> World:
    """A world that watches these jobs: one task, one trigger a job."""
    config = watch("{inputs.job}")
    once = {"every": "1s", "max_fires": 1}
    triggers = [{"name": f"j{number}", "inputs": {"job": number}, **once} for number in jobs]
    watching = {**task("watching", "airflow", config, inputs={"job": 0}), "triggers": triggers}
    options = {"python": str(airflow_python), "secrets": {"AIRFLOW_CONN_AIRBYTE_DEFAULT": "airbyte"}}
    return new_world(
        url,
        [watching],
        executors={"airflow": {"use": "airflow_trigger", "options": options}},
        secrets={"airbyte": {"env": "AIRBYTE_CONNECTION"}},
        **sections,
    )


def child_of(world: World) -> list[int]:
    """The processes that host Airflow's code."""
    found = []
    for pid in world.children():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            continue
        if b"airflow/child/main.py" in words:
            assert b"fake-client" not in words
            found.append(pid)
    return found


def asked(airbyte: FakeAirbyte, jobs: list[int], more: int = 1) -> bool:
    """Whether every job was asked for so often since `reset`."""
    return all(airbyte.jobs[number].asked >= more for number in jobs)


def reset(airbyte: FakeAirbyte) -> None:
    """Nobody has asked."""
    for job in airbyte.jobs.values():
        job.asked = 0


def assert_each_ended_once(world: World, jobs: list[int]) -> None:
    """Every run has succeeded in its first attempt, with the event of its own job, and nothing was lost."""
    shown = [world.client.show_run(run["name"]) for run in world.runs("watching")]
    assert sorted(run["inputs"]["job"] for run in shown) == jobs
    for run in shown:
        number = run["inputs"]["job"]
        said = f"Job run {number} has completed successfully."
        assert run["event"] == {"status": "success", "message": said, "job_id": number}
        assert (run["phase"], run["attempt"], run["lost"], len(run["attempts"])) == ("SUCCEEDED", 1, 0, 1)


def start(world: World, airbyte: FakeAirbyte) -> WorkerProcess:
    """A worker of the world."""
    return world.worker(AIRBYTE_CONNECTION=connection(airbyte))


def test_waits_outlive_a_killed_child_and_a_killed_worker(
    airflow_python: Path, airbyte: FakeAirbyte, new_world: NewWorld, sqlite_url: str
) -> None:
    jobs = [airbyte.add(f"c{number}").job_id for number in range(8)]
    world = world_of(new_world, sqlite_url, airflow_python, airbyte, jobs)
    with start(world, airbyte) as first:
        first.until(lambda: asked(airbyte, jobs), "all are watched", 60)
        (child,) = child_of(world)
        os.kill(child, signal.SIGKILL)
        first.until(lambda: child_of(world) not in ([], [child]), "another child is there", 60)
        reset(airbyte)
        first.until(lambda: asked(airbyte, jobs), "all are watched again", 60)
        airbyte.end("succeeded", *jobs[:4])
        first.until(lambda: len(world.runs("watching", "SUCCEEDED")) == 4, "half of them have ended", 60)
        (child,) = child_of(world)
        first.kill()
        world.until(lambda: not child_of(world), "the child has ended with its worker")

    airbyte.end("succeeded", *jobs[4:6])
    reset(airbyte)
    with start(world, airbyte) as second:
        second.until(lambda: asked(airbyte, jobs[4:]), "the rest is watched by the next worker", 60)
        airbyte.end("succeeded")
        world.until_closed("watching", 60)
        assert second.stop() == 0
    assert_each_ended_once(world, jobs)
    secret = str(airbyte.client_secret)
    assert not [log.name for log in world.folder.glob("*.log") if secret in log.read_text(errors="replace")]


@pytest.mark.postgres
def test_events_that_come_to_two_workers_end_runs_once(
    airflow_python: Path, airbyte: FakeAirbyte, new_world: NewWorld, postgres_url: str
) -> None:
    jobs = [airbyte.add(f"c{number}").job_id for number in range(4)]
    world = world_of(new_world, postgres_url, airflow_python, airbyte, jobs)
    with start(world, airbyte) as frozen:
        frozen.until(lambda: asked(airbyte, jobs), "all are watched", 60)
        frozen.freeze()
        with start(world, airbyte) as other:
            other.until_said("waits taken over", 15)
            other.until(lambda: len(child_of(world)) == 2, "both host them", 30)
            # The child of the frozen one goes on, and keeps its events for a worker that does not listen.
            airbyte.end("succeeded")
            world.until_closed("watching", 60)
            frozen.thaw()
            frozen.until_said("declared dead")
            assert frozen.stop() == 0
            assert other.stop() == 0
    assert_each_ended_once(world, jobs)


@pytest.mark.alone
def test_fifty_triggers_that_block_do_not_stall_the_worker(
    airflow_python: Path, airbyte: FakeAirbyte, new_world: NewWorld, sqlite_url: str
) -> None:
    jobs = [airbyte.add(f"c{number}").job_id for number in range(50)]
    world = world_of(new_world, sqlite_url, airflow_python, airbyte, jobs, web=ANY_PORT)
    with start(world, airbyte) as worker:
        web = Web(worker)
        worker.until(lambda: asked(airbyte, jobs), "all are watched", 60)
        airbyte.fail("slow", on="status", times=None, seconds=2)
        reset(airbyte)
        before = lags(web)
        time.sleep(20)
        after = lags(web)
        answered = sum(job.asked for job in airbyte.jobs.values())
        airbyte.heal()
        airbyte.end("succeeded")
        worker.until(lambda: len(world.runs("watching", "SUCCEEDED")) == 50, "all have ended", 90)
        assert worker.stop() == 0
    assert 0 < answered <= 12  # Each of them holds its own process up for two seconds.
    measured, quick = after[0] - before[0], after[1] - before[1]
    assert measured >= 30
    assert quick == measured, f"{measured - quick:g} of {measured:g} were later than 50 ms"
    assert_each_ended_once(world, jobs)


def lags(web: Web) -> tuple[float, float]:
    """How often the worker's event loop was measured, and how often it was not later than 50 ms."""
    figures = web.figures()
    return figures["scheduler_loop_lag_seconds_count"], figures['scheduler_loop_lag_seconds_bucket{le="0.05"}']
