"""Airbyte, against a server on the loopback: every outcome word for word, every fault, and nothing submitted twice."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from executors import (
    AirbyteExecutor,
    ExecutorConfigError,
    Failed,
    Job,
    JobBusy,
    JobGone,
    JobPhase,
    PermanentError,
    RetryableError,
    RunContext,
    Succeeded,
)
from executors.airbyte_tokens import Tokens
from executors.job_service import Service
from executors.registry import build, check_config
from tests.fakes.airbyte import FIRST_ID, MOUNTS, FakeAirbyte, problem
from tests.fakes.serving import FakeProxy
from tests.unit.executors.worlds import cancel, eventually, make_run, raised

SYNC = {"connection_id": "c-1", "poll_interval": "2ms"}
WATCH = {"job_id": FIRST_ID, "poll_interval": "2ms"}
ONE_OF_TWO = "needs a connection_id, to start a job, or a job_id, to watch one, and not both"
# Faults that a request for a job's status may meet, and what is told of each.
FAULTS: dict[Any, str] = {
    500: r"Airbyte answered GET http://127\.0\.0\.1:\d+/jobs/12345 with 500 \(Internal Server Error\): unexpected-problem",
    503: r"with 503 \(Service Unavailable\)",
    429: r"with 429 \(Too Many Requests\)",
    403: r"Authentication error: Airbyte answered .* with 403 \(Forbidden\): forbidden: ordered: 403",
    400: r"with 400 \(Bad Request\)",
    302: r"with 302 \(Found\)",
    "drop": r"Connection error: Airbyte broke off GET http://127\.0\.0\.1:\d+/jobs/12345: ",
    "html": r"with something else than JSON: Please log in",
    "bad json": r"with something else than JSON: ",
    "not an object": r"with something else than a JSON object: \[1, 2\]",
    "unknown status": r"Job run 12345 has the status 'hibernating', which is not known",
}


def now() -> datetime:
    return datetime.now(UTC)


def scene(
    play: Callable[[AirbyteExecutor, RunContext], Awaitable[Any]],
    airbyte: FakeAirbyte,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Let an executor for this server play with one run."""

    async def played() -> Any:
        executor = AirbyteExecutor({**airbyte.options, **options})
        async with make_run(executor, config or SYNC, clock=now) as run:
            return await play(executor, run)

    return asyncio.run(played())


async def execute(executor: AirbyteExecutor, run: RunContext) -> Any:
    return await executor.execute(run)


async def event(executor: AirbyteExecutor, run: RunContext) -> Any:
    """The event that the end of the run's job is."""
    job = executor.watched(run) or await executor.create(run)
    while not (status := await executor.status(run, job)).phase.is_over:
        pass
    return executor.event(job, status.event, executor.end_message(job, status))


# --- outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "word", "message"),
    [
        ("succeeded", "success", "Job run 12345 has completed successfully."),
        ("cancelled", "cancelled", "Job run 12345 has been cancelled."),
        ("failed", "error", "Job run 12345 has failed."),
    ],
)
@pytest.mark.parametrize("config", [SYNC, WATCH, {**WATCH, "job_id": "12345"}])
def test_the_event_of_every_end_word_for_word(status: str, word: str, message: str, config: dict[str, Any]) -> None:
    with FakeAirbyte(plan=("pending", "queued", "running", "incomplete", status)) as airbyte:
        if "job_id" in config:
            airbyte.add("c-1").plan = ["incomplete", status]
        assert scene(event, airbyte, config) == {"status": word, "message": message, "job_id": 12345}


def test_timeout_and_deadline_word_for_word() -> None:
    executor, job = AirbyteExecutor(host="http://127.0.0.1:9"), Job({"job_id": 12345}, "12345")
    assert executor.event(job, "error", executor.timeout_message(job, 3600.0)) == {
        "status": "error",
        "message": "Job run 12345 has not reached a terminal status after 3600 seconds.",
        "job_id": 12345,
    }
    assert executor.event(job, "timeout", executor.deadline_message(job)) == {
        "status": "timeout",
        "message": "Job run 12345 has reached execution timeout.",
        "job_id": 12345,
    }


@pytest.mark.parametrize("status", ["pending", "queued", "running", "incomplete"])
def test_four_statuses_still_run(status: str) -> None:
    async def ask(executor: AirbyteExecutor, run: RunContext) -> Any:
        return await executor.status(run, await executor.create(run))

    with FakeAirbyte(plan=(status,)) as airbyte:
        found = scene(ask, airbyte)
        assert not found.phase.is_over
        assert (found.event, found.outputs, found.custom["status"]) == ("", None, status)


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_sync_is_started_and_its_figures_are_the_outputs(mount: str) -> None:
    with FakeAirbyte(plan=("pending", "running", "succeeded"), mount=mount) as airbyte:
        outcome = scene(execute, airbyte, host=airbyte.host + "/")
        (created,) = [request for request in airbyte.requests if request.endpoint == "create"]
        assert (created.path, created.json) == (f"{mount}/jobs", {"connectionId": "c-1", "jobType": "sync"})
        (token,) = [request for request in airbyte.requests if request.endpoint == "token"]
        assert token.path == ("/api/public/v1" if "api" in mount else "/v1") + "/applications/token"
        assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert isinstance(outcome, Succeeded)
    assert outcome.outputs is not None
    assert outcome.outputs["start_time"].endswith("Z")
    assert {
        key: outcome.outputs[key] for key in ("job_id", "connection_id", "rows_synced", "bytes_synced", "duration")
    } == {
        "job_id": 12345,
        "connection_id": "c-1",
        "rows_synced": 16,
        "bytes_synced": 2048,
        "duration": "PT8S",
    }


def test_another_kind_of_job_may_be_asked_for() -> None:
    with FakeAirbyte(plan=("succeeded",)) as airbyte:
        scene(execute, airbyte, {**SYNC, "job_type": "reset"})
        assert airbyte.newest.job_type == "reset"


def test_a_job_that_was_cancelled_at_airbyte_has_failed_and_is_not_started_again() -> None:
    with FakeAirbyte(plan=("running", "cancelled")) as airbyte:
        assert scene(execute, airbyte) == Failed("Job run 12345 has been cancelled.", retryable=False)
    with FakeAirbyte(plan=("running", "failed")) as airbyte:
        assert scene(execute, airbyte) == Failed("Job run 12345 has failed.")


def test_without_credentials_no_token_is_asked_for() -> None:
    with FakeAirbyte(plan=("succeeded",), auth=False) as airbyte:
        assert isinstance(scene(execute, airbyte), Succeeded)
        assert airbyte.seen["token"] == 0
        assert all("authorization" not in request.headers for request in airbyte.requests)


def test_cancelled_it_cancels_the_job_at_airbyte() -> None:
    async def give_up(executor: AirbyteExecutor, run: RunContext) -> None:
        following = asyncio.ensure_future(executor.execute(run))
        await eventually(lambda: airbyte.seen["status"] > 1)
        assert await cancel(following)

    with FakeAirbyte() as airbyte:
        scene(give_up, airbyte)
        assert (airbyte.newest.status, airbyte.cancels[12345]) == ("cancelled", 1)


def test_cancelling_may_be_repeated_and_a_job_that_is_gone_needs_none() -> None:
    async def repeat(executor: AirbyteExecutor, run: RunContext) -> None:
        job = await executor.create(run)
        await executor.delete(run, job)
        await executor.delete(run, job)
        airbyte.forget(12345)
        with pytest.raises(JobGone, match="does not know the job 12345: resource-not-found: could not find a resource"):
            await executor.delete(run, job)

    with FakeAirbyte() as airbyte:
        scene(repeat, airbyte)
        assert airbyte.cancels[12345] == 2


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_watching_is_told_and_passes(fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    with FakeAirbyte(plan=("running", "running", "succeeded")) as airbyte, caplog.at_level(logging.WARNING):
        # aiohttp asks once more by itself where a kept connection breaks.
        airbyte.fail(fault, on="status", times=4)
        assert isinstance(scene(execute, airbyte, {**WATCH, **SYNC, "job_id": None}), Succeeded)
        assert airbyte.submitted == {"c-1": 1}
    assert caplog.records
    for record in caplog.records:
        assert_told(record.getMessage().removeprefix("job 12345: "), FAULTS[fault])


def assert_told(text: str, pattern: str) -> None:
    assert re.search(pattern, text), text
    assert "\n" not in text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_outlasts_the_budget_is_the_end(fault: Any) -> None:
    with FakeAirbyte() as airbyte:
        airbyte.add("c-1")
        airbyte.fail(fault, on="status", times=None)
        with pytest.raises(RetryableError) as caught:
            scene(execute, airbyte, {**WATCH, "error_budget": "20ms"})
        assert_told(str(caught.value), FAULTS[fault])
        # Given up, it is cancelled.
        assert airbyte.newest.status == "cancelled"


def test_the_wait_that_airbyte_asks_for_is_passed_on() -> None:
    with FakeAirbyte() as airbyte:
        airbyte.add("c-1")
        airbyte.fail(429, on="status", retry_after=17)
        airbyte.fail(503, on="status", retry_after=now().strftime("%a, %d %b 2099 %H:%M:%S GMT"))

        async def ask(executor: AirbyteExecutor, run: RunContext) -> list[Any]:
            job = executor.watched(run)
            assert job is not None
            return [await raised(executor.status(run, job)) for _ in range(2)]

        first, second = scene(ask, airbyte, WATCH)
        assert first.retry_after == timedelta(seconds=17)
        assert second.retry_after > timedelta(days=365 * 50)


def test_a_slow_answer_is_told_as_such() -> None:
    with FakeAirbyte(auth=False) as airbyte:
        airbyte.add("c-1")
        airbyte.fail("slow", on="status", seconds=20)
        error = scene(lambda e, run: raised(e.status(run, e.watched(run))), airbyte, WATCH, timeout="250ms")
        assert str(error) == (f"Connection timeout: Airbyte did not answer GET {airbyte.host}/jobs/12345 within 0.25 s")
        assert error.outcome_known


def test_nobody_listening_and_no_such_name_are_told_as_such() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with FakeAirbyte(auth=False) as airbyte:
        refused = scene(lambda e, run: raised(e.create(run)), airbyte, host=f"http://127.0.0.1:{port}/v1")
        unnamed = scene(lambda e, run: raised(e.create(run)), airbyte, host="http://airbyte.invalid/v1")
        no_tls = scene(lambda e, run: raised(e.create(run)), airbyte, host=airbyte.host.replace("http:", "https:"))
    assert str(refused) == f"Connection error: Unable to reach Airbyte at http://127.0.0.1:{port}: connection refused"
    assert str(unnamed) == (
        "Connection error: Unable to reach Airbyte at http://airbyte.invalid: the name airbyte.invalid cannot be resolved"
    )
    assert str(no_tls).startswith(f"Connection error: Unable to reach Airbyte at https://127.0.0.1:{airbyte.port}: ")
    for error in (refused, unnamed, no_tls):
        assert isinstance(error, RetryableError)
        assert error.outcome_known


def test_an_unknown_job_is_final_but_a_page_of_a_gateway_is_not() -> None:
    with FakeAirbyte() as airbyte:
        gone = scene(lambda e, run: raised(e.status(run, e.watched(run))), airbyte, {"job_id": 777})
        assert isinstance(gone, JobGone)
        assert str(gone) == (
            "Airbyte does not know the job 777: resource-not-found: could not find a resource for: 777"
        )
        elsewhere = scene(
            lambda e, run: raised(e.status(run, e.watched(run))),
            airbyte,
            {"job_id": 777},
            host=airbyte.host + "/elsewhere",
        )
    assert isinstance(elsewhere, RetryableError)
    assert "/elsewhere/" in str(elsewhere)
    assert str(elsewhere).endswith("(is /v1 or /api/public/v1 missing at the end of `host`?)")


# --- submitting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        *((status, True) for status in (503, 429, 403, 302)),
        *((fault, False) for fault in (500, 502, "drop", "lost answer", "html", "bad json", "not an object")),
    ],
)
def test_after_a_fault_while_submitting_it_is_said_whether_there_may_be_a_job(fault: Any, known: bool) -> None:
    with FakeAirbyte() as airbyte:
        airbyte.fail(fault, on="create")
        error = scene(lambda e, run: raised(e.create(run)), airbyte)
        assert isinstance(error, RetryableError)
        assert error.outcome_known is known
        assert airbyte.seen["create"] == 1, "a submission is never repeated by itself"
        assert airbyte.submitted["c-1"] == (1 if fault == "lost answer" else 0)


@pytest.mark.parametrize("fault", [400, 404, 422])
def test_what_airbyte_refuses_to_start_has_failed_for_good(fault: int) -> None:
    with FakeAirbyte() as airbyte:
        airbyte.fail(fault, on="create")
        error = scene(lambda e, run: raised(e.create(run)), airbyte)
        assert isinstance(error, PermanentError)
        assert f"with {fault} (" in str(error)
        unknown = scene(lambda e, run: raised(e.create(run)), airbyte, {"connection_id": "unknown"})
        assert str(unknown).endswith("resource-not-found: could not find a resource for: unknown")


def test_a_busy_connection_is_told_in_airbytes_words() -> None:
    with FakeAirbyte() as airbyte:
        airbyte.add("c-1")
        error = scene(lambda e, run: raised(e.create(run)), airbyte)
        assert isinstance(error, JobBusy)
        assert str(error) == "Airbyte runs a job of the connection already: A sync is already running for: c-1"


@pytest.mark.parametrize("fault", ["lost answer", "hold"])
@pytest.mark.parametrize("offset", [timedelta(0), timedelta(hours=-3), timedelta(minutes=9)])
def test_the_job_of_an_interrupted_submission_is_found_by_airbytes_own_clock(fault: Any, offset: timedelta) -> None:
    async def interrupted(executor: AirbyteExecutor, run: RunContext) -> None:
        began = run.now()
        assert await executor.find(run, began) is None
        airbyte.fail(fault, on="create")
        creating = asyncio.ensure_future(executor.create(run))
        if fault == "hold":
            await eventually(lambda: airbyte.held.acquire(blocking=False))
            assert await cancel(creating)
        else:
            error = await raised(creating)
            assert isinstance(error, RetryableError)
            assert not error.outcome_known
        found = await executor.find(run, began)
        assert found is not None
        assert found.meta == {"job_id": airbyte.newest.job_id}
        assert isinstance(await raised(executor.create(run)), JobBusy)
        assert airbyte.submitted == {"c-1": 1}

    with FakeAirbyte(offset=offset) as airbyte:
        # What others have done before, and on other connections, is not ours.
        for minutes in range(30):
            airbyte.add("c-1", "succeeded", ago=timedelta(minutes=minutes + 1))
        airbyte.add("c-2")
        scene(interrupted, airbyte)


def test_whatever_happens_to_submissions_every_run_gets_one_job_and_finds_its_own() -> None:
    dice = random.Random(7)
    faults: list[Any] = ["drop", "lost answer", "lost answer", 500, 502, 503, 429, 401, "html"]

    async def persist(executor: AirbyteExecutor, number: int) -> Job:
        """What a worker does: submit, look for what an unclear end has left, and submit again only if there is nothing."""
        run = make_run(executor, {"connection_id": f"c-{number}"}, clock=now)
        run.http_session = lambda: session
        began = run.now()
        while True:
            try:
                return await executor.create(run)
            except RetryableError as error:
                unclear = isinstance(error, JobBusy) or not error.outcome_known
            while unclear:
                try:
                    if found := await executor.find(run, began):
                        return found
                    unclear = False
                except RetryableError:
                    pass  # Whatever the listing suffers from, it is asked again.

    async def all_of_them() -> list[Job]:
        nonlocal session
        async with RunContext("session") as keeper:
            session = keeper.http
            executor = AirbyteExecutor(airbyte.options)
            return await asyncio.gather(*(persist(executor, number) for number in range(80)))

    session: Any = None
    with FakeAirbyte() as airbyte:
        for _ in range(70):
            airbyte.fail(dice.choice(faults), on=dice.choice(["create", "create", "find", "token"]))
        jobs = asyncio.run(all_of_them())
        assert set(airbyte.submitted.values()) == {1}
        assert [airbyte.jobs[job.meta["job_id"]].connection_id for job in jobs] == [f"c-{n}" for n in range(80)]
        assert airbyte.seen["find"] > 20


def test_of_several_jobs_since_the_first_is_the_one() -> None:
    async def find(executor: AirbyteExecutor, run: RunContext) -> Any:
        return [await executor.find(run, run.now() - timedelta(hours=hours)) for hours in (1, 3, 500)]

    with FakeAirbyte() as airbyte:
        # Three pages of them, made in another order than their numbers.
        for hours in [2, 400, *range(130, 399)]:
            airbyte.add("c-1", "succeeded", ago=timedelta(hours=hours))
        none, late, first = scene(find, airbyte)
        assert none is None
        assert late.meta == {"job_id": 12345}
        assert first.meta == {"job_id": 12346}


def test_a_listing_that_fails_finds_nothing_for_certain() -> None:
    with FakeAirbyte() as airbyte:
        for fault in (500, "html", "not an object", 400):
            airbyte.fail(fault, on="find")  # type: ignore[arg-type]
            error = scene(lambda e, run: raised(e.find(run, now())), airbyte)
            assert isinstance(error, RetryableError), fault


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_one_token_serves_many_and_a_refused_one_is_replaced_once() -> None:
    async def watch_many(executor: AirbyteExecutor, run: RunContext) -> None:
        job = await executor.create(run)
        for given in (1, 2, 3):
            answers = await asyncio.gather(*(executor.status(run, job) for _ in range(40)))
            assert {answer.phase for answer in answers} == {JobPhase.RUNNING}
            assert airbyte.tokens_given == given
            airbyte.revoke()

    with FakeAirbyte() as airbyte:
        scene(watch_many, airbyte)


def test_a_submission_with_a_refused_token_is_made_with_a_new_one() -> None:
    async def submit(executor: AirbyteExecutor, run: RunContext) -> None:
        await executor.find(run, run.now())
        airbyte.revoke()
        await executor.create(run)

    with FakeAirbyte() as airbyte:
        scene(submit, airbyte)
        assert (airbyte.submitted["c-1"], airbyte.seen["create"], airbyte.tokens_given) == (1, 2, 2)


@pytest.mark.parametrize(("expires_in", "good_for"), [(900, 840), (180, 120), (120, 60), (100, 50), (1, 0.5)])
def test_a_token_is_refreshed_a_minute_early(expires_in: int, good_for: float) -> None:
    async def ask(url: str) -> None:
        service = Service("Airbyte", timeout=timedelta(seconds=5))
        moment = 1_000.0
        tokens = Tokens(service, url, "fake-client-id", "fake-client-secret", clock=lambda: moment)
        async with RunContext("nightly-1") as run:
            first = await tokens.get(run)
            moment += good_for - 0.01
            assert await tokens.get(run) == first
            moment += 0.02
            assert await tokens.get(run) != first

    with FakeAirbyte(expires_in=expires_in) as airbyte:
        asyncio.run(ask(f"{airbyte.host}/applications/token"))
        assert airbyte.tokens_given == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (401, r"Authentication error: Airbyte refused the client credentials with 401 \(Unauthorized\)"),
        (403, r"Authentication error: Airbyte refused the client credentials with 403 \(Forbidden\)"),
        (503, r"Airbyte answered POST .*/v1/applications/token with 503 \(Service Unavailable\)"),
        ("drop", r"Connection error: Airbyte broke off POST .*/v1/applications/token"),
        ("html", r"Airbyte answered POST .*/v1/applications/token with something else than JSON: Please"),
    ],
)
def test_without_a_token_nothing_is_submitted(fault: Any, told: str) -> None:
    with FakeAirbyte() as airbyte:
        airbyte.fail(fault, on="token")
        error = scene(lambda e, run: raised(e.create(run)), airbyte)
        assert isinstance(error, RetryableError)
        assert error.outcome_known
        assert_told(str(error), told)
        assert airbyte.seen["create"] == 0
        assert isinstance(scene(lambda e, run: e.create(run), airbyte), Job)


def test_no_secret_is_shown_even_if_airbyte_says_it_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with FakeAirbyte() as airbyte, caplog.at_level(logging.DEBUG):
        wrong = "wrong-secret-with-many-letters"
        error = scene(lambda e, run: raised(e.create(run)), airbyte, client_secret=wrong)
        assert "unauthorized: no client 'fake-client-id' with '***'" in str(error)
        assert wrong not in str(error) + caplog.text

        async def echo(executor: AirbyteExecutor, run: RunContext) -> None:
            await executor.find(run, now())
            (token,) = airbyte.tokens
            airbyte.refusal = lambda status: problem(status, "unexpected", f"said: {token}")  # type: ignore[method-assign]
            airbyte.fail(500, on="create")
            error = await raised(executor.create(run))
            assert str(error).endswith("unexpected: said: ***")

        scene(echo, airbyte)


def test_options_show_no_secret() -> None:
    executor = AirbyteExecutor(
        host="http://x", client_id="a", client_secret="hunter22", proxies={"http": "http://u:hunter22@p"}
    )
    assert "hunter22" not in repr(executor.options)
    assert "client_id='a'" in repr(executor.options)


def test_faults_of_options_show_no_value() -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        build("airbyte", "airbyte", {"host": "ftp://x", "client_id": "abcdef", "client_secret": ["hunter22"]})
    assert "hunter22" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


# --- the way there ---------------------------------------------------------------------------------------------------


def test_requests_go_through_the_proxy_of_their_scheme() -> None:
    async def through(executor_options: dict[str, Any]) -> list[str]:
        async with FakeProxy() as proxy:
            executor = AirbyteExecutor(
                {**executor_options, "proxies": {"http": proxy.url, "https": "http://127.0.0.1:9"}}
            )
            async with make_run(executor, SYNC, clock=now) as run:
                assert isinstance(await executor.execute(run), Succeeded)
            return proxy.asked

    with FakeAirbyte(plan=("succeeded",), mount="/v1") as airbyte:
        asked = asyncio.run(through(airbyte.options))
        assert asked == [
            f"POST {airbyte.origin}/v1/applications/token",
            f"POST {airbyte.host}/jobs",
            f"GET {airbyte.host}/jobs/12345",
        ]
        # With no proxy to be had, nothing goes around it.
        error = scene(lambda e, run: raised(e.create(run)), airbyte, proxies={"http": "http://127.0.0.1:9"})
        assert "Unable to reach Airbyte" in str(error)
        assert airbyte.submitted["c-1"] == 1


def test_a_server_that_comes_back_is_asked_again() -> None:
    async def watch(executor: AirbyteExecutor, run: RunContext) -> Any:
        following = asyncio.ensure_future(executor.execute(run))
        await eventually(lambda: airbyte.seen["status"] > 1)
        before = airbyte.seen["status"]
        await asyncio.to_thread(airbyte.stop)
        await asyncio.to_thread(airbyte.start)
        await eventually(lambda: airbyte.seen["status"] > before)
        airbyte.end("succeeded")
        return await following

    with FakeAirbyte() as airbyte:
        assert isinstance(scene(watch, airbyte), Succeeded)


# --- options and config ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({"host": "https://airbyte.example/v1"}, []),
        ({"host": "https://u:p@airbyte.example/v1"}, []),
        ({"host": "airbyte.example"}, ["options.host"]),
        ({}, ["options.host"]),
        ({"host": "http://a", "client_id": "x"}, ["options.client_secret"]),
        ({"host": "http://u:p@a", "client_id": "x", "client_secret": "y"}, ["options.host"]),
        ({"host": "http://a", "timeout": "0s", "proxies": {"ftp": "http://p", "http": "p"}}, None),
        ({"host": "http://a", "clientid": "x"}, ["options.clientid"]),
    ],
)
def test_options_are_checked(options: dict[str, Any], paths: list[str] | None) -> None:
    found: list[str] = []
    try:
        build("airbyte", "airbyte", options)
    except ExecutorConfigError as error:
        found = [path for path, _ in error.problems]
    expected = ["options.timeout", "options.proxies.ftp", "options.proxies.http"] if paths is None else paths
    assert found == expected


@pytest.mark.parametrize(
    ("config", "faults"),
    [
        ({"connection_id": "c"}, []),
        ({"job_id": 12345}, []),
        ({"job_id": "12345"}, []),
        ({"job_id": "{inputs.job_id}"}, []),
        ({"connection_id": "{inputs.connection}"}, []),
        ({}, [("", ONE_OF_TWO)]),
        (
            {"connection_id": "c", "job_id": 1},
            [("", ONE_OF_TWO)],
        ),
        ({"job_id": "twelve"}, [("job_id", "is no whole number")]),
        ({"connection_id": "c", "job_type": "snyc"}, None),
    ],
)
def test_the_config_is_checked(config: dict[str, Any], faults: list[tuple[str, str]] | None) -> None:
    found = check_config(AirbyteExecutor, config)
    if faults is None:
        ((path, reason),) = found
        assert (path, "did you mean sync?" in reason) == ("job_type", True)
    else:
        assert found == faults


def test_the_fake_is_what_the_facts_say() -> None:
    """The shapes that this server answers with are those captured from a real one."""

    async def look() -> None:
        async with RunContext("x") as run:
            for path, status in (("/jobs/12345", 200), ("/jobs/1", 404), ("/health", 200)):
                async with run.http.get(airbyte.host + path) as reply:
                    text = await reply.text()
                    assert reply.status == status
                    if path == "/jobs/12345":
                        assert set(json.loads(text)) == {"jobId", "status", "jobType", "startTime", "connectionId"}
                    elif status == 404:
                        assert reply.content_type == "application/problem+json"
                        assert set(json.loads(text)) == {"type", "title", "status", "detail", "data"}
            for _ in range(2):
                async with run.http.post(
                    airbyte.host + "/jobs", json={"connectionId": "c", "jobType": "sync"}
                ) as reply:
                    answer = await reply.json()
            assert reply.status == 409
            assert answer["message"] == "A sync is already running for: c"
            async with run.http.get(airbyte.host + "/jobs") as reply:
                assert set(await reply.json()) == {"data", "previous", "next"}

    with FakeAirbyte(plan=("pending",), auth=False) as airbyte:
        airbyte.add("c-1", "pending")
        asyncio.run(look())
