"""One trigger that fails in the database itself keeps no other from being planned or fired."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.domain.identity import slot_run_name
from scheduler.loop.worker import Worker, WorkerOptions
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World, instant, key, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    return World(store, clock)


def spoil(world: World, slot: str) -> None:
    """The name that trigger `bad` would give its next run is taken, for another slot."""
    world.client.fire(key("by-hand"), request_key="one")
    name = slot_run_name("flytesnacks", "development", "report", "bad", instant(slot))
    world.sql(f"UPDATE runs SET name = '{name}'")


def run_firing(world: World, what: str) -> None:
    async def once() -> None:
        worker = Worker(world.store, {}, WorkerOptions(), prepare=lambda executor, execution: None)
        worker.beats.start()
        try:
            await getattr(worker.firing, what)()
        finally:
            worker.beats.stop()
            worker.transactions.close()

    asyncio.run(once())


def test_a_trigger_that_cannot_be_fired_is_set_aside_and_the_others_fire(world: World) -> None:
    world.deploy(trigger("bad"), trigger("good"), trigger("by-hand", None))
    spoil(world, "12:01")
    world.at("12:01")
    run_firing(world, "run_once")
    assert world.ledger("good") == ["12:01"]
    assert (world.trigger("bad")["state"], "exists for another slot" in world.trigger("bad")["error"]) == (
        "quarantined",
        True,
    )


def test_a_trigger_that_cannot_be_planned_is_set_aside_and_the_others_are_planned(world: World) -> None:
    world.deploy(trigger("bad"), trigger("good"), trigger("by-hand", None))
    spoil(world, "12:01")
    world.at("12:01:10")
    # What is due is fired under the old plan, where the name is taken.
    world.sql("UPDATE triggers SET jitter = 1000000 WHERE name <> 'by-hand'")
    run_firing(world, "sync")
    assert world.ledger("good") == ["12:01"]
    assert world.trigger("bad")["state"] == "quarantined"
    run_firing(world, "sync")
    assert world.trigger("bad")["state"] == "quarantined"
