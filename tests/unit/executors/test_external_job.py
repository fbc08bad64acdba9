"""What every external job has in common: phases and events, and being followed without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from executors import (
    ExternalJob,
    Failed,
    Job,
    JobBusy,
    JobGone,
    JobPhase,
    JobStatus,
    Outcome,
    PermanentError,
    RetryableError,
    RunContext,
    Succeeded,
)
from executors.external_job import pause_after_error
from executors.registry import check_config
from tests.unit.executors.worlds import cancel, eventually, make_run

Said = JobStatus | Exception
RUNNING, DONE = JobStatus(JobPhase.RUNNING), JobStatus(JobPhase.SUCCEEDED, outputs={"rows": 3})
QUICK = {"poll_interval": "1ms", "error_budget": "10s"}


class Counted(ExternalJob):
    """A service with one job, which says one thing after the other; the last one again and again."""

    def __init__(self, *says: Said, on_create: Exception | None = None) -> None:
        super().__init__()
        self.says = list(says)
        self.on_create = on_create
        self.created, self.deleted, self.asked = 0, 0, 0
        self.may_create = asyncio.Event()
        self.may_create.set()
        self.left_behind: Job | None = None
        self.delete_errors: list[Exception] = []

    async def create(self, run: RunContext) -> Job:
        await self.may_create.wait()
        if self.on_create is not None:
            raise self.on_create
        self.created += 1
        return Job({"id": 7}, "7")

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        assert job.meta == {"id": 7}
        self.asked += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said

    async def delete(self, run: RunContext, job: Job) -> None:
        self.deleted += 1
        if self.delete_errors:
            raise self.delete_errors.pop(0)

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        return self.left_behind


def follow(executor: Counted, config: dict[str, Any] | None = None) -> Outcome:
    return asyncio.run(executor.execute(make_run(executor, QUICK | (config or {}))))


# --- values ----------------------------------------------------------------------------------------------------------


def test_three_phases_still_run_and_the_others_are_over() -> None:
    assert [phase for phase in JobPhase if not phase.is_over] == ["QUEUED", "INITIALIZING", "RUNNING"]


@pytest.mark.parametrize(
    ("phase", "event", "message"),
    [
        (JobPhase.SUCCEEDED, "success", "Job run 7 has completed successfully."),
        (JobPhase.FAILED, "error", "Job run 7 has failed."),
        (JobPhase.RETRYABLE_FAILED, "error", "Job run 7 has failed."),
        (JobPhase.ABORTED, "cancelled", "Job run 7 has been cancelled."),
        (JobPhase.TIMED_OUT, "timeout", "Job run 7 has timed out."),
    ],
)
def test_the_end_of_a_job_is_an_event(phase: JobPhase, event: str, message: str) -> None:
    executor, job, status = Counted(DONE), Job({}, "7"), JobStatus(phase)
    assert status.event == event
    assert executor.end_message(job, status) == message
    assert executor.event(job, status.event, message) == {"status": event, "message": message, "job_id": "7"}
    assert executor.end_message(job, JobStatus(phase, "disk full")) == "disk full"


def test_a_running_job_is_no_event_and_a_phase_may_be_given_by_its_name() -> None:
    assert JobStatus(JobPhase("RUNNING")).event == ""
    assert JobStatus("ABORTED") == JobStatus(JobPhase.ABORTED, event="cancelled", retryable=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="HIBERNATING"):
        JobStatus("HIBERNATING")  # type: ignore[arg-type]


def test_timeout_and_deadline_are_told_with_the_real_duration() -> None:
    executor, job = Counted(DONE), Job({}, "7")
    assert executor.timeout_message(job, 3600.0) == "Job run 7 has not reached a terminal status after 3600 seconds."
    assert executor.timeout_message(job, 0.5) == "Job run 7 has not reached a terminal status after 0.5 seconds."
    assert executor.timeout_message(job, 86400 * 365) == (
        "Job run 7 has not reached a terminal status after 31536000 seconds."
    )
    assert executor.deadline_message(job) == "Job run 7 has reached execution timeout."
    assert executor.event(None, "error", "refused") == {"status": "error", "message": "refused", "job_id": None}


def test_interval_and_budget_come_from_the_config_whatever_its_form() -> None:
    executor = Counted(DONE)
    assert executor.poll_interval(make_run(executor)) == timedelta(seconds=10)
    assert executor.error_budget(make_run(executor)) == timedelta(minutes=10)
    run = make_run(executor, {"poll_interval": "250ms", "error_budget": "1h30m"})
    assert (executor.poll_interval(run), executor.error_budget(run)) == (timedelta(seconds=0.25), timedelta(hours=1.5))
    plain = RunContext("nightly-1", config={"poll_interval": "3s"})
    assert executor.poll_interval(plain) == timedelta(seconds=3)
    assert check_config(Counted, {"poll_interval": "0s", "error_budget": "-1s"}) == [
        ("error_budget", "must be a duration like 500ms, 30s, 10m or 1h30m, not '-1s'")
    ]
    assert check_config(Counted, {"poll_interval": "0s"}) == [("poll_interval", "is not a positive duration")]


def test_pauses_after_errors_grow_to_a_minute_unless_the_service_asks_for_another() -> None:
    interval = timedelta(seconds=10)
    for errors in range(1, 2000, 97):
        for _ in range(20):
            pause = pause_after_error(interval, errors)
            expected = min(40.0, 0.5 * 2.0 ** min(errors, 100))
            assert 0.5 * expected <= pause <= 1.5 * expected
    assert max(pause_after_error(timedelta(hours=1), 10_000) for _ in range(50)) <= 90
    assert pause_after_error(interval, 3, timedelta(seconds=7)) == 7
    assert pause_after_error(interval, 3, timedelta(seconds=-7)) == 0


def test_many_are_asked_one_by_one_unless_an_executor_knows_better() -> None:
    gone = JobGone("no such job")
    executor = Counted(RUNNING, gone, DONE)
    run, job = make_run(executor), Job({"id": 7})
    answers: Sequence[JobStatus | Exception] = asyncio.run(executor.status_many([(run, job)] * 3))
    assert list(answers) == [RUNNING, gone, DONE]
    assert not executor.batches


# --- followed --------------------------------------------------------------------------------------------------------


def test_a_job_is_created_once_and_followed_to_its_end() -> None:
    executor = Counted(JobStatus(JobPhase.QUEUED), RUNNING, DONE)
    assert follow(executor) == Succeeded({"rows": 3})
    assert (executor.created, executor.asked, executor.deleted) == (1, 3, 0)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (JobStatus(JobPhase.FAILED, "disk full"), Failed("disk full")),
        (JobStatus(JobPhase.FAILED, "no such table", retryable=False), Failed("no such table", retryable=False)),
        (JobStatus(JobPhase.ABORTED), Failed("Job run 7 has been cancelled.", retryable=False)),
    ],
)
def test_a_job_that_ends_badly_has_failed(status: JobStatus, outcome: Failed) -> None:
    assert follow(Counted(RUNNING, status)) == outcome


def test_errors_short_of_the_budget_end_nothing() -> None:
    away = RetryableError("away", retry_after=0.001)
    executor = Counted(RUNNING, *[OSError("broken")] * 4, away, RUNNING, away, DONE)
    assert follow(executor) == Succeeded({"rows": 3})
    assert (executor.asked, executor.deleted) == (9, 0)


def test_a_budget_of_nothing_but_errors_ends_the_run_and_cancels_the_job() -> None:
    executor = Counted(RUNNING, RetryableError("the service is away"))
    with pytest.raises(RetryableError, match="the service is away"):
        follow(executor, {"error_budget": "200ms"})
    assert (executor.created, executor.deleted) == (1, 1)
    assert executor.asked > 3


def test_what_the_service_asks_for_does_not_outlast_the_budget() -> None:
    executor = Counted(RetryableError("busy", retry_after=3600))
    with pytest.raises(RetryableError, match="busy"):
        follow(executor, {"error_budget": "200ms"})
    assert executor.asked == 2


def test_a_job_that_is_gone_needs_no_cancelling() -> None:
    executor = Counted(RUNNING, JobGone("no such job"))
    with pytest.raises(JobGone, match="no such job"):
        follow(executor)
    assert (executor.asked, executor.deleted) == (2, 0)


def test_a_call_that_hangs_counts_as_an_error() -> None:
    class Hanging(Counted):
        async def status(self, run: RunContext, job: Job) -> JobStatus:
            status = await super().status(run, job)
            if self.asked == 1:
                await asyncio.Event().wait()
            return status

    executor = Hanging(DONE)
    executor.call_timeout = timedelta(milliseconds=10)
    assert follow(executor) == Succeeded({"rows": 3})
    assert executor.asked == 2


def test_cancelled_it_cancels_the_job_even_if_that_takes_a_few_tries() -> None:
    async def scene() -> Counted:
        executor = Counted(RUNNING)
        executor.delete_errors = [OSError("broken"), RetryableError("busy")]
        following = asyncio.ensure_future(executor.execute(make_run(executor, QUICK)))
        await eventually(lambda: executor.asked > 2)
        assert await cancel(following)
        return executor

    assert asyncio.run(scene()).deleted == 3


def test_cancelled_while_submitting_it_waits_for_the_job_and_cancels_it() -> None:
    async def scene() -> Counted:
        executor = Counted(RUNNING)
        executor.may_create.clear()
        following = asyncio.ensure_future(executor.execute(make_run(executor, QUICK)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.sleep(0)
        assert (executor.created, following.done()) == (0, False)
        executor.may_create.set()
        with pytest.raises(asyncio.CancelledError):
            await following
        return executor

    executor = asyncio.run(scene())
    assert (executor.created, executor.deleted, executor.asked) == (1, 1, 0)


def test_refused_as_busy_it_takes_the_job_that_an_earlier_try_left() -> None:
    executor = Counted(DONE, on_create=JobBusy("one is running"))
    executor.can_find = True
    executor.left_behind = Job({"id": 7}, "7")
    assert follow(executor) == Succeeded({"rows": 3})
    executor.left_behind = None
    with pytest.raises(JobBusy, match="one is running"):
        follow(executor)


def test_a_job_that_is_only_watched_is_not_created() -> None:
    class Watching(Counted):
        def watched(self, run: RunContext) -> Job | None:
            return Job({"id": 7}, "7")

    executor = Watching(DONE)
    assert follow(executor) == Succeeded({"rows": 3})
    assert executor.created == 0


def test_without_a_way_to_find_a_job_it_says_so() -> None:
    class Simple(Counted):
        find = ExternalJob.find

    executor = Simple(DONE)
    run = make_run(executor)
    with pytest.raises(NotImplementedError, match="Simple cannot find"):
        asyncio.run(executor.find(run, datetime.now(UTC)))
    assert not executor.can_find
    refused = PermanentError("no")
    with pytest.raises(PermanentError, match="no"):
        follow(Simple(DONE, on_create=refused))
