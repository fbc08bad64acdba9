"""Asking an executor about a wait: how long an answer is waited for, and what errors mean while none comes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import structlog

from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.external_job import ExternalJob, Job, JobPhase, JobStatus
from executors.output import clip
from executors.protocol import Executor
from scheduler.domain.instants import SECOND, Micros, to_micros
from scheduler.domain.wait import Stage, budget_left, outcome_event, pause_after_error
from scheduler.loop.containing import contained
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.performing import Performer
from scheduler.loop.shortage import shortage_of
from scheduler.loop.verdicts import Again, Interrupted
from scheduler.services.defer import as_text

T = TypeVar("T")
log = structlog.get_logger("scheduler.waiting")
# Nearly all answers say no more than the phase.
_PLAIN: Final = {phase: json.dumps({"phase": phase.value}) for phase in JobPhase}

# A request whose answer was lost may still be under way at the service: only then is it believed that no job was made.
_SETTLED_AFTER: Final = 10 * SECOND


class Asking:
    """Asks this worker's executors. `now` is the database's clock, `spread` gives numbers in [0, 1)."""

    def __init__(
        self,
        performer: Performer,
        now: Callable[[], Micros],
        *,
        spread: Callable[[], float] = random.random,
        settled_after: Micros = _SETTLED_AFTER,
    ) -> None:
        self._performer = performer
        self._now = now
        self._spread = spread
        self.settled_after = settled_after

    def executor(self, held: HeldWait) -> Executor:
        """Who performs the wait's run."""
        return self._performer.executors[held.execution.run.executor]

    def job_executor(self, held: HeldWait) -> ExternalJob:
        """The same, of a wait for a job."""
        executor = self.executor(held)
        if not isinstance(executor, ExternalJob):
            raise PermanentError(f"{type(executor).__name__} watches no external jobs, and the run waits for one")
        return executor

    def event_of(self, executor: ExternalJob | None, job: Job | None, status: str, message: str) -> dict[str, Any]:
        """The one event of a run, in its executor's words where it has any."""
        plain = outcome_event(status, message, job.job_id if job is not None else None)
        return plain if executor is None else self._words(lambda: executor.event(job, status, message), plain)

    def _words(self, say: Callable[[], T], otherwise: T) -> T:
        """What an executor says about a job; a fault of its words must not keep a run from ending."""
        try:
            with contained():
                return say()
        except Exception as error:
            log.warning("an executor cannot say what happened", error=words(error))
            return otherwise

    def _any_job_executor(self, held: HeldWait) -> ExternalJob | None:
        executor = self.executor(held)
        return executor if isinstance(executor, ExternalJob) else None

    async def _call(self, held: HeldWait, work: Awaitable[T], seconds: float) -> T:
        """What the executor answers in time. Raises `Interrupted` when somebody wants the wait, or its time is over."""
        ends = None if held.ends_at is None or held.stage is Stage.CANCELLING else held.ends_at - self._now()
        limit = seconds if ends is None else min(seconds, max(0.0, ends / SECOND))
        held.timer = timer = asyncio.timeout(limit)
        try:
            async with timer:
                if held.attention:
                    timer.reschedule(0)
                with contained():
                    return await work
        except TimeoutError as error:
            if held.attention or (timer.expired() and limit < seconds):
                raise Interrupted from None
            if timer.expired():
                raise RetryableError(f"no answer within {seconds:g} s") from None
            raise error
        finally:
            held.timer = None

    def _counted(self, held: HeldWait, error: Exception) -> bool:
        """Notes an error; True once nothing but errors has come for longer than the budget."""
        now = self._now()
        # What this worker lacks says nothing about the service: the budget begins anew.
        if held.error_since is None or shortage_of(error) is not None:
            held.error_since = now
        held.last_error = words(error)
        held.errors += 1
        return budget_left(held.error_since, held.budget, now) == 0

    def _after_error(self, held: HeldWait, error: Exception) -> Again:
        now = self._now()
        retry_after = error.retry_after if isinstance(error, RetryableError) else None
        asked = None if retry_after is None else to_micros(retry_after)
        left = budget_left(held.error_since, held.budget, now)
        pause = min(pause_after_error(held.interval, held.errors, self._spread(), asked), left)
        held.look_at = now + pause
        return Again(pause, changed=held.errors == 1 or asked is not None)

    def _healed(self, held: HeldWait) -> bool:
        """An answer came: whether there were errors before it that are stored."""
        stored = held.error_since is not None
        held.errors, held.error_since, held.last_error = 0, None, None
        return stored


def words(error: BaseException) -> str:
    """An error as people read it: ours by their own words, others with their names."""
    if isinstance(error, ExecutorError):
        return clip(str(error))
    try:
        said = clip(str(error))
    except Exception:
        said = "it cannot be printed"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def job_of(held: HeldWait) -> Job | None:
    """The job of a wait, if it has one that can be read."""
    try:
        return held.job
    except (ValueError, TypeError, KeyError):
        return None  # Somebody has written it by hand.


def known_job(held: HeldWait) -> Job:
    """The job of a wait that has one."""
    job = held.job
    if job is None:
        raise PermanentError("the job that the run waits for is not known")
    return job


def state_of(held: HeldWait) -> object:
    """What the executor left with the wait."""
    return None if held.state is None else json.loads(held.state)


def links_of(held: HeldWait) -> list[Mapping[str, str]]:
    """The links seen last."""
    return [] if held.seen is None else list(json.loads(held.seen).get("links", []))


def links_told(status: JobStatus) -> list[Mapping[str, str]]:
    """The links that a service tells of."""
    return [{"name": link.name, "uri": link.uri} for link in status.links]


def seen_text(status: JobStatus) -> str:
    """What was seen of a running job, as it is stored."""
    if not status.message and not status.links:
        return _PLAIN[status.phase]
    document: dict[str, object] = {"phase": status.phase.value}
    if status.message:
        document["message"] = clip(status.message)
    if status.links:
        document["links"] = links_told(status)
    return as_text(document) or ""
