"""The executor `airflow_trigger`: a run waits for the one event of an Airflow trigger, which a child process hosts.

    executors:
      airflow: {use: airflow_trigger, options: {python: airflow-env/bin/python, env: {AIRFLOW_CONN_AIRBYTE_DEFAULT: …}}}

    config:
      classpath: airflow.providers.airbyte.triggers.airbyte.AirbyteSyncTrigger
      kwargs: {job_id: "{inputs.job_id}", conn_id: airbyte_default, poll_interval: 10}
      after: {end_time: 1h}

The job exists already, or another task made it: a trigger only watches. `create` makes it of its class and stores what
its `serialize()` says, so any worker makes the same trigger again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from executors.airflow.host import Host, fault_error
from executors.airflow.options import AirflowOptions
from executors.airflow.outcomes import FAILED, SUCCESS, Words, id_in, payload_text, status_of
from executors.errors import Problem
from executors.external_job import ExternalJob, Job, JobConfig, JobPhase, JobStatus
from executors.protocol import RunContext

_FUNCTION: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class AirflowTriggerExecutor(ExternalJob):
    """Hosts Airflow triggers, and takes their events for the ends of their runs."""

    can_find = True

    @dataclass(frozen=True)
    class Options(AirflowOptions):
        """Which interpreter, and what it is given."""

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """`classpath` and `kwargs` make the trigger; `after` holds arguments that are instants, as durations from now.

        `create`, `package.module:function`, makes the job first: called in the child with the run's inputs, it returns
        more arguments. `success` and `failed` are the words under `status_key` of the event's payload that mean so.
        """

        classpath: str
        kwargs: dict[str, Any] = field(default_factory=dict)
        after: dict[str, timedelta] = field(default_factory=dict)
        create: str | None = None
        success: list[str] = field(default_factory=lambda: list(SUCCESS))
        failed: list[str] = field(default_factory=lambda: list(FAILED))
        status_key: str = "status"

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from super().check()
            yield from class_faults(self.classpath, self.kwargs, self.after)
            if self.create is not None and not _FUNCTION.fullmatch(self.create):
                yield "create", f"{self.create!r} is no path to a function: write package.module:function"
            for index, word in enumerate(self.failed):
                if word.lower() in map(str.lower, self.success):
                    yield f"failed[{index}]", f"{word!r} is in `success` as well"

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        self._host = Host("airflow_trigger", self.options, self._news)

    async def start(self) -> None:
        """Nothing is started before it is needed."""
        self._host.open()

    async def close(self) -> None:
        """Ends the child."""
        await self._host.close()

    # --- the calls ---------------------------------------------------------------------------------------------------

    async def create(self, run: RunContext) -> Job:
        """Make the trigger, and its job first where `create` is given, only to have it serialized; it runs once stored."""
        config: AirflowTriggerExecutor.Config = run.config
        creating = {"create": config.create, "inputs": dict(run.inputs), "key": run.key, "name": run.run_name}
        answer = await self._host.ask(run, {"make": {**made_of(config, run.now().timestamp()), **creating}})
        if "fault" in answer:
            error = fault_error(self._host.hidden, answer["fault"])
            # Where a function makes the job, only what is found wrong before it is called leaves no doubt.
            error.outcome_known = config.create is None or (not error.retryable and answer["created"] is None)
            raise error
        return Job(answer["made"], run.key)

    def finds(self, run: RunContext) -> bool:
        """Whether the trigger alone is to be made again: what a function of the task's has made, nobody can tell."""
        return run.config.create is None

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """A trigger that was made and not stored has done nothing: it is made again."""
        return await self.create(run)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """What the trigger's event says, once there is one; the trigger is hosted here from the first time on."""
        hosted = self._host.hosted(run, job.job_id, job.meta, self.poll_interval(run))
        if hosted.stopped:
            return JobStatus(JobPhase.ABORTED)
        if hosted.ended is None:
            return JobStatus(JobPhase.RUNNING)
        if "fault" in hosted.ended:
            fault = hosted.ended["fault"]
            error = fault_error(self._host.hidden, fault)
            said = f"the trigger {_class_name(job)} raised: {fault['message']}" if "trace" in fault else str(error)
            return JobStatus(JobPhase.FAILED, self._host.hidden.hide(said), retryable=error.retryable)
        config: AirflowTriggerExecutor.Config = run.config
        return status_of(hosted.ended["event"], Words(tuple(config.success), tuple(config.failed), config.status_key))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Stop the trigger: its `on_kill`, where it has one, and its `cleanup` are called."""
        await self._host.drop(run, job.job_id, job.meta)

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """What the trigger printed, its event and the traceback of its error."""
        hosted = self._host.hosted(run, job.job_id, job.meta, self.poll_interval(run))
        text = hosted.output.text()
        if hosted.ended and "event" in hosted.ended:
            text += payload_text(hosted.ended["event"])
        elif hosted.ended and "fault" in hosted.ended:
            text += hosted.ended["fault"].get("trace", "")
        return self._host.hidden.hide(text) or None

    def first_look(self, run: RunContext) -> timedelta:
        """At once, for it is then that the trigger begins."""
        return timedelta(0)

    def forget(self, run_name: str, *, over: bool) -> None:
        """The trigger is not needed here any more."""
        self._host.forget(run_name)

    # --- what is said about it ---------------------------------------------------------------------------------------

    def shown_id(self, job: Job) -> str | int:
        """What the trigger's event calls its job, or the trigger's arguments, else the run's key."""
        found = id_in(_kwargs(job))
        return job.job_id if found is None else found

    def event(self, job: Job | None, status: str, message: str) -> dict[str, Any]:
        """The one event of the run: the job is what the trigger's event calls it."""
        told = super().event(job, status, message)
        hosted = None if job is None else self._host.of(job.job_id)
        if hosted is not None and hosted.ended and "event" in hosted.ended:
            found = id_in(hosted.ended["event"]["plain"])
            told["job_id"] = told["job_id"] if found is None else found
        return told

    def end_message(self, job: Job, status: JobStatus) -> str:
        """The event's own message, or how the trigger has ended."""
        if status.message or id_in(_kwargs(job)) is not None:
            return super().end_message(job, status)
        ends = {
            JobPhase.SUCCEEDED: "has fired.",
            JobPhase.ABORTED: "has been cancelled.",
            JobPhase.TIMED_OUT: "has timed out.",
        }
        return f"The trigger {_class_name(job)} {ends.get(status.phase, 'has failed.')}"

    def _news(self, run_name: str) -> None:
        if self.look_soon is not None:
            self.look_soon(run_name)


class Making(Protocol):
    """The part of a task's config that makes an instance."""

    @property
    def classpath(self) -> str: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...
    @property
    def after(self) -> dict[str, timedelta]: ...


def made_of(config: Making, now: float) -> dict[str, Any]:
    """A class and its arguments as the child is told them; `now`, in epoch seconds, is what `after` counts from."""
    at = {name: now + length.total_seconds() for name, length in config.after.items()}
    return {"classpath": config.classpath, "kwargs": dict(config.kwargs), "at": at}


def class_faults(classpath: str, kwargs: Mapping[str, Any], after: Mapping[str, timedelta]) -> Iterable[Problem]:
    """Every fault of a class path and arguments that can be seen without their module."""
    parts = classpath.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        yield "classpath", f"{classpath!r} is no path to a class: write package.module.Class"
    for name in after:
        if name in kwargs:
            yield f"after.{name}", "is in `kwargs` as well: keep one of them"


def _class_name(job: Job) -> str:
    return str(job.meta.get("classpath", "")).rpartition(".")[2]


def _kwargs(job: Job) -> Any:
    stored = job.meta.get("kwargs")
    return stored.get("json") if isinstance(stored, Mapping) else None
