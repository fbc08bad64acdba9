"""One fire transaction: which triggers it decides, who gets the runs, and what it tells of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.services.fire import Fired, due_triggers, quarantine
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import MINUTE, PLENTY, World, instant, only, spoken, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    world = World(store, clock)
    world.register()
    return world


def ids(world: World) -> dict[str, int]:
    return dict(world.rows("SELECT name, id FROM triggers"))


def fired(world: World, **options: Any) -> Fired:
    return world.fire(**{"owner": "w1", "room": PLENTY, "places": 9, **options})


def who(world: World, found: Fired) -> list[str]:
    names = {number: name for name, number in ids(world).items()}
    return sorted(names[run.trigger_id] for run in found.runs)


# --- which -----------------------------------------------------------------------------------------------------------


def test_no_more_triggers_are_decided_than_asked_for_the_longest_due_first(world: World) -> None:
    world.deploy(trigger("late", Cron("2 12 * * *")), trigger("later", Cron("3 12 * * *")))
    world.deploy(trigger("first", Cron("1 12 * * *")), task="bill")
    world.at("12:03")
    assert world.store.run(due_triggers, 2) == [ids(world)[name] for name in ("first", "late")]
    found = fired(world, limit=2)
    assert (found.claimed, who(world, found), found.newest_due) == (2, ["first", "late"], instant("12:02"))
    assert who(world, fired(world)) == ["later"]
    assert fired(world) == Fired()


def test_a_pass_may_leave_out_what_is_long_due_or_lies_below_a_floor_or_comes_from_elsewhere(world: World) -> None:
    world.deploy(trigger("old", Cron("1 12 * * *")), trigger("new", Cron("3 12 * * *")))
    world.deploy(trigger("api", Cron("3 12 * * *")), task="bill", source="api")
    world.at("12:03")
    assert who(world, fired(world, source="api")) == ["api"]
    assert who(world, fired(world, within=MINUTE)) == ["new"]
    assert who(world, fired(world, floor=instant("12:02"))) == []
    assert who(world, fired(world)) == ["old"]


def test_one_trigger_may_be_decided_alone(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), trigger("once", Cron("1 12 21 11 *"), max_fires=1))
    world.at("12:01")
    assert who(world, fired(world, only=ids(world)["b"])) == ["b"]
    assert who(world, fired(world, only=ids(world)["once"])) == ["once"]
    assert fired(world, only=ids(world)["once"]) == Fired(), "nothing more is due of it"
    assert who(world, fired(world)) == ["a"]


def test_a_cap_may_be_given_for_this_once(world: World) -> None:
    world.deploy(trigger(catchup=CatchUp(max_runs=2)))
    found = fired(world.at("12:10"), max_runs=4)
    assert [spoken(run.scheduled_at) for run in found.runs] == [f"12:{m:02}" for m in range(5, 11)]
    world.succeed(*world.executions(found.taken))
    assert len(fired(world.at("12:20")).runs) == 4, "two late ones and two on time"


# --- who gets the runs -----------------------------------------------------------------------------------------------


def test_the_firing_worker_takes_no_more_than_its_places_and_its_executors_room(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(3)))
    world.deploy(*(trigger(f"s{number}") for number in range(3)), task="bill", spec=TaskSpec("shell"))
    found = fired(world.at("12:01"), room={"logging": 2, "shell": 1}, places=9)
    assert sorted(run.executor for run in found.taken) == ["logging", "logging", "shell"]
    assert [run.owner for run in found.runs].count(None) == 3
    found = fired(world.at("12:02"), room={"logging": 2, "shell": 2}, places=3)
    assert len(found.taken) == 3
    found = fired(world.at("12:03"), room={"logging": 0}, places=3)
    assert (len(found.runs), found.taken) == (6, ())
    assert fired(world.at("12:04"), room=None).taken == ()
    assert fired(world.at("12:05"), places=0).taken == ()


def test_a_worker_that_does_not_say_who_it_is_leaves_all_to_others(world: World) -> None:
    world.deploy(trigger())
    found = fired(world.at("12:01"), owner=None)
    assert (len(found.runs), found.taken) == (1, ())


def test_runs_of_a_limited_task_are_taken_by_turns(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"), spec=TaskSpec("logging", max_concurrent_runs=5))
    assert fired(world.at("12:01")).taken == ()


def test_a_serial_trigger_holds_up_itself_alone(world: World) -> None:
    world.deploy(trigger("a", overlap="buffer_all"), trigger("b", overlap="buffer_all"), trigger("c"))
    assert len(fired(world.at("12:01")).taken) == 3
    found = fired(world.at("12:02"))
    assert (who(world, found), [run.serial for run in found.taken]) == (["a", "b", "c"], [False])


def test_what_somebody_wrote_to_is_planned_anew_and_its_runs_wait(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.sql("UPDATE triggers SET automation = REPLACE(automation, '* * * * *', '*/5 * * * *') WHERE name = 'a'")
    found = fired(world.at("12:01"))
    assert (found.claimed, who(world, found)) == (2, ["a", "b"])
    assert [run.trigger_id for run in found.taken] == [ids(world)["b"]]
    assert found.replanned == (only(world.rows("SELECT id FROM tasks"))[0],)
    assert fired(world.at("12:02")).replanned == ()
    assert world.ledger("a") == ["12:01"]
    assert world.next_fire("a") == "12:05"


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_a_fire_tells_what_became_of_the_slots(world: World) -> None:
    world.deploy(trigger("a", catchup=CatchUp("none")), trigger("b"))
    found = fired(world.at("12:03:07"))
    assert found.skipped == {"catchup_policy": 2}
    assert sorted(found.lateness) == [7 * SECOND, 7 * SECOND, 67 * SECOND, 127 * SECOND]
    assert sorted(found.triggers) == sorted(ids(world).values())
    assert found.newest_due == instant("12:01")
    assert (found.quarantined, found.replanned) == ((), ())


def test_a_trigger_that_cannot_be_read_is_set_aside_and_named_with_its_error(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.sql("UPDATE triggers SET automation = REPLACE(automation, '* * * * *', '61 * * * *') WHERE name = 'a'")
    world.sql("UPDATE triggers SET planned_from = plan_source")
    found = fired(world.at("12:01"))
    assert who(world, found) == ["b"]
    assert "BadCron" in only(found.quarantined)
    assert fired(world) == Fired()
    assert "BadCron" in str(world.trigger("a")["error"])


def test_a_trigger_whose_fire_fails_in_the_database_is_set_aside_until_somebody_writes_to_it(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:01")
    world.store.run(quarantine, world.planning, ids(world)["a"], ValueError("no room"))
    assert world.trigger("a")["error"] == "ValueError: no room"
    assert world.sync() == 0, "it is planned as far as it can be"
    assert who(world, fired(world)) == ["b"]
    world.sql("UPDATE triggers SET automation = REPLACE(automation, '* * * * *', '*/2 * * * *') WHERE name = 'a'")
    world.step("12:02")
    assert world.trigger("a")["error"] is None
    assert world.ledger("a") == ["12:01", "12:02"]


def test_jitter_counts_as_no_lateness(world: World) -> None:
    world.deploy(trigger(automation=Cron("0 * * * *"), jitter=timedelta(minutes=10)))
    due = only(world.rows("SELECT due_at FROM trigger_due"))[0]
    world.clock.set(due + 3)
    found = fired(world)
    assert (found.lateness, found.newest_due) == ((3,), due)
    assert [spoken(run.scheduled_at) for run in found.runs] == ["13:00"]
