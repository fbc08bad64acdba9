"""Submitting the job of a run: the intent is stored before anything is asked of the service, the job at once after it.

Whatever happens in between, the next holder finds a row that says so. A submission is never broken off halfway, for then
nobody would know whether there is a job: cancelled meanwhile, the job is stored and ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from executors.external_job import ExternalJob, Job
from executors.protocol import RunContext, as_failure
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.run import Phase
from scheduler.domain.wait import Stage, WaitKind, pause_between
from scheduler.loop.asking import words
from scheduler.loop.batching import Batching
from scheduler.loop.containing import contained
from scheduler.loop.held_wait import HeldWait, job_id_of, job_text
from scheduler.loop.performing import Performer
from scheduler.loop.transactions import Transactions
from scheduler.loop.verdicts import Again, Over
from scheduler.loop.waiting import Waiting
from scheduler.services.defer import Deferral, as_micros, defer_runs, ends_at
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
        self._external = {name for name, item in performer.executors.items() if isinstance(item, ExternalJob)}
        self._intents: Batching[Deferral, tuple[bool, str | None]] = Batching(self._store_intents)
        self._jobs: Batching[HeldWait, Written] = Batching(self._store_jobs)
        self.submitted = 0
        self.refused = 0

    def is_for(self, execution: Execution) -> bool:
        """Whether the run is performed as a job of a service."""
        return execution.run.executor in self._external

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
            with contained():
                run = self._performer.context(execution)
                deferral = job_deferral(execution, executor, run)
        except Exception as error:
            failure = as_failure(error)
            event = self._waiting.looker.event_of(executor, None, "error", failure.error)
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
            event = self._waiting.looker.event_of(executor, None, "error" if retryable else "timeout", said)
            submission.report(Ended(execution, Phase.TIMED_OUT, error=said, retryable=retryable, event=event))
            return
        submission.begun = True
        submission.deferring()
        self._waiting.submitting.add(submission.key)
        try:
            await self._begin(submission, executor, run, deferral)
        finally:
            self._waiting.submitting.discard(submission.key)

    async def _begin(self, submission: Submission, executor: ExternalJob, run: RunContext, deferral: Deferral) -> None:
        ours, why = await self._intents.ask(deferral)
        if not ours:
            self.refused += 1
            log.warning("a late result does not count: the run was taken again", run=submission.key[0])
            return
        held = HeldWait.begun(deferral, self._waiting.now(), tries_of(submission.execution))
        if deferral.watched:
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
            await self._create(executor, run, held)

    async def _create(self, executor: ExternalJob, run: RunContext, held: HeldWait) -> None:
        looker = self._waiting.looker
        try:
            with contained():
                job = await executor.create(run)
        except Exception as error:
            verdict = looker.not_created(held, executor, run, error)
            if isinstance(verdict, Again):
                log.warning("it is not known whether a job was made", run=held.name, error=held.last_error)
            self._waiting.settle(held, verdict)
            return
        self.submitted += 1
        try:
            held.job = job
        except Exception as error:
            # What is no job, or cannot be stored cannot be found again by anybody: it is ended while it is known.
            await self._end_unkept(executor, run, held, job, error)
            return
        held.stage = Stage.WAITING
        held.errors, held.error_since, held.last_error = 0, None, None
        written = await self._jobs.ask(held)
        if held.name in written.conflicts:
            self._waiting.settle(held, looker.lost_to_another(held))
        elif held.key not in written.held:
            self.refused += 1
            log.error("a job was made for a run that another worker has taken over", run=held.name, job=job.job_id)
        else:
            log.info("submitted", run=held.name, job=job.job_id)
            self._waiting.hold(held, pause_between(self._first_look(executor, run, held), self._waiting.spread()))
            if held.name in written.intents:
                # Somebody has wanted the run to end while nobody could be told.
                self._waiting.want(held, written.intents[held.name])

    def _first_look(self, executor: ExternalJob, run: RunContext, held: HeldWait) -> Micros:
        try:
            with contained():
                return as_micros(executor.first_look(run))
        except Exception as error:
            log.warning("an executor cannot say when to look at a job", run=held.name, error=words(error))
            return held.interval

    async def _end_unkept(
        self, executor: ExternalJob, run: RunContext, held: HeldWait, job: Job, error: Exception
    ) -> None:
        said = f"the job's metadata cannot be stored: {words(error)}"
        try:
            async with asyncio.timeout(executor.call_timeout.total_seconds()):
                with contained():
                    await executor.delete(run, job)
        except Exception as failure:
            said += f"; it may be running, for it could not be ended: {words(failure)}"
        self._waiting.settle(held, Over(self._waiting.looker.failed_to_submit(held, said, retryable=False)))

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


def job_deferral(execution: Execution, executor: ExternalJob, run: RunContext) -> Deferral:
    """The wait of a run whose job is about to be submitted, or exists already and is watched."""
    watched = executor.watched(run)
    return Deferral(
        execution,
        WaitKind.JOB,
        Stage.SUBMITTING if watched is None else Stage.WAITING,
        interval=as_micros(executor.poll_interval(run)),
        budget=as_micros(executor.error_budget(run)),
        state=None if watched is None else job_text(watched),
        job_id=None if watched is None else job_id_of(watched),
        watched=watched is not None,
    )


def _owner(held: HeldWait) -> str:
    return held.execution.run.owner


def _by_owner(items: Sequence[T], owner: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(owner(item), []).append(item)
    return found
