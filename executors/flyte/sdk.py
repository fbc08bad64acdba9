"""The executor `flyte_sdk`: runs become jobs of connectors written for Flyte's SDK, unmodified, in this process.

executors:
  inproc: {use: flyte_sdk, options: {modules: [my_connector]}}

config: {type: batch_job, custom: {size: large}, secrets: {my_api_key: EXTERNAL_SERVICE_API_KEY}}

Connectors are those that the modules register, and those of distributions with entry points `flyte.connectors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from executors.errors import PermanentError, RetryableError
from executors.external_job import ExternalJob, Job, JobStatus
from executors.flyte.apart import Apart
from executors.flyte.libraries import require
from executors.flyte.task import FlyteTaskConfig, output_prefix
from executors.hiding import resolve_secrets
from executors.modules import import_modules
from executors.protocol import RunContext
from executors.schema import nearest

if TYPE_CHECKING:
    from executors.flyte.sdk_use import SdkUse

GROUP: Final = "flyte.connectors"


class FlyteSdkExecutor(ExternalJob):
    """Submits, watches and cancels jobs by the connectors of Flyte's own registry.

    The code of each connector runs on an event loop of its own: many of them block it while they ask their service.
    """

    @dataclass(frozen=True)
    class Options:
        """`modules` are imported when the executor is made, looked for in the folders of `path` first.

        `output_prefix` is where jobs may write; each run gets a place of its own below it.
        """

        modules: list[str] = field(default_factory=list)
        path: list[str] = field(default_factory=list)
        output_prefix: str | None = None

    @dataclass(frozen=True, kw_only=True)
    class Config(FlyteTaskConfig):
        """What Flyte's connectors are told."""

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        require("flyte_sdk", "flyte-connectors", "flyte.connectors", "msgpack")
        import_modules("flyte_sdk", self.options.modules, self.options.path)
        self._unusable = _load_entry_points()
        self._apart: dict[tuple[str, int], Apart] = {}

    async def close(self) -> None:
        """Ends the loops of the connectors."""
        loops = list(self._apart.values())
        self._apart.clear()
        for apart in loops:
            await apart.close()

    async def create(self, run: RunContext) -> Job:
        """Submit the job by `AsyncConnector.create`."""
        use = self._use(run, submitting=True)
        prefix = output_prefix(self.options.output_prefix, run.key)
        sent = use.submission(run, prefix)
        return await self._on_its_loop(run).run(lambda: use.create(sent))

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Ask `AsyncConnector.get`."""
        use = self._use(run)
        return await self._on_its_loop(run).run(lambda: use.look(job))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Ask `AsyncConnector.delete`."""
        use = self._use(run)
        await self._on_its_loop(run).run(lambda: use.delete(job))

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """Ask `AsyncConnector.get_logs`."""
        use = self._use(run)
        return await self._on_its_loop(run).run(lambda: use.logs(job))

    def shown_id(self, job: Job) -> str | int:
        """The service's id, without the type that makes it unique among all connectors."""
        return job.job_id.partition(":")[2]

    # --- connectors --------------------------------------------------------------------------------------------------

    def _use(self, run: RunContext, *, submitting: bool = False) -> SdkUse:
        from flyte.connectors import ConnectorRegistry

        from executors.flyte.sdk_use import SdkUse

        config: FlyteSdkExecutor.Config = run.config
        try:
            connector = ConnectorRegistry.get_connector(config.type, config.version)
        except ValueError:
            said = self._not_found(config)
            # If the job is there already, a worker that knows its connector may come back.
            raise (PermanentError(said) if submitting else RetryableError(said)) from None
        wanted: dict[str, str] = {}
        # Flyte's tasks name theirs in what they say to the connector.
        for secrets in (getattr(connector, "_secrets", None), config.custom.get("secrets"), config.secrets):
            if isinstance(secrets, Mapping):
                wanted.update({str(name): str(variable) for name, variable in secrets.items()})
        return SdkUse(connector, resolve_secrets(wanted, run.secrets))

    def _on_its_loop(self, run: RunContext) -> Apart:
        key = (run.config.type, run.config.version)
        if key not in self._apart:
            self._apart[key] = Apart(f"connector {key[0]}")
        return self._apart[key]

    def _not_found(self, config: FlyteTaskConfig) -> str:
        from flyte.connectors import ConnectorRegistry

        known = sorted(key.task_type_name for key in getattr(ConnectorRegistry, "_REGISTRY", ()))
        said = f"there is no connector for the task type {config.type!r}, version {config.version}"
        said += nearest(config.type, known)
        return said + (f"; could not be loaded: {'; '.join(self._unusable)}" if self._unusable else "")


def _load_entry_points() -> list[str]:
    """Loads what distributions offer; returns what could not be loaded, which is no reason to lose the others."""
    from importlib.metadata import entry_points

    unusable = []
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            giver = point.dist.name if point.dist else "an unnamed distribution"
            unusable.append(f"{point.name} of {giver}: {type(error).__name__}: {error}")
    return unusable
