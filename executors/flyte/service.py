"""The executor `flyte_service`: runs become jobs of a connector server, `c0` of Flyte's SDK or a deployed one.

executors:
  remote: {use: flyte_service, options: {endpoint: "localhost:8000", insecure: true}}

config: {type: batch_job, version: 0, custom: {size: large}, interface: {inputs: {val: int}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from executors.external_job import ExternalJob, Job, JobStatus
from executors.flyte.libraries import require
from executors.flyte.server import ServerOptions
from executors.flyte.task import FlyteTaskConfig, output_prefix
from executors.hiding import resolve_secrets
from executors.protocol import RunContext


class FlyteServiceExecutor(ExternalJob):
    """Submits, watches and cancels jobs by the connectors of one server."""

    @dataclass(frozen=True)
    class Options(ServerOptions):
        """`output_prefix` is where jobs may write; each run gets a place of its own below it."""

        output_prefix: str | None = None

    @dataclass(frozen=True, kw_only=True)
    class Config(FlyteTaskConfig):
        """`configs` are handed to the connector's methods as `secrets` are, and may be shown."""

        configs: dict[str, str] = field(default_factory=dict)

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        require("flyte_service", "flyte", "flyteidl2.connector.service_connect", "connectrpc", "msgpack")
        from executors.flyte.jobs import Jobs

        self._jobs = Jobs(self.options)
        self.call_timeout = max(self.call_timeout, 2 * self.options.timeout)

    async def close(self) -> None:
        """Gives the connections up."""
        await self._jobs.close()

    async def create(self, run: RunContext) -> Job:
        """`CreateTask`, once the server says that it has a connector for the type."""
        prefix = output_prefix(self.options.output_prefix, run.key)
        return await self._jobs.create(run, run.config, self._secrets(run), prefix)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """`GetTask`."""
        prefix = output_prefix(self.options.output_prefix, run.key)
        return await self._jobs.status(run.config, job, self._secrets(run), prefix)

    async def delete(self, run: RunContext, job: Job) -> None:
        """`DeleteTask`."""
        await self._jobs.delete(run.config, job, self._secrets(run))

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """`GetTaskLogs`."""
        return await self._jobs.logs(run.config, job, self._secrets(run))

    def shown_id(self, job: Job) -> str | int:
        """The service's id, without the type that makes it unique among all connectors."""
        return job.job_id.partition(":")[2]

    def _secrets(self, run: RunContext) -> Mapping[str, str]:
        wanted = dict(run.config.secrets)
        # Flyte's tasks name theirs in what they say to the connector.
        if isinstance(said := run.config.custom.get("secrets"), Mapping):
            wanted = {**{str(name): str(variable) for name, variable in said.items()}, **wanted}
        return resolve_secrets(wanted, run.secrets)
