"""Jobs that nobody knows of for certain: a submission was interrupted, and what became of it is to be found out."""

from __future__ import annotations

from typing import Final

from executors.errors import PermanentError, RetryableError
from executors.external_job import ExternalJob, JobBusy
from executors.protocol import RunContext
from scheduler.domain.instants import SECOND, Micros, to_datetime, to_micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, budget_left, pause_after_error
from scheduler.loop.asking import words
from scheduler.loop.ending_jobs import JobEndings
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.shortage import shortage_of
from scheduler.loop.verdicts import Again, Found, Interrupted, NotMade, Over, Verdict
from scheduler.services.finish import Ended
from scheduler.services.resume import Tries

# A job that another run may have made and not stored yet is looked for after so long.
_OTHERS_STORE: Final = 2 * SECOND


class Resolving(JobEndings):
    """Finds out whether a job was made."""

    def not_created(self, held: HeldWait, executor: ExternalJob, run: RunContext, error: Exception) -> Verdict:
        """What follows from an error of `create`."""
        said = words(error)
        if shortage_of(error) is not None:
            held.error_since = None  # It is this worker that lacks something: the budget begins anew.
            return self.not_made(held, said)
        if isinstance(error, PermanentError) and error.outcome_known:
            return Over(self.failed_to_submit(held, said, retryable=False))
        # What keeps the service busy may be what an earlier try of the same call has made.
        busy = isinstance(error, JobBusy) and executor.finds(run)
        if isinstance(error, RetryableError) and error.outcome_known and not busy:
            return self.not_made(held, said, None if error.retry_after is None else to_micros(error.retry_after))
        # Nobody knows whether there is a job. It is looked for, and only where there is none one is submitted again.
        now = self._now()
        held.error_since, held.last_error = held.error_since or now, said
        held.errors += 1
        held.sure_at = now if busy else now + self.settled_after
        return Again(_OTHERS_STORE if busy else pause_after_error(held.interval, 1, 1.0))

    async def resolve(self, held: HeldWait) -> Verdict:
        """Looks for the job of a submission that was interrupted."""
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
            return self.unanswered(held, None, error)
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
                event=self.event_of(executor, None, "error", message),
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
        event = self.event_of(self._any_job_executor(held), None, "error", error)
        return Ended(held.execution, Phase.FAILED, error=error, retryable=retryable, waited=True, event=event)

    def lost_to_another(self, held: HeldWait) -> Verdict:
        """The job that `create` has made is watched for a run that was taken for its maker."""
        # To end it would end it for both.
        return Over(self.failed_to_submit(held, f"job {held.job_id} is watched for another run"))

    def unanswered(self, held: HeldWait, executor: ExternalJob | None, error: Exception) -> Verdict:
        """What follows from an error that says nothing about the job."""
        if not self._counted(held, error):
            return self._after_error(held, error)
        return self.decide(held, executor, Phase.FAILED, words(error), "error")
