"""What a trigger owes at an instant: every due slot decided at once, some kept, the rest skipped with a reason.

Pure: the caller hands in the position and the instant, and writes down what comes back. The rules are those of
"late slots: catch-up, with a cap" in the documentation; one code path serves late and on-time slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.domain.instants import SECOND, Micros, to_micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange, merge_ranges
from scheduler.domain.overlap import Fire, admit
from scheduler.domain.trigger import Overlap


class Plan(NamedTuple):
    """What was decided. `position` is the newest decided slot; `due_at` is None once nothing is left to come."""

    fires: tuple[Fire, ...]
    skips: tuple[SkippedRange, ...]
    position: Micros | None
    next_slot: Micros | None
    due_at: Micros | None


@dataclass(slots=True)
class _Decision:
    """Kept slots and skipped stretches of one plan while it is being made."""

    kept: list[Fire] = field(default_factory=list)
    skipped: list[SkippedRange] = field(default_factory=list)
    # Slots that had an entry before: no range may reach over them.
    decided: list[Micros] = field(default_factory=list)

    def skip(self, job: Job, after: Micros, until: Micros, reason: Reason) -> None:
        """Skips the free slots in (after, until], whose ends need not be slots themselves."""
        # A blacked-out stretch within the range has a reason of its own: the range goes round it.
        for stretch in job.blacked_out(after, until):
            self._skip_free(job, after, stretch.from_slot, reason)
            after = stretch.to_slot
        self._skip_free(job, after, until, reason)

    def _skip_free(self, job: Job, after: Micros, until: Micros, reason: Reason) -> None:
        first, last = job.next_free(after), job.newest(after, until, 1)
        if last and first is not None:
            self.skipped.append(SkippedRange(first, last[0], job.count_free(after, last[0]), reason))


def first_plan(job: Job, after: Micros) -> Plan:
    """The plan of a job that owes nothing of the past: its first slot is strictly after `after`."""
    next_slot = job.next_after(after)
    return Plan((), (), None, next_slot, None if next_slot is None else job.due_at(next_slot))


def plan_fires(
    job: Job,
    position: Micros,
    now: Micros,
    misfire_grace: Micros,
    *,
    fires: int = 0,
    open_runs: int = 0,
    skip_next: Micros | None = None,
    planned: Micros | None = None,
    decided: Callable[[Micros], bool] | None = None,
) -> Plan:
    """Decides all slots after `position` that are due at `now`.

    `fires` is how many scheduled runs the trigger has had (for `max_fires`), `open_runs` how many of them are open (for
    `overlap`), `skip_next` the slot that somebody asked to leave out. `decided` tells which slots have an entry in the
    ledger already, which they keep: it matters only after the clock was set back. `planned`, where it is known, is the
    first slot after `position`.
    """
    if planned is not None and decided is None and planned != skip_next and not open_runs:
        plan = _one_on_time(job, planned, now, misfire_grace)
        if plan is not None:
            return plan
    newest = job.last_due(now)
    if newest is None or newest <= position:
        # Asked too early, which is no reason to go on after the last fire.
        spent = job.max_fires is not None and fires >= job.max_fires
        return Plan((), (), position, None, None) if spent else _onward(job, (), (), position)
    decision = _decide(job, position, newest, now, misfire_grace)
    if decided is not None:
        decision = _without(job, decision, decided)
    kept = _admitted(decision, job.overlap, open_runs, skip_next)
    if job.max_fires is not None and fires + len(kept) >= job.max_fires:
        # The last fire ends the schedule: what would have come after it is not owed.
        kept = kept[: max(0, job.max_fires - fires)]
        last = kept[-1].slot if kept else position
        skips = tuple(item for item in _ordered(decision, kept) if item.to_slot <= last)
        return Plan(tuple(kept), skips, newest, None, None)
    return _onward(job, tuple(kept), tuple(_ordered(decision, kept)), newest)


def _one_on_time(job: Job, planned: Micros, now: Micros, misfire_grace: Micros) -> Plan | None:
    """The plan of a trigger of which just the planned slot is due, and on time; None for every other.

    It says what the long way would say. Nearly every fire is one of these, and this is a third of the work.
    """
    if job.calendars is not None or job.max_fires is not None or not now - misfire_grace <= job.due_at(planned) <= now:
        return None
    following = job.next_after(planned)
    due_at = None if following is None else job.due_at(following)
    if due_at is not None and due_at <= now:
        return None
    return Plan((Fire(planned),), (), planned, following, due_at)


def settle(
    job: Job | None,
    planned: Micros | None,
    planned_due: Micros | None,
    position: Micros,
    now: Micros,
    misfire_grace: Micros,
    reason: Reason,
    *,
    overlap: Overlap = "allow_all",
    open_runs: int = 0,
    skip_next: Micros | None = None,
    decided: Callable[[Micros], bool] | None = None,
) -> Plan:
    """Ends an old plan at `now`, because its schedule changed or the trigger stopped being active.

    A changed schedule (`Reason.SCHEDULE_CHANGED`) still fires the due slots within the grace, as far as `overlap` lets
    them; every other due slot is skipped with the reason. `job` is the old schedule where it is still known; without it
    only the planned slot is. Slots that are `decided` keep the entry they have. Nothing follows: the caller plans anew.
    """
    if planned is None or planned_due is None or planned_due > now or planned <= position:
        return Plan((), (), position, None, None)
    newest = planned if job is None else max(planned, job.last_due(now) or planned)
    keep_from = now - misfire_grace if reason is Reason.SCHEDULE_CHANGED else now + 1
    if job is None:
        late_until = planned if planned_due < keep_from else planned - SECOND
    else:
        late_until = min(job.last_due(keep_from - 1) or planned - SECOND, newest)
    skips: list[SkippedRange] = []
    if late_until >= planned:
        count = 1 if job is None else max(1, job.count(planned - SECOND, late_until))
        skips.append(SkippedRange(planned, late_until, count, reason))
    if job is None:
        fires = [Fire(planned)] if late_until < planned else []
    else:
        kept_after = max(late_until, planned - SECOND)
        fires = [Fire(slot) for slot in job.between(kept_after, newest)]
        skips.extend(job.blacked_out(kept_after, newest))
    decision = _Decision(fires, skips)
    if decided is not None and job is not None:
        decision = _without(job, decision, decided)
    elif decided is not None and decided(planned):
        decision = _Decision()
    kept = _admitted(decision, overlap, open_runs, skip_next)
    return Plan(tuple(kept), tuple(_ordered(decision, kept)), newest, None, None)


def _decide(job: Job, position: Micros, newest: Micros, now: Micros, misfire_grace: Micros) -> _Decision:
    decision = _Decision(skipped=job.blacked_out(position, newest))
    # Late means due before now − grace; a slot due at exactly that instant is still within it.
    newest_late = job.last_due(now - misfire_grace - 1)
    late_until = position if newest_late is None else max(position, newest_late)
    for slot in job.between(late_until, newest):
        decision.kept.append(Fire(slot))
    if late_until == position:
        return decision
    window = max(to_micros(job.catchup.window), misfire_grace)
    expired = job.last_due(now - window - 1)
    late_after = position if expired is None else max(position, min(expired, late_until))
    decision.skip(job, position, late_after, Reason.CATCHUP_WINDOW)
    if late_until > late_after:
        _apply_policy(job, decision, late_after, late_until)
    return decision


def _apply_policy(job: Job, decision: _Decision, after: Micros, until: Micros) -> None:
    match job.catchup.policy:
        case "all":
            slots = job.newest(after, until, job.catchup.max_runs)
            decision.kept.extend(Fire(slot, turn) for turn, slot in enumerate(slots, start=1))
            decision.skip(job, after, slots[0] - SECOND if slots else until, Reason.CATCHUP_CAP)
        case "latest":
            # A slot within the grace is newer than any late one.
            slots = [] if decision.kept else job.newest(after, until, 1)
            decision.kept.extend(Fire(slot, 1) for slot in slots)
            decision.skip(job, after, slots[0] - SECOND if slots else until, Reason.COALESCED)
        case "none":
            decision.skip(job, after, until, Reason.CATCHUP_POLICY)
        case "gap":
            first, slots = job.next_free(after), job.newest(after, until, 1)
            if slots and first is not None:
                decision.kept.append(Fire(slots[0], 1, (first, slots[0])))
                decision.skip(job, after, slots[0] - SECOND, Reason.COVERED_BY_GAP)


def _without(job: Job, decision: _Decision, decided: Callable[[Micros], bool]) -> _Decision:
    clean = _Decision(
        kept=[fire for fire in decision.kept if not decided(fire.slot)],
        decided=[fire.slot for fire in decision.kept if decided(fire.slot)],
    )
    for item in decision.skipped:
        for slot in job.every(item.from_slot - SECOND, item.to_slot):
            if decided(slot):
                clean.decided.append(slot)
            else:
                clean.skipped.append(SkippedRange(slot, slot, 1, item.reason))
    return clean


def _admitted(decision: _Decision, overlap: Overlap, open_runs: int, skip_next: Micros | None) -> list[Fire]:
    """The fires of a decision that nothing holds back, oldest first; the others join its skipped ones."""
    kept, refused = admit(decision.kept, overlap, open_runs, skip_next)
    decision.skipped.extend(SkippedRange(fire.slot, fire.slot, 1, reason) for fire, reason in refused)
    return kept


def _ordered(decision: _Decision, kept: list[Fire]) -> list[SkippedRange]:
    """Ranges oldest first; neighbours of one reason become one unless an entry lies between them."""
    result: list[SkippedRange] = []
    breaks = sorted([fire.slot for fire in kept] + decision.decided)
    stretch: list[SkippedRange] = []
    for item in sorted(decision.skipped, key=lambda skipped: skipped.from_slot):
        while breaks and breaks[0] < item.from_slot:
            breaks.pop(0)
            result.extend(merge_ranges(stretch))
            stretch = []
        stretch.append(item)
    result.extend(merge_ranges(stretch))
    return result


def _onward(job: Job, fires: tuple[Fire, ...], skips: tuple[SkippedRange, ...], position: Micros) -> Plan:
    next_slot = job.next_after(position)
    return Plan(fires, skips, position, next_slot, None if next_slot is None else job.due_at(next_slot))
