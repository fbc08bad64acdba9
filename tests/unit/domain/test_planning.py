"""What a trigger owes at an instant, against a slot-by-slot reading of the rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.calendars import Calendar, with_calendars
from scheduler.domain.instants import SECOND, Micros, parse_rfc3339, to_datetime, to_micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.occurrences import bounded, compile_schedule
from scheduler.domain.overlap import MAX_BUFFERED
from scheduler.domain.planning import Fire, Plan, first_plan, plan_fires
from scheduler.domain.trigger import CatchUp

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOON = parse_rfc3339("2026-11-21T12:00:00Z")


def every_minute(**options: Any) -> Job:
    return job_of(Cron("* * * * *"), **options)


def job_of(automation: Cron | FixedRate | At, **options: Any) -> Job:
    schedule = compile_schedule(automation, anchor=0, identity="flytesnacks/development/report/nightly")
    return Job(identity="flytesnacks/development/report/nightly", schedule=schedule, activated_at=0, **options)


# --- the rules once more, one slot at a time ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    slot: Micros
    reason: Reason | None  # None: it got a run
    covers: tuple[Micros, Micros] | None = None


@dataclass(frozen=True)
class Asked:
    """What a plan is told besides its job and the instant."""

    fires: int = 0
    open_runs: int = 0
    skip_next: Micros | None = None
    decided: frozenset[Micros] = frozenset()

    def options(self) -> dict[str, Any]:
        return {
            "fires": self.fires,
            "open_runs": self.open_runs,
            "skip_next": self.skip_next,
            "decided": self.decided.__contains__ if self.decided else None,
        }


def slot_by_slot(job: Job, position: Micros, now: Micros, grace: Micros, asked: Asked) -> list[Entry]:
    """Every due slot with its fate, decided without any of the planner's arithmetic."""
    due = [slot for slot in job.every(position, now) if job.due_at(slot) <= now and slot not in asked.decided]
    window = max(to_micros(job.catchup.window), grace)
    fate: dict[Micros, Entry] = {}
    for slot in due:
        if job.calendars is not None and job.calendars.is_blackout(slot // SECOND):
            fate[slot] = Entry(slot, Reason.CALENDAR)
        elif slot == asked.skip_next:
            fate[slot] = Entry(slot, Reason.SKIP_NEXT)
        elif now - job.due_at(slot) > window:
            fate[slot] = Entry(slot, Reason.CATCHUP_WINDOW)
        elif job.overlap in ("skip", "buffer_one") and asked.open_runs > (job.overlap == "buffer_one"):
            fate[slot] = Entry(slot, Reason.OVERLAP)
        elif job.overlap == "buffer_all" and asked.open_runs >= MAX_BUFFERED:
            fate[slot] = Entry(slot, Reason.BUFFER_FULL)
    on_time = [slot for slot in due if slot not in fate and now - job.due_at(slot) <= grace]
    late = [slot for slot in due if slot not in fate and slot not in set(on_time)]
    for slot in on_time:
        fate[slot] = Entry(slot, None)
    for place, slot in enumerate(late):
        is_newest = place == len(late) - 1
        match job.catchup.policy:
            case "all":
                cut = place < len(late) - job.catchup.max_runs
                fate[slot] = Entry(slot, Reason.CATCHUP_CAP if cut else None)
            case "latest":
                fate[slot] = Entry(slot, None if is_newest and not on_time else Reason.COALESCED)
            case "none":
                fate[slot] = Entry(slot, Reason.CATCHUP_POLICY)
            case "gap":
                covered = Entry(slot, Reason.COVERED_BY_GAP)
                fate[slot] = Entry(slot, None, (late[0], slot)) if is_newest else covered
    kept = [slot for slot in due if fate[slot].reason is None]
    if job.overlap == "buffer_all":
        room = MAX_BUFFERED - asked.open_runs
        fate |= {slot: Entry(slot, Reason.BUFFER_FULL) for slot in kept[room:]}
    elif job.overlap != "allow_all" and kept:
        covers = next((fate[slot].covers for slot in kept if fate[slot].covers), None)
        fate |= {slot: Entry(slot, Reason.OVERLAP) for slot in kept[:-1]}
        fate[kept[-1]] = Entry(kept[-1], None, covers)
    entries = [fate[slot] for slot in due]
    left = None if job.max_fires is None else job.max_fires - asked.fires
    if left is None or sum(entry.reason is None for entry in entries) < left:
        return entries
    # The last fire ends the schedule: what comes after it was never owed.
    while entries and (entries[-1].reason or sum(entry.reason is None for entry in entries) > left):
        entries.pop()
    return entries


def entries_of(job: Job, plan: Plan) -> list[Entry]:
    """What a plan decides, one entry a slot; fails unless its ranges are exact."""
    kept = {fire.slot: Entry(fire.slot, None, fire.covers) for fire in plan.fires}
    entries = dict(kept)
    for item in plan.skips:
        slots = job.every if item.reason is Reason.CALENDAR else job.between
        inside = list(slots(item.from_slot - SECOND, item.to_slot))
        assert (inside[0], inside[-1], len(inside)) == (item.from_slot, item.to_slot, item.count)
        for slot in inside:
            assert slot not in entries, "a slot is decided twice"
            entries[slot] = Entry(slot, item.reason)
    return [entries[slot] for slot in sorted(entries)]


# --- schedules and instants to try ----------------------------------------------------------------------------------

RATES = st.builds(FixedRate, st.integers(1, 90), st.sampled_from(["second", "minute", "hour"]))
AUTOMATIONS = st.one_of(
    st.sampled_from(
        [
            *(Cron("* * * * *"), Cron("*/7 * * * *"), Cron("30 2 * * *", "Europe/Paris"), Cron("0 9 * * 1-5")),
            *(Cron("*/20 * * * * *"), Cron("5,6,50 */3 * * *", "America/New_York"), Cron("0 0 29 2 *")),
        ]
    ),
    RATES,
    RATES,
    st.just(Cron("* * * * *")),
    st.integers(-HOUR, HOUR).map(lambda shift: At(to_datetime(NOON + shift))),
)
GRACES = st.sampled_from([0, 1, SECOND - 1, SECOND, 60 * SECOND, 90 * SECOND + 7, HOUR])
CATCH_UPS = st.builds(
    CatchUp,
    st.sampled_from(["all", "latest", "none", "gap"]),
    st.sampled_from([0, 1, 59, 60, 61, 600, 86_400]).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 12),
)


@st.composite
def jobs(draw: st.DrawFn, *, quiet_days: bool = True) -> Job:
    job = job_of(
        draw(AUTOMATIONS),
        jitter=draw(st.sampled_from([0, 0, 1, 20 * SECOND, 600 * SECOND])),
        catchup=draw(CATCH_UPS),
        max_fires=draw(st.sampled_from([None, None, None, 1, 3, 20])),
        overlap=draw(st.sampled_from(["allow_all", "allow_all", "skip", "buffer_one", "buffer_all", "cancel_other"])),
    )
    assert job.schedule is not None
    kind = draw(st.integers(0, 6))
    if kind == 0 and quiet_days:
        quiet = draw(st.sets(st.integers(0, 9).map(lambda days: date(2026, 11, 21) - timedelta(days)), min_size=1))
        calendar = Calendar("quiet", frozenset(quiet), draw(st.sampled_from(["skip", "skip", "next", "previous"])))
        calendars = with_calendars(job.schedule, [calendar])
        return replace(job, schedule=calendars, calendars=calendars)
    if kind == 1:
        start = draw(st.integers(-7_200, 7_200))
        ends = NOON // SECOND + start, NOON // SECOND + start + draw(st.integers(1, 7_200))
        return replace(job, schedule=bounded(job.schedule, *ends))
    return job


def reach(job: Job) -> Micros:
    """About three hundred slots of a schedule: an outage the slot-by-slot reading can walk through."""
    assert job.schedule is not None
    last = job.schedule.previous_before(NOON // SECOND)
    before = None if last is None else job.schedule.previous_before(last)
    gap = 60 if last is None or before is None else last - before
    return min(300 * gap, 1_000 * 86_400) * SECOND


def outages(job: Job, parts: int = 1) -> st.SearchStrategy[Micros]:
    """How long nobody looked; as often long as short."""
    whole = reach(job) // parts
    return st.builds(lambda tenths, rest: whole * tenths // 10 + rest, st.integers(0, 10), st.integers(0, 2 * MINUTE))


@st.composite
def asking(draw: st.DrawFn, job: Job, position: Micros, now: Micros) -> Asked:
    """Runs that are open, a slot to skip and slots that have their entry, the newest ones as often as any."""
    due = [slot for slot in job.every(position, now) if job.due_at(slot) <= now]
    some = st.one_of(st.sampled_from(due), st.sampled_from(due[-3:])) if due else st.none()
    had = draw(st.sets(some, max_size=6)) if due and draw(st.integers(0, 3)) == 0 else ()
    skip_next = draw(st.one_of(st.none(), some, some, st.just(now + MINUTE)))
    open_runs = draw(st.sampled_from([0, 0, 1, 2, MAX_BUFFERED - 2, MAX_BUFFERED]))
    return Asked(draw(st.integers(0, 4)), open_runs, skip_next, frozenset(had))


def no_policy(job: Job) -> Job:
    return replace(job, catchup=CatchUp("all", timedelta(days=9_999), 10**6), max_fires=None)


@settings(max_examples=600, deadline=None)
@given(jobs(), st.data())
def test_a_plan_is_what_deciding_slot_by_slot_gives(job: Job, data: st.DataObject) -> None:
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    position = now - data.draw(st.one_of(outages(job), st.integers(-2 * HOUR, 0)))
    grace, asked = data.draw(GRACES), data.draw(asking(job, position, now))
    plan = plan_fires(job, position, now, grace, **asked.options())
    assert entries_of(job, plan) == slot_by_slot(job, position, now, grace, asked)


@settings(max_examples=600, deadline=None)
@given(jobs(), st.data())
def test_no_reason_speaks_of_a_run_that_is_not_there(job: Job, data: st.DataObject) -> None:
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    position = now - data.draw(outages(job))
    asked = data.draw(asking(job, position, now))
    plan = plan_fires(job, position, now, data.draw(GRACES), **asked.options())
    newest = plan.fires[-1] if plan.fires else None
    for item in plan.skips:
        if item.reason is Reason.COALESCED or (item.reason is Reason.CATCHUP_CAP and job.catchup.max_runs):
            assert newest is not None
            assert newest.slot > item.to_slot
        elif item.reason is Reason.COVERED_BY_GAP:
            assert any(
                fire.covers and fire.covers[0] <= item.from_slot <= item.to_slot <= fire.covers[1]
                for fire in plan.fires
            )
        elif item.reason is Reason.OVERLAP and not asked.open_runs:
            assert newest is not None, "nothing was open and nothing overtook it"
            assert newest.slot > item.to_slot


@settings(max_examples=300, deadline=None)
@given(jobs(), st.data())
def test_a_plan_keeps_oldest_first_and_ends_at_the_newest_due_slot(job: Job, data: st.DataObject) -> None:
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    position = now - data.draw(outages(job))
    plan = plan_fires(job, position, now, data.draw(GRACES))
    slots = [fire.slot for fire in plan.fires]
    assert slots == sorted(set(slots))
    assert [item.from_slot for item in plan.skips] == sorted(item.from_slot for item in plan.skips)
    assert not [slot for slot in slots for item in plan.skips if item.from_slot <= slot <= item.to_slot]
    due = [slot for slot in job.every(position, now) if job.due_at(slot) <= now]
    assert plan.position == (due[-1] if due else position)
    spent = job.max_fires is not None and len(slots) >= job.max_fires
    assert plan.next_slot == (None if spent else job.next_after(plan.position))
    assert plan.due_at is None or plan.due_at > now


@settings(max_examples=200, deadline=None)
@given(jobs(), GRACES, st.data())
def test_planning_again_and_again_decides_every_slot_once(job: Job, grace: Micros, data: st.DataObject) -> None:
    job = replace(job, max_fires=None)
    now = NOON
    start = position = now - data.draw(outages(job))
    decided: list[Micros] = []
    for _ in range(data.draw(st.integers(1, 8))):
        now += data.draw(outages(job, 8))
        plan = plan_fires(job, position, now, grace)
        assert plan.position is not None
        decided += [entry.slot for entry in entries_of(job, plan)]
        position = plan.position
    assert decided == [slot for slot in job.every(start, now) if job.due_at(slot) <= now]


@settings(max_examples=200, deadline=None)
@given(jobs(), GRACES, st.data())
def test_fires_never_exceed_max_fires_however_often_one_plans(job: Job, grace: Micros, data: st.DataObject) -> None:
    job = replace(job, max_fires=data.draw(st.integers(1, 5)))
    now = NOON
    position: Micros | None = now - data.draw(outages(job))
    fires = 0
    for _ in range(5):
        now += data.draw(outages(job, 8))
        plan = plan_fires(job, position or 0, now, grace, fires=fires)
        fires += len(plan.fires)
        position = plan.position
        if plan.next_slot is None:
            break
    assert fires <= (job.max_fires or 0)


@settings(max_examples=200, deadline=None)
@given(jobs(), GRACES, st.data())
def test_slots_that_have_an_entry_keep_it(job: Job, grace: Micros, data: st.DataObject) -> None:
    job = replace(job, max_fires=None)
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    position = now - data.draw(outages(job))
    due = [slot for slot in job.every(position, now) if job.due_at(slot) <= now]
    had = set(data.draw(st.lists(st.sampled_from(due), unique=True))) if due else set()
    plan = plan_fires(job, position, now, grace, decided=had.__contains__)
    fired = {fire.slot for fire in plan.fires}
    skipped = {entry.slot for entry in entries_of(job, plan) if entry.reason is not None}
    assert not had & fired
    assert not had & skipped, "a range reaches over a slot that has an entry of its own"
    assert fired | skipped == set(due) - had
    assert sum(item.count for item in plan.skips) == len(skipped)
    assert plan.position == (due[-1] if due else position)


@settings(max_examples=400, deadline=None)
@given(jobs(), GRACES, st.data())
def test_the_short_way_of_a_single_slot_on_time_says_what_the_long_way_says(
    job: Job, grace: Micros, data: st.DataObject
) -> None:
    planned = job.next_after(NOON - data.draw(st.integers(0, 3 * HOUR)))
    assume(planned is not None)
    assert planned is not None
    now = job.due_at(planned) + data.draw(st.one_of(st.just(0), st.just(grace), st.integers(-5 * MINUTE, 5 * MINUTE)))
    skip_next = data.draw(st.sampled_from([None, planned, planned + MINUTE]))
    options: dict[str, Any] = {"fires": data.draw(st.integers(0, 3)), "skip_next": skip_next}
    short = plan_fires(job, planned - SECOND, now, grace, planned=planned, **options)
    assert short == plan_fires(job, planned - SECOND, now, grace, **options)


# --- examples to read -----------------------------------------------------------------------------------------------


def outage(job: Job, slots: int = 500, grace: Micros = MINUTE) -> Plan:
    """What is decided when the newest of `slots` every-minute slots is older than the grace by a second."""
    now = NOON + grace + SECOND
    return plan_fires(replace(job, schedule=_until_noon(job)), NOON - slots * MINUTE, now, grace)


def _until_noon(job: Job) -> Any:
    assert job.schedule is not None
    return bounded(job.schedule, None, NOON // SECOND + 1)


def test_five_hundred_late_slots_give_ten_runs_and_one_range_of_490() -> None:
    plan = outage(every_minute())
    assert [fire.slot for fire in plan.fires] == [NOON - minutes * MINUTE for minutes in range(9, -1, -1)]
    assert plan.skips == (SkippedRange(NOON - 499 * MINUTE, NOON - 10 * MINUTE, 490, Reason.CATCHUP_CAP),)


def test_late_runs_take_turns_and_on_time_runs_come_first() -> None:
    plan = plan_fires(every_minute(), NOON - 3 * MINUTE - 1, NOON, MINUTE)
    assert plan.fires == (
        Fire(NOON - 3 * MINUTE, turn=1),
        Fire(NOON - 2 * MINUTE, turn=2),
        Fire(NOON - MINUTE),
        Fire(NOON),
    )


def test_latest_keeps_the_newest_late_slot() -> None:
    plan = outage(every_minute(catchup=CatchUp("latest")))
    assert plan.fires == (Fire(NOON, turn=1),)
    assert plan.skips == (SkippedRange(NOON - 499 * MINUTE, NOON - MINUTE, 499, Reason.COALESCED),)


def test_latest_keeps_no_late_slot_where_one_is_on_time() -> None:
    plan = plan_fires(every_minute(catchup=CatchUp("latest")), NOON - 5 * MINUTE, NOON, 30 * SECOND)
    assert plan.fires == (Fire(NOON),)
    assert plan.skips == (SkippedRange(NOON - 4 * MINUTE, NOON - MINUTE, 4, Reason.COALESCED),)


@pytest.mark.parametrize("overlap", ["allow_all", "skip", "buffer_one", "buffer_all", "cancel_other"])
@pytest.mark.parametrize(
    ("catchup", "left_out"),
    [
        (CatchUp("all", max_runs=1), Reason.CATCHUP_CAP),
        (CatchUp("latest"), Reason.COALESCED),
        (CatchUp("gap"), Reason.COVERED_BY_GAP),
    ],
    ids=lambda value: getattr(value, "policy", None),
)
def test_a_policy_picks_the_newest_slot_that_nobody_asked_to_skip(
    catchup: CatchUp, left_out: Reason, overlap: Any
) -> None:
    hourly = job_of(Cron("0 * * * *"), catchup=catchup, overlap=overlap)
    plan = plan_fires(hourly, NOON - 3 * HOUR, NOON + 5 * MINUTE, MINUTE, skip_next=NOON)
    covers = (NOON - 2 * HOUR, NOON - HOUR) if catchup.policy == "gap" else None
    assert plan.fires == (Fire(NOON - HOUR, 1, covers),)
    assert plan.skips == (
        SkippedRange(NOON - 2 * HOUR, NOON - 2 * HOUR, 1, left_out),
        SkippedRange(NOON, NOON, 1, Reason.SKIP_NEXT),
    )


def test_a_slot_to_be_skipped_is_not_counted_as_covered() -> None:
    hourly = job_of(Cron("0 * * * *"), catchup=CatchUp("gap"))
    plan = plan_fires(hourly, NOON - 4 * HOUR, NOON + 5 * MINUTE, MINUTE, skip_next=NOON - 2 * HOUR)
    assert plan.fires == (Fire(NOON, 1, (NOON - 3 * HOUR, NOON)),)
    assert [(item.from_slot, item.reason) for item in plan.skips] == [
        (NOON - 3 * HOUR, Reason.COVERED_BY_GAP),
        (NOON - 2 * HOUR, Reason.SKIP_NEXT),
        (NOON - HOUR, Reason.COVERED_BY_GAP),
    ]


def test_a_gap_begins_and_ends_with_slots_that_may_fire() -> None:
    hourly = job_of(Cron("0 * * * *"), catchup=CatchUp("gap"))
    plan = plan_fires(hourly, NOON - 4 * HOUR, NOON + 5 * MINUTE, MINUTE, skip_next=NOON - 3 * HOUR)
    assert plan.fires == (Fire(NOON, 1, (NOON - 2 * HOUR, NOON)),)


def test_latest_keeps_a_late_slot_where_the_one_on_time_is_to_be_skipped() -> None:
    job = every_minute(catchup=CatchUp("latest"))
    plan = plan_fires(job, NOON - 5 * MINUTE, NOON, 30 * SECOND, skip_next=NOON)
    assert plan.fires == (Fire(NOON - MINUTE, 1),)


@pytest.mark.parametrize("policy", ["all", "latest", "none", "gap"])
@pytest.mark.parametrize(
    ("overlap", "open_runs", "reason"),
    [
        ("skip", 1, Reason.OVERLAP),
        ("buffer_one", 2, Reason.OVERLAP),
        ("buffer_all", MAX_BUFFERED, Reason.BUFFER_FULL),
    ],
)
def test_where_open_runs_let_nothing_fire_every_slot_says_so(
    policy: Any, overlap: Any, open_runs: int, reason: Reason
) -> None:
    job = every_minute(catchup=CatchUp(policy, max_runs=1), overlap=overlap)
    plan = plan_fires(job, NOON - 5 * MINUTE, NOON, 30 * SECOND, open_runs=open_runs)
    assert plan.fires == ()
    assert plan.skips == (SkippedRange(NOON - 4 * MINUTE, NOON, 5, reason),)


def test_none_keeps_nothing_late() -> None:
    plan = outage(every_minute(catchup=CatchUp("none")))
    assert plan.fires == ()
    assert plan.skips == (SkippedRange(NOON - 499 * MINUTE, NOON, 500, Reason.CATCHUP_POLICY),)


def test_gap_keeps_one_run_that_is_told_the_interval_of_all() -> None:
    plan = outage(every_minute(catchup=CatchUp("gap")))
    assert plan.fires == (Fire(NOON, turn=1, covers=(NOON - 499 * MINUTE, NOON)),)
    assert plan.skips == (SkippedRange(NOON - 499 * MINUTE, NOON - MINUTE, 499, Reason.COVERED_BY_GAP),)


def test_slots_older_than_the_window_are_skipped_before_the_cap_counts() -> None:
    plan = outage(every_minute(catchup=CatchUp("all", timedelta(minutes=61, seconds=1), 10)))
    assert len(plan.fires) == 10
    assert plan.skips == (
        SkippedRange(NOON - 499 * MINUTE, NOON - 61 * MINUTE, 439, Reason.CATCHUP_WINDOW),
        SkippedRange(NOON - 60 * MINUTE, NOON - 10 * MINUTE, 51, Reason.CATCHUP_CAP),
    )


def test_a_window_is_never_less_than_the_grace() -> None:
    plan = plan_fires(every_minute(catchup=CatchUp("all", timedelta(0))), NOON - 3 * MINUTE, NOON, 2 * MINUTE)
    assert [fire.slot for fire in plan.fires] == [NOON - 2 * MINUTE, NOON - MINUTE, NOON]
    assert plan.skips == ()


def test_a_slot_exactly_as_old_as_the_grace_is_not_late() -> None:
    nothing_late = every_minute(catchup=CatchUp("none"))
    assert plan_fires(nothing_late, NOON - 1, NOON + MINUTE - 1, MINUTE).fires == (Fire(NOON),)
    assert plan_fires(nothing_late, NOON - 1, NOON + MINUTE, MINUTE).fires == (Fire(NOON), Fire(NOON + MINUTE))
    assert plan_fires(nothing_late, NOON - 1, NOON + MINUTE + 1, MINUTE).fires == (Fire(NOON + MINUTE),)


def test_lateness_counts_from_the_jittered_instant() -> None:
    job = job_of(Cron("0 * * * *"), jitter=50 * MINUTE, catchup=CatchUp("none"))
    due_at = job.due_at(NOON)
    assert NOON < due_at < NOON + 50 * MINUTE
    assert plan_fires(job, NOON - 1, due_at - 1, MINUTE).position == NOON - 1
    assert plan_fires(job, NOON - 1, due_at + MINUTE, MINUTE).fires == (Fire(NOON),)
    assert plan_fires(job, NOON - 1, due_at + MINUTE + 1, MINUTE).fires == ()


def test_the_first_slot_is_strictly_after_activation() -> None:
    assert first_plan(every_minute(), NOON).next_slot == NOON + MINUTE
    assert first_plan(every_minute(), NOON - 1).next_slot == NOON


def test_a_schedule_whose_only_instant_is_past_is_finished() -> None:
    assert first_plan(job_of(At(to_datetime(NOON))), NOON) == Plan((), (), None, None, None)


def test_a_trigger_without_schedule_owes_nothing() -> None:
    manual = Job(identity="a/b/c/d", schedule=None, activated_at=0)
    assert plan_fires(manual, 0, NOON, MINUTE) == Plan((), (), 0, None, None)
    assert manual.fingerprint == "manual"


def test_the_last_of_max_fires_ends_the_schedule() -> None:
    plan = plan_fires(every_minute(max_fires=5), NOON - 4 * MINUTE, NOON, HOUR, fires=3)
    assert [fire.slot for fire in plan.fires] == [NOON - 3 * MINUTE, NOON - 2 * MINUTE]
    assert (plan.skips, plan.position, plan.next_slot, plan.due_at) == ((), NOON, None, None)


# --- the fingerprint ------------------------------------------------------------------------------------------------


def test_a_fingerprint_follows_what_decides_the_slots_and_nothing_else() -> None:
    job = every_minute()
    assert job.fingerprint == every_minute(catchup=CatchUp("none"), max_fires=3, overlap="skip").fingerprint
    others = [
        job_of(Cron("*/2 * * * *")),
        replace(job, activated_at=1),
        replace(job, jitter=SECOND),
        job_of(Cron("* * * * *", "Europe/Paris")),
        replace(job, schedule=_until_noon(job)),
    ]
    prints = [other.fingerprint for other in (job, *others)]
    assert len(set(prints)) == len(prints)
