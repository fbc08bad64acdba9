"""The server over real sockets: where it listens, whom it refuses, and that it never outlives its worker."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter, Request

from scheduler.loop.health import Check
from scheduler.web import server as server_module
from scheduler.web.app import make_app
from scheduler.web.auth import Caller
from scheduler.web.health import health_router
from scheduler.web.server import WebServer

TOKEN = "a long random text"
READER = Caller("prometheus", "viewer", sha256(TOKEN.encode()).hexdigest())
OTHER = Caller("ci", "admin", sha256(b"another").hexdigest())


class Patient:
    """A judge whose checks a test sets."""

    def __init__(self, *, well: bool = True) -> None:
        self.well = well

    def live(self) -> list[Check]:
        return [Check("loop", True, "turns")]

    def ready(self) -> list[Check]:
        return [Check("worker", True, "working"), Check("database", self.well, "answered 1 s ago")]


def router() -> APIRouter:
    made = APIRouter()

    @made.get("/who")
    async def who(request: Request) -> dict[str, str]:
        caller = request.state.caller
        return {"name": caller.name, "role": caller.role}

    @made.get("/fails")
    async def fails() -> None:
        raise RuntimeError("a fault of a page")

    return made


def new_server(
    *callers: Caller, host: str = "127.0.0.1", port: int = 0, well: bool = True, loopback_only: bool = True
) -> WebServer:
    health = health_router(Patient(well=well), lambda accept: (b"x 1\n", "text/plain"))
    app = make_app(health, router(), callers=callers)
    return WebServer(app, host, port, loopback_only=loopback_only)


@asynccontextmanager
async def serving(*callers: Caller, **options: Any) -> AsyncIterator[WebServer]:
    server = new_server(*callers, **options)
    assert await server.start()
    try:
        yield server
    finally:
        await server.stop()


def address(server: WebServer) -> tuple[str, int]:
    parts = urlsplit(server.url or "")
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def ask(
    server: WebServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    def asking() -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*address(server), timeout=5)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    return await asyncio.to_thread(asking)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


# --- what is answered ------------------------------------------------------------------------------------------------


def test_the_three_paths_answer_get_and_head_and_are_not_kept_by_caches() -> None:
    async def test() -> None:
        async with serving() as server:
            for path in ("/livez", "/readyz", "/metrics"):
                got, body = await ask(server, path)
                assert (got.status, got.headers["cache-control"]) == (200, "no-store"), path
                assert body
                head, nothing = await ask(server, path, "HEAD")
                assert (head.status, nothing) == (200, b""), path
                assert head.headers["content-length"] == str(len(body))
                assert (await ask(server, path, "POST"))[0].status == 405, path

    run(test)


def test_the_server_says_its_name_and_no_version() -> None:
    async def test() -> None:
        async with serving() as server:
            for path in ("/livez", "/nowhere"):
                answer, _ = await ask(server, path)
                assert answer.headers.get_all("server") == ["trigger-scheduler"]
                assert "uvicorn" not in str(answer.headers).lower()

    run(test)


def test_who_is_not_ready_names_the_check_that_fails() -> None:
    async def test() -> None:
        async with serving(well=False) as server:
            answer, body = await ask(server, "/readyz")
            assert answer.status == 503
            assert body == (
                b'{"status":"failing","checks":{"worker":{"ok":true,"seen":"working"},'
                b'"database":{"ok":false,"seen":"answered 1 s ago"}}}'
            )
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)


def test_nothing_else_is_there_and_a_fault_of_a_page_is_no_fault_of_the_server() -> None:
    async def test() -> None:
        async with serving() as server:
            for path in ("/", "/docs", "/openapi.json", "/livez/", "/metrics/"):
                assert (await ask(server, path))[0].status == 404, path
            failed, body = await ask(server, "/fails")
            assert (failed.status, b"fault" in body) == (500, False)
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_with_tokens_only_the_checks_are_open() -> None:
    async def test() -> None:
        async with serving(OTHER, READER) as server:
            for path in ("/livez", "/readyz"):
                assert (await ask(server, path))[0].status == 200
            for path in ("/metrics", "/who", "/nowhere", "/livez/../metrics", "//metrics", "/livez/"):
                answer, body = await ask(server, path)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
                assert b"Bearer" in body

    run(test)


RIGHT = (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer {TOKEN} ")
WRONG = (
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    TOKEN,
    "Bearer ",
    "Bearer",
    "",
    f"Bearer {READER.sha256}",
    "Bearer \xe9\xff",
    "Bearer " + "x" * 10_000,
)


def test_a_token_is_right_or_wrong() -> None:
    async def test() -> None:
        async with serving(OTHER, READER) as server:
            for given in RIGHT:
                answer, body = await ask(server, "/who", headers={"Authorization": given})
                assert (answer.status, body) == (200, b'{"name":"prometheus","role":"viewer"}'), given
            for given in WRONG:
                answer, body = await ask(server, "/who", headers={"Authorization": given})
                assert (answer.status, b"prometheus" in body) == (401, False), given

    run(test)


def test_two_tokens_at_once_are_none() -> None:
    async def test() -> None:
        async with serving(OTHER, READER) as server:
            twice = f"Authorization: Bearer {TOKEN}\r\n" * 2
            request = f"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{twice}\r\n"
            assert b" 401 " in (await talk(server, request.encode())).partition(b"\r\n")[0]

    run(test)


# --- where it listens ------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_left_to_its_owner() -> None:
    async def test() -> None:
        async with serving() as first:
            second = new_server(port=address(first)[1])
            assert not await second.start()
            assert second.url is None
            await second.stop()
            assert (await ask(first, "/livez"))[0].status == 200

    run(test)


def test_a_port_that_was_left_can_be_had_at_once() -> None:
    async def test() -> None:
        async with serving() as first:
            _, port = address(first)
            assert (await ask(first, "/livez"))[0].status == 200
        async with serving(port=port) as second:
            assert (await ask(second, "/livez"))[0].status == 200

    run(test)


def test_an_address_that_is_not_this_machines_is_not_listened_on() -> None:
    async def test() -> None:
        for host in ("192.0.2.1", "no.such.name.invalid"):
            server = new_server(host=host, loopback_only=False)
            assert not await server.start(), host
            await server.stop()

    run(test)


def test_without_tokens_no_name_leads_beyond_this_machine() -> None:
    async def test() -> None:
        for host in ("0.0.0.0", "::"):
            server = new_server(host=host)
            assert not await server.start(), host
            await server.stop()

    run(test)


def test_with_tokens_it_listens_on_every_address() -> None:
    async def test() -> None:
        async with serving(READER, host="0.0.0.0", loopback_only=False) as server:
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)


@pytest.mark.parametrize("host", ["localhost", "[::1]", "::1"])
def test_names_and_ipv6_are_addresses_too(host: str) -> None:
    if host != "localhost":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("there is no IPv6 here")

    async def test() -> None:
        async with serving(host=host) as server:
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)


# --- bad company -----------------------------------------------------------------------------------------------------


async def talk(server: WebServer, sent: bytes, *, within: float = 5) -> bytes:
    """Sends bytes and returns all that comes until the other side hangs up; fails if it does not."""
    reader, writer = await asyncio.open_connection(*address(server))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), within)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_a_connection_that_asks_for_nothing_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SILENCE_SECONDS", 0.2)

    async def test() -> None:
        async with serving() as server:
            unfinished = (b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
            assert await asyncio.gather(*(talk(server, sent) for sent in unfinished)) == [b"", b"", b""]
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)


def test_a_connection_between_two_requests_is_not_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SILENCE_SECONDS", 0.1)

    async def test() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection(*address(server))
            for _ in range(3):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                await asyncio.sleep(0.25)
            writer.close()

    run(test)


@pytest.mark.parametrize("sent", [b"", b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"])
def test_probes_are_answered_however_many_connections_ask_for_nothing_whole(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server_module, "_MAX_CONNECTIONS", 5)

    async def test() -> None:
        async with serving() as server:
            slow = [await asyncio.open_connection(*address(server)) for _ in range(20)]
            for _, writer in slow:
                writer.write(sent)
            assert (await ask(server, "/livez"))[0].status == 200
            hung_up = sum(await asyncio.gather(*(ended(reader) for reader, _ in slow)))
            assert hung_up >= 15
            for _, writer in slow:
                writer.close()

    async def ended(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(0.5):
                while await reader.read(1_000):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    run(test)


def test_a_body_that_does_not_end_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SILENCE_SECONDS", 0.1)

    async def test() -> None:
        async with serving() as server:
            # The app answers 405 without reading on; the connection is not kept for the rest of the body.
            said = await talk(server, b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx", within=2)
            assert b" 405 " in said or said == b""

    run(test)


def test_nonsense_is_answered_400(capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with serving() as server:
            assert b" 400 " in await talk(server, b"\x16\x03\x01\x00\xff nonsense\r\n\r\n")
            assert (
                b" 431 " in (said := await talk(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)) or b" 400 " in said
            )
            assert (await ask(server, "/livez"))[0].status == 200

    run(test)
    assert "Traceback" not in capfd.readouterr().err


def test_it_stops_soon_whoever_holds_a_connection() -> None:
    async def test() -> None:
        server = new_server()
        assert await server.start()
        held = [await asyncio.open_connection(*address(server)) for _ in range(3)]
        held[0][1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await held[0][0].readuntil(b"\r\n\r\n")
        begun = time.monotonic()
        await server.stop()
        assert time.monotonic() - begun < 3
        with pytest.raises(OSError):
            await asyncio.open_connection(*address(server))
        for _, writer in held:
            writer.close()

    run(test)
