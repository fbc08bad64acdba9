"""The executor `connector`: runs become jobs of the connector that the task's `config` names.

executors:
  own: {use: connector, options: {modules: [my_pkg.connector]}}

config: {type: batch_job, version: 0, custom: {size: large}, secrets: {my_api_key: EXTERNAL_SERVICE_API_KEY}}
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from executors.connector_registry import ConnectorNotFound, ConnectorRegistry
from executors.connector_tasks import SerializationContext, TaskTemplate
from executors.connector_use import ConnectorUse
from executors.errors import ExecutorError, PermanentError, Problem, RetryableError
from executors.external_job import ExternalJob, Job, JobConfig, JobStatus
from executors.hiding import resolve_secrets
from executors.modules import import_modules
from executors.protocol import RunContext

# What the methods of a connector are called with besides the secrets.
_TAKEN: Final = frozenset({"task_template", "output_prefix", "inputs", "run_name", "run", "key", "resource_meta"})


class ConnectorExecutor(ExternalJob):
    """Submits, watches and cancels jobs by connectors from `ConnectorRegistry`."""

    # Where the task's connector can: see `finds`.
    can_find = True

    @dataclass(frozen=True)
    class Options:
        """`modules` are imported when the executor is made, looked for in the folders of `path` first.

        `output_prefix` is where connectors may put what their jobs write; each run gets a place of its own below it.
        """

        modules: list[str] = field(default_factory=list)
        path: list[str] = field(default_factory=list)
        output_prefix: str | None = None

    @dataclass(frozen=True, kw_only=True)
    class Config(JobConfig):
        """`type` and `version` name the connector, `custom` is what it is told.

        `secrets` maps a keyword of the connector's methods to the environment variable that holds its value.
        """

        type: str
        version: int = 0
        custom: dict[str, Any] = field(default_factory=dict)
        secrets: dict[str, str] = field(default_factory=dict)

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from super().check()
            for name in self.secrets:
                if name in _TAKEN:
                    yield f"secrets.{name}", "is what the connector gets anyway: choose another name"

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        import_modules(type(self).__name__, self.options.modules, self.options.path)

    @property
    def batches(self) -> bool:  # type: ignore[override]  # known only when the connectors are
        """True if any connector asks for many jobs at once."""
        return any(connector.defines("get_many") for connector in ConnectorRegistry.list_connectors())

    # --- the calls ---------------------------------------------------------------------------------------------------

    async def create(self, run: RunContext) -> Job:
        """Submit the job by `AsyncConnector.create`."""
        use = self._use(run, submitting=True)
        if missing := use.connector.missing():
            # Found now, not when there is a job that nobody can watch.
            raise PermanentError(f"{use} defines no {', no '.join(missing)}: no job is submitted to it")
        prefix = self.options.output_prefix or (Path(tempfile.gettempdir()) / "trigger-scheduler").as_uri()
        meta = await use.call(
            use.connector.create,
            self._template(run),
            f"{prefix.rstrip('/')}/{run.key}",
            inputs=dict(run.inputs),
            run_name=run.key,
            run=run,
        )
        return use.job(meta)

    def finds(self, run: RunContext) -> bool:
        """Whether the task's connector defines `find`; what this worker does not know, another may."""
        try:
            return ConnectorRegistry.get_connector(run.config.type, run.config.version).defines("find")
        except ConnectorNotFound:
            return True

    async def find(self, run: RunContext, created_after: datetime) -> Job | None:
        """Ask `AsyncConnector.find` for the job of this key."""
        use = self._use(run)
        meta = await use.call(use.connector.find, run.key, run=run)
        return None if meta is None else use.job(meta)

    async def status(self, run: RunContext, job: Job) -> JobStatus:
        """Ask `AsyncConnector.get`."""
        use = self._use(run)
        return use.status(await use.call(use.connector.get, use.meta(job), run=run))

    async def delete(self, run: RunContext, job: Job) -> None:
        """Ask `AsyncConnector.delete`."""
        use = self._use(run)
        await use.call(use.connector.delete, use.meta(job), run=run)

    async def logs(self, run: RunContext, job: Job) -> str | None:
        """Ask `AsyncConnector.get_logs`."""
        use = self._use(run)
        found = await use.call(use.connector.get_logs, use.meta(job), run=run)
        return None if found is None else use.hidden.hide(str(found))

    async def status_many(self, items: Sequence[tuple[RunContext, Job]]) -> Sequence[JobStatus | Exception]:
        """One `get_many` for each connector that has it, and `get` for the jobs of the others, some at a time."""
        answers: dict[int, JobStatus | Exception] = {}
        places = asyncio.Semaphore(self.concurrency)

        async def one(index: int) -> None:
            async with places:
                try:
                    answers[index] = await self.status(*items[index])
                except Exception as error:
                    answers[index] = error

        async def many(use: ConnectorUse, indexes: Sequence[int]) -> None:
            async with places:
                found = await _ask_for_many(use, [items[index] for index in indexes])
            answers.update(zip(indexes, found, strict=True))

        groups: dict[tuple[Any, ...], tuple[ConnectorUse, list[int]]] = {}
        singles: list[int] = []
        for index, (run, _) in enumerate(items):
            try:
                use = self._use(run)
            except ExecutorError as error:
                answers[index] = error
                continue
            if use.connector.defines("get_many"):
                groups.setdefault((id(use.connector), *sorted(use.secrets.items())), (use, []))[1].append(index)
            else:
                singles.append(index)
        await asyncio.gather(*map(one, singles), *(many(*group) for group in groups.values()))
        return [answers[index] for index in range(len(items))]

    def shown_id(self, job: Job) -> str | int:
        """The id by the connector, without the type that makes it unique among all connectors."""
        return job.job_id.partition(":")[2]

    # --- what they are called with -----------------------------------------------------------------------------------

    def _use(self, run: RunContext, *, submitting: bool = False) -> ConnectorUse:
        config: ConnectorExecutor.Config = run.config
        try:
            connector = ConnectorRegistry.get_connector(config.type, config.version)
        except ConnectorNotFound as error:
            if submitting:
                raise
            # The job is there; the worker that knows its connector may come back.
            raise RetryableError(str(error)) from None
        wanted: dict[str, str] = {}
        # Flyte's tasks name theirs in what they say to the connector.
        for secrets in (getattr(connector, "_secrets", None), config.custom.get("secrets"), config.secrets):
            if isinstance(secrets, Mapping):
                wanted.update({str(name): str(variable) for name, variable in secrets.items()})
        return ConnectorUse(connector, resolve_secrets(wanted, run.secrets))

    def _template(self, run: RunContext) -> TaskTemplate:
        config: ConnectorExecutor.Config = run.config
        return TaskTemplate(
            name=run.task,
            task_type=config.type,
            task_type_version=config.version,
            custom=config.custom,
            context=SerializationContext(run.version, run.project, run.domain),
        )


async def _ask_for_many(use: ConnectorUse, items: Sequence[tuple[RunContext, Job]]) -> Sequence[JobStatus | Exception]:
    try:
        found = await use.call(use.connector.get_many, [use.meta(job) for _, job in items])
        if not isinstance(found, Sequence) or len(found) != len(items):
            raise RetryableError(f"{use}: get_many() did not return one resource for each of {len(items)} jobs")
    except Exception as error:
        return [error] * len(items)
    answers: list[JobStatus | Exception] = []
    for resource in found:
        try:
            answers.append(resource if isinstance(resource, Exception) else use.status(resource))
        except ExecutorError as error:
            answers.append(error)
    return answers
