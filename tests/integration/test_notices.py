"""When the other workers are told to look: what somebody else may have a place for, and never a fire as such."""

from __future__ import annotations

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import PLENTY, World, only, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def limited() -> TaskSpec:
    return TaskSpec("logging", max_concurrent_runs=1)


def test_runs_that_a_firing_worker_has_no_place_for_are_told_of(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    with world.at("12:01").listening() as heard:
        fired = world.fire(owner="w1", room=PLENTY, places=1)
        assert (len(fired.runs), len(fired.taken)) == (2, 1)
        assert heard()


def test_runs_that_wait_for_their_turn_are_told_of(world: World) -> None:
    world.deploy(trigger(), spec=limited())
    with world.at("12:01").listening() as heard:
        assert not world.fire(owner="w1", room=PLENTY, places=9).taken
        assert heard()


def test_a_worker_that_takes_all_it_fires_tells_nobody(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    with world.at("12:01").listening() as heard:
        assert len(world.fire(owner="w1", room=PLENTY, places=9).taken) == 2
        assert not heard()


def test_a_fire_that_finds_nothing_to_do_tells_nobody(world: World) -> None:
    world.deploy(trigger(overlap="skip"))
    world.at("12:01").fire(owner="w1", room=PLENTY, places=9)
    with world.listening() as heard:
        assert world.at("12:02").fire(owner="w1", room=PLENTY, places=9).claimed == 1
        assert not world.fire(owner="w1", room=PLENTY, places=9).claimed
        assert not heard()


def test_the_end_of_a_run_that_others_may_wait_for_is_told_of(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), spec=limited())
    world.step("12:01")
    execution = only(world.take())
    with world.listening() as heard:
        world.succeed(execution)
        assert heard()


def test_the_end_of_a_serial_triggers_run_is_told_of(world: World) -> None:
    world.deploy(trigger(overlap="buffer_one"))
    fired = world.at("12:01").fire(owner="w1", room=PLENTY, places=9)
    (execution,) = world.executions(fired.taken)
    world.step("12:02")
    with world.listening() as heard:
        world.succeed(execution)
        assert heard()


def test_the_end_of_a_run_that_nobody_waits_for_is_not_told_of(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    execution = only(world.take())
    with world.listening() as heard:
        world.succeed(execution)
        assert not heard()


def test_runs_that_a_leaving_worker_gives_back_are_told_of(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    execution = only(world.take())
    with world.listening() as heard:
        assert world.hand_back("w1", execution) == 1
        assert heard()
        assert world.hand_back("w1", execution) == 0
        assert not heard()
