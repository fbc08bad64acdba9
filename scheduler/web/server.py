"""The HTTP server: uvicorn on the worker's own event loop, so that an answer proves that the loop turns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator
from typing import Any, Final

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger("scheduler.web")

_MAX_CONNECTIONS: Final = 256
_SILENCE_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1
_DATE_SECONDS: Final = 1.0


class WebServer:
    """Serves one application on one address while a worker runs. It never ends the worker, whatever becomes of it."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, loopback_only: bool) -> None:
        """`port` 0 means any free one. `loopback_only` refuses to listen where other machines could reach it."""
        self._host = host.strip("[]")
        self._port = port
        self._loopback_only = loopback_only
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("Server", "trigger-scheduler"), ("X-Content-Type-Options", "nosniff")],
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # Not every malformed request is worth a line.
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self.url: str | None = None

    async def start(self) -> bool:
        """Listens from now on; False, with the reason in the log, where it cannot."""
        try:
            sockets = await self._listen()
        except OSError as error:
            log.warning(
                "not listening: this worker runs without its web port",
                address=_address(self._host, self._port),
                error=error.strerror or str(error),
            )
            return False
        self.url = "http://" + _address(self._host, sockets[0].getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets), name="web")
        self._serving.add_done_callback(_report_death)
        log.info("listening", url=self.url)
        return True

    async def stop(self) -> None:
        """Listens no more; answers under way get a second."""
        if self._serving is not None:
            self._server.leave()
            await asyncio.wait([self._serving])

    async def _listen(self) -> list[socket.socket]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        listening: list[socket.socket] = []
        refused: OSError | None = None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            if self._loopback_only and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
                refused = OSError(errno.EACCES, f"{self._host} means {address[0]}, which other machines can reach")
                continue
            if listening:  # A name with several addresses has one port.
                address = (address[0], listening[0].getsockname()[1], *address[2:])
            try:
                listening.append(_listening(family, kind, protocol, address))
            except OSError as error:
                refused = error
                if error.errno == errno.EADDRINUSE:
                    break  # On half of its addresses it would be somebody else's server to some callers.
        else:
            if listening:
                return listening
        for opened in listening:
            opened.close()
        raise refused or OSError(errno.EADDRNOTAVAIL, "no address")


def _listening(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        # Two processes may bind one port before either listens: only listening tells who has it.
        opened.listen(128)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the web port died; the worker goes on without it", error=repr(error))


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals to the worker, which drains at the first and hurries at the second.

    Its own loop looks ten times a second whether it is to end, which was half of what a worker costs while nothing is due.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Ends `serve`."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Sets the answers' date once a second, until it is to end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), _DATE_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Connection(H11Protocol):
    """A connection that must ask for something: idle ones would use up the files that executions need.

    A request that is not whole may take ten to twenty seconds. Where too many are open, the oldest without a whole request
    makes room: probes are answered, however many send slowly.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._seen: object = None
        others = [
            other
            for other in self.connections
            if isinstance(other, _Connection) and other is not self and not other.transport.is_closing()
        ]
        if len(others) >= _MAX_CONNECTIONS:
            unfinished = [other for other in others if other.asks_nothing]
            if not unfinished:
                transport.abort()
                return
            min(unfinished, key=lambda other: other._since).transport.abort()
        self._impatience = self.loop.call_later(_SILENCE_SECONDS, self._hang_up_if_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        if (impatience := getattr(self, "_impatience", None)) is not None:
            impatience.cancel()
        super().connection_lost(exc)

    @property
    def asks_nothing(self) -> bool:
        """Whether no whole request has come that is still to be answered."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _hang_up_if_slow(self) -> None:
        # Between two requests uvicorn has a timer of its own; without one, a request is awaited that is not whole yet.
        silent = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        sending = self.conn.their_state is h11.SEND_BODY
        if silent or (sending and self._seen is self.scope):
            self.transport.abort()
            return
        self._seen = self.scope if sending else None
        self._impatience = self.loop.call_later(_SILENCE_SECONDS, self._hang_up_if_slow)
