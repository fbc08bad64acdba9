"""What each trigger owes, by rules written down a second time: slot by slot, in a dictionary, without a database.

The model follows the promises, not the code: a trigger has what is *written* about it and what it was *planned* from; the
two meet when a worker looks. It decides by listing every slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.occurrences import jitter_of
from tests.simulation.grids import Rate, Timetable, next_slot
from tests.simulation.rules import RUN, Fire, Manners, Planned, Written, caught_up, let_through, refused


@dataclass
class Decision:
    """What became of a trigger at one look: slots that got a run, and whether runs that did not start are over."""

    fires: list[Fire] = field(default_factory=list)
    silenced: bool = False


@dataclass
class TriggerModel:
    """One trigger and the outcome of every slot decided so far: a run, or the reason why not."""

    identity: str
    written: Written
    grace: Micros
    manners: Manners = Manners()
    skip_next: Micros | None = None
    planned: Planned | None = None
    planned_from: Written | None = None
    # Which code could not plan it and set it aside: nothing is due, and it goes on owing.
    aside: str = ""
    # All it may ever fire is fired.
    spent: bool = False
    fires: int = 0
    # Since when it is active, or from when on while it sleeps.
    activated_at: Micros | None = None
    anchor: Micros | None = None
    anchor_seconds: int | None = None
    owed_after: Micros = 0
    last: Micros | None = None
    entries: dict[Micros, str] = field(default_factory=dict)
    # From when until when it was active: what fires lies within.
    periods: list[tuple[Micros, Micros | None]] = field(default_factory=list)
    # Under which timetable each slot got its entry; and whether entries of several were ever cut off at one instant, after
    # which nobody can count those that are left.
    under: dict[Micros, Timetable] = field(default_factory=dict)
    is_blurred: bool = False

    # --- what is owed ------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether somebody wrote something that no worker has looked at."""
        return self.planned_from != self.written

    def next_slot(self) -> Micros | None:
        """The slot that is planned; None where nothing is."""
        return None if self.aside else self.owed_slot()

    def owed_slot(self) -> Micros | None:
        """The next slot that is owed, also while the trigger is set aside."""
        return None if self.planned is None or self.spent else self._next(self.planned, self.owed_after)

    def following(self, slot: Micros) -> Micros | None:
        """The slot after another one under the present plan."""
        return None if self.planned is None else self._next(self.planned, slot)

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
        slots = self.planned.timetable.slots(self.owed_after, now, self._anchor(self.planned))
        return [slot for slot in slots if self.due_at(slot) <= now]

    # --- what happens ------------------------------------------------------------------------------------------------

    def decide(self, now: Micros, open_runs: int) -> Decision:
        """All due slots get their outcome; one that has an outcome keeps it."""
        due = self.due_slots(now)
        fires = self._judge(now, due, self.due_at, set(), open_runs)
        self.last = self.owed_after = due[-1]
        return Decision(fires)

    def look(
        self,
        now: Micros,
        before: Written | None,
        code: str,
        *,
        plannable: bool,
        open_runs: int,
        activated: bool = False,
    ) -> Decision:
        """A worker or a command looks at what is written.

        `before` is what was written until now, where whoever looks is the one who changes it; `activated` means that this
        is what they did. Nothing can be planned that nobody understands, or of a version that does not exist (not
        `plannable`); `code` is who gives up on that.
        """
        written, old = self.written, self.planned
        # Only if the old schedule is written down somewhere can all its slots be accounted for; else the planned one is.
        known = old is not None and any(
            text is not None and (text.timetable, text.jitter) == (old.timetable, old.jitter)
            for text in (before, written, self.planned_from)
        )
        self.planned_from = written
        wakes = written.wakes(now)
        if wakes is None and not written.live(now):
            if old is None and not self.aside:
                return Decision()
            self._silence(now, known, "deleted" if written.deleted else "paused")
            self.planned, self.activated_at, self.aside, self.spent = None, None, "", False
            self._falls_silent(now)
            return Decision(silenced=True)
        if written.timetable is None or not plannable:
            self.aside = code
            return Decision()
        self._set_anchor(now)
        # A snooze is a pause with a known end; of one that was cut short the end must not stay.
        since = wakes if wakes is not None else None if activated else self.activated_at
        if since is None or (wakes is None and since > now + self.grace):
            since = now
        self.activated_at = since
        new = Planned(written.timetable, written.jitter, self.anchor, since)
        left = None if written.max_fires is None else max(0, written.max_fires - self.fires)
        first = wakes if wakes is not None else now
        if new == old:
            if self.aside:
                self.aside = ""  # It owes everything since it was set aside.
                if self.last is not None and self.last > now + self.grace:
                    self.owed_after = now
                self._begins_again(now)
                return Decision()
            if self.next_slot() is not None or left == 0 or self._next(new, first) is None:
                return Decision()
        fires = []
        if old is not None and wakes is not None:
            self._silence(now, known, "paused")
        elif old is not None:
            fires = self._settle(now, known, new, open_runs)
        if old is None or wakes is not None or since != old.activated_at:
            self._falls_silent(now)
            self.periods.append((since, None))
        self.aside, self.planned, self.owed_after = "", new, first
        self.spent = written.max_fires is not None and self.fires >= written.max_fires
        self._begins_again(now)
        return Decision(fires, silenced=wakes is not None)

    def is_as_planned(self, now: Micros) -> bool:
        """Whether what is written still gives the slots that are planned."""
        old, written = self.planned, self.written
        return (
            old is not None and written.live(now) and (written.timetable, written.jitter) == (old.timetable, old.jitter)
        )

    def restored(self, now: Micros) -> None:
        """What was due when a backup was restored is skipped."""
        due = self.due_slots(now)
        self._enter({slot: "restored" for slot in due if self._undecided(slot)})
        self.last = self.owed_after = due[-1]

    def clock_set_back(self, now: Micros, code: str) -> None:
        """A worker notices that the clock was set back: what lies ahead of now is planned again."""
        beyond = now + self.grace
        old, written = self.planned, self.planned_from or self.written
        timetable = written.timetable
        if old is None or not self.written.live(now) or self.aside:
            return
        if (self.last if self.last is not None else old.activated_at) <= beyond:
            return
        if timetable is None:
            self.aside = code
            return
        self._bring_anchor_back(now)
        activated = self.activated_at = min(self.activated_at or now, now)
        anchor = None
        if isinstance(timetable.grid, Rate) and timetable.grid.start is None:
            anchor = activated - activated % SECOND if self.anchor is None else self.anchor
        self.planned = Planned(timetable, written.jitter, anchor, activated)
        self.owed_after = self.last = now - now % SECOND
        self.spent = self.written.max_fires is not None and self.fires >= self.written.max_fires
        self._forget_ahead(now)

    # --- details -----------------------------------------------------------------------------------------------------

    def _silence(self, now: Micros, known: bool, reason: str) -> None:
        """Ends the old plan of a trigger that is not active any more: whatever began by now is skipped."""
        began = self._began(now, known)
        outcomes = {slot: reason for slot in began if self._undecided(slot)}
        self._enter(outcomes)
        if outcomes:
            self.last = began[-1]

    def _settle(self, now: Micros, known: bool, new: Planned, open_runs: int) -> list[Fire]:
        """Ends the old plan of a schedule that changed. What the new one has too is owed as before.

        What it has not still fires within the grace; a slot that waits out its jitter is not even late.
        """
        began = self._began(now, known)
        if not began:
            return []
        # One that was set aside has lost its due instant: where nobody knows the old schedule either, its slot counts.
        due_at = self.due_at if known or not self.aside else _itself
        shared = set(new.timetable.slots(began[0] - 1, now, self._anchor(new)))
        lost = {slot for slot in began if slot not in shared or new.timetable.quiet(slot)}
        changed, before = {slot for slot in lost if due_at(slot) < now - self.grace}, len(self.entries)
        fires = self._judge(now, began, due_at, changed, open_runs, known=known)
        if len(self.entries) > before:
            self.last = began[-1]
        return fires

    def _began(self, now: Micros, known: bool) -> list[Micros]:
        """What the old plan owes: from the planned slot on up to now, or that one alone where nobody knows more."""
        slot = self.owed_slot()
        if slot is None or slot > now or self.planned is None:
            return []
        return self.planned.timetable.slots(self.owed_after, now, self._anchor(self.planned)) if known else [slot]

    def _judge(
        self,
        now: Micros,
        due: list[Micros],
        due_at: Callable[[Micros], Micros],
        changed: set[Micros],
        open_runs: int,
        *,
        known: bool = True,
    ) -> list[Fire]:
        """The outcome of each of these slots; `changed` are those that no schedule has any more.

        Where the old schedule is not `known` any more, neither are its quiet days.
        """
        assert self.planned is not None
        manners, undecided = self.manners, [slot for slot in due if self._undecided(slot)]
        # What may not fire whatever the policy says has that for its reason.
        outcomes = {slot: "calendar" for slot in undecided if known and self.planned.timetable.quiet(slot)}
        outcomes |= {slot: "schedule_changed" for slot in undecided if slot in changed and slot not in outcomes}
        if self.skip_next in undecided and self.skip_next not in outcomes:
            outcomes[self.skip_next] = "skip_next"
        window = max(manners.catchup.window, self.grace)
        outcomes |= {s: "catchup_window" for s in undecided if s not in outcomes and due_at(s) < now - window}
        if why := refused(manners.overlap, open_runs):
            outcomes |= {slot: why for slot in undecided if slot not in outcomes}
        # The policy chooses among the others.
        able = [slot for slot in undecided if slot not in outcomes]
        late = [slot for slot in able if due_at(slot) < now - self.grace]
        kept, reason = caught_up(manners.catchup, late, on_time=len(able) > len(late))
        outcomes |= dict.fromkeys(late, reason) | dict.fromkeys([*kept, *able[len(late) :]], RUN)
        outcomes = {slot: outcomes[slot] for slot in undecided}
        gap = (late[0], late[-1]) if manners.catchup.policy == "gap" and late else None
        outcomes = let_through(outcomes, manners.overlap, open_runs)
        outcomes = self._until_spent(outcomes)
        turns = {slot: turn for turn, slot in enumerate(kept, start=1)}
        runs = [slot for slot in outcomes if outcomes[slot] == RUN]
        fires = [replace(self._fire(slot, turns.get(slot, 0)), due_at=due_at(slot)) for slot in runs]
        for fire in fires:
            # The run that is kept instead of the one for the gap speaks for that as well.
            if gap is not None and (fire.slot == gap[1] or outcomes[gap[1]] == "overlap"):
                fire.covers = gap
        self._enter(outcomes)
        return fires

    def _fire(self, slot: Micros, turn: int) -> Fire:
        return Fire(slot, turn, self.due_at(slot), serial=self.manners.overlap != "allow_all")

    def _undecided(self, slot: Micros) -> bool:
        return slot not in self.entries

    def _until_spent(self, outcomes: dict[Micros, str]) -> dict[Micros, str]:
        """What comes after the last run that a trigger may have is not owed."""
        if self.written.max_fires is None:
            return outcomes
        left = self.written.max_fires - self.fires
        runs = [slot for slot in outcomes if outcomes[slot] == RUN]
        if len(runs) < left:
            return outcomes
        self.spent = True
        return {slot: outcomes[slot] for slot in outcomes if left > 0 and slot <= runs[left - 1]}

    def _enter(self, outcomes: dict[Micros, str]) -> None:
        assert not outcomes.keys() & self.entries.keys()
        self.entries |= outcomes
        if self.planned is not None:
            self.under |= dict.fromkeys(outcomes, self.planned.timetable)
        self.fires += sum(outcome == RUN for outcome in outcomes.values())

    def is_alien(self, slot: Micros) -> bool:
        """Whether a run's slot is none of the timetable under which its neighbours were decided."""
        return any(self.under.get(slot) != made for other, made in self.under.items() if self.entries.get(other) != RUN)

    def _begins_again(self, now: Micros) -> None:
        slot = self.next_slot()
        if slot is not None and self.last is not None and slot <= self.last:
            self._forget_ahead(now)

    def _forget_ahead(self, now: Micros) -> None:
        """The clock was set back: of what lies ahead only runs have happened."""
        ahead = {slot for slot, outcome in self.entries.items() if slot > now and outcome != RUN}
        made = {self.under[slot] for slot, outcome in self.entries.items() if outcome != RUN}
        self.is_blurred = self.is_blurred or (
            bool(ahead) and made != {self.planned.timetable if self.planned else None}
        )
        for slot in ahead:
            del self.entries[slot]

    def _falls_silent(self, now: Micros) -> None:
        if self.periods and self.periods[-1][1] is None:
            self.periods[-1] = (self.periods[-1][0], now)

    def _set_anchor(self, now: Micros) -> None:
        assert self.written.timetable is not None
        grid = self.written.timetable.grid
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
        return next_slot(planned.timetable, after, self._anchor(planned))

    def _anchor(self, planned: Planned) -> Micros:
        return 0 if planned.anchor is None else planned.anchor


def _itself(slot: Micros) -> Micros:
    return slot
