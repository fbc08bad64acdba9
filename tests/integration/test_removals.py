"""What is deleted is out of sight, keeps its history, and comes back with a deploy but not with a restart."""

from __future__ import annotations

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.errors import Conflict, NotFound, RevisionConflict
from tests.integration.worlds import World, key, only, trigger

TASK = ("flytesnacks", "development", "report")


def actions(world: World, name: str = "nightly") -> list[tuple[int, str]]:
    """The history of a trigger, oldest first."""
    return [(row["revision"], row["action"]) for row in reversed(world.client.list_revisions(key(name)))]


# --- triggers --------------------------------------------------------------------------------------------------------


def test_a_deleted_trigger_is_not_listed_and_its_history_stays_readable(world: World) -> None:
    world.deploy(trigger())
    world.client.delete_trigger(key())
    assert world.client.list_triggers() == []
    with pytest.raises(NotFound):
        world.trigger()
    with pytest.raises(NotFound):
        world.client.delete_trigger(key())
    assert actions(world) == [(1, "DEPLOY"), (2, "DELETE")]
    assert only(world.client.list_tasks())["total_triggers"] == 0


def test_a_deleted_trigger_owes_nothing_and_its_waiting_runs_are_aborted(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    world.take(on_time=1)
    world.step("12:02")
    world.at("12:05:30").client.delete_trigger(key())
    assert world.step("12:20") == []
    assert world.phases() == {"12:01": "RUNNING", "12:02": "ABORTED"}
    assert world.rows("SELECT reason, count FROM skips") == [("deleted", 3)]


def test_the_same_deploy_once_more_brings_back_what_an_operator_deleted(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.client.delete_trigger(key("a"))
    result = world.at("12:10:30").deploy(trigger("a"), trigger("b"))
    assert (result.applied, result.created, result.unchanged) == (True, ("a",), ("b",))
    assert actions(world, "a") == [(1, "DEPLOY"), (2, "DELETE"), (3, "DEPLOY")]
    assert actions(world, "b") == [(1, "DEPLOY")]
    assert world.next_fire("a") == "12:11"
    assert world.deploy(trigger("a"), trigger("b")).applied is False


def test_a_restart_does_not_bring_back_what_an_operator_deleted(world: World) -> None:
    world.deploy(trigger())
    world.client.delete_trigger(key())
    assert world.deploy(trigger(), at_start=True).applied is False
    assert world.client.list_triggers() == []


def test_a_trigger_that_comes_back_is_as_active_as_deployed_and_no_longer_snoozed_or_skipping(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    world.client.delete_trigger(key())
    world.sql("UPDATE triggers SET snoozed_until = 99999999999999999, skip_next_at = 1, note = 'tired'")
    world.at("12:03:30").deploy(trigger())
    assert world.rows("SELECT snoozed_until, skip_next_at, note FROM triggers") == [(None, None, None)]
    assert (world.trigger()["active"], world.next_fire()) == (True, "12:04")


def test_an_operator_may_delete_whoever_deployed_it(world: World) -> None:
    world.deploy(trigger("by_api"), source="api")
    world.sql("INSERT INTO triggers (task_id, name) SELECT id, 'by_sql' FROM tasks")
    world.sync()
    assert world.client.delete_triggers([key("by_sql"), key("by_api")]) == [key("by_api"), key("by_sql")]
    assert world.client.list_triggers() == []
    assert [row["action"] for row in world.client.list_revisions(key("by_sql"))] == ["DELETE"]


def test_whoever_was_slower_is_refused_and_changes_nothing(world: World) -> None:
    world.deploy(trigger())
    seen = world.trigger()["revision"]
    world.client.deactivate(key(), expected_revision=seen)
    for act in (
        lambda: world.client.activate(key(), expected_revision=seen),
        lambda: world.client.delete_trigger(key(), expected_revision=seen),
        lambda: world.client.activate_many([key()], expected_revisions={key(): seen}),
    ):
        with pytest.raises(RevisionConflict, match="is at revision 2, not 1"):
            act()
    assert actions(world) == [(1, "DEPLOY"), (2, "DEACTIVATE")]
    world.client.delete_trigger(key(), expected_revision=2)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_many_are_switched_at_once_and_those_that_were_so_already_stay_as_they_are(world: World) -> None:
    world.deploy(trigger("a"), trigger("b", active=False), trigger("c"))
    world.deploy(trigger("d"), task="other")
    everything = [key("c"), key("a"), key("b"), key("d", "other"), key("a")]
    switched = [key("d", "other"), key("a"), key("c")]
    assert world.client.deactivate_many(everything) == sorted(switched)
    assert actions(world, "b") == [(1, "DEPLOY")]
    assert [task["active_triggers"] for task in world.client.list_tasks()] == [0, 0]
    assert world.step("12:05") == []
    assert world.client.activate_many(everything) == sorted(everything[:4])
    assert world.client.activate_many([]) == []
    assert len(world.step("12:06")) == 4


def test_of_many_all_or_none_are_changed(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    with pytest.raises(NotFound, match="report/x, flytesnacks/development/report/y"):
        world.client.deactivate_many([key("a"), key("y"), key("x")])
    with pytest.raises(RevisionConflict):
        world.client.delete_triggers([key("a"), key("b")], expected_revisions={key("b"): 7})
    assert [(row["name"], row["active"], row["revision"]) for row in world.client.list_triggers()] == [
        ("a", True, 1),
        ("b", True, 1),
    ]


def test_a_thousand_are_deleted_in_one_transaction(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(1_000)))
    assert len(world.client.delete_triggers(key(f"t{number}") for number in range(1_000))) == 1_000
    assert only(world.client.list_tasks())["total_triggers"] == 0
    assert world.rows("SELECT count(*), max(revision) FROM trigger_revisions") == [(2_000, 2)]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_deleted_task_is_not_listed_and_its_history_stays(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.deploy(trigger("c"), task="other")
    world.step("12:01")
    world.at("12:03:30")
    assert world.client.delete_task(*TASK) == [key("a"), key("b")]
    assert [row["name"] for row in world.client.list_tasks()] == ["other"]
    assert [row["name"] for row in world.client.list_triggers()] == ["c"]
    with pytest.raises(NotFound):
        world.client.show_task(*TASK)
    with pytest.raises(NotFound):
        world.client.delete_task(*TASK)
    assert [row["version"] for row in world.client.list_versions(*TASK)] == ["v1"]
    assert actions(world, "a") == [(1, "DEPLOY"), (2, "DELETE")]
    assert {run["phase"] for run in world.runs(task="report")} == {"ABORTED"}
    assert world.rows("SELECT reason, count FROM skips") == [("deleted", 2), ("deleted", 2)]
    assert world.step("12:04") == ["12:02", "12:03", "12:04"]


def test_a_deleted_task_comes_back_with_a_deploy_and_not_with_a_restart(world: World) -> None:
    world.deploy(trigger())
    world.client.delete_task(*TASK)
    assert world.deploy(trigger(), at_start=True).applied is False
    assert world.client.list_tasks() == []
    result = world.deploy(trigger())
    assert (result.applied, result.created) == (True, ("nightly",))
    assert only(world.client.list_tasks())["active_triggers"] == 1
    assert actions(world) == [(1, "DEPLOY"), (2, "DELETE"), (3, "DEPLOY")]


def test_a_deleted_task_without_triggers_comes_back_too(world: World) -> None:
    world.deploy()
    assert world.client.delete_task(*TASK) == []
    assert world.deploy().applied is True
    assert only(world.client.list_tasks())["version"] == "v1"


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_version_is_deleted_only_where_nothing_needs_it(world: World) -> None:
    world.deploy(trigger("old"), source="api", version="v1")
    world.deploy(version="v2")
    world.deploy(version="v3", spec=TaskSpec("logging", inputs={"n": 3}))
    with pytest.raises(Conflict, match="v3 is the latest version"):
        world.client.delete_version(*TASK, "v3")
    with pytest.raises(Conflict, match=r"v1 of .* is what its trigger 'old' runs"):
        world.client.delete_version(*TASK, "v1")
    world.client.delete_version(*TASK, "v2")
    assert [row["version"] for row in world.client.list_versions(*TASK)] == ["v3", "v1"]
    with pytest.raises(NotFound):
        world.client.delete_version(*TASK, "v2")
    world.client.delete_trigger(key("old"))
    world.client.delete_version(*TASK, "v1")
    world.client.delete_task(*TASK)
    world.client.delete_version(*TASK, "v3")
    assert world.client.list_versions(*TASK) == []
    assert world.deploy(trigger("old"), version="v2").applied is True
    assert world.step("12:01") == ["12:01"]


def test_runs_go_on_with_a_version_that_is_deleted_meanwhile(world: World) -> None:
    world.register()
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}))
    world.step("12:01")
    (execution,) = world.take()
    world.deploy(version="v2")
    world.client.delete_version(*TASK, "v1")
    world.succeed(execution)
    run = world.run(only(world.runs())["name"])
    assert (run["phase"], run["version"], run["inputs"]) == ("SUCCEEDED", "v1", {"n": 1})
