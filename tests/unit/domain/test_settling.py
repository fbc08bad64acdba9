"""What is owed at the end of a plan, against a slot-by-slot reading of the rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.domain import settling
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.planning import Fire, Plan
from scheduler.domain.settling import settle, skip_owed
from scheduler.domain.trigger import CatchUp
from tests.unit.domain.test_planning import (
    GRACES,
    HOUR,
    MINUTE,
    NOON,
    Asked,
    Entry,
    entries_of,
    every_minute,
    job_of,
    jobs,
    outages,
    slot_by_slot,
)

NOTHING = Plan((), (), None, None, None)
HOURLY = job_of(Cron("0 * * * *"))


def test_of_the_slots_that_the_new_schedule_lacks_those_within_the_grace_fire() -> None:
    planned = NOON - 5 * MINUTE
    plan = settle(every_minute(), job_of(Cron("30 3 * * *")), planned, planned, NOON + 1, MINUTE)
    assert plan.fires == (Fire(NOON),)
    assert plan.skips == (SkippedRange(planned, NOON - MINUTE, 5, Reason.SCHEDULE_CHANGED),)
    assert plan.position == NOON


def test_a_slot_that_the_new_schedule_has_too_is_caught_up_as_before() -> None:
    planned = NOON - HOUR
    plan = settle(every_minute(), HOURLY, planned, planned, NOON + 2 * MINUTE + 1, MINUTE)
    assert plan.fires == (Fire(planned, 1), Fire(NOON, 2), Fire(NOON + 2 * MINUTE))
    assert [(item.count, item.reason) for item in plan.skips] == [
        (59, Reason.SCHEDULE_CHANGED),
        (1, Reason.SCHEDULE_CHANGED),
    ]


def test_a_slot_that_waits_out_its_jitter_is_owed() -> None:
    job = replace(HOURLY, jitter=1_800 * SECOND)
    assert job.due_at(NOON) > NOON + SECOND
    plan = settle(job, every_minute(), NOON, job.due_at(NOON), NOON + SECOND, 0)
    assert plan.fires == (Fire(NOON),)
    plan = settle(job, job_of(Cron("30 3 * * *")), NOON, job.due_at(NOON), NOON + SECOND, 0)
    assert plan.fires == (Fire(NOON),)
    plan = skip_owed(job, NOON, NOON + SECOND, Reason.PAUSED)
    assert plan.skips == (SkippedRange(NOON, NOON, 1, Reason.PAUSED),)
    assert skip_owed(job, NOON, NOON + SECOND, Reason.RESTORED, due_only=True) == NOTHING


def test_an_old_schedule_that_nobody_remembers_owes_the_planned_slot_alone() -> None:
    within = settle(None, HOURLY, NOON - MINUTE, NOON - MINUTE, NOON, MINUTE)
    assert (within.fires, within.skips) == ((Fire(NOON - MINUTE),), ())
    beyond = settle(None, HOURLY, NOON - MINUTE, NOON - MINUTE, NOON + 1, MINUTE)
    assert beyond.skips == (SkippedRange(NOON - MINUTE, NOON - MINUTE, 1, Reason.SCHEDULE_CHANGED),)
    common = settle(None, HOURLY, NOON, NOON, NOON + HOUR, MINUTE)
    assert common.fires == (Fire(NOON, 1),)


def test_a_planned_slot_that_the_schedule_lost_to_new_zone_data_is_accounted_for_with_all_that_follow() -> None:
    job = every_minute(catchup=CatchUp("none"))
    planned = NOON - 5 * MINUTE + 30 * SECOND
    plan = settle(job, job, planned, planned, NOON, MINUTE)
    assert plan.fires == (Fire(NOON - MINUTE), Fire(NOON))
    assert [(item.from_slot, item.count, item.reason) for item in plan.skips] == [
        (planned, 1, Reason.SCHEDULE_CHANGED),
        (NOON - 4 * MINUTE, 3, Reason.CATCHUP_POLICY),
    ]


def test_what_is_older_than_can_be_compared_counts_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_COMPARED", 70)
    planned = NOON - 200 * MINUTE
    plan = settle(every_minute(), HOURLY, planned, planned, NOON, 0)
    assert plan.fires == (Fire(NOON - HOUR, 1), Fire(NOON))
    assert plan.skips == (
        SkippedRange(planned, NOON - 61 * MINUTE, 140, Reason.SCHEDULE_CHANGED),
        SkippedRange(NOON - 59 * MINUTE, NOON - MINUTE, 59, Reason.SCHEDULE_CHANGED),
    )


def test_a_pause_skips_all_that_is_due_in_one_range() -> None:
    planned = NOON - 5 * MINUTE
    plan = skip_owed(every_minute(), planned, NOON, Reason.PAUSED)
    assert (plan.fires, plan.position) == ((), NOON)
    assert plan.skips == (SkippedRange(planned, NOON, 6, Reason.PAUSED),)


@pytest.mark.parametrize("planned", [None, NOON + MINUTE])
def test_a_plan_without_a_slot_up_to_now_owes_nothing(planned: Micros | None) -> None:
    assert settle(every_minute(), HOURLY, planned, planned, NOON + SECOND, MINUTE) == NOTHING
    assert skip_owed(every_minute(), planned, NOON + SECOND, Reason.PAUSED) == NOTHING


class _Left:
    """Slots that are decided as if they were a job's, one that waits out its jitter too."""

    def __init__(self, job: Job, following: Job, slots: list[Micros], now: Micros) -> None:
        self._job, self._slots, self._now = job, slots, now
        self.catchup, self.max_fires, self.overlap = following.catchup, following.max_fires, following.overlap
        self.calendars = None

    def every(self, after: Micros, until: Micros) -> Iterator[Micros]:
        return iter(self._slots)

    def due_at(self, slot: Micros) -> Micros:
        return min(self._job.due_at(slot), self._now)


@settings(max_examples=500, deadline=None)
@given(jobs(quiet_days=False), jobs(), GRACES, st.data())
def test_settling_is_what_deciding_slot_by_slot_gives(
    job: Job, following: Job, grace: Micros, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):
        following = replace(following, schedule=job.schedule, calendars=None)
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    position = now - data.draw(outages(job))
    planned = job.next_after(position)
    assume(planned is not None)
    assert planned is not None
    plan = settle(job, following, planned, job.due_at(planned), now, grace)
    owed = list(job.between(planned - SECOND, now))
    shared = set(following.between(planned - SECOND, now))
    left = [slot for slot in owed if slot in shared or job.due_at(slot) >= now - grace]
    entries = slot_by_slot(_Left(job, following, left, now), planned - SECOND, now, grace, Asked())  # type: ignore[arg-type]
    spent = len(entries) < len(left)
    last = entries[-1].slot if entries else 0
    changed = [slot for slot in owed if slot not in set(left) and (not spent or slot <= last)]
    entries += [Entry(slot, Reason.SCHEDULE_CHANGED) for slot in changed]
    assert entries_of(job, plan) == sorted(entries, key=lambda entry: entry.slot)


@settings(max_examples=200, deadline=None)
@given(jobs(quiet_days=False), st.sampled_from([Reason.PAUSED, Reason.DELETED]), st.data())
def test_a_pause_accounts_for_every_slot_up_to_now(job: Job, reason: Reason, data: st.DataObject) -> None:
    now = NOON + data.draw(st.integers(0, 120 * SECOND))
    planned = job.next_after(now - data.draw(outages(job)))
    assume(planned is not None)
    assert planned is not None
    plan = skip_owed(job, planned, now, reason)
    owed = list(job.between(planned - SECOND, now))
    assert [entry.slot for entry in entries_of(job, plan)] == owed
    assert len(plan.skips) == bool(owed)


def test_a_rate_that_is_doubled_keeps_every_other_slot() -> None:
    old, new = job_of(FixedRate(10, "second")), job_of(FixedRate(20, "second"))
    plan = settle(old, new, NOON, NOON, NOON + MINUTE, 0)
    assert [fire.slot for fire in plan.fires] == [NOON + shift * SECOND for shift in (0, 20, 40, 60)]
    assert [item.count for item in plan.skips] == [1, 1, 1]
