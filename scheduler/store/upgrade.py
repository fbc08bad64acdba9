"""Bringing a database's schema to this code's, and telling whether it is."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Final

from sqlalchemy import Connection, inspect, text

from scheduler.errors import SchemaMismatch, StoreUnavailable
from scheduler.store.dialect import Dialect
from scheduler.store.engine import begin_reading
from scheduler.store.failures import translated_errors
from scheduler.store.transaction import Store, Transaction
from scheduler.store.urls import sqlite_file

UTF8: Final = "UTF8"
_REVISION: Final = re.compile(r"r(\d{4})_\w+\.py")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The revision a database has (None: no schema yet) and the one this code needs."""

    found: str | None
    needed: str
    known: bool
    encoding: str = UTF8
    """How the database stores texts."""

    @property
    def current(self) -> bool:
        """Whether the code and the schema fit."""
        return self.found == self.needed

    @property
    def bearable(self) -> bool:
        """Whether a worker that runs may go on: also under a newer schema, which stays compatible one release back."""
        return self.current or not self.known


def schema_state(store: Store) -> SchemaState:
    """What schema the database has; a SQLite file that does not exist has none and is not created by asking."""
    file = sqlite_file(store.engine.url)
    if file is not None and not file.exists():
        return SchemaState(None, _revisions()[0], True)
    with translated_errors(), store.engine.connect() as connection, begin_reading(connection):
        return _found_on(connection, store.dialect)


def schema_seen(tx: Transaction) -> SchemaState:
    """What schema the database has, as this transaction sees it."""
    return _found_on(tx.connection, tx.dialect)


def require_schema(store: Store) -> None:
    """Raises `SchemaMismatch`, saying the command that mends it, unless schema and code fit, and every text can be stored."""
    state = schema_state(store)
    _require_encoding(state)
    if state.current:
        return
    if state.found is None:
        raise SchemaMismatch("the database has no schema yet: run `scheduler db upgrade`")
    if state.known:
        raise SchemaMismatch(
            f"the database's schema is {state.found}, older than {state.needed}: run `scheduler db upgrade`"
        )
    raise SchemaMismatch(
        f"the database's schema is {state.found}, newer than this version knows ({state.needed}): "
        "install the newer trigger-scheduler, as shown by `scheduler version` where the upgrade was made"
    )


def upgrade_schema(store: Store) -> SchemaState:
    """Brings the schema up to date in one transaction and returns what it was before.

    Two at a time wait for each other. A schema newer than the code raises `SchemaMismatch` and stays as it is.
    """
    file = sqlite_file(store.engine.url)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _upgrade(store)
    except StoreUnavailable:
        # Another upgrade may have ended this session with those of the workers, just before it waited for its turn.
        return _upgrade(store)


def _upgrade(store: Store) -> SchemaState:
    before = schema_state(store)
    _require_encoding(before)
    if not before.known:
        require_schema(store)
    if before.current:
        return before
    # Not at the top: a worker whose schema fits, and every listing, does without seven megabytes and their import.
    from alembic import command
    from alembic.config import Config

    with (
        translated_errors(),
        store.engine.begin() as connection,
        store.dialect.long_statements(connection),
    ):
        store.dialect.advisory_lock(connection)
        with as_file(files("scheduler.store") / "migrations") as folder:
            config = Config(stdout=io.StringIO())
            config.set_main_option("script_location", str(folder).replace("%", "%%"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    # Sessions of this very process may have been ended with the others.
    store.engine.dispose()
    return before


def _require_encoding(state: SchemaState) -> None:
    if state.encoding != UTF8:
        raise SchemaMismatch(
            f"the database stores texts as {state.encoding or 'an unknown encoding'}, which cannot hold all of them: make "
            "another one, `CREATE DATABASE scheduler ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0`, and name it in database.url"
        )


def table_names(store: Store) -> list[str]:
    """The tables that are there."""
    with translated_errors():
        return inspect(store.engine).get_table_names()


def _found_on(connection: Connection, dialect: Dialect) -> SchemaState:
    found: str | None = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    needed, known = _revisions()
    return SchemaState(found, needed, found is None or found in known, dialect.encoding(connection))


@lru_cache(maxsize=1)
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest revision this code has, and all of them, by the names of their files: each follows the one before."""
    names = (file.name for file in (files("scheduler.store") / "migrations" / "versions").iterdir())
    found = sorted(match[1] for name in names if (match := _REVISION.fullmatch(name)))
    return found[-1], frozenset(found)
