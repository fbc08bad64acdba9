"""What an operator does to several triggers at once, all or none: activate, deactivate, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scheduler.errors import NotFound, RevisionConflict
from scheduler.services.jobs import jobs_of
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Batch, Planning, plan_anew, write_plans
from scheduler.services.revise import Action, revised, revision_of
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
    changed = {
        key: row for key, row in held.rows.items() if bool(row["active"]) != active or row["snoozed_until"] is not None
    }
    action: Action = "ACTIVATE" if active else "DEACTIVATE"
    _change(tx, changed, held.dues, planning, by, action, {"active": active, "snoozed_until": None})
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
    Raises `NotFound`, naming all that do not exist, and `RevisionConflict` if somebody changed one first.
    """
    held = _hold(tx, keys, expected_revisions or {})
    _change(tx, held.rows, held.dues, planning, by, "DELETE", {"deleted_at": tx.now()})
    # The same deploy once more is no longer what stands there: it must not pass for one that changes nothing.
    tx.tasks.forget_deploy(sorted({row["task_id"] for row in held.rows.values()}))
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


def _change(
    tx: Transaction,
    changed: Mapping[TriggerKey, Row],
    dues: Mapping[int, DueRow],
    planning: Planning,
    by: str,
    action: Action,
    values: Mapping[str, object],
) -> None:
    if not changed:
        return
    now = tx.now()
    rows = list(changed.values())
    tx.triggers.update([revised(row, now, by, **values) for row in rows])
    tx.triggers.append_revisions([revision_of(row, action, now, by) for row in rows])
    batch = Batch()
    ids = [row["id"] for row in rows]
    plan_anew(tx, [dues[each] for each in ids], tx.triggers.load(ids), planning, batch, old_jobs=jobs_of(rows))
    write_plans(tx, batch)
    tx.tasks.refresh_summary(sorted({row["task_id"] for row in rows}))
    tx.notify()
