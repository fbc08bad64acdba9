"""One wait in a worker's hands. There may be thousands: all that can be shared or made again is not kept."""

from __future__ import annotations

import json
from asyncio import Timeout
from enum import Enum
from functools import lru_cache
from sys import intern
from typing import Final

from executors.external_job import Job
from executors.jsonvalue import MAX_OUTPUT_BYTES, size_fault
from scheduler.domain.instants import Micros, from_datetime, parse_rfc3339, to_datetime, to_rfc3339
from scheduler.domain.wait import Ending, Stage, WaitKind
from scheduler.services.defer import Deferral, as_text, ends_at, printed_text, storable
from scheduler.services.resume import Tries
from scheduler.services.take import Execution
from scheduler.services.watch import Claimed
from scheduler.store.waits import WaitKey, WaitState

_LONGEST_ID: Final = 500


class Place(Enum):
    """Where a held wait is: on nobody's mind, in the agenda, in line, looked at, about to be stored, or out of time."""

    NOWHERE = 0
    AGENDA = 1
    LINE = 2
    LOOK = 3
    STORE = 4
    TIME = 5


class HeldWait:
    """A wait as its holder keeps it: what is stored, and what only matters while it is held."""

    __slots__ = (
        "asked",
        "attention",
        "budget",
        "created_at",
        "due",
        "ending",
        "ends_at",
        "error_since",
        "errors",
        "execution",
        "interval",
        "job_id",
        "kind",
        "last_error",
        "look_at",
        "place",
        "seen",
        "stage",
        "state",
        "sure_at",
        "timer",
        "turn",
        "watched",
    )

    def __init__(
        self,
        execution: Execution,
        kind: WaitKind,
        stage: Stage,
        *,
        look_at: Micros,
        interval: Micros,
        budget: Micros,
        ends_at: Micros | None,
        created_at: Micros,
        state: str | None = None,
        job_id: str | None = None,
        watched: bool = False,
    ) -> None:
        self.execution = execution
        self.kind = kind
        self.stage = stage
        self.look_at = look_at
        self.interval = _shared(interval)
        self.budget = _shared(budget)
        self.ends_at = ends_at
        self.created_at = _shared(created_at)
        self.state = state
        self.job_id = job_id
        self.watched = watched
        self.error_since: Micros | None = None
        self.last_error: str | None = None
        self.ending: Ending | None = None
        self.seen: str | None = None
        # Errors in a row; how often the job was asked to end; until when a missing job may still appear.
        self.errors = 0
        self.asked = 0
        self.sure_at: Micros = 0
        # Where it is, its entry in the agenda, and whether a look at it is to be broken off.
        self.place = Place.NOWHERE
        self.turn = 0
        self.due = 0.0
        self.attention = False
        self.timer: Timeout | None = None

    @classmethod
    def begun(cls, deferral: Deferral, now: Micros, tries: Tries | None = None) -> HeldWait:
        """A wait that begins now; `tries`: how submitting its job went so far."""
        held = cls(
            compact(deferral.execution),
            deferral.kind,
            deferral.stage,
            look_at=now + deferral.interval,
            interval=deferral.interval,
            budget=deferral.budget,
            ends_at=ends_at(deferral.execution),
            created_at=now,
            state=deferral.state,
            job_id=deferral.job_id,
            watched=deferral.watched,
        )
        held.seen = printed_text(deferral.printed)
        if tries is not None:
            held.errors, held.error_since, held.last_error = tries.errors, tries.since, tries.error or None
        return held

    @classmethod
    def of(cls, claimed: Claimed) -> HeldWait:
        """A wait that was just taken over."""
        stored = claimed.wait
        held = cls(
            compact(claimed.execution),
            WaitKind(stored.kind),
            Stage(stored.stage),
            look_at=stored.look_at,
            interval=stored.interval,
            budget=stored.budget,
            ends_at=stored.ends_at,
            created_at=stored.created_at,
            state=stored.state,
            job_id=stored.job_id,
            watched=stored.watched,
        )
        held.error_since, held.last_error, held.seen = stored.error_since, stored.last_error, stored.seen
        held.errors = 1 if stored.error_since is not None else 0
        held.ending = None if stored.ending is None else Ending.decode(stored.ending)
        return held

    @property
    def key(self) -> WaitKey:
        """The run and the fence that it and its wait have."""
        return self.execution.run.name, self.execution.run.fence

    @property
    def name(self) -> str:
        """The run's name."""
        return self.execution.run.name

    @property
    def job(self) -> Job | None:
        """The job that is watched, once there is one."""
        if self.kind is not WaitKind.JOB or self.state is None:
            return None
        document = json.loads(self.state)
        created = document["created_at"]
        return Job(
            document["meta"], self.job_id or "", None if created is None else to_datetime(parse_rfc3339(created))
        )

    @job.setter
    def job(self, job: Job) -> None:
        self.state = job_text(job)
        self.job_id = job_id_of(job)

    def to_state(self) -> WaitState:
        """What is stored. A wait for an instant has no owner: the database watches it."""
        return WaitState(
            run_name=self.execution.run.name,
            fence=self.execution.run.fence,
            owner=None if self.kind is WaitKind.UNTIL else self.execution.run.owner,
            kind=self.kind.value,
            stage=self.stage.value,
            look_at=self.look_at,
            interval=self.interval,
            budget=self.budget,
            state=storable(self.state),
            job_id=self.job_id,
            error_since=self.error_since,
            last_error=storable(self.last_error),
            ending=None if self.ending is None else storable(self.ending.encode()),
            seen=storable(self.seen),
        )


@lru_cache(maxsize=1024)
def _shared(number: Micros) -> Micros:
    """One object for all that have the same interval, budget or instant: runs that fired together have many in common."""
    return number


@lru_cache(maxsize=1024)
def _shared_text(text: str) -> str:
    """The same for inputs, most of which are alike; unlike interned ones, texts that are all different are not kept."""
    return text


def job_id_of(job: Job) -> str | None:
    """A job's id as it is stored, short enough for an index; None where the service names none."""
    return storable(job.job_id[:_LONGEST_ID]) or None


def job_text(job: Job) -> str:
    """A job as it is stored; raises `TypeError` or `ValueError` where JSON cannot carry it."""
    created = None if job.created_at is None else to_rfc3339(from_datetime(job.created_at))
    text = as_text({"meta": dict(job.meta), "created_at": created}) or ""
    if fault := size_fault("metadata", text, MAX_OUTPUT_BYTES):
        raise ValueError(fault)
    return text


def compact(execution: Execution) -> Execution:
    """The same with texts shared that many runs have in common, and without what matters to a queued run alone."""
    run = execution.run
    return Execution(
        run._replace(
            kind=intern(run.kind),
            version=intern(run.version),
            spec_digest=intern(run.spec_digest),
            inputs=_shared_text(run.inputs),
            executor=intern(run.executor),
            owner=intern(run.owner),
            scheduled_at=run.scheduled_at if run.scheduled_at is None else _shared(run.scheduled_at),
            created_at=_shared(run.created_at),
            started_at=_shared(run.started_at),
            state=None,
            not_before=0,
        ),
        execution.spec,
        intern(execution.project),
        intern(execution.domain),
        intern(execution.task),
        execution.trigger,
    )
