"""Results that cannot be written down at once are not forgotten, and nothing is executed a second time for their sake."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.servers import Server
from tests.e2e.targets import Target, http_executor
from tests.e2e.worlds import assert_every_second_once, task

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]


def test_what_ends_while_the_server_is_away_for_less_than_a_lease_is_executed_once(
    new_world: NewWorld, server: Server, target: Target
) -> None:
    # Every outage ends while results wait to be recorded: whatever else a worker does first, none of them is lost.
    world = new_world(
        server.url,
        [task(f"call-{number}", "http", target.config("call", hold=0.3)) for number in range(5)],
        worker={"lease": "6s"},
        executors=http_executor(),
    )
    assert world.call("db", "upgrade").returncode == 0
    with world.worker() as worker:
        for _ in range(2):
            seen = len(target.visits)
            worker.until(lambda seen=seen: len(target.visits) >= seen + 10, "it fires")
            server.stop("immediate")
            time.sleep(2.5)
            server.start()
        seen = len(target.visits)
        worker.until(lambda: len(target.visits) >= seen + 10, "it fires")
        assert worker.stop() == 0
    world.close()
    for number in range(5):
        assert {run["phase"] for run in world.runs(f"call-{number}")} == {"SUCCEEDED"}
        assert {(run["attempt"], run["lost"]) for run in world.runs(f"call-{number}")} == {(1, 0)}
        assert_every_second_once(world.ledger(f"call-{number}"))
    assert set(target.keys("call").values()) == {1}


def test_a_result_that_waits_behind_a_lock_is_not_taken_for_one_that_was_never_there(
    new_world: NewWorld, postgres_url: str, target: Target
) -> None:
    # To record a failure that may pause a trigger its task is locked first, and somebody else holds it for long.
    world = new_world(
        postgres_url,
        [
            task(
                "call",
                "http",
                target.config("call", hold=0.5, status=404),
                trigger={"every": "1s", "pause_on_failure": 100},
            )
        ],
        worker={"lease": "3s"},
        executors=http_executor(),
    )
    with world.worker() as worker, psycopg.connect(postgres_url) as somebody:
        worker.until(lambda: len(target.visits) >= 2, "it fires")
        somebody.execute("SELECT 1 FROM tasks FOR NO KEY UPDATE")
        time.sleep(5)
        somebody.rollback()
        seen = len(target.visits)
        worker.until(lambda: len(target.visits) >= seen + 3, "it goes on")
        assert worker.stop() == 0
    assert {run["phase"] for run in world.runs("call")} == {"FAILED"}
    assert set(target.keys("call").values()) == {1}
