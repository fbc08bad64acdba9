"""The executor `flyte_run`: a run becomes a run of a remote Flyte, asked for as Flyte's own scheduler asks.

executors:
  flyte:
    use: flyte_run
    options: {endpoint: "http://flyte:8090", insecure: true, follow: false}
    rate_limit: {per_second: 10, burst: 20}

Task and trigger have the same names there. The run's name comes of its slot, so whoever asks twice gets one run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from executors.external_job import ExternalJob, Job, JobConfig, JobPhase, JobStatus
from executors.flyte.interface import InputTypes
from executors.flyte.libraries import require
from executors.flyte.names import flyte_name
from executors.flyte.server import ServerOptions
from executors.protocol import RunContext


class FlyteRunExecutor(ExternalJob):
    """Makes runs at a remote Flyte, and follows them to their end if told to."""

    can_find = True

    @dataclass(frozen=True)
    class Options(ServerOptions):
        """With `follow` a run lasts as long as the one at Flyte; without, it is over once that one is made."""

        follow: bool = False
        org: str = ""

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """With `send_inputs` the run's inputs are sent in place of those that the trigger has at Flyte.

        `interface` says of what types they are; those that it does not name are what their values are.
        """

        send_inputs: bool = False
        interface: InputTypes = field(default_factory=InputTypes)

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        require("flyte_run", "flyte", "flyteidl2.workflow.run_service_connect", "connectrpc", "msgpack")
        from executors.flyte.runs import Runs

        self._runs = Runs(self.options)
        # A status may take two calls.
        self.call_timeout = max(self.call_timeout, 3 * self.options.timeout)

    async def close(self) -> None:
        """Gives the connections up."""
        await self._runs.close()

    async def create(self, run: RunContext) -> Job:
        """Make the run; one of this name that is there already is this run."""
        job = self._job(run)
        if run.config.send_inputs or not run.trigger:
            await self._runs.create(run, job, run.config.interface)
        else:
            await self._runs.create(run, job)
        return job

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """How the run stands; of one that is not followed, that it was made."""
        if self.options.follow:
            return await self._runs.status(job)
        return JobStatus(JobPhase.SUCCEEDED, f"Run {job.job_id} was created.", outputs=dict(job.meta))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Abort the run."""
        await self._runs.abort(job, f"{run.run_name} was given up")

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """The run by its name, whenever it was made: no other run may have it."""
        job = self._job(run)
        return job if await self._runs.is_there(run, job) else None

    def first_look(self, run: RunContext) -> timedelta:
        """At once, where there is nothing to wait for."""
        return self.poll_interval(run) if self.options.follow else timedelta(0)

    def _job(self, run: RunContext) -> Job:
        meta = {"project": run.project, "domain": run.domain, "name": flyte_name(run)}
        if self.options.org:
            meta["org"] = self.options.org
        return Job(meta, meta["name"])
