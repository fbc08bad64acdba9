"""Executors of external jobs that are odd, faulty, or can do more: none keeps a run open for ever, or its worker from working."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from executors import Job, JobPhase, JobStatus, Link, PermanentError, RetryableError, RunContext
from executors.external_job import ExternalJob, JobGone
from scheduler.domain.retry import RetryPolicy
from scheduler.services.cancel import cancel_run
from tests.integration.waiting_world import WaitingWorld, seconds

pytestmark = pytest.mark.heavy

RETRY = RetryPolicy(2, timedelta(milliseconds=10))


class Service(ExternalJob):
    """Jobs in this process; `phase` is how all of them stand."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = JobPhase.RUNNING
        self.made = 0
        self.deleted: list[str] = []
        self.asked = 0

    def poll_interval(self, run: RunContext) -> timedelta:
        """Often."""
        return timedelta(milliseconds=50)

    def error_budget(self, run: RunContext) -> timedelta:
        """Short."""
        return timedelta(milliseconds=400)

    async def create(self, run: RunContext) -> Job:
        """Numbered."""
        self.made += 1
        return Job({"n": self.made}, f"job-{self.made}")

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """As all jobs."""
        self.asked += 1
        return JobStatus(self.phase)

    async def delete(self, run: RunContext, job: Job) -> None:
        """At once, for all."""
        self.deleted.append(job.job_id)
        self.phase = JobPhase.ABORTED


@contextmanager
def fired(url: str, service: ExternalJob, **options: Any) -> Iterator[tuple[WaitingWorld, str]]:
    with WaitingWorld(url, {"it": service}) as world:
        yield world, world.fire("task", "it", **options)


# --- more than is needed --------------------------------------------------------------------------------------------


def test_a_job_tells_its_links_its_log_and_its_outputs(sqlite_url: str) -> None:
    class Telling(Service):
        async def status(self, run: RunContext, job: Job) -> JobStatus:
            links = (Link("log", "https://jobs.example/1"),)
            outputs = {"rows": 7} if self.phase.is_over else None
            return JobStatus(self.phase, "half way", outputs, links)

        async def logs(self, run: RunContext, job: Job) -> str:
            return "read\nwritten\n"

    service = Telling()
    with fired(sqlite_url, service) as (world, name):
        links = [{"name": "log", "uri": "https://jobs.example/1"}]
        world.until(lambda: world.run(name)["links"] == links, "its link is shown while it runs")
        assert world.run(name)["waiting_for"] == "job job-1, RUNNING: half way"
        service.phase = JobPhase.SUCCEEDED
        run = world.until_phase(name, "SUCCEEDED")
        assert (run["links"], run["outputs"]) == (links, {"rows": 7})
        with world.store.read() as tx:
            assert tx.runs.attempts_of(name)[0]["output"] == "read\nwritten\n"


def test_a_service_that_answers_for_many_is_asked_for_many(sqlite_url: str) -> None:
    class Many(Service):
        batches = True

        def __init__(self) -> None:
            super().__init__()
            self.batch_sizes: list[int] = []

        def poll_interval(self, run: RunContext) -> timedelta:
            return timedelta(seconds=1)

        async def status_many(self, items: Sequence[tuple[RunContext, Job]]) -> Sequence[JobStatus | Exception]:
            self.batch_sizes.append(len(items))
            return [
                RetryableError("not now") if job.job_id == "job-3" and not self.phase.is_over else JobStatus(self.phase)
                for _, job in items
            ]

        def error_budget(self, run: RunContext) -> timedelta:
            return timedelta(minutes=1)

    service = Many()
    with WaitingWorld(sqlite_url, {"it": service}) as world:
        key = world.deploy("task", "it")
        names = [world.again(key) for _ in range(30)]
        world.until(lambda: world.call(lambda: world.worker.deferring.count) == 30, "all are watched")
        world.until(lambda: sum(service.batch_sizes) > 90, "they are asked for")
        # Their turns fall together: four or five a second, not one a job.
        assert len(service.batch_sizes) < sum(service.batch_sizes) / 2
        service.phase = JobPhase.SUCCEEDED
        for name in names:
            world.until_phase(name, "SUCCEEDED")


# --- less than is needed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_unknown", ["fail", "resubmit"])
def test_a_lost_submission_that_nobody_can_find_is_decided_by_the_task(sqlite_url: str, on_unknown: str) -> None:
    class Lossy(Service):
        async def create(self, run: RunContext) -> Job:
            job = await super().create(run)
            if self.made == 1:
                raise ConnectionResetError("reset by peer")
            return job

        def error_budget(self, run: RunContext) -> timedelta:
            return timedelta(minutes=1)

    service = Lossy()
    with fired(sqlite_url, service, on_unknown=on_unknown, retries=RETRY) as (world, name):
        if on_unknown == "fail":
            run = world.until_phase(name, "FAILED")
            assert "ConnectionResetError: reset by peer" in run["error"]
            assert "may be running" in run["error"]
            assert (service.made, run["attempt"], run["event"]["status"]) == (1, 1, "error")
        else:
            world.until_waiting(name)
            assert service.made == 2


def test_a_service_that_refuses_to_be_asked_ends_the_run_when_the_job_is_ended(sqlite_url: str) -> None:
    class Forbidden(Service):
        async def status(self, run: RunContext, job: Job) -> JobStatus:
            if not self.deleted:
                raise PermanentError("you may not look")
            return await super().status(run, job)

    service = Forbidden()
    with fired(sqlite_url, service, retries=RETRY) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert run["event"] == {"status": "error", "message": "you may not look", "job_id": "job-1"}
        assert service.deleted == ["job-1"]
        assert len(run["attempts"]) == 1


def test_a_job_that_is_gone_when_it_is_to_end_is_over(sqlite_url: str) -> None:
    class Gone(Service):
        async def delete(self, run: RunContext, job: Job) -> None:
            raise JobGone("nobody knows it")

    with fired(sqlite_url, Gone()) as (world, name):
        world.until_waiting(name)
        world.store.run(cancel_run, name, by="anna")
        assert world.until_phase(name, "ABORTED")["error"] == "cancelled by anna"


def test_a_job_that_does_not_end_is_asked_to_again(sqlite_url: str) -> None:
    class Stubborn(Service):
        async def delete(self, run: RunContext, job: Job) -> None:
            self.deleted.append(job.job_id)
            if len(self.deleted) == 3:
                self.phase = JobPhase.ABORTED

    service = Stubborn()
    with fired(sqlite_url, service) as (world, name):
        world.until_waiting(name)
        world.store.run(cancel_run, name, by="anna")
        world.until_phase(name, "ABORTED")
        assert len(service.deleted) == 3


def test_a_service_that_does_not_answer_is_not_waited_for_for_ever(sqlite_url: str) -> None:
    class Silent(Service):
        call_timeout = timedelta(milliseconds=100)

        async def status(self, run: RunContext, job: Job) -> JobStatus:
            if not self.deleted:
                await asyncio.sleep(60)
            return await super().status(run, job)

    with fired(sqlite_url, Silent()) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert run["event"]["message"] == "no answer within 0.1 s"


# --- faulty ---------------------------------------------------------------------------------------------------------


def test_metadata_that_cannot_be_stored_ends_the_job_and_the_run(sqlite_url: str) -> None:
    class Unkept(Service):
        async def create(self, run: RunContext) -> Job:
            self.made += 1
            return Job({"connection": object()}, "job-1")

    service = Unkept()
    with fired(sqlite_url, service, retries=RETRY) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert "metadata cannot be stored" in run["error"]
        assert service.deleted == ["job-1"]
        assert service.made == 1


@pytest.mark.parametrize("outputs", [{"a": {1, 2}}, {"a": float("nan")}, {1: 2}])
def test_outputs_that_cannot_be_stored_fail_the_run(sqlite_url: str, outputs: Mapping[Any, Any]) -> None:
    class Odd(Service):
        async def status(self, run: RunContext, job: Job) -> JobStatus:
            return JobStatus(JobPhase.SUCCEEDED, outputs=outputs)

    with fired(sqlite_url, Odd(), retries=RETRY) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert "cannot be stored" in run["event"]["message"]
        assert len(run["attempts"]) == 1


@pytest.mark.parametrize("how", ["succeeds", "is cancelled", "takes too long"])
def test_words_that_fail_keep_no_run_open(database_url: str, how: str) -> None:
    class Wordless(Service):
        def end_message(self, job: Job, status: JobStatus) -> str:
            raise ZeroDivisionError

        def timeout_message(self, job: Job, seconds: float) -> str:
            raise ZeroDivisionError

        def event(self, job: Job | None, status: str, message: str) -> dict[str, Any]:
            return {"status": status, "message": message + "\x00\ud800", "job_id": object()}

    service = Wordless()
    options = {"timeout": seconds(0.7)} if how == "takes too long" else {}
    with fired(database_url, service, **options) as (world, name):
        world.until_waiting(name)
        if how == "is cancelled":
            world.store.run(cancel_run, name, by="anna")
        elif how == "succeeds":
            service.phase = JobPhase.SUCCEEDED
        run = world.until_phase(name, "FAILED", "ABORTED", "TIMED_OUT")
        assert run["event"]["status"] in ("error", "cancelled")
        assert service.made == 1


def test_an_error_nobody_can_print_is_borne_like_any_other(sqlite_url: str) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Cruel(Service):
        async def status(self, run: RunContext, job: Job) -> JobStatus:
            if not self.deleted:
                raise Unprintable
            return await super().status(run, job)

    with fired(sqlite_url, Cruel()) as (world, name):
        assert "Unprintable" in world.until_phase(name, "FAILED")["event"]["message"]


def test_what_is_stored_may_hold_anything_a_service_says(database_url: str) -> None:
    class Odd(Service):
        async def create(self, run: RunContext) -> Job:
            self.made += 1
            return Job({"n": "\x00\ud800"}, "\x00" + "j" * 10_000)

        async def status(self, run: RunContext, job: Job) -> JobStatus:
            if self.asked < 3:
                self.asked += 1
                raise RetryableError("\x00\ud800 odd")
            return JobStatus(self.phase, "\x00\ud800 fine")

        def error_budget(self, run: RunContext) -> timedelta:
            return timedelta(minutes=1)

    service = Odd()
    with fired(database_url, service) as (world, name):
        world.until(lambda: "fine" in (world.run(name)["waiting_for"] or ""), "it is watched")
        service.phase = JobPhase.SUCCEEDED
        world.until_phase(name, "SUCCEEDED")


def test_a_row_that_somebody_spoiled_keeps_no_worker_from_working(sqlite_url: str) -> None:
    service = Service()
    with fired(sqlite_url, service) as (world, name):
        world.until_waiting(name)
        world.stop()
        with world.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE waits SET stage = 'nonsense'")
        world.start()
        other = world.fire("other", "it")
        world.until_waiting(other)
        assert world.run(name)["phase"] == "DEFERRED"
        with world.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE waits SET stage = 'waiting'")
        service.phase = JobPhase.SUCCEEDED
        world.until_phase(name, "SUCCEEDED")


def test_a_job_whose_metadata_somebody_spoiled_is_ended_by_its_budget(sqlite_url: str) -> None:
    service = Service()
    with fired(sqlite_url, service, cancel_give_up=seconds(0.5)) as (world, name):
        world.until_waiting(name)
        world.stop()
        with world.store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE waits SET state = '{'")
        world.start()
        run = world.until_phase(name, "FAILED")
        assert "may still be running" in run["error"]


def test_two_jobs_with_one_id_are_not_watched_for_two_runs(sqlite_url: str) -> None:
    class Same(Service):
        async def create(self, run: RunContext) -> Job:
            self.made += 1
            return Job({"n": 1}, "the-one")

    service = Same()
    with WaitingWorld(sqlite_url, {"it": service}) as world:
        key = world.deploy("task", "it")
        first = world.again(key)
        world.until_waiting(first)
        second = world.again(key)
        run = world.until_phase(second, "FAILED")
        assert run["error"] == "job the-one is watched for another run"
        assert world.run(first)["phase"] == "DEFERRED"
        assert service.deleted == []


def test_a_finder_that_finds_another_runs_job_is_not_believed(sqlite_url: str) -> None:
    class Misled(Service):
        can_find = True

        async def create(self, run: RunContext) -> Job:
            job = await super().create(run)
            if self.made == 2:
                raise ConnectionResetError("reset by peer")
            return job

        async def find(self, run: RunContext, created_after: datetime) -> Job | None:
            return Job({"n": 1}, "job-1")

        def error_budget(self, run: RunContext) -> timedelta:
            return timedelta(minutes=1)

    service = Misled()
    with WaitingWorld(sqlite_url, {"it": service}) as world:
        key = world.deploy("task", "it")
        first = world.again(key)
        world.until_waiting(first)
        second = world.again(key)
        row = world.until_waiting(second)
        assert row["job_id"] == "job-3"


def test_a_cancel_wins_over_the_next_attempt(sqlite_url: str) -> None:
    class Slow(Service):
        async def delete(self, run: RunContext, job: Job) -> None:
            self.deleted.append(job.job_id)

    service = Slow()
    with fired(sqlite_url, service, timeout=seconds(2), retries=RETRY) as (world, name):
        world.until_waiting(name, "cancelling")
        world.store.run(cancel_run, name, by="anna")
        time.sleep(0.3)
        service.phase = JobPhase.ABORTED
        world.until_phase(name, "ABORTED")
        assert service.made == 1
