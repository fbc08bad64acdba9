"""What the two databases do differently, each in one class; the only place that knows which one it is.

A statement elsewhere is written once, with `dialect.rows(…)` for a batch of values, `dialect.locked(…)` for "lock these,
skip what someone else holds" and `dialect.now(…)` for the database's own clock.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Integer,
    Select,
    String,
    Subquery,
    Table,
    Text,
    bindparam,
    cast,
    collate,
    column,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from scheduler.domain.instants import Micros
from scheduler.errors import StoreError

BIGINT: TypeEngine[Any] = BigInteger()
BOOLEAN: TypeEngine[Any] = Boolean()
INTEGER: TypeEngine[Any] = Integer()
TEXT: TypeEngine[Any] = Text()

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "9p"}


class Batch(NamedTuple):
    """Rows that a statement reads from `rows`, and `send`, which makes the statement's parameters of their values."""

    rows: FromClause
    send: Callable[[Sequence[Sequence[Any]]], dict[str, Any]]


class Each(Protocol):
    """A statement that finds something for each row; what else it has parameters for is given by name."""

    def __call__(self, connection: Connection, values: Sequence[Sequence[Any]], **more: Any) -> Sequence[Any]: ...


class Dialect(Protocol):
    """One database's ways; a row lock taken through it lasts until the transaction ends."""

    name: str
    auto_upgrade: bool
    writes_in_ctes: bool
    """Whether one statement may write two tables."""

    def database_now(self, connection: Connection) -> Micros | None:
        """The server's clock (not the transaction's start), or None where the caller's clock is the only one."""
        ...

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]], values: Sequence[Sequence[Any]]) -> FromClause:
        """A batch of values as something to select from; one statement text whatever the batch's size."""
        ...

    def batch(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> Batch:
        """As `rows`, for a statement that is built before its values are known: they come with its execution."""
        ...

    def locked(self, statement: Select[Any], *, of: Table, skip: bool) -> Select[Any]:
        """The statement with its rows of `of` locked against other writers; with `skip`, rows in use are left out."""
        ...

    def among(self, column: ColumnElement[Any], kind: TypeEngine[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        """Whether the column is one of the values; one statement text whatever their number."""
        ...

    def each(self, columns: Mapping[str, TypeEngine[Any]], best: Callable[..., Select[Any]]) -> Each:
        """What `best`, given a row's columns, selects for each row: in one statement, or in one a row."""
        ...

    def bytewise(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """A text to be sorted and compared byte by byte, as Python does, whatever language the database speaks."""
        ...

    def contains(self, column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
        """Whether a text holds a part, A to Z in either case; other letters only as they are written."""
        ...

    def insert(self, table: Table) -> Any:
        """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        ...

    def notify(self, connection: Connection, channel: str) -> None:
        """Wakes whoever listens, when this transaction commits."""
        ...

    def is_on_this_machine(self, connection: Connection) -> bool:
        """Whether the database runs where this process does."""
        ...

    def advisory_lock(self, connection: Connection) -> None:
        """Lets one migration run at a time."""
        ...

    def encoding(self, connection: Connection) -> str:
        """How the database stores texts; nothing but UTF8 can store them all."""
        ...

    def long_statements(self, connection: Connection) -> AbstractContextManager[None]:
        """Statements in the block may take much longer than others, and are still waited for."""
        ...

    def settle(self, engine: Engine) -> None:
        """Does a part of what a commit would otherwise have to do all at once, now and then."""
        ...


class PostgresDialect:
    """PostgreSQL: many workers, row locks, its own clock, NOTIFY."""

    name = "postgresql"
    auto_upgrade = False
    writes_in_ctes = True
    _MIGRATION_LOCK = 7_221_913_006

    def database_now(self, connection: Connection) -> Micros | None:
        # now() stands still within a transaction; clock_timestamp() does not.
        value = connection.execute(_POSTGRES_NOW).scalar_one()
        return int(value)

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]], values: Sequence[Sequence[Any]]) -> FromClause:
        # One array a column: the statement stays the same for any number of rows, and so does its plan.
        arrays = list(zip(*values, strict=True)) if values else [() for _ in columns]
        binds = [
            _array(f"{name}_{index}", kind, array)
            for index, (array, kind) in enumerate(zip(arrays, columns.values(), strict=True))
        ]
        return _unnested(name, columns, binds)

    def batch(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> Batch:
        kinds = list(columns.values())
        labels = [f"{name}_{index}" for index in range(len(kinds))]
        binds = [
            cast(bindparam(label, type_=Text()), postgresql.ARRAY(kind))
            for label, kind in zip(labels, kinds, strict=True)
        ]

        def send(values: Sequence[Sequence[Any]]) -> dict[str, Any]:
            arrays = zip(*values, strict=True) if values else iter([()] * len(kinds))
            return {label: _array_text(kind, array) for label, kind, array in zip(labels, kinds, arrays, strict=True)}

        return Batch(_unnested(name, columns, binds), send)

    def among(self, column: ColumnElement[Any], kind: TypeEngine[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        # Joined, not `= ANY(…)`: an array that is not known when the statement is planned would be read through for every
        # row of the table.
        return column.in_(select(func.unnest(_array("among", kind, tuple(values)))))

    def locked(self, statement: Select[Any], *, of: Table, skip: bool) -> Select[Any]:
        return statement.with_for_update(key_share=True, skip_locked=skip, of=of)

    def each(self, columns: Mapping[str, TypeEngine[Any]], best: Callable[..., Select[Any]]) -> Each:
        batch = self.batch("each", columns)
        statement = select(best(*batch.rows.c).lateral("best")).select_from(batch.rows)
        return lambda connection, values, **more: connection.execute(statement, {**batch.send(values), **more}).all()

    def bytewise(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return collate(column, "C")

    def contains(self, column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
        return func.strpos(func.lower(collate(column, "C")), _lower(part)) > 0

    def insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def notify(self, connection: Connection, channel: str) -> None:
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})

    def is_on_this_machine(self, connection: Connection) -> bool:
        # No address: a Unix socket.
        same = text("SELECT coalesce(inet_server_addr() = inet_client_addr(), true)")
        return bool(connection.execute(same).scalar_one())

    def advisory_lock(self, connection: Connection) -> None:
        # A migration that ends the sessions of running workers knows by this name whom to leave alone.
        connection.execute(text("SET LOCAL application_name = 'upgrade of trigger-scheduler'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._MIGRATION_LOCK})

    def encoding(self, connection: Connection) -> str:
        from scheduler.store.connections import server_encoding

        return server_encoding(connection)

    def long_statements(self, connection: Connection) -> AbstractContextManager[None]:
        from scheduler.store.connections import long_statements

        return long_statements(connection)

    def settle(self, engine: Engine) -> None:
        """The server does it by itself."""


class SqliteDialect:
    """SQLite: one writer at a time, whole-database locks, the caller's clock."""

    name = "sqlite"
    auto_upgrade = True
    writes_in_ctes = False

    def database_now(self, connection: Connection) -> Micros | None:
        return None

    def is_on_this_machine(self, connection: Connection) -> bool:
        return True

    def rows(self, name: str, columns: Mapping[str, TypeEngine[Any]], values: Sequence[Sequence[Any]]) -> FromClause:
        payload: BindParameter[str] = bindparam(name, _json_rows(values), unique=True)
        return _extracted(name, columns, payload)

    def batch(self, name: str, columns: Mapping[str, TypeEngine[Any]]) -> Batch:
        label = f"{name}_rows"
        rows = _extracted(name, columns, bindparam(label, type_=Text()))
        return Batch(rows, lambda values: {label: _json_rows(values)})

    def among(self, column: ColumnElement[Any], kind: TypeEngine[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        payload: BindParameter[str] = bindparam("among", json.dumps(list(values)), unique=True)
        return column.in_(select(func.json_each(payload).table_valued("value").c.value))

    def locked(self, statement: Select[Any], *, of: Table, skip: bool) -> Select[Any]:
        return statement  # BEGIN IMMEDIATE already made this the only writer.

    def each(self, columns: Mapping[str, TypeEngine[Any]], best: Callable[..., Select[Any]]) -> Each:
        # There is no LATERAL here, and a statement costs microseconds: no network lies between.
        names = [f"each_{name}" for name in columns]
        statement = best(*(bindparam(name, type_=kind) for name, kind in zip(names, columns.values(), strict=True)))

        def rows(connection: Connection, values: Sequence[Sequence[Any]], **more: Any) -> Sequence[Any]:
            answers = (
                connection.execute(statement, {**dict(zip(names, row, strict=True)), **more}).all() for row in values
            )
            return [row for answer in answers for row in answer]

        return rows

    def bytewise(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return column

    def contains(self, column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
        return func.instr(func.lower(column), _lower(part)) > 0

    def insert(self, table: Table) -> Any:
        return sqlite.insert(table)

    def notify(self, connection: Connection, channel: str) -> None:
        # Nobody can be called across processes: a number goes up, and whoever listens looks at it now and then.
        connection.execute(_COUNT_NOTICE, {"channel": channel})

    def advisory_lock(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE is the lock."""

    def encoding(self, connection: Connection) -> str:
        return "UTF8"

    def long_statements(self, connection: Connection) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(self, engine: Engine) -> None:
        # The log grows until a commit copies it into the file, all 64 MB at once, and whatever is due waits. A passive
        # checkpoint copies what there is beside readers and the writer.
        with closing(engine.raw_connection()) as connection, suppress(sqlite3.OperationalError):
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            cursor.close()


def _json_rows(values: Sequence[Sequence[Any]]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _extracted(name: str, columns: Mapping[str, TypeEngine[Any]], payload: BindParameter[str]) -> FromClause:
    # json_each reads the whole batch out of one bound text, as unnest does with arrays.
    each = func.json_each(payload).table_valued("value", name=f"{name}_json")
    picked = [
        cast(func.json_extract(each.c.value, f"$[{index}]"), kind).label(label)
        if not isinstance(kind, (Text, String))
        else func.json_extract(each.c.value, f"$[{index}]", type_=kind).label(label)
        for index, (label, kind) in enumerate(columns.items())
    ]
    subquery: Subquery = select(*picked).select_from(each).subquery(name)
    return subquery


def _array(name: str, kind: TypeEngine[Any], values: Sequence[Any]) -> ColumnElement[Any]:
    """An array parameter, sent as the text the server reads: the driver would look at every single element."""
    bind: BindParameter[str] = bindparam(name, _array_text(kind, values), type_=Text(), unique=True)
    return cast(bind, postgresql.ARRAY(kind))


def _array_text(kind: TypeEngine[Any], values: Sequence[Any]) -> str:
    if len(values) > 1 and len(set(values)) == 1:
        # Of the columns of a batch half are the same in every row.
        items = _array_items(kind, values[:1]) * len(values)
    else:
        items = _array_items(kind, values)
    return "{" + ",".join(items) + "}"


def _array_items(kind: TypeEngine[Any], values: Sequence[Any]) -> list[str]:
    if isinstance(kind, (Text, String)):
        return ["NULL" if value is None else _quoted(value) for value in values]
    return ["NULL" if value is None else str(value) for value in values]


def _unnested(name: str, columns: Mapping[str, TypeEngine[Any]], arrays: Iterable[ColumnElement[Any]]) -> FromClause:
    labelled = (column(label, kind) for label, kind in columns.items())
    return func.unnest(*arrays).table_valued(*labelled, name=name).render_derived()


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


_COUNT_NOTICE = text(
    "INSERT INTO meta (key, value) VALUES (:channel, '1') "
    "ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)"
)


def _lower(part: str) -> str:
    # What both databases make of it: lower() of SQLite, and of PostgreSQL's collation "C", knows A to Z alone.
    return "".join(letter.lower() if letter.isascii() else letter for letter in part)


_POSTGRES_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")


def dialect_of(engine: Engine) -> Dialect:
    """The dialect of an engine's database; any other than PostgreSQL and SQLite raises `StoreError`."""
    match engine.dialect.name:
        case "postgresql":
            return PostgresDialect()
        case "sqlite":
            return SqliteDialect()
    raise StoreError(f"{engine.dialect.name} is not supported: use sqlite:/// or postgresql://")


def server_now(dialect: Dialect, moment: Micros | None) -> Any:
    """A SQL expression for the present instant: the given one, or the server's clock read once a statement."""
    if moment is None and dialect.name == "postgresql":
        # As a scalar subquery it is read once, so an index on the compared column is still used.
        return asked_now(server=True)
    return literal(moment, BigInteger)


def asked_now(server: bool) -> Any:
    """The same for a statement that is built once: the server's clock, or the parameter `now`."""
    if server:
        return _POSTGRES_NOW.columns(column("now", BigInteger)).scalar_subquery()
    return bindparam("now", type_=BigInteger())


def refuse_network_file_system(path: Path) -> None:
    """Raises `StoreError` if the database file would lie on a file system whose locks cannot be trusted."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # No such list on this system: nothing to judge by.
    target = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{path} lies on a network file system ({kind}), where SQLite's locks fail: use PostgreSQL")


__all__ = [
    "BIGINT",
    "BOOLEAN",
    "INTEGER",
    "TEXT",
    "Dialect",
    "PostgresDialect",
    "SqliteDialect",
    "asked_now",
    "dialect_of",
    "refuse_network_file_system",
    "server_now",
]
