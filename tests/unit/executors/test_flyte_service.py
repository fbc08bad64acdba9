"""What `flyte_service` sends to a connector server over gRPC, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from executors import ExecutorError, Job, JobGone, JobPhase, Link, PermanentError, RetryableError, RunContext
from executors.flyte.run import FlyteRunExecutor
from executors.flyte.service import FlyteServiceExecutor
from executors.registry import build, check_config
from tests.fakes.connectors import FakeConnectors
from tests.fakes.flyte import FakeFlyte
from tests.unit.executors.certificates import self_signed
from tests.unit.executors.worlds import cancel, eventually, make_run

T = TypeVar("T")
SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
SECRET = "s3cr3t-of-the-service"
Work = Callable[[FlyteServiceExecutor, RunContext], Awaitable[T]]


@pytest.fixture(scope="module")
def running() -> Iterator[FakeConnectors]:
    with FakeConnectors() as server:
        yield server


@pytest.fixture
def server(running: FakeConnectors) -> FakeConnectors:
    running.forget()
    return running


def use(server: FakeConnectors, work: Work[T], config: dict[str, Any] | None = None, **members: Any) -> T:
    """What `work(executor, run)` comes to, the executor closed again."""
    options = members.pop("options", {"endpoint": server.endpoint, "insecure": True, "timeout": "2s"})

    async def done() -> T:
        executor = FlyteServiceExecutor(options)
        try:
            return await work(executor, make_run(executor, {"type": "batch_job", **(config or {})}, **members))
        finally:
            await executor.close()

    return asyncio.run(done())


def create(executor: FlyteServiceExecutor, run: RunContext) -> Awaitable[Job]:
    return executor.create(run)


async def create_and_look(executor: FlyteServiceExecutor, run: RunContext) -> Any:
    return await executor.status(run, await executor.create(run))


def error_of(server: FakeConnectors, work: Work[Any] = create, *args: Any, **members: Any) -> ExecutorError:
    """What it raises."""
    with pytest.raises(ExecutorError) as error:
        use(server, work, *args, **members)
    return error.value


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_task_is_told_as_flyte_tells_it(server: FakeConnectors) -> None:
    config = {
        "custom": {"timeout": 300},
        "interface": {"inputs": {"share": "float"}, "outputs": {"result": "str"}},
        "template": {"sql": {"statement": "SELECT 1", "dialect": "ANSI"}},
        "configs": {"region": "eu"},
    }
    inputs = {"val": 42, "share": 1, "when": "2026-11-21T02:00:00Z", "deep": {"n": [1, None]}}
    options = {"endpoint": server.endpoint, "insecure": True, "output_prefix": "s3://bucket/jobs/"}
    job = use(
        server,
        create,
        config,
        inputs=inputs,
        kickoff_input="when",
        scheduled_at=SLOT,
        attempt=2,
        key="k-2",
        options=options,
    )
    assert job == Job({"text": '{"job_id": "job-1", "at": 1.5}'}, "batch_job:job-1")
    request = server.request("CreateTask")
    template = request["template"]
    task = {
        "resource_type": "TASK",
        "project": "flytesnacks",
        "domain": "development",
        "name": "task",
        "version": "v1",
    }
    assert (template["type"], template["custom"], template["id"]) == ("batch_job", {"timeout": 300.0}, task)
    assert template["sql"] == {"statement": "SELECT 1", "dialect": "ANSI"}
    kinds = {each["key"]: each["value"]["type"] for each in template["interface"]["inputs"]["variables"]}
    assert kinds == {
        "val": {"simple": "INTEGER"},
        "share": {"simple": "FLOAT"},
        "when": {"simple": "DATETIME"},
        "deep": {"simple": "STRUCT"},
    }
    assert template["interface"]["outputs"]["variables"] == [{"key": "result", "value": {"type": {"simple": "STRING"}}}]
    literals = {each["name"]: each["value"]["scalar"] for each in request["inputs"]["literals"]}
    assert literals["val"] == {"primitive": {"integer": "42"}}
    assert literals["share"] == {"primitive": {"float_value": 1.0}}
    assert literals["when"] == {"primitive": {"datetime": "2026-11-21T02:00:00Z"}}
    assert literals["deep"]["binary"]["tag"] == "msgpack"
    assert request["output_prefix"] == "s3://bucket/jobs/k-2"
    execution = request["task_execution_metadata"]["task_execution_id"]
    assert execution["node_execution_id"]["execution_id"]["name"] == "k-2"
    assert execution["retry_attempt"] == 1
    assert request["connection"] == {"task_type": "batch_job", "configs": {"region": "eu"}}


def test_secrets_go_with_every_call_and_are_shown_by_none(
    server: FakeConnectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTERNAL_SERVICE_API_KEY", SECRET)
    config = {"secrets": {"my_api_key": "EXTERNAL_SERVICE_API_KEY"}}

    async def work(executor: FlyteServiceExecutor, run: RunContext) -> list[Any]:
        job = await executor.create(run)
        server.end("RUNNING", message=f"asked with {SECRET}")
        status = await executor.status(run, job)
        server.log = [f"GET /?key={SECRET}"]
        found = [job.meta, status.message, await executor.logs(run, job)]
        server.fail(grpc.StatusCode.INTERNAL, f"401 for {SECRET}", on="DeleteTask")
        with pytest.raises(RetryableError) as error:
            await executor.delete(run, job)
        return [*found, str(error.value), repr(run)]

    found = use(server, work, config)
    assert SECRET not in str(found)
    assert "asked with ***" in found
    for method in ("CreateTask", "GetTask", "DeleteTask"):
        assert server.request(method)["connection"]["secrets"] == {"my_api_key": SECRET}
    assert SECRET in str(server.requests["CreateTask"])
    declared = use(server, create, config, secrets={"my_api_key": "declared"})
    assert declared
    assert server.request("CreateTask")["connection"]["secrets"] == {"my_api_key": "declared"}


def test_a_secret_that_is_nowhere_is_said_and_nothing_is_sent(server: FakeConnectors) -> None:
    error = error_of(server, create, {"secrets": {"my_api_key": "NOT_SET_ANYWHERE"}})
    assert str(error) == "the secret 'my_api_key' is missing: the environment variable NOT_SET_ANYWHERE is not set"
    assert not server.asked


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "means"),
    [
        ("QUEUED", JobPhase.QUEUED),
        ("WAITING_FOR_RESOURCES", JobPhase.QUEUED),
        ("INITIALIZING", JobPhase.INITIALIZING),
        ("RUNNING", JobPhase.RUNNING),
        ("SUCCEEDED", JobPhase.SUCCEEDED),
        ("FAILED", JobPhase.FAILED),
        ("RETRYABLE_FAILED", JobPhase.RETRYABLE_FAILED),
        ("ABORTED", JobPhase.ABORTED),
    ],
)
def test_phases_mean_what_they_say(server: FakeConnectors, phase: str, means: JobPhase) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        server.end(phase, message="so", links={"log": "https://x/1"}, outputs={"n": 1}, custom={"rows": 3, "p": 0.5})
        return await executor.status(run, job)

    status = use(server, work)
    assert (status.phase, status.message, status.links) == (means, "so", (Link("log", "https://x/1"),))
    assert (status.outputs, status.custom) == ({"n": 1}, {"rows": 3, "p": 0.5})
    assert status.retryable is (means is not JobPhase.ABORTED)


def test_no_phase_is_no_answer(server: FakeConnectors) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        server.end("UNDEFINED")
        return await executor.status(run, job)

    assert "answered with the phase 0, which is none" in str(error_of(server, work))


def test_logs_are_read_to_their_end_and_none_are_none(server: FakeConnectors) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> list[str | None]:
        job = await executor.create(run)
        first = await executor.logs(run, job)
        server.log = ["one", "two", "three"]
        return [first, await executor.logs(run, job)]

    assert use(server, work) == [None, "one\ntwo\nthree\n"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_unknown_type_is_said_with_what_there_is_and_nothing_is_submitted(server: FakeConnectors) -> None:
    error = error_of(server, create, {"type": "batch_jbo"})
    assert isinstance(error, PermanentError)
    assert str(error) == (
        f"the connector server at {server.endpoint} has no connector for the task type 'batch_jbo', version 0 "
        "(did you mean batch_job?)"
    )
    assert "(there is version 0)" in str(error_of(server, create, {"version": 7}))
    assert not server.asked["CreateTask"]


def test_a_server_that_does_not_tell_its_types_is_taken_at_its_word(server: FakeConnectors) -> None:
    server.fail(grpc.StatusCode.UNIMPLEMENTED, "", on="ListConnectors")
    server.fail(grpc.StatusCode.NOT_FOUND, "Cannot find connector for task type: x.", on="CreateTask")
    error = error_of(server, create, {"type": "x"})
    assert isinstance(error, PermanentError)
    assert "NOT_FOUND: Cannot find connector for task type: x." in str(error)


def test_types_are_asked_for_once_a_minute(server: FakeConnectors) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> None:
        for _ in range(5):
            await executor.create(run)

    use(server, work)
    assert (server.asked["ListConnectors"], server.asked["CreateTask"]) == (1, 5)


@pytest.mark.parametrize(
    ("code", "permanent", "known"),
    [
        (grpc.StatusCode.INTERNAL, False, False),
        (grpc.StatusCode.UNKNOWN, False, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, False),
        (grpc.StatusCode.UNAVAILABLE, False, True),
        (grpc.StatusCode.UNAUTHENTICATED, False, True),
        (grpc.StatusCode.INVALID_ARGUMENT, True, True),
    ],
)
def test_an_error_of_a_submission_says_whether_there_may_be_a_job(
    server: FakeConnectors, code: grpc.StatusCode, permanent: bool, known: bool
) -> None:
    server.fail(code, "boom", on="CreateTask")
    error = error_of(server)
    assert (isinstance(error, PermanentError), error.outcome_known) == (permanent, known)
    assert str(error) == f"the connector server at {server.endpoint} answered CreateTask with {code.name}: boom"


def test_a_connector_that_is_gone_may_come_back_and_a_job_that_is_gone_does_not(server: FakeConnectors) -> None:
    server.fail(grpc.StatusCode.NOT_FOUND, "Cannot find connector for task type: batch_job.", on="GetTask")
    error = error_of(server, create_and_look)
    assert isinstance(error, RetryableError)
    server.fail(grpc.StatusCode.NOT_FOUND, "no such job", on="GetTask")
    assert isinstance(error_of(server, create_and_look), JobGone)


def test_inputs_that_are_too_much_for_the_server_are_refused_for_good(server: FakeConnectors) -> None:
    error = error_of(server, create, inputs={"x": "x" * 20_000_000})
    assert isinstance(error, PermanentError)
    assert "larger than max" in str(error)


def test_a_large_answer_is_read(server: FakeConnectors) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        server.end("SUCCEEDED", outputs={"x": "é" * 2_000_000})
        return await executor.status(run, job)

    assert len(use(server, work).outputs["x"]) == 2_000_000


def test_inputs_and_configs_that_flyte_cannot_take_are_said_before_anything_is_sent(server: FakeConnectors) -> None:
    error = error_of(server, create, {"interface": {"inputs": {"val": "int"}}}, inputs={"val": "many"})
    assert str(error) == "the inputs cannot be sent: inputs.val must be a whole number, not a text"
    error = error_of(server, create, {"template": {"sqll": {}}})
    assert isinstance(error, PermanentError)
    assert "sqll" in str(error)
    assert not server.asked


def test_a_server_that_is_away_made_no_job(server: FakeConnectors) -> None:
    with server.away():
        error = error_of(server)
    assert str(error) == (
        f"Connection error: Unable to reach the connector server at {server.endpoint}: connection refused"
    )
    assert isinstance(error, RetryableError)
    assert error.outcome_known


def test_it_is_there_again_when_it_is_back_also_for_kept_connections(server: FakeConnectors) -> None:
    async def work(executor: FlyteServiceExecutor, run: RunContext) -> JobPhase:
        job = await executor.create(run)
        await executor.status(run, job)
        with server.away(), pytest.raises(RetryableError, match="Connection error"):
            await executor.status(run, job)
        await executor.create(run)
        return (await executor.status(run, job)).phase

    assert use(server, work) is JobPhase.RUNNING


def test_tls_to_a_plain_port_says_what_is_missing(server: FakeConnectors) -> None:
    error = error_of(server, options={"endpoint": server.endpoint, "timeout": "2s"})
    assert isinstance(error, RetryableError)
    assert error.outcome_known
    assert str(error) == (
        f"Connection error: Unable to reach the connector server at {server.endpoint}: "
        "it does not answer in TLS (is insecure: true missing?)"
    )


def test_a_server_of_another_kind_is_found_out_before_anything_is_submitted(server: FakeConnectors) -> None:
    with FakeFlyte() as flyte:
        options = {"endpoint": flyte.endpoint, "insecure": True, "timeout": "2s"}
        error = error_of(server, options=options)
    assert isinstance(error, RetryableError)
    assert error.outcome_known
    assert "ListConnectors" in str(error)


def test_a_server_that_says_nothing_is_given_up_in_time(server: FakeConnectors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"endpoint": f"127.0.0.1:{silent.getsockname()[1]}", "insecure": True, "timeout": "200ms"}
        error = error_of(server, options=options)
    assert "did not answer ListConnectors within 0.2 s" in str(error)


def test_a_cancelled_call_is_cancelled(server: FakeConnectors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def work(executor: FlyteServiceExecutor, run: RunContext) -> bool:
            creating = asyncio.ensure_future(executor.create(run))
            silent.setblocking(False)
            with await eventually(lambda: _accepted(silent)):
                return await cancel(creating)

        options = {"endpoint": f"127.0.0.1:{silent.getsockname()[1]}", "insecure": True, "timeout": "30s"}
        assert use(server, work, options=options)


def _accepted(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except BlockingIOError:
        return None


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    return self_signed(tmp_path)


def test_a_certificate_is_trusted_only_if_the_settings_say_so(certificate: tuple[Path, Path]) -> None:
    async def created(**options: Any) -> Any:
        executor = FlyteRunExecutor({"endpoint": flyte.endpoint, "timeout": "2s", **options})
        try:
            return await executor.create(make_run(executor))
        except ExecutorError as error:
            return error
        finally:
            await executor.close()

    with FakeFlyte(certificate=certificate) as flyte:
        assert isinstance(asyncio.run(created(ca_cert=str(certificate[0]))), Job)
        refused = asyncio.run(created())
        plain = asyncio.run(created(endpoint=f"127.0.0.1:{flyte.port}", insecure=True))
    assert "its certificate is not trusted" in str(refused)
    assert isinstance(plain, RetryableError)
    assert "broke off CreateRun" in str(plain)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, {"type"}),
        ({"type": "x", "interface": {"inputs": {"a": "list[int"}}}, {"interface.inputs.a"}),
        (
            {
                "type": "",
                "version": 2**40,
                "secrets": {"inputs": "X"},
                "template": {"custom": {}},
                "poll_interval": "0s",
            },
            {"type", "version", "secrets.inputs", "template.custom", "poll_interval"},
        ),
    ],
)
def test_what_is_wrong_with_a_task_is_found_at_the_deploy(config: dict[str, Any], wrong: set[str]) -> None:
    executor = build("remote", "flyte_service", {"endpoint": "localhost:8000", "insecure": True})
    assert dict(check_config(type(executor), config)).keys() == wrong
