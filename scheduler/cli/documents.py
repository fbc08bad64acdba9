"""The documents that programs read: fixed keys in fixed order, instants as RFC 3339 in UTC. Scripts depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scheduler.cli.output import keyed
from scheduler.domain.instants import to_rfc3339

Row = Mapping[str, Any]

TASK: Final = (
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
TRIGGER: Final = (
    "project",
    "domain",
    "task",
    "name",
    "version",
    "active",
    "automation",
    "next_fire_at",
    "triggered_at",
    "revision",
    "state",
    "error",
)
RUN: Final = (
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
# Of a run that is open: whether somebody wants it ended, and what it waits for.
RUN_STANDING: Final = ("aborting", "waiting_for")
VERSION: Final = ("version", "digest", "deployed_at", "deployed_by")
REVISION: Final = ("revision", "action", "at", "by", "automation")
RUN_DETAILS: Final = ("inputs", "outputs", "links", "event")
ATTEMPT: Final = ("attempt", "phase", "started_at", "finished_at", "worker", "error")
WORKER: Final = ("name", "version", "started_at", "renewed_at", "lease_until", "running", "waits")
BACKFILL: Final = (
    "backfill",
    "project",
    "domain",
    "task",
    "trigger",
    "from",
    "to",
    "reprocess",
    "max_active",
    "reverse",
    "state",
    "slots",
    "considered",
    "left_alone",
    "queued",
    "open",
    "succeeded",
    "failed",
    "aborted",
    "created_at",
    "created_by",
    "finished_at",
    "note",
)
_FORESEEN: Final = (
    "project",
    "domain",
    "task",
    "trigger",
    "from",
    "to",
    "slots",
    "first",
    "last",
    "left_alone",
    "to_fill",
)
_SLOT: Final = {
    "run": ("kind", "scheduled_at", "run", "phase"),
    "skipped": ("kind", "from", "to", "count", "reason"),
    "pruned": ("kind", "from", "to", "count"),
}
# Named one by one: an input or a schedule may hold a number under any key.
_INSTANTS: Final = frozenset(
    {
        "at",
        "deployed_at",
        "next_fire_at",
        "triggered_at",
        "scheduled_at",
        "created_at",
        "started_at",
        "finished_at",
        "renewed_at",
        "lease_until",
        "from",
        "to",
        "first",
        "last",
    }
)


def task(row: Row) -> dict[str, Any]:
    """A row of `tasks list`."""
    return _document(row, TASK)


def trigger(row: Row) -> dict[str, Any]:
    """A row of `triggers list`."""
    return _document(row, TRIGGER)


def version(row: Row) -> dict[str, Any]:
    """A row of `tasks versions`."""
    return _document(row, VERSION)


def revision(row: Row) -> dict[str, Any]:
    """A row of `triggers revisions`."""
    return _document(row, REVISION)


def revision_in_full(row: Row) -> dict[str, Any]:
    """One revision with all that the trigger said then, in the words of a deploy."""
    return _document(row, REVISION) | keyed(row, ("version", "active", "note", "spec"))


def run(row: Row) -> dict[str, Any]:
    """A row of `runs list`."""
    return _document(row, RUN) | keyed(row, RUN_STANDING)


def run_in_full(row: Row) -> dict[str, Any]:
    """The document of `runs show`."""
    attempts = [_document(attempt, ATTEMPT) for attempt in row["attempts"]]
    covers = row.get("covers")
    return (
        _document(row, RUN)
        | keyed(row, RUN_STANDING)
        | keyed(row, RUN_DETAILS)
        | {
            "attempts": attempts,
            "executor": row.get("executor"),
            "kind": row.get("kind"),
            "covers": None if covers is None else {"from": to_rfc3339(covers[0]), "to": to_rfc3339(covers[1])},
        }
    )


def slot(row: Row) -> dict[str, Any]:
    """An entry of `slots`: what a run took, or a range that was skipped."""
    return _document(row, _SLOT[row["kind"]])


def worker(row: Row) -> dict[str, Any]:
    """A row of `workers list`."""
    return _document(row, WORKER)


def backfill(row: Row) -> dict[str, Any]:
    """A row of `backfill list`, and the document of `backfill show`."""
    return _document(row, BACKFILL)


def foreseen_backfill(row: Row) -> dict[str, Any]:
    """What `backfill --dry-run` says."""
    following = [_document(item, ("scheduled_at", "run")) for item in row["next"]]
    return _document(row, _FORESEEN) | {"next": following}


def _document(row: Row, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: to_rfc3339(row[key]) if key in _INSTANTS and row[key] is not None else row[key] for key in keys}
