"""A TCP proxy on the loopback that may cut, silence or slow down what goes through it, in a thread of its own.

with Proxy("/run/postgresql/.s.PGSQL.5432") as proxy:      or Proxy(("127.0.0.1", 5432))
    proxy.silence()             connections stay, nothing goes through any more; new ones are accepted and not answered
    proxy.silence(new=False)    the same, but new connections work
    proxy.reset()               every connection is reset, new ones too
    proxy.slow(0.2)             each piece comes so many seconds late
    proxy.heal()                new connections work; those that were silent stay so
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TypeAlias

Mode: TypeAlias = Literal["pass", "silent", "reset"]


class Proxy:
    """Listens on `host` and `port`, connects to `upstream`: an address, or a socket's file."""

    def __init__(self, upstream: tuple[str, int] | str, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self._upstream = upstream
        self._mode: Mode = "pass"
        self._delay = 0.0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many go through it now."""
        return len(self._links)

    def silence(self, *, new: bool = True) -> None:
        """What is connected is not told of anything any more; nor is what connects, unless `new` is false."""
        self._do(lambda: self._silence(new))

    def reset(self) -> None:
        """Cuts every connection off, and every one that is tried."""
        self._do(self._reset)

    def slow(self, seconds: float) -> None:
        """Passes each piece on so much later."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def heal(self) -> None:
        """New connections work, at full speed."""
        self._do(self._heal)

    def _silence(self, new: bool) -> None:
        self._mode = "silent" if new else "pass"
        for link in self._links:
            link.silent = True

    def _reset(self) -> None:
        self._mode = "reset"
        for link in list(self._links):
            link.cut()

    def _heal(self) -> None:
        self._mode, self._delay = "pass", 0.0

    def _do(self, change: Callable[[], None]) -> None:
        async def do() -> None:
            change()

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.cut()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            if self._mode == "reset":
                link.cut()
                return
            if self._mode == "silent":
                link.silent = True
                await reader.read(-1)
                return
            if isinstance(self._upstream, str):
                there, out = await asyncio.open_unix_connection(self._upstream)
            else:
                there, out = await asyncio.open_connection(*self._upstream)
            link.out = out
            await asyncio.gather(self._pump(link, reader, out), self._pump(link, there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            link.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self._delay:
                await asyncio.sleep(self._delay)
            if not link.silent:
                writer.write(piece)
                await writer.drain()
        if not link.silent:
            writer.close()


class _Link:
    """One connection through the proxy."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.out: asyncio.StreamWriter | None = None
        self.silent = False

    def cut(self) -> None:
        """Resets it: not even a goodbye."""
        connected = self.writer.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        if self.out is not None:
            self.out.transport.abort()

    def close(self) -> None:
        """Closes both ends."""
        self.writer.close()
        if self.out is not None:
            self.out.close()
