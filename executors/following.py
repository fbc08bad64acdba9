"""An external job followed to its end where it was submitted: for tests, and for tasks executed without a worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from executors.errors import PermanentError, RetryableError
from executors.external_job import ExternalJob, Job, JobBusy, JobGone, JobPhase, Link, pause_after_error
from executors.protocol import Failed, Outcome, RunContext, Succeeded

_CANCEL_TRIES = 5


async def follow(executor: ExternalJob, run: RunContext) -> Outcome:
    """Submit or look up the run's job and wait for its end; whatever ends the waiting earlier cancels the job."""
    job = executor.watched(run) or await _create(executor, run)
    try:
        return await _to_the_end(executor, run, job)
    except JobGone:
        raise
    except BaseException:
        await _cancel(executor, run, job)
        raise


async def _create(executor: ExternalJob, run: RunContext) -> Job:
    began = run.now()
    submitting = asyncio.ensure_future(executor.create(run))
    try:
        # Interrupted halfway, nobody would know whether there is a job to cancel.
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        with suppress(Exception):
            await _cancel(executor, run, await submitting)
        raise
    except JobBusy:
        if executor.finds(run) and (found := await executor.find(run, began)):
            return found
        raise


async def _to_the_end(executor: ExternalJob, run: RunContext, job: Job) -> Outcome:
    clock = asyncio.get_running_loop().time
    shown: set[Link] = set()
    interval = executor.poll_interval(run)
    budget = executor.error_budget(run).total_seconds()
    answered, errors = clock(), 0
    while True:
        try:
            async with asyncio.timeout(executor.call_timeout.total_seconds()):
                status = await executor.status(run, job)
        except PermanentError:
            raise
        except Exception as error:
            errors += 1
            if clock() - answered >= budget:
                raise
            run.log.warning("job %s: %s", job.job_id, error)
            asked = error.retry_after if isinstance(error, RetryableError) else None
            pause = min(pause_after_error(interval, errors, asked), max(answered + budget - clock(), 0))
        else:
            for link in status.links:
                if link not in shown:
                    run.log.info("%s: %s", link.name, link.uri)
            shown.update(status.links)
            if status.phase.is_over:
                break
            answered, errors, pause = clock(), 0, interval.total_seconds()
        await asyncio.sleep(pause)
    if status.phase is JobPhase.SUCCEEDED:
        return Succeeded(status.outputs)
    return Failed(executor.end_message(job, status), retryable=status.retryable)


async def _cancel(executor: ExternalJob, run: RunContext, job: Job) -> None:
    for errors in range(1, _CANCEL_TRIES + 1):
        try:
            await executor.delete(run, job)
        except JobGone:
            return
        except Exception as error:
            run.log.warning("job %s could not be cancelled: %s", job.job_id, error)
            if errors < _CANCEL_TRIES:
                await asyncio.sleep(pause_after_error(executor.poll_interval(run), errors))
        else:
            return
