"""The one way to connect to PostgreSQL: for transactions, for listening, for upgrades and for the command line alike.

What a database URL says wins over what is set here, option by option; so do libpq's environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from scheduler.errors import StoreError

APPLICATION: Final = "trigger-scheduler"
_CONNECT_SECONDS: Final = 5
_SOCKET: Final = {
    # A server that vanished without a word is noticed within seconds, not after the kernel's two hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SETTINGS: Final = {
    # A worker frozen inside a transaction would keep its rows locked: the server ends such a session.
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    # By default a page out of order counts as four in order, as on a disk that turns. To find a batch's thousand rows the
    # server then reads through all of a table of some ten thousand, which takes half as long again.
    "random_page_cost": "1.1",
}
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
# The server's process, and which settings came with the connection: in the URL, a service file or the environment.
_GREETING: Final = """
SELECT pg_backend_pid(), ARRAY(SELECT lower(name) FROM pg_settings WHERE source = 'client' AND lower(name) = ANY(%s))
"""


class PostgresConnection(psycopg.Connection[Any]):
    """A connection in autocommit mode, made ready for transactions that `begin` starts."""

    pooled: bool = False
    """Whether a pooler stands between, which may give each transaction another session of the server."""
    _begin: str = _BEGIN

    def begin(self) -> None:
        """Begins a transaction under the settings that were not given with the connection."""
        self.execute(self._begin, prepare=False)

    def greet(self) -> None:
        """Finds out who answers, and applies this package's settings: to the session, or behind a pooler by transaction."""
        row = self.execute(_GREETING, (list(_SETTINGS),), prepare=False).fetchone()
        assert row is not None
        process, given = row
        settings = [(name, value) for name, value in _SETTINGS.items() if name not in given]
        # A pooler tells its clients a process number of its own. The next transaction may meet a session that has neither
        # these settings nor the statements that were prepared.
        self.pooled = process != self.pgconn.backend_pid
        if self.pooled:
            self.prepare_threshold = None
            self._begin = "; ".join([_BEGIN, *(f"SET LOCAL {name} = '{value}'" for name, value in settings)])
        elif settings:
            self.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings), prepare=False)


def connect(url: URL) -> PostgresConnection:
    """A new connection to the URL's database.

    Raises `psycopg.Error` where the server is away or refuses, `StoreError` where the URL can never work.
    """
    try:
        conninfo = make_conninfo(**connection_keywords(url))
        connection = PostgresConnection.connect(conninfo, autocommit=True)
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise  # The server's word, not the driver's.
        raise StoreError(f"the database URL cannot be used: {' '.join(str(error).split())}") from None
    try:
        connection.greet()
    except BaseException:
        connection.close()
        raise
    return connection


def connection_keywords(url: URL) -> dict[str, Any]:
    """What libpq is told for a URL: what the URL says, and this package's own where it says nothing."""
    given: dict[str, Any] = {
        "user": url.username or None,
        "password": url.password or None,
        "host": url.host,
        "port": url.port,
        "dbname": url.database or None,
        **{name: _one(name, value) for name, value in url.query.items()},
    }
    keywords = {name: value for name, value in given.items() if value is not None}
    if "PGCONNECT_TIMEOUT" not in os.environ:
        keywords.setdefault("connect_timeout", _CONNECT_SECONDS)
    for name, value in _SOCKET.items():
        keywords.setdefault(name, value)
    keywords.setdefault("fallback_application_name", APPLICATION)
    # Not for the user to choose: in another one there are texts that cannot be sent.
    keywords["client_encoding"] = "UTF8"
    return keywords


def _one(name: str, value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    # Options given twice are both meant; of anything else the last counts, as for libpq.
    return " ".join(value) if name == "options" else value[-1]
