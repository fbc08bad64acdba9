"""What a trigger owes when somebody edits it: a slot that waits out its jitter, and those that were missed while down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import Micros, to_datetime
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.services.deploy import columns_of
from tests.integration.worlds import World, instant, key, only, trigger

HOURLY = Cron("0 * * * *")
HALF_AN_HOUR = timedelta(minutes=30)
LATER = Calendar("later", frozenset({date(2030, 1, 1)}))
# What is said about the trigger instead; the last ones no longer have the slot of 13:00.
EDITS: dict[str, dict[str, Any]] = {
    "end": {"end": to_datetime(instant("23 12:00"))},
    "jitter": {"jitter": timedelta(minutes=1)},
    "no jitter": {"jitter": timedelta()},
    "calendar": {"calendars": (LATER,)},
    "more slots": {"automation": Cron("*/30 * * * *")},
    "zone": {"automation": Cron("0 * * * *", "Europe/Paris")},
    "other slots": {"automation": Cron("17 3 * * *")},
    "ended": {"end": to_datetime(instant("12:30"))},
}
KEEPING = [name for name in EDITS if name not in ("other slots", "ended")]


def deploy(world: World, said: dict[str, Any]) -> None:
    world.deploy(trigger(**said))


def deploy_at_start(world: World, said: dict[str, Any]) -> None:
    world.deploy(trigger(**said), at_start=True)


def write(world: World, said: dict[str, Any]) -> None:
    columns = columns_of(trigger(**said))
    names = ["automation", "start_at", "end_at", "calendars", "jitter"]
    values = ", ".join(f"{name} = {_literal(columns[name])}" for name in names)
    world.sql(f"UPDATE triggers SET {values}")


def sync(world: World, said: dict[str, Any]) -> None:
    write(world, said)
    world.sync()


def fire_finds(world: World, said: dict[str, Any]) -> None:
    """The edit is found by a fire, once the slot's jitter is over."""
    write(world, said)
    world.clock.set(_due(world))
    world.fire_all()


PATHS = [deploy, deploy_at_start, sync, fire_finds]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("path", PATHS)
def test_a_slot_that_waits_out_its_jitter_fires_whatever_is_edited(
    world: World, edit: str, path: Callable[[World, dict[str, Any]], None]
) -> None:
    said: dict[str, Any] = {"automation": HOURLY, "jitter": HALF_AN_HOUR}
    world.register()
    world.deploy(trigger(**said))
    due = _due(world)
    assert instant("13:00:30") < due
    world.at("13:00:05")
    path(world, said | EDITS[edit])
    assert world.ledger() == ["13:00"]
    if path is not fire_finds:
        assert world.take() == []
    world.clock.set(due)
    assert [item.run.not_before for item in world.take()] == [due]
    assert world.step("13:29:59") == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("edit", KEEPING)
def test_slots_missed_while_down_that_an_edit_keeps_are_caught_up(
    world: World, edit: str, path: Callable[[World, dict[str, Any]], None]
) -> None:
    said: dict[str, Any] = {"automation": HOURLY, "jitter": timedelta(seconds=30), "catchup": CatchUp(max_runs=2)}
    world.deploy(trigger(**said))
    world.at("16:10")
    if path is fire_finds:
        write(world, said | EDITS[edit])
        world.fire_all()
    else:
        path(world, said | EDITS[edit])
    assert world.ledger() == ["catchup_cap 13:00–14:00 ×2", "15:00", "16:00"]
    assert world.rows("SELECT priority FROM runs ORDER BY priority") == [(1,), (2,)]


def test_missed_slots_that_the_new_schedule_lacks_are_skipped_and_the_others_caught_up(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/20 * * * *")))
    world.at("13:10").deploy(trigger(automation=HOURLY))
    assert world.ledger() == ["schedule_changed 12:20–12:40 ×2", "13:00"]


@pytest.mark.parametrize(("policy", "ledger"), [("latest", ["coalesced 13:00–14:00 ×2", "15:00"]), ("none", None)])
def test_the_policy_of_the_trigger_decides_what_an_edit_keeps(world: World, policy: Any, ledger: Any) -> None:
    said = {"automation": HOURLY, "catchup": CatchUp(policy)}
    world.deploy(trigger(**said))
    world.at("15:10").deploy(trigger(**said, jitter=timedelta(seconds=5)))
    assert world.ledger() == (ledger or ["catchup_policy 13:00–15:00 ×3"])


SILENCED: dict[str, tuple[Callable[[World], object], str]] = {
    "deactivated": (lambda world: world.client.deactivate(key()), "paused"),
    "snoozed": (lambda world: world.client.snooze(key(), instant("15:00")), "paused"),
    "deleted": (lambda world: world.client.delete_trigger(key()), "deleted"),
    "pruned": (lambda world: world.deploy(), "deleted"),
    "deployed inactive": (
        lambda world: world.deploy(trigger(automation=HOURLY, jitter=HALF_AN_HOUR, active=False)),
        "paused",
    ),
    "deactivated by SQL": (lambda world: _write_and_sync(world, "active = (1 = 0)"), "paused"),
    "deleted by SQL": (lambda world: _write_and_sync(world, "deleted_at = 1"), "deleted"),
    "snoozed by SQL": (lambda world: _write_and_sync(world, f"snoozed_until = {instant('15:00')}"), "paused"),
}


@pytest.mark.parametrize("how", SILENCED)
def test_a_slot_in_its_jitter_has_an_entry_when_its_trigger_falls_silent(world: World, how: str) -> None:
    world.deploy(trigger(automation=HOURLY, jitter=HALF_AN_HOUR))
    silence, reason = SILENCED[how]
    silence(world.at("13:00:05"))
    slot = instant("13:00")
    assert world.rows("SELECT from_slot, to_slot, count, reason FROM skips") == [(slot, slot, 1, reason)]
    assert world.step("13:40") == []


def test_a_deadline_counts_from_the_instant_until_which_jitter_holds_a_run_back(world: World) -> None:
    said: dict[str, Any] = {"automation": HOURLY, "jitter": HALF_AN_HOUR}
    world.deploy(trigger(**said), spec=TaskSpec("logging", deadline=timedelta(seconds=10)))
    due = _due(world)
    world.at("13:00:05").sql('UPDATE triggers SET automation = \'{"cron": "17 3 * * *"}\'')
    world.sync()
    assert world.rows("SELECT not_before, deadline_at FROM runs") == [(due, due + 10_000_000)]


def test_a_restart_after_an_edit_in_the_jitter_fires_the_slot_once(world: World) -> None:
    world.deploy(trigger(automation=HOURLY, jitter=HALF_AN_HOUR))
    for minute in ("1", "2", "3"):
        world.at(f"13:00:0{minute}").deploy(trigger(automation=HOURLY, jitter=timedelta(minutes=30 + int(minute))))
    world.step("13:59")
    assert world.ledger() == ["13:00"]


def _due(world: World) -> Micros:
    found: Micros = only(world.rows("SELECT due_at FROM trigger_due"))[0]
    return found


def _write_and_sync(world: World, assignment: str) -> None:
    world.sql(f"UPDATE triggers SET {assignment}")
    world.sync()


def _literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
