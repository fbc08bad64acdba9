"""Late slots at the database: what runs, what is skipped, and what the ledger says of every slot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.trigger import CatchUp
from scheduler.errors import Conflict
from tests.integration.worlds import World, instant, key, only, spoken, trigger

# The 500th every-minute slot after noon. What ends there has no slot within the grace a minute and a half later.
LAST = to_datetime(instant("20:20") + SECOND)


def test_five_hundred_late_slots_give_ten_runs_oldest_first_and_one_range_of_490(world: World) -> None:
    world.deploy(trigger(end=LAST))
    assert world.step("20:21:30") == [f"20:{minute}" for minute in range(11, 21)]
    assert world.ledger()[0] == "catchup_cap 12:01–20:10 ×490"
    assert len(world.ledger()) == 11
    assert world.trigger()["state"] == "finished"


def test_the_ten_are_late_and_take_turns(world: World) -> None:
    world.deploy(trigger(end=LAST))
    fired = world.at("20:21:30").fire()
    assert [run.priority for run in sorted(fired.runs, key=lambda run: run.scheduled_at)] == list(range(1, 11))
    assert fired.skipped == {"catchup_cap": 490}


@pytest.mark.parametrize(
    ("catchup", "ledger"),
    [
        (CatchUp("latest"), ["coalesced 12:01–20:19 ×499", "20:20"]),
        (CatchUp("none"), ["catchup_policy 12:01–20:20 ×500"]),
        (CatchUp("gap"), ["covered_by_gap 12:01–20:19 ×499", "20:20"]),
        (
            CatchUp("all", timedelta(hours=1), 2),
            ["catchup_window 12:01–19:21 ×441", "catchup_cap 19:22–20:18 ×57", "20:19", "20:20"],
        ),
        (CatchUp("all", timedelta(days=7), 0), ["catchup_cap 12:01–20:20 ×500"]),
    ],
    ids=["latest", "none", "gap", "window", "cap of none"],
)
def test_each_policy_accounts_for_every_late_slot(world: World, catchup: CatchUp, ledger: list[str]) -> None:
    world.deploy(trigger(catchup=catchup, end=LAST))
    world.step("20:21:30")
    assert world.ledger() == ledger


def test_a_gap_run_is_told_the_interval_it_covers(world: World) -> None:
    world.deploy(trigger(catchup=CatchUp("gap"), end=LAST))
    world.step("20:21:30")
    run = world.run(only(world.runs())["name"])
    assert [spoken(moment) for moment in run["covers"]] == ["12:01", "20:20"]


HOURLY = Cron("0 * * * *")


@pytest.mark.parametrize(
    ("catchup", "reason"),
    [
        (CatchUp("gap"), "covered_by_gap"),
        (CatchUp("latest"), "coalesced"),
        (CatchUp("all", max_runs=1), "catchup_cap"),
    ],
)
def test_a_policy_picks_another_slot_where_its_pick_is_to_be_skipped(
    world: World, catchup: CatchUp, reason: str
) -> None:
    world.deploy(trigger(automation=HOURLY, catchup=catchup))
    assert spoken(world.at("14:50").client.skip_next(key()) or 0) == "15:00"
    assert world.step("15:05") == ["14:00"]
    assert world.ledger() == [f"{reason} 13:00–13:00 ×1", "14:00", "skip_next 15:00–15:00 ×1"]


def test_a_gap_goes_round_the_slot_to_be_skipped(world: World) -> None:
    world.deploy(trigger(automation=HOURLY, catchup=CatchUp("gap")))
    world.at("13:30").client.skip_next(key())
    world.step("16:05")
    assert world.ledger() == [
        "covered_by_gap 13:00–13:00 ×1",
        "skip_next 14:00–14:00 ×1",
        "covered_by_gap 15:00–15:00 ×1",
        "16:00",
    ]
    covers = world.run(only(world.runs())["name"])["covers"]
    assert [spoken(moment) for moment in covers] == ["13:00", "16:00"]


@pytest.mark.parametrize("policy", ["all", "latest", "none", "gap"])
def test_what_an_open_run_refuses_is_left_to_no_policy(world: World, policy: Any) -> None:
    world.deploy(trigger(automation=HOURLY, overlap="skip", catchup=CatchUp(policy, max_runs=1)))
    world.register()
    world.step("13:00")
    assert world.take(), "its worker dies while it executes this run"
    assert world.step("17:05") == []
    assert world.ledger() == ["13:00", "overlap 14:00–17:00 ×4"]


def test_slots_within_the_grace_fire_under_every_policy(world: World) -> None:
    world.deploy(trigger("a", catchup=CatchUp("none")), trigger("b", catchup=CatchUp("latest")))
    world.step("12:03:30")
    assert world.ledger("a") == ["catchup_policy 12:01–12:02 ×2", "12:03"]
    assert world.ledger("b") == ["coalesced 12:01–12:02 ×2", "12:03"]


def test_a_skip_that_adjoins_the_last_range_of_the_same_reason_extends_it(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/5 * * * *"), catchup=CatchUp("none")))
    world.step("12:07")
    world.step("12:22")
    world.step("12:33")
    assert world.ledger() == ["catchup_policy 12:05–12:30 ×6"]
    assert world.rows("SELECT count FROM skips") == [(6,)]


def test_a_range_is_not_extended_over_a_run(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/5 * * * *"), catchup=CatchUp("none")))
    world.step("12:07")
    world.step("12:10")
    world.step("12:22")
    assert world.ledger() == ["catchup_policy 12:05–12:05 ×1", "12:10", "catchup_policy 12:15–12:20 ×2"]


def test_a_skip_of_another_reason_begins_a_range_of_its_own(world: World) -> None:
    world.deploy(trigger(automation=Cron("*/5 * * * *"), catchup=CatchUp("none")))
    world.step("12:07")
    world.sql("UPDATE triggers SET catchup_policy = 'all', catchup_max_runs = 0")
    world.step("12:22")
    assert world.ledger() == ["catchup_policy 12:05–12:05 ×1", "catchup_cap 12:10–12:20 ×3"]


def test_all_due_slots_of_a_trigger_are_decided_in_one_transaction(world: World) -> None:
    world.deploy(trigger("a"), trigger("b", automation=FixedRate(1, "second")))
    fired = world.at("12:30").fire(limit=1)
    assert fired.claimed == 1
    assert len({run.trigger_id for run in fired.runs}) == 1
    assert world.fire(limit=5).claimed == 1
    assert world.fire().claimed == 0


def test_the_cap_counts_once_per_outage(world: World) -> None:
    world.deploy(trigger(catchup=CatchUp(max_runs=2)))
    world.step("12:10:00")
    world.step("12:20:00")
    assert world.ledger() == [
        *("catchup_cap 12:01–12:06 ×6", "12:07", "12:08", "12:09", "12:10"),
        *("catchup_cap 12:11–12:16 ×6", "12:17", "12:18", "12:19", "12:20"),
    ]


def test_a_slot_fires_on_time_and_never_again(world: World) -> None:
    world.deploy(trigger())
    assert world.step("12:00:59") == []
    assert world.step("12:01") == ["12:01"]
    assert world.step("12:01") == []
    assert world.step("12:01:59") == []
    assert world.step("12:02") == ["12:02"]


def test_a_jittered_slot_is_named_by_its_slot_and_fires_when_due(world: World) -> None:
    world.deploy(trigger(automation=Cron("0 * * * *"), jitter=timedelta(minutes=30)))
    due_at = only(world.rows("SELECT due_at FROM trigger_due"))[0]
    assert instant("13:00") < due_at <= instant("13:30")
    world.clock.set(due_at - 1)
    assert world.step() == []
    world.clock.set(due_at)
    assert world.step() == ["13:00"]
    assert world.rows("SELECT not_before FROM runs") == [(due_at,)]


def test_a_name_that_exists_for_another_slot_is_an_error_and_undoes_the_whole_batch(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql(f"UPDATE runs SET scheduled_at = {instant('11:00')}")
    world.sql(f"UPDATE trigger_due SET last_slot = NULL, next_slot = {instant('12:01')}, due_at = {instant('12:01')}")
    with pytest.raises(Conflict, match="exists for another slot"):
        world.fire()
    assert world.rows("SELECT last_slot FROM trigger_due") == [(None,)]


def test_a_slot_that_has_its_run_already_stays_one_run(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    world.sql(f"UPDATE trigger_due SET last_slot = NULL, next_slot = {instant('12:01')}, due_at = {instant('12:01')}")
    world.step("12:02")
    assert world.ledger() == ["12:01", "12:02"]


def test_the_golden_run_name_is_what_a_fire_inserts(world: World) -> None:
    world.at("01:59").deploy(trigger(automation=Cron("0 2 * * *")), task="reports.nightly")
    world.step("02:00")
    assert only(world.runs())["name"] == "nightly-20261121t020000-g2daifx2bamnicz3zycwlpj66a"


def test_lateness_is_reported_from_the_due_instant(world: World) -> None:
    world.deploy(trigger())
    assert world.at("12:01:07").fire().lateness == (7 * SECOND,)
