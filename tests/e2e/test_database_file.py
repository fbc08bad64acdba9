"""The SQLite file of a running worker is moved, deleted or replaced: it says so, waits, and can be stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.web import ANY_PORT, Web
from tests.e2e.worlds import assert_every_second_once, eventually, ticking
from tests.integration.test_database_file import ANOTHER, GONE, deleted, moved, replaced

pytestmark = pytest.mark.heavy


def test_a_file_that_was_moved_away_and_back_costs_no_slot(new_world: NewWorld, sqlite_url: str) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    world = new_world(sqlite_url, [ticking("tick")], web=ANY_PORT)
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        moved(file)
        worker.until_said(GONE, 10)
        eventually(lambda: "database" in web.failing(), "it is not ready", 5)
        assert web.status("/livez") == 200
        time.sleep(3)
        assert not file.exists()
        file.with_name("moved.db").rename(file)
        worker.until_said("the database is back")
        before = len(world.runs("tick", "SUCCEEDED"))
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= before + 3, "it fires again")
        web.until_ready()
        assert worker.stop() == 0
    assert_every_second_once(world.ledger("tick"))
    assert not worker.said("Traceback")


@pytest.mark.parametrize(("harm", "said"), [(deleted, GONE), (replaced, ANOTHER)])
def test_a_worker_without_its_file_writes_nowhere_until_it_is_restarted(
    harm: object, said: str, new_world: NewWorld, sqlite_url: str
) -> None:
    assert callable(harm)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    world = new_world(sqlite_url, [ticking("tick")])
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        world.close()
        harm(file)
        worker.until_said(said, 10)
        before = file.read_bytes() if file.exists() else None
        time.sleep(3)
        assert worker.running
        told = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - told < 10
        assert (file.read_bytes() if file.exists() else None) == before
        assert not worker.said("Traceback")
    with world.worker() as again:
        again.until(lambda: file.exists() and again.said("ready"), "it begins with what is there")
        assert again.stop() == 0
