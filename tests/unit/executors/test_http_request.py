"""HTTP requests against real servers on the loopback: what is sent, and what each answer means for the run."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from executors import HttpExecutor, PermanentError, RetryableError, Succeeded, as_outcome
from executors.registry import check_config
from tests.unit.executors.worlds import make_run, raised

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Target:
    """A server that keeps what it was sent."""

    def __init__(self, answer: Handler) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.path_qs, headers, await request.read()))
        return await self.answer(request)


def exchange(
    answer: Handler, config: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **members: Any
) -> tuple[Any, Target, Any]:
    """Send one request to a server that answers so: the outcome or error, the server, the run."""

    async def scene() -> tuple[Any, Target, Any]:
        target = Target(answer)
        server = web.AppRunner(_app(target))
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        port = server.addresses[0][1]
        executor = HttpExecutor(options)
        run = make_run(executor, {"url": f"http://127.0.0.1:{port}/jobs?a=1", **(config or {})}, **members)
        run.clock = lambda: NOW
        try:
            async with run:
                try:
                    return await executor.execute(run), target, run
                except (RetryableError, PermanentError) as error:
                    return error, target, run
        finally:
            await server.cleanup()

    return asyncio.run(scene())


def _app(target: Target) -> web.Application:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", target.handle)
    return app


async def fine(request: web.Request) -> web.Response:
    return web.json_response({"id": 7})


def status(code: int, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            status=code, text=f"said {code}", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return answer


def test_the_inputs_are_posted_as_json_under_the_runs_key() -> None:
    outcome, target, _ = exchange(fine, inputs={"region": "eu", "name": "Zoë"}, key="nightly-1-2")
    ((method, path, headers, body),) = target.seen
    assert (method, path) == ("POST", "/jobs?a=1")
    assert json.loads(body) == {"region": "eu", "name": "Zoë"}
    assert headers["idempotency-key"] == "nightly-1-2"
    assert headers["content-type"] == "application/json"
    assert isinstance(outcome, Succeeded)
    assert outcome.outputs is not None
    assert outcome.outputs["status"] == 200
    assert outcome.outputs["body"] == {"id": 7}
    assert outcome.outputs["truncated"] is False
    assert outcome.outputs["headers"]["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "charset", ["nonsense", "hex", "idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf-16"]
)
def test_a_body_is_a_text_whatever_encoding_it_claims(charset: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"ab\xffcd\\ud800", headers={"Content-Type": f"text/plain; charset={charset}"})

    outcome, _, _ = exchange(answer)
    assert isinstance(outcome, Succeeded)
    assert outcome.outputs is not None
    assert as_outcome(outcome) is outcome
    assert "\ufffd" in outcome.outputs["body"] or charset in ("utf-16", "unicode_escape", "raw_unicode_escape")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_cannot_be_unpacked_fails_the_attempt_with_an_unknown_outcome(coding: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"\xff\xff\xff\xff", headers={"Content-Encoding": coding})

    error, _, _ = exchange(answer)
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert "Can not decode content-encoding" in str(error)


@pytest.mark.parametrize(
    ("config", "sent", "kind"),
    [
        ({"json": {"a": [1, None]}}, b'{"a": [1, null]}', "application/json"),
        ({"json": [], "method": "PUT"}, b"[]", "application/json"),
        ({"body": "plain ü", "headers": {"Content-Type": "text/plain"}}, "plain ü".encode(), "text/plain"),
        ({"method": "GET"}, b"", None),
        ({"method": "DELETE"}, b"", None),
    ],
)
def test_what_the_config_says_is_sent(config: dict[str, Any], sent: bytes, kind: str | None) -> None:
    _, target, _ = exchange(fine, config)
    ((method, _, headers, body),) = target.seen
    assert (method, body, headers.get("content-type")) == (config.get("method", "POST"), sent, kind)


def test_headers_of_the_options_are_sent_and_those_of_the_task_win() -> None:
    options = {"headers": {"Authorization": "Bearer tok-123", "X-Team": "data"}}
    _, target, _ = exchange(fine, {"headers": {"x-team": "ops"}}, options)
    headers = target.seen[0][2]
    assert (headers["authorization"], headers["x-team"]) == ("Bearer tok-123", "ops")


def test_a_signature_is_the_hmac_of_the_body_with_a_named_secret() -> None:
    config = {"json": {"a": 1}, "signature": {"secret": "hook", "header": "X-Hub-Signature-256"}}
    _, target, _ = exchange(fine, config, secrets={"hook": "tok-123"})
    _, _, headers, body = target.seen[0]
    assert headers["x-hub-signature-256"] == "sha256=" + hmac.new(b"tok-123", body, hashlib.sha256).hexdigest()


def test_a_signature_without_its_secret_fails_for_good_and_sends_nothing() -> None:
    error, target, _ = exchange(fine, {"signature": {"secret": "hook"}})
    assert isinstance(error, PermanentError)
    assert str(error) == "the secret 'hook' that signs the request is not declared"
    assert target.seen == []


@pytest.mark.parametrize(
    ("code", "retry_after", "known"),
    [
        (429, None, True),
        (408, None, True),
        (500, None, True),
        (503, None, True),
        (502, None, False),
        (504, None, False),
    ],
)
def test_a_target_in_trouble_is_asked_again_later(code: int, retry_after: None, known: bool) -> None:
    error, target, run = exchange(status(code))
    assert isinstance(error, RetryableError)
    assert str(error).endswith(f"/jobs?a=1 answered {code}")
    assert (error.retry_after, error.outcome_known) == (retry_after, known)
    assert len(target.seen) == 1
    assert f"HTTP {code}" in run.output.text()
    assert f"said {code}" in run.output.text()


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "120"}, timedelta(seconds=120)),
        ({"Retry_After": "0"}, timedelta(0)),
        (
            {"Retry_After": "Sat, 21 Nov 2026 03:00:10 GMT", "Date": "Sat, 21 Nov 2026 03:00:00 GMT"},
            timedelta(seconds=10),
        ),
        ({"Retry_After": "Sat, 21 Nov 2026 02:00:00 GMT", "Date": "Sat, 21 Nov 2026 03:00:00 GMT"}, timedelta(0)),
        ({"Retry_After": "Sat, 21 Nov 2026 02:05:00 GMT", "Date": "nonsense"}, timedelta(minutes=5)),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_targets_own_clock(
    headers: dict[str, str], wait: timedelta | None
) -> None:
    error, _, _ = exchange(status(503, **headers))
    assert error.retry_after == wait


@pytest.mark.parametrize("code", [400, 401, 404, 409, 422])
def test_a_refusal_fails_for_good(code: int) -> None:
    error, _, run = exchange(status(code))
    assert isinstance(error, PermanentError)
    assert f"answered {code}" in str(error)
    assert f"said {code}" in run.output.text()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_redirect_is_not_followed(method: str) -> None:
    error, target, _ = exchange(status(302, Location="http://elsewhere.example/"), {"method": method})
    assert isinstance(error, PermanentError)
    assert str(error).endswith("answered 302 and leads to http://elsewhere.example/: name that URL")
    assert len(target.seen) == 1


def test_expected_statuses_replace_the_usual_ones() -> None:
    outcome, _, _ = exchange(status(404), {"expect": [200, 404]})
    assert outcome.outputs["status"] == 404
    error, _, _ = exchange(status(202), {"expect": [200, 404]})
    assert isinstance(error, PermanentError)
    assert str(error).endswith("answered 202, not 200 or 404")


def answering(content: bytes, kind: str = "text/plain", **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("content", "kind", "body"),
    [
        (b"plain", "text/plain", "plain"),
        (b"\xff\0", "application/octet-stream", "\ufffd\ufffd"),
        (b'{"a": 1}', "application/problem+json", {"a": 1}),
        (b"", "application/json", None),
        (b'{"a": NaN}', "application/json", '{"a": NaN}'),
        (b'{"a": "\\ud800"}', "application/json", '{"a": "\\ud800"}'),
        (b"{broken", "application/json", "{broken"),
        (b"[" * 60_000, "application/json", "[" * 60_000),
    ],
)
def test_the_body_is_kept_as_json_if_it_is_that_else_as_text(content: bytes, kind: str, body: Any) -> None:
    outcome, _, _ = exchange(answering(content, kind))
    assert outcome.outputs["body"] == body


def test_of_a_large_body_64_kib_are_kept() -> None:
    outcome, _, _ = exchange(answering(b"x" * 10_000_000))
    assert outcome.outputs["body"] == "x" * 65_536
    assert outcome.outputs["truncated"] is True
    outcome, _, _ = exchange(answering(b"x" * 65_536))
    assert outcome.outputs["truncated"] is False


def test_cookies_are_not_kept() -> None:
    outcome, _, _ = exchange(status(200, Set_Cookie="session=tok-123"))
    assert "tok-123" not in str(outcome.outputs)


def wire(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **config: Any
) -> tuple[Any, int]:
    """Send one request to a bare socket server: the outcome or error, and how many connections it got."""

    async def scene() -> tuple[Any, int]:
        connections = 0

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(counted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        executor = HttpExecutor()
        async with server, make_run(executor, {"url": f"http://127.0.0.1:{port}/", **config}) as run:
            try:
                result: Any = await executor.execute(run)
            except (RetryableError, PermanentError) as error:
                result = error
            return result, connections

    return asyncio.run(scene())


async def _close_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def _reset_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def _half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Until the client gives up.
    await reader.read(-1)


@pytest.mark.parametrize("serve", [_close_after_reading, _reset_after_reading, _half_a_body])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_connection_broken_after_sending_leaves_the_outcome_unknown_and_is_not_repeated(
    serve: Any, method: str
) -> None:
    error, connections = wire(serve, method=method)
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert "the outcome is unknown" in str(error)
    assert connections == 1


def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown() -> None:
    error, connections = wire(_hang, timeout="200ms")
    assert isinstance(error, RetryableError)
    assert not error.outcome_known
    assert connections == 1


def test_who_cannot_be_connected_to_has_not_been_sent_anything() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def scene() -> Any:
            executor = HttpExecutor()
            async with make_run(executor, {"url": f"http://127.0.0.1:{port}/"}) as run:
                return await raised(executor.execute(run))

        error = asyncio.run(scene())
    assert isinstance(error, RetryableError)
    assert error.outcome_known
    assert "no connection" in str(error)


def test_a_connection_refused_at_first_is_tried_again_within_the_call(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> Any:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        executor = HttpExecutor()
        async with make_run(executor, {"url": f"http://127.0.0.1:{port}/"}) as run:
            task = asyncio.ensure_future(executor.execute(run))
            while "trying again" not in caplog.text:
                assert not task.done()
                await asyncio.sleep(0)
            server = web.AppRunner(_app(Target(fine)))
            await server.setup()
            listener.listen()
            await web.SockSite(server, listener).start()
            try:
                return await task
            finally:
                await server.cleanup()

    with caplog.at_level("INFO", logger="executors"):
        outcome = asyncio.run(scene())
    assert outcome.outputs["status"] == 200


def test_only_hosts_that_the_options_allow_are_asked() -> None:
    error, target, _ = exchange(fine, options={"hosts": ["example.org"]})
    assert isinstance(error, PermanentError)
    assert "none that this executor's option `hosts` allows" in str(error)
    assert target.seen == []
    assert isinstance(exchange(fine, options={"hosts": ["127.0.0.1"]})[0], Succeeded)


def test_a_header_that_cannot_be_sent_fails_for_good() -> None:
    error, target, _ = exchange(fine, {"headers": {"X-Bad": "a\r\nX-Other: b"}})
    assert isinstance(error, PermanentError)
    assert target.seen == []


@pytest.mark.parametrize(
    ("config", "path", "reason"),
    [
        ({}, "url", "is missing"),
        ({"url": "example.org/x"}, "url", "is no URL: write http://host/path or https://host/path"),
        ({"url": "ftp://example.org/x"}, "url", "is no URL: write http://host/path or https://host/path"),
        (
            {"url": "http://h/", "method": "post"},
            "method",
            "'post' is none of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        ),
        ({"url": "http://h/", "json": {}, "body": ""}, "body", "is given as well as json: leave one of them out"),
        ({"url": "http://h/", "timeout": "0s"}, "timeout", "is not a positive duration"),
        ({"url": "http://h/", "expect": [20]}, "expect[0]", "20 is no HTTP status"),
        ({"url": "http://h/", "expect": ["200"]}, "expect[0]", "must be a whole number, not a text"),
        ({"url": "http://h/", "signature": {"header": "X"}}, "signature.secret", "is missing"),
        ({"url": "http://h/", "headers": {"X-N": 5}}, "headers.X-N", "must be a text, not a number: quote it"),
    ],
)
def test_a_wrong_config_is_refused_with_advice(config: dict[str, Any], path: str, reason: str) -> None:
    assert check_config(HttpExecutor, config) == [(path, reason)]


def test_a_url_made_of_inputs_passes_at_deploy() -> None:
    assert check_config(HttpExecutor, {"url": "{inputs.url}"}) == []
    assert check_config(HttpExecutor, {"url": "{inputs.url}/jobs"}) == []
