"""pgbouncer, as Debian packages it, in front of a test's PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from tests.e2e.worlds import eventually
from tests.postgres import free_port, system_user


class Pooler:
    """A running pgbouncer: `url(…)` is a database of the server's through it."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def url(self, behind: str, query: str = "") -> str:
        """The URL of a database of the server, this pooler in between."""
        name = urlsplit(behind).path
        return f"postgresql://postgres@127.0.0.1:{self.port}{name}" + (f"?{query}" if query else "")


@contextmanager
def pgbouncer(server_url: str, mode: str, **settings: str) -> Iterator[Pooler]:
    """A pooler in front of the URL's server, which it reaches by its socket; skips the test where there is none."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="scheduler-pgbouncer-"))
    pooler = Pooler(free_port(), folder / "log")
    chosen = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(pooler.port),
        "unix_socket_dir": "",
        "pool_mode": mode,
        "auth_type": "any",
        "logfile": str(pooler.log),
        "pidfile": "",
        "default_pool_size": "10",
    }
    lines = [f"{name} = {value}" for name, value in (chosen | settings).items()]
    there = f"* = host={make_url(server_url).query['host']} port=5432 user=postgres"
    (folder / "pgbouncer.ini").write_text("\n".join(["[databases]", there, "[pgbouncer]", *lines, ""]))
    user = system_user()
    if user is not None:
        shutil.chown(folder, user)
    process = subprocess.Popen(
        ["pgbouncer", "-q", str(folder / "pgbouncer.ini")],
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers(pooler.port), f"pgbouncer listens:\n{_read(pooler.log)}", 10)
        yield pooler
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        shutil.rmtree(folder, ignore_errors=True)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of `localhost`, made by openssl; skips the test where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    user = system_user()
    if user is not None:
        shutil.chown(key, user)
    return key, certificate


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _read(log: Path) -> str:
    return log.read_text() if os.path.exists(log) else ""
