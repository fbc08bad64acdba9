"""The one way to connect to PostgreSQL: for transactions, for listening, for upgrades and for the command line alike.

What a database URL says wins over what is set here, option by option; so do libpq's environment variables.

TCP's own signs of life see that a server is gone, not that a proxy in between goes on without passing anything on. So no
answer is waited for without a bound, and a wait can be ended from outside.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from sqlalchemy import URL, Connection

from scheduler.errors import StoreError
from scheduler.store.engine import ANSWER_WITHIN

T = TypeVar("T")

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
_CANCEL_SECONDS: Final = 2.0
_LONG_SECONDS: Final = 3600.0
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
# The server's process, and which settings came with the connection: in the URL, a service file or the environment.
_GREETING: Final = """
SELECT pg_backend_pid(), ARRAY(SELECT lower(name) FROM pg_settings WHERE source = 'client' AND lower(name) = ANY(%s))
"""


class PostgresConnection(psycopg.Connection[Any]):
    """A connection in autocommit mode, made ready for transactions that `begin` starts."""

    answer_within: float | None = None
    """How many seconds the server may take for one statement; after that the connection is closed."""
    given_up: threading.Event | None = None
    """Once it is set nothing is waited for any more."""
    process: int = 0
    """The server's process that answered the greeting."""
    pooled: bool = False
    """Whether a pooler stands between, which may give each transaction another session of the server."""
    _begin: str = _BEGIN

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's, within `answer_within` and until `given_up`: then `psycopg.OperationalError`.

        Raises `StoreError` where a pooler allows no transaction.
        """
        # Whoever says how long to wait, for notifications, waits for no answer.
        seconds = self._patience if kwargs.get("timeout") is None else None
        try:
            return super().wait(self._bounded(gen, seconds), *args, **kwargs)
        except _OverdueError as error:
            if seconds is not None and not self._is_given_up:
                self._cancel()
            self.pgconn.finish()
            raise psycopg.OperationalError(str(error)) from None
        except psycopg.errors.FeatureNotSupported as error:
            if "cached plan" not in str(error):
                raise
            # The schema was upgraded under statements that this session has prepared: a new one prepares them anew.
            self.pgconn.finish()
            raise psycopg.OperationalError("the schema has changed: the connection is made anew") from None
        except psycopg.errors.ProtocolViolation as error:
            if "statement pooling" not in str(error):
                raise
            self.pgconn.finish()
            raise StoreError(
                "the pooler in front of the database pools statements, and transactions are needed: "
                "set its pool_mode to session or transaction"
            ) from None

    def _bounded(self, gen: Generator[Any, Any, T], seconds: float | None) -> Generator[Any, Any, T]:
        # psycopg comes by ten times a second, also while nothing arrives.
        until = None if seconds is None else monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if self._is_given_up:
                    raise _OverdueError("the connection was given up")
                if until is not None and monotonic() > until:
                    raise _OverdueError(f"the database has not answered for {seconds:g} s: the connection is given up")
                wanted = gen.send(ready)
        except StopIteration as done:
            value: T = done.value
            return value

    @property
    def _patience(self) -> float | None:
        least = ANSWER_WITHIN.get()
        return self.answer_within if least is None else min(least, self.answer_within or least)

    @property
    def _is_given_up(self) -> bool:
        return self.given_up is not None and self.given_up.is_set()

    def _cancel(self) -> None:
        # A statement that still runs or waits for a lock would otherwise go on in the server. Where the way to it is cut,
        # this one is too: it is worth seconds, no more. Without a bound of its own (libpq before 17) it is left out.
        if psycopg.capabilities.has_cancel_safe():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_SECONDS)

    def begin(self) -> None:
        """Begins a transaction under the settings that were not given with the connection."""
        self.execute(self._begin, prepare=False)

    def greet(self, options: dict[str, str]) -> None:
        """Finds out who answers, and applies this package's settings: to the session, or behind a pooler by transaction.

        `options` are the settings that were given with the connection; a pooler may have kept them to itself.
        """
        row = self.execute(_GREETING, (list(_SETTINGS),), prepare=False).fetchone()
        assert row is not None
        self.process, given = row
        settings = {name: value for name, value in _SETTINGS.items() if name not in given}
        # A pooler tells its clients a process number of its own. The next transaction may meet a session that has neither
        # these settings nor the statements that were prepared.
        self.pooled = self.process != self.pgconn.backend_pid
        if self.pooled:
            self.prepare_threshold = None
            self._begin = f"{_BEGIN}; {self._setting(settings | options, local=True)}"
        elif settings:
            self.execute(self._setting(settings, local=False), prepare=False)

    def _setting(self, settings: Mapping[str, str], *, local: bool) -> str:
        # Not SET, for which a list of schemas would be the name of one.
        calls = [
            SQL("set_config({}, {}, {})").format(name, value, local).as_string(self) for name, value in settings.items()
        ]
        return f"SELECT {', '.join(calls)}"


class _OverdueError(Exception):
    """An answer is not waited for any longer."""


@dataclass(frozen=True)
class Connector:
    """Makes connections to one database, none of which waits for an answer beyond its bound."""

    url: URL
    answer_within: float
    """Seconds that the server may take for one statement."""
    given_up: threading.Event = field(default_factory=threading.Event)
    """Once it is set every wait of every connection ends, within a tenth of a second."""

    def __call__(self) -> PostgresConnection:
        """A new connection.

        Raises `psycopg.Error` where the server is away or refuses, `StoreError` where the URL can never work.
        """
        keywords = connection_keywords(self.url)
        options = keywords.get("options") or os.environ.get("PGOPTIONS") or ""
        try:
            try:
                connection = self._connect(keywords)
            except psycopg.OperationalError as error:
                if not options or "unsupported startup parameter" not in str(error):
                    raise
                connection = self._connect(keywords | {"options": ""})
        except psycopg.ProgrammingError as error:
            if error.sqlstate is not None:
                raise  # The server's word, not the driver's.
            raise StoreError(f"the database URL cannot be used: {' '.join(str(error).split())}") from None
        connection.answer_within, connection.given_up = self.answer_within, self.given_up
        try:
            connection.greet(settings_of(options))
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, keywords: Mapping[str, Any]) -> PostgresConnection:
        return PostgresConnection.connect(make_conninfo(**keywords), autocommit=True)


def server_encoding(connection: Connection) -> str:
    """How the database stores texts; the server said so when it was connected to."""
    return _raw(connection).info.parameter_status("server_encoding") or ""


@contextlib.contextmanager
def long_statements(connection: Connection) -> Iterator[None]:
    """Statements in the block may take an hour: a migration of large tables does."""
    raw = _raw(connection)
    bound, raw.answer_within = raw.answer_within, _LONG_SECONDS
    try:
        yield
    finally:
        raw.answer_within = bound


def _raw(connection: Connection) -> PostgresConnection:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, PostgresConnection)
    return raw


def shares_sessions(connection: PostgresConnection, connector: Connector) -> bool:
    """Whether the pooler in between gives one session of the server to several connections, transaction by transaction.

    False may be wrong where the pooler is busy; then the session changes later, under the connection.
    """
    try:
        with connector() as other:
            if other.process == connection.process:
                return True
            other.begin()  # It keeps its session now.
            return current_process(connection) != connection.process
    except psycopg.Error:
        return False


def current_process(connection: PostgresConnection) -> int:
    """The server's process that answers now."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row is not None
    return int(row[0])


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


def settings_of(options: str) -> dict[str, str]:
    """The settings in a text of libpq's `options`: `-c name=value`, `-cname=value` and `--name=value`."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    found: dict[str, str] = {}
    left = iter(words)
    for word in left:
        if word == "-c":
            text = next(left, "")
        elif word.startswith(("-c", "--")):
            text = word[2:]
        else:
            continue
        name, equals, value = text.partition("=")
        if equals:
            found[name.replace("-", "_").lower()] = value
    return found


def _one(name: str, value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    # Options given twice are both meant; of anything else the last counts, as for libpq.
    return " ".join(value) if name == "options" else value[-1]
