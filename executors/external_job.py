"""The contract of executors whose work is done elsewhere: a job is submitted, watched, cancelled, never waited for here.

    class Batch(ExternalJob):
        async def create(self, run: RunContext) -> Job: …           # submit under run.key
        async def status(self, run: RunContext, job: Job) -> JobStatus: …
        async def delete(self, run: RunContext, job: Job) -> None: …

The worker writes down that it is about to submit, calls `create`, stores the `Job` and gives the run's place free; then
it asks `status` every `poll_interval` until the job is over, across restarts and by whichever worker is there.

What any of these calls raises means one of three things:

    JobGone, PermanentError     final
    RetryableError              not now: asked again, not before `retry_after`
    anything else               asked again

Errors that are not final count until the next answer; `error_budget` of nothing but errors ends the run.
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final

from executors.errors import PermanentError, Problem, RetryableError
from executors.protocol import Executor, Outcome, RunContext

POLL_INTERVAL: Final = timedelta(seconds=10)
ERROR_BUDGET: Final = timedelta(minutes=10)


class JobPhase(StrEnum):
    """How a job stands at its service; the first three still run, the others are over."""

    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RETRYABLE_FAILED = "RETRYABLE_FAILED"
    ABORTED = "ABORTED"
    """Somebody ended it. Unless the worker did, the run has failed with the event status `cancelled`."""
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_over(self) -> bool:
        """True once the job will not change any more."""
        return self not in _RUNNING


_RUNNING: Final = frozenset({JobPhase.QUEUED, JobPhase.INITIALIZING, JobPhase.RUNNING})
_EVENTS: Final = {
    JobPhase.SUCCEEDED: "success",
    JobPhase.FAILED: "error",
    JobPhase.RETRYABLE_FAILED: "error",
    JobPhase.ABORTED: "cancelled",
    JobPhase.TIMED_OUT: "timeout",
}
_ENDS: Final = {
    JobPhase.SUCCEEDED: "has completed successfully.",
    JobPhase.FAILED: "has failed.",
    JobPhase.RETRYABLE_FAILED: "has failed.",
    JobPhase.ABORTED: "has been cancelled.",
    JobPhase.TIMED_OUT: "has timed out.",
}


@dataclass(frozen=True)
class Link:
    """A page about the job, for people: its log, its dashboard."""

    name: str
    uri: str


@dataclass(frozen=True)
class Job:
    """A job at its service, as the worker stores it and hands it back to every later call."""

    meta: Mapping[str, Any]
    """Whatever finds the job again, a JSON object."""
    job_id: str = ""
    """The service's own name for it: shown to people, and unique per executor among the jobs being watched."""
    created_at: datetime | None = None
    """By the service's own clock, where it says so."""


@dataclass(frozen=True)
class JobStatus:
    """What the service says about a job. `message` is for people; empty, it says no more than the phase."""

    phase: JobPhase
    message: str = ""
    outputs: Mapping[str, Any] | None = None
    """A JSON object, stored with the run once the job has succeeded."""
    links: tuple[Link, ...] = ()
    custom: Mapping[str, Any] | None = None
    """More that the service says, a JSON object."""
    event: str = ""
    """The status of the event that the end of the job is: success, error, cancelled or timeout, by the phase unless
    given; empty while the job runs."""
    retryable: bool = field(default=True, kw_only=True)
    """False if another attempt would fail alike; a job that somebody cancelled is not started again either."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "phase", JobPhase(self.phase))
        object.__setattr__(self, "event", self.event or _EVENTS.get(self.phase, ""))
        if self.phase is JobPhase.ABORTED:
            object.__setattr__(self, "retryable", False)


class JobGone(PermanentError):
    """The service does not know the job, or refuses it for good."""


class JobBusy(RetryableError):
    """`create` was refused because another job of the same resource is running; it may be the one that an interrupted
    `create` of this run has made, which `find` then says."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a task's `config` may say to every executor of this kind; a base for its `Config`."""

    poll_interval: timedelta = POLL_INTERVAL
    error_budget: timedelta = ERROR_BUDGET

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        if self.poll_interval <= timedelta(0):
            yield "poll_interval", "is not a positive duration"
        if self.error_budget < timedelta(0):
            yield "error_budget", "is negative"


class ExternalJob(Executor):
    """Performs runs as jobs of an external service. Every call may come from another worker than the last one."""

    can_find: bool = False
    """Whether `find` can tell."""
    batches: bool = False
    """Whether `status_many` asks for many jobs at once."""
    concurrency: ClassVar[int] = 50
    """How many calls a worker makes at a time."""
    call_timeout: timedelta = timedelta(seconds=60)
    """How long a call other than `create`, which is never interrupted, may take before it counts as an error."""

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """Nothing but the two keys that all of this kind have."""

    @abstractmethod
    async def create(self, run: RunContext) -> Job:
        """Submit the job under `run.key` and return as soon as it is accepted.

        An error whose `outcome_known` is false, and any that is none of ours, means that a job may have been made.
        """

    @abstractmethod
    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """How the job stands."""

    @abstractmethod
    async def delete(self, run: RunContext, job: Job) -> None:
        """Ask for the job to be cancelled, any number of times; `JobGone`: there is nothing to cancel.

        Returning means that the service has accepted the request; whether the job is over, `status` says.
        """

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """The job that an interrupted `create` of this run has made at or after this instant of the worker's clock.

        The comparison is made here, by the service's clock and to its precision: a caller need not repeat it. None: no
        job was made. Called only where `finds` says that it can tell.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot find jobs by their key")

    def finds(self, run: RunContext) -> bool:
        """Whether `find` can tell for this run: `can_find`, unless that depends on the task."""
        return self.can_find

    def watched(self, run: RunContext) -> Job | None:
        """The job that exists already and is only to be watched to its end; None: `create` makes one."""
        return None

    async def status_many(self, items: Sequence[tuple[RunContext, Job]]) -> Sequence[JobStatus | Exception]:
        """How each of these jobs stands, in their order; an error stands in the place of its job."""
        answers = await asyncio.gather(*(self.status(run, job) for run, job in items), return_exceptions=True)
        found: list[JobStatus | Exception] = []
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            found.append(answer)
        return found

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """What the job has printed; None if the service does not tell."""
        return None

    # --- how it is watched -------------------------------------------------------------------------------------------

    def poll_interval(self, run: RunContext) -> timedelta:
        """How often `status` is asked: `poll_interval` of the task's config."""
        return _duration(run.config, "poll_interval", POLL_INTERVAL)

    def first_look(self, run: RunContext) -> timedelta:
        """How long after `create` the job is asked for the first time: `poll_interval`, unless more is known of it."""
        return self.poll_interval(run)

    def error_budget(self, run: RunContext) -> timedelta:
        """How long errors may follow each other without an answer: `error_budget` of the task's config."""
        return _duration(run.config, "error_budget", ERROR_BUDGET)

    # --- what is said about it ---------------------------------------------------------------------------------------

    def shown_id(self, job: Job) -> str | int:
        """The job's id as events carry it."""
        return job.job_id

    def end_message(self, job: Job, status: JobStatus) -> str:
        """What the end of the job is told with."""
        return status.message or f"Job run {self.shown_id(job)} {_ENDS.get(status.phase, 'is still running.')}"

    def timeout_message(self, job: Job, seconds: float) -> str:
        """What is said when the run's `timeout`, so many seconds, is over."""
        return f"Job run {self.shown_id(job)} has not reached a terminal status after {seconds:.12g} seconds."

    def deadline_message(self, job: Job) -> str:
        """What is said when the run's `deadline` has come."""
        return f"Job run {self.shown_id(job)} has reached execution timeout."

    def event(self, job: Job | None, status: str, message: str) -> dict[str, Any]:
        """The one outcome event of a run; without a job, none was made."""
        return {"status": status, "message": message, "job_id": None if job is None else self.shown_id(job)}

    # --- without a worker --------------------------------------------------------------------------------------------

    async def execute(self, run: RunContext) -> Outcome:
        """Submit the job and wait here for its end; cancelled, it cancels the job. A worker defers the run instead."""
        from executors.following import follow

        return await follow(self, run)


def pause_after_error(interval: timedelta, errors: int, asked: timedelta | None = None) -> float:
    """Seconds until the next try after so many errors in a row: growing, at random, or what the service asked for."""
    if asked is not None:
        return max(asked.total_seconds(), 0.0)
    longest = min(60.0, 4 * interval.total_seconds())
    # 2**7 halves are a minute; without the limit a long outage would be a number that no float holds.
    return min(longest, 0.5 * 2.0 ** min(errors, 7)) * random.uniform(0.5, 1.5)  # noqa: S311  # spreads load, keeps no secret


def _duration(config: Any, name: str, default: timedelta) -> timedelta:
    from executors.schema import parse_duration

    value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    if isinstance(value, str):
        value = parse_duration(value)
    return value if isinstance(value, timedelta) else default
