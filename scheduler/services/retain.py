"""Retention: history that is over its age is removed in small batches, by one worker at a time.

What a batch removes leaves its slots in the ledger, as pruned ranges. Nothing fires again for it: a trigger's position alone
says what it owes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.ledger import Reason, SkippedRange, merge_pruned
from scheduler.store.retention import BY_HAND, DONE_AGAIN, OWN_SLOTS, Gap, OldRun, RunFamily
from scheduler.store.transaction import Transaction

BATCH: Final = 1_000
_DAY: Final = 86_400 * SECOND
_MINUTE: Final = 60 * SECOND
# How many triggers one transaction looks at.
_TRIGGERS: Final = 100
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


@dataclass(frozen=True, slots=True)
class Retained:
    """What one batch did. `ended` says that it was the last one of this time."""

    runs: int = 0
    revisions: int = 0
    backfills: int = 0
    ended: bool = False


# Returns what it did, and where to go on: None where the chore is done.
_Chore: TypeAlias = Callable[[Transaction, RetentionRules, int, Micros, int], tuple[Retained, int | None]]


def retain(tx: Transaction, rules: RetentionRules, limit: int = BATCH) -> Retained | None:
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
    done, after = _CHORES[state["chore"] % len(_CHORES)](tx, rules, state["after"], now, limit)
    chore = state["chore"] if after is not None else state["chore"] + 1
    ended = chore == len(_CHORES)
    state = {"chore": 0 if ended else chore, "after": after or 0, "next_at": now + rules.interval if ended else 0}
    tx.retention.put(json.dumps(state))
    return Retained(done.runs, done.revisions, done.backfills, ended)


def _runs_of(family: RunFamily) -> _Chore:
    def remove(
        tx: Transaction, rules: RetentionRules, after: int, now: Micros, limit: int
    ) -> tuple[Retained, int | None]:
        ids = tx.retention.triggers_after(family, after, _TRIGGERS)
        if not ids:
            return Retained(), None
        cutoff = now - rules.runs
        before = tx.retention.removable_before(family, ids, rules.runs_per_trigger, cutoff)
        old = tx.retention.old_runs(family, before, cutoff, limit)
        if old:
            tx.retention.remove_runs([run.name for run in old])
            _leave_ranges(tx, old)
        return Retained(runs=len(old)), after if len(old) >= limit else ids[-1]

    return remove


def _leave_ranges(tx: Transaction, removed: Sequence[OldRun]) -> None:
    """Writes the slots that have lost their last run into pruned ranges; the runs are gone already."""
    slots: dict[int, list[Micros]] = {}
    living = tx.retention.living(sorted({run.trigger_id for run in removed}))
    for run in removed:
        if run.scheduled_at is not None and run.trigger_id in living:
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
    gaps = [gap for trigger in sorted(slots) for gap in _gaps(trigger, lost[trigger], known[trigger])]
    for gap, within, still in tx.retention.runs_left(gaps):
        if within is not None:
            others[gap.trigger_id].append(within)
        if still and gap.slot in lost[gap.trigger_id]:
            others[gap.trigger_id].append(gap.slot)
            lost[gap.trigger_id].discard(gap.slot)
    merged = {trigger: merge_pruned(known[trigger], lost[trigger], others[trigger]) for trigger in slots}
    tx.ledger.replace(known, merged)


def _gaps(trigger: int, slots: Collection[Micros], known: Sequence[SkippedRange]) -> list[Gap]:
    """What lies between neighbours that may become one range: slots, and the ranges that are there."""
    edges = sorted([(slot, slot) for slot in slots] + [(item.from_slot, item.to_slot) for item in known])
    befores = [edges[0][0] - 1, *(last for _, last in edges[:-1])]
    return [Gap(trigger, before, first) for before, (first, _) in zip(befores, edges, strict=True)]


def _revisions(
    tx: Transaction, rules: RetentionRules, after: int, now: Micros, limit: int
) -> tuple[Retained, int | None]:
    removed, after_next = tx.retention.remove_revisions(after, _TRIGGERS_OF_REVISIONS, now - rules.revisions, limit)
    return Retained(revisions=removed), after_next


def _backfills(
    tx: Transaction, rules: RetentionRules, after: int, now: Micros, limit: int
) -> tuple[Retained, int | None]:
    removed = tx.retention.remove_backfills(now - rules.runs, limit)
    return Retained(backfills=removed), after if removed >= limit else None


_CHORES: Final[tuple[_Chore, ...]] = (
    _runs_of(OWN_SLOTS),
    _runs_of(DONE_AGAIN),
    _runs_of(BY_HAND),
    _revisions,
    _backfills,
)
