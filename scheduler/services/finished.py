"""Why a trigger fires no more by itself: said when it is deployed, for nothing else would tell."""

from __future__ import annotations

from scheduler.domain.automation import At
from scheduler.domain.instants import Micros, from_datetime, to_rfc3339
from scheduler.errors import SpecError
from scheduler.services.jobs import automation_of, job_to_be
from scheduler.store.rows import Row


def why_finished(row: Row, fires: int, now: Micros) -> str | None:
    """Why the active trigger of this row has no slot after now; None where it has one, or is fired by hand only.

    `fires` is how many of its runs count for `max_fires`.
    """
    if row["automation"] is None or not row["active"] or row["deleted_at"] is not None:
        return None
    after = max(now, row["snoozed_until"] or 0)
    try:
        job, automation = job_to_be(row, now), automation_of(row)
    except SpecError:
        return None  # It is set aside, which says why.
    if row["max_fires"] is not None and fires >= row["max_fires"]:
        again = f"`scheduler triggers reset {row['task']}/{row['name']}` begins again"
        return f"its max_fires of {row['max_fires']:,} is used up; {again}"
    if job.next_free(after) is not None:
        return None
    if job.next_after(after) is not None:
        return "its calendars leave out every slot that is left"
    if isinstance(automation, At) and from_datetime(automation.instant) <= after:
        return f"its only slot, {to_rfc3339(from_datetime(automation.instant))}, is past"
    return _out_of_bounds(row["start_at"], row["end_at"], after) or "its schedule has no slot left"


def _out_of_bounds(start: Micros | None, end: Micros | None, after: Micros) -> str | None:
    if end is None:
        return None
    if end <= after:
        return f"its end, {to_rfc3339(end)}, is past"
    if start is None or start <= after:
        return f"it has no slot up to its end, {to_rfc3339(end)}"
    return f"no slot lies between its start, {to_rfc3339(start)}, and its end, {to_rfc3339(end)}"
