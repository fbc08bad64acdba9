"""A real HTTP server on the loopback, in a thread of its own, that fails on order.

with FakeAirbyte() as airbyte:
    airbyte.fail(503, on="status", times=3, retry_after=1)     the next three questions for a status
    airbyte.fail("drop", on="create")                          a connection broken before anything was done
    airbyte.fail("lost answer", on="create")                   done, but the connection breaks before the answer
    airbyte.stop(); …; airbyte.start()                         away, and back under the same address
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Kind: TypeAlias = (
    int | Literal["drop", "lost answer", "slow", "hold", "html", "bad json", "not an object", "unknown status"]
)


@dataclass
class Fault:
    """What goes wrong, where, and how many times; `times=None`: until `heal`."""

    kind: Kind
    on: str = ""
    times: int | None = 1
    retry_after: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """What was sent to the server."""

    endpoint: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as what it says."""
        return json.loads(self.body)


class FakeServer:
    """Serves `routes` from a thread; `seen` counts requests by endpoint, `requests` keeps the last ones."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.seen: Counter[str] = Counter()
        self.requests: deque[Request] = deque(maxlen=10_000)
        self.lock = threading.RLock()
        self.held: threading.Semaphore = threading.Semaphore(0)
        self._faults: list[Fault] = []
        self._release: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[tuple[str, str, str, Handler]]:
        """Endpoint, method, path and handler of everything that is served."""
        raise NotImplementedError

    def refusal(self, status: int) -> web.Response:
        """How this service words an error."""
        return web.Response(status=status, text=f"error {status}")

    # --- running -----------------------------------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        """Listen; after a `stop`, under the same address."""
        self._call(self._start())

    def stop(self) -> None:
        """Be away: nobody listens, and every connection is cut."""
        self._call(self._stop())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be away for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    async def _start(self) -> None:
        self._release = asyncio.Event()
        app = web.Application()
        for endpoint, method, path, handler in self.routes():
            app.router.add_route(method, path, self._serve(endpoint, handler))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._release.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _call(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(20)

    # --- faults ------------------------------------------------------------------------------------------------------

    def fail(
        self,
        kind: Kind,
        *,
        on: str = "",
        times: int | None = 1,
        retry_after: float | str | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Let the next requests for an endpoint (`""`: any but `token`) fail; faults of one endpoint come in turn.

        `slow` waits so many seconds before it acts; `hold` acts, then answers only after `release`, and `held` is
        released once for each such request.
        """
        with self.lock:
            self._faults.append(Fault(kind, on, times, None if retry_after is None else str(retry_after), seconds))

    def heal(self) -> None:
        """No faults any more."""
        with self.lock:
            self._faults.clear()

    def release(self) -> None:
        """Answer what was held."""
        self._loop.call_soon_threadsafe(self._release.set)

    def _next_fault(self, endpoint: str) -> Fault | None:
        with self.lock:
            for fault in self._faults:
                if fault.on == endpoint or (not fault.on and endpoint != "token"):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._faults.remove(fault)
                    return fault
        return None

    def _serve(self, endpoint: str, handler: Handler) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {name.lower(): value for name, value in request.headers.items()}
            with self.lock:
                self.seen[endpoint] += 1
                self.requests.append(Request(endpoint, request.method, request.path_qs, headers, body))
            fault = self._next_fault(endpoint)
            if fault is None:
                return await handler(request)
            return await self._faulty(request, handler, fault)

        return serve

    async def _faulty(self, request: web.Request, handler: Handler, fault: Fault) -> web.StreamResponse:
        if isinstance(fault.kind, int):
            answer = self.refusal(fault.kind)
            if fault.retry_after is not None:
                answer.headers["Retry-After"] = fault.retry_after
            return answer
        match fault.kind:
            case "slow":
                await asyncio.sleep(fault.seconds)
                return await handler(request)
            case "lost answer":
                await handler(request)
                return _drop(request)
            case "hold":
                answered = await handler(request)
                self.held.release()
                await self._release.wait()
                return answered
            case "html":
                return web.Response(text="<html><body>Please log in</body></html>", content_type="text/html")
            case "bad json":
                return web.Response(text='{"jobId": 1, "status": ', content_type="application/json")
            case "not an object":
                return web.json_response([1, 2])
            case "unknown status":
                return self.with_status(await handler(request), "hibernating")
        return _drop(request)

    def with_status(self, answer: web.StreamResponse, word: str) -> web.Response:
        """The answer with another status word."""
        assert isinstance(answer, web.Response)
        assert answer.text is not None
        return web.json_response({**json.loads(answer.text), "status": word})


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


class FakeProxy:
    """A forward proxy for plain HTTP that keeps the requests it was asked to pass on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, _, rest = head.partition("\r\n")
        method, target, version = line.split()
        self.asked.append(f"{method} {target}")
        length = next((int(h.split(":")[1]) for h in rest.lower().splitlines() if h.startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        parts = urlsplit(target)
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        kept = "\r\n".join(h for h in rest.splitlines() if h and not h.lower().startswith("connection:"))
        back.write(f"{method} {path} {version}\r\n{kept}\r\nConnection: close\r\n\r\n".encode() + body)
        writer.write(await there.read())
        await writer.drain()
        for each in (back, writer):
            each.close()
