"""What each trigger owes, by rules written down a second time: slot by slot, in a dictionary, without a database.

The model follows the promises, not the code: a trigger has what is *written* about it and what it was *planned* from; the
two meet when a worker looks. It decides by listing every slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.occurrences import jitter_of
from tests.simulation.grids import Grid, Rate, next_slot

RUN = "run"


@dataclass(frozen=True)
class CatchUpRule:
    policy: str = "all"
    max_runs: int = 10
    window: Micros = 7 * 86_400 * SECOND


@dataclass(frozen=True)
class Written:
    """What stands in the trigger's row, as far as it decides which slots there are."""

    grid: Grid
    jitter: Micros = 0
    active: bool = True
    deleted: bool = False

    @property
    def live(self) -> bool:
        return self.active and not self.deleted


@dataclass(frozen=True)
class Planned:
    """What the present plan was made from."""

    grid: Grid
    jitter: Micros
    anchor: Micros | None
    activated_at: Micros


@dataclass
class Fire:
    """A slot that got its run just now; `turn` is 0 on time."""

    slot: Micros
    turn: int
    due_at: Micros


@dataclass
class TriggerModel:
    """One trigger and the outcome of every slot decided so far: a run, or the reason why not."""

    identity: str
    written: Written
    grace: Micros
    catchup: CatchUpRule = CatchUpRule()
    planned: Planned | None = None
    planned_from: Written | None = None
    anchor: Micros | None = None
    anchor_seconds: int | None = None
    owed_after: Micros = 0
    last: Micros | None = None
    entries: dict[Micros, str] = field(default_factory=dict)
    stored_ranges: list[tuple[Micros, Micros]] = field(default_factory=list)
    """Only of use once the clock was set back: a range stands for all that lies in it, whatever the schedule was."""

    # --- what is owed ------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether somebody wrote something that no worker has looked at."""
        return self.planned_from != self.written

    def next_slot(self) -> Micros | None:
        return None if self.planned is None else self._next(self.planned, self.owed_after)

    def due_at(self, slot: Micros) -> Micros:
        assert self.planned is not None
        if not self.planned.jitter:
            return slot
        following = self._next(self.planned, slot)
        next_second = None if following is None else following // SECOND
        return slot + jitter_of(self.identity, slot // SECOND, self.planned.jitter, next_second)

    def is_due(self, now: Micros) -> bool:
        slot = self.next_slot()
        return slot is not None and self.due_at(slot) <= now

    def due_slots(self, now: Micros) -> list[Micros]:
        if self.planned is None:
            return []
        slots = self.planned.grid.slots(self.owed_after, now, self._anchor(self.planned))
        return [slot for slot in slots if self.due_at(slot) <= now]

    # --- what happens ------------------------------------------------------------------------------------------------

    def decide(self, now: Micros) -> list[Fire]:
        """All due slots get their outcome; one that has an outcome keeps it."""
        due = self.due_slots(now)
        late = [slot for slot in due if self.due_at(slot) < now - self.grace]
        window = max(self.catchup.window, self.grace)
        outcomes = dict.fromkeys(due[len(late) :], RUN)
        expired = [slot for slot in late if self.due_at(slot) < now - window]
        outcomes |= dict.fromkeys(expired, "catchup_window")
        rest = late[len(expired) :]
        kept, reason = self._kept(rest, on_time=len(due) > len(late))
        outcomes |= dict.fromkeys(rest, reason) | dict.fromkeys(kept, RUN)
        turns = {slot: turn for turn, slot in enumerate(kept, start=1)}
        fires = [
            Fire(slot, turns.get(slot, 0), self.due_at(slot))
            for slot in sorted(outcomes)
            if not self._covered(slot) and self._enter(slot, outcomes)
        ]
        self.last = self.owed_after = due[-1]
        return fires

    def _kept(self, late: list[Micros], *, on_time: bool) -> tuple[list[Micros], str]:
        match self.catchup.policy:
            case "all":
                return late[max(0, len(late) - self.catchup.max_runs) :], "catchup_cap"
            case "latest":
                return [] if on_time else late[-1:], "coalesced"
            case "none":
                return [], "catchup_policy"
            case _:
                return late[-1:], "covered_by_gap"

    def look(self, now: Micros, before: Written | None = None) -> tuple[list[Fire], bool]:
        """A worker or a command looks at what is written: the slots fired, and whether the trigger fell silent.

        `before` is what was written until now, where whoever looks is the one who changes it.
        """
        written, old = self.written, self.planned
        self.planned_from = written
        # Only if the old schedule is still written down can all its slots be accounted for; else the planned one is.
        known = old is not None and any(
            text is not None and (text.grid, text.jitter) == (old.grid, old.jitter) for text in (before, written)
        )
        if not written.live:
            if old is None:
                return [], False
            self._settle(now, known, "deleted" if written.deleted else "paused")
            self.planned = None
            return [], True
        self._set_anchor(now)
        new = Planned(written.grid, written.jitter, self.anchor, now if old is None else old.activated_at)
        if new == old and (self.next_slot() is not None or self._next(new, now) is None):
            return [], False
        fires = [] if old is None else self._settle(now, known, "schedule_changed")
        self.planned, self.owed_after = new, now
        return fires, False

    def clock_set_back(self, now: Micros) -> None:
        """A worker notices that the clock was set back: what lies ahead of now is planned again."""
        beyond = now + self.grace
        old = self.planned
        if old is None or not self.written.live or self.next_slot() is None:
            return
        if (self.last if self.last is not None else old.activated_at) <= beyond:
            return
        self._bring_anchor_back(now)
        activated = min(old.activated_at, now)
        anchor = None
        if isinstance(self.written.grid, Rate) and self.written.grid.start is None:
            anchor = activated - activated % SECOND if self.anchor is None else self.anchor
        self.planned = Planned(self.written.grid, self.written.jitter, anchor, activated)
        self.owed_after = self.last = now - now % SECOND

    # --- details -----------------------------------------------------------------------------------------------------

    def _settle(self, now: Micros, known: bool, reason: str) -> list[Fire]:
        """Ends the old plan: what is due is accounted for; a changed schedule still fires what is within the grace."""
        slot = self.next_slot()
        if slot is None or self.due_at(slot) > now:
            return []
        due = self.due_slots(now) if known else [slot]
        keeps = reason == "schedule_changed"
        outcomes = {slot: RUN if keeps and self.due_at(slot) >= now - self.grace else reason for slot in due}
        new = [slot for slot in due if slot not in self.entries and not self._covered(slot)]
        if new:
            self.last = due[-1]
        return [Fire(slot, 0, self.due_at(slot)) for slot in new if self._enter(slot, outcomes)]

    def _enter(self, slot: Micros, outcomes: dict[Micros, str]) -> bool:
        """Enters a slot's outcome unless it has one; True if it is a run."""
        if slot in self.entries:
            return False
        self.entries[slot] = outcomes[slot]
        return outcomes[slot] == RUN

    def _covered(self, slot: Micros) -> bool:
        return any(first <= slot <= last for first, last in self.stored_ranges)

    def _set_anchor(self, now: Micros) -> None:
        grid = self.written.grid
        if not isinstance(grid, Rate) or grid.start is not None:
            self.anchor = self.anchor_seconds = None
        elif self.anchor is None or self.anchor_seconds != grid.seconds:
            self.anchor, self.anchor_seconds = now - now % SECOND, grid.seconds
        elif self.planned is None:
            self._bring_anchor_back(now)

    def _bring_anchor_back(self, now: Micros) -> None:
        """By whole intervals, so that the same grid goes on."""
        while self.anchor is not None and self.anchor_seconds is not None and self.anchor > now:
            self.anchor -= self.anchor_seconds * SECOND

    def _next(self, planned: Planned, after: Micros) -> Micros | None:
        return next_slot(planned.grid, after, self._anchor(planned))

    def _anchor(self, planned: Planned) -> Micros:
        return 0 if planned.anchor is None else planned.anchor
