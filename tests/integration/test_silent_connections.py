"""A connection that goes silent behind a proxy that lives: nothing is waited for without a bound, and waits can be ended."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from scheduler.errors import StoreUnavailable
from scheduler.store import notifications
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Store, Transaction
from tests.e2e.worlds import eventually
from tests.fakes.proxy import Proxy

pytestmark = pytest.mark.postgres


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """A proxy in front of this test's database."""
    with Proxy(f"{make_url(postgres_url).query['host']}/.s.PGSQL.5432") as running:
        yield running


@pytest.fixture
def store(postgres_url: str, proxy: Proxy) -> Iterator[Store]:
    """A store whose statements may take half a second, through the proxy."""
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(postgres_url).path}"
    opened = Store.open(url, pool_size=3, command_timeout=0.5)
    yield opened
    opened.close()


def held(store: Store) -> threading.Thread:
    """A thread that waits in the database for as long as it is let."""
    begun = threading.Event()

    def work() -> None:
        def sleep(tx: Transaction) -> None:
            begun.set()
            tx.connection.execute(text("SELECT pg_sleep(60)"))

        with pytest.raises(StoreUnavailable):
            store.run(sleep)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert begun.wait(10)
    return thread


def test_an_answer_that_is_overdue_is_given_up_and_the_next_connection_is_a_new_one(store: Store, proxy: Proxy) -> None:
    store.run(Transaction.now)
    proxy.silence(new=False)
    with pytest.raises(StoreUnavailable, match=r"has not answered for 0\.5 s"):
        store.run(Transaction.now)
    store.run(Transaction.now)


def test_of_a_pool_that_went_silent_one_overdue_answer_replaces_all(store: Store, proxy: Proxy) -> None:
    with store.begin(), store.begin(), store.begin():
        pass
    assert proxy.connections == 3
    proxy.silence(new=False)
    with pytest.raises(StoreUnavailable):
        store.run(Transaction.now)
    for _ in range(3):
        store.run(Transaction.now)


def test_a_statement_that_takes_too_long_is_cancelled_in_the_server(store: Store, postgres_url: str) -> None:
    held(store).join(10)
    other = Store.open(postgres_url, pool_size=1)
    still = text("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")

    def ended() -> bool:
        with other.begin() as tx:
            return tx.connection.execute(still).scalar_one() == 0

    eventually(ended, "the server has ended it", 10)
    other.close()


def test_statements_that_may_take_long_are_waited_for(store: Store) -> None:
    with store.begin() as tx, tx.dialect.long_statements(tx.connection):
        tx.connection.execute(text("SELECT pg_sleep(0.7)"))


def test_a_wait_can_be_ended_from_outside_and_the_store_goes_on(postgres_url: str) -> None:
    store = Store.open(postgres_url, pool_size=1)
    thread = held(store)
    with store.given_up():
        thread.join(5)
    assert not thread.is_alive()
    store.run(Transaction.now)
    store.close()


@pytest.mark.parametrize("new", [True, False])
def test_a_listener_whose_connection_went_silent_hears_again(
    new: bool, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_ASK_SECONDS", 0.2)
    monkeypatch.setattr(notifications, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(notifications, "_RECONNECT_SECONDS", 0.1)
    heard: queue.SimpleQueue[None] = queue.SimpleQueue()
    listener = Listener(store, lambda: heard.put(None), lambda: None)
    listener.start()
    heard.get(timeout=10)
    proxy.silence(new=new)
    if new:
        with pytest.raises(queue.Empty):
            heard.get(timeout=1.5)
        proxy.heal()
    heard.get(timeout=10)  # It is connected anew.
    store.run(Transaction.notify)
    heard.get(timeout=10)
    listener.stop()
