"""The kit that users test their executors with, and the page about it: every snippet runs."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executors import Failed, RunContext, ShellExecutor, Succeeded
from scheduler import CatchUp, ConfigError, Cron, FixedRate, NotFound, RetryPolicy, Trigger
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.services.operate import TriggerKey
from scheduler.testing import Attempt, Harness, ManualClock, Ran, RecordingExecutor, Skipped

PAGE = Path(__file__).parents[2] / "docs" / "testing-executors.md"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def hourly(name: str = "hourly", *, task: str = "report", **options: Any) -> Trigger:
    options = {"automation": Cron("0 * * * *"), **options}
    return Trigger(project="p", domain="d", task=task, name=name, **options)


def hours(*wanted: int) -> list[datetime]:
    return [NEW_YEAR + timedelta(hours=hour) for hour in wanted]


# --- the page --------------------------------------------------------------------------------------------------------


def _page_tests() -> list[Any]:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(block, namespace)
    return [pytest.param(value, id=name) for name, value in namespace.items() if name.startswith("test_")]


@pytest.mark.parametrize("test", _page_tests())
def test_the_page_shows_what_works(test: Any, tmp_path: Path) -> None:
    test(**dict.fromkeys(inspect.signature(test).parameters, tmp_path))


# --- the clock -------------------------------------------------------------------------------------------------------


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock()
    assert (clock.time, clock.now()) == (NEW_YEAR, clock.now())
    clock.advance("1h30m")
    clock.advance(timedelta(minutes=-30))
    assert clock.time == NEW_YEAR + timedelta(hours=1)
    clock.set(NEW_YEAR)
    clock.set("2025-12-31T23:00:00+01:00")
    assert clock.time == NEW_YEAR - timedelta(hours=2)


def test_a_manual_clock_refuses_an_instant_without_a_zone() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        ManualClock(datetime(2026, 1, 1))


# --- the recording executor ------------------------------------------------------------------------------------------


def test_a_recording_executor_asks_a_callable_for_each_outcome() -> None:
    async def answer(run: RunContext) -> Failed | Succeeded:
        return Failed("odd") if run.scheduled_at and run.scheduled_at.hour % 2 else Succeeded({"even": True})

    with Harness(RecordingExecutor(answer)) as harness:
        harness.deploy(hourly())
        ended = harness.tick("2h")
    assert [(run.phase, run.error, run.outputs) for run in ended] == [
        ("FAILED", "odd", None),
        ("SUCCEEDED", None, {"even": True}),
    ]


def test_waiting_for_executions_gives_up_after_a_time() -> None:
    executor = RecordingExecutor()
    with pytest.raises(TimeoutError, match="0 executions after 0:00:00, not 1"):
        executor.wait_for(1, timedelta(0))
    threading.Thread(target=lambda: asyncio.run(executor.execute(RunContext("one")))).start()
    assert [run.run_name for run in executor.wait_for(1)] == ["one"]


# --- the harness -----------------------------------------------------------------------------------------------------


def test_each_slot_fires_at_its_own_instant_however_long_the_tick() -> None:
    executor = RecordingExecutor()
    seen: list[datetime] = []
    with Harness(executor) as harness:
        executor._answer = lambda run: seen.append(run.now())
        harness.deploy(hourly(), hourly("half", automation=Cron("30 * * * *")))
        ended = harness.tick("2h")
        assert harness.clock.time == NEW_YEAR + timedelta(hours=2)
    assert seen == [NEW_YEAR + timedelta(minutes=minutes) for minutes in (30, 60, 90, 120)]
    assert [(run.scheduled_at, run.started_at, run.finished_at) for run in ended] == [(at, at, at) for at in seen]


def test_a_tick_without_duration_does_what_is_due_now() -> None:
    with Harness(RecordingExecutor()) as harness:
        harness.deploy(hourly())
        assert harness.tick() == []
        harness.clock.advance("1h")
        assert [run.scheduled_at for run in harness.tick()] == hours(1)


def test_slots_tell_what_ran_and_what_was_skipped() -> None:
    with Harness(RecordingExecutor()) as harness:
        harness.deploy(hourly(catchup=CatchUp(max_runs=1)))
        harness.clock.advance("4h30m")
        (run,) = harness.tick()
        assert harness.slots("hourly") == [
            Skipped(*hours(1, 3), count=3, reason="catchup_cap"),
            Ran(*hours(4), run=run.name, phase="SUCCEEDED"),
        ]


def test_a_retry_happens_when_its_wait_is_over() -> None:
    executor = RecordingExecutor([Failed("first"), Failed("second", retry_after=timedelta(minutes=10))])
    with Harness(executor) as harness:
        harness.deploy(hourly(retries=RetryPolicy(max_attempts=3, initial=timedelta(0))))
        (run,) = harness.tick("1h15m")
    assert run.attempts == (
        Attempt(1, "FAILED", "first"),
        Attempt(2, "FAILED", "second"),
        Attempt(3, "SUCCEEDED", None),
    )
    assert run.finished_at == NEW_YEAR + timedelta(hours=1, minutes=10)


def test_a_retry_that_waits_is_not_among_the_ended() -> None:
    with Harness(RecordingExecutor([Failed("first")])) as harness:
        harness.deploy(hourly(retries=RetryPolicy(max_attempts=2, initial=timedelta(minutes=10))))
        assert harness.tick("1h") == []
        assert [run.phase for run in harness.runs()] == ["QUEUED"]
        assert [run.phase for run in harness.tick("15m")] == ["SUCCEEDED"]


def test_a_crash_leaves_the_run_to_another_worker_under_the_same_key() -> None:
    executor = RecordingExecutor()
    with Harness(executor, lease="2m") as harness:
        harness.deploy(hourly())
        harness.crash()
        (run,) = harness.tick("1h30m")
    assert [context.key for context in executor.executions] == [run.name, run.name]
    assert (run.lost, run.attempt) == (1, 1)
    assert run.started_at is not None
    assert run.started_at > NEW_YEAR + timedelta(hours=1, minutes=2)


def test_a_run_that_is_lost_too_often_ends_failed() -> None:
    with Harness(RecordingExecutor(), max_lost=2) as harness:
        harness.deploy(hourly())
        harness.crash()
        harness.tick("1h")
        harness.crash()
        (run,) = harness.tick("30m")
    assert (run.phase, run.error) == ("FAILED", "lost its worker 2 times")


def test_what_a_crashed_worker_held_besides_is_executed_too() -> None:
    executor = RecordingExecutor()
    with Harness(executor) as harness:
        harness.deploy(hourly("a"), hourly("b"), hourly("c"))
        harness.crash()
        ended = harness.tick("1h30m")
    assert sorted(run.trigger or "" for run in ended) == ["a", "b", "c"]
    assert len(executor.executions) == 4


def test_an_executor_may_let_time_pass_while_it_works() -> None:
    executor = RecordingExecutor(lambda run: harness.clock.advance("50m"))
    with Harness(executor) as harness:
        harness.deploy(hourly())
        ended = harness.tick("2h")
        assert [run.scheduled_at for run in ended] == hours(1, 2)
        assert harness.clock.time == NEW_YEAR + timedelta(hours=2, minutes=50)


def test_a_paused_trigger_owes_nothing_until_it_is_activated() -> None:
    with Harness(RecordingExecutor()) as harness:
        trigger = hourly()
        harness.deploy(trigger)
        harness.deactivate(trigger)
        assert harness.tick("2h30m") == []
        harness.activate("report/hourly")
        assert [run.scheduled_at for run in harness.tick("1h")] == hours(3)


def test_a_run_fired_by_hand_gets_its_inputs() -> None:
    executor = RecordingExecutor()
    with Harness(executor) as harness:
        harness.deploy(hourly(automation=None, inputs={"region": "eu", "size": 1}))
        name = harness.fire("hourly", {"size": 2})
        assert [run.name for run in harness.tick()] == [name]
    assert executor.executions[0].inputs == {"region": "eu", "size": 2}
    assert executor.slots == [None]


def test_deploying_a_task_again_replaces_its_triggers() -> None:
    with Harness(RecordingExecutor()) as harness:
        harness.deploy(hourly("a"), hourly("b"), hourly("c", task="other"))
        harness.deploy(hourly("b"))
        assert sorted(run.trigger or "" for run in harness.tick("1h")) == ["b", "c"]


def test_a_task_definition_may_be_deployed_as_manifests_are() -> None:
    spec = TaskSpec("shell", config={"command": ["echo", "{inputs.word}"]}, inputs={"word": "hello"})
    definition = TaskDefinition("p", "d", "greet", "v1", spec, (TriggerSpec("steady", FixedRate(1, "hour")),))
    with Harness(executors={"shell": ShellExecutor(), "other": RecordingExecutor()}) as harness:
        harness.deploy(definition)
        (run,) = harness.tick("1h")
    assert (run.phase, run.version) == ("SUCCEEDED", "v1")


def test_a_deploy_that_no_executor_could_run_is_refused() -> None:
    with Harness(RecordingExecutor()) as harness:
        with pytest.raises(ConfigError, match="'mail' is not one of the given executors"):
            harness.deploy(TaskDefinition("p", "d", "greet", "v1", TaskSpec("mail")))
        with pytest.raises(ConfigError, match="'mail' is not one of the given executors"):
            harness.deploy(hourly(executor="mail"))


def test_a_trigger_may_be_named_in_short_where_only_one_is_meant() -> None:
    with Harness(RecordingExecutor()) as harness:
        harness.deploy(hourly("same", task="a"), hourly("same", task="b"))
        key = TriggerKey("p", "d", "a", "same")
        assert [harness.key(name) for name in ("a/same", "p/d/a/same", key)] == [key] * 3
        with pytest.raises(NotFound, match="only one trigger 'same'"):
            harness.key("same")
        with pytest.raises(NotFound, match="trigger 'none'"):
            harness.key("none")


def test_runs_of_one_trigger_are_told_apart() -> None:
    with Harness(RecordingExecutor()) as harness:
        harness.deploy(hourly("a"), hourly("b"))
        harness.tick("2h")
        assert [run.trigger for run in harness.runs()].count("a") == 2
        assert [run.scheduled_at for run in harness.runs("a")] == hours(1, 2)


def test_a_harness_leaves_nothing_behind() -> None:
    with Harness(RecordingExecutor()) as harness:
        folder = harness._folder
        assert folder is not None
        assert folder.exists()
    assert not folder.exists()


def test_a_harness_needs_an_executor() -> None:
    with pytest.raises(TypeError, match="needs an executor"):
        Harness()


@pytest.mark.postgres
def test_a_harness_works_on_postgresql(empty_postgres_url: str) -> None:
    with Harness(RecordingExecutor([Failed("first")]), database=empty_postgres_url) as harness:
        harness.deploy(hourly(retries=RetryPolicy(max_attempts=2)))
        harness.crash()
        # The first outcome is lost with its worker.
        assert [(run.phase, run.lost) for run in harness.tick("2h30m")] == [("SUCCEEDED", 1), ("SUCCEEDED", 0)]
