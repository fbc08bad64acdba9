"""Reading: what listings show, as plain documents. Instants stay epoch microseconds; whoever shows them formats them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from scheduler.domain.instants import Micros
from scheduler.domain.ledger import Reason
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec, merge_inputs
from scheduler.errors import NotFound
from scheduler.services.documents import run_document, task_document, trigger_document
from scheduler.services.hindrances import waiting_for
from scheduler.services.operate import TriggerKey
from scheduler.services.waiting import links_seen
from scheduler.store.listings import TASKS, Condition
from scheduler.store.rows import Row
from scheduler.store.run_lookups import run_filters
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import trigger_filters

_ATTEMPT_KEYS: Final = ("attempt", "phase", "started_at", "finished_at", "worker", "error")


def list_tasks(
    tx: Transaction, *, project: str | None = None, domain: str | None = None, name: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """The latest version of every task, by key."""
    return [task_document(row) for row in _tasks(tx, limit, project=project, domain=domain, name=name)]


def show_task(tx: Transaction, project: str, domain: str, name: str) -> dict[str, Any]:
    """One task's latest version with its specification; raises `NotFound`."""
    rows = _tasks(tx, 1, project=project, domain=domain, name=name)
    if not rows:
        raise NotFound("task", f"{project}/{domain}/{name}")
    spec = tx.tasks.specs([rows[0]["spec_digest"]])[rows[0]["spec_digest"]]
    return task_document(rows[0]) | {"spec": json.loads(spec.encode())}


def list_triggers(
    tx: Transaction,
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    name: str | None = None,
    active: bool | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Live triggers by key, with what they fire next."""
    now = tx.now()
    rows = tx.triggers.list_live(*trigger_filters(project, domain, task, name, active), limit=limit)
    return [trigger_document(row, now) for row in rows]


def show_trigger(tx: Transaction, key: TriggerKey) -> dict[str, Any]:
    """One live trigger with all it says; raises `NotFound`."""
    row = tx.triggers.find(*key)
    if row is None:
        raise NotFound("trigger", str(key))
    now, skips = tx.now(), row["skip_next_at"]
    details = {
        "inputs": json.loads(row["inputs"]),
        "kickoff_time_input_arg": row["kickoff_arg"],
        "catchup": {
            "policy": row["catchup_policy"],
            "window": row["catchup_window"] / 1_000_000,
            "max_runs": row["catchup_max_runs"],
        },
        "overlap": row["overlap"],
        "description": row["description"],
        "source": row["source"],
        "updated_at": row["updated_at"],
        "updated_by": row["updated_by"],
        "note": row["note"],
        "snoozed_until": row["snoozed_until"],
        # Until it is decided: a slot that waits out its jitter, or for a worker, lies before now.
        "skip_next_at": skips if skips is not None and skips >= min(now, row["next_slot"] or now) else None,
    }
    return trigger_document(row, now) | details


def upcoming(tx: Transaction, limit: int = 5) -> list[dict[str, Any]]:
    """The triggers that fire next, soonest first."""
    now = tx.now()
    return [trigger_document(row, now) for row in tx.triggers.next_fires(limit)]


def list_runs(
    tx: Transaction,
    *,
    project: str | None = None,
    domain: str | None = None,
    task: str | None = None,
    trigger: str | None = None,
    phase: str | None = None,
    since: Micros | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Runs, newest first; `since` is an instant before which none was created.

    `aborting` is true of one under way that somebody wants to end; `waiting_for` says what an open one waits for.
    """
    conditions = run_filters(project=project, domain=domain, task=task, trigger=trigger, phase=phase, since=since)
    rows = tx.runs.list_newest(*conditions, limit=limit)
    hindrances = waiting_for(tx, rows)
    return [run_document(row) | {"waiting_for": hindrances.get(row["name"])} for row in rows]


def show_run(tx: Transaction, name: str) -> dict[str, Any]:
    """One run with its inputs, outputs and attempts; raises `NotFound`.

    An execution whose worker was lost, so that its attempt began again, is an entry LOST before that of the attempt.
    """
    row = tx.runs.find(name)
    if row is None:
        raise NotFound("run", name)
    spec = tx.tasks.specs([row["spec_digest"]]).get(row["spec_digest"])
    lost = [{**execution, "phase": "LOST"} for execution in tx.runs.lost_attempts_of(name)]
    recorded = [dict(attempt) for attempt in tx.runs.attempts_of(name)]
    executions = sorted(lost + recorded, key=lambda execution: execution["attempt"])
    attempts = [{key: execution[key] for key in _ATTEMPT_KEYS} for execution in executions]
    wait = tx.waits.of_run(name) if row["phase"] == Phase.DEFERRED else None
    return run_document(row) | {
        "inputs": merge_inputs(spec.inputs if isinstance(spec, TaskSpec) else {}, json.loads(row["inputs"])),
        "outputs": json.loads(row["outputs"]) if row["outputs"] else None,
        "links": links_seen(wait) or (json.loads(row["links"]) if row["links"] else []),
        "event": json.loads(row["event"]) if row["event"] else None,
        "attempts": attempts,
        "executor": row["executor"],
        "kind": row["kind"],
        "covers": [row["covers_from"], row["covers_to"]] if row["covers_from"] is not None else None,
        "waiting_for": waiting_for(tx, [row]).get(name),
    }


def run_output(tx: Transaction, name: str) -> list[dict[str, Any]]:
    """What each recorded attempt of a run printed: `attempt`, `phase`, `output`; raises `NotFound`."""
    if tx.runs.find(name) is None:
        raise NotFound("run", name)
    return [{key: attempt[key] for key in ("attempt", "phase", "output")} for attempt in tx.runs.attempts_of(name)]


def list_slots(tx: Transaction, key: TriggerKey, limit: int = 50) -> list[dict[str, Any]]:
    """The newest `limit` entries of a trigger's ledger, oldest first, each slot with the newest of its runs.

    A `pruned` entry is a range of slots that had runs, whose history is over its age.
    """
    row = tx.triggers.find(*key)
    if row is None:
        raise NotFound("trigger", str(key))
    runs = [
        (
            run["scheduled_at"],
            {"kind": "run", "scheduled_at": run["scheduled_at"], "run": run["name"], "phase": run["phase"]},
        )
        for run in tx.runs.newest_slots(row["id"], limit)
    ]
    skips = [
        (
            item.from_slot,
            {
                "kind": "pruned" if item.reason is Reason.PRUNED else "skipped",
                "from": item.from_slot,
                "to": item.to_slot,
                "count": item.count,
                "reason": str(item.reason),
            },
        )
        for item in tx.ledger.newest(row["id"], limit)
    ]
    entries: list[tuple[Micros, dict[str, Any]]] = sorted(runs + skips, key=lambda entry: entry[0])
    return [document for _, document in entries[-limit:]]


def list_workers(tx: Transaction) -> list[dict[str, Any]]:
    """The living workers and how many runs each holds."""
    keys = ("name", "version", "started_at", "renewed_at", "lease_until", "running", "waits")
    return [{key: row[key] for key in keys} for row in tx.workers.list_living()]


def _tasks(tx: Transaction, limit: int, **names: str | None) -> Sequence[Row]:
    wanted = [Condition(name, "equal", value) for name, value in names.items() if value is not None]
    return tx.listings.page(TASKS, wanted, TASKS.key[0], limit)
