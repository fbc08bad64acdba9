"""What an operator does to several triggers at once, all or none: activate, deactivate, snooze, reset, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scheduler.domain.instants import Micros, to_rfc3339
from scheduler.errors import Conflict, NotFound, RevisionConflict, SpecError
from scheduler.services.jobs import jobs_of, wakes_at
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Batch, Planning, plan_anew, write_plans
from scheduler.services.standing import standing_document
from scheduler.services.switch import switch_triggers
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import DueRow


class _Held(NamedTuple):
    rows: dict[TriggerKey, Row]
    dues: dict[int, DueRow]


def set_active_many(
    tx: Transaction,
    keys: Iterable[TriggerKey],
    active: bool,
    planning: Planning,
    *,
    by: str,
    expected_revisions: Mapping[TriggerKey, int] | None = None,
) -> list[TriggerKey]:
    """Activates or deactivates triggers as `set_active` does one; returns those that were not so before, by key.

    Raises `NotFound`, naming all that do not exist, and `RevisionConflict` if somebody changed one first.
    """
    held = _hold(tx, keys, expected_revisions or {})
    now = tx.now()
    changed = {
        key: row["id"]
        for key, row in held.rows.items()
        if bool(row["active"]) != active or wakes_at(row, now) is not None
    }
    if changed:
        switch_triggers(tx, changed.values(), active, planning, by=by)
    return list(changed)


def snooze_many(
    tx: Transaction, keys: Iterable[TriggerKey], until: Micros, planning: Planning, *, by: str
) -> list[TriggerKey]:
    """Snoozes triggers as `snooze` does one; returns them by key.

    Raises `NotFound` and `Conflict`, naming all that do not exist or are inactive, and `SpecError` for an instant that is
    past.
    """
    held = _hold(tx, keys, {})
    inactive = [str(key) for key, row in held.rows.items() if not row["active"]]
    if inactive:
        raise Conflict(f"inactive already: {', '.join(inactive)}")
    if until <= tx.now():
        raise SpecError("until", f"{to_rfc3339(until)} is past: a snooze ends in the future")
    ids = [row["id"] for row in held.rows.values()]
    if ids:
        notes = dict.fromkeys(ids, f"snoozed until {to_rfc3339(until)}")
        switch_triggers(tx, ids, True, planning, by=by, notes=notes, snoozed_until=until)
    return list(held.rows)


def reset_fires(
    tx: Transaction,
    keys: Iterable[TriggerKey],
    planning: Planning,
    *,
    by: str,
    expected_revisions: Mapping[TriggerKey, int] | None = None,
) -> list[TriggerKey]:
    """Counts the fires of triggers from 0 again, so that one whose `max_fires` was used up goes on, strictly after now.

    Returns those that had fired, by key; each gets a revision. What is inactive stays so. Raises `NotFound`, naming all
    that do not exist, and `RevisionConflict` if somebody changed one first.
    """
    held = _hold(tx, keys, expected_revisions or {})
    changed = {key: row for key, row in held.rows.items() if held.dues[row["id"]].fires}
    if not changed:
        return []
    now, rows = tx.now(), list(changed.values())
    ids = [row["id"] for row in rows]
    tx.triggers.reset_fires(ids)
    tx.triggers.update([_revised(row, now, by) for row in rows])
    tx.triggers.append_revisions([_revision(row, "RESET", now, by) for row in rows])
    batch = Batch()
    dues = [held.dues[each]._replace(fires=0) for each in ids]
    plan_anew(tx, dues, tx.triggers.load(ids), planning, batch, old_jobs=jobs_of(rows))
    write_plans(tx, batch)
    tx.tasks.refresh_summary(sorted({row["task_id"] for row in rows}))
    tx.notify()
    return list(changed)


def delete_triggers(
    tx: Transaction,
    keys: Iterable[TriggerKey],
    planning: Planning,
    *,
    by: str,
    expected_revisions: Mapping[TriggerKey, int] | None = None,
) -> list[TriggerKey]:
    """Deletes triggers, whoever deployed them: due slots are skipped, runs that have not started are aborted.

    Their history stays readable, and a deploy that names one brings it back with the next revision; a restart does not.
    Returns them by key. Raises `NotFound`, naming all that do not exist, and `RevisionConflict` if somebody changed one
    first.
    """
    held = _hold(tx, keys, expected_revisions or {})
    if not held.rows:
        return []
    now = tx.now()
    rows = list(held.rows.values())
    tx.triggers.update([_revised(row, now, by) | {"deleted_at": now} for row in rows])
    tx.triggers.append_revisions([_revision(row, "DELETE", now, by) for row in rows])
    batch = Batch()
    ids = [row["id"] for row in rows]
    plan_anew(tx, [held.dues[each] for each in ids], tx.triggers.load(ids), planning, batch, old_jobs=jobs_of(rows))
    write_plans(tx, batch)
    tasks = sorted({row["task_id"] for row in rows})
    tx.tasks.refresh_summary(tasks)
    # The same deploy once more is no longer what stands there: it must not pass for one that changes nothing.
    tx.tasks.forget_deploy(tasks)
    tx.notify()
    return list(held.rows)


def _hold(tx: Transaction, keys: Iterable[TriggerKey], expected: Mapping[TriggerKey, int]) -> _Held:
    wanted = sorted(set(keys))
    if not wanted:
        return _Held({}, {})
    tx.tasks.lock_present(key[:3] for key in wanted)
    ids = tx.triggers.ids_of(wanted)
    if missing := [str(key) for key in wanted if key not in ids]:
        raise NotFound("trigger", ", ".join(missing))
    dues = tx.triggers.lock_due(ids.values())
    loaded = tx.triggers.load(ids.values())
    rows = {key: loaded[ids[key]] for key in wanted}
    for key, row in rows.items():
        if key in expected and row["revision"] != expected[key]:
            raise RevisionConflict(str(key), expected[key], row["revision"])
    return _Held(rows, dues)


def _revised(row: Row, now: Micros, by: str) -> dict[str, object]:
    return {"id": row["id"], "revision": row["revision"] + 1, "updated_at": now, "updated_by": by}


def _revision(row: Row, action: str, now: Micros, by: str) -> dict[str, object]:
    return {
        "trigger_id": row["id"],
        "revision": row["revision"] + 1,
        "action": action,
        "at": now,
        "by": by,
        "version": row["version"],
        "active": bool(row["active"]),
        "spec": standing_document(row),
        "note": None,
    }
