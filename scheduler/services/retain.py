"""Retention: history that is over its age is removed in small batches, by one worker at a time.

What a batch removes leaves its slots in the ledger, as pruned ranges. Nothing fires again for it: a trigger's position alone
says what it owes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.ledger import Reason, SkippedRange, merge_pruned
from scheduler.services.jobs import jobs_of
from scheduler.store.retention import BY_HAND, DONE_AGAIN, OWN_SLOTS, Gap, OldRun
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

BATCH: Final = 1_000
_DAY: Final = 86_400 * SECOND
_MINUTE: Final = 60 * SECOND
# How many triggers are looked at in one transaction, and of how many of those runs are removed in one.
_TRIGGERS: Final = 200
_AT_ONCE: Final = 20
_TRIGGERS_OF_REVISIONS: Final = 2_000


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long history is kept; ages are microseconds. The settings' section `retention` says the same."""

    runs: Micros = 30 * _DAY
    runs_per_trigger: int = 1_000
    revisions: Micros = 365 * _DAY

    @property
    def interval(self) -> Micros:
        """How often history is gone through: often enough that nothing stays much longer than it should, at most hourly."""
        return min(max(min(self.runs, self.revisions) // 24, _MINUTE), 60 * _MINUTE)


@dataclass(slots=True)
class Window:
    """The triggers that were looked at last, and of which of them runs before which instant are to be removed.

    A worker that keeps it for the next batch need not look again: what was old stays old.
    """

    chore: int
    after: int
    last: int
    before: dict[int, Micros]


@dataclass(frozen=True, slots=True)
class Retained:
    """What one batch did. `ended` says that it was the last one of this time; `window` is for the next one."""

    runs: int = 0
    revisions: int = 0
    backfills: int = 0
    ended: bool = False
    window: Window | None = None

    def then(self, following: Retained) -> Retained:
        """Both together, with the end and the window of the second."""
        return Retained(
            self.runs + following.runs,
            self.revisions + following.revisions,
            self.backfills + following.backfills,
            following.ended,
            following.window,
        )


def retain(tx: Transaction, rules: RetentionRules, limit: int = BATCH, window: Window | None = None) -> Retained | None:
    """Does the next batch; None while another worker does one, or it is not time yet.

    Where it left off stands in the database: any worker may go on.
    """
    text = tx.retention.lock()
    if text is None:
        return None
    state = json.loads(text) if text else {"chore": 0, "after": 0, "next_at": 0}
    now = tx.now()
    # A time that lies further ahead than it can was written before the clock was set back.
    if now < state["next_at"] <= now + rules.interval:
        return None
    chore, after = state["chore"], state["after"]
    following: int | None
    if chore < len(_FAMILIES):
        if window is None or (window.chore, window.after) != (chore, after):
            window = _look(tx, rules, chore, after, now)
        done, following = _remove_runs(tx, rules, window, now, limit)
    elif chore == len(_FAMILIES):
        removed, following = tx.retention.remove_revisions(after, _TRIGGERS_OF_REVISIONS, now - rules.revisions, limit)
        done = Retained(revisions=removed)
    else:
        done = Retained(backfills=tx.retention.remove_backfills(now - rules.runs, limit))
        following = after if done.backfills >= limit else None
    ended = following is None and chore > len(_FAMILIES)
    if ended:
        state = {"chore": 0, "after": 0, "next_at": now + rules.interval}
    else:
        state = {"chore": chore + (following is None), "after": following or 0, "next_at": 0}
    tx.retention.put(json.dumps(state))
    return replace(done, ended=ended)


def _look(tx: Transaction, rules: RetentionRules, chore: int, after: int, now: Micros) -> Window:
    family = _FAMILIES[chore]
    ids = tx.retention.triggers_after(family, after, _TRIGGERS)
    before = tx.retention.removable_before(family, ids, rules.runs_per_trigger, now - rules.runs) if ids else {}
    return Window(chore, after, ids[-1] if ids else 0, before)


def _remove_runs(
    tx: Transaction, rules: RetentionRules, window: Window, now: Micros, limit: int
) -> tuple[Retained, int | None]:
    """A batch of a window's runs; where to go on then, None after the last trigger."""
    some = dict(islice(window.before.items(), _AT_ONCE))
    if some:
        # Of several triggers some each: what they fired at about the same time lies on the same pages.
        most = max(1, limit // len(some))
        old = tx.retention.old_runs(_FAMILIES[window.chore], some, now - rules.runs, most)
        if old:
            tx.retention.remove_runs([run.name for run in old])
            _leave_ranges(tx, old)
        found = Counter(run.trigger_id for run in old)
        for trigger_id in some:
            if found[trigger_id] < most:
                del window.before[trigger_id]
        done = Retained(runs=len(old), window=window)
    else:
        done = Retained()
    if window.before:
        return done, window.after
    return replace(done, window=None), window.last or None


def _leave_ranges(tx: Transaction, removed: Sequence[OldRun]) -> None:
    """Writes the slots that have lost their last run into pruned ranges; the runs are gone already."""
    slots: dict[int, list[Micros]] = {}
    # Runs outlive a trigger that plain SQL removed: it has no ledger any more.
    rows = tx.triggers.load({run.trigger_id for run in removed})
    for run in removed:
        if run.scheduled_at is not None and run.trigger_id in rows:
            slots.setdefault(run.trigger_id, []).append(run.scheduled_at)
    if not slots:
        return
    near = tx.ledger.lock_near([(trigger, min(own), max(own)) for trigger, own in sorted(slots.items())])
    known = {trigger: [item for item in near.get(trigger, ()) if item.reason is Reason.PRUNED] for trigger in slots}
    lost: dict[int, set[Micros]] = {trigger: set(own) for trigger, own in slots.items()}
    others: dict[int, list[Micros]] = {
        trigger: [item.from_slot for item in near.get(trigger, ()) if item.reason is not Reason.PRUNED]
        for trigger in slots
    }
    gaps = {trigger: _gaps(trigger, lost[trigger], known[trigger]) for trigger in sorted(slots)}
    # Mostly a trigger's oldest runs are removed and nothing is left among them; only where something is, each gap counts.
    left = tx.retention.runs_within([Gap(trigger, own[0].after, own[-1].slot) for trigger, own in gaps.items()])
    crowded = [gap for trigger, own in gaps.items() if left[trigger] for gap in own]
    for gap, within, still in tx.retention.runs_left(crowded) if crowded else ():
        if within is not None:
            others[gap.trigger_id].append(within)
        if still and gap.slot in lost[gap.trigger_id]:
            others[gap.trigger_id].append(gap.slot)
            lost[gap.trigger_id].discard(gap.slot)
    merged = {
        trigger: merge_pruned(known[trigger], lost[trigger], others[trigger], _adjoining(rows[trigger]))
        for trigger in slots
    }
    tx.ledger.replace(known, merged)


def _adjoining(row: Row) -> Callable[[Micros, Micros], bool]:
    """Whether the trigger's schedule has no slot between two: one that has no entry may be filled by a backfill yet."""
    job = jobs_of([row]).get(row["id"])
    if job is None or job.schedule is None:
        return lambda before, after: False  # Which slots there were nobody can say any more.

    def adjoin(before: Micros, after: Micros) -> bool:
        following = job.next_after(before)
        return following is None or following >= after

    return adjoin


def _gaps(trigger: int, slots: Collection[Micros], known: Sequence[SkippedRange]) -> list[Gap]:
    """What lies between neighbours that may become one range: slots, and the ranges that are there."""
    edges = sorted([(slot, slot) for slot in slots] + [(item.from_slot, item.to_slot) for item in known])
    befores = [edges[0][0] - 1, *(last for _, last in edges[:-1])]
    return [Gap(trigger, before, first) for before, (first, _) in zip(befores, edges, strict=True)]


_FAMILIES: Final = (OWN_SLOTS, DONE_AGAIN, BY_HAND)
