"""Whose turn it is among runs that a task's limit or an earlier run of their trigger holds back, look by look."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.services.take import Taken, next_ready_at, take_runs
from scheduler.store.gates import Gates, Turns
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import MINUTE, World, instant, key, only, spoken, trigger

ONE = {"logging": 1}
MANY = {"logging": 9, "shell": 9}


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def limited(limit: int = 1, executor: str = "logging", **options: Any) -> TaskSpec:
    return TaskSpec(executor, max_concurrent_runs=limit, **options)


def look(world: World, room: Mapping[str, int] = MANY, *, late: bool = False, limit: int = 9, after: int = 0) -> Turns:
    """One look, that takes nothing."""

    def service(tx: Any) -> Turns:
        return Gates(tx).startable(room, late=late, limit=limit, now=tx.now(), after=after)

    return world.store.run(service)


def tasks(world: World, names: list[str]) -> list[str]:
    return [
        only(world.rows(f"SELECT t.name FROM runs r JOIN tasks t ON t.id = r.task_id WHERE r.name = '{name}'"))[0]
        for name in names
    ]


def queue(world: World, *task_names: str, spec: TaskSpec | None = None) -> None:
    """One queued run of each task, the first waiting longest."""
    for name in task_names:
        world.deploy(trigger(automation=None), task=name, spec=spec or limited())
        world.client.fire(key(task=name))
        world.clock.advance(1)


def take(world: World, room: Mapping[str, int] = MANY, *, on_time: int = 9, late: int = 9, after: int = 0) -> Taken:
    return world.store.run(take_runs, "w1", room, on_time=on_time, late=late, after=after)


def test_who_waits_longest_comes_first_whatever_the_tasks_order(world: World) -> None:
    for name in ("z", "a", "m"):
        world.deploy(trigger(automation=None), task=name, spec=limited())
    queue(world, "m", "z", "a")
    assert tasks(world, look(world).names) == ["m", "z", "a"]
    assert tasks(world, look(world, limit=2).names) == ["m", "z"]


def test_of_one_task_too_who_waits_longest_comes_first(world: World) -> None:
    world.deploy(trigger(automation=None), spec=limited())
    for _ in range(3):
        world.client.fire(key())
    first, second, third = sorted(run["name"] for run in world.runs())
    assert look(world).names == [first]
    world.sql(f"UPDATE runs SET not_before = not_before - 1 WHERE name = '{third}'")
    assert look(world).names == [third]
    # Late ones by their turns.
    world.sql(f"UPDATE runs SET priority = 2 WHERE name IN ('{first}', '{third}')")
    world.sql(f"UPDATE runs SET priority = 1 WHERE name = '{second}'")
    assert look(world, late=True).names == [second]


def test_an_executor_without_room_is_left_out_and_holds_nobody_up(world: World) -> None:
    world.deploy(trigger(automation=None), spec=limited())
    world.client.fire(key())
    world.clock.advance(1)
    world.deploy(trigger(automation=None), version="v2", spec=limited(executor="shell"))
    world.client.fire(key())
    assert look(world, {"logging": 0, "shell": 0}) == Turns([], 0)
    assert look(world, limit=0, after=1) == Turns([], 0)
    # Of the task's one place nobody disposes who cannot execute the run.
    assert len(look(world, {"logging": 0, "shell": 1}).names) == 1
    assert len(look(world, {"shell": 1}).names) == 1
    assert len(look(world).names) == 1


def test_no_more_runs_of_an_executor_than_it_has_room_for_over_all_tasks(world: World) -> None:
    queue(world, "a", "b", "c")
    queue(world, "d", spec=limited(executor="shell"))
    assert tasks(world, look(world, {"logging": 2, "shell": 1}).names) == ["a", "b", "d"]


def test_what_is_under_way_or_deferred_takes_its_tasks_places(world: World) -> None:
    world.deploy(trigger(automation=None), spec=limited(3))
    for _ in range(6):
        world.client.fire(key())
    first = look(world).names
    assert len(first) == 3
    world.sql(f"UPDATE runs SET phase = 'RUNNING' WHERE name = '{first[0]}'")
    world.sql(f"UPDATE runs SET phase = 'DEFERRED' WHERE name = '{first[1]}'")
    assert len(look(world).names) == 1
    assert len(look(world, limit=1).names) == 1
    world.sql(f"UPDATE runs SET phase = 'RUNNING' WHERE name = '{first[2]}'")
    assert look(world).names == []
    world.sql("UPDATE tasks SET max_concurrent_runs = 2")
    assert look(world).names == [], "more of them than a later limit allows"


def test_runs_of_another_task_take_no_places(world: World) -> None:
    queue(world, "a", "b")
    (held,) = look(world, limit=1).names
    world.sql(f"UPDATE runs SET phase = 'RUNNING' WHERE name = '{held}'")
    assert tasks(world, look(world).names) == ["b"]


def test_late_and_on_time_runs_are_looked_for_apart(world: World) -> None:
    world.deploy(trigger(), spec=limited(5))
    world.step("12:05:30")
    slots = {run["name"]: spoken(run["scheduled_at"]) for run in world.runs()}
    # Runs of a trigger that is not serial wait for their task alone, not for each other.
    assert [slots[name] for name in look(world, late=True).names] == ["12:01", "12:02", "12:03", "12:04"]
    assert [slots[name] for name in look(world).names] == ["12:05"]


def test_of_a_serial_triggers_runs_the_oldest_is_next_late_or_not(world: World) -> None:
    world.deploy(trigger(overlap="buffer_all"), spec=limited(5))
    world.step("12:05:30")
    slots = {run["name"]: spoken(run["scheduled_at"]) for run in world.runs()}
    assert [slots[name] for name in look(world, late=True).names] == ["12:01"]
    assert look(world).names == [], "the one on time is behind the late ones"


def test_a_run_asks_for_its_turn_from_its_instant_on_and_up_to_its_deadline(world: World) -> None:
    world.deploy(trigger(automation=None), spec=limited(deadline=timedelta(minutes=2)))
    world.client.fire(key())
    waits_until = world.clock.now() + MINUTE
    world.sql(f"UPDATE runs SET not_before = {waits_until}")
    world.clock.set(waits_until - 1)
    assert look(world).names == []
    assert world.store.run(next_ready_at, ["logging"]) == waits_until
    assert world.store.run(next_ready_at, ["shell"]) is None
    world.clock.set(waits_until)
    assert len(look(world).names) == 1
    world.clock.set(waits_until + MINUTE - 1)
    assert len(look(world).names) == 1
    world.clock.set(waits_until + MINUTE)
    assert look(world).names == []


def test_an_earlier_slot_that_waits_for_its_retry_goes_first_another_triggers_does_not_matter(world: World) -> None:
    world.deploy(trigger("a", overlap="buffer_all"), trigger("b", overlap="buffer_all"))
    for minute in ("12:01", "12:02"):
        world.step(minute)
    world.sql(f"UPDATE runs SET not_before = {instant('12:30')} WHERE scheduled_at = {instant('12:01')} AND name < 'b'")
    assert [name[0] for name in look(world).names] == ["b"]


def test_the_next_look_goes_on_behind_the_last_task_or_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scheduler.store import gates

    monkeypatch.setattr(gates, "TASKS_AT_ONCE", 3)
    queue(world, "a", "b", "c", "d")
    a, _, c, _ = (row[0] for row in world.rows("SELECT id FROM tasks ORDER BY id"))
    first = look(world)
    assert (tasks(world, first.names), first.after) == (["a", "b", "c"], c)
    second = look(world, after=c)
    assert (tasks(world, second.names), second.after) == (["d"], 0)
    full = look(world, limit=1)
    assert (tasks(world, full.names), full.after) == (["a"], 0), "what found no place is looked at again first"
    assert look(world, limit=1, after=a).after == a
    world.sql("UPDATE runs SET phase = 'SUCCEEDED'")
    assert look(world, after=a) == Turns([], 0)


def test_a_pass_gives_half_its_places_to_turns_and_what_is_left_afterwards(world: World) -> None:
    queue(world, "a", "b", "c", "d")
    world.deploy(*(trigger(f"t{n}") for n in range(4)), task="free")
    world.step("12:01")
    taken = take(world, on_time=4, late=0)
    assert sorted(run.gated for run in taken.on_time) == [False, False, True, True]
    assert (taken.late, taken.after) == ([], 0)
    again = take(world, on_time=9)
    assert sorted(run.gated for run in again.on_time) == [False, False, True, True]


def test_places_that_ready_runs_leave_go_to_more_turns(world: World) -> None:
    queue(world, "a", "b", "c", "d")
    assert len(take(world, {"logging": 3}, on_time=4).on_time) == 3
    assert len(take(world, on_time=4).on_time) == 1


def test_late_runs_have_places_of_their_own_and_share_the_executors_room(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:02:30")
    taken = take(world, {"logging": 3}, on_time=2, late=2)
    assert (len(taken.on_time), len(taken.late)) == (2, 1)
    assert {run.priority > 0 for run in taken.late} == {True}
    assert {run.priority for run in taken.on_time} == {0}
    assert take(world, {"logging": 3}, on_time=0, late=0)[:2] == ([], [])
    assert len(take(world, on_time=0, late=1).late) == 1
