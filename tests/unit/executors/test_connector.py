"""Connectors: registered, found, called with what they take, and their answers made what the worker understands."""

from __future__ import annotations

import asyncio
import enum
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from executors import (
    AsyncConnector,
    AsyncConnectorExecutorMixin,
    ConnectorExecutor,
    ConnectorNotFound,
    ConnectorRegistry,
    ConnectorSecretsMixin,
    ExecutorConfigError,
    Job,
    JobGone,
    JobStatus,
    Link,
    NativeInterface,
    PermanentError,
    Phase,
    Resource,
    ResourceMeta,
    RetryableError,
    SerializationContext,
    Succeeded,
    TaskTemplate,
)
from executors.registry import build, check_config
from tests.unit.executors.worlds import make_run, raised

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
SECRET = "s3cr3t-of-the-service"


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of this test's own, in which nothing was looked for yet."""
    monkeypatch.setattr(ConnectorRegistry, "_connectors", {})
    monkeypatch.setattr(ConnectorRegistry, "_unusable", [])
    monkeypatch.setattr(ConnectorRegistry, "_discovered", False)


@dataclass
class BatchMeta(ResourceMeta):
    job_id: str


class Batch(AsyncConnector[BatchMeta]):
    """A service in memory; `says` is what `get` answers."""

    name = "Batch"
    task_type_name = "batch_job"
    metadata_type = BatchMeta

    def __init__(self, says: Any = None) -> None:
        self.says = says or Resource(Phase.SUCCEEDED)
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.seen: dict[str, Any] = {}

    async def create(
        self,
        task_template: TaskTemplate,
        output_prefix: str,
        inputs: dict[str, Any] | None = None,
        *,
        run_name: str,
        **secrets: Any,
    ) -> BatchMeta:
        self.seen = {"task": task_template, "prefix": output_prefix, "inputs": inputs}
        self.calls.append(("create", run_name, secrets))
        return BatchMeta(f"of-{run_name}")

    async def get(self, resource_meta: BatchMeta, **secrets: Any) -> Resource:
        self.calls.append(("get", resource_meta, secrets))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says  # type: ignore[no-any-return]  # wrong ones are tried, too

    async def delete(self, resource_meta: BatchMeta, **secrets: Any) -> None:
        self.calls.append(("delete", resource_meta, secrets))


def registered(connector: AsyncConnector[Any]) -> ConnectorExecutor:
    ConnectorRegistry.register(connector)
    return ConnectorExecutor()


def status_of(says: Any) -> JobStatus:
    executor = registered(Batch(says))
    run = make_run(executor, {"type": "batch_job"})
    return asyncio.run(executor.status(run, Job({"json": {"job_id": "7"}}, "batch_job:7")))


# --- the registry ----------------------------------------------------------------------------------------------------


def test_a_connector_is_found_by_type_and_version() -> None:
    first, second = Batch(), Batch()
    second.task_type_version = 2
    ConnectorRegistry.register(first)
    ConnectorRegistry.register(second)
    assert ConnectorRegistry.get_connector("batch_job") is first
    assert ConnectorRegistry.get_connector("batch_job", 2) is second
    assert ConnectorRegistry.list_connectors() == [first, second]


def test_a_second_connector_of_the_same_type_and_version_is_refused() -> None:
    first = Batch()
    ConnectorRegistry.register(first)
    with pytest.raises(ValueError, match=r"'batch_job', version 0, has a connector already: .*\.Batch"):
        ConnectorRegistry.register(Batch())
    assert ConnectorRegistry.get_connector("batch_job") is first
    ConnectorRegistry.register(second := Batch(), override=True)
    assert ConnectorRegistry.get_connector("batch_job") is second


def test_an_unknown_type_is_told_with_the_nearest_known_one() -> None:
    ConnectorRegistry.register(Batch())
    with pytest.raises(ConnectorNotFound, match=r"task type 'batch-job', version 0 \(did you mean batch_job\?\)"):
        ConnectorRegistry.get_connector("batch-job")
    with pytest.raises(ValueError, match=r"'batch_job', version 3 \(there is version 0\)"):
        ConnectorRegistry.get_connector("batch_job", 3)


def _without(attribute: str, value: Any = None) -> Batch:
    connector = Batch()
    setattr(connector, attribute, value)
    return connector


@pytest.mark.parametrize(
    ("connector", "reason"),
    [
        (Batch, r"takes a connector, not a class: write Batch\(\)"),
        (object(), "a object is no AsyncConnector"),
        (_without("task_type_name"), "has no task_type_name"),
        (_without("metadata_type", dict), "metadata_type is no class derived from ResourceMeta"),
        (_without("task_type_version", "1"), "task_type_version is no whole number"),
        (_without("get", lambda meta: None), "get must be `async def`"),
    ],
)
def test_what_is_no_complete_connector_is_refused(connector: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        ConnectorRegistry.register(connector)


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three installed distributions that offer connectors: as a module, as a class, and one that is broken."""
    module = (
        "from executors import AsyncConnector, ConnectorRegistry, Resource, ResourceMeta\n"
        "class {name}(AsyncConnector):\n"
        "    task_type_name, metadata_type = '{name}', ResourceMeta\n"
        "    async def create(self, template, prefix, **more): return ResourceMeta()\n"
        "    async def get(self, meta, **more): return Resource('SUCCEEDED')\n"
        "    async def delete(self, meta, **more): pass\n"
    )
    offers = {
        "offered_module": ("flyte.connectors", "offered_module"),
        "offered_class": ("scheduler.connectors", "offered_class:offered_class"),
        "offered_broken": ("flyte.connectors", "offered_broken"),
    }
    for name, (group, value) in offers.items():
        text = module.format(name=name)
        if name == "offered_module":
            text += f"ConnectorRegistry.register({name}())\n"
        (tmp_path / f"{name}.py").write_text("import no_such_library\n" if name == "offered_broken" else text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in offers:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("distributions")
def test_distributions_offer_connectors_and_a_broken_one_is_no_reason_to_lose_the_others() -> None:
    for name in ("offered_module", "offered_class"):
        assert ConnectorRegistry.get_connector(name).task_type_name == name
    with pytest.raises(ConnectorNotFound, match="could not be loaded: offered_broken of offered_broken: ModuleNotFou"):
        ConnectorRegistry.get_connector("offered_broken")


# --- the executor ----------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_job_and_its_metadata_comes_back_in_every_call() -> None:
    connector = Batch(Resource(Phase.SUCCEEDED, outputs={"rows": 3}))
    executor = registered(connector)
    run = make_run(
        executor,
        {"type": "batch_job", "custom": {"size": "large"}, "poll_interval": "1ms"},
        run_name="nightly-1",
        key="nightly-1-2",
        inputs={"region": "eu"},
        task="reports.nightly",
        version="v7",
    )
    assert asyncio.run(executor.execute(run)) == Succeeded({"rows": 3})
    assert connector.calls == [("create", "nightly-1-2", {}), ("get", BatchMeta("of-nightly-1-2"), {})]
    template = connector.seen["task"]
    assert (template.name, template.type, template.task_type_version) == ("reports.nightly", "batch_job", 0)
    assert template.custom == {"size": "large"}
    assert template.context == SerializationContext("v7", "flytesnacks", "development")
    assert connector.seen["inputs"] == {"region": "eu"}
    assert connector.seen["prefix"].endswith("/trigger-scheduler/nightly-1-2")


def test_a_job_is_kept_as_readable_json_under_an_id_that_no_other_type_has() -> None:
    executor = registered(Batch())
    run = make_run(executor, {"type": "batch_job"})
    job = asyncio.run(executor.create(run))
    assert job == Job({"json": {"job_id": "of-nightly-1"}}, "batch_job:of-nightly-1")
    assert executor.event(job, "success", "done")["job_id"] == "of-nightly-1"


@pytest.mark.parametrize(
    "raw", [b"\xff\x00pickled", b'{"a": 1}', b'{"a":"\\u0000"}', b"[1]", b'{"a":NaN}', b'{"a":"\\ud800"}']
)
def test_metadata_of_another_encoding_comes_back_byte_for_byte(raw: bytes) -> None:
    @dataclass
    class Raw(ResourceMeta):
        raw: bytes = b""

        def encode(self) -> bytes:
            return self.raw

        @classmethod
        def decode(cls, data: bytes) -> Raw:
            return cls(data)

    class RawBatch(Batch):
        metadata_type = Raw  # type: ignore[assignment]

        async def create(self, *given: Any, **named: Any) -> Any:
            return Raw(raw)

    connector = RawBatch()
    executor = registered(connector)
    run = make_run(executor, {"type": "batch_job"})
    job = asyncio.run(executor.create(run))
    assert set(job.meta) == {"base64"}
    asyncio.run(executor.delete(run, job))
    assert connector.calls == [("delete", Raw(raw), {})]


def test_what_another_worker_may_know_better_ends_nothing_at_once() -> None:
    executor = registered(Batch())
    run, unknown = make_run(executor, {"type": "batch_job"}), make_run(executor, {"type": "batch_job", "version": 9})
    with pytest.raises(RetryableError, match="batch_job cannot read the metadata of its job: this is no BatchMeta"):
        asyncio.run(executor.status(run, Job({"json": {"job": 7}})))
    for call in (executor.status, executor.delete):
        with pytest.raises(RetryableError, match=r"no connector for the task type 'batch_job', version 9"):
            asyncio.run(call(unknown, Job({"json": {"job_id": 7}})))
    with pytest.raises(ConnectorNotFound):
        asyncio.run(executor.create(unknown))


class OtherEnum(enum.Enum):
    RUNNING = "some value"


NUMBERED = ["QUEUED", "RUNNING", "SUCCEEDED", "ABORTED", "FAILED", "INITIALIZING", "QUEUED", "RETRYABLE_FAILED"]


@pytest.mark.parametrize(
    ("phase", "meant"),
    [
        (Phase.RUNNING, "RUNNING"),
        ("FAILED", "FAILED"),
        ("retryable_failed", "RETRYABLE_FAILED"),
        (OtherEnum.RUNNING, "RUNNING"),
        *enumerate(NUMBERED, start=1),
        (enum.IntEnum("TaskExecution", {"SUCCEEDED": 3}).SUCCEEDED, "SUCCEEDED"),  # type: ignore[attr-defined]
        ("WAITING_FOR_RESOURCES", "QUEUED"),
    ],
)
def test_a_phase_may_be_ours_another_enums_or_a_number_of_flyteidl(phase: Any, meant: str) -> None:
    assert status_of(Resource(phase)).phase == meant


@pytest.mark.parametrize("phase", [0, 9, True, None, "HIBERNATING", 2.0])
def test_anything_else_is_no_phase(phase: Any) -> None:
    with pytest.raises(ValueError, match="is no phase of a job: QUEUED, INITIALIZING"):
        Resource(phase)


def test_message_links_and_custom_info_are_passed_on() -> None:
    links = [
        Link("log", "https://x/1"),
        {"name": "ui", "uri": "https://x/2"},
        SimpleNamespace(name="sql", uri="u", ttl=1),
    ]
    status = status_of(Resource(Phase.RUNNING, "half", log_links=links, custom_info={"percent": 50}))
    assert status.message == "half"
    assert status.links == (Link("log", "https://x/1"), Link("ui", "https://x/2"), Link("sql", "u"))
    assert status.custom == {"percent": 50}


@pytest.mark.parametrize("outputs", [{"at": NOW}, {"x": float("nan")}, ["a"], {1: 2}])
def test_outputs_that_cannot_be_stored_end_the_job_as_failed(outputs: Any) -> None:
    status = status_of(Resource(Phase.SUCCEEDED, outputs=outputs))
    assert (status.phase, status.retryable) == (Phase.FAILED, False)
    assert status.message.startswith("what the job left cannot be stored: outputs")


def test_a_wrong_answer_about_a_running_job_is_an_error_that_passes() -> None:
    for says in ({"phase": 2}, Resource(Phase.RUNNING, custom_info={"x": object()})):
        ConnectorRegistry._connectors.clear()
        with pytest.raises(RetryableError, match="the connector batch_job"):
            status_of(says)


def test_a_create_that_returns_no_metadata_may_have_made_a_job() -> None:
    class Wrong(Batch):
        async def create(self, *given: Any, **named: Any) -> Any:
            return "job-7"

    executor = registered(Wrong())
    error = asyncio.run(raised(executor.create(make_run(executor, {"type": "batch_job"}))))
    assert isinstance(error, PermanentError)
    assert (str(error), error.outcome_known) == ("the connector batch_job returned a str, not a BatchMeta", False)


def test_methods_get_what_they_have_a_place_for() -> None:
    class Small(Batch):
        async def create(self, template: Any, prefix: str, run: Any) -> Any:  # type: ignore[override]
            return BatchMeta(run.run_name)

        async def get(self, meta: Any, my_key: str) -> Any:  # type: ignore[override]
            return Resource(Phase.RUNNING, message=f"{len(my_key)} letters")

        async def delete(self, meta: Any) -> None:  # type: ignore[override]
            raise JobGone("over")

    executor = registered(Small())
    run = make_run(executor, {"type": "batch_job", "secrets": {"my_key": "MY_KEY"}}, secrets={"my_key": SECRET})
    job = asyncio.run(executor.create(run))
    assert job.job_id == "batch_job:nightly-1"
    assert asyncio.run(executor.status(run, job)).message == "21 letters"
    with pytest.raises(JobGone, match="over"):
        asyncio.run(executor.delete(run, job))


def test_a_connector_that_could_not_be_watched_or_cancelled_submits_nothing() -> None:
    class Begun(AsyncConnector[BatchMeta]):
        task_type_name = "begun"

        async def create(self, *given: Any, **named: Any) -> BatchMeta:
            raise AssertionError

    executor = registered(Begun())
    error = asyncio.run(raised(executor.create(make_run(executor, {"type": "begun"}))))
    assert isinstance(error, PermanentError)
    assert str(error) == ("the connector begun defines no get, no delete, no metadata_type: no job is submitted to it")
    assert error.outcome_known


def test_a_method_that_cannot_be_called_so_has_made_no_job() -> None:
    class Odd(Batch):
        async def create(self, template: Any, prefix: str, *, region: str) -> Any:  # type: ignore[override]
            raise AssertionError

    executor = registered(Odd())
    error = asyncio.run(raised(executor.create(make_run(executor, {"type": "batch_job"}))))
    assert isinstance(error, PermanentError)
    assert "missing 1 required keyword-only argument: 'region'" in str(error)
    assert error.outcome_known


class Findable(Batch):
    async def find(self, key: str, **secrets: Any) -> BatchMeta | None:
        return BatchMeta(f"found-{key}") if key == "nightly-1" else None

    async def get_logs(self, resource_meta: BatchMeta, **secrets: Any) -> str | None:
        return f"log of {resource_meta.job_id}, {secrets}"


def test_a_connector_that_can_tell_finds_a_job_by_the_runs_key() -> None:
    executor = registered(Findable())
    run = make_run(executor, {"type": "batch_job"})
    assert executor.finds(run)
    assert asyncio.run(executor.find(run, NOW)) == Job(
        {"json": {"job_id": "found-nightly-1"}}, "batch_job:found-nightly-1"
    )
    assert asyncio.run(executor.find(make_run(executor, {"type": "batch_job"}, key="other"), NOW)) is None


def test_what_this_worker_does_not_know_another_may_be_able_to_tell() -> None:
    executor = ConnectorExecutor()
    run = make_run(executor, {"type": "unknown"})
    assert executor.finds(run)
    with pytest.raises(RetryableError, match="no connector for the task type 'unknown'"):
        asyncio.run(executor.find(run, NOW))


def test_one_that_cannot_tell_says_so() -> None:
    executor = registered(Batch())
    run = make_run(executor, {"type": "batch_job"})
    assert not executor.finds(run)
    with pytest.raises(NotImplementedError, match="Batch cannot find jobs by their key"):
        asyncio.run(executor.find(run, NOW))
    assert asyncio.run(executor.logs(run, Job({"json": {"job_id": "7"}}))) is None


class ManyAtOnce(Batch):
    task_type_name = "many_job"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    async def get_many(self, resource_metas: Sequence[BatchMeta], **secrets: Any) -> Sequence[Resource | Exception]:
        ids = [meta.job_id for meta in resource_metas]
        self.asked.append(ids)
        if "cut" in ids:
            return [Resource(Phase.RUNNING)]
        return [JobGone("gone") if job_id == "gone" else Resource(Phase.RUNNING, job_id) for job_id in ids]


def test_many_jobs_are_asked_for_at_once_where_the_connector_can() -> None:
    many = ManyAtOnce()
    executor = registered(many)
    ConnectorRegistry.register(Batch(Resource(Phase.RUNNING, "alone")))
    assert executor.batches

    def item(kind: str, job_id: str) -> Any:
        return make_run(executor, {"type": kind}), Job({"json": {"job_id": job_id}})

    items = [item("many_job", "a"), item("batch_job", "b"), item("none", "c"), item("many_job", "gone")]
    answers = asyncio.run(executor.status_many(items))
    assert [a.message if isinstance(a, JobStatus) else type(a).__name__ for a in answers] == [
        "a",
        "alone",
        "RetryableError",
        "JobGone",
    ]
    assert many.asked == [["a", "gone"]]
    cut = asyncio.run(executor.status_many([item("many_job", "cut"), item("many_job", "b")]))
    assert all("did not return one resource for each of 2 jobs" in str(answer) for answer in cut)


# --- secrets ---------------------------------------------------------------------------------------------------------


class Secure(ConnectorSecretsMixin, Batch):
    def __init__(self, secrets: dict[str, str], says: Any = None) -> None:
        super().__init__(secrets=secrets)
        self.says = says or Resource(Phase.SUCCEEDED)


def test_secrets_come_from_the_environment_under_the_connectors_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTERNAL_SERVICE_API_KEY", SECRET)
    connector = Secure({"my_api_key": "EXTERNAL_SERVICE_API_KEY"})
    executor = registered(connector)
    run = make_run(executor, {"type": "batch_job", "poll_interval": "1ms"})
    asyncio.run(executor.execute(run))
    assert [call[2] for call in connector.calls] == [{"my_api_key": SECRET}] * 2
    assert connector.secrets == {"my_api_key": "EXTERNAL_SERVICE_API_KEY"}


def test_a_task_may_name_another_variable_and_the_settings_may_declare_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "from-the-task")
    connector = Secure({"my_api_key": "EXTERNAL_SERVICE_API_KEY"})
    executor = registered(connector)
    of_task = make_run(executor, {"type": "batch_job", "secrets": {"my_api_key": "OTHER_KEY"}})
    of_settings = make_run(executor, {"type": "batch_job"}, secrets={"my_api_key": "from-the-settings"})
    of_custom = make_run(executor, {"type": "batch_job", "custom": {"secrets": {"my_api_key": "OTHER_KEY"}}})
    for run in (of_task, of_settings, of_custom):
        asyncio.run(executor.create(run))
    assert [call[2]["my_api_key"] for call in connector.calls] == [
        "from-the-task",
        "from-the-settings",
        "from-the-task",
    ]


def test_a_secret_that_is_nowhere_is_told_by_its_name() -> None:
    executor = registered(Secure({"my_api_key": "NO_SUCH_VARIABLE_HERE"}))
    run = make_run(executor, {"type": "batch_job"})
    with pytest.raises(RetryableError, match="'my_api_key' is missing: the environment variable NO_SUCH_VARIABLE_HERE"):
        asyncio.run(executor.create(run))


@pytest.mark.parametrize(
    "says",
    [
        Resource(Phase.FAILED, f"key {SECRET} was refused"),
        PermanentError(f"key {SECRET} was refused"),
        RetryableError(f"key {SECRET} was refused", retry_after=5),
        ValueError(f"key {SECRET} was refused"),
    ],
)
def test_no_text_of_a_connector_shows_a_secret(says: Any) -> None:
    executor = registered(Secure({"my_api_key": "KEY"}, says))
    run = make_run(executor, {"type": "batch_job"}, secrets={"my_api_key": SECRET})
    job = Job({"json": {"job_id": "7"}})

    error = None
    if isinstance(says, Exception):
        error = asyncio.run(raised(executor.status(run, job)))
        text = "".join(traceback.format_exception(error))
    else:
        text = asyncio.run(executor.status(run, job)).message
    assert "key *** was refused" in text
    assert SECRET not in text
    if isinstance(says, RetryableError):
        assert isinstance(error, RetryableError)
        assert error.retry_after == timedelta(seconds=5)


def test_logs_show_no_secret_either() -> None:
    executor = registered(Findable())
    run = make_run(executor, {"type": "batch_job", "secrets": {"my_api_key": "KEY"}}, secrets={"my_api_key": SECRET})
    logs = asyncio.run(executor.logs(run, Job({"json": {"job_id": "7"}})))
    assert logs == "log of 7, {'my_api_key': '***'}"


# --- options and config ----------------------------------------------------------------------------------------------


def test_the_modules_of_the_options_are_imported_from_the_path(tmp_path: Path) -> None:
    (tmp_path / "own_batch_module.py").write_text(
        "from executors import ConnectorRegistry\n"
        "from tests.unit.executors.test_connector import Batch\n"
        "ConnectorRegistry.register(Batch())\n"
    )
    try:
        build("own", "connector", {"modules": ["own_batch_module"], "path": [str(tmp_path)]})
        assert type(ConnectorRegistry.get_connector("batch_job")).__name__ == "Batch"
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("own_batch_module", None)
        importlib.invalidate_caches()


def test_modules_that_cannot_be_imported_are_all_named() -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        build("own", "connector", {"modules": ["no_such_module_a", "json", "no_such_module_b"]})
    assert [path for path, _ in caught.value.problems] == ["options.modules[0]", "options.modules[2]"]
    assert "ModuleNotFoundError" in caught.value.problems[0][1]


def test_the_config_is_checked() -> None:
    assert check_config(ConnectorExecutor, {"type": "batch_job", "version": 0, "custom": {"a": 1}}) == []
    faults = check_config(ConnectorExecutor, {"version": "0", "secret": {}, "poll_interval": 5})
    assert [path for path, _ in faults] == ["version", "secret", "poll_interval", "type"]
    assert check_config(ConnectorExecutor, {"type": "x", "secrets": {"inputs": "A"}}) == [
        ("secrets.inputs", "is what the connector gets anyway: choose another name")
    ]


# --- tasks -----------------------------------------------------------------------------------------------------------


class BatchTask(AsyncConnectorExecutorMixin, TaskTemplate):
    def __init__(self, **more: Any) -> None:
        super().__init__(
            name="My Batch!",
            interface=NativeInterface({"val": (int, None), "size": (str, "s")}),
            task_type="batch_job",
            **more,
        )

    def custom_config(self, sctx: SerializationContext) -> dict[str, Any]:
        return {"timeout": 300}


def test_a_task_is_executed_without_worker_or_database() -> None:
    connector = Batch(Resource(Phase.SUCCEEDED, outputs={"result": "x"}))
    ConnectorRegistry.register(connector)
    task = BatchTask()
    assert asyncio.run(task.execute(val=42)) == {"result": "x"}
    assert connector.seen["task"] is task
    assert connector.seen["task"].custom == {"timeout": 300}
    assert connector.seen["inputs"] == {"val": 42, "size": "s"}
    assert connector.calls[0][1].startswith("my-batch-")


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Resource(Phase.FAILED, "disk full"), "the task My Batch! did not succeed: disk full"),
        (Resource("RETRYABLE_FAILED"), "did not succeed: Job run of-my-batch-.* has failed."),
        (Resource(Phase.ABORTED), "has been cancelled."),
        (JobGone("no such job"), "did not succeed: no such job"),
    ],
)
def test_a_task_that_does_not_succeed_raises(says: Any, reason: str) -> None:
    ConnectorRegistry.register(Batch(says))
    with pytest.raises(RuntimeError, match=reason):
        asyncio.run(BatchTask().execute(val=42))


def test_a_task_needs_a_connector_and_takes_only_its_inputs() -> None:
    with pytest.raises(ConnectorNotFound, match="batch_job"):
        asyncio.run(BatchTask().execute(val=42))
    with pytest.raises(TypeError, match=r"My Batch! takes no input value \(it takes val, size\)"):
        asyncio.run(BatchTask().execute(value=42))


def test_arguments_of_flyte_are_kept_and_unknown_ones_refused() -> None:
    task = BatchTask(resources="1 cpu", cache="auto")
    assert (task.resources, task.cache) == ("1 cpu", "auto")  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unexpected arguments: resurces"):
        BatchTask(resurces="1 cpu")
