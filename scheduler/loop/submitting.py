"""Submitting the job of a run: the intent is stored before anything is asked of the service, the job at once after it.

Whatever happens in between, the next holder finds a row that says so. A submission is never broken off halfway, for then
nobody would know whether there is a job: cancelled meanwhile, the job is stored and ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from executors.errors import PermanentError, RetryableError
from executors.external_job import ExternalJob, Job, JobBusy
from executors.protocol import RunContext, as_failure
from scheduler.domain.instants import SECOND, to_micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, WaitKind, pause_after_error, pause_between
from scheduler.loop.asking import words
from scheduler.loop.batching import Batching
from scheduler.loop.held_wait import HeldWait, compact, job_text
from scheduler.loop.performing import Performer
from scheduler.loop.transactions import Transactions
from scheduler.loop.waiting import Waiting
from scheduler.services.defer import Deferral, defer_runs, ends_at
from scheduler.services.finish import Ended
from scheduler.services.resume import PutBack, put_back, timed_out, tries_of
from scheduler.services.take import Execution
from scheduler.services.watch import Written, write_waits
from scheduler.store.waits import WaitKey

T = TypeVar("T")
log = structlog.get_logger("scheduler.waiting")

# A job that another run may have made and not stored yet is looked for after so long.
_OTHERS_STORE = 2 * SECOND


class Submission:
    """One run in a place whose job is being submitted.

    `report` is told of an end, `deferring` that the run is about to be held as a wait, and no more as a run; `cancelled`
    says why the run is cancelled, if it is. `stopped`: the place is wanted back.
    """

    def __init__(
        self,
        execution: Execution,
        report: Callable[[Ended], None],
        cancelled: Callable[[], str | None],
        deferring: Callable[[], None],
    ) -> None:
        self.execution = execution
        self.report = report
        self.cancelled = cancelled
        self.deferring = deferring
        self.stopped = False
        self.begun = False

    @property
    def key(self) -> WaitKey:
        """The run and the fence it is held under."""
        return self.execution.run.name, self.execution.run.fence


class Submitting:
    """Submits jobs with this worker's executors, each in a place of the worker."""

    def __init__(self, transactions: Transactions, performer: Performer, waiting: Waiting) -> None:
        self._transactions = transactions
        self._performer = performer
        self._waiting = waiting
        self._intents: Batching[Deferral, tuple[bool, str | None]] = Batching(self._store_intents)
        self._jobs: Batching[HeldWait, Written] = Batching(self._store_jobs)
        self.submitted = 0
        self.refused = 0

    def is_for(self, execution: Execution) -> bool:
        """Whether the run is performed as a job of a service."""
        return isinstance(self._performer.executors[execution.run.executor], ExternalJob)

    async def submit(self, submission: Submission) -> None:
        """Returns once the run's job is stored, or the run is left to be looked at, queued again or over.

        Cancelled once, it lets a submission that is under way come to its end; cancelled again, it leaves it behind: the
        next holder of the wait finds out what became of it.
        """
        work = asyncio.create_task(self._submit(submission), name=f"submit {submission.key[0]}")
        asked = 0
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                asked += 1
                submission.stopped = True
                if asked > 1:
                    work.cancel()
        if not work.cancelled():
            work.result()
        if work.cancelled() or (asked and not submission.begun):
            raise asyncio.CancelledError

    async def _submit(self, submission: Submission) -> None:
        execution = submission.execution
        executor = self._performer.executors[execution.run.executor]
        assert isinstance(executor, ExternalJob)
        try:
            run = self._performer.context(execution)
            watched = executor.watched(run)
            deferral = Deferral(
                execution,
                WaitKind.JOB,
                Stage.SUBMITTING if watched is None else Stage.WAITING,
                interval=to_micros(executor.poll_interval(run)),
                budget=to_micros(executor.error_budget(run)),
                state=None if watched is None else job_text(watched),
                job_id=None if watched is None else watched.job_id or None,
                watched=watched is not None,
            )
        except Exception as error:
            failure = as_failure(error)
            event = executor.event(None, "error", failure.error)
            submission.report(
                Ended(execution, Phase.FAILED, error=failure.error, retryable=failure.retryable, event=event)
            )
            return
        if submission.stopped:
            if (why := submission.cancelled()) is not None:
                submission.begun = True
                submission.report(Ended(execution, Phase.ABORTED, error=why, retryable=False, known=False))
            return
        now, ends = self._waiting.now(), ends_at(execution)
        if ends is not None and ends <= now:
            said, retryable = timed_out(execution, now)
            event = executor.event(None, "error" if retryable else "timeout", said)
            submission.report(Ended(execution, Phase.TIMED_OUT, error=said, retryable=retryable, event=event))
            return
        submission.begun = True
        submission.deferring()
        self._waiting.submitting.add(submission.key)
        try:
            await self._begin(submission, executor, run, deferral, watched)
        finally:
            self._waiting.submitting.discard(submission.key)

    async def _begin(
        self, submission: Submission, executor: ExternalJob, run: RunContext, deferral: Deferral, watched: Job | None
    ) -> None:
        ours, why = await self._intents.ask(deferral)
        if not ours:
            self.refused += 1
            log.warning("a late result does not count: the run was taken again", run=submission.key[0])
            return
        held = self._held(submission.execution, deferral)
        if watched is not None:
            self._waiting.hold(held, 0)
            if why is not None:
                self._waiting.bell.ring()
        elif why is not None:
            submission.report(Ended(held.execution, Phase.ABORTED, error=why, retryable=False, waited=True))
        elif submission.stopped:
            await self._transactions.run(
                put_back, [PutBack(held.execution, self._waiting.now(), submission.execution.run.state)], _owner(held)
            )
        else:
            await self._create(submission, executor, run, held)

    async def _create(self, submission: Submission, executor: ExternalJob, run: RunContext, held: HeldWait) -> None:
        try:
            job = await executor.create(run)
        except Exception as error:
            self._not_created(submission, executor, run, held, error)
            return
        self.submitted += 1
        held.job, held.stage = job, Stage.WAITING
        held.errors, held.error_since, held.last_error = 0, None, None
        written = await self._jobs.ask(held)
        if held.name in written.conflicts:
            # Another run was taken for the one that made this job; to ask for it twice would end it for both.
            error_text = f"job {job.job_id} is watched for another run"
            submission.report(self._waiting.looker.failed_to_submit(held, error_text))
        elif held.key not in written.held:
            self.refused += 1
            log.error("a job was made for a run that another worker has taken over", run=held.name, job=job.job_id)
        else:
            log.info("submitted", run=held.name, job=job.job_id)
            self._waiting.hold(held, pause_between(to_micros(executor.first_look(run)), self._waiting.spread()))
            if held.name in written.intents:
                # Somebody has wanted the run to end while nobody could be told.
                self._waiting.want(held, written.intents[held.name])

    def _not_created(
        self, submission: Submission, executor: ExternalJob, run: RunContext, held: HeldWait, error: Exception
    ) -> None:
        looker, said = self._waiting.looker, words(error)
        if isinstance(error, PermanentError) and error.outcome_known:
            submission.report(looker.failed_to_submit(held, said, retryable=False))
            return
        if isinstance(error, RetryableError) and error.outcome_known and not _may_be_ours(executor, run, error):
            asked = None if error.retry_after is None else to_micros(error.retry_after)
            self._waiting.settle(held, looker.not_made(held, said, asked))
            return
        # Nobody knows whether there is a job. It is looked for, and only where there is none one is submitted again.
        now = self._waiting.now()
        held.error_since, held.last_error = held.error_since or now, said
        held.errors += 1
        held.sure_at = now if isinstance(error, JobBusy) else now + looker.settled_after
        log.warning("it is not known whether a job was made", run=held.name, error=said)
        pause = _OTHERS_STORE if isinstance(error, JobBusy) else pause_after_error(held.interval, 1, 1.0)
        self._waiting.hold(held, pause)

    def _held(self, execution: Execution, deferral: Deferral) -> HeldWait:
        now, tries = self._waiting.now(), tries_of(execution)
        held = HeldWait(
            compact(execution),
            WaitKind.JOB,
            deferral.stage,
            look_at=now + deferral.interval,
            interval=deferral.interval,
            budget=deferral.budget,
            ends_at=ends_at(execution),
            created_at=now,
            state=deferral.state,
            job_id=deferral.job_id,
            watched=deferral.watched,
        )
        held.errors, held.error_since, held.last_error = tries.errors, tries.since, tries.error or None
        return held

    # --- stored ------------------------------------------------------------------------------------------------------

    async def _store_intents(self, deferrals: Sequence[Deferral]) -> list[tuple[bool, str | None]]:
        found: dict[WaitKey, str | None] = {}
        for owner, of_one in _by_owner(deferrals, lambda deferral: deferral.execution.run.owner).items():
            found |= await self._transactions.run(defer_runs, of_one, owner)
        return [(deferral.key in found, found.get(deferral.key)) for deferral in deferrals]

    async def _store_jobs(self, waits: Sequence[HeldWait]) -> list[Written]:
        answers: dict[str, Written] = {}
        for owner, of_one in _by_owner(waits, _owner).items():
            jobs = {held.name: held.execution.run.executor for held in of_one}
            written = await self._transactions.run(write_waits, [held.to_state() for held in of_one], jobs, owner)
            answers |= dict.fromkeys((held.name for held in of_one), written)
        return [answers[held.name] for held in waits]


def _may_be_ours(executor: ExternalJob, run: RunContext, error: RetryableError) -> bool:
    # What keeps the service busy may be what an earlier try of the same call has made.
    return isinstance(error, JobBusy) and executor.finds(run)


def _owner(held: HeldWait) -> str:
    return held.execution.run.owner


def _by_owner(items: Sequence[T], owner: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(owner(item), []).append(item)
    return found
