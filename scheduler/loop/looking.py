"""One look at one wait: what is asked of its executor, and what the answer means. Nothing is stored here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from executors.errors import PermanentError
from executors.external_job import ExternalJob, Job, JobGone, JobPhase, JobStatus
from executors.protocol import Deferred, Failed, Outcome, Resumed, RunContext, Succeeded, as_outcome
from executors.waits import Poll, Until
from scheduler.domain.instants import SECOND, from_datetime
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, WaitKind, pause_between
from scheduler.loop.asking import job_of, known_job, links_of, links_told, seen_text, state_of, words
from scheduler.loop.containing import contained
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.resolving import Resolving
from scheduler.loop.verdicts import Again, Given, Interrupted, Over, Verdict
from scheduler.services.defer import as_micros, as_text, printed_of, printed_text
from scheduler.services.finish import Ended

# A poll may do more than ask; this is how long it may take at least, whatever its error budget.
_POLL_SECONDS: Final = 60.0
_LOGS_SECONDS: Final = 10.0
_PHASES: Final = {
    JobPhase.SUCCEEDED: Phase.SUCCEEDED,
    JobPhase.FAILED: Phase.FAILED,
    JobPhase.RETRYABLE_FAILED: Phase.FAILED,
    JobPhase.ABORTED: Phase.FAILED,
    JobPhase.TIMED_OUT: Phase.TIMED_OUT,
}


class Looker(Resolving):
    """Looks at waits with this worker's executors."""

    async def look(self, held: HeldWait) -> Verdict:
        """What is to be done with the wait now; changes it, and leaves it to the caller to store that."""
        try:
            if held.kind is WaitKind.POLL:
                return await self._poll(held)
            if held.stage is Stage.CANCELLING:
                return await self.end_job(held)
            if held.stage is Stage.SUBMITTING:
                return await self.resolve(held)
            return await self._ask(held)
        except Interrupted:
            return Again(0)

    # --- polls -------------------------------------------------------------------------------------------------------

    async def _poll(self, held: HeldWait) -> Verdict:
        try:
            run = self._performer.context(held.execution, Resumed(state_of(held)), printed_of(held.seen))
            limit = max(_POLL_SECONDS, held.budget / SECOND)
            outcome = as_outcome(await self._call(held, self.executor(held).poll(run), limit))
            if isinstance(outcome, Deferred) and (fault := self._performer.state_fault(outcome)):
                raise PermanentError(fault)
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
                held.kind, held.state, held.seen = WaitKind.UNTIL, as_text(state), printed_text(run.output.text())
                instant = from_datetime(at)
                held.look_at = instant if held.ends_at is None else min(instant, held.ends_at)
                held.error_since = held.last_error = None
                return Given()
            case Deferred(Poll(interval, budget), state):
                before = (held.state, held.seen, held.interval, held.budget)
                after = (as_text(state), printed_text(run.output.text()), as_micros(interval), as_micros(budget))
                held.state, held.seen, held.interval, held.budget = after
                healed = self._healed(held)
                return Again(pause_between(held.interval, self._spread()), healed or before != after)
        return Over(self._poll_ended(held, outcome, run))

    def _poll_ended(self, held: HeldWait, outcome: Outcome, run: RunContext | None = None) -> Ended:
        output = (run.output.text() or None) if run is not None else printed_of(held.seen)
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

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def _ask(self, held: HeldWait) -> Verdict:
        try:
            executor = self.job_executor(held)
            run, job = self._performer.context(held.execution), known_job(held)
        except Exception as error:
            # What is wrong with us is no answer about the job.
            return self.unanswered(held, None, error)
        try:
            status = await self._call(held, executor.status(run, job), executor.call_timeout.total_seconds())
        except Interrupted:
            raise
        except Exception as error:
            return self._refused(held, executor, error)
        try:
            return await self._answered(held, executor, run, job, status)
        except Exception as error:
            return self.unanswered(held, executor, error)

    async def look_many(self, waits: Sequence[HeldWait]) -> list[Verdict]:
        """The same for several jobs of one executor that answers for many at once."""
        executor = self.job_executor(waits[0])
        asked: list[tuple[HeldWait, RunContext, Job]] = []
        verdicts: dict[str, Verdict] = {}
        for held in waits:
            try:
                asked.append((held, self._performer.context(held.execution), known_job(held)))
            except Exception as error:
                verdicts[held.name] = self.unanswered(held, None, error)
        answers: Sequence[JobStatus | Exception] = []
        try:
            async with asyncio.timeout(executor.call_timeout.total_seconds()):
                with contained():
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
            links=links_told(status) or links_of(held),
        )

    async def _logs(self, executor: ExternalJob, run: RunContext, job: Job) -> str | None:
        if type(executor).logs is ExternalJob.logs:
            return None
        try:
            async with asyncio.timeout(_LOGS_SECONDS):
                with contained():
                    text = await executor.logs(run, job)
        except Exception as error:
            return f"(the job's log cannot be had: {words(error)})"
        run.output.write(text.encode("utf-8", "replace") if text else b"")
        return run.output.text() or None

    def _refused(self, held: HeldWait, executor: ExternalJob, error: Exception) -> Verdict:
        if isinstance(error, JobGone):
            # Nothing is left to be ended.
            event = self.event_of(executor, job_of(held), "error", str(error))
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
        return self.unanswered(held, executor, error)
