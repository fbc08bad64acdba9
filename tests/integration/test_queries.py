"""What listings show, and what acting by hand answers."""

from __future__ import annotations

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.task import TaskSpec
from scheduler.errors import Conflict, NotFound, SpecError
from tests.integration.worlds import LEASE, World, instant, key, spoken, trigger

HOURLY = Cron("0 * * * *")


def test_tasks_are_listed_by_key_with_their_latest_version(world: World) -> None:
    world.deploy(trigger("a"), trigger("b", active=False), task="zeta")
    world.deploy(task="alpha", version="v7")
    listed = [(task["name"], task["version"], task["total_triggers"]) for task in world.client.list_tasks()]
    assert listed == [("alpha", "v7", 0), ("zeta", "v1", 2)]
    assert [task["name"] for task in world.client.list_tasks(name="zeta")] == ["zeta"]
    assert world.client.list_tasks(project="other") == []
    assert len(world.client.list_tasks(limit=1)) == 1


def test_a_task_is_shown_with_its_specification(world: World) -> None:
    world.deploy(spec=TaskSpec("shell", config={"command": ["true"]}))
    task = world.client.show_task("flytesnacks", "development", "report")
    assert task["spec"] == {"executor": "shell", "config": {"command": ["true"]}}
    with pytest.raises(NotFound):
        world.client.show_task("flytesnacks", "development", "nobody")


def test_triggers_are_listed_with_what_they_fire_next(world: World) -> None:
    world.deploy(trigger("b"), trigger("a", automation=HOURLY), trigger("c", active=False))
    listed = [(item["name"], item["state"], item["next_fire_at"]) for item in world.client.list_triggers()]
    assert listed == [
        ("a", "scheduled", instant("13:00")),
        ("b", "scheduled", instant("12:01")),
        ("c", "inactive", None),
    ]
    assert [item["name"] for item in world.client.list_triggers(active=False)] == ["c"]
    assert [item["name"] for item in world.client.list_triggers(active=True)] == ["a", "b"]
    assert [item["name"] for item in world.client.list_triggers(name="b", task="report")] == ["b"]
    assert [item["name"] for item in world.client.upcoming(5)] == ["b", "a"]


def test_a_trigger_is_shown_with_when_it_last_fired(world: World) -> None:
    world.deploy(trigger())
    assert world.trigger()["triggered_at"] is None
    world.step("12:01:07")
    shown = world.trigger()
    assert spoken(shown["triggered_at"]) == "12:01:07"
    world.deploy(trigger(overlap="skip"))
    world.step("12:02")
    world.client.deactivate(key())
    assert world.ledger() == ["12:01", "overlap 12:02–12:02 ×1"]
    assert spoken(world.trigger()["triggered_at"]) == "12:01:07", "a look that fires nothing is no fire"
    assert shown["automation"] == {"cron": {"expression": "* * * * *"}}
    with pytest.raises(NotFound):
        world.trigger("nobody")


def test_a_trigger_that_plain_sql_broke_does_not_break_the_listing(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.sql("UPDATE triggers SET automation = 'nonsense' WHERE name = 'a'")
    world.sync()
    shown = {item["name"]: item["automation"] for item in world.client.list_triggers(name="a")}
    assert shown == {"a": "nonsense"}


def test_runs_are_listed_newest_first(world: World) -> None:
    world.register()
    world.deploy(trigger())
    for minute in (1, 2, 3):
        world.step(f"12:0{minute}")
    world.succeed(*world.take(on_time=1))
    assert [spoken(run["scheduled_at"]) for run in world.runs()] == ["12:03", "12:02", "12:01"]
    assert [spoken(run["scheduled_at"]) for run in world.runs(phase="SUCCEEDED")] == ["12:01"]
    assert [spoken(run["scheduled_at"]) for run in world.runs(since=instant("12:02"))] == ["12:03", "12:02"]
    assert len(world.runs(trigger="nightly", limit=2)) == 2
    assert world.runs(task="other") == []


def test_a_run_that_does_not_exist_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="run 'nobody'"):
        world.run("nobody")


def test_the_newest_entries_of_a_ledger_are_listed_oldest_first(world: World) -> None:
    world.deploy(trigger())
    world.step("12:20:30")
    assert world.ledger(limit=2) == ["12:19", "12:20"]
    assert world.ledger()[0] == "catchup_cap 12:01–12:09 ×9"
    with pytest.raises(NotFound):
        world.ledger("nobody")


def test_living_workers_are_listed_with_how_many_runs_they_hold(world: World) -> None:
    world.register("w1")
    world.clock.advance(1)
    world.register("w2")
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    world.take("w1", on_time=2)
    workers = [(item["name"], item["running"]) for item in world.client.list_workers()]
    assert workers == [("worker-w1", 2), ("worker-w2", 0)]
    world.clock.advance(LEASE / 1_000_000 + 1)
    with world.store.begin() as tx:
        tx.workers.renew("w2", LEASE)
    world.recover("w2")
    assert [item["name"] for item in world.client.list_workers()] == ["worker-w2"]


def test_firing_by_hand_needs_a_trigger_that_was_planned(world: World) -> None:
    with pytest.raises(NotFound):
        world.client.fire(key())
    world.deploy(trigger())
    world.sql("INSERT INTO triggers (task_id, name) SELECT id, 'fresh' FROM tasks")
    with pytest.raises(Conflict, match="has not been planned yet"):
        world.client.fire(key("fresh"))
    world.sync()
    assert world.run(world.client.fire(key("fresh")))["phase"] == "QUEUED"


def test_inputs_that_json_cannot_carry_are_refused(world: World) -> None:
    world.deploy(trigger())
    with pytest.raises(SpecError, match=r"inputs\.when"):
        world.client.fire(key(), inputs={"when": object()})
    assert world.runs() == []


def test_projects_are_recorded_once(world: World) -> None:
    world.client.ensure_projects({"flytesnacks": ["development", "production"]})
    world.client.ensure_projects({"flytesnacks": ["production", "staging"]})
    assert world.rows("SELECT domain FROM projects ORDER BY domain") == [
        ("development",),
        ("production",),
        ("staging",),
    ]


def test_what_was_skipped_is_counted_by_reason(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:20:30")
    world.at("12:30:30").client.deactivate(key("a"))
    with world.store.read() as tx:
        assert tx.ledger.counts_by_reason() == {"catchup_cap": 18, "paused": 10}
        assert tx.runs.counts_by_phase() == {"QUEUED": 11}
        assert (tx.triggers.count_live(), tx.triggers.due_count()) == (1, 1)


def test_the_epoch_is_nought_until_a_backup_is_restored(world: World) -> None:
    with world.store.begin() as tx:
        assert tx.meta.epoch() == 0
        tx.meta.put("epoch", "1")
        tx.meta.put("epoch", "2")
        assert tx.meta.epoch() == 2
