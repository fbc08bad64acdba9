"""What a trigger says at this moment, in the words of a deploy."""

from __future__ import annotations

import json
from datetime import timedelta

from scheduler.domain.instants import to_datetime
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.services.jobs import automation_of, calendars_from_text
from scheduler.store.rows import Row


def standing_spec(row: Row) -> TriggerSpec:
    """The specification that the row's columns amount to; raises `SpecError` for what no deploy would have let through."""
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


def standing_document(row: Row) -> str:
    """What a revision by hand keeps: plain SQL may have written any of it since the last deploy."""
    try:
        document = standing_spec(row).to_document()
    except (ValueError, TypeError, OverflowError):
        # Nothing that this version understands: what was deployed last is the best there is.
        return row["deployed"] or json.dumps({"name": row["name"]})
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
