"""Hearing of other processes' changes: LISTEN on PostgreSQL; on SQLite a glance at the file's version, twice a second."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.database_file import DatabaseFile
from scheduler.store.transaction import CHANNEL, Store
from scheduler.store.urls import sqlite_file

if TYPE_CHECKING:
    from scheduler.store.connections import PostgresConnection

_LOOK_SECONDS = 1.0
# A connection that listens and hears nothing cannot be told from one that is cut: it is asked now and then.
_ASK_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_GLANCE_SECONDS = 0.5
_RECONNECT_SECONDS = 2.0


class Listener:
    """A thread that calls back whenever a transaction elsewhere said that something changed.

    What happened while it was not connected is not told later: it calls back once after every reconnection. `on_shared`
    is called where listening is given up for good, because a pooler gives its session to others between transactions.
    """

    def __init__(self, store: Store, on_notice: Callable[[], None], on_shared: Callable[[], None]) -> None:
        self._url = store.engine.url
        self._on_notice = on_notice
        self._on_shared = on_shared
        self._stopping = threading.Event()
        file = sqlite_file(self._url)
        work = self._listen if file is None else lambda: self._glance(DatabaseFile(file))
        self._thread = threading.Thread(target=work, name="listener", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Ends within about a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3 * _LOOK_SECONDS)

    def _listen(self) -> None:
        # Not at the top: a worker on SQLite does without nine megabytes.
        import psycopg

        from scheduler.store.connections import Connector, shares_sessions

        connector = Connector(self._url, _ANSWER_SECONDS, self._stopping)
        while not self._stopping.is_set():
            try:
                with connector() as connection:
                    if (connection.pooled and shares_sessions(connection, connector)) or not self._hear(connection):
                        self._on_shared()
                        return
            except (psycopg.Error, StoreError):
                # Away or restarting; the transactions say so, here only the next try matters.
                self._stopping.wait(_RECONNECT_SECONDS)

    def _hear(self, connection: PostgresConnection) -> bool:
        """Calls back until told to stop; False once the session is found to be another one."""
        from scheduler.store.connections import current_process

        connection.execute(f"LISTEN {CHANNEL}")
        self._on_notice()
        asked = monotonic()
        while not self._stopping.is_set():
            if any(True for _ in connection.notifies(timeout=_LOOK_SECONDS)):
                self._on_notice()
            if monotonic() - asked > _ASK_SECONDS:
                if current_process(connection) != connection.process:
                    return False
                asked = monotonic()
        return True

    def _glance(self, file: DatabaseFile) -> None:
        while not self._stopping.is_set():
            try:
                with closing(sqlite3.connect(file.path.as_uri() + "?mode=ro", uri=True)) as connection:
                    file.opened()
                    self._watch(connection, file)
            except (sqlite3.Error, StoreUnavailable):
                self._stopping.wait(_RECONNECT_SECONDS)

    def _watch(self, connection: sqlite3.Connection, file: DatabaseFile) -> None:
        version, notices = _version(connection), _notices(connection)
        self._on_notice()
        while not self._stopping.wait(_GLANCE_SECONDS):
            if not file.is_there():
                self._on_notice()  # The next transaction says what is wrong.
                return
            before, version = version, _version(connection)
            if version == before:
                continue  # Nobody has written: the number was read from shared memory, no page of the file was.
            told = _notices(connection)
            if told != notices:
                self._on_notice()
            notices = told


def _version(connection: sqlite3.Connection) -> object:
    return connection.execute("PRAGMA data_version").fetchone()


def _notices(connection: sqlite3.Connection) -> object:
    return connection.execute("SELECT value FROM meta WHERE key = ?", (CHANNEL,)).fetchone()
