"""A schedule that changes, by deploy, command or plain SQL, never fires the past and never forgets a due slot."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import to_datetime
from scheduler.domain.task import TaskSpec
from scheduler.errors import NotFound, RevisionConflict
from tests.integration.worlds import EVERY_MINUTE, World, instant, key, once, only, retrying, spoken, trigger

DAILY = Cron("0 2 * * *")
EVERY_MINUTE_TEXT = '{"cron": "* * * * *"}'
DAILY_TEXT = '{"cron": "0 2 * * *"}'


def edit(world: World, automation: str, name: str = "nightly") -> None:
    world.sql(f"UPDATE triggers SET automation = '{automation}' WHERE name = '{name}'")


# --- plain SQL ------------------------------------------------------------------------------------------------------


def test_a_trigger_inserted_by_plain_sql_is_planned_and_fires(world: World) -> None:
    world.deploy()
    world.at("12:00:30")
    world.sql(
        "INSERT INTO triggers (task_id, name, automation) "
        """SELECT id, 'x', '{"cron": "* * * * *"}' FROM tasks WHERE name = 'report'"""
    )
    assert world.trigger("x")["state"] == "unplanned"
    assert world.step() == []
    assert world.next_fire("x") == "12:01"
    assert world.step("12:01") == ["12:01"]
    run = only(world.runs())
    assert (run["version"], run["trigger"]) == ("v1", "x")
    assert only(world.client.list_tasks())["active_triggers"] == 1


def test_a_daily_trigger_edited_to_every_minute_owes_nothing_of_the_past(world: World) -> None:
    world.at("20 12:00").deploy(trigger(automation=DAILY))
    assert world.step("21 02:00") == ["02:00"]
    world.at("12:00:10")
    edit(world, EVERY_MINUTE_TEXT)
    assert world.step("12:00:20") == []
    assert world.step("12:02") == ["12:01", "12:02"]
    assert world.ledger() == ["02:00", "12:01", "12:02"]


def test_a_trigger_that_never_fired_and_is_edited_owes_nothing_of_the_past(world: World) -> None:
    world.deploy(trigger(automation=DAILY))
    world.at("18:00:10")
    edit(world, EVERY_MINUTE_TEXT)
    assert world.step("18:00:20") == []
    assert world.step("18:01") == ["18:01"]


def test_an_edit_found_only_by_the_fire_owes_nothing_of_the_past_either(world: World) -> None:
    world.at("20 12:00").deploy(trigger(automation=Cron("*/10 * * * *")))
    world.step("20 12:10")
    edit(world, EVERY_MINUTE_TEXT)
    world.at("20 12:20")
    assert world.fire_all() == ["20 12:20"]
    assert world.at("20 12:22").fire_all() == ["20 12:21", "20 12:22"]


def test_the_planned_slot_still_fires_within_the_grace_when_the_schedule_changes(world: World) -> None:
    world.deploy(trigger())
    world.at("12:01:30")
    edit(world, DAILY_TEXT)
    world.step()
    assert world.ledger() == ["12:01"]
    assert world.next_fire() == "22 02:00"


def test_due_slots_are_skipped_beyond_the_grace_when_the_schedule_changes(world: World) -> None:
    world.deploy(trigger())
    world.at("12:03:30")
    edit(world, DAILY_TEXT)
    assert world.step() == []
    assert world.ledger() == ["schedule_changed 12:01–12:02 ×2", "12:03"]


def test_a_deploy_that_changes_the_schedule_accounts_for_every_slot_it_still_owed(world: World) -> None:
    world.deploy(trigger())
    world.at("12:10:30").deploy(trigger(automation=DAILY))
    assert world.ledger() == ["schedule_changed 12:01–12:09 ×9", "12:10"]
    assert world.next_fire() == "22 02:00"


def test_a_deploy_after_an_unseen_edit_fires_nothing_of_the_schedule_nobody_planned(world: World) -> None:
    world.at("20 12:00").deploy(trigger(automation=DAILY))
    world.at("12:00:30")
    edit(world, EVERY_MINUTE_TEXT)
    world.deploy(trigger(automation=Cron("0 3 * * *")))
    assert world.ledger() == ["schedule_changed 02:00–02:00 ×1"]


def test_a_command_after_an_unseen_edit_skips_only_what_was_planned(world: World) -> None:
    world.at("20 12:00").deploy(trigger(automation=DAILY))
    world.at("12:00:30")
    edit(world, EVERY_MINUTE_TEXT)
    world.client.deactivate(key())
    assert world.ledger() == ["paused 02:00–02:00 ×1"]


def test_an_activation_that_meets_an_unseen_edit_still_runs_the_planned_slot(world: World) -> None:
    world.deploy(trigger())
    world.at("12:01:20")
    world.sql(f"UPDATE triggers SET active = {_false(world)}, automation = '{DAILY_TEXT}'")
    world.client.activate(key())
    assert world.ledger() == ["12:01"]


def test_a_trigger_with_a_broken_unseen_edit_can_be_deactivated(world: World) -> None:
    world.deploy(trigger())
    world.at("12:05:30")
    edit(world, "nonsense")
    assert world.client.deactivate(key()) is True
    assert world.ledger() == ["paused 12:01–12:05 ×5"]
    assert world.trigger()["state"] == "inactive"


def test_an_edit_of_inputs_or_catch_up_keeps_the_plan(world: World) -> None:
    world.deploy(trigger())
    world.at("12:05")
    world.sql("UPDATE triggers SET inputs = '{\"n\": 1}', catchup_max_runs = 1")
    assert world.step("12:06") == ["12:04", "12:05", "12:06"]
    assert world.ledger() == ["catchup_cap 12:01–12:03 ×3", "12:04", "12:05", "12:06"]


def test_a_version_written_by_plain_sql_is_pinned_whole(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}))
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 2}), version="v2")
    world.at("12:00:30")
    world.sql("UPDATE triggers SET version = 'v1'")
    world.at("12:01")
    world.fire_all()
    run = world.run(only(world.runs())["name"])
    assert (run["version"], run["inputs"]) == ("v1", {"n": 1})


def test_a_version_and_a_schedule_written_at_once_are_pinned_whole(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 1}))
    world.deploy(trigger(), spec=TaskSpec("logging", inputs={"n": 2}), version="v2")
    world.at("12:01:30")
    world.sql(f"UPDATE triggers SET version = 'v1', automation = '{DAILY_TEXT}'")
    world.step()
    run = world.run(only(world.runs())["name"])
    assert (run["version"], run["inputs"]) == ("v1", {"n": 1})


def test_a_trigger_deleted_by_plain_sql_is_gone_and_its_runs_stay(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql("DELETE FROM triggers")
    assert world.step("12:10") == []
    assert len(world.runs()) == 1


def test_a_changed_interval_sets_a_new_anchor_and_reactivation_keeps_it(world: World) -> None:
    world.at("12:00:30").deploy(trigger(automation=FixedRate(10, "minute")))
    assert world.next_fire() == "12:10:30"
    world.at("12:03").client.deactivate(key())
    world.at("12:25").client.activate(key())
    assert world.next_fire() == "12:30:30"
    world.at("12:26").deploy(trigger(automation=FixedRate(5, "minute")))
    assert world.next_fire() == "12:31"


def test_a_schedule_whose_instant_is_past_is_finished_and_fires_nothing(world: World) -> None:
    world.deploy(trigger(automation=once("11:00")))
    assert (world.trigger()["state"], world.step("13:00"), world.ledger()) == ("finished", [], [])


def test_a_trigger_with_a_single_instant_fires_once_and_is_finished(world: World) -> None:
    world.deploy(trigger(automation=once("12:30")))
    assert world.step("12:30") == ["12:30"]
    assert world.trigger()["state"] == "finished"


def test_max_fires_ends_a_trigger_and_a_changed_schedule_does_not_revive_it(world: World) -> None:
    world.deploy(trigger(max_fires=2))
    assert world.step("12:03") == ["12:01", "12:02"]
    assert world.trigger()["state"] == "finished"
    edit(world, '{"cron": "*/2 * * * *"}')
    world.step("12:04")
    assert world.trigger()["state"] == "finished"
    assert len(world.runs()) == 2


def test_a_raised_max_fires_goes_on_strictly_after_now(world: World) -> None:
    world.deploy(trigger(max_fires=1))
    world.step("12:01")
    world.sql("UPDATE triggers SET max_fires = 2")
    assert world.step("12:10") == []
    assert world.step("12:12") == ["12:11"]
    assert world.trigger()["state"] == "finished"


def test_a_changed_schedule_within_the_grace_never_exceeds_max_fires(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(10, "second"), max_fires=2))
    world.at("12:00:50").deploy(trigger(max_fires=2))
    assert world.ledger() == ["12:00:10", "12:00:20"]
    assert world.trigger()["state"] == "finished"


# --- activation -----------------------------------------------------------------------------------------------------


def test_a_deactivated_trigger_skips_what_was_due_as_one_paused_range(world: World) -> None:
    world.deploy(trigger())
    world.at("12:05:30").client.deactivate(key())
    assert world.ledger() == ["paused 12:01–12:05 ×5"]
    assert world.step("12:30") == []
    assert (world.trigger()["state"], world.next_fire()) == ("inactive", None)


def test_an_activated_trigger_fires_strictly_after_now(world: World) -> None:
    world.deploy(trigger(active=False))
    world.at("12:10").client.activate(key())
    assert world.step() == []
    assert world.step("12:11") == ["12:11"]


def test_what_lies_in_a_pause_is_never_owed(world: World) -> None:
    world.deploy(trigger())
    world.step("12:02")
    world.client.deactivate(key())
    world.at("12:10:30").client.activate(key())
    assert world.step("12:12") == ["12:11", "12:12"]
    assert world.ledger() == ["12:01", "12:02", "12:11", "12:12"]


def test_deactivation_aborts_runs_that_have_not_started_and_leaves_the_others(world: World) -> None:
    world.register()
    world.deploy(trigger())
    world.step("12:01")
    started = only(world.take())
    world.step("12:02")
    world.client.deactivate(key())
    assert world.phases() == {"12:01": "RUNNING", "12:02": "ABORTED"}
    world.succeed(started)
    assert world.phases() == {"12:01": "SUCCEEDED", "12:02": "ABORTED"}


def test_deactivation_leaves_retrying_lost_and_manual_runs(world: World) -> None:
    world.register()
    world.deploy(trigger(), spec=retrying())
    world.step("12:01")
    world.fail(only(world.take()))
    world.step("12:02")
    world.take()
    world.lose_worker("w1")
    manual = world.client.fire(key())
    world.client.deactivate(key())
    assert world.phases() == {"12:01": "QUEUED", "12:02": "QUEUED"}
    assert world.run(manual)["phase"] == "QUEUED"


def test_activation_by_plain_sql_counts_like_a_command(world: World) -> None:
    world.deploy(trigger())
    world.at("12:03:30")
    world.sql(f"UPDATE triggers SET active = {_false(world)}")
    world.step()
    assert world.ledger() == ["paused 12:01–12:03 ×3"]
    world.at("12:10:30")
    world.sql(f"UPDATE triggers SET active = {_true(world)}")
    assert world.step() == []
    assert world.step("12:11") == ["12:11"]


def test_activating_twice_changes_nothing(world: World) -> None:
    world.deploy(trigger())
    assert world.client.activate(key()) is False
    assert world.trigger()["revision"] == 1
    assert world.client.deactivate(key()) is True
    assert world.client.deactivate(key()) is False
    assert world.trigger()["revision"] == 2


def test_acting_on_a_trigger_that_somebody_changed_first_is_refused(world: World) -> None:
    world.deploy(trigger())
    with pytest.raises(RevisionConflict, match="is at revision 1, not 7"):
        world.client.deactivate(key(), expected_revision=7)
    with pytest.raises(NotFound):
        world.client.activate(key("nobody"))
    assert world.client.list_tasks(name="nobody") == []


def test_a_snoozed_trigger_wakes_strictly_after_its_end(world: World) -> None:
    world.deploy(trigger())
    world.sql(f"UPDATE triggers SET snoozed_until = {instant('12:10:30')}")
    assert world.step("12:01") == []
    assert world.trigger()["state"] == "snoozed"
    assert world.step("12:10:30") == []
    assert world.step("12:12") == ["12:11", "12:12"]


# --- quarantine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "automation",
    ["nonsense", "[]", "null", "{}", '{"cron": "61 * * * *"}', '{"every": 5}', '{"cron": {"timezone": "Mars"}}'],
)
def test_a_broken_automation_is_set_aside_with_its_error_and_released_when_mended(
    world: World, automation: str
) -> None:
    world.deploy(trigger(), trigger("other"))
    world.step("12:01")
    edit(world, automation)
    assert world.step("12:02") == ["12:02"]
    assert world.trigger()["state"] == "quarantined"
    assert world.trigger()["error"]
    edit(world, EVERY_MINUTE_TEXT)
    world.step("12:03")
    assert (world.trigger()["state"], world.trigger()["error"]) == ("scheduled", None)


def test_a_trigger_mended_to_the_schedule_it_had_owes_what_came_meanwhile(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    document = only(world.rows("SELECT automation FROM triggers"))[0]
    edit(world, "nonsense")
    world.step("12:02")
    edit(world, document)
    assert world.step("12:30") == [f"12:{minute}" for minute in range(19, 31)]
    assert world.ledger()[:2] == ["12:01", "catchup_cap 12:02–12:18 ×17"]


def test_a_trigger_mended_to_another_schedule_owes_the_slot_that_was_planned(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    edit(world, "nonsense")
    world.step("12:01:30")
    world.at("12:05:30")
    edit(world, DAILY_TEXT)
    assert world.step() == []
    assert world.ledger() == ["12:01", "schedule_changed 12:02–12:02 ×1"]


def test_a_quarantined_trigger_that_is_deactivated_leaves_its_planned_slot_in_the_ledger(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    edit(world, "nonsense")
    world.step("12:01:30")
    world.at("12:05:30").client.deactivate(key())
    assert world.ledger() == ["12:01", "paused 12:02–12:02 ×1"]
    assert (world.trigger()["state"], world.trigger()["error"]) == ("inactive", None)
    assert world.sync("two") == 0


def test_a_worker_with_another_fingerprint_releases_a_trigger_and_catch_up_decides(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql("UPDATE triggers SET error = 'UnknownTimezone: …', error_fingerprint = 'one'")
    world.sql("UPDATE trigger_due SET due_at = NULL")
    world.at("12:30")
    assert world.sync("one") == 0
    assert world.sync("two") == 1
    assert world.fire_all() == [f"12:{minute}" for minute in range(19, 31)]
    assert world.ledger()[:2] == ["12:01", "catchup_cap 12:02–12:18 ×17"]


def test_a_worker_with_another_fingerprint_that_fails_too_tries_only_once(world: World) -> None:
    world.deploy(trigger())
    edit(world, "nonsense")
    world.sync()
    assert world.sync("two") == 1
    assert world.sync("two") == 0
    assert world.trigger()["state"] == "quarantined"


def test_a_released_trigger_owes_nothing_from_before_its_schedule(world: World) -> None:
    world.deploy(trigger(automation=DAILY))
    world.at("15:00")
    edit(world, EVERY_MINUTE_TEXT)
    world.sync()
    world.sql("UPDATE triggers SET error = 'UnknownTimezone: …', error_fingerprint = 'one'")
    world.sql("UPDATE trigger_due SET due_at = NULL")
    world.at("15:02")
    world.sync("two")
    assert world.fire_all() == ["15:01", "15:02"]


def test_a_trigger_whose_task_has_no_version_is_set_aside_until_one_is_deployed(world: World) -> None:
    world.sql("INSERT INTO tasks (project, domain, name) VALUES ('flytesnacks', 'development', 'report')")
    world.sql(f"INSERT INTO triggers (task_id, name, automation) SELECT id, 'x', '{EVERY_MINUTE_TEXT}' FROM tasks")
    world.step()
    assert world.trigger("x")["state"] == "quarantined"
    assert "no deployed version" in world.trigger("x")["error"]
    world.deploy()
    assert world.step("12:01") == ["12:01"]


def test_zone_data_that_changes_is_a_change_of_schedule(world: World) -> None:
    world.deploy(trigger())
    world.sql("UPDATE trigger_due SET fingerprint = 'made with other zone data'")
    assert world.at("12:01:30").fire_all() == ["12:01"]
    assert world.next_fire() == "12:02"


def test_start_and_end_bound_a_schedule(world: World) -> None:
    bounds = {"start": to_datetime(instant("12:02")), "end": to_datetime(instant("12:04"))}
    world.deploy(trigger(**bounds))
    assert world.step("12:10:30") == ["12:02", "12:03", "12:04"]
    assert world.trigger()["state"] == "finished"
    assert spoken(only(world.rows("SELECT last_slot FROM trigger_due"))[0]) == "12:04"


def test_a_moved_end_is_a_change_of_schedule(world: World) -> None:
    world.deploy(trigger(automation=EVERY_MINUTE, end=to_datetime(instant("12:01"))))
    world.step("12:01")
    assert world.trigger()["state"] == "finished"
    world.at("12:05:30")
    world.sql(f"UPDATE triggers SET end_at = {instant('13:00')}")
    assert world.step() == []
    assert world.step("12:06") == ["12:06"]


def test_a_trigger_fired_by_hand_only_owes_no_slot(world: World) -> None:
    world.deploy(trigger(automation=None))
    assert (world.trigger()["state"], world.step("13:00")) == ("manual", [])


def test_an_unchanged_trigger_keeps_its_plan_while_its_task_changes(world: World) -> None:
    world.deploy(trigger(), spec=TaskSpec("logging"))
    world.at("12:03").deploy(trigger(), spec=TaskSpec("logging", timeout=timedelta(seconds=5)), version="v2")
    assert world.step() == ["12:01", "12:02", "12:03"]
    assert {run["version"] for run in world.runs()} == {"v2"}


def _true(world: World) -> str:
    return "true" if world.store.dialect.name == "postgresql" else "1"


def _false(world: World) -> str:
    return "false" if world.store.dialect.name == "postgresql" else "0"


def test_every_slot_that_a_schedule_owed_before_plain_sql_changed_it_is_accounted_for(world: World) -> None:
    world.deploy(trigger(automation=FixedRate(1, "minute"), jitter=timedelta(seconds=1)))
    world.at("12:10:30").sql(f"UPDATE triggers SET automation = '{DAILY_TEXT}', jitter = 0, calendars = '[ ]'")
    world.sync()
    assert world.ledger() == ["schedule_changed 12:01–12:09 ×9", "12:10"]


def test_a_blacked_out_slot_does_not_fire_because_its_schedule_was_replaced(world: World) -> None:
    quiet = Calendar('quiet "|" days', frozenset({date(2026, 11, 21)}))
    world.deploy(trigger(calendars=(quiet,)))
    world.at("12:01:10").sql(f"UPDATE triggers SET automation = '{DAILY_TEXT}', calendars = '[]'")
    assert world.step() == []
    assert world.ledger() == ["calendar 12:01–12:01 ×1"]


def test_a_schedule_that_nobody_knows_any_more_accounts_for_its_planned_slot(world: World) -> None:
    world.deploy(trigger())
    world.at("12:03:30").sql("UPDATE triggers SET automation = 'nonsense'")
    world.sync()
    world.sql(f"UPDATE triggers SET automation = '{DAILY_TEXT}'")
    world.sync()
    assert world.ledger() == ["schedule_changed 12:01–12:01 ×1"]
