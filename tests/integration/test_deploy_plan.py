"""What a deploy is said to change is what it changes: fields, triggers, and the next fires before and after."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.client import DeployPlan, TriggerKey
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.definitions import PROJECTS, definitions
from tests.integration.worlds import World, definition, instant, key, only, spoken, trigger

HOURLY = Cron("0 * * * *")
FIVE_MINUTES = ["12:01", "12:02", "12:03", "12:04", "12:05"]


def plan(world: World, *triggers: TriggerSpec, **options: Any) -> DeployPlan:
    return next(world.client.plan_deploy([definition(*triggers, **options)]))


def changed(found: DeployPlan) -> dict[str, tuple[Any, Any]]:
    """The fields of the task, and of its only trigger as `.field`."""
    fields = {change.field: (change.before, change.after) for change in found.changes}
    for item in found.triggers:
        fields |= {f".{change.field}": (change.before, change.after) for change in item.changes}
    return fields


def fires(found: DeployPlan) -> tuple[list[str], list[str]]:
    """Before and after, of the only trigger."""
    item = only(found.triggers)
    return [spoken(fire) for fire in item.fires_before], [spoken(fire) for fire in item.fires_after]


def actions(found: DeployPlan) -> dict[str, str]:
    return {"": found.action} | {item.name: item.action for item in found.triggers}


def test_a_plan_writes_nothing(world: World) -> None:
    assert actions(plan(world, trigger("a"), trigger("b"))) == {"": "created", "a": "created", "b": "created"}
    assert world.client.list_tasks() == []
    assert world.rows("SELECT * FROM tasks") == []
    world.deploy(trigger("a"))
    before = world.rows("SELECT * FROM triggers"), world.rows("SELECT * FROM trigger_due")
    found = plan(world, trigger("b"), version="v2")
    assert actions(found) == {"": "changed", "b": "created", "a": "pruned"}
    assert (world.rows("SELECT * FROM triggers"), world.rows("SELECT * FROM trigger_due")) == before


def test_fields_are_told_as_manifests_name_them_defaults_included(world: World) -> None:
    world.deploy(trigger(inputs={"region": "eu", "old": 1}), spec=TaskSpec("logging", config={"env": {"LANG": "C"}}))
    found = plan(
        world,
        trigger(automation=Cron("0 * * * *", "Europe/Paris"), inputs={"region": "us", "a b": [1]}, max_fires=3),
        spec=TaskSpec("shell", config={"env": {"LANG": "D"}}, timeout=timedelta(minutes=10)),
        version="v2",
        description="Sends it",
    )
    assert changed(found) == {
        "version": ("v1", "v2"),
        "description": ("", "Sends it"),
        "executor": ("logging", "shell"),
        "config.env.LANG": ("C", "D"),
        "timeout": (None, "10m"),
        ".cron.expression": ("* * * * *", "0 * * * *"),
        ".cron.timezone": ("UTC", "Europe/Paris"),
        ".inputs.region": ("eu", "us"),
        ".inputs.old": (1, None),
        '.inputs["a b"]': (None, [1]),
        ".max_fires": (None, 3),
    }


def test_one_more_date_of_a_calendar_is_told_as_just_that(world: World) -> None:
    christmas = Calendar("holidays", frozenset({date(2026, 12, 25)}))
    world.deploy(trigger(calendars=(christmas,)))
    found = plan(world, trigger(calendars=(replace(christmas, dates=christmas.dates | {date(2027, 1, 1)}),)))
    assert changed(found) == {".calendars.holidays.dates": (["2026-12-25"], ["2026-12-25", "2027-01-01"])}


def test_calendars_in_another_order_are_told_as_a_list(world: World) -> None:
    one, other = Calendar("a"), Calendar("b")
    world.deploy(trigger(calendars=(one, other)))
    assert list(changed(plan(world, trigger(calendars=(other, one))))) == [".calendars"]
    twice = plan(world, trigger(calendars=(one, replace(one, policy="next"))))
    assert changed(twice) == {
        ".calendars.b": ({"dates": [], "policy": "skip"}, None),
        '.calendars["a (2)"]': (None, {"dates": [], "policy": "next"}),
    }


def test_an_identical_deploy_is_unchanged_and_a_deploy_by_plan_leaves_it_alone(world: World) -> None:
    world.deploy(trigger())
    before = world.rows("SELECT * FROM tasks"), world.rows("SELECT * FROM triggers")
    world.at("12:05:30")
    assert actions(plan(world, trigger())) == {"": "unchanged", "nightly": "unchanged"}
    assert only(list(world.client.deploy_planned([definition(trigger())]))).action == "unchanged"
    assert (world.rows("SELECT * FROM tasks"), world.rows("SELECT * FROM triggers")) == before


def test_another_schedule_fires_strictly_after_now(world: World) -> None:
    world.deploy(trigger())
    world.at("12:00:30")
    assert fires(plan(world, trigger(automation=HOURLY))) == (FIVE_MINUTES, [f"{h}:00" for h in range(13, 18)])


def test_what_does_not_touch_the_schedule_keeps_its_fires(world: World) -> None:
    rate = FixedRate(7, "minute")
    world.at("12:00:10").deploy(trigger(automation=rate))
    world.at("12:03")
    grid = ["12:07:10", "12:14:10", "12:21:10", "12:28:10", "12:35:10"]
    assert fires(plan(world, trigger(automation=rate, inputs={"a": 1}))) == (grid, grid)
    # Another interval counts from now.
    assert fires(plan(world, trigger(automation=FixedRate(1, "hour"))))[1][:2] == ["13:03", "14:03"]


def test_a_trigger_that_an_operator_paused_fires_neither_before_nor_after(world: World) -> None:
    world.deploy(trigger())
    world.client.deactivate(key())
    assert fires(plan(world, trigger(automation=HOURLY))) == ([], [])
    assert fires(plan(world, trigger(automation=HOURLY, active=False)))[1] == []


def test_a_deploy_that_switches_a_trigger_on_or_off_shows_it(world: World) -> None:
    world.deploy(trigger())
    found = plan(world, trigger(active=False))
    assert (changed(found), fires(found)) == ({".active": (True, False)}, (FIVE_MINUTES, []))
    world.deploy(trigger(active=False))
    world.at("12:00:30")
    assert fires(plan(world, trigger())) == ([], FIVE_MINUTES)


def test_a_trigger_that_comes_back_is_created_and_one_that_is_not_named_is_pruned(world: World) -> None:
    world.deploy(trigger())
    gone = plan(world, version="v2")
    assert (actions(gone), fires(gone)) == ({"": "changed", "nightly": "pruned"}, (FIVE_MINUTES, []))
    world.deploy(version="v2")
    back = plan(world, trigger())
    assert (actions(back), fires(back)) == ({"": "changed", "nightly": "created"}, ([], FIVE_MINUTES))


def test_what_an_operator_deleted_comes_back_by_the_same_deploy(world: World) -> None:
    wanted = definition(trigger("a"), trigger("b"))
    assert next(world.client.deploy_planned([wanted])).action == "created"
    world.client.delete_trigger(key("a"))
    assert actions(plan(world, *wanted.triggers)) == {"": "changed", "a": "created", "b": "unchanged"}
    world.client.delete_task("flytesnacks", "development", "report")
    assert actions(plan(world, *wanted.triggers)) == {"": "created", "a": "created", "b": "created"}
    assert next(world.client.deploy_planned([wanted])).action == "created"
    assert [row["name"] for row in world.client.list_triggers()] == ["a", "b"]
    world.client.delete_trigger(key("a"))
    # A deploy that does not name what was deleted has nothing to do.
    assert actions(plan(world, trigger("b"))) == {"": "unchanged", "b": "unchanged"}
    world.deploy()
    world.client.delete_task("flytesnacks", "development", "report")
    assert next(world.client.deploy_planned([definition()])).action == "created"
    assert len(world.client.list_tasks()) == 1


def test_a_snooze_ends_when_it_should_and_a_skipped_slot_is_not_told(world: World) -> None:
    world.deploy(trigger())
    world.client.snooze(key(), instant("12:30"))
    after = [f"{hour}:00" for hour in range(13, 18)]
    assert fires(plan(world, trigger(automation=HOURLY))) == (["12:31", "12:32", "12:33", "12:34", "12:35"], after)
    world.client.activate(key())
    world.client.skip_next(key())
    assert fires(plan(world, trigger(max_fires=100)))[1] == ["12:02", "12:03", "12:04", "12:05", "12:06"]


def test_triggers_of_other_sources_are_not_told_of(world: World) -> None:
    world.deploy(trigger("by-library"), source="library")
    assert actions(plan(world, trigger("mine"), version="v2")) == {"": "changed", "mine": "created"}


def test_a_trigger_made_by_sql_is_taken_over_from_the_defaults(world: World) -> None:
    world.deploy()
    world.sql("INSERT INTO triggers (task_id, name, automation) SELECT id, 'nightly', '{\"cron\":\"nope\"}' FROM tasks")
    found = plan(world, trigger(automation=HOURLY))
    assert actions(found) == {"": "changed", "nightly": "changed"}
    assert changed(found)[".cron"][0] is None
    assert fires(found)[0] == []


def test_no_more_fires_are_told_than_are_left(world: World) -> None:
    world.deploy(trigger(max_fires=4))
    world.step("12:02")
    world.at("12:02:30")
    assert fires(plan(world, trigger(max_fires=3))) == (["12:03", "12:04"], ["12:03"])


def test_what_is_told_of_a_deploy_is_what_its_plan_told(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    after = definition(trigger("a", HOURLY), trigger("c"), version="v2", description="new")
    told = next(world.client.plan_deploy([after]))
    assert next(world.client.deploy_planned([after])) == told
    assert actions(next(world.client.plan_deploy([after]))) == {"": "unchanged", "a": "unchanged", "c": "unchanged"}
    assert world.trigger("a")["revision"] == 2


def drawn_world(folder: Path, template: str) -> World:
    shutil.copy(template.removeprefix("sqlite:///"), folder / "scheduler.db")
    clock = ManualClock()
    world = World(Store.open(f"sqlite:///{folder / 'scheduler.db'}", clock=clock), clock)
    world.client.ensure_projects(PROJECTS)
    return world


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_after_any_deploy_every_trigger_fires_next_when_its_plan_said(sqlite_url: str, data: st.DataObject) -> None:
    play_two_deploys(sqlite_url, data)


@pytest.mark.heavy
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_after_many_more_deploys_every_trigger_fires_next_when_its_plan_said(
    sqlite_url: str, data: st.DataObject
) -> None:
    play_two_deploys(sqlite_url, data)


def play_two_deploys(sqlite_url: str, data: st.DataObject) -> None:
    drawn = data.draw(definitions(names=st.just("t")))
    names = [item.name for item in drawn.triggers]
    other = data.draw(definitions(names=st.just("t")))
    # The second deploy is of the same task and mostly of the same triggers, which say something else.
    renamed = [replace(item, name=name) for item, name in zip(other.triggers, names, strict=False)]
    kept = [item for item in drawn.triggers[len(renamed) :] if data.draw(st.booleans())]
    second = replace(other, project=drawn.project, domain=drawn.domain, triggers=(*renamed, *kept))
    with TemporaryDirectory() as folder:
        world = drawn_world(Path(folder), sqlite_url)
        try:
            for item in (drawn, second):
                assert_told_truly(world, item)
                world.clock.advance(data.draw(st.integers(0, 10_000)))
                operate(world, data)
        finally:
            world.store.close()


def operate(world: World, data: st.DataObject) -> None:
    """What an operator may do between two deploys."""
    for row in world.client.list_triggers():
        item = TriggerKey(row["project"], row["domain"], row["task"], row["name"])
        match data.draw(st.sampled_from(["nothing", "deactivate", "activate", "snooze"])):
            case "deactivate":
                world.client.deactivate(item)
            case "activate":
                world.client.activate(item)
            case "snooze" if row["active"]:
                world.client.snooze(item, world.clock.now() + data.draw(st.integers(1, 10_000)) * SECOND)


def assert_told_truly(world: World, wanted: TaskDefinition) -> None:
    told = next(world.client.plan_deploy([wanted]))
    assert next(world.client.deploy_planned([wanted])) == told
    next_fires = {
        row["name"]: row["next_fire_at"] for row in world.client.list_triggers(task=wanted.name, project=wanted.project)
    }
    for item in told.triggers:
        if item.action in ("created", "changed"):
            planned, first = next_fires[item.name], next(iter(item.fires_after), None)
            if planned is not None and planned <= world.clock.now():
                # Owed since before the deploy, which left its schedule alone: what is told is what is to come.
                assert first is None or first > world.clock.now(), item
            else:
                assert planned == first, item
            assert item.action == "created" or item.changes, item
        assert (item.action == "pruned") == (item.name not in next_fires)
    assert {item.action for item in next(world.client.plan_deploy([wanted])).triggers} <= {"unchanged"}
