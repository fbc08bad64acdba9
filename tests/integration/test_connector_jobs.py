"""Connectors and described services in a real worker: what their answers become in the record of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from executors import (
    AsyncConnector,
    ConnectorExecutor,
    ConnectorRegistry,
    HttpJobExecutor,
    JobBusy,
    Phase,
    Resource,
    ResourceMeta,
)
from tests.fakes.jobs import TOKEN, FakeJobs
from tests.integration.waiting_world import WaitingWorld

QUICK = {"poll_interval": "50ms", "error_budget": "10s"}


@dataclass
class Meta(ResourceMeta):
    job_id: int
    key: str


class Numbered(AsyncConnector[Meta]):
    """Numbers its jobs from 1, as many services do; `done` are the keys of those that have ended."""

    task_type_name = "numbered"
    metadata_type = Meta

    def __init__(self, name: str = "numbered", *errors: Exception) -> None:
        self.task_type_name = name
        self.errors = list(errors)
        self.submitted: Counter[str] = Counter()
        self.done: set[str] = set()

    async def create(
        self, task_template: Any, output_prefix: str, inputs: Any = None, *, run_name: str, **s: Any
    ) -> Meta:
        error = self.errors.pop(0) if self.errors else None
        if not isinstance(error, JobBusy):
            self.submitted[run_name] += 1
        if error is not None:
            raise error
        return Meta(len(self.submitted), run_name)

    async def get(self, resource_meta: Meta, **secrets: Any) -> Resource:
        if resource_meta.key not in self.done:
            return Resource(Phase.RUNNING)
        links = [{"name": "log", "uri": f"https://x/{resource_meta.job_id}"}]
        return Resource(Phase.SUCCEEDED, "all rows", links, {"key": resource_meta.key})

    async def delete(self, resource_meta: Meta, **secrets: Any) -> None:
        self.done.add(resource_meta.key)


class Findable(Numbered):
    async def find(self, key: str, **secrets: Any) -> Meta | None:
        return Meta(1, key) if key in self.submitted else None


@pytest.fixture
def jobs() -> Iterator[FakeJobs]:
    with FakeJobs() as server:
        yield server


@pytest.fixture
def world(sqlite_url: str, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[WaitingWorld]:
    monkeypatch.setattr(ConnectorRegistry, "_connectors", {})
    executors = {"own": ConnectorExecutor(), "jobs": HttpJobExecutor(jobs.options)}
    with WaitingWorld(sqlite_url, executors, max_concurrent_runs=1) as world:
        yield world


def submit(world: WaitingWorld, connector: Numbered, **options: Any) -> str:
    ConnectorRegistry.register(connector)
    kind = connector.task_type_name
    return world.fire(kind, "own", {"type": kind, **QUICK}, **options)


def test_two_kinds_of_jobs_may_number_theirs_alike(world: WaitingWorld) -> None:
    first, second = Numbered("first"), Numbered("second")
    runs = [submit(world, first), submit(world, second)]
    for run in runs:
        world.until_waiting(run)
    for connector, run in zip((first, second), runs, strict=True):
        connector.done.add(run)
        ended = world.until_phase(run, "SUCCEEDED")
        assert ended["event"] == {"status": "success", "message": "all rows", "job_id": "1"}
        assert ended["outputs"] == {"key": run}
        assert ended["links"] == [{"name": "log", "uri": "https://x/1"}]
        assert connector.submitted == {run: 1}


def test_a_lost_submission_is_found_where_the_connector_can(world: WaitingWorld) -> None:
    connector = Findable("findable", OSError("the answer was lost"))
    run = submit(world, connector)
    world.until_waiting(run)
    connector.done.add(run)
    assert world.until_phase(run, "SUCCEEDED", "FAILED")["phase"] == "SUCCEEDED"
    assert connector.submitted == {run: 1}


def test_where_it_cannot_the_run_fails_at_once_and_says_that_a_job_may_be_running(world: WaitingWorld) -> None:
    connector = Numbered("lost", OSError("the answer was lost"))
    run = submit(world, connector)
    ended = world.until_phase(run, "FAILED", "SUCCEEDED", within=5)
    assert "the answer was lost" in ended["error"]
    assert "one may be running" in ended["error"]
    assert ended["event"]["status"] == "error"
    assert connector.submitted == {run: 1}


def test_or_is_submitted_again_where_the_task_says_so(world: WaitingWorld) -> None:
    connector = Numbered("again", OSError("the answer was lost"))
    run = submit(world, connector, on_unknown="resubmit")
    world.until_waiting(run)
    connector.done.add(run)
    assert world.until_phase(run, "SUCCEEDED", "FAILED")["phase"] == "SUCCEEDED"
    assert connector.submitted == {run: 2}


def test_a_connector_that_is_busy_is_asked_again_though_it_cannot_find(world: WaitingWorld) -> None:
    connector = Numbered("busy", *[JobBusy("one is running", retry_after=0.05)] * 2)
    run = submit(world, connector)
    world.until_waiting(run)
    connector.done.add(run)
    assert world.until_phase(run, "SUCCEEDED", "FAILED")["phase"] == "SUCCEEDED"
    assert connector.submitted == {run: 1}


def test_a_described_service_goes_through_faults_and_its_log_is_kept(world: WaitingWorld, jobs: FakeJobs) -> None:
    for fault, on in (("lost answer", "create"), ("html", "find"), (503, "status"), ("drop", "status")):
        jobs.fail(fault, on=on)  # type: ignore[arg-type]
    run = world.fire("described", "jobs", QUICK, inputs={"region": "eu"})
    world.until_waiting(run)
    jobs.end("done", result={"rows": 3})
    ended = world.until_phase(run, "SUCCEEDED", "FAILED")
    assert (ended["phase"], ended["outputs"]) == ("SUCCEEDED", {"rows": 3})
    assert ended["event"] == {
        "status": "success",
        "message": "Job run job/1 has completed successfully.",
        "job_id": "job/1",
    }
    assert ended["links"][0] == {"name": "page", "uri": "https://jobs.example/pages/job/1"}
    assert jobs.submitted == {run: 1}
    assert TOKEN not in str(ended)


def test_a_spent_budget_is_an_error_event_and_the_job_is_cancelled(world: WaitingWorld, jobs: FakeJobs) -> None:
    run = world.fire("away", "jobs", {**QUICK, "error_budget": "200ms"})
    world.until_waiting(run)
    jobs.fail(500, on="status", times=None)
    world.until(lambda: jobs.cancels, "the job is cancelled")
    jobs.heal()
    ended = world.until_phase(run, "FAILED")
    assert ended["event"] == {
        "status": "error",
        "message": f"the service answered GET {jobs.origin}/jobs/job%2F1 with 500 (Internal Server Error): ordered: 500",
        "job_id": "job/1",
    }


@dataclass
class Unnumbered(ResourceMeta):
    place: str
    shelf: str


class Placing(Numbered):
    """Its jobs have no number, and two of them may lie side by side."""

    metadata_type = Unnumbered  # type: ignore[assignment]

    async def create(
        self, task_template: Any, output_prefix: str, inputs: Any = None, *, run_name: str, **s: Any
    ) -> Any:
        self.submitted[run_name] += 1
        return Unnumbered("hall", "top")

    async def get(self, resource_meta: Any, **secrets: Any) -> Resource:
        return Resource(Phase.SUCCEEDED if self.done else Phase.RUNNING)


def test_jobs_without_a_number_do_not_get_in_each_others_way(world: WaitingWorld) -> None:
    connector = Placing("placing")
    ConnectorRegistry.register(connector)
    trigger = world.deploy("placing", "own", {"type": "placing", **QUICK})
    runs = [world.again(trigger) for _ in range(2)]
    for run in runs:
        world.until_waiting(run)
    connector.done.add("all")
    assert {world.until_phase(run, "SUCCEEDED", "FAILED")["phase"] for run in runs} == {"SUCCEEDED"}
