"""What a trigger owes at an instant: every due slot decided at once, some kept, the rest skipped with a reason.

Pure: the caller hands in the position and the instant, and writes down what comes back. The rules are those of
"late slots: catch-up, with a cap" in the documentation; one code path serves late and on-time slots.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.domain.instants import SECOND, Micros, to_micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange, merge_ranges
from scheduler.domain.overlap import Fire, admit, refusal_of
from scheduler.domain.trigger import CatchUp, Overlap


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


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The slots that a policy chooses among: those of the job that no calendar blacks out, without the `taken` ones.

    `taken` are free slots of the job, oldest first: the one to be skipped, and those that have their entry already.
    """

    job: Job
    taken: Sequence[Micros] = ()

    def between(self, after: Micros, until: Micros) -> list[Micros]:
        """The candidates in (after, until], oldest first."""
        taken = set(self._taken(after, until))
        return [slot for slot in self.job.between(after, until) if slot not in taken]

    def newest(self, after: Micros, until: Micros, limit: int) -> list[Micros]:
        """At most `limit` of the newest candidates in (after, until], oldest first."""
        taken = set(self._taken(after, until))
        slots = [slot for slot in self.job.newest(after, until, limit + len(taken)) if slot not in taken]
        return slots[max(0, len(slots) - limit) :]

    def first(self, after: Micros, until: Micros) -> Micros | None:
        """The first candidate in (after, until]."""
        slot = self.job.next_free(after)
        for taken in self._taken(after, until):
            if slot == taken:
                slot = self.job.next_free(taken)
        return slot if slot is not None and slot <= until else None

    def skip(self, after: Micros, until: Micros, reason: Reason) -> Iterator[SkippedRange]:
        """The candidates in (after, until], whose ends need not be slots themselves, as ranges of one reason.

        What lies within and has a reason of its own is gone round.
        """
        stretches = [(item.from_slot, item.to_slot) for item in self.job.blacked_out(after, until)]
        for first, last in sorted(stretches + [(slot, slot) for slot in self._taken(after, until)]):
            yield from self._skip_all(after, first - SECOND, reason)
            after = max(after, last)
        yield from self._skip_all(after, until, reason)

    def _skip_all(self, after: Micros, until: Micros, reason: Reason) -> Iterator[SkippedRange]:
        first, last = self.job.next_free(after), self.job.newest(after, until, 1)
        if last and first is not None:
            yield SkippedRange(first, last[0], self.job.count_free(after, last[0]), reason)

    def _taken(self, after: Micros, until: Micros) -> Sequence[Micros]:
        return self.taken[bisect_right(self.taken, after) : bisect_right(self.taken, until)]


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
    decision = _decide(job, position, newest, now, misfire_grace, open_runs, skip_next, decided)
    kept = _admitted(decision, job.overlap, open_runs)
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


def _decide(
    job: Job,
    position: Micros,
    newest: Micros,
    now: Micros,
    misfire_grace: Micros,
    open_runs: int,
    skip_next: Micros | None,
    decided: Callable[[Micros], bool] | None,
) -> _Decision:
    """What becomes of the slots in (position, newest], except that several on time may still overtake each other.

    What may not fire whatever the policy says goes first, each slot under its own reason. The policy chooses among the
    rest, so that no reason speaks of a run that is not there.
    """
    decision = _Decision()
    candidates = _without_taken(job, position, newest, skip_next, decided, decision)
    # Late means due before now − grace; a slot due at exactly that instant is still within it.
    newest_late = job.last_due(now - misfire_grace - 1)
    late_until = position if newest_late is None else max(position, newest_late)
    window = max(to_micros(job.catchup.window), misfire_grace)
    expired = job.last_due(now - window - 1) if late_until > position else None
    late_after = position if expired is None else max(position, min(expired, late_until))
    decision.skipped.extend(candidates.skip(position, late_after, Reason.CATCHUP_WINDOW))
    refusal = refusal_of(job.overlap, open_runs)
    if refusal is not None:
        decision.skipped.extend(candidates.skip(late_after, newest, refusal))
        return decision
    decision.kept.extend(Fire(slot) for slot in candidates.between(late_until, newest))
    if late_until > late_after:
        _apply_policy(job.catchup, candidates, decision, late_after, late_until)
    return decision


def _without_taken(
    job: Job,
    position: Micros,
    newest: Micros,
    skip_next: Micros | None,
    decided: Callable[[Micros], bool] | None,
    decision: _Decision,
) -> _Candidates:
    """The candidates in (position, newest]; adds to the decision what a calendar and skip-next take away."""
    if decided is not None:
        decision.decided = [slot for slot in job.every(position, newest) if decided(slot)]
    after = position
    for slot in decision.decided:
        decision.skipped.extend(job.blacked_out(after, slot - SECOND))
        after = slot
    decision.skipped.extend(job.blacked_out(after, newest))
    taken = [slot for slot in decision.decided if _is_free(job, slot)]
    asked = skip_next is not None and position < skip_next <= newest and _is_free(job, skip_next)
    if skip_next is not None and asked and skip_next not in taken:
        insort(taken, skip_next)
        decision.skipped.append(SkippedRange(skip_next, skip_next, 1, Reason.SKIP_NEXT))
    return _Candidates(job, taken)


def _is_free(job: Job, slot: Micros) -> bool:
    return job.count_free(slot - SECOND, slot) > 0


def _apply_policy(catchup: CatchUp, candidates: _Candidates, decision: _Decision, after: Micros, until: Micros) -> None:
    """Keeps some of the late slots in (after, until]; all of them may fire."""
    slots: list[Micros] = []
    covers = None
    match catchup.policy:
        case "all":
            slots, reason = candidates.newest(after, until, catchup.max_runs), Reason.CATCHUP_CAP
        case "latest":
            # A slot within the grace is newer than any late one.
            slots, reason = [] if decision.kept else candidates.newest(after, until, 1), Reason.COALESCED
        case "none":
            reason = Reason.CATCHUP_POLICY
        case "gap":
            slots, reason = candidates.newest(after, until, 1), Reason.COVERED_BY_GAP
            first = candidates.first(after, until)
            covers = (first, slots[0]) if slots and first is not None else None
    decision.kept.extend(Fire(slot, turn, covers) for turn, slot in enumerate(slots, start=1))
    decision.skipped.extend(candidates.skip(after, slots[0] - SECOND if slots else until, reason))


def _admitted(decision: _Decision, overlap: Overlap, open_runs: int) -> list[Fire]:
    """The fires of a decision that nothing holds back, oldest first; the others join its skipped ones."""
    kept, refused = admit(decision.kept, overlap, open_runs)
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
