"""What a test sees of the database: runs and slots as values, instants as aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.domain.instants import Micros, to_datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recorded attempt of a run."""

    number: int
    phase: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands; instants are aware and UTC."""

    name: str
    project: str
    domain: str
    task: str
    version: str
    trigger: str | None
    scheduled_at: datetime | None
    phase: str
    attempt: int
    lost: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] | None
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """A slot that got a run."""

    scheduled_at: datetime
    run: str
    phase: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """`count` slots from the first to the last that got none, and why."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """`count` slots from the first to the last that had runs, whose history is over its age."""

    first: datetime
    last: datetime
    count: int


def run_of(row: Mapping[str, Any]) -> Run:
    """The run that a client's document shows."""
    return Run(
        name=row["name"],
        project=row["project"],
        domain=row["domain"],
        task=row["task"],
        version=row["version"],
        trigger=row["trigger"],
        scheduled_at=_moment(row["scheduled_at"]),
        phase=row["phase"],
        attempt=row["attempt"],
        lost=row["lost"],
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        error=row["error"],
        inputs=row["inputs"],
        outputs=row["outputs"],
        attempts=tuple(Attempt(item["attempt"], item["phase"], item["error"]) for item in row["attempts"]),
    )


def slot_of(entry: Mapping[str, Any]) -> Ran | Skipped | Pruned:
    """The entry of a ledger that a client's document shows."""
    if entry["kind"] == "run":
        return Ran(to_datetime(entry["scheduled_at"]), entry["run"], entry["phase"])
    if entry["kind"] == "pruned":
        return Pruned(to_datetime(entry["from"]), to_datetime(entry["to"]), entry["count"])
    return Skipped(to_datetime(entry["from"]), to_datetime(entry["to"]), entry["count"], entry["reason"])


def _moment(instant: Micros | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)
