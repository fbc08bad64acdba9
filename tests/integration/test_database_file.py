"""A SQLite file that is deleted, moved or replaced under a store that is open: nothing is written where nobody reads."""

from __future__ import annotations

import queue
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from scheduler.errors import StoreUnavailable
from scheduler.store import notifications
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Store, Transaction

GONE, ANOTHER = "the database file is gone", "another file lies where the database was"


def remember(tx: Transaction) -> None:
    """Writes something."""
    tx.notify()


def deleted(file: Path) -> None:
    """As `rm scheduler.db*` does it."""
    for part in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
        part.unlink(missing_ok=True)


def moved(file: Path) -> None:
    """To another name."""
    file.rename(file.with_name("moved.db"))


def replaced(file: Path) -> None:
    """As a restored backup is put in its place, or an editor saves it."""
    shutil.copy(file, file.with_name("copy.db"))
    file.with_name("copy.db").rename(file)


@pytest.mark.parametrize(("harm", "said"), [(deleted, GONE), (moved, GONE), (replaced, ANOTHER)])
def test_nothing_is_read_or_written_any_more(harm: Callable[[Path], None], said: str, sqlite_url: str) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = Store.open(sqlite_url)
    store.run(remember)
    harm(file)
    there = file.exists()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=said) as refused:
            store.run(remember)
        assert str(file) in str(refused.value)
        with pytest.raises(StoreUnavailable, match=said), store.read() as tx:
            tx.now()
    # A connection of its own, not one of the pool: it makes no new file either.
    store.engine.dispose()
    with pytest.raises(StoreUnavailable, match=said):
        store.run(remember)
    assert file.exists() == there
    store.close()


def test_a_file_that_was_moved_back_goes_on(sqlite_url: str) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = Store.open(sqlite_url)
    store.run(remember)
    moved(file)
    with pytest.raises(StoreUnavailable, match=GONE):
        store.run(remember)
    file.with_name("moved.db").rename(file)
    store.run(remember)
    store.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'trigger_scheduler'").fetchone()


def test_another_file_at_its_place_is_left_as_it_is_and_used_after_a_restart(sqlite_url: str) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = Store.open(sqlite_url)
    store.run(remember)
    replaced(file)
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match=ANOTHER):
        store.run(remember)
    store.close()
    assert file.read_bytes() == before
    again = Store.open(sqlite_url)
    again.run(remember)
    again.close()


def test_who_watches_the_file_tells_that_it_is_gone_and_that_it_is_back(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_GLANCE_SECONDS", 0.02)
    monkeypatch.setattr(notifications, "_RECONNECT_SECONDS", 0.02)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = Store.open(sqlite_url)
    store.run(remember)
    heard: queue.SimpleQueue[None] = queue.SimpleQueue()
    listener = Listener(store, lambda: heard.put(None), lambda: None)
    listener.start()
    heard.get(timeout=10)
    moved(file)
    heard.get(timeout=10)
    file.with_name("moved.db").rename(file)
    heard.get(timeout=10)
    store.run(remember)
    heard.get(timeout=10)
    listener.stop()
    store.close()
