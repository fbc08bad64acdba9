"""Backfills on both databases: which slots get a run, how many at a time, and what stands in the ledger then."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.client import Client
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.errors import Conflict, NotFound, SpecError
from scheduler.services.backfill_steps import BackfillStep, advance_backfill, backfills_under_way
from scheduler.services.finish import Ended
from scheduler.services.take import Execution
from tests.integration.worlds import World, instant, key, spoken, trigger

HOURLY = Cron("0 * * * *")


def order(world: World, start: str, end: str | None = None, name: str = "nightly", **options: Any) -> int:
    """Orders a backfill and returns its number."""
    document = world.client.backfill(key(name), instant(start), None if end is None else instant(end), **options)
    number: int = document["backfill"]
    return number


def advance(world: World) -> list[BackfillStep]:
    """What a worker does when it looks after backfills: step after step until none has more to do."""
    steps = []
    for number in world.store.run(backfills_under_way):
        while (step := world.store.run(advance_backfill, number, {})) is not None:
            steps.append(step)
            if not step.more:
                break
    return steps


def queued(world: World) -> list[str]:
    """The slots that wait for a worker, in the order in which they start."""
    rows = world.rows("SELECT scheduled_at FROM runs WHERE phase = 'QUEUED' ORDER BY priority, not_before")
    return [spoken(slot) for (slot,) in rows]


def perform(world: World, phase: Phase = Phase.SUCCEEDED) -> list[Execution]:
    """Takes all that is queued and ends it."""
    executions = world.take()
    world.finish(*(Ended(execution, phase, retryable=False) for execution in executions))
    return executions


def drain(world: World, phase: Phase = Phase.SUCCEEDED) -> list[str]:
    """Moves backfills on until nothing comes of it any more; the slots in the order in which they were executed."""
    slots: list[str] = []
    advance(world)
    while executions := perform(world, phase):
        slots += [spoken(execution.run.scheduled_at or 0) for execution in executions]
        advance(world)
    return slots


@pytest.fixture
def noon(world: World) -> World:
    """An hourly trigger, deployed at noon and never late, and a worker."""
    world.deploy(trigger("nightly", HOURLY))
    world.register()
    return world


def test_slots_before_the_trigger_was_activated_are_filled_oldest_first(noon: World) -> None:
    number = order(noon, "06:00", "09:00")
    assert drain(noon) == ["06:00", "07:00", "08:00", "09:00"]
    document = noon.client.show_backfill(number)
    assert (document["state"], document["slots"], document["queued"]) == ("done", 4, 4)
    assert (document["succeeded"], document["failed"], document["left_alone"], document["open"]) == (4, 0, 0, 0)
    assert noon.ledger() == ["06:00", "07:00", "08:00", "09:00"]


def test_a_slot_gets_the_name_it_would_have_had_anyway(noon: World) -> None:
    noon.step("13:00")
    order(noon, "12:00", "12:00")
    advance(noon)
    names = {row["scheduled_at"]: row["name"] for row in noon.runs()}
    stems = {name.rpartition("-")[0] for name in names.values()}
    assert stems == {"nightly-20261121t120000", "nightly-20261121t130000"}
    assert noon.run(names[instant("12:00")])["kind"] == "backfill"


def test_bounds_are_included_and_need_not_be_slots(noon: World) -> None:
    for start, end, slots in (("08:00", "09:00", 2), ("08:00:01", "09:59:59", 1), ("08:01", "08:59", 0)):
        assert noon.client.preview_backfill(key(), instant(start), instant(end))["slots"] == slots


def test_with_reverse_the_newest_comes_first(noon: World) -> None:
    order(noon, "06:00", "09:00", reverse=True)
    assert drain(noon) == ["09:00", "08:00", "07:00", "06:00"]


def test_no_more_than_max_active_are_open(noon: World) -> None:
    number = order(noon, "00:00", "11:00", max_active=3)
    advance(noon)
    assert queued(noon) == ["00:00", "01:00", "02:00"]
    advance(noon)
    assert len(queued(noon)) == 3
    first, *_ = noon.take(late=1)
    noon.succeed(first)
    advance(noon)
    assert queued(noon) == ["01:00", "02:00", "03:00"]
    assert noon.client.show_backfill(number)["open"] == 3
    assert len(drain(noon)) == 11


def test_slots_that_come_are_the_triggers_own(noon: World) -> None:
    """A slot that is due and undecided is not backfilled, and neither is one that lies ahead."""
    noon.at("14:30")
    number = order(noon, "10:00", "20:00")
    assert noon.client.show_backfill(number)["to"] == instant("12:59:59")
    assert drain(noon) == ["10:00", "11:00", "12:00"]
    noon.step()
    assert noon.ledger() == ["10:00", "11:00", "12:00", "13:00", "14:00"]
    # Without an end it reaches as far as there are decided slots.
    assert noon.client.preview_backfill(key(), instant("10:00"))["to"] == instant("14:30")


def test_of_a_paused_trigger_every_past_slot_may_be_filled(noon: World) -> None:
    noon.at("13:30").client.deactivate(key())
    noon.at("15:30")
    order(noon, "12:00", "18:00")
    assert drain(noon) == ["12:00", "13:00", "14:00", "15:00"]
    # The slot that was skipped for the pause has a run now, and so no entry as skipped.
    assert noon.ledger() == ["12:00", "13:00", "14:00", "15:00"]


def test_what_catch_up_cut_off_is_filled_and_leaves_the_skipped_range(world: World) -> None:
    world.deploy(trigger("nightly", HOURLY, catchup=CatchUp(max_runs=2)))
    world.register()
    world.step("20:30")
    assert world.ledger() == ["catchup_cap 13:00–18:00 ×6", "19:00", "20:00"]
    order(world, "14:00", "16:00", max_active=2)
    advance(world)
    assert world.ledger() == [
        "catchup_cap 13:00–13:00 ×1",
        "14:00",
        "15:00",
        "catchup_cap 16:00–18:00 ×3",
        "19:00",
        "20:00",
    ]
    drain(world)
    assert world.ledger()[:5] == ["catchup_cap 13:00–13:00 ×1", "14:00", "15:00", "16:00", "catchup_cap 17:00–18:00 ×2"]
    order(world, "00:00", "23:00", max_active=100, reverse=True)
    advance(world)
    assert queued(world)[:4] == ["18:00", "17:00", "13:00", "12:00"]
    drain(world)
    assert world.ledger() == [f"{hour:02}:00" for hour in range(21)]


def test_a_range_of_another_schedule_stays_as_it_is(world: World) -> None:
    """Which slots it stands for is not known any more, so a run cannot be taken out of it."""
    world.deploy(trigger("nightly", HOURLY, catchup=CatchUp(policy="none")))
    world.register()
    world.step("20:30")
    world.deploy(trigger("nightly", Cron("*/30 * * * *"), catchup=CatchUp(policy="none")), version="v2")
    assert world.ledger() == ["catchup_policy 13:00–20:00 ×8"]
    order(world, "19:30", "20:00", max_active=5)
    assert drain(world) == ["19:30", "20:00"]
    assert world.ledger() == ["catchup_policy 13:00–20:00 ×8", "19:30", "20:00"]


def test_a_skipping_goes_on_where_a_backfill_took_the_end_of_its_range(world: World) -> None:
    world.deploy(trigger("nightly", HOURLY, catchup=CatchUp(policy="none")))
    world.register()
    world.step("15:30")
    assert world.ledger() == ["catchup_policy 13:00–15:00 ×3"]
    order(world, "15:00", "15:00")
    drain(world)
    world.step("18:30")
    assert world.ledger() == ["catchup_policy 13:00–14:00 ×2", "15:00", "catchup_policy 16:00–18:00 ×3"]


def test_slots_that_have_a_run_are_left_alone(noon: World) -> None:
    noon.step("13:00:30")
    perform(noon)
    assert drain_of(noon, "11:00", "13:00") == ["11:00", "12:00"]
    assert drain_of(noon, "10:00", "13:00") == ["10:00"]
    (newest, *_) = noon.client.list_backfills()
    assert (newest["slots"], newest["queued"], newest["left_alone"]) == (4, 1, 3)


def drain_of(world: World, start: str, end: str | None = None, **options: Any) -> list[str]:
    order(world, start, end, **options)
    return drain(world)


def test_what_failed_is_done_again_under_a_name_of_its_own(noon: World) -> None:
    order(noon, "08:00", "10:00", max_active=5)
    advance(noon)
    eight, nine, ten = noon.take()
    noon.fail(eight)
    noon.succeed(nine)
    noon.finish(Ended(ten, Phase.TIMED_OUT))
    advance(noon)
    number = order(noon, "08:00", "11:00", reprocess="failed", max_active=5)
    assert noon.client.preview_backfill(key(), instant("08:00"), instant("11:00"), reprocess="failed")["to_fill"] == 3
    assert drain(noon) == ["08:00", "10:00", "11:00"]
    again = [run for run in noon.runs() if noon.run(run["name"])["kind"] == "reprocess"]
    assert sorted(run["name"].rpartition("-")[0] for run in again) == [
        f"nightly-b{number}-20261121t080000",
        f"nightly-b{number}-20261121t100000",
    ]
    assert all(len(run["name"]) <= 59 for run in again)
    # The ledger shows how each slot ended at last, and what ended well is not done again.
    assert noon.ledger() == ["08:00", "09:00", "10:00", "11:00"]
    assert {entry["phase"] for entry in noon.client.list_slots(key())} == {"SUCCEEDED"}
    assert drain_of(noon, "08:00", "11:00", reprocess="failed") == []


def test_all_may_be_done_again_and_again(noon: World) -> None:
    assert drain_of(noon, "08:00", "09:00") == ["08:00", "09:00"]
    assert drain_of(noon, "08:00", "09:00", reprocess="all") == ["08:00", "09:00"]
    assert drain_of(noon, "07:00", "09:00", reprocess="all", reverse=True) == ["09:00", "08:00", "07:00"]
    assert len(noon.runs()) == 7
    assert noon.ledger() == ["07:00", "08:00", "09:00"]


def test_a_run_that_is_open_is_not_done_again(noon: World) -> None:
    noon.step("13:00:30")
    assert drain_of_only(noon, "13:00", reprocess="all") == []
    perform(noon)
    assert drain_of(noon, "13:00", reprocess="all") == ["13:00"]


def drain_of_only(world: World, start: str, **options: Any) -> list[str]:
    """What the backfill alone queues."""
    before = set(queued(world))
    order(world, start, **options)
    advance(world)
    return [slot for slot in queued(world) if slot not in before]


def test_its_runs_are_given_the_slot_and_pin_what_the_trigger_said(noon: World) -> None:
    spec = TaskSpec("logging", inputs={"region": "eu"})
    noon.deploy(trigger("nightly", HOURLY, kickoff_time_input_arg="when", inputs={"n": 1}), version="v2", spec=spec)
    order(noon, "08:00", "09:00")
    noon.deploy(trigger("nightly", Cron("*/5 * * * *"), inputs={"n": 2}), version="v3", spec=spec)
    executions: list[Execution] = []
    advance(noon)
    while taken := perform(noon):
        executions += taken
        advance(noon)
    assert [execution.run.version for execution in executions] == ["v2", "v2"]
    assert [execution.inputs for execution in executions] == [
        {"region": "eu", "n": 1, "when": f"2026-11-21T{hour}:00:00Z"} for hour in ("08", "09")
    ]
    assert executions[0].key == executions[0].run.name


def test_a_deleted_trigger_ends_its_backfills(noon: World) -> None:
    number = order(noon, "00:00", "11:00", max_active=2)
    advance(noon)
    (running,) = noon.take(late=1)
    noon.deploy()
    advance(noon)
    assert noon.client.show_backfill(number)["state"] == "cancelling"
    noon.succeed(running)
    advance(noon)
    document = noon.client.show_backfill(number)
    assert (document["state"], document["note"]) == ("cancelled", "its trigger was deleted")
    assert (document["succeeded"], document["aborted"]) == (1, 1)


def test_a_pause_does_not_hold_a_backfill_up(noon: World) -> None:
    order(noon, "08:00", "10:00", max_active=3)
    advance(noon)
    noon.client.deactivate(key())
    assert len(drain(noon)) == 3


def test_cancelled_it_aborts_what_is_queued_and_lets_what_runs_finish(noon: World) -> None:
    number = order(noon, "00:00", "11:00", max_active=3)
    advance(noon)
    (running,) = noon.take(late=1)
    assert noon.client.cancel_backfill(number)["state"] == "cancelling"
    assert queued(noon) == []
    assert noon.client.cancel_backfill(number)["aborted"] == 2
    noon.succeed(running)
    assert [step.state for step in advance(noon)] == ["cancelled"]
    assert advance(noon) == []
    document = noon.client.show_backfill(number)
    assert (document["succeeded"], document["aborted"], document["open"]) == (1, 2, 0)
    assert document["note"] == "cancelled by tester"
    assert document["finished_at"] is not None
    with pytest.raises(Conflict, match=f"backfill {number} is cancelled already"):
        noon.client.cancel_backfill(number)
    # What it did not come to is filled by the next one; what it had queued had a run, an aborted one.
    assert len(drain_of(noon, "00:00", "11:00")) == 9
    assert drain_of(noon, "00:00", "11:00", reprocess="failed") == ["1:00".zfill(5), "02:00"]


def test_a_retry_of_a_cancelled_backfill_does_not_start(noon: World) -> None:
    from scheduler.domain.retry import RetryPolicy

    spec = TaskSpec("logging", retries=RetryPolicy(max_attempts=3))
    noon.deploy(trigger("nightly", HOURLY), version="v2", spec=spec)
    number = order(noon, "08:00", "11:00")
    advance(noon)
    (running,) = noon.take()
    noon.client.cancel_backfill(number)
    noon.fail(running)
    assert queued(noon) == ["08:00"]
    advance(noon)
    assert queued(noon) == []
    assert noon.client.show_backfill(number)["state"] == "cancelled"


def test_two_backfills_of_the_same_slots_fill_each_once(noon: World) -> None:
    first = order(noon, "00:00", "11:00", max_active=4)
    second = order(noon, "06:00", "11:30", max_active=3, reverse=True)
    slots = drain(noon)
    assert sorted(slots) == [f"{hour:02}:00" for hour in range(12)]
    documents = [noon.client.show_backfill(number) for number in (first, second)]
    assert {document["state"] for document in documents} == {"done"}
    assert sum(document["queued"] for document in documents) == 12
    assert [document["considered"] for document in documents] == [12, 6]


def test_a_calendar_keeps_slots_from_being_filled(world: World) -> None:
    from datetime import date

    closed = Calendar("closed", frozenset({date(2026, 11, 20)}))
    world.deploy(trigger("nightly", Cron("0 */12 * * *"), calendars=(closed,)))
    world.register()
    assert drain_of(world, "19 00:00", "21 12:00") == ["19 00:00", "19 12:00", "00:00", "12:00"]


def test_a_day_of_twenty_five_hours_has_twenty_five(world: World) -> None:
    world.deploy(trigger("nightly", Cron("0 * * * *", timezone="Europe/Berlin")))
    world.register()
    october = 1_000_000 * 1_792_879_200  # 2026-10-25T00:00:00+02:00, the day on which clocks are set back
    preview = world.client.preview_backfill(key(), october, october + 25 * 3_600_000_000 - 1)
    assert (preview["slots"], preview["to_fill"]) == (25, 25)
    daily = Cron("30 2 * * *", timezone="Europe/Berlin")
    world.deploy(trigger("nightly", daily), version="v2")
    preview = world.client.preview_backfill(key(), october, october + 25 * 3_600_000_000)
    assert preview["slots"] == 1


def test_a_fixed_rate_counts_from_its_activation_and_from_its_start_time(world: World) -> None:
    from scheduler.domain.instants import to_datetime

    world.deploy(
        trigger("anchored", FixedRate(10, "minute")),
        trigger("set", FixedRate(1, "hour", to_datetime(instant("08:30")))),
    )
    world.step("12:25")
    world.register()
    assert world.client.preview_backfill(key("anchored"), instant("00:00"))["slots"] == 2
    order(world, "00:00", None, "set")
    perform(world)
    assert drain(world) == ["08:30", "09:30", "10:30", "11:30"]


def test_what_cannot_be_backfilled_is_refused(world: World) -> None:
    world.deploy(
        trigger("by-hand", None), trigger("nightly", HOURLY), trigger("resting", FixedRate(1, "hour"), active=False)
    )
    for name, expected, words in (
        ("by-hand", SpecError, "has no schedule"),
        ("other", NotFound, "other"),
        ("resting", Conflict, "was never active"),
    ):
        with pytest.raises(expected, match=words):
            world.client.backfill(key(name), instant("08:00"))
    for options, words in (
        ({"end": instant("07:00")}, "lies before"),
        ({"reprocess": "some"}, "none of none, failed, all"),
        ({"max_active": 0}, "not within 1 to 10,000"),
    ):
        with pytest.raises(SpecError, match=words):
            world.client.backfill(key(), instant("08:00"), **options)  # type: ignore[arg-type]
    world.sql("UPDATE triggers SET automation = '{\"cron\": \"5 * * * *\"}' WHERE name = 'nightly'")
    with pytest.raises(Conflict, match="not been planned yet"):
        world.client.backfill(key(), instant("08:00"))
    assert world.client.list_backfills() == []


def test_a_period_without_a_slot_is_done_at_once(noon: World) -> None:
    document = noon.client.backfill(key(), instant("15:00"), instant("18:00"))
    assert (document["state"], document["slots"]) == ("done", 0)
    assert advance(noon) == []


def test_what_is_foreseen_is_what_happens(noon: World) -> None:
    noon.step("13:00:30")
    perform(noon)
    order(noon, "08:00", "09:00", max_active=2)
    drain(noon, Phase.FAILED)
    for reprocess, expected in (("none", 6), ("failed", 8), ("all", 9)):
        options: dict[str, Any] = {"reprocess": reprocess}
        preview = noon.client.preview_backfill(key(), instant("05:00"), instant("13:30"), **options)
        assert (preview["slots"], preview["to_fill"], preview["left_alone"]) == (9, expected, 9 - expected)
        assert (spoken(preview["first"]), spoken(preview["last"])) == ("05:00", "13:00")
    assert [spoken(item["scheduled_at"]) for item in preview["next"]] == ["05:00", "06:00", "07:00", "08:00", "09:00"]
    assert [item["run"] is None for item in preview["next"]] == [False, False, False, True, True]
    names = {item["run"] for item in preview["next"]} - {None}
    assert len(drain_of(noon, "05:00", "13:30", reprocess="all")) == 9
    assert names <= {run["name"] for run in noon.runs()}


def test_limits_of_the_task_hold_for_its_runs(noon: World) -> None:
    noon.deploy(trigger("nightly", HOURLY), version="v2", spec=TaskSpec("logging", max_concurrent_runs=1))
    order(noon, "08:00", "11:00", max_active=4)
    advance(noon)
    assert noon.rows("SELECT count(*) FROM runs WHERE gated") == [(4,)]


def test_late_runs_of_others_go_first(world: World) -> None:
    world.deploy(trigger("nightly", HOURLY, catchup=CatchUp(max_runs=4)))
    world.register()
    order(world, "09:00", "11:00", max_active=3)
    advance(world)
    world.step("17:30")
    assert queued(world) == ["14:00", "15:00", "16:00", "17:00", "09:00", "10:00", "11:00"]


def test_a_million_slots_are_a_count_and_a_cursor(world: World) -> None:
    """Nothing of the period is built: ordering it and the first steps take no longer than for a day."""
    world.deploy(trigger("nightly", FixedRate(1, "minute", start_time=_moment("2024-01-01T00:00:00Z"))))
    world.register()
    start = instant("12:00") - 1_000_000 * 60_000_000
    document = world.client.backfill(key(), start, instant("11:59"), max_active=50)
    assert document["slots"] == 1_000_000
    preview = world.client.preview_backfill(key(), start, instant("11:59"))
    assert (preview["to_fill"], preview["first"]) == (1_000_000, start)
    steps = advance(world)
    assert [step.queued for step in steps] == [50]
    assert world.client.show_backfill(document["backfill"])["considered"] == 50


def _moment(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def test_filled_slots_are_passed_over_in_long_strides(world: World) -> None:
    world.deploy(trigger("nightly"))
    world.register()
    order(world, "20 00:00", "20 23:59", max_active=10_000)
    advance(world)
    assert len(perform(world)) == 1_000  # a step looks at a thousand slots at most …
    advance(world)
    assert len(perform(world)) == 440  # … and the next goes on.
    advance(world)
    number = order(world, "20 00:00", "11:00")
    steps = [step for step in advance(world) if step.number == number]
    assert [step.queued for step in steps] == [0, 1]
    assert queued(world) == ["00:00"]


def test_numbers_are_never_used_twice(noon: World) -> None:
    first = order(noon, "08:00", "09:00")
    noon.sql("DELETE FROM backfills")
    assert order(noon, "08:00", "09:00") > first


def test_listings_are_narrowed_by_what_they_name(noon: World) -> None:
    noon.deploy(trigger("other", HOURLY), task="billing")
    mine = order(noon, "08:00", "09:00")
    other: Client = noon.client
    theirs = other.backfill(key("other", "billing"), instant("08:00"))["backfill"]
    assert [row["backfill"] for row in other.list_backfills()] == [theirs, mine]
    assert [row["backfill"] for row in other.list_backfills(task="report")] == [mine]
    assert [row["backfill"] for row in other.list_backfills(trigger="other")] == [theirs]
    assert len(other.list_backfills(limit=1)) == 1
    with pytest.raises(NotFound, match="backfill '999'"):
        other.show_backfill(999)
