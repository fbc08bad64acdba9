"""The client that every executor's requests share: odd answers, many at once, proxies and certificates."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from executors import ExecutorConfigError, HttpExecutor, PermanentError, RetryableError, Succeeded
from executors.http_client import new_session, proxy_for
from executors.http_words import retry_after
from scheduler.app import HttpSessions
from tests.unit.executors.certificates import self_signed
from tests.unit.executors.worlds import make_run

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(url: str, options: dict[str, Any] | None = None, **config: Any) -> Any:
    """What a run ends with that sends one request."""
    executor = HttpExecutor(options)
    async with make_run(executor, {"url": url, **config}) as run:
        try:
            return await executor.execute(run)
        except (RetryableError, PermanentError) as error:
            return error


def answered(reply: bytes, **config: Any) -> Any:
    """What a run ends with whose request is answered by these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    async def scene() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", method="GET", **config)

    return asyncio.run(scene())


# --- odd answers -----------------------------------------------------------------------------------------------------


def test_bytes_beyond_ascii_in_a_header_are_read_as_utf_8_or_else_as_latin_1() -> None:
    lines = b"X-Name: Zo\xeb\r\nX-Town: K\xc3\xb6ln\r\nX-Both: a\r\nX-Both: \xe9\r\n"
    outcome = answered(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok")
    assert isinstance(outcome, Succeeded)
    assert outcome.outputs is not None
    headers = outcome.outputs["headers"]
    assert (headers["X-Name"], headers["X-Town"], headers["X-Both"]) == ("Zoë", "Köln", "a, é")


def test_long_headers_and_many_of_them_are_an_answer_like_any_other() -> None:
    lines = b"".join(b"X-Trace-%d: %d\r\n" % (number, number) for number in range(500))
    outcome = answered(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 100_000 + b"\r\n" + lines + b"Content-Length: 0\r\n\r\n")
    assert isinstance(outcome, Succeeded)
    assert outcome.outputs is not None
    assert outcome.outputs["headers"]["X-Trace-499"] == "499"
    assert outcome.outputs["headers"]["X-Long"] == "y" * 100_000


@pytest.mark.parametrize("digits", ["99999999999", "9" * 5_000])
def test_a_wait_of_any_length_is_a_number(digits: str) -> None:
    error = answered(f"HTTP/1.1 503 Busy\r\nRetry-After: {digits}\r\nContent-Length: 0\r\n\r\n".encode())
    assert isinstance(error, RetryableError)
    assert error.retry_after == timedelta(seconds=10**9)


@pytest.mark.parametrize(("text", "wait"), [("0012", 12), ("999999999", 999_999_999), ("1000000001", 10**9)])
def test_seconds_are_read_as_they_are_written(text: str, wait: int) -> None:
    assert retry_after({"Retry-After": text}, None) == timedelta(seconds=wait)  # type: ignore[arg-type]


def test_a_percent_encoded_query_arrives_as_it_was_written() -> None:
    seen = []

    async def scene() -> None:
        async def answer(request: web.Request) -> web.Response:
            seen.append(request.raw_path)
            return web.Response()

        origin, close = await _serve(answer)
        try:
            await ask(f"{origin}/a%2Fb?next=%2Fhome%3Fx%3A%27&plain=/x")
        finally:
            await close()

    asyncio.run(scene())
    assert seen == ["/a%2Fb?next=%2Fhome%3Fx%3A%27&plain=/x"]


def test_a_password_in_a_url_is_sent_and_not_shown() -> None:
    async def scene() -> Any:
        async def answer(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.Response(status=404)

        origin, close = await _serve(answer)
        try:
            return await ask(origin.replace("http://", "http://robot:tok-123@") + "/x?a=1"), origin
        finally:
            await close()

    seen: list[str | None] = []
    error, origin = asyncio.run(scene())
    assert seen == ["Basic " + base64.b64encode(b"robot:tok-123").decode()]
    assert str(error) == f"POST {origin}/x?a=1 answered 404"


# --- many at once ----------------------------------------------------------------------------------------------------


def test_as_many_requests_run_at_once_as_there_are_runs() -> None:
    async def scene() -> list[Any]:
        arrived, everyone = 0, asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            nonlocal arrived
            arrived += 1
            if arrived == 150:
                everyone.set()
            await everyone.wait()
            return web.Response()

        origin, close = await _serve(answer)
        sessions = HttpSessions()
        executor = HttpExecutor()

        async def one(number: int) -> Any:
            run = make_run(executor, {"url": origin}, run_name=f"r-{number}", http_session=sessions.get)
            async with run:
                return await executor.execute(run)

        try:
            return await asyncio.gather(*map(one, range(150)))
        finally:
            await sessions.close()
            await close()

    assert {type(outcome) for outcome in asyncio.run(scene())} == {Succeeded}


# --- proxies ---------------------------------------------------------------------------------------------------------


class Proxy:
    """A forward proxy that answers by itself, or refuses; it keeps the first line and the headers of each request."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.seen: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.reply)
        await writer.drain()
        writer.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def through(
    reply: bytes, url: str, options: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch | None = None
) -> tuple[Any, Proxy]:
    """What a run ends with whose request goes through a proxy, which the options or the environment name."""

    async def scene() -> tuple[Any, Proxy]:
        proxy = Proxy(reply)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            if monkeypatch is not None:
                monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{port}")
                monkeypatch.setenv("NO_PROXY", "internal.example")
            return await ask(url, options(f"http://me:tok-123@127.0.0.1:{port}"), timeout="5s"), proxy

    return asyncio.run(scene())


def test_requests_go_through_the_proxy_that_the_options_name() -> None:
    outcome, proxy = through(OK, "http://far.example/a?b=%2F", lambda url: {"proxies": {"http": url}})
    assert isinstance(outcome, Succeeded)
    (request,) = proxy.seen
    assert request.startswith("POST http://far.example/a?b=%2F HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"me:tok-123").decode() in request


def test_requests_go_through_the_proxy_that_the_usual_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, proxy = through(OK, "http://far.example/a", lambda _: {}, monkeypatch)
    assert isinstance(outcome, Succeeded)
    assert len(proxy.seen) == 1


def test_a_proxy_that_refuses_a_tunnel_has_passed_nothing_on_and_its_password_is_not_shown() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    error, proxy = through(refusal, "https://far.example/a", lambda url: {"proxies": {"https": url}})
    assert proxy.seen[0].startswith("CONNECT far.example:443 ")
    assert isinstance(error, RetryableError)
    assert error.outcome_known
    assert "POST https://far.example/a: no connection: 407" in str(error)
    assert "tok-123" not in str(error)


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("http://h/a", {}, None),
        ("http://h/a", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://h/a", {"http_proxy": "p:1"}, "http://p:1"),
        ("https://h/a", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://h/a", {"HTTPS_PROXY": "http://p:2"}, "http://p:2"),
        ("https://h/a", {"ALL_PROXY": "http://p:3"}, "http://p:3"),
        ("http://h/a", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "h"}, None),
        ("http://user@api.h.example:8080/", {"HTTP_PROXY": "http://p:1", "no_proxy": ".h.example"}, None),
        ("http://h/a", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_the_usual_variables_say_which_proxy(
    url: str, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, {}) == proxy
    # What the options say is all there is.
    assert proxy_for(url, {"http": "http://q:9"}) == ("http://q:9" if url.startswith("http:") else None)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_an_own_authority_and_a_client_certificate_are_used(tmp_path: Path) -> None:
    server, client = self_signed(tmp_path, "server"), self_signed(tmp_path, "client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client[0]))
    context.load_cert_chain(*map(str, server))
    context.verify_mode = ssl.CERT_REQUIRED

    async def scene() -> list[Any]:
        async def answer(request: web.Request) -> web.Response:
            assert request.transport is not None
            names.append(request.transport.get_extra_info("peercert")["subject"])
            return web.Response()

        origin, close = await _serve(answer, context)
        ours = {"certificate": str(client[0]), "key": str(client[1])}
        try:
            return [
                await ask(origin, timeout="5s", options={"tls": tls})
                for tls in ({}, {"ca": str(server[0])}, {"ca": str(server[0]), **ours})
            ]
        finally:
            await close()

    names: list[Any] = []
    unknown, nobody, known = asyncio.run(scene())
    assert isinstance(unknown, RetryableError)
    assert unknown.outcome_known
    assert "certificate verify failed" in str(unknown)
    assert isinstance(nobody, RetryableError)  # The server asks for a certificate, and none came.
    assert isinstance(known, Succeeded)
    assert names == [((("commonName", "client"),),)]


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ({"ca": "absent.pem"}, ("options.tls.ca", "cannot be used: No such file or directory")),
        ({"certificate": "absent.pem"}, ("options.tls.certificate", "cannot be used: No such file or directory")),
        ({"key": "k.pem"}, ("options.tls.certificate", "belongs to key: give both, or none of them")),
        ({"proxy": "x"}, ("options.tls.proxy", "unknown key (known: ca, certificate, key)")),
    ],
)
def test_files_that_cannot_be_used_are_named_before_anything_starts(
    tls: dict[str, str], problem: tuple[str, str]
) -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        HttpExecutor({"tls": tls})
    assert list(caught.value.problems) == [problem]


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.pem").write_text("no certificate\n")
    with pytest.raises(ExecutorConfigError) as caught:
        HttpExecutor({"tls": {"ca": str(tmp_path / "odd.pem")}})
    ((path, reason),) = caught.value.problems
    assert path == "options.tls.ca"
    assert reason.startswith("cannot be used")


async def _serve(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], context: ssl.SSLContext | None = None
) -> tuple[str, Callable[[], Awaitable[None]]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    scheme = "http" if context is None else "https"
    return f"{scheme}://127.0.0.1:{runner.addresses[0][1]}", runner.cleanup


def test_a_session_keeps_no_cookies() -> None:
    async def scene() -> int:
        async def answer(request: web.Request) -> web.Response:
            reply = web.Response()
            reply.set_cookie("a", "b")
            return reply

        origin, close = await _serve(answer)
        session = new_session()
        try:
            async with session.get(origin):
                return len(list(session.cookie_jar))
        finally:
            await session.close()
            await close()

    assert asyncio.run(scene()) == 0
