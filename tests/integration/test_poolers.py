"""pgbouncer between the product and PostgreSQL, in each of its modes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Transaction
from scheduler.store.upgrade import schema_state, table_names, upgrade_schema
from tests.integration.test_connections import hears, opened, quoted, shown
from tests.pgbouncer import Pooler, certificate, pgbouncer

pytestmark = pytest.mark.postgres

MODES = ("session", "transaction")
Server = Callable[[str], str]


@pytest.fixture(scope="module", params=MODES)
def pooler(request: pytest.FixtureRequest, postgres_server: Server) -> Iterator[Pooler]:
    """One in front of the session's server."""
    with pgbouncer(postgres_server("postgres"), request.param) as running:
        yield running


def test_a_database_behind_it_is_upgraded_and_written(pooler: Pooler, empty_postgres_url: str) -> None:
    with opened(pooler.url(empty_postgres_url)) as store:
        assert upgrade_schema(store).found is None
        assert schema_state(store).current
        with store.begin() as one, store.begin() as two:
            for tx in (one, two):
                for _ in range(10):  # Often enough for the driver to prepare it, were it told to.
                    tx.connection.execute(text("SELECT count(*) FROM runs")).scalar_one()
        for _ in range(10):
            store.run(Transaction.now)


def test_its_transactions_have_the_settings_and_others_do_not_inherit_them(pooler: Pooler, postgres_url: str) -> None:
    settings = ("idle_in_transaction_session_timeout", "random_page_cost", "timezone")
    with opened(pooler.url(postgres_url)) as store:
        for _ in range(2):
            assert tuple(shown(store, setting) for setting in settings) == ("5s", "1.1", "UTC")
        with store.engine.connect() as connection:
            # Outside of a transaction that the store began: what anybody else would see.
            raw = connection.connection.dbapi_connection
            assert raw is not None
            assert raw.execute("SHOW random_page_cost").fetchone() == ("4",)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignored", ["", "options"], ids=["refused", "ignored"])
def test_options_of_the_url_count_although_the_pooler_does_not_pass_them_on(
    mode: str, ignored: str, postgres_server: Server, empty_postgres_url: str
) -> None:
    options = quoted(r'-c search_path="a\ b",sched --random-page-cost=3 -cwork_mem=5MB')
    with opened(empty_postgres_url) as direct, direct.begin() as tx:
        tx.connection.execute(text("CREATE SCHEMA sched"))
    with pgbouncer(postgres_server("postgres"), mode, ignore_startup_parameters=ignored) as pooler:
        url = pooler.url(empty_postgres_url, f"options={options}")
        with opened(url) as store:
            upgrade_schema(store)
            for _ in range(2):
                assert [shown(store, name) for name in ("random_page_cost", "work_mem")] == ["3", "5MB"]
                assert shown(store, "search_path") == '"a b",sched'
            assert schema_state(store).current
            assert "runs" in table_names(store)
            with store.begin() as tx:
                found = tx.connection.execute(text("SELECT schemaname FROM pg_tables WHERE tablename = 'runs'"))
                assert found.scalars().all() == ["sched"]


@pytest.mark.parametrize("pool_size", ["10", "1"])
def test_who_listens_through_it_hears_or_says_that_nobody_can(
    pool_size: str, pooler: Pooler, postgres_url: str, postgres_server: Server
) -> None:
    if pooler.mode == "session":
        if pool_size == "10":
            with opened(pooler.url(postgres_url)) as store:
                assert hears(store)
        return
    with (
        pgbouncer(postgres_server("postgres"), "transaction", default_pool_size=pool_size) as other,
        opened(other.url(postgres_url)) as store,
        opened(other.url(postgres_url)) as busy,
    ):
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                busy.run(Transaction.now)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        shared = threading.Event()
        listener = Listener(store, lambda: None, shared.set)
        listener.start()
        assert shared.wait(30)
        stop.set()
        thread.join(10)
        listener.stop()


def test_a_pooler_of_statements_is_refused_by_name(postgres_server: Server, empty_postgres_url: str) -> None:
    with (
        pgbouncer(postgres_server("postgres"), "statement") as pooler,
        opened(pooler.url(empty_postgres_url)) as store,
        pytest.raises(StoreError, match=r"pools statements.*set its pool_mode to session or transaction") as refused,
    ):
        upgrade_schema(store)
    assert not isinstance(refused.value, StoreUnavailable)


@pytest.mark.parametrize("mode", MODES)
def test_a_pooler_that_is_restarted_is_connected_to_again(
    mode: str, postgres_server: Server, postgres_url: str
) -> None:
    with pgbouncer(postgres_server("postgres"), mode) as pooler, opened(pooler.url(postgres_url)) as store:
        store.run(Transaction.now)
        pooler.restart()
        with pytest.raises(StoreUnavailable):
            store.run(Transaction.now)
        store.run(Transaction.now)


def test_the_way_to_a_pooler_may_be_encrypted_and_its_certificate_checked(
    postgres_server: Server, postgres_url: str, tmp_path: Path
) -> None:
    key, trusted = certificate(tmp_path)
    with pgbouncer(postgres_server("postgres"), "session", client_tls_sslmode="require", tls=(key, trusted)) as pooler:
        checked = f"sslmode=verify-full&sslrootcert={quoted(trusted)}"
        with opened(pooler.url(postgres_url, checked).replace("127.0.0.1", "localhost")) as store:
            assert hears(store)
        for refused in ("sslmode=disable", checked):  # The certificate is for another name than the address.
            with opened(pooler.url(postgres_url, refused)) as store, pytest.raises(StoreUnavailable):
                store.run(Transaction.now)
