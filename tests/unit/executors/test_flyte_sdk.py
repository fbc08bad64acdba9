"""`flyte_sdk`: connectors of Flyte's SDK in this process, called as a connector server calls them.

Skipped where the SDK is not installed; tests/e2e/test_flyte_connectors.py runs this file in an environment that has it.
"""

from __future__ import annotations

import asyncio
import enum
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

flyte_connectors = pytest.importorskip("flyte.connectors", reason="Flyte's SDK is not installed here")

from flyte.connectors import AsyncConnector, ConnectorRegistry, Resource, ResourceMeta  # noqa: E402
from flyte.connectors._connector import ConnectorSecretsMixin  # noqa: E402
from flyteidl2.connector import connector_pb2  # noqa: E402
from flyteidl2.core.execution_pb2 import TaskExecution, TaskLog  # noqa: E402
from flyteidl2.logs.dataplane import payload_pb2  # noqa: E402

from executors import Job, JobPhase, Link, PermanentError, RetryableError, RunContext  # noqa: E402
from executors.errors import ExecutorConfigError  # noqa: E402
from executors.flyte.sdk import FlyteSdkExecutor  # noqa: E402
from executors.registry import build  # noqa: E402
from tests.unit.executors.worlds import cancel, eventually, make_run, raised  # noqa: E402

SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
SECRET = "s3cr3t-of-the-service"


@dataclass
class Meta(ResourceMeta):
    job_id: str
    size: int = 1


class Batch(ConnectorSecretsMixin, AsyncConnector):  # type: ignore[misc]
    """Keeps what it is called with, and answers `resource`."""

    name = "Batch"
    task_type_name = "batch_job"
    metadata_type = Meta

    def __init__(self, **secrets: str) -> None:
        super().__init__(secrets)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.resource: Any = Resource(phase=TaskExecution.RUNNING)
        self.error: Exception | None = None

    async def create(self, task_template: Any, output_prefix: str, inputs: Any = None, **kwargs: Any) -> Meta:
        self._note("create", task_template=task_template, output_prefix=output_prefix, inputs=inputs, **kwargs)
        return Meta("7")

    async def get(self, resource_meta: Meta, **kwargs: Any) -> Resource:
        self._note("get", resource_meta=resource_meta, **kwargs)
        return self.resource

    async def delete(self, resource_meta: Meta, **kwargs: Any) -> None:
        self._note("delete", resource_meta=resource_meta, **kwargs)

    def _note(self, method: str, **named: Any) -> None:
        self.calls.append((method, {**named, "thread": threading.current_thread().name}))
        if self.error is not None:
            raise self.error


class Logging(Batch):
    task_type_name = "logging"

    async def get_logs(self, resource_meta: Meta, **kwargs: Any) -> Any:
        for part in (["one", "two"], ["three"]):
            lines = [payload_pb2.LogLine(message=line) for line in part]
            yield connector_pb2.GetTaskLogsResponse(body=connector_pb2.GetTaskLogsResponseBody(lines=lines))


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectorRegistry, "_REGISTRY", {})
    monkeypatch.setattr(ConnectorRegistry, "_METADATA", {})


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Batch:
    monkeypatch.setenv("EXTERNAL_SERVICE_API_KEY", SECRET)
    connector = Batch(my_api_key="EXTERNAL_SERVICE_API_KEY")
    ConnectorRegistry.register(connector)
    return connector


@pytest.fixture
def executor() -> Iterator[FlyteSdkExecutor]:
    executor = FlyteSdkExecutor({"output_prefix": "s3://bucket"})
    yield executor
    asyncio.run(executor.close())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("connector ")]


def run_of(executor: FlyteSdkExecutor, config: dict[str, Any] | None = None, **members: Any) -> RunContext:
    return make_run(executor, {"type": "batch_job", **(config or {})}, **members)


def status_of(executor: FlyteSdkExecutor, connector: Batch, resource: Any) -> Any:
    connector.resource = resource
    job = Job({"text": '{"job_id": "7", "size": 1}'}, "batch_job:7")
    return asyncio.run(executor.status(run_of(executor), job))


def test_a_connector_is_called_as_a_server_calls_it(executor: FlyteSdkExecutor, connector: Batch) -> None:
    config = {"custom": {"timeout": 300}, "interface": {"inputs": {"span": "timedelta"}}}
    run = run_of(
        executor,
        config,
        inputs={"val": 42, "span": 90, "when": "2026-11-21T02:00:00Z"},
        kickoff_input="when",
        key="k-2",
    )

    async def work() -> Job:
        job = await executor.create(run)
        await executor.status(run, job)
        await executor.delete(run, job)
        return job

    job = asyncio.run(work())
    assert (job.job_id, executor.shown_id(job)) == ("batch_job:7", "7")
    (_, create), (_, get), (_, delete) = connector.calls
    assert create["inputs"] == {"val": 42, "span": timedelta(seconds=90), "when": SLOT}
    assert (create["task_template"].type, dict(create["task_template"].custom)) == ("batch_job", {"timeout": 300.0})
    assert create["output_prefix"] == "s3://bucket/k-2"
    execution = create["task_execution_metadata"].task_execution_id.node_execution_id.execution_id
    assert execution.name == "k-2"
    for call in (create, get, delete):
        assert call["my_api_key"] == SECRET
        assert call["thread"] == "connector batch_job"
    assert get["resource_meta"] == delete["resource_meta"] == Meta("7")
    assert SECRET not in f"{job} {run}"


def test_secrets_of_the_settings_and_of_the_task_go_first(executor: FlyteSdkExecutor, connector: Batch) -> None:
    config = {"secrets": {"other": "OTHER_KEY"}, "custom": {"secrets": {"third": "THIRD_KEY"}}}
    secrets = {"my_api_key": "declared", "OTHER_KEY": "by variable", "THIRD_KEY": "by custom"}
    asyncio.run(executor.create(run_of(executor, config, secrets=secrets)))
    call = connector.calls[0][1]
    assert (call["my_api_key"], call["other"], call["third"]) == ("declared", "by variable", "by custom")
    error = asyncio.run(raised(executor.create(run_of(executor, config))))
    assert isinstance(error, RetryableError)
    assert "is missing: the environment variable" in str(error)


def test_an_error_that_holds_a_secret_is_told_without_it(executor: FlyteSdkExecutor, connector: Batch) -> None:
    connector.error = ValueError(f"401 for {SECRET}")
    error = asyncio.run(raised(executor.create(run_of(executor))))
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert "401 for ***" in str(error)
    assert SECRET not in str(error)
    connector.error = ValueError("no rows")
    assert asyncio.run(raised(executor.create(run_of(executor)))) is connector.error


@pytest.mark.parametrize(
    ("phase", "means"),
    [
        (TaskExecution.QUEUED, JobPhase.QUEUED),
        (TaskExecution.WAITING_FOR_RESOURCES, JobPhase.QUEUED),
        (TaskExecution.INITIALIZING, JobPhase.INITIALIZING),
        (TaskExecution.RUNNING, JobPhase.RUNNING),
        (TaskExecution.SUCCEEDED, JobPhase.SUCCEEDED),
        (TaskExecution.FAILED, JobPhase.FAILED),
        (TaskExecution.RETRYABLE_FAILED, JobPhase.RETRYABLE_FAILED),
        (TaskExecution.ABORTED, JobPhase.ABORTED),
    ],
)
def test_phases_links_and_custom_info_are_translated(
    executor: FlyteSdkExecutor, connector: Batch, phase: Any, means: JobPhase
) -> None:
    resource = Resource(phase, f"by {SECRET}", [TaskLog(name="log", uri="https://x/1")], {"n": 1}, {"rows": [3]})
    status = status_of(executor, connector, resource)
    assert (status.phase, status.message, status.links) == (means, "by ***", (Link("log", "https://x/1"),))
    assert (status.outputs, status.custom) == ({"n": 1}, {"rows": [3]})
    assert status.phase.is_over is (means.value in {"SUCCEEDED", "FAILED", "RETRYABLE_FAILED", "ABORTED"})


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    at: datetime


def test_outputs_of_every_kind_become_json(executor: FlyteSdkExecutor, connector: Batch) -> None:
    from flyte.io import File

    outputs = {
        "list": [1, 2.5, None, {"a": (1, 2)}],
        "span": timedelta(seconds=90),
        "when": SLOT,
        "colour": Colour.RED,
        "point": Point(1, SLOT),
        "raw": b"\0\1",
        "nan": float("nan"),
        "set": {3},
        "file": File(path="s3://bucket/f"),
    }
    status = status_of(executor, connector, Resource(TaskExecution.SUCCEEDED, outputs=outputs))
    assert status.phase is JobPhase.SUCCEEDED
    assert status.outputs == {
        "list": [1, 2.5, None, {"a": [1, 2]}],
        "span": 90,
        "when": "2026-11-21T02:00:00Z",
        "colour": "red",
        "point": {"x": 1, "at": "2026-11-21T02:00:00Z"},
        "raw": {"base64": "AAE=", "tag": ""},
        "nan": "nan",
        "set": [3],
        "file": {"uri": "s3://bucket/f"},
    }


def test_outputs_that_are_literals_already_become_json(executor: FlyteSdkExecutor, connector: Batch) -> None:
    from flyteidl2.core import literals_pb2

    three = literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=3)))
    resource = Resource(TaskExecution.SUCCEEDED, outputs=literals_pb2.LiteralMap(literals={"n": three}))
    assert status_of(executor, connector, resource).outputs == {"n": 3}


def test_outputs_that_cannot_be_stored_end_the_run_and_not_the_worker(
    executor: FlyteSdkExecutor, connector: Batch
) -> None:
    status = status_of(executor, connector, Resource(TaskExecution.SUCCEEDED, outputs={"x": object()}))
    assert (status.phase, status.retryable) == (JobPhase.FAILED, False)
    assert status.message == (
        "what the job left cannot be stored: "
        "outputs.x is a object, which JSON does not have: make it a text, a number, a list or a mapping"
    )
    status = status_of(executor, connector, Resource(TaskExecution.SUCCEEDED, outputs=[1]))
    assert "outputs is a list, not a mapping" in status.message


@pytest.mark.parametrize("resource", [None, "RUNNING", Resource(TaskExecution.UNDEFINED), Resource(99)])
def test_what_is_no_resource_is_no_answer(executor: FlyteSdkExecutor, connector: Batch, resource: Any) -> None:
    with pytest.raises(RetryableError, match="something else than a Resource"):
        status_of(executor, connector, resource)


def test_metadata_that_this_version_cannot_read_is_left_to_another(
    executor: FlyteSdkExecutor, connector: Batch
) -> None:
    error = asyncio.run(raised(executor.status(run_of(executor), Job({"text": '{"size": "x"}'}, ""))))
    assert isinstance(error, RetryableError)
    assert "cannot read the metadata of its job" in str(error)


def test_logs_are_told_where_the_connector_has_them(executor: FlyteSdkExecutor, connector: Batch) -> None:
    ConnectorRegistry.register(Logging())

    async def work() -> list[str | None]:
        found = []
        for kind in ("batch_job", "logging"):
            run = run_of(executor, {"type": kind})
            found.append(await executor.logs(run, await executor.create(run)))
        return found

    assert asyncio.run(work()) == [None, "one\ntwo\nthree\n"]


def test_an_unknown_type_is_final_before_there_is_a_job_and_not_after(
    executor: FlyteSdkExecutor, connector: Batch
) -> None:
    run = run_of(executor, {"type": "batch_jbo"})
    error = asyncio.run(raised(executor.create(run)))
    assert isinstance(error, PermanentError)
    assert str(error) == "there is no connector for the task type 'batch_jbo', version 0 (did you mean batch_job?)"
    assert isinstance(asyncio.run(raised(executor.status(run, Job({"text": "{}"})))), RetryableError)


def test_a_connector_that_blocks_does_not_hold_up_the_loop_of_the_worker(
    executor: FlyteSdkExecutor, connector: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blocking(resource_meta: Meta, **kwargs: Any) -> Resource:
        time.sleep(0.5)  # as many connectors do
        return Resource(TaskExecution.RUNNING)

    monkeypatch.setattr(connector, "get", blocking)

    async def work() -> float:
        looking = asyncio.ensure_future(executor.status(run_of(executor), Job({"text": '{"job_id": "7"}'}, "7")))
        worst = 0.0
        while not looking.done():
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - began)
        await looking
        return worst

    assert asyncio.run(work()) < 0.3


def test_a_cancelled_call_is_cancelled_where_it_runs(
    executor: FlyteSdkExecutor, connector: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def waiting(resource_meta: Meta, **kwargs: Any) -> Resource:
        seen.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")
        return Resource(TaskExecution.RUNNING)

    monkeypatch.setattr(connector, "get", waiting)

    async def work() -> bool:
        looking = asyncio.ensure_future(executor.status(run_of(executor), Job({"text": '{"job_id": "7"}'}, "7")))
        await eventually(lambda: seen)
        cancelled = await cancel(looking)
        await eventually(lambda: "ended" in seen)
        return cancelled

    assert asyncio.run(work())


def test_modules_that_cannot_be_imported_are_said_when_the_executor_is_made(tmp_path: Path) -> None:
    (tmp_path / "broken_connector.py").write_text("raise RuntimeError('not today')\n")
    with pytest.raises(ExecutorConfigError) as error:
        build("inproc", "flyte_sdk", {"modules": ["nowhere_to_be_found", "broken_connector"], "path": [str(tmp_path)]})
    assert "options.modules[0]: nowhere_to_be_found: ModuleNotFoundError" in str(error.value)
    assert "options.modules[1]: broken_connector: RuntimeError: not today" in str(error.value)


def test_making_it_leaves_the_process_as_it_was() -> None:
    script = (
        "import signal, sys\n"
        "from executors.registry import build\n"
        "before = sys.excepthook, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)\n"
        "build('inproc', 'flyte_sdk')\n"
        "assert before == (sys.excepthook, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
