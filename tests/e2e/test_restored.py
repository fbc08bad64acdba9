"""`db restored`: a database that came back from a backup, under workers that know nothing of it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.targets import Target, http_executor
from tests.e2e.worlds import assert_every_second_once, eventually, marking, marks, open_runs, reasons, task

pytestmark = pytest.mark.heavy

ONCE = {"every": "1s", "max_fires": 1}


@pytest.mark.parametrize("kind", BOTH)
def test_a_worker_under_a_restored_database_comes_back_as_somebody_new(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, target: Target
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(
        url,
        [task("call", "http", target.config("call", hold=3), trigger=ONCE), task("tick", "logging")],
        executors={"logging": {"use": "logging"}, **http_executor()},
    )
    with world.worker() as worker:
        worker.until(lambda: target.present("call"), "it is called")
        assert world.client.restored(catch_up=True) == 1
        worker.until_said("declared dead")
        worker.until(lambda: target.visits[0].cut, "what it executed is ended")
        worker.until(lambda: world.runs("call", "SUCCEEDED"), "it has been executed again", 15)
        count = len(world.runs("tick"))
        worker.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= count + 3, "it goes on")
        assert worker.stop() == 0
    (run,) = world.runs("call")
    assert [attempt["phase"] for attempt in world.client.show_run(run["name"])["attempts"]] == ["LOST", "SUCCEEDED"]
    assert (target.keys("call"), run["lost"]) == ({run["name"]: 2}, 1)
    assert_every_second_once(world.ledger("tick"))
    assert {run["phase"] for run in world.runs("tick")} == {"SUCCEEDED"}


@pytest.mark.parametrize("kind", BOTH)
def test_what_a_worker_of_before_has_in_hand_does_not_count(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, target: Target
) -> None:
    # Its answer is there when it wakes, before it can know that it belongs to another history.
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(
        url,
        [task("call", "http", target.config("call", hold=1), trigger=ONCE)],
        worker={"lease": "9s"},
        executors=http_executor(),
    )
    with world.worker() as worker:
        worker.until(lambda: target.present("call"), "it is called")
        world.freeze(worker)
        eventually(lambda: not target.present("call"), "the target has answered", 5)
        world.client.restored(catch_up=True)
        worker.thaw()
        worker.until(lambda: world.runs("call", "SUCCEEDED"), "it is over", 15)
        assert worker.stop() == 0
    (run,) = world.runs("call")
    assert target.keys("call") == {run["name"]: 2}
    assert run["started_at"] / 1e6 > (target.visits[0].left or 0)
    assert worker.said("does not count")


@pytest.mark.parametrize("way", ["catch-up", "skip"])
def test_a_real_backup_owes_what_was_done_since_or_skips_it_as_told(
    way: str, new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    database, backup, file = tmp_path / "scheduler.db", tmp_path / "backup.db", tmp_path / "marks"
    long = marking("long", tmp_path / "long", then="sleep 60", trigger=ONCE)
    world = new_world(sqlite_url, [marking("tick", file), long])
    with world.worker() as worker:
        worker.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 3, "it fires")
        worker.until(lambda: world.runs("long", "RUNNING"), "the long one runs")
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        count = marks(file).total()
        worker.until(lambda: marks(file).total() >= count + 5, "it goes on")
        worker.kill()
    world.close()
    for name in ("-wal", "-shm"):
        Path(f"{database}{name}").unlink(missing_ok=True)
    shutil.copy(backup, database)

    before = {run["name"] for name in ("tick", "long") for run in open_runs(world.runs(name))}
    assert before
    world.client.restored(catch_up=way == "catch-up")
    restored = time.time_ns() // 1_000
    with world.worker() as worker:

        def goes_on() -> bool:
            return len([run for run in world.runs("tick", "SUCCEEDED") if run["scheduled_at"] > restored]) >= 3

        worker.until(goes_on, "it goes on after the restore")
        if way == "catch-up":
            worker.until(lambda: world.runs("long", "RUNNING"), "what was open is executed again")
        worker.kill()
    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    if way == "catch-up":
        assert not reasons(ledger)
        assert max(marks(file).values()) == 2, "what was done since the backup is done again, under the same keys"
    else:
        assert reasons(ledger).keys() == {"restored"}
        assert {world.client.show_run(name)["phase"] for name in before} == {"ABORTED"}
        assert set(marks(file).values()) == {1}
