"""What a change by hand writes about a trigger: the next revision and who made it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Literal

from scheduler.domain.instants import Micros, to_datetime
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.services.jobs import automation_of, calendars_from_text
from scheduler.store.rows import Row

Action = Literal["ACTIVATE", "DEACTIVATE", "DELETE"]


def revised(row: Row, now: Micros, by: str, **changes: Any) -> dict[str, Any]:
    """The update of a trigger's row that a change makes, with its next revision."""
    return {"id": row["id"], "revision": row["revision"] + 1, "updated_at": now, "updated_by": by, **changes}


def revision_of(row: Row, action: Action, now: Micros, by: str) -> dict[str, Any]:
    """The entry in the history: what stands in the row that the change was made to."""
    return {
        "trigger_id": row["id"],
        "revision": row["revision"] + 1,
        "action": action,
        "at": now,
        "by": by,
        "version": row["version"],
        "active": bool(row["active"]) if action == "DELETE" else action == "ACTIVATE",
        "spec": standing_document(row),
    }


def standing_document(row: Row) -> str:
    """What the trigger says now, in the words of a deploy: plain SQL may have written any of it since."""
    try:
        document = _spec_of(row).to_document()
    except (ValueError, TypeError):
        # No deploy would have let that through: what was deployed last is the best there is.
        return row["deployed"] or json.dumps({"name": row["name"]})
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _spec_of(row: Row) -> TriggerSpec:
    return TriggerSpec(
        name=row["name"],
        automation=automation_of(row),
        kickoff_time_input_arg=row["kickoff_arg"],
        inputs=json.loads(row["inputs"]),
        catchup=CatchUp(row["catchup_policy"], timedelta(microseconds=row["catchup_window"]), row["catchup_max_runs"]),
        overlap=row["overlap"],
        pause_on_failure=row["pause_on_failure"],
        jitter=timedelta(microseconds=row["jitter"]),
        start=None if row["start_at"] is None else to_datetime(row["start_at"]),
        end=None if row["end_at"] is None else to_datetime(row["end_at"]),
        max_fires=row["max_fires"],
        calendars=calendars_from_text(row["calendars"]),
        active=bool(row["active"]),
        description=row["description"],
    )
