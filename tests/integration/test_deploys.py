"""A deploy compares with the last deploy: an identical one changes nothing, and what operators did since stays."""

from __future__ import annotations

import pytest

from scheduler.client import Client
from scheduler.domain.automation import Cron
from scheduler.domain.task import Environment, TaskSpec
from scheduler.errors import RevisionConflict
from scheduler.services.operate import snooze
from tests.integration.worlds import World, definition, instant, key, only, trigger

HOURLY = Cron("0 * * * *")


def test_a_deploy_creates_the_task_its_version_and_its_triggers(world: World) -> None:
    result = world.deploy(trigger("a"), trigger("b", active=False), description="Sends the report")
    assert (result.applied, result.created, result.pruned) == (True, ("a", "b"), ())
    task = only(world.client.list_tasks())
    assert (task["version"], task["description"]) == ("v1", "Sends the report")
    assert (task["total_triggers"], task["active_triggers"]) == (2, 1)
    assert (task["deployed_by"], task["deployed_at"]) == ("tester", world.clock.now())
    assert (world.next_fire("a"), world.next_fire("b")) == ("12:01", None)


def test_an_identical_deploy_changes_nothing(world: World) -> None:
    world.deploy(trigger())
    before = world.rows("SELECT * FROM triggers"), world.rows("SELECT * FROM trigger_due")
    world.at("12:05:30")
    result = world.deploy(trigger())
    assert (result.applied, result.unchanged) == (False, ("nightly",))
    assert (world.rows("SELECT * FROM triggers"), world.rows("SELECT * FROM trigger_due")) == before
    assert len(world.rows("SELECT * FROM trigger_revisions")) == 1


def test_an_operators_deactivation_survives_an_unchanged_redeploy(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    world.deploy(trigger())
    assert world.trigger()["active"] is False


def test_an_operators_deactivation_survives_a_changed_deploy_that_leaves_active_alone(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    result = world.deploy(trigger(automation=HOURLY), version="v2")
    assert result.changed == ("nightly",)
    assert (world.trigger()["active"], world.trigger()["version"], world.next_fire()) == (False, "v2", None)


def test_a_deploy_that_changes_active_sets_it(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    world.deploy(trigger(active=False))
    world.deploy(trigger(active=True))
    assert world.trigger()["active"] is True


def test_a_redeploy_with_no_triggers_prunes_the_old_ones(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:03:30")
    assert world.deploy().pruned == ("a", "b")
    assert world.client.list_triggers() == []
    assert world.rows("SELECT reason, count FROM skips ORDER BY trigger_id") == [("deleted", 3), ("deleted", 3)]
    assert only(world.client.list_tasks())["total_triggers"] == 0


def test_a_pruned_trigger_that_comes_back_owes_nothing_of_the_past(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.deploy()
    world.at("12:10:30")
    assert world.deploy(trigger()).created == ("nightly",)
    assert world.step() == []
    assert world.step("12:11") == ["12:11"]
    assert world.trigger()["revision"] == 3


def test_runs_of_a_pruned_trigger_that_have_not_started_are_aborted(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.deploy()
    assert world.phases() == {"12:01": "ABORTED"}


def test_deploying_an_old_version_again_moves_its_triggers_back(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}), version="v1")
    world.at("12:00:10").deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 2}), version="v2")
    assert world.trigger()["version"] == "v2"
    world.at("12:00:20").deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}), version="v1")
    assert (world.trigger()["version"], only(world.client.list_tasks())["version"]) == ("v1", "v1")
    world.step("12:01")
    run = world.run(only(world.runs())["name"])
    assert (run["version"], run["inputs"]) == ("v1", {"n": 1})


def test_the_deploy_at_start_leaves_content_alone_that_was_ever_deployed(world: World) -> None:
    world.deploy(trigger(), version="v1")
    world.deploy(trigger(), version="v2")
    assert world.deploy(trigger(), version="v1", at_start=True).applied is False
    assert world.trigger()["version"] == "v2"
    assert world.deploy(trigger(), version="v3", at_start=True).applied is True
    assert world.trigger()["version"] == "v3"
    assert world.deploy(trigger(), version="v1").applied is True


def test_triggers_of_other_sources_are_not_pruned(world: World) -> None:
    world.deploy(trigger("by_api"), source="api")
    world.deploy(trigger("by_hand"), source="library", version="v2")
    world.sql(
        "INSERT INTO triggers (task_id, name, automation) "
        """SELECT id, 'by_sql', '{"cron": "* * * * *"}' FROM tasks WHERE name = 'report'"""
    )
    world.deploy(trigger("by_manifest"), source="manifest", version="v3")
    assert world.deploy(source="manifest", version="v4").pruned == ("by_manifest",)
    assert [item["name"] for item in world.client.list_triggers()] == ["by_api", "by_hand", "by_sql"]


def test_triggers_of_plain_sql_follow_the_latest_version_and_those_of_the_api_keep_theirs(world: World) -> None:
    world.deploy(trigger("by_api"), source="api")
    world.sql("INSERT INTO triggers (task_id, name) SELECT id, 'by_sql' FROM tasks")
    world.step()
    world.deploy(version="v2")
    versions = {item["name"]: item["version"] for item in world.client.list_triggers()}
    assert versions == {"by_api": "v1", "by_sql": "v2"}


def test_a_change_of_inputs_alone_is_a_revision_and_keeps_the_position(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.at("12:03")
    assert world.deploy(trigger(inputs={"n": 1})).changed == ("nightly",)
    assert world.trigger()["revision"] == 2
    assert world.step() == ["12:02", "12:03"]


def test_every_change_is_kept_as_a_revision(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    world.client.activate(key())
    world.deploy(trigger(automation=HOURLY), version="v2")
    world.deploy(version="v3")
    rows = world.rows("SELECT revision, action, version FROM trigger_revisions ORDER BY revision")
    actions = ["DEPLOY", "DEACTIVATE", "ACTIVATE", "DEPLOY", "DELETE"]
    assert [(row[0], row[1]) for row in rows] == list(enumerate(actions, start=1))
    assert [row[2] for row in rows] == ["v1", "v1", "v1", "v2", "v3"]


def test_a_dry_run_tells_and_changes_nothing(world: World) -> None:
    world.deploy(trigger("a"))
    result = only(list(world.client.deploy([definition(trigger("b"), version="v2")], dry_run=True)))
    assert (result.applied, result.created, result.pruned) == (True, ("b",), ("a",))
    assert [item["name"] for item in world.client.list_triggers()] == ["a"]
    assert only(world.client.list_tasks())["version"] == "v1"


def test_equal_specifications_are_stored_once(world: World) -> None:
    for version in ("v1", "v2", "v3"):
        world.deploy(trigger(), version=version)
    assert len(world.rows("SELECT * FROM task_specs")) == 1
    assert len(world.rows("SELECT * FROM task_versions")) == 3


def test_a_version_copies_what_its_deploy_said(world: World) -> None:
    world.deploy(
        task="reports.nightly",
        environment=Environment("reports", "The reports"),
        description="d" * 300,
        long_description="l" * 3_000,
    )
    task = world.client.show_task("flytesnacks", "development", "reports.nightly")
    assert (task["environment"], task["function_name"]) == ("reports", "nightly")
    assert len(task["description"]) == 255
    assert world.rows("SELECT length(long_description) FROM task_versions") == [(2048,)]


def test_a_version_deployed_again_with_another_specification_is_updated(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging"))
    world.deploy(trigger(), spec=TaskSpec("shell", config={"command": ["true"]}))
    world.step("12:01")
    assert only(world.rows("SELECT executor FROM runs"))[0] == "shell"


def test_two_tasks_of_one_name_in_two_domains_have_runs_of_their_own(world: World) -> None:
    from dataclasses import replace

    first = definition(trigger())
    list(world.client.deploy([first, replace(first, domain="production")]))
    assert world.step("12:01") == ["12:01", "12:01"]
    assert len({run["name"] for run in world.runs()}) == 2


@pytest.mark.parametrize("count", [0, 1, 250])
def test_a_task_may_have_many_triggers(world: World, count: int) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(count)))
    assert len(world.step("12:01")) == count


# --- whoever was faster, whoever owns it -----------------------------------------------------------------------------


def test_a_deploy_that_expects_revisions_is_refused_where_somebody_was_faster(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    seen = {row["name"]: row["revision"] for row in world.client.list_triggers()}
    world.client.deactivate(key("b"))
    before = world.rows("SELECT * FROM triggers")
    wanted = definition(trigger("a", automation=HOURLY), trigger("b", automation=HOURLY), version="v2")
    with pytest.raises(RevisionConflict, match="report/b' is at revision 2, not 1"):
        world.client.deploy_task(wanted, expected_revisions=seen)
    assert world.rows("SELECT * FROM triggers") == before
    assert only(world.client.list_tasks())["version"] == "v1"
    assert world.client.deploy_task(wanted, expected_revisions={"a": 1, "b": 2}).changed == ("a", "b")


def test_a_deploy_may_expect_that_a_trigger_is_not_there(world: World) -> None:
    wanted = definition(trigger())
    assert world.client.deploy_task(wanted, expected_revisions={"nightly": 0}).created == ("nightly",)
    with pytest.raises(RevisionConflict):
        world.client.deploy_task(wanted, expected_revisions={"nightly": 0})
    world.client.delete_trigger(key())
    with pytest.raises(RevisionConflict):
        world.client.deploy_task(wanted, expected_revisions={"nightly": 2})
    assert world.client.deploy_task(wanted, expected_revisions={"nightly": 0}).created == ("nightly",)
    assert world.trigger()["revision"] == 3


def test_an_identical_deploy_that_expects_an_old_revision_is_refused_too(world: World) -> None:
    wanted = definition(trigger())
    world.client.deploy_task(wanted)
    world.client.deactivate(key())
    with pytest.raises(RevisionConflict):
        world.client.deploy_task(wanted, expected_revisions={"nightly": 1})
    assert world.client.deploy_task(wanted, expected_revisions={"nightly": 2}).applied is False


def test_a_deploy_that_sets_active_as_sent_overrules_an_operators_pause(world: World) -> None:
    wanted = definition(trigger("a"), trigger("b", active=False), trigger("c"))
    world.client.deploy_task(wanted, active_as_sent=True)
    assert world.client.deploy_task(wanted, active_as_sent=True).applied is False
    world.client.deactivate(key("a"))
    world.client.activate(key("b"))
    assert world.client.deploy_task(wanted).applied is False
    result = world.at("12:03:30").client.deploy_task(wanted, active_as_sent=True)
    assert (result.changed, result.unchanged) == (("a", "b"), ("c",))
    assert [(row["active"], row["revision"]) for row in world.client.list_triggers()] == [
        (True, 3),
        (False, 3),
        (True, 1),
    ]
    assert [world.next_fire(name) for name in "abc"] == ["12:04", None, "12:01"]


def test_a_trigger_belongs_to_whoever_named_it_last(world: World) -> None:
    world.deploy(trigger(), source="api")
    assert world.deploy(trigger(), source="manifest", version="v2").unchanged == ("nightly",)
    assert world.trigger()["revision"] == 1
    assert world.deploy(source="api", version="v3").pruned == ()
    assert world.deploy(source="manifest", version="v4").pruned == ("nightly",)


def test_who_deployed_is_the_caller_that_the_client_was_given(world: World) -> None:
    world.deploy(trigger())
    other = Client(world.store, planning=world.planning, by="somebody else", create_projects=True)
    other.deploy_task(definition(trigger(automation=HOURLY), version="v2"))
    assert [row["deployed_by"] for row in world.client.list_versions("flytesnacks", "development", "report")] == [
        "somebody else",
        "tester",
    ]
    assert [row["by"] for row in world.client.list_revisions(key())] == ["somebody else", "tester"]
    assert world.trigger()["updated_by"] == "somebody else"


def test_a_snooze_ends_where_a_deploy_says_active_anew_and_only_there(world: World) -> None:
    world.deploy(trigger(active=False))
    world.client.activate(key())
    world.store.run(snooze, key(), instant("13:00"), world.planning, by="tester")
    world.deploy(trigger(active=False, inputs={"n": 1}), version="v2")
    assert (world.trigger()["state"], world.next_fire()) == ("snoozed", "13:01")
    world.at("12:00:30").deploy(trigger(inputs={"n": 1}), version="v3")
    assert (world.trigger()["state"], world.next_fire()) == ("scheduled", "12:01")
