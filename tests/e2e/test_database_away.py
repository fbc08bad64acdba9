"""The database server goes away and comes back: the worker says so, waits, and owes nothing it does not make good."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.servers import Server
from tests.e2e.worlds import assert_every_second_once, marking, marks, ticking

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]

AWAY = 10


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_away_for_a_while_costs_no_slot(
    mode: str, new_world: NewWorld, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world = new_world(
        server.url,
        # The long one is under way when the server goes and has ended when it is back: its result is kept.
        [
            ticking("tick"),
            marking("long", file, then=f"sleep {AWAY - 3}", trigger={"every": "1s", "max_fires": 3}),
        ],
        worker={"lease": "30s"},
    )
    assert world.call("db", "upgrade").returncode == 0
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 3 and marks(file).total() == 3, "it fires")
        server.stop(mode)
        worker.until_said("degraded")
        time.sleep(AWAY)
        assert worker.running
        server.start()
        back = time.monotonic()
        world.close()
        worker.until_said("the database is back", 15)
        resumed = time.monotonic() - back
        count = len(world.runs("tick"))
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= count + 3, "it fires again")
        world.until(lambda: len(world.runs("long", "SUCCEEDED")) == 3, "what was under way has been recorded")
        assert worker.stop() == 0

    print(f"fires again {resumed:.1f} s after the server is back")
    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    assert {entry["phase"] for entry in ledger} == {"SUCCEEDED"}
    assert set(marks(file).values()) == {1}
    assert all((run["attempt"], run["lost"]) == (1, 0) for run in world.runs("long"))
    assert worker.log().count("degraded") < 5
    assert not worker.said("Traceback")


def test_a_worker_waits_for_a_server_that_is_away_at_its_start(new_world: NewWorld, server: Server) -> None:
    world = new_world(server.url, [ticking("tick")])
    assert world.call("db", "upgrade").returncode == 0
    server.stop("fast")
    with world.worker() as worker:
        worker.until_said("degraded")
        time.sleep(AWAY)
        assert worker.running
        server.start()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 3, "it fires")
        assert worker.stop() == 0
    assert_every_second_once(world.ledger("tick"))
    assert not worker.said("Traceback")


def test_a_worker_that_waits_for_its_server_may_be_told_to_stop(new_world: NewWorld, server: Server) -> None:
    world = new_world(server.url, [ticking("tick")])
    assert world.call("db", "upgrade").returncode == 0
    with world.worker("running") as running:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 1, "it fires")
        server.stop("immediate")
        with world.worker("starting") as starting:
            starting.until_said("degraded")
            running.until_said("degraded")
            assert starting.stop(15) == 0
            assert running.stop(15) == 0


def test_a_server_without_the_schema_is_refused_with_the_command_that_makes_it(
    new_world: NewWorld, empty_postgres_url: str
) -> None:
    world = new_world(empty_postgres_url, [ticking("tick")])
    with world.worker() as worker:
        assert worker.wait() == 1
    assert "scheduler db upgrade" in worker.log()
    assert not worker.said("Traceback")
