"""Who waits for whom in a SQLite file: a writer holds it from its first moment on, a reader never does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema
from scheduler.store.urls import sqlite_file
from tests.sqlite_files import may_be_written


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    store = Store.open(sqlite_url)
    upgrade_schema(store)
    yield store
    store.close()


def another_may_write(store: Store) -> bool:
    """Whether another process gets the file for writing at this moment."""
    file = sqlite_file(store.engine.url)
    assert file is not None
    return may_be_written(file)


def test_a_transaction_that_may_write_holds_the_file_before_its_first_statement(store: Store) -> None:
    with store.begin():
        assert not another_may_write(store)
    assert another_may_write(store)


def test_a_transaction_that_reads_holds_up_no_writer_and_waits_for_none(store: Store) -> None:
    with store.begin() as writing:
        writing.meta.put("key", "written")
        with store.read() as reading:
            assert reading.meta.get("key") is None
    with store.read() as reading:
        assert reading.meta.get("key") == "written"
        assert another_may_write(store)


def test_a_connection_that_has_only_read_writes_the_next_time(store: Store) -> None:
    with store.read() as reading:
        connection = reading.connection.connection.dbapi_connection
    with store.begin() as writing:
        assert writing.connection.connection.dbapi_connection is connection
        assert not another_may_write(store)
