"""Opening a database: engines with the settings that were measured."""

from __future__ import annotations

import sqlite3
import threading
from contextvars import ContextVar
from functools import partial
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, PoolProxiedConnection, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.database_file import DatabaseFile
from scheduler.store.dialect import refuse_network_file_system
from scheduler.store.urls import parse_url, sqlite_file

_BUSY_SECONDS = 30
_READS = "only reads"

ANSWER_WITHIN: ContextVar[float | None] = ContextVar("ANSWER_WITHIN", default=None)
"""How many seconds PostgreSQL may take for one statement in this thread, where that is less than usual."""


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
