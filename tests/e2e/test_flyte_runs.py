"""Real workers and a RunService of Flyte's generated ASGI class: the same slots make the same runs, whoever fires them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from executors.flyte.names import scheduled_name
from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import DOMAIN, PROJECT, World, ago, deploy_as_of
from tests.fakes.flyte import FakeFlyte

pytestmark = pytest.mark.heavy

SLOTS = 100
MINUTE = 60 * SECOND


@pytest.fixture
def flyte() -> Iterator[FakeFlyte]:
    with FakeFlyte() as server:
        yield server


def definition(begins: int) -> TaskDefinition:
    """A task whose trigger owes a hundred slots, a minute apart."""
    rate = FixedRate(1, "minute", to_datetime(begins))
    end = to_datetime(begins + SLOTS * MINUTE - 1)
    trigger = TriggerSpec("t", rate, kickoff_time_input_arg="when", catchup=CatchUp(max_runs=1000), end=end)
    spec = TaskSpec("flyte", config={"poll_interval": "500ms"})
    return TaskDefinition(PROJECT, DOMAIN, "report", "v1", spec, (trigger,))


def owing(new_world: NewWorld, url: str, flyte: FakeFlyte, begins: int) -> World:
    """A world in which all these slots are owed."""
    options = {"endpoint": flyte.endpoint, "insecure": True, "timeout": "5s"}
    executors = {"flyte": {"use": "flyte_run", "options": options, "rate_limit": {"per_second": 30, "burst": 20}}}
    world = new_world(url, executors=executors, tasks=[])
    deploy_as_of(url, begins - MINUTE, [definition(begins)])
    return world


def assert_each_slot_is_one_run(world: World, flyte: FakeFlyte, begins: int) -> None:
    runs = world.runs("report", "SUCCEEDED")
    slots = {begins + number * MINUTE for number in range(SLOTS)}
    assert {run["scheduled_at"] for run in runs} == slots
    assert len(runs) == SLOTS
    names = {scheduled_name(PROJECT, DOMAIN, "report", "t", to_datetime(slot)) for slot in slots}
    assert set(flyte.created) == names
    assert set(flyte.created.values()) == {1}


def test_two_workers_of_one_database_make_each_run_once(
    new_world: NewWorld, postgres_url: str, flyte: FakeFlyte
) -> None:
    begins = ago(hours=2) // MINUTE * MINUTE
    world = owing(new_world, postgres_url, flyte, begins)
    with world.worker("one") as one, world.worker("two") as two:
        world.until(lambda: len(world.runs("report", "SUCCEEDED")) == SLOTS, "a hundred runs are over", within=60)
        took = [len([line for line in each.log().splitlines() if "submitted" in line]) for each in (one, two)]
    assert_each_slot_is_one_run(world, flyte, begins)
    assert flyte.asked["CreateRun"] == SLOTS == sum(took)
    assert all(took), f"one of them had nothing to do: {took}"


def test_two_schedulers_that_know_nothing_of_each_other_make_each_run_once(
    new_world: NewWorld, postgres_url: str, sqlite_url: str, flyte: FakeFlyte
) -> None:
    begins = ago(hours=2) // MINUTE * MINUTE
    worlds = [owing(new_world, url, flyte, begins) for url in (postgres_url, sqlite_url)]
    with worlds[0].worker(), worlds[1].worker():
        for world in worlds:
            world.until(lambda world=world: len(world.runs("report", "SUCCEEDED")) == SLOTS, "all are over", within=60)
    for world in worlds:
        assert_each_slot_is_one_run(world, flyte, begins)
    assert flyte.asked["CreateRun"] == 2 * SLOTS


def test_a_worker_killed_while_it_asks_leaves_no_run_out_and_makes_none_twice(
    new_world: NewWorld, sqlite_url: str, flyte: FakeFlyte
) -> None:
    begins = ago(hours=2) // MINUTE * MINUTE
    world = owing(new_world, sqlite_url, flyte, begins)
    for part in (1, 2):
        with world.worker() as worker:
            # An answer that comes late is a submission that is under way when the worker dies.
            flyte.fail("slow", on="CreateRun", seconds=1, times=20)
            worker.until(lambda part=part: len(flyte.created) >= 20 * part, "it is in the midst of it")
            worker.kill()
        flyte.heal()
    with world.worker():
        world.until(lambda: len(world.runs("report", "SUCCEEDED")) == SLOTS, "a hundred runs are over", within=60)
    assert_each_slot_is_one_run(world, flyte, begins)


def test_a_server_that_is_away_for_a_while_loses_no_slot(
    new_world: NewWorld, sqlite_url: str, flyte: FakeFlyte
) -> None:
    begins = ago(hours=2) // MINUTE * MINUTE
    world = owing(new_world, sqlite_url, flyte, begins)
    with world.worker() as worker:
        worker.until(lambda: len(flyte.created) >= 10, "some are made")
        with flyte.away():
            world.until(lambda: _in_vain(world) >= 5, "it is asked in vain")
        world.until(lambda: len(world.runs("report", "SUCCEEDED")) == SLOTS, "a hundred runs are over", within=60)
    assert_each_slot_is_one_run(world, flyte, begins)
    assert {run["attempt"] for run in world.runs("report")} == {1}


def _in_vain(world: World) -> int:
    return world.count("state LIKE '%connection refused%'")
