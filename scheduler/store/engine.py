"""Opening a database: engines with the settings that were measured, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, PoolProxiedConnection, event
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.database_file import DatabaseFile
from scheduler.store.dialect import refuse_network_file_system
from scheduler.store.urls import parse_url, sqlite_file

_BUSY_SECONDS = 30
_READS = "only reads"
# Serialization failure and deadlock: the whole transaction is run again.
_POSTGRES_RETRY = {"40001", "40P01"}
# Shutting down, starting up, too many clients, cannot connect, idle in transaction: the server is away or sent us away.
_POSTGRES_AWAY = ("57P01", "57P02", "57P03", "53300", "08", "25P03")


ANSWER_WITHIN: ContextVar[float | None] = ContextVar("ANSWER_WITHIN", default=None)
"""How many seconds PostgreSQL may take for one statement in this thread, where that is less than usual."""


class TransactionUndoneError(Exception):
    """The database undid the transaction through no fault of its statements: run the whole of it again."""


def open_engine(url: str, *, pool_size: int, answer_within: float, given_up: threading.Event) -> Engine:
    """An engine for the URL; nothing is connected to yet. Raises `StoreError` for what can never work.

    PostgreSQL may take `answer_within` seconds for one statement, and is not waited for once `given_up` is set.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    try:
        if file is not None:
            refuse_network_file_system(file.parent)
            return _open_sqlite(parsed, DatabaseFile(file))
        return _open_postgres(parsed, pool_size, answer_within, given_up)
    except (NoSuchModuleError, ArgumentError) as error:
        raise StoreError(f"the database URL cannot be used: {error}") from None


def _open_postgres(url: URL, pool_size: int, answer_within: float, given_up: threading.Event) -> Engine:
    # Not at the top: a worker on SQLite does without nine megabytes.
    from scheduler.store.connections import Connector

    engine = sqlalchemy.create_engine(
        url,
        creator=Connector(url, answer_within, given_up),
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=False,
        pool_timeout=10,
    )
    engine.dialect.do_begin = _begin_postgres  # type: ignore[method-assign]
    return engine


def _begin_postgres(dbapi_connection: PoolProxiedConnection) -> None:
    connection: Any = dbapi_connection.dbapi_connection
    connection.begin()


def _open_sqlite(url: URL, file: DatabaseFile) -> Engine:
    words, given = url.get_dialect()().create_connect_args(url)
    options: dict[str, Any] = {**given, "timeout": _BUSY_SECONDS, "check_same_thread": False}

    def connect() -> sqlite3.Connection:
        file.check()  # Opening one that is gone would make a new one.
        connection: sqlite3.Connection = sqlite3.connect(words[0], **options)
        try:
            file.opened()
        except StoreUnavailable:
            connection.close()
            raise
        return connection

    engine = sqlalchemy.create_engine(url, creator=connect, pool_timeout=_BUSY_SECONDS)

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
    engine.dialect.do_begin = partial(_begin_sqlite, file)  # type: ignore[method-assign]
    return engine


def begin_reading(connection: sqlalchemy.Connection) -> sqlalchemy.RootTransaction:
    """Begins a transaction that only reads: on SQLite it waits for no writer."""
    connection.info[_READS] = True
    return connection.begin()


def _begin_sqlite(file: DatabaseFile, dbapi_connection: PoolProxiedConnection) -> None:
    file.check()
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
