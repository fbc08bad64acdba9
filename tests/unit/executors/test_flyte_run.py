"""What `flyte_run` sends, against a RunService of the generated ASGI class: as Flyte's scheduler does, in every field."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.workflow import run_service_pb2
from google.protobuf import json_format

from executors import Failed, JobGone, JobPhase, PermanentError, RetryableError, RunContext, Succeeded
from executors.errors import ExecutorConfigError, ExecutorError
from executors.flyte.names import flyte_name, scheduled_name
from executors.flyte.run import FlyteRunExecutor
from executors.flyte.server import server_url
from executors.following import follow
from executors.registry import build, check_config
from scheduler.domain.identity import manual_run_name, reprocess_run_name, run_name
from scheduler.domain.instants import from_datetime
from scheduler.domain.run import idempotency_key
from tests.fakes.flyte import FakeFlyte
from tests.unit.executors.worlds import cancel, eventually, make_run, raised

SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)
NAME = "re603df315fad71d4"
# As recorded on the wire from Flyte's own scheduler.
RECORDED = {
    "run_id": {"project": "proj", "domain": "development", "name": NAME},
    "inputs": {
        "literals": [{"name": "when", "value": {"scalar": {"primitive": {"datetime": "2026-11-21T02:00:00Z"}}}}]
    },
    "trigger_name": {"project": "proj", "domain": "development", "name": "nightly", "task_name": "demo.batch"},
    "source": "RUN_SOURCE_SCHEDULE_TRIGGER",
    "run_start_time": "2026-11-21T02:00:00Z",
}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeFlyte]:
    with FakeFlyte() as server:
        yield server


@pytest.fixture
def flyte(server: FakeFlyte) -> FakeFlyte:
    server.forget()
    return server


def executor_for(flyte: FakeFlyte, **options: Any) -> FlyteRunExecutor:
    return FlyteRunExecutor({"endpoint": flyte.endpoint, "insecure": True, "timeout": "2s", **options})


def nightly(executor: FlyteRunExecutor, config: dict[str, Any] | None = None, **members: Any) -> RunContext:
    """The run of the recorded request."""
    place = {"project": "proj", "domain": "development", "task": "demo.batch", "trigger": "nightly"}
    made = {**place, "scheduled_at": SLOT, "run_name": run_name(*place.values(), SLOT), **members}
    return make_run(executor, config, **made)


def sent(flyte: FakeFlyte, config: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """What one run is asked for with."""

    async def create() -> str:
        executor = executor_for(flyte)
        try:
            return (await executor.create(nightly(executor, config, **members))).job_id
        finally:
            await executor.close()

    return flyte.request(asyncio.run(create()))


# --- as Flyte's scheduler asks ---------------------------------------------------------------------------------------


def test_the_request_is_the_one_that_was_recorded(flyte: FakeFlyte) -> None:
    inputs = {"when": "2026-11-21T02:00:00Z"}
    assert sent(flyte, kickoff_input="when", inputs=inputs) == RECORDED
    recorded = json_format.ParseDict(RECORDED, run_service_pb2.CreateRunRequest())
    assert flyte.runs[NAME].request == recorded
    assert flyte.headers[0]["connect-timeout-ms"] == "2000"


def test_the_default_timeout_is_the_one_that_was_recorded() -> None:
    assert FlyteRunExecutor(endpoint="x:1").options.timeout == timedelta(seconds=10)


def test_without_a_kickoff_input_nothing_is_sent_but_the_slot(flyte: FakeFlyte) -> None:
    assert sent(flyte, inputs={"x": 3}) == {key: value for key, value in RECORDED.items() if key != "inputs"}


def test_inputs_are_sent_in_place_of_those_at_flyte_where_the_task_says_so(flyte: FakeFlyte) -> None:
    config = {"send_inputs": True, "interface": {"inputs": {"share": "float", "note": "str | None"}}}
    inputs = {"x": 3, "share": 1, "tags": ["a", "b"], "when": "2026-11-21T02:00:00Z"}
    request = sent(flyte, config, kickoff_input="when", inputs=inputs)
    assert {each["name"]: each["value"] for each in request["inputs"]["literals"]} == {
        "x": {"scalar": {"primitive": {"integer": "3"}}},
        "share": {"scalar": {"primitive": {"float_value": 1.0}}},
        "note": {"scalar": {"none_type": {}}},
        "tags": {
            "collection": {
                "literals": [
                    {"scalar": {"primitive": {"string_value": "a"}}},
                    {"scalar": {"primitive": {"string_value": "b"}}},
                ]
            }
        },
        "when": {"scalar": {"primitive": {"datetime": "2026-11-21T02:00:00Z"}}},
    }


def test_a_run_by_hand_has_no_slot_and_a_name_of_its_own(flyte: FakeFlyte) -> None:
    by_hand = manual_run_name("proj", "development", "demo.batch", "nightly", "k")
    request = sent(flyte, run_name=by_hand, scheduled_at=None, kickoff_input=None)
    assert request["source"] == "RUN_SOURCE_CLI"
    assert request["trigger_name"] == RECORDED["trigger_name"]
    assert not request.keys() & {"run_start_time", "inputs"}
    assert request["run_id"]["name"].startswith("m")


def test_a_run_without_a_trigger_names_its_task(flyte: FakeFlyte) -> None:
    request = sent(flyte, run_name="by-hand", trigger="", scheduled_at=None, version="v2", inputs={"x": 3})
    assert request["task_id"] == {"project": "proj", "domain": "development", "name": "demo.batch", "version": "v2"}
    assert [each["name"] for each in request["inputs"]["literals"]] == ["x"]


def test_headers_and_organisation_are_sent(flyte: FakeFlyte) -> None:
    async def create() -> None:
        executor = executor_for(flyte, headers={"authorization": "Bearer t0ken"}, org="acme")
        await executor.create(nightly(executor))
        await executor.close()

    asyncio.run(create())
    assert flyte.headers[0]["authorization"] == "Bearer t0ken"
    assert flyte.request(NAME)["run_id"] == {**RECORDED["run_id"], "org": "acme"}
    assert flyte.request(NAME)["trigger_name"] == {**RECORDED["trigger_name"], "org": "acme"}


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_are_those_of_flytes_scheduler() -> None:
    assert scheduled_name("proj", "development", "demo.batch", "nightly", SLOT) == NAME
    in_paris = SLOT.astimezone(datetime.fromisoformat("2026-11-21T03:00:00+01:00").tzinfo)
    assert scheduled_name("proj", "development", "demo.batch", "nightly", in_paris) == NAME


def test_a_name_is_the_attempts_own_where_the_one_before_is_known_to_be_over() -> None:
    executor = FlyteRunExecutor(endpoint="x:1")
    run = nightly(executor)
    assert flyte_name(run) == NAME
    again = nightly(executor, key=idempotency_key(run.run_name, 1))
    assert flyte_name(again) == f"{NAME}-2"


@pytest.mark.parametrize("trigger", ["nightly", "nightly-b7", "Ünïcode & co", "a" * 200, "b7", '"quoted"'])
def test_only_a_slots_own_run_has_the_name_that_flyte_would_give(trigger: str) -> None:
    executor = FlyteRunExecutor(endpoint="x:1")
    own = run_name("proj", "development", "demo.batch", trigger, SLOT)
    again = reprocess_run_name("proj", "development", "demo.batch", trigger, from_datetime(SLOT), 7)
    by_hand = manual_run_name("proj", "development", "demo.batch", trigger, "k")
    names = [flyte_name(nightly(executor, run_name=name, trigger=trigger)) for name in (own, again, by_hand)]
    assert names[0] == scheduled_name("proj", "development", "demo.batch", trigger, SLOT)
    assert [name[0] for name in names[1:]] == ["m", "m"]
    assert len(set(names)) == 3
    assert all(len(name) <= 30 and name.isascii() and name.isalnum() for name in names)


# --- what is there already -------------------------------------------------------------------------------------------


def outcome_of(flyte: FakeFlyte, **options: Any) -> Any:
    """What an executor that follows nothing makes of the run: an outcome or an error."""

    async def work() -> Any:
        executor = executor_for(flyte, **options)
        run = nightly(executor, {"error_budget": "0s"})
        try:
            return await follow(executor, run)
        except ExecutorError as error:
            return error
        finally:
            await executor.close()

    return asyncio.run(work())


def test_a_run_that_is_there_already_is_success(flyte: FakeFlyte) -> None:
    made = {"project": "proj", "domain": "development", "name": NAME}
    assert outcome_of(flyte) == Succeeded(made)
    assert outcome_of(flyte) == Succeeded(made)
    assert flyte.created == {NAME: 1}
    assert flyte.asked["CreateRun"] == 2


@pytest.mark.parametrize("code", [Code.UNIMPLEMENTED, Code.NOT_FOUND, Code.PERMISSION_DENIED])
def test_also_where_nobody_tells_more_of_it(flyte: FakeFlyte, code: Code) -> None:
    outcome_of(flyte)
    flyte.fail(code, on="GetRunDetails", times=None)
    assert isinstance(outcome_of(flyte), Succeeded)


def test_but_not_where_its_name_belongs_to_another_trigger_or_slot(flyte: FakeFlyte) -> None:
    outcome_of(flyte)
    flyte.runs[NAME].trigger.name = "hourly"
    error = outcome_of(flyte)
    assert isinstance(error, PermanentError)
    assert str(error) == f"Flyte gave the name {NAME} to a run of demo.batch/hourly: this run cannot be made"
    flyte.runs[NAME].trigger.name = "nightly"
    flyte.runs[NAME].slot.seconds += 3600
    said = f"Flyte gave the name {NAME} to the run of another slot, 2026-11-21T03:00:00Z: this run cannot be made"
    assert str(outcome_of(flyte)) == said


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "known"),
    [
        (Code.UNAVAILABLE, RetryableError, True),
        (Code.RESOURCE_EXHAUSTED, RetryableError, True),
        (Code.UNAUTHENTICATED, RetryableError, True),
        (Code.PERMISSION_DENIED, RetryableError, True),
        (Code.UNIMPLEMENTED, RetryableError, True),
        (Code.INTERNAL, RetryableError, False),
        (Code.UNKNOWN, RetryableError, False),
        (Code.INVALID_ARGUMENT, PermanentError, True),
        (Code.NOT_FOUND, PermanentError, True),
        (Code.FAILED_PRECONDITION, PermanentError, True),
    ],
)
def test_an_error_of_flyte_is_told_with_its_code_and_what_it_means(
    flyte: FakeFlyte, code: Code, kind: type[ExecutorError], known: bool
) -> None:
    flyte.fail(code, on="CreateRun", says="so it is")
    error = outcome_of(flyte)
    assert isinstance(error, kind)
    assert error.outcome_known is known
    assert str(error) == f"Flyte at 127.0.0.1:{flyte.port} answered CreateRun with {code.name}: so it is"


@pytest.mark.parametrize(
    ("fault", "said"), [("lost answer", "broke off CreateRun"), ("drop", "broke off CreateRun"), ("html", "text/html")]
)
def test_after_a_broken_answer_nobody_knows_whether_there_is_a_run(flyte: FakeFlyte, fault: Any, said: str) -> None:
    flyte.fail(fault, on="CreateRun")
    error = outcome_of(flyte)
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert said in str(error)

    async def found() -> Any:
        executor = executor_for(flyte)
        try:
            return await executor.find(nightly(executor), SLOT)
        finally:
            await executor.close()

    job = asyncio.run(found())
    assert (job is not None) == (fault == "lost answer")
    assert job is None or job.job_id == NAME
    # Where Flyte does not tell, it is asked for again, and there is one all the same.
    flyte.fail(Code.PERMISSION_DENIED, on="GetRunDetails", times=2)
    assert asyncio.run(found()) is None
    assert isinstance(outcome_of(flyte), Succeeded)
    assert flyte.created == {NAME: 1}


def test_a_server_that_is_slow_or_away_is_told_apart(flyte: FakeFlyte) -> None:
    flyte.fail("slow", on="CreateRun", seconds=3)
    error = outcome_of(flyte, timeout="200ms")
    assert str(error) == f"Connection timeout: Flyte at 127.0.0.1:{flyte.port} did not answer CreateRun within 0.2 s"
    assert not error.outcome_known
    with flyte.away():
        error = outcome_of(flyte)
    assert str(error) == f"Connection error: Unable to reach Flyte at 127.0.0.1:{flyte.port}: connection refused"
    assert isinstance(error, RetryableError)
    assert error.outcome_known


def test_a_cancelled_call_is_cancelled(flyte: FakeFlyte) -> None:
    async def work() -> bool:
        executor = executor_for(flyte, timeout="30s")
        flyte.fail("slow", on="CreateRun", seconds=30)
        creating = asyncio.ensure_future(executor.create(nightly(executor)))
        await eventually(lambda: flyte.asked["CreateRun"])
        try:
            return await cancel(creating)
        finally:
            await executor.close()

    assert asyncio.run(work())


def test_an_answer_in_time_is_not_cut_off_by_a_timeout_around_it(flyte: FakeFlyte) -> None:
    async def work() -> None:
        executor = executor_for(flyte, follow=True, timeout="30s")
        flyte.fail("slow", on="GetRunDetails", seconds=30)
        job = await executor.create(nightly(executor))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await executor.status(nightly(executor), job)
        await executor.close()

    asyncio.run(work())


def test_inputs_that_flyte_has_no_kind_for_are_refused_all_at_once(flyte: FakeFlyte) -> None:
    async def work() -> BaseException | None:
        executor = executor_for(flyte)
        config = {"send_inputs": True, "interface": {"inputs": {"n": "int", "gone": "str", "when": "datetime"}}}
        run = nightly(executor, config, inputs={"n": "3", "when": "2026-11-21", "odd": [1, "x"], "big": 2**70})
        try:
            return await raised(executor.create(run))
        finally:
            await executor.close()

    error = asyncio.run(work())
    assert isinstance(error, PermanentError)
    assert str(error) == (
        "the inputs cannot be sent: inputs.n must be a whole number, not a text; inputs.gone is missing; "
        "inputs.when is a time without a zone: add Z or an offset; "
        "inputs.odd holds values of different kinds (int, str): put it into an object; "
        "inputs.big is a number of more than 64 bits, which Flyte has not"
    )
    assert not flyte.asked


# --- followed --------------------------------------------------------------------------------------------------------


def followed(flyte: FakeFlyte, phase: str, **end: Any) -> Any:
    """How a followed run stands, and what is told of it, once it is in this phase."""

    async def work() -> Any:
        executor = executor_for(flyte, follow=True)
        run = nightly(executor)
        job = await executor.create(run)
        flyte.end(NAME, phase, **end)
        try:
            status = await executor.status(run, job)
            return status, executor.end_message(job, status)
        finally:
            await executor.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("phase", "means"),
    [
        ("QUEUED", JobPhase.QUEUED),
        ("WAITING_FOR_RESOURCES", JobPhase.QUEUED),
        ("INITIALIZING", JobPhase.INITIALIZING),
        ("RUNNING", JobPhase.RUNNING),
        ("PAUSED", JobPhase.RUNNING),
        ("SUCCEEDED", JobPhase.SUCCEEDED),
        ("RECOVERED", JobPhase.SUCCEEDED),
        ("FAILED", JobPhase.FAILED),
        ("ABORTED", JobPhase.ABORTED),
        ("TIMED_OUT", JobPhase.TIMED_OUT),
    ],
)
def test_every_phase_of_flyte_means_one_of_ours(flyte: FakeFlyte, phase: str, means: JobPhase) -> None:
    status, _ = followed(flyte, phase)
    assert status.phase is means
    assert [(link.name, link.uri) for link in status.links] == [("log", f"https://flyte.example/{NAME}")]


def test_no_phase_is_no_answer(flyte: FakeFlyte) -> None:
    with pytest.raises(RetryableError, match="the phase 0, which is not known"):
        followed(flyte, "UNSPECIFIED")


def test_outputs_come_back_as_json(flyte: FakeFlyte) -> None:
    outputs = {"rows": 3, "share": 0.5, "name": "x", "parts": {"a": [1, None, {"b": True}]}, "days": [1, 2]}
    status, said = followed(flyte, "SUCCEEDED", outputs=outputs)
    assert status.outputs == outputs
    assert said == f"Job run {NAME} has completed successfully."


def test_outputs_that_cannot_be_had_cost_nothing(flyte: FakeFlyte) -> None:
    flyte.fail(Code.UNIMPLEMENTED, on="GetActionData")
    status, _ = followed(flyte, "SUCCEEDED")
    assert status.outputs == {}


def test_a_failure_is_told_in_flytes_words(flyte: FakeFlyte) -> None:
    status, said = followed(flyte, "FAILED", error="ValueError: no rows")
    assert status.retryable
    assert said == f"Job run {NAME} has failed: ValueError: no rows"


def test_a_run_is_aborted_and_one_that_is_gone_is_gone(flyte: FakeFlyte) -> None:
    async def work() -> list[BaseException | None]:
        executor = executor_for(flyte, follow=True)
        run = nightly(executor)
        job = await executor.create(run)
        await executor.delete(run, job)
        assert (await executor.status(run, job)).phase is JobPhase.ABORTED
        flyte.fail(Code.FAILED_PRECONDITION, on="AbortRun", says="it is over")
        await executor.delete(run, job)
        flyte.runs.clear()
        errors = [await raised(executor.delete(run, job)), await raised(executor.status(run, job))]
        assert await executor.find(run, SLOT) is None
        await executor.close()
        return errors

    for error in asyncio.run(work()):
        assert isinstance(error, JobGone)
        assert str(error) == f"Flyte does not know the run {NAME}: run {NAME} not found"


def test_without_a_worker_it_is_followed_to_its_end(flyte: FakeFlyte) -> None:
    async def work() -> Any:
        executor = executor_for(flyte, follow=True)
        run = nightly(executor, {"poll_interval": "20ms"})
        following = asyncio.ensure_future(follow(executor, run))
        await eventually(lambda: flyte.asked["GetRunDetails"])
        flyte.end(NAME, "FAILED", error="no rows")
        try:
            return await following
        finally:
            await executor.close()

    assert asyncio.run(work()) == Failed(f"Job run {NAME} has failed: no rows")


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "http://flyte:8090"}, "options.endpoint: says http, which is not encrypted"),
        ({"endpoint": "https://flyte", "insecure": True}, "options.endpoint: says https, and insecure is true"),
        ({"endpoint": "ftp://flyte"}, "options.endpoint: is no endpoint"),
        ({"endpoint": ""}, "options.endpoint: is no endpoint"),
        ({"endpoint": "flyte:port"}, "options.endpoint: cannot be read"),
        ({"endpoint": "https://me:secret@flyte"}, "options.endpoint: names a user"),
        ({"endpoint": "flyte", "ca_cert": "/nowhere.pem"}, "options.ca_cert: there is no such file"),
        ({"endpoint": "flyte", "headers": {"a b": "c"}}, "options.headers.a b: is no header"),
        ({"endpoint": "flyte", "headers": {"a": "c\nd"}}, "options.headers.a: is no header"),
        ({"endpoint": "flyte", "timeout": "0s"}, "options.timeout: is not a positive duration"),
        ({"endpoint": "flyte", "folow": True}, "options.folow: unknown key (did you mean follow?)"),
    ],
)
def test_wrong_options_are_said_before_anything_starts(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ExecutorConfigError) as error:
        build("flyte", "flyte_run", options)
    assert f"flyte: {said}" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("endpoint", "insecure", "url"),
    [
        ("http://flyte:8090", True, "http://flyte:8090"),
        ("flyte:8090", True, "http://flyte:8090"),
        ("dns:///flyte.example", False, "https://flyte.example"),
        ("https://flyte.example/", False, "https://flyte.example"),
        ("[::1]:8000", True, "http://[::1]:8000"),
    ],
)
def test_an_endpoint_is_understood_as_flytes_own_settings_write_it(endpoint: str, insecure: bool, url: str) -> None:
    assert server_url(endpoint, insecure) == url


def test_a_type_that_is_none_is_found_at_the_deploy() -> None:
    config = {"interface": {"inputs": {"a": "integre", "b": "list[int", "c": "dict[int, str]", "d": "int"}}}
    found = dict(check_config(FlyteRunExecutor, config))
    assert found.keys() == {"interface.inputs.a", "interface.inputs.b", "interface.inputs.c"}


def test_what_is_not_installed_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flyteidl2.workflow.run_service_connect", None)
    with pytest.raises(ExecutorConfigError) as error:
        build("flyte", "flyte_run", {"endpoint": "x:1"})
    assert "pip install 'trigger-scheduler[flyte]'" in str(error.value)
