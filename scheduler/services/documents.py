"""Definitions and runs as listings show them: plain documents, instants as epoch microseconds."""

from __future__ import annotations

import json
from typing import Any, Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.run import Kind, Phase
from scheduler.errors import SpecError
from scheduler.services.jobs import is_live, job_of, wakes_at
from scheduler.store.rows import Row

_TASK_KEYS: Final = (
    "project",
    "domain",
    "name",
    "version",
    "environment",
    "function_name",
    "description",
    "total_triggers",
    "active_triggers",
    "deployed_at",
    "deployed_by",
)
_VERSION_KEYS: Final = (
    "project",
    "domain",
    "name",
    "version",
    "environment",
    "function_name",
    "description",
    "deployed_at",
    "deployed_by",
)
_RUN_KEYS: Final = (
    "name",
    "project",
    "domain",
    "task",
    "version",
    "trigger",
    "scheduled_at",
    "phase",
    "attempt",
    "lost",
    "created_at",
    "started_at",
    "finished_at",
    "error",
)
_REVISION_KEYS: Final = ("revision", "action", "at", "by", "version", "note")


def task_document(row: Row) -> dict[str, Any]:
    """The latest version of a task, with the summary of its triggers."""
    return {key: row[key] for key in _TASK_KEYS} | {
        "digest": row["spec_digest"],
        "trigger_name": row["trigger_name"],
        "trigger_automation": _json(row["trigger_automation"]),
    }


def version_document(row: Row) -> dict[str, Any]:
    """One version of a task."""
    return {key: row[key] for key in _VERSION_KEYS} | {"digest": row["spec_digest"]}


def revision_document(row: Row) -> dict[str, Any]:
    """One change of a trigger, without all that the trigger said then."""
    document = {key: row[key] for key in _REVISION_KEYS}
    return document | {"active": bool(row["active"]), "automation": json.loads(row["spec"]).get("automation")}


def trigger_document(row: Row, now: Micros) -> dict[str, Any]:
    """A live trigger with what it fires next."""
    live = is_live(row, now)
    return {
        "project": row["project"],
        "domain": row["domain"],
        "task": row["task"],
        "name": row["name"],
        "version": row["task_version"],
        "active": bool(row["active"]),
        "automation": _json(row["automation"]),
        "next_fire_at": _next_fire(row) if row["due_at"] is not None and (live or wakes_at(row, now)) else None,
        "triggered_at": row["fired_at"],
        "revision": row["revision"],
        "state": _state(row, live),
        "error": row["error"],
    }


def run_document(row: Row) -> dict[str, Any]:
    """A run, without what it waits for. `aborting` is true of one that is open and that somebody wants to end."""
    aborting = row["intent"] is not None and Phase(row["phase"]).open
    return {key: row[key] for key in _RUN_KEYS} | {"manual": row["kind"] == Kind.MANUAL, "aborting": aborting}


def _json(text: str | None) -> Any:
    # Plain SQL may have written anything: a listing shows it as it is.
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _next_fire(row: Row) -> Micros | None:
    # What is planned may be a slot that a calendar blacks out, planned to be written down as skipped.
    # Or the one that somebody said to skip.
    slot: Micros = row["next_slot"]
    if row["calendars"] == "[]" and slot != row["skip_next_at"]:
        return slot
    try:
        job = job_of(row)
        fire = job.next_free(slot - SECOND)
        return fire if fire is None or fire != row["skip_next_at"] else job.next_free(fire)
    except SpecError:
        return slot


def _state(row: Row, live: bool) -> str:
    if row["error"] is not None:
        return "quarantined"
    if not live:
        return "snoozed" if row["active"] and row["snoozed_until"] is not None else "inactive"
    if row["automation"] is None:
        return "manual"
    if row["planned_from"] is None:
        return "unplanned"
    return "scheduled" if row["due_at"] is not None else "finished"
