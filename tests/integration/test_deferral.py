"""Runs that executors and functions leave waiting: for an instant, or to be asked again until they are done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executors import (
    Deferred,
    Executor,
    Failed,
    Outcome,
    PermanentError,
    Poll,
    PythonExecutor,
    RunContext,
    Succeeded,
    Until,
)
from scheduler.domain.instants import to_datetime
from scheduler.domain.retry import RetryPolicy
from scheduler.services.cancel import cancel_run
from tests.integration.waiting_world import WaitingWorld, seconds

pytestmark = pytest.mark.heavy

SOON = Poll(timedelta(milliseconds=50), timedelta(seconds=20))
RETRY = RetryPolicy(2, timedelta(milliseconds=10))


class Asked(Executor):
    """Defers every run, and does at each poll what is written next; then it is done."""

    def __init__(self, *plan: Any, first: Outcome | None = None) -> None:
        super().__init__()
        self.plan = list(plan)
        self.first = first or Deferred(SOON, {"n": 0})
        self.states: list[Any] = []
        self.executed: list[RunContext] = []

    async def execute(self, run: RunContext) -> Outcome:
        """Waits at first, and says with what it goes on."""
        self.executed.append(run)
        run.output.write("executed\n")
        return self.first if run.resumed is None else Succeeded({"resumed": run.resumed.state})

    async def poll(self, run: RunContext) -> Outcome:
        """The next thing on the plan."""
        assert run.resumed is not None
        self.states.append(run.resumed.state)
        run.output.write("polled\n")
        if not self.plan:
            return Succeeded({"polls": len(self.states)})
        step = self.plan.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, (Succeeded, Failed, Deferred))
        return step


@contextmanager
def fired(
    url: str, executor: Executor, config: dict[str, Any] | None = None, **options: Any
) -> Iterator[tuple[WaitingWorld, str]]:
    """A world whose one run was fired."""
    with WaitingWorld(url, {"it": executor}) as world:
        yield world, world.fire("task", "it", config, **options)


def output(world: WaitingWorld, name: str) -> str:
    with world.store.read() as tx:
        return str(tx.runs.attempts_of(name)[-1]["output"])


# --- executors ------------------------------------------------------------------------------------------------------


def test_a_run_is_polled_with_the_state_it_left_until_it_is_done(database_url: str) -> None:
    executor = Asked(Deferred(SOON, {"n": 1}), Deferred(SOON, {"n": 2}), Succeeded({"rows": 3}))
    with fired(database_url, executor) as (world, name):
        run = world.until_phase(name, "SUCCEEDED", "FAILED")
        assert (run["outputs"], run["event"]) == ({"rows": 3}, None)
        assert executor.states == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert output(world, name) == "executed\npolled\npolled\npolled\n"
        assert len(executor.executed) == 1
        assert world.wait_of(name) is None


def test_a_run_waits_for_an_instant_and_is_executed_again_with_its_state(database_url: str) -> None:
    executor = Asked()
    with WaitingWorld(database_url, {"it": executor}) as world:
        at = world.client.now() + 1_200_000
        executor.first = Deferred(Until(to_datetime(at)), {"cursor": 7})
        name = world.fire("task", "it")
        assert world.until_phase(name, "DEFERRED")["waiting_for"].startswith("an instant: ")
        assert world.client.list_workers()[0]["running"] == 0
        run = world.until_phase(name, "SUCCEEDED")
        assert run["outputs"] == {"resumed": {"cursor": 7}}
        assert [item["attempt"] for item in run["attempts"]] == [1]
        assert at <= run["finished_at"] < at + 2_000_000
        assert output(world, name) == "executed\nexecuted\n"


def test_an_instant_that_is_past_is_no_wait(sqlite_url: str) -> None:
    executor = Asked(first=Deferred(Until(datetime(2020, 1, 1, tzinfo=UTC)), [1]))
    with fired(sqlite_url, executor) as (world, name):
        assert world.until_phase(name, "SUCCEEDED")["outputs"] == {"resumed": [1]}


def test_a_poll_may_turn_into_a_wait_for_an_instant(sqlite_url: str) -> None:
    executor = Asked()
    with WaitingWorld(sqlite_url, {"it": executor}) as world:
        executor.plan = [Deferred(Until(to_datetime(world.client.now() + 800_000)), "then")]
        name = world.fire("task", "it")
        run = world.until_phase(name, "SUCCEEDED")
        assert run["outputs"] == {"resumed": "then"}
        assert output(world, name) == "executed\npolled\nexecuted\n"


def test_errors_of_a_poll_are_borne_while_its_budget_lasts(sqlite_url: str) -> None:
    executor = Asked(OSError("away"), ValueError("odd"), OSError("away"))
    with fired(sqlite_url, executor) as (world, name):
        assert world.until_phase(name, "SUCCEEDED", "FAILED")["outputs"] == {"polls": 4}


def test_a_poll_whose_budget_is_spent_fails_and_is_tried_again(sqlite_url: str) -> None:
    short = Poll(timedelta(milliseconds=50), timedelta(milliseconds=150))
    executor = Asked(*[OSError("away")] * 2, first=Deferred(short))
    executor.plan += [OSError("away")] * 50
    with fired(sqlite_url, executor, retries=RETRY) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert [item["phase"] for item in run["attempts"]] == ["FAILED", "FAILED"]
        assert run["error"] == "OSError: away"


def test_a_permanent_error_of_a_poll_ends_the_run_at_once(sqlite_url: str) -> None:
    with fired(sqlite_url, Asked(PermanentError("never")), retries=RETRY) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert (len(run["attempts"]), run["error"]) == (1, "never")


def test_an_executor_without_poll_that_defers_with_poll_fails_with_that_reason(sqlite_url: str) -> None:
    class Careless(Executor):
        async def execute(self, run: RunContext) -> Outcome:
            return Deferred(SOON)

    with fired(sqlite_url, Careless()) as (world, name):
        assert "defines no poll()" in world.until_phase(name, "FAILED")["error"]


def test_a_poll_that_never_answers_is_ended_by_the_attempts_timeout(sqlite_url: str) -> None:
    class Silent(Asked):
        async def poll(self, run: RunContext) -> Outcome:
            await asyncio.sleep(60)
            return Succeeded()

    with fired(sqlite_url, Silent(), timeout=seconds(0.8)) as (world, name):
        run = world.until_phase(name, "TIMED_OUT")
        assert run["error"] == "timeout of 0.8 s was over"
        assert output(world, name) == "executed\n"


def test_a_timeout_counts_what_came_before_the_wait(sqlite_url: str) -> None:
    class Slow(Asked):
        async def execute(self, run: RunContext) -> Outcome:
            if run.resumed is not None:
                await asyncio.sleep(60)
            return self.first

    executor = Slow()
    with WaitingWorld(sqlite_url, {"it": executor}) as world:
        executor.first = Deferred(Until(to_datetime(world.client.now() + 900_000)))
        name = world.fire("task", "it", timeout=seconds(1.6))
        run = world.until_phase(name, "TIMED_OUT")
        assert 1_500_000 < run["finished_at"] - run["started_at"] < 3_000_000


@pytest.mark.parametrize("wait", [SOON, Until(datetime(2100, 1, 1, tzinfo=UTC))])
def test_a_cancelled_wait_ends_at_once(sqlite_url: str, wait: Poll | Until) -> None:
    executor = Asked(*[Deferred(SOON)] * 1000, first=Deferred(wait))
    with fired(sqlite_url, executor, retries=RETRY) as (world, name):
        world.until_phase(name, "DEFERRED")
        world.store.run(cancel_run, name, by="anna")
        begun = time.monotonic()
        run = world.until_phase(name, "ABORTED")
        assert time.monotonic() - begun < 4
        assert run["error"] == "cancelled by anna"
        assert world.wait_of(name) is None


def test_polls_go_on_in_the_next_worker(sqlite_url: str) -> None:
    executor = Asked(*[Deferred(SOON, {"n": n}) for n in range(1, 10_000)])
    with fired(sqlite_url, executor) as (world, name):
        world.until(lambda: len(executor.states) > 3, "it is polled")
        world.stop()
        last = len(executor.states)
        world.start()
        world.until(lambda: len(executor.states) > last + 3, "it is polled again")
        # What was left last is what it goes on with: nothing of it was lost with the worker.
        assert executor.states == [{"n": n} for n in range(len(executor.states))]
        executor.plan.clear()
        assert world.until_phase(name, "SUCCEEDED")["lost"] == 0


# --- functions ------------------------------------------------------------------------------------------------------

FUNCTIONS = """
from datetime import UTC, datetime, timedelta

from executors import Deferred, Poll, Until


def until(run):
    print("called")
    if run.resumed is None:
        return Deferred(Until(datetime.now(UTC) + timedelta(seconds=0.3)), {"seen": [1, 2]})
    return {"state": run.resumed.state}


def polls(run, times):
    n = 0 if run.resumed is None else run.resumed.state
    print("call", n)
    if n < times:
        return Deferred(Poll(timedelta(milliseconds=50)), n + 1)
    return n


async def polls_async(run, times):
    return polls(run, times)


def careless():
    return Deferred(Poll(), {1, 2})
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    (tmp_path / "deferring_functions.py").write_text(FUNCTIONS)
    return str(tmp_path)


@pytest.mark.parametrize("place", [{}, {"in": "thread"}])
def test_a_function_that_defers_is_called_again_with_its_state(
    sqlite_url: str, functions: str, place: dict[str, str]
) -> None:
    config = {"callable": "deferring_functions:until", **place}
    with fired(sqlite_url, PythonExecutor(path=[functions]), config) as (world, name):
        run = world.until_phase(name, "SUCCEEDED", "FAILED")
        assert run["outputs"] == {"state": {"seen": [1, 2]}}, run
        assert output(world, name) == "called\ncalled\n"


@pytest.mark.parametrize(
    ("function", "place"),
    [("polls", {}), ("polls", {"in": "thread"}), ("polls_async", {}), ("polls_async", {"in": "process"})],
)
def test_a_function_that_polls_is_called_until_it_returns_something_else(
    sqlite_url: str, functions: str, function: str, place: dict[str, str]
) -> None:
    config = {"callable": f"deferring_functions:{function}", "args": {"times": 2}, **place}
    with fired(sqlite_url, PythonExecutor(path=[functions]), config) as (world, name):
        run = world.until_phase(name, "SUCCEEDED", "FAILED")
        assert run["outputs"] == {"result": 2}, run
        assert output(world, name) == "call 0\ncall 1\ncall 2\n"


def test_a_function_whose_state_is_no_json_fails_with_that_reason(sqlite_url: str, functions: str) -> None:
    config = {"callable": "deferring_functions:careless"}
    with fired(sqlite_url, PythonExecutor(path=[functions]), config) as (world, name):
        run = world.until_phase(name, "FAILED")
        assert "deferring_functions:careless returned what cannot be stored" in run["error"]
