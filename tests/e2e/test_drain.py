"""A worker told to stop while the database is busy with what it just asked for."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from scheduler.store.urls import parse_url
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import World, marking, marks


@contextmanager
def held_up(world: World) -> Iterator[None]:
    """While the block lasts nobody can write a run."""
    engine = sqlalchemy.create_engine(parse_url(world.database_url))
    lock = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE"
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(lock)
            yield
            connection.rollback()
    finally:
        engine.dispose()


@pytest.mark.parametrize("kind", BOTH)
def test_runs_that_are_being_taken_when_the_worker_is_told_to_stop_are_performed(
    new_world: NewWorld, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "marks"
    world = new_world(request.getfixturevalue(f"{kind}_url"), [marking("tick", file)])
    with world.worker() as worker:
        worker.until(lambda: marks(file, "end").total() >= 2, "two runs have ended")
        with held_up(world):
            time.sleep(1.2)  # A slot has come due, and its transaction waits.
            worker.send(signal.SIGTERM)
            time.sleep(0.3)
        assert worker.wait() == 0
    runs = world.runs("tick")
    assert {run["phase"] for run in runs} == {"SUCCEEDED"}
    assert {run["lost"] for run in runs} == {0}
    assert marks(file, "end") == {run["name"]: 1 for run in runs}
    assert not worker.said("handed back")


@pytest.mark.parametrize("kind", BOTH)
def test_an_end_that_is_being_recorded_when_the_worker_is_told_to_stop_counts_once(
    new_world: NewWorld, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "marks"
    world = new_world(request.getfixturevalue(f"{kind}_url"), [marking("tick", file, then="sleep 0.5")])
    with world.worker() as worker:
        worker.until(lambda: marks(file).total() == 1, "the first has begun")
        with held_up(world):
            worker.until(lambda: marks(file, "end").total() == 1, "it has ended")
            time.sleep(0.2)
            worker.send(signal.SIGTERM)
            time.sleep(0.3)
        assert worker.wait() == 0
    assert {run["phase"] for run in world.runs("tick")} == {"SUCCEEDED"}
    assert marks(file, "end") == {run["name"]: 1 for run in world.runs("tick")}
    assert not worker.said("a late result does not count")
