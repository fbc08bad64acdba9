"""Any API of jobs, against a server on the loopback, told how to ask it by options alone."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from executors import (
    ExecutorConfigError,
    Failed,
    HttpJobExecutor,
    Job,
    JobBusy,
    JobGone,
    JobPhase,
    Link,
    PermanentError,
    RetryableError,
    RunContext,
    Succeeded,
)
from executors.json_paths import JsonPath
from executors.registry import build
from tests.fakes.jobs import TOKEN, FakeJobs
from tests.unit.executors.worlds import cancel, eventually, make_run, raised

QUICK = {"poll_interval": "2ms"}
Play = Callable[[HttpJobExecutor, RunContext], Awaitable[Any]]


def scene(play: Play, jobs: FakeJobs, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """Let an executor for this service play with one run; an option that is None is left out."""

    async def played() -> Any:
        merged = {key: value for key, value in {**jobs.options, **options}.items() if value is not None}
        executor = HttpJobExecutor(merged)
        run = make_run(
            executor, QUICK | (config or {}), inputs={"region": "e/u", "n": 3}, clock=lambda: datetime.now(UTC)
        )
        async with run:
            return await play(executor, run)

    return asyncio.run(played())


async def create_and_ask(executor: HttpJobExecutor, run: RunContext) -> Any:
    return await executor.status(run, await executor.create(run))


# --- a life ----------------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_job_and_its_result_the_outputs() -> None:
    async def live(executor: HttpJobExecutor, run: RunContext) -> Any:
        following = asyncio.ensure_future(executor.execute(run))
        await eventually(lambda: jobs.seen["status"] > 2)
        jobs.end("done", result={"rows": 3})
        return await following

    with FakeJobs() as jobs:
        assert scene(live, jobs) == Succeeded({"rows": 3})
        created = jobs.requests[0]
        assert created.json == {"name": "nightly-1", "args": {"region": "e/u", "n": 3}}
        assert created.headers["idempotency-key"] == "nightly-1"
        assert jobs.submitted == {"nightly-1": 1}
        assert {request.headers["authorization"] for request in jobs.requests} == {f"Bearer {TOKEN}"}
        assert jobs.requests[1].path == "/jobs/job%2F1"


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("error", Failed("disk full")),
        ("stopped", Failed("disk full", retryable=False)),
    ],
)
def test_a_job_that_ends_badly_has_failed_with_the_services_message(state: str, outcome: Failed) -> None:
    async def live(executor: HttpJobExecutor, run: RunContext) -> Any:
        following = asyncio.ensure_future(executor.execute(run))
        await eventually(lambda: jobs.jobs)
        jobs.end(state, error="disk full")
        return await following

    with FakeJobs() as jobs:
        assert scene(live, jobs) == outcome


@pytest.mark.parametrize(
    ("state", "phase"),
    [("waiting", "QUEUED"), ("working", "RUNNING"), ("never heard of", "RUNNING"), ("done", "SUCCEEDED")],
)
def test_statuses_mean_what_phases_says_and_all_others_still_run(state: str, phase: str) -> None:
    with FakeJobs(state=state) as jobs:
        assert scene(create_and_ask, jobs).phase == phase


def test_statuses_need_not_be_texts_and_may_lie_deep() -> None:
    with FakeJobs(state="x") as jobs:
        status = scene(create_and_ask, jobs, status="$['result']", phases={"null": "SUCCEEDED"})
        assert status.phase is JobPhase.SUCCEEDED
        missing = scene(lambda e, run: raised(create_and_ask(e, run)), jobs, status="$.page.state")
        assert isinstance(missing, RetryableError)
        assert "without a status at $.page.state: " in str(missing)


def test_links_are_paths_or_urls() -> None:
    with FakeJobs() as jobs:
        status = scene(create_and_ask, jobs, links={"a": "$.page.url", "b": "https://x/{id}?k={key}", "c": "$.no"})
        assert status.links == (
            Link("a", "https://jobs.example/pages/job/1"),
            Link("b", "https://x/job%2F1?k=nightly-1"),
        )


@pytest.mark.parametrize(
    ("path", "result", "outputs"),
    [
        ("$.result", {"rows": 3}, {"rows": 3}),
        ("$.result", [1, 2], {"result": [1, 2]}),
        ("$.result.rows", {"rows": 3}, {"result": 3}),
        ("$.result.none", {"rows": 3}, None),
    ],
)
def test_outputs_are_a_mapping_or_made_one(path: str, result: Any, outputs: Any) -> None:
    async def ask(executor: HttpJobExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        jobs.end("done", result=result)
        return await executor.status(run, job)

    with FakeJobs() as jobs:
        assert scene(ask, jobs, outputs=path).outputs == outputs
        assert scene(ask, jobs, outputs=None).outputs["result"] == result


def test_outputs_that_cannot_be_stored_end_the_job_as_failed() -> None:
    async def ask(executor: HttpJobExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        jobs.end("done", result={"x": float("nan")})
        return await executor.status(run, job)

    with FakeJobs() as jobs:
        status = scene(ask, jobs)
        assert (status.phase, status.retryable) == (JobPhase.FAILED, False)
        assert (
            status.message == "what the job left cannot be stored: outputs.x is nan, a number that JSON does not have"
        )


def test_what_is_too_long_to_keep_is_said_to_be_left_out() -> None:
    async def ask(executor: HttpJobExecutor, run: RunContext) -> Any:
        job = await executor.create(run)
        jobs.end("done", result="x" * size)
        return await executor.status(run, job)

    with FakeJobs() as jobs:
        size = 65_000
        assert scene(ask, jobs, outputs=None).outputs["result"] == "x" * size
        size = 66_000
        assert scene(ask, jobs, outputs=None).outputs == {"truncated": True}
        size = 5_000_000
        error = scene(lambda e, run: raised(ask(e, run)), jobs)
        assert isinstance(error, RetryableError)
        assert str(error).endswith("/jobs/job%2F3 with more than 4 MiB")


def test_a_job_that_exists_is_only_watched() -> None:
    with FakeJobs(state="done") as jobs:
        scene(lambda e, run: e.create(run), jobs)
        assert isinstance(scene(lambda e, run: e.execute(run), jobs, {"job_id": "job/1"}), Succeeded)
        assert jobs.seen["create"] == 1


def test_cancelled_it_cancels_the_job() -> None:
    async def give_up(executor: HttpJobExecutor, run: RunContext) -> None:
        following = asyncio.ensure_future(executor.execute(run))
        await eventually(lambda: jobs.seen["status"])
        assert await cancel(following)

    with FakeJobs() as jobs:
        scene(give_up, jobs)
        assert (jobs.jobs["job/1"].state, jobs.cancels["job/1"]) == ("stopped", 1)


def test_a_service_without_cancel_says_so_at_once() -> None:
    with FakeJobs() as jobs:
        error = scene(lambda e, run: raised(e.delete(run, Job({"id": "job/1"}))), jobs, cancel=None)
        assert isinstance(error, PermanentError)
        assert "tell no way to cancel" in str(error)


# --- finding ---------------------------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_key() -> None:
    async def find(executor: HttpJobExecutor, run: RunContext) -> Any:
        assert executor.can_find
        assert await executor.find(run, run.now()) is None
        jobs.fail("lost answer", on="create")
        error = await raised(executor.create(run))
        assert isinstance(error, RetryableError)
        assert not error.outcome_known
        return await executor.find(run, run.now())

    with FakeJobs() as jobs:
        assert scene(find, jobs) == Job({"id": "job/1"}, "job/1")
        assert [request.path for request in jobs.requests if request.endpoint == "find"] == ["/jobs?name=nightly-1"] * 2


def test_a_service_that_honours_the_key_is_simply_asked_again() -> None:
    async def find(executor: HttpJobExecutor, run: RunContext) -> Any:
        assert executor.can_find
        jobs.fail("lost answer", on="create")
        await raised(executor.create(run))
        return [await executor.find(run, run.now()) for _ in range(3)]

    with FakeJobs(idempotent=True) as jobs:
        assert scene(find, jobs, find=None, idempotent=True) == [Job({"id": "job/1"}, "job/1")] * 3
        assert jobs.submitted == {"nightly-1": 1}


def test_without_either_nobody_can_tell() -> None:
    with FakeJobs() as jobs:
        error = scene(lambda e, run: raised(e.find(run, run.now())), jobs, find=None)
        assert isinstance(error, NotImplementedError)
        assert not HttpJobExecutor({key: value for key, value in jobs.options.items() if key != "find"}).can_find


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [500, 503, 429, 408, 401, 403, 302, 400, "drop", "html", "bad json", "not an object"])
def test_a_fault_while_watching_passes(fault: Any) -> None:
    with FakeJobs(state="done") as jobs:
        jobs.fail(fault, on="status", times=3)
        assert isinstance(scene(lambda e, run: e.execute(run), jobs), Succeeded)
        assert jobs.submitted == {"nightly-1": 1}
        jobs.fail(fault, on="status", times=None)
        error = scene(lambda e, run: raised(e.execute(run)), jobs, {"error_budget": "10ms"})
        assert isinstance(error, RetryableError)
        assert re.search(
            r"(the service|The service) (answered|broke off) GET http://127.0.0.1:\d+/jobs/job%2F2 ?", str(error)
        )
        assert jobs.jobs["job/2"].state == "done"


@pytest.mark.parametrize(
    ("fault", "known", "kind"),
    [
        (400, True, PermanentError),
        (404, True, PermanentError),
        (422, True, PermanentError),
        (409, True, JobBusy),
        (401, True, RetryableError),
        (503, True, RetryableError),
        (500, False, RetryableError),
        ("drop", False, RetryableError),
        ("html", False, RetryableError),
        ("not an object", False, RetryableError),
    ],
)
def test_after_a_fault_while_submitting_it_is_said_whether_there_may_be_a_job(
    fault: Any, known: bool, kind: type
) -> None:
    with FakeJobs() as jobs:
        jobs.fail(fault, on="create")
        error = scene(lambda e, run: raised(e.create(run)), jobs)
        assert (type(error), error.outcome_known) == (kind, known)
        assert jobs.seen["create"] == 1


def test_an_answer_without_an_id_leaves_it_open_whether_there_is_a_job() -> None:
    with FakeJobs() as jobs:
        error = scene(lambda e, run: raised(e.create(run)), jobs, id="$.data.id")
        assert isinstance(error, RetryableError)
        assert not error.outcome_known
        assert str(error).startswith("the service accepted a job and named none at $.data.id: ")


def test_busy_and_gone_are_what_the_options_say() -> None:
    async def gone(executor: HttpJobExecutor, run: RunContext) -> None:
        for call in (executor.status, executor.delete):
            error = await raised(call(run, Job({"id": "x"}, "x")))
            assert isinstance(error, JobGone)
            assert str(error) == "the service does not know the job x: 404 (Not Found): no such job"

    with FakeJobs() as jobs:
        scene(gone, jobs)
        jobs.fail(503, on="create")
        assert isinstance(scene(lambda e, run: raised(e.create(run)), jobs, busy=[503]), JobBusy)
        error = scene(lambda e, run: raised(e.status(run, Job({"id": "x"}))), jobs, gone=[410])
        assert isinstance(error, RetryableError)
        # A gateway's page is no answer of the service's.
        jobs.refusal = lambda status: _page(status)  # type: ignore[method-assign]
        jobs.fail(404, on="status")
        assert isinstance(scene(lambda e, run: raised(e.status(run, Job({"id": "x"}))), jobs), RetryableError)


def _page(status: int) -> Any:
    from aiohttp import web

    return web.Response(status=status, text="<h1>Not here</h1>", content_type="text/html")


def test_a_run_without_the_inputs_that_the_options_name_is_never_submitted() -> None:
    with FakeJobs() as jobs:
        create = {"url": f"{jobs.origin}/jobs", "json": {"team": "{inputs.team}"}}
        error = scene(lambda e, run: raised(e.create(run)), jobs, create=create)
        assert isinstance(error, PermanentError)
        assert "'team', which this run does not have" in str(error)
        assert jobs.seen["create"] == 0


def test_a_slow_service_is_told_as_such_and_its_wait_passed_on() -> None:
    with FakeJobs() as jobs:
        jobs.fail("slow", on="create", seconds=20)
        error = scene(lambda e, run: raised(e.create(run)), jobs, timeout="250ms")
        assert str(error) == f"Connection timeout: the service did not answer POST {jobs.origin}/jobs within 0.25 s"
        assert not error.outcome_known
        jobs.fail(429, on="create", retry_after=9)
        error = scene(lambda e, run: raised(e.create(run)), jobs)
        assert error.retry_after == timedelta(seconds=9)


def test_values_stay_one_part_of_a_url() -> None:
    with FakeJobs() as jobs:
        error = scene(
            lambda e, run: raised(e.create(run)),
            jobs,
            create={"url": jobs.origin + "/{inputs.region}/x?n={inputs.n}&k={{key}}"},
        )
        assert f"POST {jobs.origin}/e%2Fu/x with 404" in str(error)


def test_tokens_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def look(executor: HttpJobExecutor, run: RunContext) -> None:
        job = await executor.create(run)
        assert await executor.logs(run, job) == "log of job/1, asked with ***\n"
        jobs.refusal = lambda status: _said(status, f"token {TOKEN} is bad")  # type: ignore[method-assign]
        jobs.fail(401, on="status")
        error = await raised(executor.status(run, job))
        assert str(error).endswith("401 (Unauthorized): token *** is bad")
        jobs.end("error", error=f"no right with {TOKEN}")
        assert (await executor.status(run, job)).message == "no right with ***"

    with FakeJobs() as jobs, caplog.at_level(logging.DEBUG):
        scene(look, jobs)
        query = scene(
            lambda e, run: raised(e.create(run)),
            jobs,
            create={"url": f"http://u:pa55word@127.0.0.1:{jobs.port}/x?token=abc"},
            headers={},
        )
        assert str(query).startswith(f"the service answered POST http://127.0.0.1:{jobs.port}/x with 404")
        assert TOKEN not in caplog.text


def _said(status: int, text: str) -> Any:
    from aiohttp import web

    return web.json_response({"message": text}, status=status)


# --- options ---------------------------------------------------------------------------------------------------------


def test_every_fault_of_the_options_is_named() -> None:
    options = {
        "create": {"url": "jobs", "method": "SEND", "json": {"a": "{id}"}},
        "poll": {"url": "http://x/{job}", "headers": {"X-A": "{ key }"}},
        "cancel": {"url": "http://x/{id}"},
        "find": {"url": "http://x/{inputs.anything}"},
        "id": "id",
        "status": "$.state[",
        "phases": {"working": "RUNNING"},
        "links": {"a": "$..x", "b": "http://x/{nope}"},
        "proxies": {"http": "proxy"},
        "timeout": "0s",
    }
    with pytest.raises(ExecutorConfigError) as caught:
        build("jobs", "http_job", options)
    assert [path.removeprefix("options.") for path, _ in caught.value.problems] == [
        "create.url",
        "create.method",
        "create.json.a",
        "poll.url",
        "poll.headers.X-A",
        "id",
        "status",
        "links.a",
        "links.b",
        "phases",
        "timeout",
        "proxies.http",
    ]


def test_what_is_missing_and_no_phase_at_all_are_named() -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        build("jobs", "http_job", {"create": {}, "phases": {"done": "SUCCESS"}})
    assert [path for path, _ in caught.value.problems] == [
        "options.create.url",
        "options.phases.done",
        "options.poll",
        "options.id",
        "options.status",
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", {"a": {"b c": [10, 11]}, "x-y": 1}),
        ("$.a['b c'][0]", 10),
        ('$.a["b c"][-1]', 11),
        ("$.x-y", 1),
        ("$.a.b", None),
        ("$.a['b c'][2]", None),
        ("$[0]", None),
        ("$.x-y.z", None),
    ],
)
def test_paths_lead_into_documents(path: str, found: Any) -> None:
    assert JsonPath.parse(path).look_up({"a": {"b c": [10, 11]}, "x-y": 1}) == found


@pytest.mark.parametrize("path", ["", "a", "$a", "$.", "$..a", "$[a]", "$.a b", "$['a]", "$[0", "$.a."])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        JsonPath.parse(path)


# --- where ids stand, and who says that a job is gone ----------------------------------------------------------------


class LocatedJobs(FakeJobs):
    """A service that answers `create` with nothing but the URL of what it made."""

    async def _create(self, request: web.Request) -> web.Response:
        await super()._create(request)
        return web.Response(status=201, headers={"Location": f"/v2/jobs/job%2F{len(self.jobs)}/"})


def test_the_id_may_stand_in_the_location_that_create_leads_to() -> None:
    with LocatedJobs() as jobs:
        assert scene(create_and_ask, jobs, id="Location", find=None).phase is JobPhase.RUNNING
        assert [request.path for request in jobs.requests] == ["/jobs", "/jobs/job%2F1"]


def test_a_service_that_leads_nowhere_may_have_made_a_job() -> None:
    with FakeJobs() as jobs:
        error = scene(lambda e, run: raised(e.create(run)), jobs, id="Location", find=None)
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert "named none at Location" in str(error)


def test_no_answer_of_find_has_such_a_header() -> None:
    with (
        FakeJobs() as jobs,
        pytest.raises(ExecutorConfigError, match=r"options\.id: stands in a header, which no answer of find has"),
    ):
        HttpJobExecutor({**jobs.options, "id": "Location"})


class HiddenJobs(FakeJobs):
    """A service behind a gateway that does not reach it any more."""

    answer: tuple[int, str, str] = (404, "404 page not found", "text/plain")

    async def _get(self, request: web.Request) -> web.Response:
        status, text, kind = self.answer
        return web.Response(status=status, text=text, content_type=kind)


@pytest.mark.parametrize(
    ("text", "kind", "gone"),
    [
        ("404 page not found", "text/plain", False),
        ("default backend - 404", "application/json", False),
        ("<h1>404</h1>", "text/html", False),
        ('{"error": "no such job"}', "text/plain", False),
        ('{"error": "no such job"}', "application/json", True),
        ('{"title": "gone"}', "application/problem+json", True),
        ("", "text/plain", True),
    ],
)
def test_only_the_service_itself_says_that_a_job_is_gone(text: str, kind: str, gone: bool) -> None:
    with HiddenJobs() as jobs:
        jobs.answer = (404, text, kind)
        error = scene(lambda e, run: raised(create_and_ask(e, run)), jobs)
    assert isinstance(error, JobGone if gone else RetryableError)
    assert "404" in str(error)
