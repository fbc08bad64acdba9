"""What an error of a database means: try again at once, wait and try again, or the statement itself is at fault.

    undone    `TransactionUndoneError`   a deadlock, a serialization failure: the whole transaction is run again at once
    passing   `StoreUnavailable`         the database is away, full, read-only, overloaded, locked, or has taken rights
                                         away: waiting is right, and no trigger or run is to blame
    refused   `StatementRefused`         this statement, with this data, fails wherever and whenever it is tried

PostgreSQL is read by its SQLSTATE (appendix A of its manual), SQLite by its result code. What is not known to be the
statement's own fault counts as passing: a worker that waits in vain says so, one that gives up loses slots.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scheduler.errors import StatementRefused, StoreError, StoreUnavailable

# Serialization failure, deadlock, completion unknown, and the rest of their class: nothing of the transaction was kept.
_UNDONE: Final = "40"
# Classes that tell of the statement or its data: wrong data, a broken constraint, a value that does not fit, wrong syntax.
_REFUSED: Final = ("0A", "21", "22", "23", "2F", "38", "39", "42", "44", "54", "P0")
# Within those, what passes: rights that were taken away; tables, columns, functions and types that are not there (yet, or any
# more), as while a backup is read in or a schema is swapped; a statement that a pooler prepared for somebody else.
_PASSING: Final = frozenset({"42501", "42P01", "42703", "42883", "42704", "42P05"})
_WORDS: Final = {
    "25006": "the database is read-only: a standby, or a server that is being switched over",
    "42501": "the database role lacks a right",
    "42P01": "a table of the schema is missing",
    "53100": "the database server's disk is full",
    "53200": "the database server is out of memory",
    "53300": "the database server has no connection to spare",
    "53400": "the database server has reached a limit of its settings",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement was cancelled, by a timeout of the server or by somebody",
    "25P03": "the transaction waited too long for its next statement",
    "25P04": "the transaction took longer than the server allows",
    "57P01": "the database server ended the connection",
    "57P02": "the database server crashed",
    "57P03": "the database server does not take connections yet",
    "57P05": "the connection rested longer than the server allows",
    "3D000": "the database does not exist",
    "28000": "the database server does not let this role in",
    "28P01": "the database server refuses the password",
    "58030": "the database server cannot read or write its files",
    "58P01": "the database server misses a file",
}
# A connection of the pool that stays as it is: another one may lead to the server that now takes writes.
_ANOTHER_CONNECTION: Final = frozenset({"25006", "57P05"})
_SQLITE_WORDS: Final = {
    sqlite3.SQLITE_BUSY: "another process holds the database",
    sqlite3.SQLITE_LOCKED: "another process holds the database",
    sqlite3.SQLITE_PROTOCOL: "another process holds the database",
    sqlite3.SQLITE_FULL: "the database's disk is full",
    sqlite3.SQLITE_READONLY: "the database file cannot be written",
    sqlite3.SQLITE_PERM: "the database file may not be used",
    sqlite3.SQLITE_AUTH: "the database file may not be used",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be used",
    sqlite3.SQLITE_IOERR: "the database file cannot be used",
    sqlite3.SQLITE_NOMEM: "there is no memory left for the database",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_SCHEMA: "the schema was changed meanwhile",
    sqlite3.SQLITE_ABORT: "the statement was broken off",
    sqlite3.SQLITE_INTERNAL: "SQLite failed",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged: restore it from a backup",
}


class TransactionUndoneError(Exception):
    """The database undid the transaction through no fault of its statements: run the whole of it again."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns the drivers' errors into ours, as the head of this module says."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"no connection to the database was free: {error}") from error
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> Exception:
    """What a driver's error means."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(original)
    state: str | None = getattr(original, "sqlstate", None)
    said = first_line(original)
    if state is not None and state.startswith(_UNDONE):
        return TransactionUndoneError(said)
    # Without a state it was the driver that refused, such as a text with a NUL, or that could not connect.
    of_the_statement = (
        not isinstance(error, (OperationalError, InterfaceError))
        if state is None
        else state.startswith(_REFUSED) and state not in _PASSING
    )
    if of_the_statement and not error.connection_invalidated:
        return StatementRefused(f"the database refused a statement: {said}", state)
    words = _WORDS.get(state or "")
    return StoreUnavailable(f"{words}: {said}" if words else said)


def needs_another_connection(error: BaseException) -> bool:
    """Whether the connections at hand will go on failing like this, while new ones may not."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) in _ANOTHER_CONNECTION


def first_line(error: object) -> str:
    """What a driver says, without the connection string that some repeat in further lines."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _of_sqlite(error: sqlite3.Error) -> Exception:
    # Extended codes have the plain one in their low byte.
    code = getattr(error, "sqlite_errorcode", None)
    plain = None if code is None else code & 0xFF
    if plain == sqlite3.SQLITE_NOTADB:
        return StoreError("the database file is not a SQLite database: name another one, or move it away")
    if plain is not None and plain in _SQLITE_WORDS:
        return StoreUnavailable(f"{_SQLITE_WORDS[plain]}: {error}")
    if plain == sqlite3.SQLITE_ERROR and "no such table" in str(error):
        return StoreUnavailable(f"a table of the schema is missing: {error}")
    return StatementRefused(f"the database refused a statement: {error}", getattr(error, "sqlite_errorname", None))
