"""Code of executors that raises what would end the worker's event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from executors import Executor, Outcome, RunContext, Succeeded
from executors.errors import RetryableError
from scheduler.domain.retry import RetryPolicy
from scheduler.loop.containing import contained, tasks_contained
from scheduler.schedules import Trigger
from scheduler.testing import Harness

KEY = {"project": "flytesnacks", "domain": "development", "task": "report", "name": "t"}


class EndsEverything(BaseException):
    """Neither an Exception nor anything that Python knows."""

    def __str__(self) -> str:
        raise SystemExit


def _raise(error: BaseException) -> None:
    raise error


async def _cancelled_from_within() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


RAISED: dict[str, Callable[[], Any]] = {
    "SystemExit: 3": lambda: sys.exit(3),
    "SystemExit": lambda: _raise(SystemExit()),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "EndsEverything": lambda: _raise(EndsEverything()),
    "MemoryError": lambda: _raise(MemoryError()),
    "StopIteration": lambda: _raise(StopIteration(7)),
    "StopAsyncIteration": lambda: _raise(StopAsyncIteration()),
    "RecursionError": lambda: (lambda f: f(f))(lambda f: f(f)),
}


class Raises(Executor):
    """Ends as the test wants it to, and says so by raising."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.act = act

    async def execute(self, run: RunContext) -> Outcome:
        """Raises at the first attempt."""
        if run.attempt == 1:
            run.output.write("so far")
            answer = self.act()
            if asyncio.iscoroutine(answer):
                await answer
        return Succeeded()


@pytest.mark.parametrize("said", RAISED)
def test_whatever_an_executor_raises_fails_its_attempt_and_nothing_else(said: str) -> None:
    with Harness(Raises(RAISED[said])) as harness:
        trigger = Trigger(**KEY, retries=RetryPolicy(2))
        harness.deploy(trigger)
        name = harness.fire(trigger)
        run = harness.tick("1h")[-1]
        assert (run.name, run.phase) == (name, "SUCCEEDED")
        assert [attempt.phase for attempt in run.attempts] == ["FAILED", "SUCCEEDED"]
        assert said in str(run.attempts[0].error)
        assert harness.client.run_output(name)[0]["output"] == "so far"


def test_a_task_cancelled_within_the_code_is_no_cancel_of_the_run() -> None:
    with Harness(Raises(_cancelled_from_within)) as harness:
        trigger = Trigger(**KEY)
        harness.deploy(trigger)
        harness.fire(trigger)
        (run,) = harness.tick()
        assert (run.phase, run.lost) == ("FAILED", 0)
        assert "nobody had cancelled it" in str(run.error)


def test_the_error_says_where_the_code_ended() -> None:
    with (
        pytest.raises(RetryableError, match=r"its code raised SystemExit: 3 \(.*test_containing\.py:\d+\)"),
        contained(),
    ):
        sys.exit(3)


def test_a_cancellation_of_the_task_passes() -> None:
    async def main() -> None:
        async def code() -> None:
            with contained():
                await asyncio.sleep(60)

        task = asyncio.ensure_future(code())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await code()

    asyncio.run(main())


def test_tasks_that_the_code_makes_do_not_end_the_loop_either() -> None:
    async def ends() -> None:
        sys.exit(5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with tasks_contained(loop):
            with contained():
                stray = asyncio.ensure_future(ends())
                gathered = await asyncio.gather(ends(), asyncio.sleep(0, "fine"), return_exceptions=True)
            assert "SystemExit: 5" in str(stray.exception())
            assert isinstance(gathered[0], RetryableError)
            assert gathered[1] == "fine"
        assert loop.get_task_factory() is None

    asyncio.run(main())
