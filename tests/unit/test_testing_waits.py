"""The harness and runs that wait: resumed, polled, submitted and ended, each at its instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from executors import (
    Deferred,
    Executor,
    Failed,
    Job,
    JobPhase,
    JobStatus,
    Outcome,
    Poll,
    RetryableError,
    RunContext,
    Succeeded,
    Until,
)
from executors.external_job import ExternalJob, JobGone
from scheduler import Cron, RetryPolicy, Trigger
from scheduler.testing import Harness, Run


def nightly(**options: Any) -> Trigger:
    options = {"automation": Cron("0 2 * * *"), **options}
    return Trigger(project="p", domain="d", task="t", name="nightly", **options)


class Patient(Executor):
    """Waits for three hours, or is asked again every hour."""

    def __init__(self, *, polls: int = 0) -> None:
        super().__init__()
        self.polls = polls
        self.seen: list[tuple[str, Any]] = []

    async def execute(self, run: RunContext) -> Outcome:
        """Waits first."""
        state = run.resumed.state if run.resumed else None
        self.seen.append((f"{run.now():%H:%M}", state))
        if run.resumed is not None:
            return Succeeded({"state": state})
        return Deferred(Poll(timedelta(hours=1)) if self.polls else Until(run.now() + timedelta(hours=3)), "first")

    async def poll(self, run: RunContext) -> Outcome:
        """Counts down."""
        assert run.resumed is not None
        self.seen.append((f"{run.now():%H:%M}", run.resumed.state))
        self.polls -= 1
        if self.polls == 1:
            raise RetryableError("away")
        return Deferred(Poll(timedelta(hours=1)), "again") if self.polls else Succeeded({"done": True})


class Jobs(ExternalJob):
    """A service in this process: jobs last as long as it is told."""

    can_find = True

    def __init__(self, lasts: timedelta = timedelta(hours=5)) -> None:
        super().__init__()
        self.lasts = lasts
        self.jobs: dict[str, datetime] = {}
        self.ended: dict[str, JobPhase] = {}
        self.created: list[str] = []
        self.errors: list[Exception] = []

    def poll_interval(self, run: RunContext) -> timedelta:
        """Rarely: every look is a pass of the harness."""
        return timedelta(minutes=30)

    def error_budget(self, run: RunContext) -> timedelta:
        """Longer than what a service asks for below."""
        return timedelta(hours=2)

    async def create(self, run: RunContext) -> Job:
        """One job a key, unless something else is planned."""
        self.created.append(run.key)
        if self.errors:
            raise self.errors.pop(0)
        self.jobs[run.key] = run.now()
        return Job({"key": run.key}, run.key)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Over when its time has passed."""
        key = job.meta["key"]
        if key not in self.jobs:
            raise JobGone("nobody knows it")
        over = run.now() >= self.jobs[key] + self.lasts
        phase = self.ended.get(key) or (JobPhase.SUCCEEDED if over else JobPhase.RUNNING)
        outputs: Mapping[str, Any] | None = {"key": key} if phase is JobPhase.SUCCEEDED else None
        return JobStatus(phase, outputs=outputs)

    async def delete(self, run: RunContext, job: Job) -> None:
        """At once."""
        self.ended.setdefault(job.meta["key"], JobPhase.ABORTED)

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """By its key."""
        made = self.jobs.get(run.key)
        return Job({"key": run.key}, run.key) if made is not None and made >= created_after else None


def at(run: Run) -> str:
    assert run.finished_at is not None
    return f"{run.finished_at:%H:%M}"


def test_a_run_that_waits_for_an_instant_goes_on_then() -> None:
    executor = Patient()
    with Harness(executor) as harness:
        harness.deploy(nightly())
        assert harness.tick("4h") == []
        assert [run.phase for run in harness.runs()] == ["DEFERRED"]
        (run,) = harness.tick("2h")
    assert (run.phase, run.outputs, at(run), run.attempt) == ("SUCCEEDED", {"state": "first"}, "05:00", 1)
    assert executor.seen == [("02:00", None), ("05:00", "first")]


def test_a_run_that_is_polled_is_asked_at_every_interval_and_after_errors() -> None:
    executor = Patient(polls=3)
    with Harness(executor) as harness:
        harness.deploy(nightly())
        (run,) = harness.tick("10h")
    assert (run.phase, run.outputs) == ("SUCCEEDED", {"done": True})
    assert executor.seen[:3] == [("02:00", None), ("03:00", "first"), ("04:00", "again")]
    assert len(executor.seen) == 4


def test_the_time_of_an_attempt_ends_its_wait() -> None:
    with Harness(Patient()) as harness:
        harness.deploy(nightly(timeout=timedelta(hours=2)))
        (run,) = harness.tick("10h")
    assert (run.phase, run.error, at(run)) == ("TIMED_OUT", "timeout of 7200 s was over", "04:00")


def test_a_job_is_watched_to_its_end() -> None:
    jobs = Jobs()
    with Harness(jobs) as harness:
        harness.deploy(nightly())
        assert harness.tick("5h") == []
        (run,) = harness.tick("5h")
        shown = harness.client.show_run(run.name)
    assert (run.phase, run.outputs, at(run)) == ("SUCCEEDED", {"key": run.name}, "07:00")
    assert shown["event"]["status"] == "success"
    assert jobs.created == [run.name]


@pytest.mark.parametrize("retries", [1, 2])
def test_a_job_that_takes_too_long_is_ended_before_the_next_attempt(retries: int) -> None:
    jobs = Jobs()
    with Harness(jobs) as harness:
        harness.deploy(nightly(timeout=timedelta(hours=2), retries=RetryPolicy(retries)))
        (run,) = harness.tick("20h")
    assert run.phase == "TIMED_OUT"
    assert jobs.created == [run.name, f"{run.name}-2"][:retries]
    assert jobs.ended == dict.fromkeys(jobs.created, JobPhase.ABORTED)


def test_a_cancelled_run_ends_its_job() -> None:
    jobs = Jobs()
    with Harness(jobs) as harness:
        harness.deploy(nightly())
        harness.tick("3h")
        harness.client.cancel_run(harness.runs()[0].name)
        (run,) = harness.tick()
    assert (run.phase, at(run)) == ("ABORTED", "03:00")
    assert jobs.ended == {run.name: JobPhase.ABORTED}


def test_a_submission_that_is_refused_for_now_is_made_later() -> None:
    jobs = Jobs()
    jobs.errors = [RetryableError("busy", 1800), RetryableError("busy", 1800)]
    with Harness(jobs) as harness:
        harness.deploy(nightly())
        (run,) = harness.tick("10h")
    assert (run.phase, run.attempt, at(run)) == ("SUCCEEDED", 1, "08:00")
    assert jobs.created == [run.name] * 3


def test_a_submission_that_is_refused_for_longer_than_the_budget_fails() -> None:
    jobs = Jobs()
    jobs.errors = [RetryableError("busy", 1800)] * 9
    with Harness(jobs) as harness:
        harness.deploy(nightly())
        (run,) = harness.tick("10h")
        shown = harness.client.show_run(run.name)
    assert (run.phase, run.error, at(run)) == ("FAILED", "busy", "04:00")
    assert shown["event"] == {"status": "error", "message": "busy", "job_id": None}


def test_a_worker_that_dies_while_it_submits_leaves_a_job_that_is_found() -> None:
    jobs = Jobs()
    with Harness(jobs) as harness:
        harness.deploy(nightly())
        harness.crash()
        (run,) = harness.tick("12h")
    assert (run.phase, run.lost, jobs.created) == ("SUCCEEDED", 0, [run.name])


def test_a_run_that_fails_after_it_waited_is_tried_again_from_the_beginning() -> None:
    class Failing(Patient):
        async def execute(self, run: RunContext) -> Outcome:
            outcome = await super().execute(run)
            return Failed("no") if isinstance(outcome, Succeeded) else outcome

    executor = Failing()
    with Harness(executor) as harness:
        harness.deploy(nightly(retries=RetryPolicy(2, timedelta(minutes=1), 1.0)))
        (run,) = harness.tick("12h")
    assert (run.phase, [attempt.error for attempt in run.attempts]) == ("FAILED", ["no", "no"])
    assert [state for _, state in executor.seen] == [None, "first", None, "first"]
