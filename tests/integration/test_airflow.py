"""`airflow_trigger` and `airflow_operator` through a real worker, with classes in the shape of Airflow's.

tests/e2e/test_airflow.py does the same with Airflow itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.airflow.operator import AirflowOperatorExecutor
from executors.airflow.trigger import AirflowTriggerExecutor
from executors.errors import ExecutorConfigError, RetryableError
from executors.protocol import RunContext
from executors.registry import build, check_config
from scheduler.domain.retry import RetryPolicy
from tests.integration.waiting_world import WaitingWorld
from tests.pages import ROOT

CONNECTION = '{"conn_type": "http", "password": "s3cr3t-word"}'


class Child:
    """One world with both executors; `world` runs, `trigger` and `operator` are what a task says."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.fired = 0
        options = {"path": [str(ROOT / "tests" / "fakes"), str(folder)], "env": {"AIRFLOW_CONN_X": CONNECTION}}
        executors: dict[str, Any] = {
            "airflow": AirflowTriggerExecutor(options),
            "operators": AirflowOperatorExecutor(options),
        }
        self.executors = executors
        self.world = WaitingWorld(url, executors)

    def trigger(self, name: str, config: dict[str, Any] | None = None, /, **kwargs: Any) -> str:
        """A run that waits for this trigger."""
        told = {"classpath": f"airflow_like.{name}", "kwargs": kwargs, **(config or {})}
        self.fired += 1
        return self.world.fire(f"{name}-{self.fired}", "airflow", told)

    def operator(self, task: str, inputs: dict[str, Any] | None = None, **kwargs: Any) -> str:
        """A run of the operator."""
        told = {"classpath": "airflow_like.Operator", "kwargs": kwargs}
        return self.world.fire(task, "operators", told, inputs=inputs or {}, retries=RetryPolicy(max_attempts=1))

    def ended(self, run: str, phase: str = "SUCCEEDED") -> dict[str, Any]:
        """What the run has come to."""
        self.world.until_phase(run, phase)
        return self.world.run(run)

    def printed(self, run: dict[str, Any]) -> str:
        """What its attempt printed."""
        (attempt,) = self.world.client.run_output(run["name"])
        return str(attempt["output"])

    def notes(self) -> list[str]:
        """What `WhenThere` has noted."""
        file = self.folder / "notes"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    def pids(self) -> list[int]:
        """Where it was."""
        return [int(line.split()[1]) for line in (self.folder / "notes").read_text().splitlines()]


@pytest.fixture(scope="module")
def shared(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("airflow")
    shutil.copy(_sqlite_template, folder / "scheduler.db")
    child = Child(f"sqlite:///{folder / 'scheduler.db'}", folder)
    with child.world:
        yield child


@pytest.fixture
def child(shared: Child, tmp_path: Path) -> Child:
    """The one worker and its two children, shared by tests that leave them as they are."""
    shared.folder = tmp_path
    return shared


def test_events_become_outcomes(child: Child) -> None:
    done = child.ended(child.trigger("Fires", payload={"status": "success", "message": "all is well", "job_id": 5}))
    assert done["event"] == {"status": "success", "message": "all is well", "job_id": 5}
    assert done["outputs"] == {"status": "success", "message": "all is well", "job_id": 5}
    assert "watching" in child.printed(done)
    assert "a second event" not in str(done)

    failed = child.ended(child.trigger("Fires", payload={"status": "error", "message": "no", "run_id": "r1"}), "FAILED")
    assert failed["event"] == {"status": "error", "message": "no", "job_id": "r1"}
    assert '"run_id": "r1"' in child.printed(failed)

    text = child.ended(child.trigger("Fires", payload="just a text"))
    assert text["outputs"] == {"payload": "just a text"}
    assert text["event"]["message"] == "The trigger Fires has fired."

    cancelled = child.ended(child.trigger("Fires", payload={"status": "cancelled"}), "FAILED")
    assert cancelled["event"]["status"] == "cancelled"
    late = child.ended(child.trigger("Fires", payload={"status": "timeout", "message": "too late"}), "TIMED_OUT")
    assert late["event"]["status"] == "timeout"

    own = {"success": ["terminated"], "failed": ["crashed"], "status_key": "state"}
    assert child.ended(child.trigger("Fires", own, payload={"state": "TERMINATED"}))["outputs"] == {
        "state": "TERMINATED"
    }
    odd = child.ended(child.trigger("Fires", own, payload={"state": "lost"}), "FAILED")
    assert "neither in `success` nor in `failed`" in odd["error"]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("nowhere.at.All", {}, f"there is no module 'nowhere' in {sys.executable}: install its package there"),
    ("airflow_like.fires", {}, "has no 'fires': did you mean Fires?"),
    ("airflow_like.Fires", {"sekonds": 1}, "unexpected keyword argument 'sekonds' (it takes payload, seconds)"),
    (
        "airflow_like.Operator",
        {},
        "is no trigger, for it has no serialize() and run(): operators and sensors are for",
    ),
    ("airflow_like.Unkept", {}, "cannot be stored"),
    ("airflow_like.Typed", {"moment": "soon", "pause": "1s", "end_time": 1, "name": "n"}, "'soon' is no time like"),
    ("airflow_like.Silent", {}, "run() of airflow_like.Silent ended without an event"),
    (
        "airflow_like.Raises",
        {"text": "no such connection"},
        "the trigger Raises raised: ValueError: no such connection",
    ),
    ("airflow_like.Leaves", {}, "the trigger Leaves raised: SystemExit: 3"),
]


def test_what_is_wrong_with_a_trigger_is_said(child: Child) -> None:
    runs = [child.trigger(name, {"classpath": name}, **kwargs) for name, kwargs, _ in WRONG]
    for run, (_, _, said) in zip(runs, WRONG, strict=True):
        ended = child.ended(run, "FAILED")
        assert said in ended["error"], ended["error"]
        assert ended["event"]["status"] == "error"


def test_arguments_are_what_the_class_declares(child: Child) -> None:
    kwargs = {"moment": "2026-11-21T02:00:00Z", "pause": "1h30m", "name": "10m"}
    run = child.world.fire(
        "typed", "airflow", {"classpath": "airflow_like.Typed", "kwargs": kwargs, "after": {"end_time": "1h"}}
    )
    assert child.ended(run)["outputs"] == {"payload": ["2026-11-21T02:00:00+00:00", 5400.0, 60, "10m"]}


def test_a_function_makes_the_job_that_is_then_watched(child: Child) -> None:
    told = {"classpath": "airflow_like.Fires", "create": "airflow_like:make_job"}
    run = child.world.fire("makes", "airflow", told, inputs={"region": "eu"})
    done = child.ended(run)
    assert done["outputs"] == {"job_id": f"eu-{run}"}
    assert done["event"]["job_id"] == f"eu-{run}"
    broken = child.world.fire("breaks", "airflow", told, inputs={"region": "nowhere"})
    lost = child.ended(broken, "FAILED")["error"]
    assert lost.startswith(
        "create: airflow_like:make_job raised ConnectionError: the answer was lost (airflow_like.py:"
    )
    assert lost.endswith("in make_job): whether a job was made is unknown, and one may be running")
    unfit = child.world.fire("unfit", "airflow", told, inputs={"colour": "red"})
    error = child.ended(unfit, "FAILED")["error"]
    assert "cannot be called with the run's inputs" in error
    assert "may be running" not in error


def test_the_child_has_its_own_environment_and_nothing_of_ours(child: Child) -> None:
    outputs = child.ended(child.trigger("Modules"))["outputs"]
    assert not {"executors", "scheduler", "sqlalchemy"} & set(outputs["roots"])
    assert outputs["env"]["AIRFLOW_CONN_X"] == CONNECTION
    assert not [name for name in outputs["env"] if name.startswith("SCHEDULER")]
    assert CONNECTION not in " ".join(outputs["argv"])
    assert outputs["pid"] != os.getpid()


def test_secrets_are_hidden_in_errors_and_output(child: Child) -> None:
    ended = child.ended(child.trigger("Tells"), "FAILED")
    assert "refused: ***" in ended["error"]
    assert "the connection is ***" in child.printed(ended)
    assert "s3cr3t" not in str(ended)


def test_garbage_on_every_stream_breaks_nothing(child: Child) -> None:
    assert child.ended(child.trigger("Noisy"))["outputs"] == {"status": "success", "stdin": ""}
    assert child.ended(child.trigger("Fires", payload=1))["outputs"] == {"payload": 1}


def test_triggers_outlive_their_process(child: Child) -> None:
    waiting = child.trigger("WhenThere", file=str(child.folder / "there"))
    child.world.until(lambda: child.notes() == ["began"], "it runs")
    dying = child.trigger("Dies", file=str(child.folder / "died"))
    child.ended(dying)
    child.world.until(lambda: child.notes() == ["began", "began"], "it runs again")
    first, second = child.pids()
    assert first != second
    os.kill(second, signal.SIGKILL)
    child.world.until(lambda: len(child.notes()) == 3, "and again")
    (child.folder / "there").touch()
    done = child.ended(waiting)
    assert done["event"] == {"status": "success", "message": "it is there", "job_id": 7}
    assert (done["attempt"], done["lost"]) == (1, 0)
    assert child.notes() == ["began", "began", "began", "cleaned"]


def test_a_cancel_stops_the_trigger_and_its_job(child: Child) -> None:
    run = child.trigger("WhenThere", file=str(child.folder / "there"))
    child.world.until(lambda: child.notes() == ["began"], "it runs")
    child.world.client.cancel_run(run)
    ended = child.ended(run, "ABORTED")
    assert ended["event"]["status"] == "cancelled"
    assert child.notes() == ["began", "killed", "cleaned"]


def test_another_worker_makes_the_same_trigger_again(sqlite_url: str, tmp_path: Path) -> None:
    first, second = Child(sqlite_url, tmp_path), Child(sqlite_url, tmp_path)
    with first.world:
        run = first.trigger("WhenThere", {"poll_interval": "200ms"}, file=str(tmp_path / "there"))
        first.world.until(lambda: first.notes() == ["began"], "it runs")
    assert first.notes() == ["began", "cleaned"]  # And not killed: its wait goes on.
    with second.world:
        second.world.until(lambda: second.notes()[2:] == ["began"], "it runs again")
    second.world.client.cancel_run(run)
    with Child(sqlite_url, tmp_path).world as third:
        third.until_phase(run, "ABORTED")
    # It never ran there: made again only to be told.
    assert second.notes()[4:] == ["killed", "cleaned"]


def test_an_operator_defers_again_and_again(child: Child) -> None:
    done = child.ended(child.operator("chain", {"region": "eu"}, steps=[{"n": 1}, "two", 3]))
    assert done["outputs"] == {"seen": [{"n": 1}, "two", 3], "pulled": "chain", "xcom": {"began": "chain"}}
    output = child.printed(done)
    assert "{'region': 'eu'}" in output
    assert (
        output.index("execute") < output.index("go_on {'n': 1}") < output.index("go_on two") < output.index("go_on 3")
    )
    assert (done["attempt"], done["lost"]) == (1, 0)
    assert child.ended(child.operator("plain", result=5))["outputs"] == {"result": 5, "xcom": {"began": "plain"}}
    assert child.ended(child.operator("skips", how="skip"))["outputs"]["skipped"] == "nothing to do"
    assert child.ended(child.operator("ends", how="end"))["outputs"] == {"xcom": {"began": "ends"}}
    assert child.ended(child.operator("again", how="reschedule"))["outputs"]["seen"] == []
    failed = child.ended(child.operator("fails", how="raise"), "FAILED")
    assert failed["error"] == "RuntimeError: this time"
    assert "Traceback" in child.printed(failed)
    assert child.ended(child.operator("never", how="fail"), "FAILED")["error"] == "AirflowFailException: never"
    said = child.ended(child.operator("broken", how="trigger fails"), "FAILED")["error"]
    assert "Trigger failure: ValueError: broken" in said
    late = child.ended(child.operator("late", how="timeout", file=str(child.folder / "there")), "FAILED")["error"]
    assert "Trigger timeout" in late
    wrong = child.ended(child.operator("wrong", colour="red"), "FAILED")["error"]
    assert "unexpected keyword argument 'colour'" in wrong


def test_a_cancel_reaches_an_operator_that_waits_and_one_that_works(child: Child) -> None:
    waits = child.operator("waits", how="watch", file=str(child.folder / "there"))
    works = child.operator("works", how="block", file=str(child.folder / "interrupted"))
    child.world.until(lambda: child.notes() == ["began"], "it waits")
    child.world.until_phase(works, "RUNNING")
    for run in (waits, works):
        child.world.client.cancel_run(run)
    for run in (waits, works):
        child.ended(run, "ABORTED")
    child.world.until(lambda: child.notes() == ["began", "killed", "cleaned"], "the trigger is stopped")
    child.world.until((child.folder / "interrupted").exists, "on_kill was called")


def test_an_interpreter_that_is_not_there_or_is_none_is_named(tmp_path: Path) -> None:
    def create(python: str) -> str:
        executor = AirflowTriggerExecutor(python=python)
        config = AirflowTriggerExecutor.Config(classpath="airflow_like.Fires")

        async def once() -> None:
            try:
                await executor.create(RunContext("r-1", config=config))
            finally:
                await executor.close()

        with pytest.raises(RetryableError) as caught:
            asyncio.run(once())
        assert caught.value.outcome_known
        return str(caught.value)

    said = create(str(tmp_path / "no-python"))
    assert f"'{tmp_path}/no-python' cannot be started: No such file or directory" in said
    assert "option `python`" in said
    assert "the Airflow process of /bin/false ended: exit code 1" in create("/bin/false")


def test_floods_and_giants_are_kept_from_the_worker(child: Child) -> None:
    runs = [child.trigger("Floods"), child.trigger("Fires", payload="x" * 5_000_000)]
    flooded, giant = child.ended(runs[0]), child.ended(runs[1], "FAILED")
    printed = child.printed(flooded)
    assert "line 0\n" in printed
    assert "line 29999\n" in printed
    assert "left out" in printed
    assert "larger than 4 MiB" in giant["error"]


@pytest.mark.heavy
def test_an_operator_whose_process_dies_has_failed(sqlite_url: str, tmp_path: Path) -> None:
    child = Child(sqlite_url, tmp_path)
    with child.world:
        run = child.operator("works", how="block", file=str(tmp_path / "never"))
        child.world.until_phase(run, "RUNNING")
        host = child.executors["operators"]._host
        child.world.until(lambda: host.pid is not None and host._child.ready, "it is there")
        os.kill(host.pid, signal.SIGKILL)
        assert "killed by SIGKILL" in child.ended(run, "FAILED")["error"]
        assert child.ended(child.operator("next", result=1))["outputs"]["result"] == 1


@pytest.mark.heavy
def test_modules_that_import_each_other_are_imported_one_after_the_other(sqlite_url: str, tmp_path: Path) -> None:
    for one, other in (("left", "right"), ("right", "left")):
        # As Airflow's modules of old names find those of new ones.
        text = f"import importlib, time\ntime.sleep(0.3)\nimportlib.import_module('{other}')\nfrom airflow_like import Operator\n"
        (tmp_path / f"{one}.py").write_text(text)
    child = Child(sqlite_url, tmp_path)
    with child.world:
        configs = [{"classpath": f"{side}.Operator", "kwargs": {"result": 1}} for side in ("left", "right")]
        runs = [child.world.fire(f"side{number}", "operators", config) for number, config in enumerate(configs)]
        for run in runs:
            child.ended(run)


def test_faults_of_options_and_configs_are_all_told() -> None:
    options: dict[str, Any] = {"python": 3, "path": "/a/folder", "hom": "x"}
    with pytest.raises(ExecutorConfigError) as caught:
        build("airflow", "airflow_trigger", options)
    assert {path for path, _ in caught.value.problems} == {"options.python", "options.path", "options.hom"}
    options = {"env": {"A": "1", "B=": "2"}, "secrets": {"A": "b"}}
    with pytest.raises(ExecutorConfigError) as caught:
        build("airflow", "airflow_operator", options)
    assert [path for path, _ in caught.value.problems] == ["options.env.B=", "options.secrets.A"]

    config = {
        "classpath": "Sensor",
        "kwargs": {"a": 1},
        "after": {"a": "1h"},
        "poll_interval": "0s",
        "success": ["error"],
    }
    faults = [path for path, _ in check_config(AirflowTriggerExecutor, config)]
    assert faults == ["poll_interval", "classpath", "after.a", "failed[0]"]
    assert check_config(AirflowOperatorExecutor, {"kwargs": 1})[0][0] in ("classpath", "kwargs")
