"""pgbouncer, as Debian packages it, in front of a test's PostgreSQL server."""

from __future__ import annotations

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

    def __init__(self, port: int, mode: str, folder: Path) -> None:
        self.port = port
        self.mode = mode
        self.log = folder / "log"
        self._settings = folder / "pgbouncer.ini"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        command = ["pgbouncer", "-q", str(self._settings)]
        self._process = subprocess.Popen(
            command, user=system_user(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(lambda: _answers(self.port), "pgbouncer listens", 10)

    def stop(self) -> None:
        """Ends it at once; connections are cut."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def restart(self) -> None:
        """Ends it and starts it again at the same address."""
        self.stop()
        self.start()

    def url(self, behind: str, query: str = "") -> str:
        """The URL of a database of the server, this pooler in between."""
        name = urlsplit(behind).path
        return f"postgresql://postgres@127.0.0.1:{self.port}{name}" + (f"?{query}" if query else "")


@contextmanager
def pgbouncer(server_url: str, mode: str, *, tls: tuple[Path, Path] | None = None, **settings: str) -> Iterator[Pooler]:
    """A pooler in front of the URL's server, which it reaches by its socket; skips the test where there is none.

    `tls` is the key and the certificate that it shows to clients.
    """
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="scheduler-pgbouncer-"))
    pooler = Pooler(free_port(), mode, folder)
    chosen = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(pooler.port),
        "unix_socket_dir": "",
        "pool_mode": mode,
        "auth_type": "any",
        "logfile": str(pooler.log),
        "default_pool_size": "10",
    }
    if tls is not None:
        # Not where they were made: pytest's own folder is closed to other users.
        key, shown = (Path(shutil.copy(file, folder)) for file in tls)
        chosen |= {"client_tls_key_file": str(key), "client_tls_cert_file": str(shown)}
    lines = [f"{name} = {value}" for name, value in (chosen | settings).items()]
    there = f"* = host={make_url(server_url).query['host']} port=5432 user=postgres"
    (folder / "pgbouncer.ini").write_text("\n".join(["[databases]", there, "[pgbouncer]", *lines, ""]))
    user = system_user()
    if user is not None:
        for file in (folder, *folder.iterdir()):
            shutil.chown(file, user)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(folder, ignore_errors=True)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of `localhost`, made by openssl; skips the test where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    words = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return key, certificate


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
