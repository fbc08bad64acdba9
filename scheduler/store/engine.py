"""Opening a database: engines with the settings that were measured, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, PoolProxiedConnection, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.dialect import refuse_network_file_system

_BUSY_SECONDS = 30
_READS = "only reads"
_POSTGRES_SETTINGS = {
    # A worker frozen inside a transaction would keep its rows locked: the server ends such a session.
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    # By default a page out of order counts as four in order, as on a disk that turns. To find a batch's thousand rows the
    # server then reads through all of a table of some ten thousand, which takes half as long again.
    "random_page_cost": "1.1",
}
# Serialization failure and deadlock: the whole transaction is run again.
_POSTGRES_RETRY = {"40001", "40P01"}
# Shutting down, starting up, too many clients, cannot connect, idle in transaction: the server is away or sent us away.
_POSTGRES_AWAY = ("57P01", "57P02", "57P03", "53300", "08", "25P03")


class TransactionUndoneError(Exception):
    """The database undid the transaction through no fault of its statements: run the whole of it again."""


def parse_url(url: str) -> URL:
    """The URL with the driver this package uses; unsupported databases raise `StoreError`."""
    try:
        parsed = make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise StoreError("the database URL cannot be read: write sqlite:///file.db or postgresql://host/name") from None
    match parsed.get_backend_name():
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite":
            return parsed.set(drivername="sqlite")
    raise StoreError(f"{parsed.drivername} is not supported: write sqlite:///file.db or postgresql://host/name")


def sqlite_file(url: URL) -> Path | None:
    """The database file of a SQLite URL; None for PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise StoreError("an in-memory database forgets what it owes: name a file, sqlite:///scheduler.db")
    return Path(url.database)


def open_engine(url: str, *, pool_size: int = 5, application: str = "trigger-scheduler") -> Engine:
    """An engine for the URL; nothing is connected to yet. Raises `StoreError` for what can never work."""
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    try:
        if file is not None:
            refuse_network_file_system(file.parent)
            return _open_sqlite(parsed)
        engine = sqlalchemy.create_engine(
            parsed,
            isolation_level="READ COMMITTED",
            pool_size=pool_size,
            max_overflow=2,
            pool_pre_ping=False,
            pool_timeout=10,
            connect_args={
                "application_name": application,
                "connect_timeout": 5,
                # A server that vanished without a word is noticed within seconds, not after the kernel's two hours.
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
                "options": " ".join(f"-c {name}={value}" for name, value in _POSTGRES_SETTINGS.items()),
            },
        )
    except NoSuchModuleError as error:
        raise StoreError(str(error)) from None
    return engine


def _open_sqlite(url: URL) -> Engine:
    engine = sqlalchemy.create_engine(
        url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}, pool_timeout=_BUSY_SECONDS
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own BEGIN would be deferred: a later write could then meet "database is locked" at once.
        connection.isolation_level = None
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA wal_autocheckpoint=16000")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.close()

    # Not the engine's event of that name: an engine that anything listens to asks for listeners at every statement, which
    # made an empty transaction cost twice as much, and a short statement a third more.
    engine.dialect.do_begin = _begin_sqlite  # type: ignore[method-assign]
    return engine


def begin_reading(connection: sqlalchemy.Connection) -> sqlalchemy.RootTransaction:
    """Begins a transaction that only reads: on SQLite it waits for no writer."""
    connection.info[_READS] = True
    return connection.begin()


def _begin_sqlite(dbapi_connection: PoolProxiedConnection) -> None:
    reads = dbapi_connection.info.pop(_READS, False)
    dbapi_connection.cursor().execute("BEGIN" if reads else "BEGIN IMMEDIATE")


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Puts the file into WAL mode, in which it then stays.

    The switch is the one statement that SQLite's busy timeout does not wait for: of two who open a new file at once,
    one is told "database is locked" although the other is done in milliseconds.
    """
    switch = Retrying(
        retry=retry_if_exception_message(match="database is locked"),
        wait=wait_random_exponential(multiplier=0.01, max=0.2),
        stop=stop_after_delay(_BUSY_SECONDS),
        reraise=True,
    )
    switch(cursor.execute, "PRAGMA journal_mode=WAL")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns the drivers' errors into ours: away is `StoreUnavailable`, undone is `TransactionUndoneError`."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"no connection to the database was free: {error}") from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> Exception | None:
    original = error.orig
    if isinstance(original, sqlite3.OperationalError):
        message = str(original)
        if "locked" in message or "busy" in message:
            return StoreUnavailable(f"another process holds the database: {message}")
        if "unable to open" in message or "disk I/O" in message or "disk is full" in message or "readonly" in message:
            return StoreUnavailable(f"the database file cannot be used: {message}")
        return None
    if isinstance(original, sqlite3.DatabaseError) and "not a database" in str(original):
        return StoreError("the database file is not a SQLite database: name another one, or move it away")
    state = getattr(original, "sqlstate", None)
    if state in _POSTGRES_RETRY:
        return TransactionUndoneError(str(original))
    if error.connection_invalidated or (state and state.startswith(_POSTGRES_AWAY)):
        return StoreUnavailable(_first_line(original))
    if state is None and isinstance(error, (OperationalError, InterfaceError)):
        return StoreUnavailable(_first_line(original))
    return None


def _first_line(error: object) -> str:
    # Drivers answer in several lines, some of which repeat the connection string.
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def permission_problem(error: DBAPIError) -> StoreError:
    """What to tell a user about an error that neither a retry nor waiting will mend."""
    return StoreError(_first_line(error.orig))
