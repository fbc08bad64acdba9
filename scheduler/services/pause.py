"""`pause_on_failure`: a trigger whose runs keep failing is deactivated, in the transaction that records the last failure."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.domain.run import Phase
from scheduler.services.jobs import identity_of
from scheduler.services.plan import Planning
from scheduler.services.switch import switch_triggers
from scheduler.store.transaction import Transaction


def lock_pausing(tx: Transaction, trigger_ids: Iterable[int | None]) -> list[int]:
    """Locks those of these triggers that a failure may pause, and their tasks; call it before any run is locked."""
    wanted = sorted(trigger_id for trigger_id in trigger_ids if trigger_id is not None)
    rows = tx.triggers.that_may_pause(wanted) if wanted else []
    if not rows:
        return []
    tx.tasks.lock_ids({row["task_id"] for row in rows})
    return sorted(tx.triggers.lock_due(row["id"] for row in rows))


def pause_failing(tx: Transaction, locked: list[int], planning: Planning) -> tuple[str, ...]:
    """Deactivates those of the locked triggers whose newest runs all failed; returns their keys.

    Counted are runs of slots after the last activation, as many as `pause_on_failure` says; aborted ones tell
    nothing and are left out.
    """
    if not locked:
        return ()
    rows = tx.triggers.load(locked)
    asked = {key: row for key, row in rows.items() if row["active"] and row["pause_on_failure"] is not None}
    ends = tx.runs.newest_ends(
        [(key, row["activated_at"] or 0, row["pause_on_failure"]) for key, row in sorted(asked.items())]
    )
    failing = {
        key: row
        for key, row in asked.items()
        if len(ends.get(key, ())) >= row["pause_on_failure"] and Phase.SUCCEEDED not in ends[key]
    }
    if failing:
        notes = {key: f"paused after {row['pause_on_failure']} failed runs in a row" for key, row in failing.items()}
        switch_triggers(tx, list(failing), False, planning, by="scheduler", notes=notes)
    return tuple(identity_of(row) for row in failing.values())
