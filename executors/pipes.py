"""The worker's ends of a command's pipes, served by the event loop: output captured as it comes, input fed."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from executors.errors import WorkerExhausted
from executors.output import Output

_CHUNK: Final = 256 * 1024
_LEFTOVER: Final = 1024 * 1024


class Descriptor:
    """A file descriptor with one owner: closed by it unless given away."""

    def __init__(self, number: int) -> None:
        self._number: int | None = number

    def give(self) -> int:
        """The number, to be closed by the caller from here on."""
        if self._number is None:
            raise ValueError("the descriptor was given away before")
        number, self._number = self._number, None
        return number

    def close(self) -> None:
        """Close it, if it was not given away."""
        if self._number is not None:
            os.close(self.give())


class Capture:
    """Reads one pipe into an `Output`; `writer` is the end for the command.

    The command never waits for long: everything is read, and the output keeps its beginning and end.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._reader, writer = _pipe()
        self.writer = Descriptor(writer)
        os.set_blocking(self._reader, False)
        self._open = True
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def finish(self) -> None:
        """Take what is still in the pipe and close it: the command has ended.

        A process that left the group may hold the other end for ever; it is not waited for.
        """
        taken = 0
        while self._open and taken < _LEFTOVER and (got := self._read()):
            taken += got
        self._close()
        self.writer.close()

    def _read(self) -> int:
        try:
            data = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._output.write(data)
        else:
            self._close()
        return len(data)

    def _close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)


class Feed:
    """Writes bytes into one pipe as fast as the command reads them; `reader` is the end for the command."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)
        reader, self._writer = _pipe()
        self.reader = Descriptor(reader)
        os.set_blocking(self._writer, False)
        self._open = True
        self._write()

    def finish(self) -> None:
        """Give up what was not read: the command has ended."""
        self._close()
        self.reader.close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_writer(self._writer)
            os.close(self._writer)

    def _write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._writer, self._rest[:_CHUNK]) :]
        except BlockingIOError:
            asyncio.get_running_loop().add_writer(self._writer, self._write)
            return
        except BrokenPipeError:
            pass  # A command that does not read its input is within its rights.
        self._close()


class Dialogue:
    """One message to a command and one back, over a socket pair; `peer` is the end for the command.

    The command sees the end of the stream after the message. What it answers is in `received`, up to `most` bytes: the rest is
    read and dropped.
    """

    def __init__(self, message: bytes, *, most: int | None = None) -> None:
        self.received = bytearray()
        self._most = most
        self._rest = memoryview(message)
        try:
            self._socket, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise WorkerExhausted(f"the worker cannot make a socket: {error.strerror}") from error
        self.peer = Descriptor(peer.detach())
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._write()

    def finish(self) -> None:
        """Take what has come and close: the command has ended, and nobody else is listened to."""
        while self._read():
            pass
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        self._socket.close()
        self.peer.close()

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.received += data if self._most is None else data[: max(0, self._most - len(self.received))]
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
        return bool(data)

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._rest:
                self._rest = self._rest[self._socket.send(self._rest[:_CHUNK]) :]
            self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._rest = memoryview(b"")  # Its end is reported by the keeper.
        loop.remove_writer(self._socket)


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe()
    except OSError as error:
        raise WorkerExhausted(f"the worker cannot make a pipe: {error.strerror}") from error
