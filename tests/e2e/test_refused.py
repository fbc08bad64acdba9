"""Databases that a worker refuses by name before it starts: exit code 1, and the sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import ticking
from tests.pgbouncer import pgbouncer

pytestmark = pytest.mark.postgres


def test_a_database_that_cannot_store_every_text(new_world: NewWorld, postgres_server: Callable[[str], str]) -> None:
    with psycopg.connect(postgres_server("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE in_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        refused = new_world(postgres_server("in_latin1"), [ticking("tick")]).call("serve")
        admin.execute("DROP DATABASE in_latin1")
    assert refused.returncode == 1
    assert "stores texts as LATIN1" in refused.stderr
    assert "CREATE DATABASE scheduler ENCODING 'UTF8'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_pooler_of_statements(new_world: NewWorld, postgres_url: str) -> None:
    with pgbouncer(postgres_url, "statement") as pooler:
        world = new_world(postgres_url, [ticking("tick")], database={"url": pooler.url(postgres_url)})
        refused = world.call("serve")
        assert refused.returncode == 1
        assert "set its pool_mode to session or transaction" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_url_with_an_option_that_does_not_exist(new_world: NewWorld, postgres_url: str) -> None:
    world = new_world(postgres_url, [ticking("tick")], database={"url": f"{postgres_url}&nonsense=1"})
    refused = world.call("serve")
    assert refused.returncode == 1
    assert "the database URL cannot be used" in refused.stderr
    assert "Traceback" not in refused.stderr
