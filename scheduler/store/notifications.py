"""Hearing of other processes' changes at once: LISTEN on PostgreSQL. Elsewhere nobody calls, and the sync beat looks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
from sqlalchemy import URL

from scheduler.store.transaction import CHANNEL, Store

_LOOK_SECONDS = 1.0
_RECONNECT_SECONDS = 2.0


class Listener:
    """A thread that calls back whenever a transaction elsewhere said that something changed.

    What happened while it was not connected is not told later: it calls back once after every reconnection.
    """

    def __init__(self, store: Store, on_notice: Callable[[], None]) -> None:
        self._url = store.engine.url
        self._on_notice = on_notice
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if store.dialect.name == "postgresql":
            self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        if self._thread is not None:
            self._thread.start()

    def stop(self) -> None:
        """Ends within about a second."""
        self._stopping.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=3 * _LOOK_SECONDS)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(_conninfo(self._url), autocommit=True, connect_timeout=5) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._on_notice()
                    while not self._stopping.is_set():
                        if any(True for _ in connection.notifies(timeout=_LOOK_SECONDS)):
                            self._on_notice()
            except psycopg.Error:
                # Away or restarting; the transactions say so, here only the next try matters.
                self._stopping.wait(_RECONNECT_SECONDS)


def _conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
