"""An executor that remembers what it was asked to do and answers as scripted."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TypeAlias, Union

from executors.protocol import Executor, Outcome, RunContext

Scripted: TypeAlias = Union[Outcome, BaseException, None]  # noqa: UP007  # evaluated at import
Script: TypeAlias = Union[Iterable[Scripted], Callable[[RunContext], Union[Scripted, Awaitable[Scripted]]]]  # noqa: UP007


class RecordingExecutor(Executor):
    """Records every execution and ends it as scripted: the outcomes in turn, then success.

    An outcome that is an exception is raised. A callable is asked for each outcome instead; it may be `async`.
    """

    def __init__(self, outcomes: Script = ()) -> None:
        super().__init__()
        self.executions: list[RunContext] = []
        self._script: Iterator[Scripted] | None = None
        self._answer: Callable[[RunContext], Scripted | Awaitable[Scripted]] | None = None
        if callable(outcomes):
            self._answer = outcomes
        else:
            self._script = iter(outcomes)
        self._arrived = threading.Condition()

    @property
    def slots(self) -> list[datetime | None]:
        """The slots executed, in that order; None for a run fired by hand."""
        return [run.scheduled_at for run in self.executions]

    async def execute(self, run: RunContext) -> Outcome | None:
        """Record the run, then end as scripted."""
        with self._arrived:
            self.executions.append(run)
            self._arrived.notify_all()
        if self._answer is not None:
            answer = self._answer(run)
            outcome = await answer if inspect.isawaitable(answer) else answer
        else:
            assert self._script is not None
            outcome = next(self._script, None)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def wait_for(self, count: int, timeout: timedelta = timedelta(seconds=10)) -> list[RunContext]:
        """The executions, as soon as there are `count`: for a worker in another thread. Raises `TimeoutError`."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.executions) >= count, timeout.total_seconds()):
                raise TimeoutError(f"{len(self.executions)} executions after {timeout}, not {count}")
            return list(self.executions)
