"""What stands in the rows of waits, and who finds which of them."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.store.transaction import Store
from scheduler.store.waits import FoundWait, NewWait, ResumedRun, StoredWait, WaitState
from tests.conftest import ManualClock
from tests.integration.worlds import World, instant, only, trigger

NOW = instant("12:01")


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def new(name: str, **options: Any) -> NewWait:
    given = {
        "run_name": name,
        "fence": 1,
        "executor": "logging",
        "kind": "poll",
        "stage": "waiting",
        "owner": "w1",
        "look_at": NOW + 50,
        "interval": 3,
        "budget": 4,
        "ends_at": None,
        "state": None,
        "job_id": None,
        "watched": False,
        "seen": None,
    }
    return NewWait(**{**given, **options})


def waiting(world: World, **waits: dict[str, Any]) -> dict[str, str]:
    """Deferred runs, one of each of these triggers, with waits as given; their names by trigger."""
    world.deploy(*(trigger(name) for name in waits))
    world.step("12:01")
    names = {execution.trigger or "": execution.run.name for execution in world.take()}
    rows = [new(names[name], **options) for name, options in waits.items()]
    assert len(world.store.run(lambda tx: tx.waits.begin(rows, "w1", tx.now()))) == len(waits)
    return names


def found(waits: list[FoundWait]) -> list[str]:
    return [item.run.name.partition("-")[0] for item in waits]


def stored(world: World, name: str) -> dict[str, Any]:
    row = world.store.run(lambda tx: tx.waits.of_run(name))
    assert row is not None
    return dict(row)


def want_ended(world: World, *names: str, note: str | None = "enough") -> None:
    reason = "NULL" if note is None else f"'{note}'"
    for name in names:
        world.sql(f"UPDATE runs SET intent = 'cancel', intent_note = {reason} WHERE name = '{name}'")


FULL = {
    "kind": "poll",
    "stage": "submitting",
    "ends_at": NOW + 99,
    "state": "s",
    "job_id": "7",
    "watched": True,
    "seen": "{}",
}


def test_a_wait_is_stored_with_all_that_was_said_and_its_run_is_free_of_the_worker(world: World) -> None:
    names = waiting(world, a=FULL, b={})
    row = stored(world, names["a"])
    rest = {"created_at": NOW, "error_since": None, "last_error": None, "ending": None}
    assert row == {**new(names["a"], **FULL)._asdict(), **rest}
    assert world.rows("SELECT phase, owner, state, fence FROM runs") == [("DEFERRED", None, None, 1)] * 2
    assert world.store.run(lambda tx: tx.waits.of_run("nobody")) is None


def test_only_runs_still_under_the_fence_begin_to_wait(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    first, second = (execution.run.name for execution in world.take())
    rows = [new(second), new(first, fence=2)]
    assert world.store.run(lambda tx: tx.waits.begin(rows, "w1", tx.now())) == {(second, 1): None}
    assert world.store.run(lambda tx: tx.waits.begin([], "w1", tx.now())) == {}
    assert world.rows("SELECT run_name FROM waits") == [(second,)]


# --- held ------------------------------------------------------------------------------------------------------------


def test_who_takes_waits_over_gets_those_to_look_at_first_with_their_runs(world: World) -> None:
    free = {"owner": None}
    names = waiting(
        world,
        a={**free, "look_at": NOW + 2},
        b={**free, "look_at": NOW + 1},
        c={**free, "kind": "until"},
        d={},
        e={**free, "executor": "shell"},
    )
    assert world.store.run(lambda tx: tx.waits.executors_wanted()) == {"logging", "shell"}

    def claim(limit: int, *executors: str) -> list[FoundWait]:
        return world.store.run(lambda tx: tx.waits.claim("w2", executors, limit))

    want_ended(world, names["b"])
    (first,) = claim(1, "logging")
    assert first.run.name == names["b"]
    assert first.wait == StoredWait(*(stored(world, names["b"])[name] for name in StoredWait._fields))
    assert (first.wait.fence, first.run.fence, first.run.owner, first.intent) == (2, 2, "w2", "enough")
    assert world.rows(f"SELECT fence FROM runs WHERE name = '{names['b']}'") == [(2,)]
    assert found(claim(9, "logging")) == ["a"]
    assert claim(9, "logging") == []
    assert found(claim(9, "shell", "http")) == ["e"]
    assert world.store.run(lambda tx: tx.waits.held("w2")) == {(names[name], 2) for name in "abe"}
    assert world.store.run(lambda tx: tx.waits.executors_wanted()) == set()


def test_a_holder_reads_its_own_waits_alone(world: World) -> None:
    names = waiting(world, a={}, b={"owner": "w2"}, c={})
    wanted = [names["a"], names["b"], "nobody"]
    mine = world.store.run(lambda tx: tx.waits.load(wanted, "w1"))
    assert (found(mine), only(mine).run.owner) == (["a"], "w1")
    assert world.store.run(lambda tx: tx.waits.load(["nobody"], "w1")) == []
    assert world.store.run(lambda tx: tx.waits.held("w1")) == {(names["a"], 1), (names["c"], 1)}


def state(name: str, **options: Any) -> WaitState:
    given = {
        "run_name": name,
        "fence": 1,
        "owner": "w1",
        "kind": "poll",
        "stage": "ending",
        "look_at": 11,
        "interval": 12,
        "budget": 13,
        "state": "s2",
        "job_id": "8",
        "error_since": 14,
        "last_error": "no",
        "ending": "{}",
        "seen": "[]",
    }
    return WaitState(**{**given, **options})


def test_how_a_wait_stands_is_stored_whole_by_who_still_has_its_fence(world: World) -> None:
    names = waiting(world, a={}, b={"owner": None}, c={})
    states = [state(names["a"]), state(names["b"], job_id="9"), state(names["c"], fence=2)]

    def write(by: str = "w1") -> set[tuple[str, int]]:
        return world.store.run(lambda tx: tx.waits.write(states, by))

    assert write("of another history") == set()
    assert write() == {(names["a"], 1), (names["b"], 1)}
    row = stored(world, names["a"])
    assert {key: row[key] for key in WaitState._fields} == state(names["a"])._asdict()
    assert (stored(world, names["b"])["owner"], stored(world, names["b"])["job_id"]) == (None, "9")
    assert stored(world, names["c"])["stage"] == "waiting"
    states = [state(names["a"], owner=None)]
    write()
    assert stored(world, names["a"])["owner"] is None


def test_a_job_that_another_wait_has_is_taken(world: World) -> None:
    names = waiting(
        world, a={"job_id": "7"}, b={"job_id": "7", "watched": True}, c={"job_id": "8", "executor": "shell"}
    )
    asked = [
        (names["a"], "logging", "7"),  # its own
        (names["b"], "logging", "7"),
        (names["c"], "shell", "7"),
        ("new", "logging", "8"),
        ("other", "shell", "8"),
    ]
    assert world.store.run(lambda tx: tx.waits.taken_jobs(asked)) == {names["b"], "other"}
    assert world.store.run(lambda tx: tx.waits.taken_jobs([])) == set()


# --- let go, over ----------------------------------------------------------------------------------------------------


def test_ones_waits_are_let_go_but_those_to_keep_and_those_of_others(world: World) -> None:
    names = waiting(world, a={}, b={}, c={"owner": "w2"})
    assert world.store.run(lambda tx: tx.waits.release("w1", [names["a"]])) == 1
    assert [stored(world, names[name])["owner"] for name in "abc"] == ["w1", None, "w2"]


def test_waits_of_the_dead_are_let_go_a_few_at_a_time(world: World) -> None:
    names = waiting(world, a={"owner": "gone"}, b={"owner": "dead"}, c={"owner": "dead"}, d={}, e={"owner": None})
    world.register("dead")
    world.store.run(lambda tx: tx.workers.retire("dead"))

    def release() -> int:
        return world.store.run(lambda tx: tx.waits.release_lost(2))

    assert [release(), release(), release()] == [2, 1, 0]
    assert [stored(world, names[name])["owner"] for name in "abcde"] == [None, None, None, "w1", None]


def test_only_deferred_runs_are_locked_for_their_ends_and_only_waits_named_go(world: World) -> None:
    names = waiting(world, a={}, b={}, c={})
    world.sql(f"UPDATE runs SET phase = 'QUEUED' WHERE name = '{names['b']}'")
    assert world.store.run(lambda tx: tx.waits.lock_runs(names.values())) == {names["a"]: 1, names["c"]: 1}
    assert world.store.run(lambda tx: tx.waits.lock_runs([names["c"]])) == {names["c"]: 1}
    world.store.run(lambda tx: tx.waits.remove([]))
    world.store.run(lambda tx: tx.waits.remove([names["a"]]))
    assert sorted(world.rows("SELECT run_name FROM waits")) == [(names["b"],), (names["c"],)]


def test_a_run_that_goes_on_is_queued_with_what_it_is_given_and_an_unwanted_one_is_over(world: World) -> None:
    names = waiting(world, a={}, b={}, c={}, d={})
    want_ended(world, names["b"], note=None)
    world.sql("UPDATE runs SET error = 'before'")
    at = world.clock.advance(5)
    resumed = [ResumedRun(names[name], 2 if name == "c" else 1, at + 7, f"state {name}") for name in "bac"]

    def resume(by: str) -> set[tuple[str, int]]:
        return world.store.run(lambda tx: tx.waits.resume(resumed, by))

    assert resume("of another history") == set()
    assert resume("w1") == {(names["a"], 1), (names["b"], 1)}
    rows = world.rows("SELECT phase, not_before, state, fence, error, finished_at FROM runs ORDER BY name")
    assert rows[0] == ("QUEUED", at + 7, "state a", 1, "before", None)
    assert (rows[1][0], *rows[1][2:]) == ("ABORTED", None, 2, "cancel", at)
    assert [row[0] for row in rows[2:]] == ["DEFERRED", "DEFERRED"]
    assert sorted(world.rows("SELECT run_name FROM waits")) == [(names["c"],), (names["d"],)]
    assert world.store.run(lambda tx: tx.waits.resume([], "w1")) == set()


# --- looked for ------------------------------------------------------------------------------------------------------


def test_waits_for_an_instant_are_due_from_it_on_the_earliest_first(world: World) -> None:
    until = {"kind": "until", "owner": None}
    waiting(
        world,
        a={**until, "look_at": NOW + 3},
        b={**until, "look_at": NOW + 2},
        c={**until, "look_at": NOW + 4},
        d={"look_at": NOW + 1},
    )

    def due(limit: int = 9) -> list[str]:
        return sorted(found(world.store.run(lambda tx: tx.waits.due_untils(NOW + 3, limit))))

    assert due() == ["a", "b"]
    assert due(1) == ["b"]
    assert world.store.run(lambda tx: tx.waits.next_until_at()) == NOW + 2


def test_who_may_end_a_wait_learns_why_somebody_wants_it(world: World) -> None:
    names = waiting(
        world,
        a={},
        b={},
        c={"owner": "w2"},
        d={"owner": None},
        e={"owner": None, "kind": "until"},
        f={"owner": None, "kind": "job"},
    )
    want_ended(world, *(names[name] for name in "acdef"))
    want_ended(world, names["a"], note=None)
    assert world.store.run(lambda tx: tx.waits.intended("w1")) == {names["a"]: "cancel"}
    assert world.store.run(lambda tx: tx.waits.intended("w2")) == {names["c"]: "enough"}
    untils = world.store.run(lambda tx: tx.waits.intended_untils(9))
    assert sorted(found(untils)) == ["d", "e"]
    assert {item.intent for item in untils} == {"enough"}
    assert len(world.store.run(lambda tx: tx.waits.intended_untils(1))) == 1
    asked = [names["a"], names["b"], names["d"]]
    assert world.store.run(lambda tx: tx.waits.intents_of(asked)) == {names["a"]: "cancel", names["d"]: "enough"}
    world.sql("UPDATE runs SET phase = 'QUEUED'")
    assert world.store.run(lambda tx: tx.waits.intended("w1")) == {}
    assert world.store.run(lambda tx: tx.waits.intended_untils(9)) == []
