"""One look at one wait: what is asked of its executor, and what the answer means. Nothing is stored here."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.external_job import ExternalJob, Job, JobGone, JobPhase, JobStatus
from executors.protocol import Deferred, Executor, Failed, Outcome, Resumed, RunContext, Succeeded, as_outcome
from executors.waits import Poll, Until
from scheduler.domain.instants import SECOND, Micros, from_datetime, to_datetime, to_micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Ending, Stage, WaitKind, budget_left, pause_after_error, pause_between
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.performing import Performer
from scheduler.services.defer import as_text
from scheduler.services.finish import Ended
from scheduler.services.resume import Tries, timed_out

T = TypeVar("T")

# A poll may do more than ask; this is how long it may take at least, whatever its error budget.
_POLL_SECONDS: Final = 60.0
_LOGS_SECONDS: Final = 10.0
# A request whose answer was lost may still be under way at the service: only then is it believed that no job was made.
_SETTLED_AFTER: Final = 10 * SECOND
_PHASES: Final = {
    JobPhase.SUCCEEDED: Phase.SUCCEEDED,
    JobPhase.FAILED: Phase.FAILED,
    JobPhase.RETRYABLE_FAILED: Phase.FAILED,
    JobPhase.ABORTED: Phase.FAILED,
    JobPhase.TIMED_OUT: Phase.TIMED_OUT,
}


class Interrupted(Exception):
    """The look was broken off: somebody wants the wait to end, or its time is over. Nothing went wrong."""


@dataclass(frozen=True, slots=True)
class Again:
    """To be looked at again after so many microseconds; `changed`: what is stored is to be written."""

    pause: Micros
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The job that an interrupted submission made: to be stored, then watched."""


@dataclass(frozen=True, slots=True)
class Decided:
    """How the run ends is decided: to be stored, then its job is to be ended."""


@dataclass(frozen=True, slots=True)
class Given:
    """It waits for an instant now: to be stored, and the database's from then on."""


@dataclass(frozen=True, slots=True)
class NotMade:
    """There is no job: it is to be submitted again, after so many microseconds."""

    tries: Tries
    pause: Micros


@dataclass(frozen=True, slots=True)
class Over:
    """The attempt has ended."""

    ended: Ended


Verdict: TypeAlias = Again | Found | Decided | Given | NotMade | Over


class Looker:
    """Looks at waits with this worker's executors. `now` is the database's clock, `spread` gives numbers in [0, 1)."""

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

    def _any_job_executor(self, held: HeldWait) -> ExternalJob | None:
        executor = self.executor(held)
        return executor if isinstance(executor, ExternalJob) else None

    async def look(self, held: HeldWait) -> Verdict:
        """What is to be done with the wait now; changes it, and leaves it to the caller to store that."""
        try:
            if held.kind is WaitKind.POLL:
                return await self._poll(held)
            if held.stage is Stage.CANCELLING:
                return await self._cancel(held)
            if held.stage is Stage.SUBMITTING:
                return await self._resolve(held)
            return await self._ask(held)
        except Interrupted:
            return Again(0)

    # --- polls -------------------------------------------------------------------------------------------------------

    async def _poll(self, held: HeldWait) -> Verdict:
        try:
            run = self._performer.context(held.execution, Resumed(state_of(held)))
            limit = max(_POLL_SECONDS, held.budget / SECOND)
            outcome = as_outcome(await self._call(held, self.executor(held).poll(run), limit))
        except Interrupted:
            raise
        except PermanentError as error:
            return Over(self._poll_ended(held, Failed(str(error), retryable=False, outcome_known=error.outcome_known)))
        except Exception as error:
            if self._counted(held, error):
                return Over(self._poll_ended(held, Failed(words(error))))
            return self._after_error(held, error)
        match outcome:
            case Deferred(Until(at), state):
                held.kind, held.state = WaitKind.UNTIL, as_text(state)
                instant = from_datetime(at)
                held.look_at = instant if held.ends_at is None else min(instant, held.ends_at)
                held.error_since = held.last_error = None
                return Given()
            case Deferred(Poll(interval, budget), state):
                before = (held.state, held.interval, held.budget)
                held.state, held.interval, held.budget = as_text(state), to_micros(interval), to_micros(budget)
                healed = self._healed(held)
                return Again(
                    pause_between(held.interval, self._spread()),
                    healed or before != (held.state, held.interval, held.budget),
                )
        return Over(self._poll_ended(held, outcome, run))

    def _poll_ended(self, held: HeldWait, outcome: Outcome, run: RunContext | None = None) -> Ended:
        output = (run.output.text() or None) if run is not None else None
        if isinstance(outcome, Succeeded):
            return Ended(held.execution, Phase.SUCCEEDED, outputs=outcome.outputs or {}, output=output, waited=True)
        assert isinstance(outcome, Failed)
        return Ended(
            held.execution,
            Phase.FAILED,
            error=outcome.error,
            output=output,
            retryable=outcome.retryable,
            retry_after=outcome.retry_after,
            known=outcome.outcome_known,
            waited=True,
        )

    # --- jobs that are watched ---------------------------------------------------------------------------------------

    async def _ask(self, held: HeldWait) -> Verdict:
        try:
            executor = self.job_executor(held)
            run, job = self._performer.context(held.execution), known_job(held)
        except Exception as error:
            # What is wrong with us is no answer about the job.
            return self._unanswered(held, None, error)
        try:
            status = await self._call(held, executor.status(run, job), executor.call_timeout.total_seconds())
        except Interrupted:
            raise
        except Exception as error:
            return self._refused(held, executor, error)
        return await self._answered(held, executor, run, job, status)

    async def look_many(self, waits: Sequence[HeldWait]) -> list[Verdict]:
        """The same for several jobs of one executor that answers for many at once."""
        executor = self.job_executor(waits[0])
        asked: list[tuple[HeldWait, RunContext, Job]] = []
        verdicts: dict[str, Verdict] = {}
        for held in waits:
            try:
                asked.append((held, self._performer.context(held.execution), known_job(held)))
            except Exception as error:
                verdicts[held.name] = self._unanswered(held, None, error)
        answers: Sequence[JobStatus | Exception] = []
        try:
            async with asyncio.timeout(executor.call_timeout.total_seconds()):
                answers = await executor.status_many([(run, job) for _, run, job in asked])
        except Exception as error:
            answers = [error] * len(asked)
        for (held, run, job), answer in zip(asked, answers, strict=True):
            if isinstance(answer, JobStatus):
                verdicts[held.name] = await self._answered(held, executor, run, job, answer)
            else:
                verdicts[held.name] = self._refused(held, executor, answer)
        return [verdicts[held.name] for held in waits]

    async def _answered(
        self, held: HeldWait, executor: ExternalJob, run: RunContext, job: Job, status: JobStatus
    ) -> Verdict:
        if status.phase.is_over:
            return Over(await self._job_ended(held, executor, run, job, status))
        changed = self._healed(held)
        seen = seen_text(status)
        if seen != held.seen:
            held.seen, changed = seen, True
        return Again(pause_between(held.interval, self._spread()), changed)

    async def _job_ended(
        self, held: HeldWait, executor: ExternalJob, run: RunContext, job: Job, status: JobStatus
    ) -> Ended:
        message = executor.end_message(job, status)
        phase, event = _PHASES[status.phase], executor.event(job, status.event, message)
        outputs, retryable = None, status.retryable
        if phase is Phase.SUCCEEDED:
            try:
                succeeded = as_outcome(Succeeded(status.outputs))
                outputs = succeeded.outputs if isinstance(succeeded, Succeeded) else None
            except PermanentError as error:
                phase, retryable, message = Phase.FAILED, False, f"{message} But {error}"
                event = executor.event(job, "error", message)
        return Ended(
            held.execution,
            phase,
            error=None if phase is Phase.SUCCEEDED else message,
            outputs=outputs,
            output=await self._logs(executor, run, job),
            retryable=retryable,
            waited=True,
            event=event,
            links=[{"name": link.name, "uri": link.uri} for link in status.links] or links_of(held),
        )

    async def _logs(self, executor: ExternalJob, run: RunContext, job: Job) -> str | None:
        if type(executor).logs is ExternalJob.logs:
            return None
        try:
            async with asyncio.timeout(_LOGS_SECONDS):
                text = await executor.logs(run, job)
        except Exception as error:
            return f"(the job's log cannot be had: {words(error)})"
        run.output.write(text.encode("utf-8", "replace") if text else b"")
        return run.output.text() or None

    def _refused(self, held: HeldWait, executor: ExternalJob, error: Exception) -> Verdict:
        if isinstance(error, JobGone):
            # Nothing is left to be ended.
            event = executor.event(held.job, "error", str(error))
            return Over(
                Ended(
                    held.execution,
                    Phase.FAILED,
                    error=str(error),
                    retryable=False,
                    waited=True,
                    event=event,
                    links=links_of(held),
                )
            )
        if isinstance(error, PermanentError):
            return self.decide(held, executor, Phase.FAILED, str(error), "error", retryable=False)
        return self._unanswered(held, executor, error)

    def _unanswered(self, held: HeldWait, executor: ExternalJob | None, error: Exception) -> Verdict:
        if not self._counted(held, error):
            return self._after_error(held, error)
        return self.decide(held, executor, Phase.FAILED, words(error), "error")

    # --- jobs that nobody knows of for certain -----------------------------------------------------------------------

    async def _resolve(self, held: HeldWait) -> Verdict:
        try:
            executor = self.job_executor(held)
            run = self._performer.context(held.execution)
            if not executor.finds(run):
                return self._unknown(held, executor)
            found = await self._call(
                held, executor.find(run, to_datetime(held.created_at)), executor.call_timeout.total_seconds()
            )
        except Interrupted:
            raise
        except Exception as error:
            return self._unanswered(held, None, error)
        if found is not None:
            held.job, held.stage = found, Stage.WAITING
            self._healed(held)
            return Found()
        now = self._now()
        if now < held.sure_at:
            return Again(min(held.sure_at - now, pause_after_error(held.interval, 2, self._spread())))
        return self.not_made(held, held.last_error or "submitting the job was interrupted")

    def _unknown(self, held: HeldWait, executor: ExternalJob) -> Verdict:
        why = held.last_error or "its worker was lost while it submitted the job"
        if held.execution.spec.on_unknown == "resubmit":
            return self.not_made(held, why)
        message = f"{why}: whether a job was made is unknown, and one may be running"
        return Over(
            Ended(
                held.execution,
                Phase.FAILED,
                error=message,
                retryable=False,
                known=False,
                waited=True,
                event=executor.event(None, "error", message),
            )
        )

    def not_made(self, held: HeldWait, error: str, asked: Micros | None = None) -> Verdict:
        """The job was not made, and nobody doubts it: it is submitted again while the error budget lasts."""
        now = self._now()
        held.error_since = now if held.error_since is None else held.error_since
        held.errors += 1
        left = budget_left(held.error_since, held.budget, now)
        if left == 0:
            return Over(self.failed_to_submit(held, error))
        pause = min(pause_after_error(held.interval, held.errors, self._spread(), asked), left)
        return NotMade(Tries(held.errors, held.error_since, error), pause)

    def failed_to_submit(self, held: HeldWait, error: str, *, retryable: bool = True) -> Ended:
        """The end of an attempt for which no job was made."""
        event = self.job_executor(held).event(None, "error", error)
        return Ended(held.execution, Phase.FAILED, error=error, retryable=retryable, waited=True, event=event)

    # --- jobs that are to end ----------------------------------------------------------------------------------------

    def decide(
        self,
        held: HeldWait,
        executor: ExternalJob | None,
        phase: Phase,
        message: str,
        status: str,
        *,
        retryable: bool = True,
        error: str | None = None,
    ) -> Verdict:
        """Decides how the run ends; its job is still to be ended, and the run stays open until it is known to be over."""
        job = held.job
        job_id = job.job_id if job is not None else None
        event = (
            {"status": status, "message": message, "job_id": job_id}
            if executor is None
            else executor.event(job, status, message)
        )
        held.ending = Ending(phase, error or message, self._now(), event, retryable)
        held.stage, held.asked = Stage.CANCELLING, 0
        held.errors, held.error_since, held.last_error = 0, None, None
        return Decided()

    def time_is_up(self, held: HeldWait, now: Micros) -> Verdict:
        """The attempt's time is over, deferrals included."""
        said, retryable = timed_out(held.execution, now)
        if held.kind is WaitKind.POLL:
            ended = Ended(held.execution, Phase.TIMED_OUT, error=said, retryable=retryable, known=False, waited=True)
            return Over(ended)
        executor, job = self._any_job_executor(held), held.job
        if executor is not None and job is not None:
            limit = held.execution.timeout
            if not retryable:
                said = executor.deadline_message(job)
            elif limit is not None:
                said = executor.timeout_message(job, limit.total_seconds())
        status = "error" if retryable else "timeout"
        return self.decide(held, executor, Phase.TIMED_OUT, said, status, retryable=retryable)

    def cancelled(self, held: HeldWait, why: str) -> Verdict:
        """Somebody wants the run to end."""
        if held.kind is WaitKind.POLL:
            return Over(Ended(held.execution, Phase.ABORTED, error=why, retryable=False, waited=True))
        executor, job = self._any_job_executor(held), held.job
        said = executor.end_message(job, JobStatus(JobPhase.ABORTED)) if executor and job else why
        return self.decide(held, executor, Phase.ABORTED, said, "cancelled", retryable=False, error=why)

    async def _cancel(self, held: HeldWait) -> Verdict:
        assert held.ending is not None
        left = held.ending.since + to_micros(held.execution.spec.cancel_give_up) - self._now()
        if left <= 0:
            return Over(self._gave_up(held))
        try:
            executor = self.job_executor(held)
            run, job = self._performer.context(held.execution), held.job
            limit = executor.call_timeout.total_seconds()
            if job is None:
                return await self._find_to_cancel(held, executor, run, limit)
            if held.asked == 0:
                await self._call(held, executor.delete(run, job), limit)
                held.asked = 1
            status = await self._call(held, executor.status(run, job), limit)
            if not status.phase.is_over and held.asked > 1:
                # Asked once more: a request that was accepted may have been forgotten.
                await self._call(held, executor.delete(run, job), limit)
        except Interrupted:
            return Again(0)
        except JobGone:
            return Over(self.as_decided(held))
        except Exception as error:
            first = held.error_since is None
            self._counted(held, error)
            asked = error.retry_after if isinstance(error, RetryableError) else None
            pause = pause_after_error(
                held.interval, held.errors, self._spread(), None if asked is None else to_micros(asked)
            )
            return Again(min(pause, left), first)
        if status.phase.is_over:
            return Over(self.as_decided(held, status))
        changed = self._healed(held)
        held.asked += 1
        return Again(min(pause_after_error(held.interval, held.asked, self._spread()), left), changed)

    async def _find_to_cancel(self, held: HeldWait, executor: ExternalJob, run: RunContext, limit: float) -> Verdict:
        if not executor.finds(run):
            return Over(self.as_decided(held, known=False))
        found = await self._call(held, executor.find(run, to_datetime(held.created_at)), limit)
        if found is not None:
            held.job = found
            return Found()
        now = self._now()
        if now < held.sure_at:
            return Again(min(held.sure_at - now, pause_after_error(held.interval, 2, self._spread())))
        return Over(self.as_decided(held))

    def as_decided(self, held: HeldWait, status: JobStatus | None = None, *, known: bool = True) -> Ended:
        """The end that was decided, now that the job is over, or nobody can tell (`known` False)."""
        ending = held.ending
        assert ending is not None
        links = [{"name": link.name, "uri": link.uri} for link in status.links] if status is not None else []
        return Ended(
            held.execution,
            ending.phase,
            error=ending.error,
            retryable=ending.retryable,
            known=known,
            waited=True,
            event=ending.event,
            links=links or links_of(held),
        )

    def _gave_up(self, held: HeldWait) -> Ended:
        ended = self.as_decided(held, known=False)
        after = held.execution.spec.cancel_give_up
        note = f"{ended.error} Its job may still be running: ending it was given up after {after}"
        return Ended(
            held.execution,
            ended.phase,
            error=note,
            retryable=ended.retryable,
            known=False,
            waited=True,
            event=ended.event,
            links=ended.links,
        )

    # --- errors ------------------------------------------------------------------------------------------------------

    def _counted(self, held: HeldWait, error: Exception) -> bool:
        """Notes an error; True once nothing but errors has come for longer than the budget."""
        now = self._now()
        held.error_since = now if held.error_since is None else held.error_since
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

    async def _call(self, held: HeldWait, work: Awaitable[T], seconds: float) -> T:
        """What the executor answers in time. Raises `Interrupted` when somebody wants the wait, or its time is over."""
        ends = None if held.ends_at is None or held.stage is Stage.CANCELLING else held.ends_at - self._now()
        limit = seconds if ends is None else min(seconds, max(0.0, ends / SECOND))
        held.timer = timer = asyncio.timeout(limit)
        try:
            async with timer:
                if held.attention:
                    timer.reschedule(0)
                return await work
        except TimeoutError as error:
            if held.attention or (timer.expired() and limit < seconds):
                raise Interrupted from None
            if timer.expired():
                raise RetryableError(f"no answer within {seconds:g} s") from None
            raise error
        finally:
            held.timer = None


def words(error: BaseException) -> str:
    """An error as people read it: ours by their own words, others with their names."""
    if isinstance(error, ExecutorError):
        return str(error)
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


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


def seen_text(status: JobStatus) -> str:
    """What was seen of a running job, as it is stored."""
    document: dict[str, object] = {"phase": status.phase.value}
    if status.message:
        document["message"] = status.message
    if status.links:
        document["links"] = [{"name": link.name, "uri": link.uri} for link in status.links]
    return as_text(document) or ""
