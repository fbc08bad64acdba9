"""Commands of the worker, started and ended through its keeper; nothing here blocks or polls.

keeper = hire(self)                       # the keeper of this event loop, shared by all executors on it
process = keeper.spawn(argv, env=env, stdin=r, stdout=w, stderr=w)
code = await process.ended()              # or `await process.stop(grace)`
await dismiss(self)                       # with the last one the keeper's process ends
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from executors.channel import Channel
from executors.errors import ExecutorError, PermanentError, RetryableError, WorkerExhausted

_PROGRAM: Final = Path(__file__).with_name("keeper.py")
_EXHAUSTED: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_PASSING: Final = frozenset({errno.ETXTBSY, errno.EIO})
_LOST: Final = "the keeper process ended while the command ran: how far it came is not known"
_keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Keeper] = weakref.WeakKeyDictionary()


class Process:
    """One command under the keeper. Its attempt is over when `ended` has returned, not before."""

    def __init__(self, keeper: Keeper, number: int, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.pid: int | None = None
        """Also the number of its process group; None until it has started."""
        self._keeper = keeper
        self._number = number
        self._end: asyncio.Future[int | ExecutorError] = asyncio.get_running_loop().create_future()

    async def ended(self) -> int:
        """Wait until the whole group is gone: an exit code, or minus a signal's number.

        Raises `PermanentError` if the command could not be started, `RetryableError` if that may pass or if the keeper
        was lost. Being cancelled here leaves the command running: `stop` it then.
        """
        end = await asyncio.shield(self._end)
        if isinstance(end, ExecutorError):
            raise end
        return end

    def signal(self, number: int) -> None:
        """Signal the whole group; nothing happens if it has ended."""
        if not self._end.done():
            self._keeper.signal(self._number, number)

    async def stop(self, grace: timedelta) -> None:
        """SIGTERM to the group, SIGKILL after `grace`; returns when all of it has ended.

        Cancelled meanwhile, it kills at once and goes on waiting; only when cancelled once more does it give up.
        """
        impatience = 0
        self.signal(signal.SIGTERM)
        timer = asyncio.get_running_loop().call_later(grace.total_seconds(), self.signal, signal.SIGKILL)
        try:
            while not self._end.done():
                try:
                    await asyncio.shield(self._end)
                except asyncio.CancelledError:
                    impatience += 1
                    if impatience > 1:
                        raise
                    self.signal(signal.SIGKILL)
        finally:
            timer.cancel()

    def settle(self, end: int | ExecutorError) -> None:
        """Called by the keeper's client with what became of the command."""
        if not self._end.done():
            self._end.set_result(end)


class Keeper:
    """The client of one keeper process, started at the first spawn and started anew should it die."""

    def __init__(self) -> None:
        self.holders: weakref.WeakSet[Any] = weakref.WeakSet()
        self._numbers = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._channel: Channel | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._gone: asyncio.Event | None = None
        self._burials: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """Of the keeper's own process; None while there is none."""
        return self._child.pid if self._child else None

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None = None,
        stdin: int,
        output: int,
    ) -> Process:
        """Have a command started as the leader of a session of its own, `output` being both its stdout and stderr.

        The descriptors belong to the keeper from here on, even if this raises.
        Returns at once; whether it could be started `Process.ended` says.
        """
        number = next(self._numbers)
        process = Process(self, number, argv)
        descriptors = (stdin, output, output)
        try:
            frame = {
                "spawn": number,
                "argv": [_as_latin(word) for word in argv],
                "env": {_as_latin(key): _as_latin(value) for key, value in env.items()},
                "cwd": None if cwd is None else _as_latin(cwd),
            }
            for _ in range(2):
                if self._running().send(frame, descriptors):
                    self._processes[number] = process
                    return process
                # It died idle and nothing was sent: the next one takes the command.
                self._lost()
            raise RetryableError("the keeper process cannot be reached")
        except BaseException:
            for descriptor in set(descriptors):
                os.close(descriptor)
            raise

    def signal(self, number: int, signal_number: int) -> None:
        """Signal the group of the command with this number."""
        if self._channel is not None and number in self._processes:
            self._channel.send({"signal": number, "number": int(signal_number)})

    async def close(self) -> None:
        """Kill every group, wait until they are gone, and let the keeper end; a later spawn starts another."""
        child, gone, channel = self._child, self._gone, self._channel
        if child is None or gone is None or channel is None:
            return
        channel.finish()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), 10)
        if not gone.is_set():
            child.kill()
            self._lost()
        for burial in list(self._burials):
            await burial
        child.wait()

    def _running(self) -> Channel:
        if self._channel is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # Isolated and without site-packages: it needs neither, and starts in a third of the time.
                self._child = subprocess.Popen(  # noqa: S603  # our own file
                    [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:
                ours.close()
                kind = WorkerExhausted if error.errno in _EXHAUSTED else RetryableError
                raise kind(f"the keeper process cannot be started: {error}") from error
            finally:
                theirs.close()
            self._gone = asyncio.Event()
            self._channel = Channel(ours, self._heard, self._lost)
        return self._channel

    def _heard(self, frame: dict[str, Any]) -> None:
        if "started" in frame:
            if process := self._processes.get(frame["started"]):
                process.pid = frame["pid"]
        elif "ended" in frame:
            if process := self._processes.pop(frame["ended"], None):
                process.settle(frame["code"])
        elif process := self._processes.pop(frame["refused"], None):
            refusal: type[ExecutorError] = PermanentError
            if frame["errno"] in _EXHAUSTED:
                refusal = WorkerExhausted
            elif frame["errno"] in _PASSING:
                refusal = RetryableError
            process.settle(refusal(f"{process.argv[0]!r} cannot be started: {frame['reason']}"))

    def _lost(self) -> None:
        """The keeper has gone: what it answered for ends with it, by our hand as far as we know of it."""
        if self._channel is not None:
            self._channel.close()
        if self._gone is not None:
            self._gone.set()
        orphans, self._processes = list(self._processes.values()), {}
        self._channel, self._child, self._gone, dead = None, None, None, self._child
        for process in orphans:
            if process.pid is not None:
                _kill_group(process.pid)
        burial = asyncio.ensure_future(_bury(dead, orphans))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)


def hire(holder: object) -> Keeper:
    """The keeper of the running event loop; `holder` keeps it until it is dismissed or forgotten."""
    loop = asyncio.get_running_loop()
    keeper = _keepers.setdefault(loop, Keeper())
    keeper.holders.add(holder)
    return keeper


async def dismiss(holder: object) -> None:
    """Give up the running loop's keeper; when nobody holds it any more its process ends, with every group it has."""
    keeper = _keepers.get(asyncio.get_running_loop())
    if keeper is not None:
        keeper.holders.discard(holder)
        if not keeper.holders:
            await keeper.close()


async def _bury(keeper: subprocess.Popen[bytes] | None, orphans: Sequence[Process]) -> None:
    """Wait, five seconds at most, until the groups of a dead keeper are gone, then settle their attempts.

    Their parent is dead, so nobody reports their end: this rare path has to look.
    """
    groups = {process.pid for process in orphans if process.pid is not None}
    for _ in range(250):
        groups = {group for group in groups if _kill_group(group)}
        if not groups and (keeper is None or keeper.poll() is not None):
            break
        await asyncio.sleep(0.02)
    for process in orphans:
        process.settle(RetryableError(_LOST, outcome_known=False))


def _kill_group(group: int) -> bool:
    """Kill a group; False if there is none."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Zombies of another user's processes, or a number that is somebody else's by now.
        return False
    return True


def _as_latin(text: str) -> str:
    return os.fsencode(text).decode("latin-1")
