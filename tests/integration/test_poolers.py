"""pgbouncer between the product and PostgreSQL, in each of its modes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Store, Transaction
from scheduler.store.upgrade import schema_state, upgrade_schema
from tests.e2e.worlds import eventually
from tests.integration.test_connections import hears, opened, shown
from tests.pgbouncer import Pooler, certificate, pgbouncer

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", params=["session", "transaction"])
def pooler(request: pytest.FixtureRequest, postgres_server) -> Iterator[Pooler]:  # type: ignore[no-untyped-def]
    """One in front of the session's server."""
    with pgbouncer(postgres_server("postgres"), request.param) as running:
        running.mode = request.param
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
    with opened(pooler.url(postgres_url, "options=")) as store, store.engine.connect() as connection:
        # Outside of a transaction that `begin` made: what anybody else would see.
        raw = connection.connection.dbapi_connection
        assert raw is not None
        assert raw.execute("SHOW random_page_cost").fetchone() == ("4",)  # type: ignore[attr-defined]
