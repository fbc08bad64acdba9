"""Triggers that have no slot to come: a deploy says so and why, and those that used up their fires can begin again."""

from __future__ import annotations

from datetime import date

import pytest

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import to_datetime
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import NotFound, RevisionConflict
from tests.integration.worlds import World, definition, instant, key, once, trigger

PAST = to_datetime(instant("11:00"))
QUIET = Calendar("quiet", frozenset({date(2026, 11, 22)}))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (trigger(automation=once("11:00")), "its only slot, 2026-11-21T11:00:00Z, is past"),
        (trigger(automation=once("12:00")), "its only slot, 2026-11-21T12:00:00Z, is past"),
        (trigger(end=PAST), "its end, 2026-11-21T11:00:00Z, is past"),
        (
            trigger(automation=Cron("0 0 1 1 *"), end=to_datetime(instant("22 11:00"))),
            "it has no slot up to its end, 2026-11-22T11:00:00Z",
        ),
        (
            trigger(
                automation=Cron("0 0 1 1 *"),
                start=to_datetime(instant("22 10:00")),
                end=to_datetime(instant("22 11:00")),
            ),
            "no slot lies between its start, 2026-11-22T10:00:00Z, and its end, 2026-11-22T11:00:00Z",
        ),
        (trigger(automation=once("22 06:00"), calendars=(QUIET,)), "its calendars leave out every slot that is left"),
    ],
)
def test_a_deploy_says_of_a_trigger_that_it_fires_no_more_and_why(world: World, spec: TriggerSpec, why: str) -> None:
    (planned,) = world.client.plan_deploy([definition(spec, trigger("other"))])
    assert {item.name: item.warning for item in planned.triggers} == {"nightly": why, "other": None}
    result = world.deploy(spec, trigger("other"), at_start=True)
    assert result.warnings == {"nightly": why}
    assert world.trigger()["next_fire_at"] is None
    assert world.deploy(spec, trigger("other"), at_start=True).warnings == {}, "a start says it once"
    (again,) = world.client.deploy_planned([definition(spec, trigger("other", inputs={"region": "eu"}))])
    assert {item.name: (item.action, item.warning) for item in again.triggers} == {
        "nightly": ("unchanged", why),
        "other": ("changed", None),
    }


@pytest.mark.parametrize(
    "spec",
    [
        trigger(automation=None),
        trigger(automation=once("11:00"), active=False),
        trigger(automation=once("12:00:01")),
        trigger(end=to_datetime(instant("12:01"))),
        trigger(max_fires=1),
        trigger(automation=FixedRate(1, "hour"), end=to_datetime(instant("13:00"))),
    ],
)
def test_a_trigger_that_may_fire_or_is_not_to_fire_is_not_warned_of(world: World, spec: TriggerSpec) -> None:
    assert world.deploy(spec).warnings == {}


USED_UP = "its max_fires of 2 is used up; `scheduler triggers reset report/nightly` begins again"


def used_up(world: World) -> None:
    world.deploy(trigger(max_fires=2))
    assert world.step("12:01") + world.step("12:02") == ["12:01", "12:02"]
    assert world.trigger()["state"] == "finished"


def test_a_max_fires_that_is_used_up_survives_an_edit_which_says_so(world: World) -> None:
    used_up(world)
    (same,) = world.client.plan_deploy([definition(trigger(max_fires=2))])
    assert [(item.action, item.warning) for item in same.triggers] == [("unchanged", USED_UP)]
    assert world.deploy(trigger(max_fires=2, inputs={"region": "eu"})).warnings == {"nightly": USED_UP}
    assert world.step("12:10") == []
    assert world.deploy(trigger(max_fires=3)).warnings == {}
    assert world.step("12:15") == ["12:11"]


def test_fires_are_counted_from_0_again_strictly_after_the_reset(world: World) -> None:
    used_up(world)
    revision = world.trigger()["revision"]
    assert world.at("12:10:30").client.reset_fires([key()]) == [key()]
    assert world.client.reset_fires([key()]) == [], "it has not fired since"
    assert (world.trigger()["revision"], world.next_fire()) == (revision + 1, "12:11")
    (newest, *_) = world.client.list_revisions(key())
    assert (newest["action"], newest["by"]) == ("RESET", "tester")
    assert world.step("12:15") == ["12:11", "12:12"]
    assert world.trigger()["state"] == "finished"


def test_a_reset_in_between_keeps_what_is_planned_and_an_inactive_trigger_stays_so(world: World) -> None:
    world.deploy(trigger(max_fires=2), trigger("paused", max_fires=1))
    world.step("12:01")
    world.client.deactivate(key("paused"))
    world.at("12:04").client.reset_fires([key(), key("paused")])
    assert world.trigger("paused")["active"] is False
    assert world.step() == ["12:02", "12:03"], "what was missed is still owed"
    world.client.activate(key("paused"))
    assert world.next_fire("paused") == "12:05"


def test_a_reset_that_somebody_forestalled_changes_nothing(world: World) -> None:
    used_up(world)
    with pytest.raises(RevisionConflict):
        world.client.reset_fires([key()], expected_revisions={key(): 7})
    with pytest.raises(NotFound):
        world.client.reset_fires([key(), key("nobody")])
    assert world.trigger()["state"] == "finished"


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_trigger_that_comes_back_after_it_was_deleted_counts_from_0(world: World, by_hand: bool) -> None:
    used_up(world)
    world.client.delete_trigger(key()) if by_hand else world.deploy()
    assert world.at("12:10").deploy(trigger(max_fires=2)).warnings == {}
    assert world.step("12:15") == ["12:11", "12:12"]
    assert world.trigger()["state"] == "finished"
