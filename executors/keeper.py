"""The keeper: a small child of the worker that starts commands and outlives the worker just long enough to end them.

Run as `python -I -S keeper.py FD WORKER_PID`; FD is one end of a Unix stream socket, the worker holds the other. Each
command becomes the leader of a session and process group of its own. When the socket closes or the worker's process
ends, by kill -9 too, every group still there is killed and the keeper exits. When a leader ends, what remains of its
group is killed before the end is reported: an attempt is over when its code is over. A process that leaves its group
on purpose (a daemon that calls setsid) is out of reach.

Frames, both ways: 4 bytes of length, then JSON. Texts are bytes written as Latin-1, so any name of any encoding passes.

    worker → keeper   {"spawn": id, "argv": […], "env": {…}, "cwd": "…"|null} and 3 descriptors: stdin, -out, -err
                      {"signal": id, "number": 15}
    keeper → worker   {"started": id, "pid": n}, then {"refused": id, "errno": n, "reason": "…"} or {"ended": id, "code": n}

`code` is an exit code, or minus the number of the signal that ended the leader. Stdlib only, and nothing of this
package: the file runs without site-packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

# In the place of a descriptor that could not be received.
_MISSING = -1
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LAST_WAIT = 5.0


class Keeper:
    """One keeper's state: its socket, the groups it answers for, by the leader's pid."""

    def __init__(self, channel: socket.socket, worker: int) -> None:
        self.channel = channel
        self.alone = False
        self.buffer = bytearray()
        self.descriptors: deque[int] = deque()
        self.leaders: dict[int, int] = {}  # pid → id, while the leader has not been reaped
        self.ending: dict[int, tuple[int, int]] = {}  # pgid → (id, code), while the rest of the group dies
        self.pid_of: dict[int, int] = {}
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)
        self.wakeup, wakeup_in = os.pipe()
        for end in (self.wakeup, wakeup_in):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: what is ignored stays ignored in the commands, a handler does not.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        self.poll.register(self.wakeup, select.POLLIN)
        self.worker_end = _watch(worker)
        if self.worker_end is not None:
            # The socket alone would not tell if a fork of the worker still held its other end.
            self.poll.register(self.worker_end, select.POLLIN)
        self.prctl = _prctl()
        if self.prctl is not None:
            # Orphans of a group become this process's children, so the end of the whole group can be awaited.
            self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> None:
        """Serve until the worker is gone, then end every group."""
        try:
            while True:
                ready = {fd for fd, _ in self.poll.poll()}
                if self.wakeup in ready:
                    self._drain_wakeup()
                    self.reap()
                if self.worker_end in ready or (self.channel.fileno() in ready and not self.receive()):
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.end_all()

    def receive(self) -> bool:
        """Read what there is and obey; False at the end of the stream."""
        try:
            data, descriptors, flags, _ = socket.recv_fds(self.channel, 1 << 20, 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if flags & socket.MSG_CTRUNC:
            # This process may hold no more: what came of the three is of no use, and the command is refused below.
            for descriptor in descriptors:
                os.close(descriptor)
            self.descriptors.extend([_MISSING] * 3)
        else:
            self.descriptors.extend(descriptors)
        self.buffer += data
        while len(self.buffer) >= 4:
            size = int.from_bytes(self.buffer[:4])
            if len(self.buffer) < 4 + size:
                break
            frame = json.loads(self.buffer[4 : 4 + size])
            del self.buffer[: 4 + size]
            if "spawn" in frame:
                self.spawn(frame)
            else:
                self.send_signal(frame)
        return bool(data)

    def spawn(self, frame: dict[str, Any]) -> None:
        """Start one command in a session of its own; the child answers started, and then this process perhaps refused."""
        stdio = [self.descriptors.popleft() for _ in range(3)]
        name = frame["spawn"]
        if _MISSING in stdio:
            self.answer({"refused": name, "errno": errno.EMFILE, "reason": os.strerror(errno.EMFILE)})
            return
        try:
            child = subprocess.Popen(  # noqa: S603  # starting what the worker says is its duty
                [word.encode("latin-1") for word in frame["argv"]],
                env={key.encode("latin-1"): value.encode("latin-1") for key, value in frame["env"].items()},
                cwd=None if frame["cwd"] is None else frame["cwd"].encode("latin-1"),
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                start_new_session=True,
                # One thread here, so code between fork and exec is safe.
                preexec_fn=lambda: self._announce(name),
            )
        except OSError as error:
            where = "" if error.filename is None else f": {os.fsdecode(error.filename)!r}"
            self.answer({"refused": name, "errno": error.errno or 0, "reason": f"{error.strerror}{where}"})
        except (ValueError, subprocess.SubprocessError) as error:
            self.answer({"refused": name, "errno": 0, "reason": str(error)})
        else:
            # This process reaps by itself; a Popen that thinks its child alive would wait for it behind our back.
            child.returncode = 0
            self.leaders[child.pid] = name
            self.pid_of[name] = child.pid
        finally:
            for descriptor in stdio:
                os.close(descriptor)

    def send_signal(self, frame: dict[str, Any]) -> None:
        """Signal a group, unless its leader has ended: what remains of it is being killed already."""
        pid = self.pid_of.get(frame["signal"])
        if pid is None or pid not in self.leaders:
            return
        _signal_group(pid, frame["number"])
        if frame["number"] != signal.SIGKILL:
            # A stopped process would not notice until somebody woke it.
            _signal_group(pid, signal.SIGCONT)

    def reap(self) -> None:
        """Take notice of every child that ended."""
        while (dead := _next_dead(self._end_group_of)) is not None:
            pid, status = dead
            if (name := self.leaders.pop(pid, None)) is not None:
                self.ending[pid] = (name, os.waitstatus_to_exitcode(status))
        for group, (name, code) in list(self.ending.items()):
            if _group_gone(group):
                del self.ending[group], self.pid_of[name]
                self.answer({"ended": name, "code": code})

    def answer(self, frame: dict[str, Any]) -> None:
        """Tell the worker; raises if it has just gone."""
        if self.alone:
            return
        content = json.dumps(frame).encode()
        self.channel.sendall(len(content).to_bytes(4) + content)

    def end_all(self) -> None:
        """Kill every group and wait, for a few seconds at most, until they are gone."""
        self.alone = True
        for group in self.leaders:
            _signal_group(group, signal.SIGKILL)
        self.poll = select.poll()
        self.poll.register(self.wakeup, select.POLLIN)
        deadline = time.monotonic() + LAST_WAIT
        while True:
            self.reap()
            rest = deadline - time.monotonic()
            if not (self.leaders or self.ending) or rest <= 0:
                return
            self.poll.poll(rest * 1000)
            self._drain_wakeup()

    def _end_group_of(self, pid: int) -> None:
        # While its leader is not reaped, a group's number cannot have become another group's.
        if pid in self.leaders:
            _signal_group(pid, signal.SIGKILL)

    def _announce(self, name: int) -> None:
        """In the child, before it becomes the command: the worker hears of the group before any code of it runs.

        So even if the keeper is killed at this moment, the worker knows what to kill. The keeper itself waits for the
        exec meanwhile, and cannot write at the same time.
        """
        if self.prctl is not None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self.answer({"started": name, "pid": os.getpid()})

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 4096):
                pass


def _watch(worker: int) -> int | None:
    """A descriptor that becomes readable when the worker's process ends; None where the system has no such thing."""
    try:
        descriptor = os.pidfd_open(worker)
    except (AttributeError, OSError):
        return None
    if os.getppid() == worker:
        return descriptor
    os.close(descriptor)
    return None


def _prctl() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _next_dead(before: Callable[[int], None]) -> tuple[int, int] | None:
    """Reap one child that has ended: its pid and wait status, after `before` was called with the pid."""
    try:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return None
            before(pid)
            return pid, status
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        before(found.si_pid)
        return os.waitpid(found.si_pid, 0)
    except ChildProcessError:
        return None


def _group_gone(group: int) -> bool:
    """Reap what of a group has ended; True if nobody of it is left among this process's children."""
    try:
        while True:
            if os.waitpid(-group, os.WNOHANG)[0] == 0:
                return False
    except ChildProcessError:
        return True


def main() -> None:
    """Start as the worker's client does: `keeper.py FD WORKER_PID`."""
    descriptor, worker = int(sys.argv[1]), int(sys.argv[2])
    os.setsid()
    os.set_inheritable(descriptor, False)
    Keeper(socket.socket(fileno=descriptor), worker).run()


if __name__ == "__main__":
    main()
