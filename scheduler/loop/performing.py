"""One attempt: the context an executor is given, the time it has, and what its end means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, cast

import structlog

from executors.jsonvalue import MAX_OUTPUT_BYTES, size_fault
from executors.protocol import (
    Deferred,
    Executor,
    Failed,
    Log,
    Outcome,
    Resumed,
    RunContext,
    Succeeded,
    as_failure,
    as_outcome,
)
from scheduler.domain.instants import SECOND, Micros, to_datetime, to_micros
from scheduler.domain.run import Phase
from scheduler.loop.containing import contained
from scheduler.loop.shortage import shortage_of
from scheduler.services.defer import as_text, deferral_of, ends_at
from scheduler.services.finish import Ended
from scheduler.services.resume import printed_before, resumed_of, timed_out
from scheduler.services.take import Execution

Prepare = Callable[[Executor, Execution], Any]
"""Makes an executor's config object out of a task's `config`; the composition root supplies it."""

_CONFIGS_KEPT: Final = 1000


class Performer:
    """Performs attempts with this worker's executors. `now` is the database's instant."""

    def __init__(
        self,
        executors: Mapping[str, Executor],
        now: Callable[[], Micros],
        prepare: Prepare,
        *,
        http_session: Callable[[], Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        hidden_env: frozenset[str] = frozenset(),
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self.executors = executors
        self._database_now = now
        self._prepare = prepare
        self._http_session = http_session
        self._secrets = secrets or {}
        self._hidden_env = hidden_env
        self._max_output_bytes = max_output_bytes
        self._configs: dict[str, Any] = {}
        self.abandoned = 0

    async def perform(
        self,
        execution: Execution,
        report: Callable[[Ended], None],
        cancelled: Callable[[], str | None] = lambda: None,
        short: Callable[[str], None] | None = None,
    ) -> None:
        """Executes the attempt, reports its outcome, and returns once its code has ended.

        Where the task that awaits this is cancelled, `cancelled` says why the run is: it ends ABORTED. Without a reason
        nothing is reported, for then the worker leaves and somebody else performs the attempt. Nor is anything where the
        worker lacks what the attempt needs and somebody is to be told of it by `short`.
        """
        context: RunContext | None = None
        try:
            with contained():
                context = self.context(execution, resumed_of(execution), printed_before(execution))
                left = self._time_left(execution)
                if left is None:
                    outcome = await self.executors[execution.run.executor].execute(context)
                    ended = _ended(execution, as_outcome(outcome), context)
                else:
                    ended = await self._ended_within(left, execution, context)
        except asyncio.CancelledError:
            why = cancelled()
            if why is None:
                raise
            ended = Ended(execution, Phase.ABORTED, error=why, output=_printed(context), retryable=False, known=False)
        except Exception as error:
            if short is not None and (why := shortage_of(error)) is not None:
                short(why)
                return
            ended = _ended(execution, as_failure(error), context)
        report(ended)
        if context is not None and context.abandoned and context.still_running is not None:
            # A thread cannot be stopped: it keeps its place until it has really ended.
            self.abandoned += 1
            await asyncio.wait([context.still_running])
            self.abandoned -= 1

    async def _ended_within(self, left: Micros, execution: Execution, context: RunContext) -> Ended:
        executor, began = self.executors[execution.run.executor], self._database_now()
        try:
            async with asyncio.timeout(left / SECOND) as timer:
                outcome = as_outcome(await executor.execute(context))
        except TimeoutError:
            if not timer.expired():
                raise
            # By the instant at which the time was over, whatever has become of any clock since.
            error, retryable = timed_out(execution, began + left)
            output = _printed(context)
            return Ended(execution, Phase.TIMED_OUT, error=error, output=output, retryable=retryable, known=False)
        return _ended(execution, outcome, context)

    def _time_left(self, execution: Execution) -> Micros | None:
        """How long the attempt may go on. From here on it is measured by steady time: no clock has a say in it."""
        if execution.run.state is not None:
            # It goes on after it waited: what its attempt had before counts.
            ends = ends_at(execution)
            return None if ends is None else max(0, ends - self._database_now())
        limits: list[Micros] = []
        if execution.timeout is not None:
            limits.append(to_micros(execution.timeout))
        if execution.run.deadline_at is not None:
            limits.append(max(0, execution.run.deadline_at - self._database_now()))
        return min(limits, default=None)

    def state_fault(self, outcome: Deferred) -> str | None:
        """Why the state of a deferred run cannot be kept."""
        state = as_text(outcome.state)
        return None if state is None else size_fault("state", state, self._max_output_bytes)

    def context(self, execution: Execution, resumed: Resumed | None = None, printed: str | None = None) -> RunContext:
        """What an executor is told of the run; raises what is wrong with the task's config.

        `resumed` is why it goes on after it waited, and `printed` what its attempt had printed before that.
        """
        run = execution.run
        covers = None
        if run.covers_from is not None and run.covers_to is not None:
            covers = (to_datetime(run.covers_from), to_datetime(run.covers_to))
        executor = self.executors[run.executor]
        context = RunContext(
            run.name,
            key=execution.key,
            project=execution.project,
            domain=execution.domain,
            task=execution.task,
            version=run.version,
            trigger=execution.trigger or "",
            scheduled_at=None if run.scheduled_at is None else _slot(run.scheduled_at),
            covers=covers,
            inputs=execution.inputs,
            kickoff_input=run.kickoff_arg if run.scheduled_at is not None else None,
            config=self._config(executor, execution),
            attempt=run.attempt,
            deadline=None if run.deadline_at is None else to_datetime(run.deadline_at),
            secrets=self._secrets,
            hidden_env=self._hidden_env,
            max_output_bytes=self._max_output_bytes,
            log=cast(Log, RunLog(run.name)),
            clock=self._now,
            http_session=self._http_session,
            resumed=resumed,
        )
        if printed:
            context.output.write(printed)
        return context

    def _config(self, executor: Executor, execution: Execution) -> Any:
        # One object for all runs of a specification that fills nothing in: jobs are looked at a thousand times a second.
        digest = execution.run.spec_digest
        config = self._configs.get(digest)
        if config is None:
            # What declares no Config gets a dict of its own, which it may change.
            declared = getattr(type(executor), "Config", None) is not None
            if not declared and not execution.spec.config:
                return {}
            config = self._prepare(executor, execution)
            if declared and not _fills_in(execution.spec.config):
                if len(self._configs) >= _CONFIGS_KEPT:
                    self._configs.clear()
                self._configs[digest] = config
        return config

    def _now(self) -> datetime:
        return to_datetime(self._database_now())


class RunLog:
    """The logger of a run, made whenever it is used: most runs say nothing."""

    __slots__ = ("_run",)

    def __init__(self, run: str) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Who copies it asks for those, before there is a run.
            raise AttributeError(name)
        return getattr(structlog.get_logger("executors", run=self._run), name)


# A burst has few slots.
_slot: Final = lru_cache(maxsize=1024)(to_datetime)


def _ended(execution: Execution, outcome: Outcome, context: RunContext | None) -> Ended:
    output = _printed(context)
    match outcome:
        case Succeeded():
            return Ended(execution, Phase.SUCCEEDED, outputs=outcome.outputs or {}, output=output)
        case Failed(error, retryable, retry_after, known):
            return Ended(
                execution,
                Phase.FAILED,
                error=error,
                output=output,
                retryable=retryable,
                retry_after=retry_after,
                known=known,
            )
        case Deferred():
            return Ended(execution, Phase.DEFERRED, deferral=deferral_of(execution, outcome, output))


def _printed(context: RunContext | None) -> str | None:
    """What the attempt has printed; None for nothing, and where its code has put something else in the place of it."""
    try:
        return (context.output.text() or None) if context is not None else None
    except Exception:
        return None


def _fills_in(config: Any) -> bool:
    """Whether some text of a task's config may hold a placeholder."""
    if isinstance(config, str):
        return "{" in config
    if isinstance(config, Mapping):
        return any(_fills_in(item) for item in config.values())
    return isinstance(config, (list, tuple)) and any(_fills_in(item) for item in config)
