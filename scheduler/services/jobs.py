"""From a trigger's row to the job that the planner understands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Final, cast

from scheduler.domain.automation import Automation, Cron, FixedRate, automation_from_document
from scheduler.domain.calendars import Calendar, calendar_from_document, with_calendars
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.job import Job
from scheduler.domain.occurrences import bounded, compile_schedule
from scheduler.domain.trigger import CatchUp, CatchUpPolicy
from scheduler.errors import SpecError
from scheduler.store.rows import Row

_JSON: Final = json.JSONDecoder()


def identity_of(row: Row) -> str:
    """`project/domain/task/trigger` of a trigger's row."""
    return f"{row['project']}/{row['domain']}/{row['task']}/{row['name']}"


def is_live(row: Row, now: Micros) -> bool:
    """Whether the trigger may owe anything at all."""
    snoozed = row["snoozed_until"] is not None and row["snoozed_until"] > now
    return bool(row["active"]) and row["deleted_at"] is None and not snoozed


def wakes_at(row: Row, now: Micros) -> Micros | None:
    """When a snoozed trigger owes slots again; None for one that is not snoozed, or not to wake by itself."""
    snoozed = row["snoozed_until"] is not None and row["snoozed_until"] > now
    return row["snoozed_until"] if snoozed and row["active"] and row["deleted_at"] is None else None


def automation_of(row: Row) -> Automation | None:
    """The trigger's automation; raises `SpecError` for what no deploy would have let through."""
    text = row["automation"]
    return None if text is None else _automation(text)


def job_of(row: Row, *, activated_at: Micros | None = None, anchor_at: Micros | None = None) -> Job:
    """The job of a trigger's row, `activated_at` and `anchor_at` given where they are about to change.

    Raises `SpecError` where the row's schedule cannot be understood.
    """
    automation = automation_of(row)
    activated = activated_at if activated_at is not None else row["activated_at"] or 0
    anchor = anchor_at if anchor_at is not None else row["anchor_at"]
    identity = identity_of(row)
    schedule = calendars = None
    if automation is not None:
        anchored = (activated if anchor is None else anchor) // SECOND if isinstance(automation, FixedRate) else None
        schedule = compile_schedule(automation, anchor=anchored, identity=identity)
        # Both bounds are inclusive, and slots are whole seconds.
        start = None if row["start_at"] is None else -(-row["start_at"] // SECOND)
        end = None if row["end_at"] is None else row["end_at"] // SECOND
        if row["calendars"] == "[]":
            schedule = bounded(schedule, start, end)
        else:
            timezone = automation.timezone if isinstance(automation, Cron) else "UTC"
            named = calendars_from_text(row["calendars"])
            schedule = calendars = with_calendars(schedule, named, timezone, start=start, end=end)
    # By position, in the order of the fields: a fire makes a thousand of them.
    return Job(
        identity,
        schedule,
        activated,
        row["jitter"],
        _catchup(row["catchup_policy"], row["catchup_window"], row["catchup_max_runs"]),
        row["overlap"],
        row["max_fires"],
        calendars,
    )


def job_to_be(row: Row, now: Micros) -> Job:
    """The job of a row once it is planned as it stands: activated, and a rate anchored, now where it is not so yet."""
    wakes = wakes_at(row, now)
    activated = wakes if wakes is not None else row["activated_at"]
    return job_of(row, activated_at=now if activated is None else activated, anchor_at=anchored_at(row, now)[0])


def jobs_of(rows: Iterable[Row]) -> dict[int, Job]:
    """The jobs of these triggers' rows; those whose schedule cannot be understood are left out."""
    jobs = {}
    for row in rows:
        with suppress(SpecError):
            jobs[row["id"]] = job_of(row)
    return jobs


def row_when_planned(row: Row) -> Row | None:
    """The row as it stood when its plan was made, as far as it tells of slots; None where that cannot be read any more.

    What a plan is made of is one text, its parts joined by bars; two of them are JSON, which may hold bars of its own.
    """
    text = row["planned_from"] or ""
    try:
        end = 0 if text.startswith("|") else _JSON.raw_decode(text)[1]
        automation, rest = text[:end], text[end:].lstrip()
        _, start_at, end_at, rest = rest.split("|", 3)
        end = _JSON.raw_decode(rest)[1]
        calendars, (_, jitter, *_others) = rest[:end], rest[end:].split("|")
        said = {
            "automation": automation or None,
            "start_at": int(start_at) if start_at else None,
            "end_at": int(end_at) if end_at else None,
            "calendars": calendars,
            "jitter": int(jitter),
        }
    except ValueError:
        return None
    return cast(Row, {**row, **said})


def to_come_after(row: Row, job: Job, next_slot: Micros | None, now: Micros) -> Micros:
    """The instant after which the trigger's slots are still to come; one that waits out its jitter is to come as well.

    `next_slot` is the slot that is planned. A slot that is due, and that no worker has decided yet, is owed already.
    """
    since = row["activated_at"] or now
    if next_slot is None or row["planned_from"] != row["plan_source"]:
        return max(now, since)  # What stands there now holds from the moment in which it is planned.
    return max(since, next_slot - SECOND, job.last_due(now) or 0)


def anchored_at(row: Row, now: Micros) -> tuple[Micros | None, int | None]:
    """The anchor of a fixed rate and the interval it was set for: kept until the interval changes."""
    automation = automation_of(row)
    if not isinstance(automation, FixedRate) or automation.start_time is not None:
        return None, None
    if row["anchor_at"] is not None and row["anchor_interval"] == automation.interval:
        # The clock may have been set back while the trigger was paused, where nobody looked after its anchor.
        shifted = shifted_anchor(row, now) if row["activated_at"] is None else None
        return row["anchor_at"] if shifted is None else shifted, automation.interval
    return now - now % SECOND, automation.interval


def shifted_anchor(row: Row, now: Micros) -> Micros | None:
    """After the clock was set back: the anchor moved by whole intervals to before now, so that the same grid goes on."""
    anchor, interval = row["anchor_at"], row["anchor_interval"]
    if anchor is None or not interval or anchor <= now:
        return None
    step = interval * SECOND
    return int(anchor - -(-(anchor - now) // step) * step)


@lru_cache(maxsize=256)
def _catchup(policy: CatchUpPolicy, window: Micros, max_runs: int) -> CatchUp:
    return CatchUp(policy, timedelta(microseconds=window), max_runs)


@lru_cache(maxsize=4096)
def _automation(text: str) -> Automation:
    try:
        document = json.loads(text)
    except ValueError:
        raise SpecError("automation", f"{text!r} is not JSON") from None
    return automation_from_document(document)


@lru_cache(maxsize=256)
def calendars_from_text(text: str) -> tuple[Calendar, ...]:
    """The calendars that a trigger's row carries, as its deploy resolved them."""
    try:
        documents = json.loads(text)
    except ValueError:
        raise SpecError("calendars", f"{text!r} is not JSON") from None
    if not isinstance(documents, list):
        raise SpecError("calendars", "must be a list of calendars")
    return tuple(calendar_from_document(document) for document in documents)
