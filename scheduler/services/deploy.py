"""A deploy: one transaction a task, everything or nothing, and an identical deploy changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scheduler.domain.automation import automation_to_document
from scheduler.domain.calendars import calendar_to_document
from scheduler.domain.deployment import Deployed, Difference, diff
from scheduler.domain.instants import Micros, from_datetime, to_micros
from scheduler.domain.task import TaskDefinition
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import RevisionConflict
from scheduler.services.finished import why_finished
from scheduler.services.jobs import jobs_of, wakes_at
from scheduler.services.plan import Batch, Planning, Pointed, plan_anew, pointed_at, write_plans
from scheduler.services.standing import standing_document
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import DueRow

Source = Literal["manifest", "library", "api"]


@dataclass(frozen=True, slots=True)
class DeployResult:
    """What one task's deploy did; `applied` is False where it said nothing new.

    `warnings` say of the triggers that it named, by name, why they have no slot to come.
    """

    key: str
    version: str
    applied: bool
    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    warnings: Mapping[str, str] = field(default_factory=dict)


def deploy_task(
    tx: Transaction,
    definition: TaskDefinition,
    planning: Planning,
    *,
    by: str,
    source: Source = "manifest",
    at_start: bool = False,
    dry_run: bool = False,
    active_as_sent: bool = False,
    expected_revisions: Mapping[str, int] | None = None,
) -> DeployResult:
    """Makes the task and its triggers what the definition says.

    Triggers that this source deployed before and does not name now are deleted, also when it names none. With
    `at_start`, content that was ever deployed before is left alone: a restart undoes nobody's newer deploy.
    `dry_run` only tells what would happen. `active_as_sent` overrules what operators paused or activated since.
    `expected_revisions` are those of the triggers as the caller saw them, by name, 0 for one that was not there: if
    somebody changed one since, `RevisionConflict` is raised and nothing is changed.
    """
    if dry_run:
        task = tx.tasks.find(definition.project, definition.domain, definition.name)
    else:
        task = tx.tasks.lock(definition.project, definition.domain, definition.name)
    stored = dues = None
    if expected_revisions:
        stored, dues = _triggers_of(tx, task, lock=not dry_run)
        _check_revisions(definition, stored, expected_revisions)
    digest = definition.deploy_digest
    said_before = task is not None and (
        (task["deploy_digest"] == digest and not active_as_sent)
        or (at_start and tx.tasks.deployed_before(task["id"], digest))
    )
    if said_before:
        names = tuple(trigger.name for trigger in definition.triggers)
        return DeployResult(definition.key, definition.version, False, unchanged=names)
    if stored is None or dues is None:
        stored, dues = _triggers_of(tx, task, lock=not dry_run)
    difference = difference_from(stored, definition, source, active_as_sent=active_as_sent)
    same = task is not None and task["deploy_digest"] == digest and difference.is_empty
    result = DeployResult(
        definition.key,
        definition.version,
        not same,
        tuple(spec.name for spec in difference.created + difference.revived),
        tuple(spec.name for spec in difference.changed),
        difference.unchanged,
        difference.pruned,
    )
    if dry_run or same or task is None:
        return result
    now = tx.now()
    spec_digest = tx.tasks.save_spec(definition.spec)
    # The newest date is the latest version, also where the clock was set back since the last deploy.
    deployed_at = now if task["deployed_at"] is None else max(now, task["deployed_at"] + 1)
    tx.tasks.save_version(task["id"], definition, spec_digest, deployed_at, by)
    tx.tasks.record_deploy(task["id"], definition, digest, deployed_at, by)
    pointed = pointed_at(definition.version, definition.spec, spec_digest)
    # What held until now is the task's own word: a deleted trigger keeps what it was told last.
    if stored and (task["max_concurrent_runs"] is not None) != pointed.gated:
        tx.runs.limit([row["id"] for row in stored], pointed.gated)
    warnings = write_triggers(tx, task["id"], pointed, difference, stored, dues, planning, now, by, source)
    tx.tasks.refresh_summary([task["id"]])
    tx.notify()
    return replace(result, warnings=warnings)


def _triggers_of(tx: Transaction, task: Row | None, *, lock: bool) -> tuple[list[Row], dict[int, DueRow]]:
    if task is None:
        return [], {}
    stored = tx.triggers.of_task(task["id"])
    if not stored or not lock:
        return stored, {}
    # What they say is read again once nobody can change it any more.
    dues = tx.triggers.lock_due(row["id"] for row in stored)
    return tx.triggers.of_task(task["id"]), dues


def _check_revisions(definition: TaskDefinition, stored: list[Row], expected: Mapping[str, int]) -> None:
    found = {row["name"]: row["revision"] for row in stored if row["deleted_at"] is None}
    for name, revision in expected.items():
        if found.get(name, 0) != revision:
            raise RevisionConflict(f"{definition.key}/{name}", revision, found.get(name, 0))


def write_triggers(
    tx: Transaction,
    task_id: int,
    pointed: Pointed,
    difference: Difference,
    stored: list[Row],
    dues: dict[int, DueRow],
    planning: Planning,
    now: Micros,
    by: str,
    source: Source,
) -> dict[str, str]:
    """Writes what a deploy changes about a task's triggers, a revision for each change, and plans them anew.

    `stored` are all triggers of the task, whose due rows the caller has locked. Returns why triggers of the deploy have no
    slot to come, by name. One that was deleted and comes back counts its fires from 0.
    """
    old_jobs = jobs_of(stored)
    # Of a snooze that is cut short the planned activation must not stay.
    told = (row for row in stored if row["name"] in difference.sets_active)
    woken = {row["id"] for row in told if wakes_at(row, now) is not None}
    _write_rows(tx, task_id, pointed, difference, stored, now, by, source)
    rows = {row["id"]: row for row in tx.triggers.of_task(task_id)}
    locked = dues | tx.triggers.lock_due(rows.keys() - dues.keys())
    back = {spec.name for spec in difference.revived}
    if again := [key for key, row in rows.items() if row["name"] in back and locked[key].fires]:
        tx.triggers.reset_fires(again)
        locked |= {key: locked[key]._replace(fires=0) for key in again}
    batch = Batch()
    known = {key: pointed for key, row in rows.items() if row["version"] == pointed.version}
    plan_anew(tx, locked.values(), rows, planning, batch, old_jobs=old_jobs, activated=woken, known=known)
    write_plans(tx, batch)
    written = {spec.name for spec in difference.created + difference.changed + difference.revived}
    named = written.union(difference.unchanged)
    found = {
        row["name"]: why_finished(row, locked[key].fires, now) for key, row in rows.items() if row["name"] in named
    }
    return {name: why for name, why in found.items() if why is not None}


def _write_rows(
    tx: Transaction,
    task_id: int,
    pointed: Pointed,
    difference: Difference,
    stored: list[Row],
    now: Micros,
    by: str,
    source: Source,
) -> None:
    before = {row["name"]: row for row in stored}
    points = pointed._asdict()
    who = {"updated_at": now, "updated_by": by}
    revisions: list[dict[str, Any]] = []

    def revise(trigger_id: int, revision: int, action: str, spec: str, active: bool) -> None:
        revisions.append(
            {
                "trigger_id": trigger_id,
                "revision": revision,
                "action": action,
                "at": now,
                "by": by,
                "version": pointed.version,
                "active": active,
                "spec": spec,
            }
        )

    inserts = [
        {
            **columns_of(spec),
            **points,
            **who,
            "task_id": task_id,
            "revision": 1,
            "active": spec.active,
            "source": source,
        }
        for spec in difference.created
    ]
    ids = tx.triggers.insert(inserts)
    for spec in difference.created:
        revise(ids[spec.name], 1, "DEPLOY", _document(spec), spec.active)

    updates = []
    for spec in difference.changed + difference.revived:
        row = before[spec.name]
        # Whoever is told to be active, or comes back, is so now: a pause, a snooze or a skip was another's wish.
        told = spec.name in difference.sets_active
        active = spec.active if told else row["active"]
        revision = row["revision"] + 1
        updates.append(
            {
                "id": row["id"],
                **columns_of(spec),
                **points,
                **who,
                "revision": revision,
                "active": active,
                "source": source,
                "deleted_at": None,
                "snoozed_until": None if told else row["snoozed_until"],
                "skip_next_at": None if told else row["skip_next_at"],
                "note": None if told else row["note"],
            }
        )
        revise(row["id"], revision, "DEPLOY", _document(spec), active)
    tx.triggers.update(updates)

    # Unchanged triggers keep revision, position and plan; only the version they point at moves with the deploy, and
    # they belong to who names them. Those that plain SQL made follow the latest version.
    follow = {before[name]["id"]: {**points, "source": source} for name in difference.unchanged}
    for row in stored:
        if row["source"] == "sql" and row["deleted_at"] is None and row["id"] not in follow:
            follow[row["id"]] = {**points, "source": "sql"}
    named = {update["id"] for update in updates}
    tx.triggers.update([{"id": each, **follow[each]} for each in sorted(follow.keys() - named)])

    deletes = []
    for name in difference.pruned:
        row = before[name]
        deletes.append({"id": row["id"], "deleted_at": now, "revision": row["revision"] + 1, **who})
        revise(row["id"], row["revision"] + 1, "DELETE", standing_document(row), bool(row["active"]))
    tx.triggers.update(deletes)
    tx.triggers.append_revisions(revisions)


def columns_of(spec: TriggerSpec) -> dict[str, Any]:
    """The columns of a trigger that its specification fills."""
    return {
        "name": spec.name,
        "automation": None if spec.automation is None else _json(automation_to_document(spec.automation)),
        "inputs": _json(dict(spec.inputs)),
        "kickoff_arg": spec.kickoff_time_input_arg,
        "catchup_policy": spec.catchup.policy,
        "catchup_window": to_micros(spec.catchup.window),
        "catchup_max_runs": spec.catchup.max_runs,
        "overlap": spec.overlap,
        "pause_on_failure": spec.pause_on_failure,
        "jitter": to_micros(spec.jitter),
        "start_at": None if spec.start is None else from_datetime(spec.start),
        "end_at": None if spec.end is None else from_datetime(spec.end),
        "max_fires": spec.max_fires,
        "calendars": _json([calendar_to_document(calendar) for calendar in spec.calendars]),
        "description": spec.description,
        "deployed": _document(spec),
    }


def difference_from(
    stored: Iterable[Row], definition: TaskDefinition, source: Source, *, active_as_sent: bool = False
) -> Difference:
    """What the definition changes about the triggers that its task has; `source` is who deploys."""
    before = [_deployed(row, source) for row in stored]
    return diff(before, definition.triggers, active_as_sent=active_as_sent)


def _deployed(row: Row, source: Source) -> Deployed:
    document = json.loads(row["deployed"]) if row["deployed"] else None
    active = bool(row["active"]) and row["snoozed_until"] is None
    return Deployed(row["name"], document, row["deleted_at"] is not None, row["source"] == source, active)


def _document(spec: TriggerSpec) -> str:
    return _json(spec.to_document())


def _json(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
