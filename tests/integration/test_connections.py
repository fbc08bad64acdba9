"""Every way to name a PostgreSQL database, each through the upgrade, a transaction and the listening, on real servers."""

from __future__ import annotations

import itertools
import queue
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from scheduler.errors import SchemaMismatch, StoreError, StoreUnavailable
from scheduler.reading.database_url import normalise_url
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Store, Transaction
from scheduler.store.upgrade import require_schema, table_names, upgrade_schema
from tests.postgres import TcpServer, free_port, tcp_server

pytestmark = pytest.mark.postgres

ODD_PASSWORD = "p w+/?#@:%4"
WITHIN = 20.0


@pytest.fixture(scope="module")
def tcp() -> Iterator[TcpServer]:
    """One server for this file."""
    with tcp_server() as server:
        yield server


@pytest.fixture
def database(tcp: TcpServer) -> Iterator[str]:
    """The name of a database without a schema."""
    name = f"test_{next(_numbers)}"
    with _admin(tcp) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    yield name
    with _admin(tcp) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


_numbers = itertools.count(1)


@contextmanager
def _admin(tcp: TcpServer, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(tcp.socket_url(database), autocommit=True) as connection:
        yield connection


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """A store, its URL read as that of the settings is."""
    store = Store.open(normalise_url(url), pool_size=1)
    try:
        yield store
    finally:
        store.close()


def works(url: str) -> None:
    """Upgrades, writes and listens under the URL."""
    with opened(url) as store:
        assert upgrade_schema(store).found is None
        assert hears(store)


def hears(store: Store) -> bool:
    """Whether a listener on the store's database hears of a transaction."""
    heard: queue.SimpleQueue[None] = queue.SimpleQueue()
    listener = Listener(store, lambda: heard.put(None), lambda: None)
    listener.start()
    try:
        heard.get(timeout=WITHIN)  # It is connected.
        store.run(Transaction.notify)
        heard.get(timeout=WITHIN)
    except queue.Empty:
        return False
    finally:
        listener.stop()
    return True


def shown(store: Store, setting: str) -> str:
    """A setting as a transaction of the store sees it."""
    with store.begin() as tx:
        return str(tx.connection.execute(text(f"SHOW {setting}")).scalar_one())


def quoted(value: object) -> str:
    """As it stands in a URL."""
    return urllib.parse.quote(str(value), safe="")


WAYS: dict[str, Callable[[TcpServer, str], str]] = {
    "a host, a port and a password": lambda tcp, name: tcp.url(name),
    "a host's name": lambda tcp, name: tcp.url(name, host="localhost"),
    "several hosts, each with its port, the first of them dead": lambda tcp, name: (
        f"postgresql://postgres:secret@/{name}?host=127.0.0.1:{free_port()}&host=localhost:{tcp.port}"
    ),
    "several hosts, and one list of ports": lambda tcp, name: (
        f"postgresql://postgres:secret@/{name}?host=127.0.0.1,localhost&port={free_port()},{tcp.port}"
    ),
    "several hosts in front, as libpq takes them": lambda tcp, name: (
        f"postgresql://postgres:secret@127.0.0.1:{free_port()},localhost:{tcp.port}/{name}"
    ),
    "a socket's folder": lambda tcp, name: tcp.socket_url(name),
    "a socket's folder in front, as libpq takes it": lambda tcp, name: (
        f"postgresql://postgres@{quoted(tcp.folder)}:{tcp.port}/{name}"
    ),
    "a socket's folder behind a dead host": lambda tcp, name: (
        f"postgresql://postgres@/{name}?host=127.0.0.1,{tcp.folder}&port={free_port()},{tcp.port}"
    ),
    "who may write, of several": lambda tcp, name: tcp.url(name, query="target_session_attrs=read-write"),
    "encryption where there is one": lambda tcp, name: tcp.url(name, query="sslmode=prefer&gssencmode=disable"),
    "a driver": lambda tcp, name: tcp.url(name).replace("postgresql:", "postgresql+psycopg:"),
    "the other scheme": lambda tcp, name: tcp.url(name).replace("postgresql:", "postgres:"),
    "options": lambda tcp, name: tcp.url(name, query="options=-c%20work_mem%3D5MB"),
    "options with a plus for the blank": lambda tcp, name: tcp.url(name, query="options=-c+work_mem%3D5MB"),
    "a timeout and keepalives": lambda tcp, name: tcp.url(
        name, query="connect_timeout=3&keepalives=0&tcp_user_timeout=1000&keepalives_idle=9"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_database_is_reached_for_all_by(way: str, tcp: TcpServer, database: str) -> None:
    works(WAYS[way](tcp, database))


@pytest.mark.parametrize(
    "form", ["[::1]:{port}", "?host=[::1]:{port}", "?host=::1&port={port}", "127.0.0.1:1,[::1]:{port}"]
)
def test_a_database_is_reached_by_ipv6(form: str, tcp: TcpServer, database: str) -> None:
    if "::1" not in tcp.hosts:
        pytest.skip("this machine has no IPv6 loopback")
    address = form.format(port=tcp.port)
    slash, query = ("/", address) if address.startswith("?") else (f"{address}/", "")
    works(f"postgresql://postgres:secret@{slash}{database}{query}")


def test_blanks_and_signs_in_names_and_passwords_are_percent_encoded(tcp: TcpServer) -> None:
    with _admin(tcp) as admin:
        admin.execute(f"CREATE ROLE \"some body@home\" SUPERUSER LOGIN PASSWORD '{ODD_PASSWORD}'")
        admin.execute('CREATE DATABASE "my data/base?x"')
    works(f"postgresql://some%20body%40home:{quoted(ODD_PASSWORD)}@127.0.0.1:{tcp.port}/{quoted('my data/base?x')}")


def test_the_password_may_come_from_a_file_of_passwords(tcp: TcpServer, database: str, tmp_path: Path) -> None:
    file = tmp_path / "my passwords"
    file.write_text(f"127.0.0.1:{tcp.port}:*:postgres:secret\n")
    file.chmod(0o600)
    works(f"postgresql://postgres@127.0.0.1:{tcp.port}/{database}?passfile={quoted(file)}")


def test_everything_may_come_from_a_service_file(
    tcp: TcpServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    file.write_text(
        f"[sched]\nhost=127.0.0.1\nport={tcp.port}\ndbname={database}\nuser=postgres\npassword=secret\n"
        "options=-c search_path=theirs -c random_page_cost=3\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with _admin(tcp, database) as admin:
        admin.execute("CREATE SCHEMA theirs")
    works("postgresql:///?service=sched")
    with opened("postgresql:///?service=sched") as store:
        assert (shown(store, "search_path"), shown(store, "random_page_cost")) == ("theirs", "3")


def test_everything_may_come_from_the_environment(
    tcp: TcpServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(tcp.port),
        "PGUSER": "postgres",
        "PGPASSWORD": "secret",
        "PGDATABASE": database,
        "PGAPPNAME": "their name",
        "PGOPTIONS": "-c random_page_cost=3",
        "PGCONNECT_TIMEOUT": "4",
        "PGCLIENTENCODING": "LATIN1",
    }.items():
        monkeypatch.setenv(name, value)
    works("postgresql://")
    with opened("postgresql://") as store:
        assert shown(store, "application_name") == "their name"
        assert shown(store, "random_page_cost") == "3"
        with store.begin() as tx:
            assert tx.connection.execute(text("SELECT CAST(:euro AS text)"), {"euro": "€"}).scalar_one() == "€"


def test_options_of_the_url_put_the_tables_where_they_say(tcp: TcpServer, database: str) -> None:
    with _admin(tcp, database) as admin:
        admin.execute("CREATE SCHEMA sched")
        for query in ("options=-csearch_path%3Dsched", "options=-c%20search_path%3Dsched&options=-c%20work_mem%3D5MB"):
            url = tcp.url(database, query=query)
            with opened(url) as store:
                upgrade_schema(store)
                assert "runs" in table_names(store)
                assert hears(store)
        schemas = admin.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('runs', 'triggers')"
        ).fetchall()
    assert schemas == [("sched",)]


def test_what_the_url_says_wins_and_what_it_leaves_open_is_set(tcp: TcpServer, database: str) -> None:
    settings = ("idle_in_transaction_session_timeout", "random_page_cost", "timezone", "application_name")
    for query, expected in {
        "": ("5s", "1.1", "UTC", "trigger-scheduler"),
        "options=-c%20idle_in_transaction_session_timeout%3D7s": ("7s", "1.1", "UTC", "trigger-scheduler"),
        "options=-c%20TimeZone%3DEurope/Paris%20-crandom_page_cost%3D2": (
            "5s",
            "2",
            "Europe/Paris",
            "trigger-scheduler",
        ),
        "application_name=mine": ("5s", "1.1", "UTC", "mine"),
    }.items():
        with opened(tcp.url(database, query=query)) as store:
            assert tuple(shown(store, setting) for setting in settings) == expected


@pytest.mark.parametrize("query", ["nonsense=1", "connect_timeout=soon", "host=a,b&port=1,2,3", "port=none"])
def test_a_url_that_can_never_work_is_refused_plainly(query: str, tcp: TcpServer) -> None:
    with pytest.raises(StoreError, match="database URL") as refused, opened(tcp.url(query=query)) as store:
        upgrade_schema(store)
    assert not isinstance(refused.value, StoreUnavailable)
    assert "secret" not in str(refused.value)


def test_of_several_servers_the_one_that_may_be_written_is_taken(tcp: TcpServer, database: str) -> None:
    with tcp_server("default_transaction_read_only=on") as other:
        hosts = f"127.0.0.1:{other.port},127.0.0.1:{tcp.port}"
        works(f"postgresql://postgres:secret@{hosts}/{database}?target_session_attrs=read-write")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_store_every_text_is_refused(encoding: str, tcp: TcpServer) -> None:
    name = f"in_{encoding.lower()}"
    with _admin(tcp) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    with opened(tcp.url(name)) as store:
        for refused in (upgrade_schema, require_schema):
            with pytest.raises(SchemaMismatch, match=f"as {encoding}, .*CREATE DATABASE scheduler ENCODING 'UTF8'"):
                refused(store)
        assert table_names(store) == []
    with _admin(tcp) as admin:
        # What is advised works.
        admin.execute(f"CREATE DATABASE {name}_mended ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
    works(tcp.url(f"{name}_mended"))


def test_statements_prepared_before_an_upgrade_are_prepared_anew(tcp: TcpServer, database: str) -> None:
    def look(tx: Transaction) -> Any:
        return tx.connection.execute(text("SELECT * FROM narrow")).scalar()

    with _admin(tcp, database) as admin, opened(tcp.url(database, query="application_name=mine")) as store:
        admin.execute("CREATE TABLE narrow AS SELECT 1::smallint AS number")
        for _ in range(10):
            store.run(look)
        admin.execute("ALTER TABLE narrow ALTER number TYPE bigint")
        with pytest.raises(StoreUnavailable, match="the schema has changed"):
            store.run(look)
        assert store.run(look) == 1
