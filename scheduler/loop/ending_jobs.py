"""Jobs that are to end: the end of the run is decided and stored first, the job then asked to end until it has.

The run stays open all the while, and no other attempt begins: at most until the task's `cancel_give_up` has passed.
"""

from __future__ import annotations

from typing import Final

from executors.errors import RetryableError
from executors.external_job import ExternalJob, JobGone, JobPhase, JobStatus
from executors.protocol import RunContext
from scheduler.domain.instants import SECOND, Micros, to_datetime, to_micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Ending, Stage, WaitKind, pause_after_error
from scheduler.loop.asking import Asking, job_of, links_of, links_told
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.verdicts import Again, Decided, Found, Interrupted, Over, Verdict
from scheduler.services.defer import printed_of
from scheduler.services.finish import Ended
from scheduler.services.resume import timed_out

# A service that asks to be left alone for longer is asked all the same: a job that runs on may cost more.
_LONGEST: Final = 60 * SECOND


class JobEndings(Asking):
    """Decides how runs end, and ends their jobs."""

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
        event = self.event_of(executor, job_of(held), status, message)
        held.ending = Ending(phase, error or message, self._now(), event, retryable)
        held.stage, held.asked = Stage.CANCELLING, 0
        held.errors, held.error_since, held.last_error = 0, None, None
        return Decided()

    def time_is_up(self, held: HeldWait, now: Micros) -> Verdict:
        """The attempt's time is over, deferrals included."""
        said, retryable = timed_out(held.execution, now)
        if held.kind is WaitKind.POLL:
            printed = printed_of(held.seen)
            return Over(
                Ended(
                    held.execution,
                    Phase.TIMED_OUT,
                    error=said,
                    output=printed,
                    retryable=retryable,
                    known=False,
                    waited=True,
                )
            )
        executor, job, limit = self._any_job_executor(held), job_of(held), held.execution.timeout
        if executor is not None and job is not None and (limit is not None or not retryable):
            seconds = limit.total_seconds() if limit is not None else 0.0
            said = self._words(
                lambda: executor.timeout_message(job, seconds) if retryable else executor.deadline_message(job), said
            )
        status = "error" if retryable else "timeout"
        return self.decide(held, executor, Phase.TIMED_OUT, said, status, retryable=retryable)

    def cancelled(self, held: HeldWait, why: str) -> Verdict:
        """Somebody wants the run to end."""
        if held.kind is WaitKind.POLL:
            printed = printed_of(held.seen)
            ended = Ended(held.execution, Phase.ABORTED, error=why, output=printed, retryable=False, waited=True)
            return Over(ended)
        executor, job = self._any_job_executor(held), job_of(held)
        said = why
        if executor is not None and job is not None:
            said = self._words(lambda: executor.end_message(job, JobStatus(JobPhase.ABORTED)), why)
        return self.decide(held, executor, Phase.ABORTED, said, "cancelled", retryable=False, error=why)

    async def end_job(self, held: HeldWait) -> Verdict:
        """Asks for the end of the job, and whether it has come."""
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
            asked_for = None if asked is None else min(to_micros(asked), _LONGEST)
            pause = pause_after_error(held.interval, held.errors, self._spread(), asked_for)
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
        links = links_told(status) if status is not None else []
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
