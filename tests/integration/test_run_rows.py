"""What stands in a run's row from its insertion on: what it pins, from when it may start, and who gets it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.services.fire import Fired
from scheduler.store.runs import NewRun, TakenRun
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import MINUTE, PLENTY, World, instant, key, only, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def stored(world: World, names: Sequence[str], columns: Sequence[str] = TakenRun._fields) -> list[dict[str, Any]]:
    wanted = ", ".join(f"'{name}'" for name in names)
    rows = world.rows(f"SELECT {', '.join(columns)} FROM runs WHERE name IN ({wanted}) ORDER BY name")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def pinning(world: World, **options: Any) -> None:
    """A trigger whose runs have something in every column."""
    world.deploy(
        trigger(inputs={"b": 2}, kickoff_time_input_arg="at", **options),
        spec=TaskSpec("logging", deadline=timedelta(minutes=9)),
    )


def taken_as_fired(world: World, text: str = "12:01:07") -> Fired:
    fired = world.at(text).fire(owner="w1", room=PLENTY, places=9)
    assert fired.taken
    return fired


@pytest.mark.parametrize("overlap", ["allow_all", "skip"])
def test_a_run_that_is_taken_as_it_fires_is_what_its_row_says(world: World, overlap: str) -> None:
    pinning(world, overlap=overlap)
    fired = taken_as_fired(world)
    (row,) = stored(world, [run.name for run in fired.taken])
    assert only(fired.taken)._asdict() == row
    assert (row["owner"], row["fence"], row["attempt"], row["known_ends"], row["lost"]) == ("w1", 1, 1, 0, 0)
    assert row["created_at"] == row["started_at"] == instant("12:01:07")
    assert row["deadline_at"] == instant("12:10:07")
    assert (row["kickoff_arg"], row["inputs"]) == ("at", '{"b":2}')


def test_a_queued_runs_row_holds_all_that_its_trigger_said(world: World) -> None:
    pinning(world, catchup=CatchUp("gap"), overlap="skip")
    world.client.deactivate(key())
    world.client.activate(key())
    world.step("12:10")
    columns = [*TakenRun._fields, "revision", "phase", "intent", "finished_at", "error", "outputs", "backfill_id"]
    (row,) = stored(world, [only(world.runs())["name"]], columns)
    (source,) = world.rows("SELECT id, task_id, version, spec_digest, revision FROM triggers")
    assert row == {
        "name": only(world.runs())["name"],
        "kind": "scheduled",
        "trigger_id": source[0],
        "task_id": source[1],
        "scheduled_at": instant("12:10"),
        "covers_from": instant("12:01"),
        "covers_to": instant("12:08"),
        "version": source[2],
        "spec_digest": source[3],
        "inputs": '{"b":2}',
        "kickoff_arg": "at",
        "executor": "logging",
        "deadline_at": instant("12:19"),
        "attempt": 1,
        "known_ends": 0,
        "lost": 0,
        "fence": 0,
        "created_at": instant("12:10"),
        "started_at": None,
        "state": None,
        "priority": 0,
        "serial": True,
        "gated": True,
        "owner": None,
        "not_before": instant("12:10"),
        "revision": 3,
        "phase": "QUEUED",
        "intent": None,
        "finished_at": None,
        "error": None,
        "outputs": None,
        "backfill_id": None,
    }
    assert source[4] == 3


def test_a_run_of_a_limited_task_waits_for_its_turn_though_its_trigger_is_not_serial(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", max_concurrent_runs=1))
    world.step("12:01")
    (row,) = stored(world, [only(world.runs())["name"]])
    assert (bool(row["serial"]), bool(row["gated"])) == (False, True)


def test_what_a_worker_takes_is_what_the_row_says_then(world: World) -> None:
    pinning(world)
    world.step("12:01")
    world.at("12:01:30")
    (execution,) = world.take()
    assert [execution.run._asdict()] == stored(world, [execution.run.name])
    assert (execution.run.fence, execution.run.owner, execution.run.started_at) == (1, "w1", instant("12:01:30"))


def test_a_run_that_goes_on_is_in_the_attempt_that_began_before_it_waited(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql(f"UPDATE runs SET state = 'cursor', started_at = {instant('12:00')}")
    assert only(world.take()).run.started_at == instant("12:00")
    world.sql("UPDATE runs SET phase = 'QUEUED', owner = NULL, started_at = NULL")
    assert only(world.take()).run.started_at == instant("12:01")
    world.sql(f"UPDATE runs SET phase = 'QUEUED', owner = NULL, state = NULL, started_at = {instant('12:00')}")
    assert only(world.take()).run.started_at == instant("12:01")


# --- names -----------------------------------------------------------------------------------------------------------


def new(world: World, name: str, slot: str, trigger_name: str = "nightly") -> NewRun:
    ids = dict(world.rows("SELECT name, id FROM triggers"))
    return NewRun(name, ids[trigger_name], instant(slot), None, None, 0, instant(slot), None)


def test_a_name_that_another_trigger_or_slot_has_is_told(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    first = [new(world, "one", "12:01", "a"), new(world, "two", "12:02", "a"), new(world, "three", "12:03", "a")]

    def insert(*runs: NewRun) -> list[str]:
        return [run.name for run, _ in world.store.run(lambda tx: tx.runs.insert_new(runs, tx.now()))]

    assert insert(*first) == ["one", "three", "two"]
    again = [new(world, "one", "12:01", "a"), new(world, "two", "12:05", "a"), new(world, "three", "12:03", "b")]
    assert insert(*again) == insert() == []
    again.append(new(world, "four", "12:04", "a"))
    wrong = world.store.run(lambda tx: tx.runs.mismatched(again))
    assert sorted(wrong) == ["three", "two"]


# --- limits, holders, clocks -----------------------------------------------------------------------------------------


def test_a_limit_holds_for_open_runs_of_the_triggers_named_alone(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), trigger("c", overlap="buffer_all"))
    world.step("12:01")
    world.step("12:02")
    ended = min(run["name"] for run in world.runs())
    world.sql(f"UPDATE runs SET phase = 'SUCCEEDED' WHERE name = '{ended}'")
    ids = dict(world.rows("SELECT name, id FROM triggers"))

    def gated() -> dict[str, set[bool]]:
        found: dict[str, set[bool]] = {}
        for name, value in world.rows("SELECT name, gated FROM runs"):
            found.setdefault("ended" if name == ended else name[0], set()).add(bool(value))
        return found

    world.store.run(lambda tx: tx.runs.limit([ids["a"], ids["c"]], True))
    assert gated() == {"ended": {False}, "a": {True}, "b": {False}, "c": {True}}
    world.store.run(lambda tx: tx.runs.limit([ids["a"], ids["c"]], False))
    assert gated() == {"ended": {False}, "a": {False}, "b": {False}, "c": {True}}


def test_a_worker_can_ask_which_runs_it_still_holds(world: World) -> None:
    world.register("w2")
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    mine = only(world.take("w1", on_time=1)).run
    world.take("w2")
    assert world.store.run(lambda tx: tx.runs.still_held("w1")) == {mine.name: 1}


def test_after_the_clock_was_set_back_no_run_made_since_waits_for_an_instant_ahead(world: World) -> None:
    world.deploy(*(trigger(name) for name in ("a", "b", "c", "d", "e")))
    world.step("12:01")
    now, beyond = instant("12:05"), instant("12:00:30")
    later, names = now + MINUTE, sorted(run["name"] for run in world.runs())
    changes = [
        f"not_before = {later}",  # waits for what lies ahead
        f"not_before = {later}, phase = 'RUNNING'",
        f"not_before = {now - 1}",
        f"not_before = {later}, created_at = {beyond}",
        f"not_before = {later}, created_at = {beyond + 1}",
    ]
    for name, change in zip(names, changes, strict=True):
        world.sql(f"UPDATE runs SET {change} WHERE name = '{name}'")
    assert world.store.run(lambda tx: tx.runs.release_future(now, beyond)) == 2
    found = [row["not_before"] - now for row in stored(world, names)]
    assert found == [0, MINUTE, -1, MINUTE, 0]


# --- who gets it -----------------------------------------------------------------------------------------------------


def take(world: World, room: dict[str, int], **options: Any) -> list[TakenRun]:
    def service(tx: Any) -> list[TakenRun]:
        return list(tx.runs.take("w1", room, **{"late": False, "limit": 9, "now": tx.now(), **options}))

    return world.store.run(service)


def test_of_several_executors_who_waits_longest_comes_first_within_each_ones_room(world: World) -> None:
    for place, executor in enumerate(["shell", "logging", "shell", "logging", "http"]):
        world.deploy(trigger(automation=None), task=f"task{place}", spec=TaskSpec(executor))
        world.client.fire(key(task=f"task{place}"))
        world.clock.advance(1)
    assert take(world, {"shell": 0, "logging": 0}) == []
    assert take(world, {"shell": 9, "logging": 9}, limit=0) == []
    taken = take(world, {"shell": 9, "logging": 9, "http": 0}, limit=3)
    assert [run.executor for run in taken] == ["shell", "logging", "shell"]
    assert [run.executor for run in take(world, {"shell": 9, "logging": 1, "http": 1})] == ["logging", "http"]


def test_a_run_starts_from_its_instant_on_and_before_its_deadline(world: World) -> None:
    world.deploy(trigger(automation=None), spec=TaskSpec("logging", deadline=timedelta(minutes=2)))
    world.client.fire(key())
    world.sql(f"UPDATE runs SET not_before = {world.clock.now() + MINUTE}")
    start = world.clock.now()
    world.clock.set(start + MINUTE - 1)
    assert take(world, PLENTY) == []
    world.clock.set(start + 2 * MINUTE)
    assert take(world, PLENTY) == []
    world.clock.set(start + 2 * MINUTE - 1)
    assert len(take(world, PLENTY)) == 1


def test_late_runs_come_by_turn_then_by_how_long_they_wait(world: World) -> None:
    world.deploy(trigger("a"), trigger("b", automation=None))
    world.step("12:04:30")
    late = take(world, PLENTY, late=True, limit=1)
    assert [spoken(run.scheduled_at or 0) for run in late] == ["12:01"]
    assert [spoken(run.scheduled_at or 0) for run in take(world, PLENTY, late=True)] == ["12:02", "12:03"]
    assert [spoken(run.scheduled_at or 0) for run in take(world, PLENTY)] == ["12:04"]
    assert world.clock.now() - instant("12:04") == 30 * SECOND
