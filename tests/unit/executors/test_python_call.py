"""Calling functions: in a fresh process, in a thread, on the worker's event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executors import Failed, PermanentError, PythonExecutor, RetryableError, RunContext, Succeeded
from executors.registry import check_config
from tests.unit.executors.worlds import alive, cancel, eventually, make_run, perform, printed

HERE = "tests.unit.executors.functions"
SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
EVERYWHERE = pytest.mark.parametrize("place", [{"in": "process"}, {"in": "thread"}], ids=["process", "thread"])


def call(function: str, inputs: dict[str, Any] | None = None, **config: Any) -> tuple[PythonExecutor, RunContext]:
    executor = PythonExecutor()
    path = function if ":" in function else f"{HERE}:{function}"
    return executor, make_run(executor, {"callable": path, **config}, inputs=inputs or {})


def called(function: str, inputs: dict[str, Any] | None = None, **config: Any) -> Any:
    """The outcome of a call, or the error it raised."""
    executor, run = call(function, inputs, **config)
    try:
        return asyncio.run(perform(executor, run))
    except (RetryableError, PermanentError) as error:
        return error


@EVERYWHERE
def test_inputs_are_keywords_and_a_mapping_is_the_outputs_and_prints_are_kept(place: dict[str, Any]) -> None:
    executor, run = call("greet", {"name": "you"}, **place)
    assert asyncio.run(perform(executor, run)) == Succeeded({"said": "hello you"})
    assert run.output.text() == "hello you\nto stderr\n"


@EVERYWHERE
def test_the_tasks_own_arguments_are_put_over_the_inputs(place: dict[str, Any]) -> None:
    outcome = called("greet", {"name": "you", "greeting": "hi"}, args={"greeting": "bye"}, **place)
    assert outcome == Succeeded({"said": "bye you"})


@EVERYWHERE
@pytest.mark.parametrize(
    ("what", "outputs"), [("none", {}), ("number", {"result": 3}), ("list", {"result": [1, [2, "x"]]})]
)
def test_what_is_no_mapping_becomes_a_result(what: str, outputs: dict[str, Any], place: dict[str, Any]) -> None:
    assert called("give", {"what": what}, **place) == Succeeded(outputs)


@EVERYWHERE
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("set", "returned what cannot be stored as JSON: it is a set"),
        ("nested", "returned what cannot be stored as JSON: result.a[0].b is a object"),
        ("keys", "returned what cannot be stored as JSON: result has the key 1"),
    ],
)
def test_a_result_that_is_no_json_fails_for_good(what: str, reason: str, place: dict[str, Any]) -> None:
    error = called("give", {"what": what}, **place)
    assert isinstance(error, PermanentError)
    assert reason in str(error)


@EVERYWHERE
def test_a_parameter_named_run_gets_a_light_context(place: dict[str, Any]) -> None:
    executor = PythonExecutor()
    run = make_run(
        executor,
        {"callable": f"{HERE}:describe_run", **place},
        key="nightly-1-2",
        attempt=3,
        scheduled_at=SLOT,
        covers=(SLOT - timedelta(hours=1), SLOT),
        secrets={"api": "tok-123"},
    )
    assert asyncio.run(perform(executor, run)) == Succeeded(
        {
            "name": "nightly-1",
            "key": "nightly-1-2",
            "attempt": 3,
            "at": "2026-11-21 02:00:00+00:00",
            "covers": ["2026-11-21 01:00:00+00:00", "2026-11-21 02:00:00+00:00"],
            "secret": "tok-123",
        }
    )


@EVERYWHERE
def test_objects_with_a_call_and_nested_functions_can_be_called(place: dict[str, Any]) -> None:
    assert called("report", {"region": "eu"}, **place) == Succeeded({"result": "report of eu"})
    assert called("Report.Inner.build", **place) == Succeeded({"result": "built"})


@EVERYWHERE
@pytest.mark.parametrize(
    ("function", "inputs", "reason"),
    [
        ("nowhere.at:all", {}, "nowhere.at:all: there is no module 'nowhere' on this worker's path"),
        ("absent", {}, "has no 'absent'"),
        ("NUMBER", {}, "is a int, which cannot be called"),
        ("greet", {}, "cannot be called with these inputs: missing a required argument: 'name'"),
        (
            "greet",
            {"name": "x", "nam": "y"},
            "cannot be called with these inputs: got an unexpected keyword argument 'nam'",
        ),
    ],
)
def test_what_cannot_be_called_fails_for_good(
    function: str, inputs: dict[str, Any], reason: str, place: dict[str, Any]
) -> None:
    error = called(function, inputs, **place)
    assert isinstance(error, PermanentError)
    assert reason in str(error)


@EVERYWHERE
def test_errors_of_ours_mean_what_they_say_wherever_they_are_raised(place: dict[str, Any]) -> None:
    error = called("fail", {"how": "retryable"}, **place)
    assert isinstance(error, RetryableError)
    assert (str(error), error.retry_after, error.outcome_known) == ("try later", timedelta(seconds=90), False)
    error = called("fail", {"how": "permanent"}, **place)
    assert isinstance(error, PermanentError)
    assert str(error) == "never again"


@EVERYWHERE
def test_any_other_exception_is_retryable_with_the_traceback_of_the_users_code(place: dict[str, Any]) -> None:
    outcome = called("fail", {"how": "so"}, **place)
    assert isinstance(outcome, Failed)
    assert outcome.retryable
    assert outcome.error.rstrip().endswith("ValueError: wrong: so")
    assert "functions.py" in outcome.error
    assert "python_call.py" not in outcome.error
    assert "python_child.py" not in outcome.error


@EVERYWHERE
def test_an_exception_that_cannot_be_printed_is_still_an_error(place: dict[str, Any]) -> None:
    assert "UnprintableError" in called("fail", {"how": "unprintable"}, **place).error


@EVERYWHERE
def test_leaving_by_sys_exit_is_success_or_failure_by_its_code(place: dict[str, Any]) -> None:
    assert called("fail", {"how": "exit 0"}, **place) == Succeeded({})
    error = called("fail", {"how": "exit"}, **place)
    assert isinstance(error, RetryableError)
    assert str(error) == "the function called sys.exit: exit code 4"


def test_a_process_that_vanishes_is_a_failure() -> None:
    assert called("fail", {"how": "os exit"}).error == f"exit code 5 before {HERE}:fail returned"
    assert called("fail", {"how": "signal"}).error == f"killed by SIGKILL before {HERE}:fail returned"


def test_a_sync_function_has_a_process_of_its_own_and_nothing_on_stdin() -> None:
    first, second = called("where").outputs, called("where").outputs
    assert len({os.getpid(), first["pid"], second["pid"]}) == 3
    assert first["stdin"] == ""


def test_inputs_and_results_may_be_large() -> None:
    inputs = {"text": "ü" * 1_000_000, "rows": [[n, str(n)] for n in range(20_000)]}
    assert called("echo", inputs) == Succeeded(inputs)


def test_the_newest_code_on_disk_is_called(tmp_path: Path) -> None:
    executor = PythonExecutor(path=[str(tmp_path)])

    async def scene() -> None:
        for number in (1, 22):
            (tmp_path / "changing_module.py").write_text(f"def answer():\n    return {number}\n")
            run = make_run(executor, {"callable": "changing_module:answer"})
            assert await executor.execute(run) == Succeeded({"result": number})
        await executor.close()

    asyncio.run(scene())


def test_a_module_that_breaks_at_import_leaves_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "breaking_module.py").write_text("import no_such_module_at_all\n")
    executor = PythonExecutor(path=[str(tmp_path)])
    outcome = asyncio.run(perform(executor, make_run(executor, {"callable": "breaking_module:x"})))
    assert isinstance(outcome, Failed)
    assert "No module named 'no_such_module_at_all'" in outcome.error
    sys.path.remove(str(tmp_path))


def test_cancelling_ends_the_process_and_lets_it_clean_up(tmp_path: Path) -> None:
    async def scene() -> None:
        executor, run = call("sleep_long", {"told": str(tmp_path / "told")})
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        assert await cancel(task)
        assert not alive(int(run.output.text()))
        assert (tmp_path / "told").read_text() == "cleaned up"
        assert not run.abandoned
        await executor.close()

    asyncio.run(scene())


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    async def scene() -> None:
        executor, run = call("sleep_deaf", kill_after="200ms")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "\n")
        assert await cancel(task)
        assert not alive(int(run.output.text()))
        await executor.close()

    asyncio.run(scene())


def test_an_async_function_runs_on_the_workers_event_loop() -> None:
    executor, run = call("greet_async", {"name": "you"})
    outcome = asyncio.run(perform(executor, run))
    assert outcome == Succeeded({"said": "you", "thread": "MainThread", "pid": str(os.getpid())})
    assert run.output.text() == "hello you\nbye you\n"


def test_an_async_function_may_be_given_a_process_but_no_thread() -> None:
    outcome = called("greet_async", {"name": "you"}, **{"in": "process"})
    assert outcome.outputs["pid"] != str(os.getpid())
    error = called("greet_async", {"name": "you"}, **{"in": "thread"})
    assert isinstance(error, PermanentError)
    assert "is async and runs on the worker's event loop" in str(error)


def test_cancelling_an_async_function_cancels_it() -> None:
    async def scene() -> None:
        executor, run = call("sleep_async")
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "asleep")
        assert await cancel(task)
        assert run.output.text() == "asleep\nwoken\n"
        await executor.close()

    asyncio.run(scene())


def test_an_async_function_that_calls_sys_exit_does_not_end_the_worker() -> None:
    assert called("fail_async", {"how": "exit 0"}) == Succeeded({})
    assert isinstance(called("fail_async", {"how": "exit"}), RetryableError)


def test_a_thread_that_is_cancelled_is_abandoned_and_the_worker_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")

    async def scene() -> None:
        executor, run = call("wait_for", {"gate": str(tmp_path / "gate")}, **{"in": "thread"})
        task = asyncio.ensure_future(executor.execute(run))
        await printed(run, "waiting")
        assert await cancel(task)
        assert run.abandoned
        assert executor.abandoned == 1
        (tmp_path / "gate").write_text("go")
        assert run.still_running is not None
        await run.still_running
        assert not run.abandoned
        await eventually(lambda: executor.abandoned == 0)
        await executor.close()

    asyncio.run(scene())


def test_prints_of_many_calls_at_once_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        executor = PythonExecutor()
        configs = [{"callable": f"{HERE}:greet", "in": "thread"}, {"callable": f"{HERE}:greet_async"}] * 15
        runs = [make_run(executor, config, inputs={"name": str(n)}) for n, config in enumerate(configs)]
        await asyncio.gather(*(executor.execute(run) for run in runs[:2]))
        await asyncio.gather(*(executor.execute(run) for run in runs[2:]))
        for n, run in enumerate(runs):
            assert run.output.text() == (f"hello {n}\nto stderr\n" if n % 2 == 0 else f"hello {n}\nbye {n}\n")
        print("the worker's own")
        await executor.close()

    asyncio.run(scene())
    assert capsys.readouterr().out == "the worker's own\n"


@pytest.mark.parametrize(
    ("config", "path", "reason"),
    [
        ({}, "callable", "is missing"),
        ({"callable": "reports.build"}, "callable", "'reports.build' is no path to a function: write pkg.mod:function"),
        ({"callable": "a:b", "in": "proces"}, "in", "must be process or thread, not 'proces' (did you mean process?)"),
        ({"callable": "a:b", "args": [1]}, "args", "must be a mapping, not a list"),
    ],
)
def test_a_wrong_config_is_refused_with_advice(config: dict[str, Any], path: str, reason: str) -> None:
    assert check_config(PythonExecutor, config) == [(path, reason)]
