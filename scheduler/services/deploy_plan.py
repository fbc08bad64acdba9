"""What a deploy changes, told before it or as it happens: field by field, with the next fires before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from scheduler.domain.automation import At
from scheduler.domain.changes import Change, changes
from scheduler.domain.instants import Micros
from scheduler.domain.job import Job
from scheduler.domain.manifest_form import task_form, trigger_form
from scheduler.domain.task import TaskDefinition
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import SpecError
from scheduler.services.deploy import Source, columns_of, deploy_task, difference_from
from scheduler.services.deployed import definition_of, deployed_spec
from scheduler.services.finished import why_finished
from scheduler.services.jobs import job_of, job_to_be, to_come_after
from scheduler.services.plan import Planning
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import trigger_filters

Action = Literal["created", "changed", "unchanged", "pruned"]

FIRES: Final = 5
_MANY: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TriggerPlan:
    """What becomes of one trigger; fires are its next slots from now, none where it is inactive, manual or gone.

    Fires are told of triggers that are created, changed or pruned; the others keep theirs. `warning` says why an active
    trigger has no slot to come.
    """

    name: str
    action: Action
    automation: Mapping[str, Any] | None = None
    changes: tuple[Change, ...] = ()
    fires_before: tuple[Micros, ...] = ()
    fires_after: tuple[Micros, ...] = ()
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class DeployPlan:
    """What a deploy makes of one task and its triggers; `unchanged` where it says nothing new about any of them."""

    project: str
    domain: str
    name: str
    version: str
    action: Action
    changes: tuple[Change, ...] = ()
    triggers: tuple[TriggerPlan, ...] = ()

    @property
    def key(self) -> str:
        """`project/domain/name`."""
        return f"{self.project}/{self.domain}/{self.name}"


def plan_deploy(tx: Transaction, definition: TaskDefinition, source: Source = "manifest") -> DeployPlan:
    """What deploying the definition now would do; nothing is written."""
    task = tx.tasks.find(definition.project, definition.domain, definition.name)
    now = tx.now()
    if task is None:
        return plan_of_new(definition, now)
    if task["deploy_digest"] == definition.deploy_digest:
        return _plan(definition, "unchanged", triggers=_left_alone(tx, definition, now))
    stored = tx.triggers.of_task(task["id"])
    if task["deploy_digest"] is None and not stored:
        return plan_of_new(definition, now)
    live = _live(tx, definition)
    difference = difference_from(stored, definition, source)
    triggers = [
        _changed(live[spec.name], spec, spec.name in difference.sets_active, now) for spec in difference.changed
    ]
    triggers += [_created(definition, spec, now) for spec in difference.created + difference.revived]
    triggers += [_unchanged(live[name], now) for name in difference.unchanged]
    triggers += [_pruned(live[name], now) for name in difference.pruned]
    before = None if task["deleted_at"] is not None else _last_definition(tx, task)
    differences = () if before is None else changes(task_form(before, whole=True), task_form(definition, whole=True))
    order = {spec.name: place for place, spec in enumerate(definition.triggers)}
    action: Action = "changed" if differences or any(item.action != "unchanged" for item in triggers) else "unchanged"
    return _plan(
        definition,
        "created" if before is None else action,
        differences,
        tuple(sorted(triggers, key=lambda item: order.get(item.name, len(order)))),
    )


def plan_of_new(definition: TaskDefinition, now: Micros) -> DeployPlan:
    """What deploying a task that nobody knows would do."""
    triggers = tuple(_created(definition, spec, now) for spec in definition.triggers)
    return _plan(definition, "created", triggers=triggers)


def deploy_planned(
    tx: Transaction, definition: TaskDefinition, planning: Planning, *, by: str, source: Source = "manifest"
) -> DeployPlan:
    """Deploys the definition and tells what that did, as `plan_deploy` would have told it in the same moment."""
    task = tx.tasks.lock(definition.project, definition.domain, definition.name)
    if task["deploy_digest"] not in (None, definition.deploy_digest):
        # What is told of the triggers must still hold when they are written.
        tx.triggers.lock_due(row["id"] for row in tx.triggers.of_task(task["id"]))
    plan = plan_deploy(tx, definition, source)
    if plan.action != "unchanged":
        deploy_task(tx, definition, planning, by=by, source=source)
    return plan


def _plan(
    definition: TaskDefinition,
    action: Action,
    differences: tuple[Change, ...] = (),
    triggers: tuple[TriggerPlan, ...] = (),
) -> DeployPlan:
    return DeployPlan(
        definition.project, definition.domain, definition.name, definition.version, action, differences, triggers
    )


def _left_alone(tx: Transaction, definition: TaskDefinition, now: Micros) -> tuple[TriggerPlan, ...]:
    """Triggers of a deploy that says nothing new; only those whose schedule may be over are looked at."""
    ending = any(
        isinstance(spec.automation, At) or spec.end is not None or spec.max_fires is not None
        for spec in definition.triggers
    )
    live = _live(tx, definition) if ending else {}
    return tuple(
        _unchanged(live[spec.name], now) if spec.name in live else TriggerPlan(spec.name, "unchanged")
        for spec in definition.triggers
    )


def _live(tx: Transaction, definition: TaskDefinition) -> dict[str, Row]:
    filters = trigger_filters(definition.project, definition.domain, definition.name, None, None)
    return {row["name"]: row for row in tx.triggers.list_live(*filters, limit=_MANY)}


def _last_definition(tx: Transaction, task: Row) -> TaskDefinition | None:
    """The task as its last deploy left it, without triggers; None where it was never deployed."""
    if task["latest_version"] is None:
        return None
    version = tx.tasks.version_of(task["id"], task["latest_version"])
    if version is None:
        return None
    spec = tx.tasks.specs([version["spec_digest"]])[version["spec_digest"]]
    return definition_of(task, version, spec)


# --- triggers --------------------------------------------------------------------------------------------------------


def _created(definition: TaskDefinition, spec: TriggerSpec, now: Micros) -> TriggerPlan:
    row = {
        **columns_of(spec),
        "project": definition.project,
        "domain": definition.domain,
        "task": definition.name,
        "active": spec.active,
        "deleted_at": None,
        "snoozed_until": None,
        "activated_at": None,
        "anchor_at": None,
        "anchor_interval": None,
    }
    new = cast(Row, row)
    fires = _fires(job_to_be(new, now) if spec.active else None, now, spec.max_fires)
    return TriggerPlan(spec.name, "created", _automation(spec), fires_after=fires, warning=why_finished(new, 0, now))


def _unchanged(row: Row, now: Micros) -> TriggerPlan:
    owes = row["due_at"] is not None and row["next_slot"] <= now
    return TriggerPlan(row["name"], "unchanged", warning=None if owes else why_finished(row, row["fires"] or 0, now))


def _changed(row: Row, spec: TriggerSpec, sets_active: bool, now: Micros) -> TriggerPlan:
    values: dict[str, Any] = {**row, **columns_of(spec)}
    if sets_active:
        # Whoever is told to be active is so now: a pause, a snooze or a skip was another's wish.
        values |= {"active": spec.active, "snoozed_until": None, "skip_next_at": None}
        values["activated_at"] = None if row["snoozed_until"] is not None else row["activated_at"]
    new = cast(Row, values)
    old_job = _old_job(row)
    new_job = job_to_be(new, now) if new["active"] else None
    same = new_job is not None and old_job is not None and new_job.fingerprint == old_job.fingerprint
    before, after = _to_come_after(row, old_job, now), _wakes(new, now)
    return TriggerPlan(
        spec.name,
        "changed",
        _automation(spec),
        _trigger_changes(deployed_spec(row) or TriggerSpec(spec.name), spec),
        _fires(old_job, before, _left(row), row["skip_next_at"]),
        _fires(new_job, before if same else after, _left(new), new["skip_next_at"]),
        why_finished(new, row["fires"] or 0, now),
    )


def _pruned(row: Row, now: Micros) -> TriggerPlan:
    before = deployed_spec(row)
    job = _old_job(row)
    fires = _fires(job, _to_come_after(row, job, now), _left(row), row["skip_next_at"])
    return TriggerPlan(row["name"], "pruned", None if before is None else _automation(before), fires_before=fires)


def _trigger_changes(before: TriggerSpec, after: TriggerSpec) -> tuple[Change, ...]:
    old, new = trigger_form(before, whole=True), trigger_form(after, whole=True)
    # Calendars by name, so that one more date does not read as another list; only their order is told as a list.
    return changes(_with_named_calendars(old), _with_named_calendars(new)) or changes(old, new)


def _with_named_calendars(form: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for item in form["calendars"]:
        name = item["name"] if item["name"] not in named else f"{item['name']} ({len(named) + 1})"
        named[name] = {"dates": item["dates"], "policy": item["policy"]}
    return form | {"calendars": named}


def _automation(spec: TriggerSpec) -> Mapping[str, Any] | None:
    automation: Mapping[str, Any] | None = spec.to_document().get("automation")
    return automation


def _old_job(row: Row) -> Job | None:
    try:
        return job_of(row) if row["active"] else None
    except SpecError:
        return None  # Set aside: it fires nothing until it is mended.


def _wakes(row: Row, now: Micros) -> Micros:
    """The instant after which the trigger may fire again: now, or the end of its snooze."""
    return max(now, row["snoozed_until"] or 0)


def _to_come_after(row: Row, job: Job | None, now: Micros) -> Micros:
    """The instant after which the trigger as it stands fires what is told of it."""
    return _wakes(row, now) if job is None else to_come_after(row, job, row["next_slot"], now)


def _left(row: Row) -> int | None:
    return None if row["max_fires"] is None else max(0, row["max_fires"] - (row["fires"] or 0))


def _fires(job: Job | None, after: Micros, left: int | None, skipped: Micros | None = None) -> tuple[Micros, ...]:
    found: list[Micros] = []
    slot = None if job is None else job.next_free(after)
    while job is not None and slot is not None and len(found) < (FIRES if left is None else min(FIRES, left)):
        if slot != skipped:
            found.append(slot)
        slot = job.next_free(slot)
    return tuple(found)
