"""The worker's end of the keeper's socket: framed JSON with file descriptors, never blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

_CHUNK: Final = 256 * 1024


class Channel:
    """Frames over a Unix stream socket. Must be made and used on a running event loop.

    `on_frame` is called with each frame that comes, `on_end` once when the other end has gone.
    """

    def __init__(
        self, sock: socket.socket, on_frame: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        self._socket = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._received = bytearray()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._open = True
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def send(self, frame: dict[str, Any], descriptors: Sequence[int] = ()) -> bool:
        """Queue a frame; False, with nothing taken, if the other end is known to be gone.

        The descriptors belong to the channel from here on: they are closed once sent, or when the channel closes.
        """
        if not self._open:
            return False
        content = json.dumps(frame).encode()
        entry = (memoryview(len(content).to_bytes(4) + content), tuple(descriptors))
        self._outgoing.append(entry)
        if len(self._outgoing) == 1:
            try:
                self._write()
            except OSError:
                # Had a part of it gone out, the rest would stand in its place, and the reader will see the end.
                if self._outgoing and self._outgoing[0] is entry:
                    self._outgoing.popleft()
                    return False
        return True

    def finish(self) -> None:
        """Say that no more frames will come: the other end sees the end of the stream."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket and of every descriptor not yet sent; `on_end` is not called."""
        if not self._open:
            return
        self._open = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        self._socket.close()
        while self._outgoing:
            _close_all(self._outgoing.popleft()[1])

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                sent = (
                    socket.send_fds(self._socket, [data[:_CHUNK]], list(descriptors))
                    if descriptors
                    else (self._socket.send(data[:_CHUNK]))
                )
            except BlockingIOError:
                loop.add_writer(self._socket, self._write_more)
                return
            _close_all(descriptors)
            if sent < len(data):
                self._outgoing[0] = (data[sent:], ())
            else:
                self._outgoing.popleft()
        loop.remove_writer(self._socket)

    def _write_more(self) -> None:
        try:
            self._write()
        except OSError:
            self._ended()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        self._received += data
        while len(self._received) >= 4:
            size = int.from_bytes(self._received[:4])
            if len(self._received) < 4 + size:
                return
            frame = json.loads(self._received[4 : 4 + size])
            del self._received[: 4 + size]
            self._on_frame(frame)

    def _ended(self) -> None:
        if self._open:
            self.close()
            self._on_end()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in set(descriptors):
        os.close(descriptor)
