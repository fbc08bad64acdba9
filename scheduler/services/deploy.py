"""A deploy: one transaction a task, everything or nothing, and an identical deploy changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from scheduler.domain.automation import automation_to_document
from scheduler.domain.calendars import calendar_to_document
from scheduler.domain.deployment import Deployed, Difference, diff
from scheduler.domain.instants import Micros, from_datetime, to_micros
from scheduler.domain.task import TaskDefinition
from scheduler.domain.trigger import TriggerSpec
from scheduler.services.jobs import jobs_of
from scheduler.services.plan import Batch, Planning, plan_anew, pointed_at, write_plans
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

Source = Literal["manifest", "library", "api"]


@dataclass(frozen=True, slots=True)
class DeployResult:
    """What one task's deploy did; `applied` is False where it said nothing new."""

    key: str
    version: str
    applied: bool
    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()


def deploy_task(
    tx: Transaction,
    definition: TaskDefinition,
    planning: Planning,
    *,
    by: str,
    source: Source = "manifest",
    at_start: bool = False,
    dry_run: bool = False,
) -> DeployResult:
    """Makes the task and its triggers what the definition says.

    Triggers that this source deployed before and does not name now are deleted, also when it names none. With
    `at_start`, content that was ever deployed before is left alone: a restart undoes nobody's newer deploy.
    `dry_run` only tells what would happen.
    """
    if dry_run and tx.tasks.find(definition.project, definition.domain, definition.name) is None:
        created = tuple(trigger.name for trigger in definition.triggers)
        return DeployResult(definition.key, definition.version, True, created)
    task = tx.tasks.lock(definition.project, definition.domain, definition.name)
    digest = definition.deploy_digest
    if task["deploy_digest"] == digest or (at_start and tx.tasks.deployed_before(task["id"], digest)):
        return DeployResult(
            definition.key, definition.version, False, unchanged=tuple(trigger.name for trigger in definition.triggers)
        )
    stored = tx.triggers.of_task(task["id"])
    dues = tx.triggers.lock_due(row["id"] for row in stored)
    stored = tx.triggers.of_task(task["id"])
    difference = difference_from(stored, definition, source)
    result = DeployResult(
        definition.key,
        definition.version,
        True,
        tuple(spec.name for spec in difference.created + difference.revived),
        tuple(spec.name for spec in difference.changed),
        difference.unchanged,
        difference.pruned,
    )
    if dry_run:
        return result
    now = tx.now()
    spec_digest = tx.tasks.save_spec(definition.spec)
    tx.tasks.save_version(task["id"], definition, spec_digest, now, by)
    tx.tasks.record_deploy(task["id"], definition, now, by)
    old_jobs = jobs_of(stored)
    _write_triggers(tx, task["id"], definition, difference, stored, now, by, source, spec_digest)
    rows = {row["id"]: row for row in tx.triggers.of_task(task["id"])}
    dues |= tx.triggers.lock_due(rows.keys() - dues.keys())
    batch = Batch()
    plan_anew(tx, dues.values(), rows, planning, batch, old_jobs=old_jobs)
    write_plans(tx, batch)
    tx.tasks.refresh_summary([task["id"]])
    tx.notify()
    return result


def _write_triggers(
    tx: Transaction,
    task_id: int,
    definition: TaskDefinition,
    difference: Difference,
    stored: list[Row],
    now: Micros,
    by: str,
    source: Source,
    spec_digest: str,
) -> None:
    before = {row["name"]: row for row in stored}
    pointed = pointed_at(definition.version, definition.spec, spec_digest)._asdict()
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
                "version": definition.version,
                "active": active,
                "spec": spec,
            }
        )

    inserts = [
        {
            **columns_of(spec),
            **pointed,
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
        active = spec.active if spec.name in difference.sets_active else row["active"]
        revision = row["revision"] + 1
        updates.append(
            {
                "id": row["id"],
                **columns_of(spec),
                **pointed,
                **who,
                "revision": revision,
                "active": active,
                "source": source,
                "deleted_at": None,
            }
        )
        revise(row["id"], revision, "DEPLOY", _document(spec), active)
    tx.triggers.update(updates)

    # Unchanged triggers keep revision, position and plan; only the version they point at moves with the deploy. So do
    # those that plain SQL made, which follow the latest version.
    follow = [before[name]["id"] for name in difference.unchanged]
    follow += [row["id"] for row in stored if row["source"] == "sql" and row["deleted_at"] is None]
    tx.triggers.update([{"id": trigger_id, **pointed} for trigger_id in sorted(set(follow))])

    deletes = []
    for name in difference.pruned:
        row = before[name]
        deletes.append({"id": row["id"], "deleted_at": now, "revision": row["revision"] + 1, **who})
        revise(row["id"], row["revision"] + 1, "DELETE", row["deployed"] or "{}", row["active"])
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


def difference_from(stored: Iterable[Row], definition: TaskDefinition, source: Source) -> Difference:
    """What the definition changes about the triggers that its task has; `source` is who deploys."""
    return diff([_deployed(row, source) for row in stored], definition.triggers)


def _deployed(row: Row, source: Source) -> Deployed:
    document = json.loads(row["deployed"]) if row["deployed"] else None
    return Deployed(row["name"], document, row["deleted_at"] is not None, row["source"] == source)


def _document(spec: TriggerSpec) -> str:
    return _json(spec.to_document())


def _json(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
