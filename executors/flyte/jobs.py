"""Jobs of a connector server: submitted, looked at and cancelled through its AsyncConnectorService."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from connectrpc.code import Code
from flyteidl2.connector import connector_pb2
from flyteidl2.connector.service_connect import AsyncConnectorServiceClient, ConnectorMetadataServiceClient
from flyteidl2.core import security_pb2

from executors.connector import phase_of
from executors.errors import PermanentError, RetryableError
from executors.external_job import Job, JobGone, JobStatus, Link
from executors.flyte import literals
from executors.flyte.interface import fitted_inputs
from executors.flyte.kept import kept_job, kept_meta
from executors.flyte.logs import LogText
from executors.flyte.rpc import Refused, Rpc, RpcError
from executors.flyte.server import ServerOptions
from executors.flyte.task import FlyteTaskConfig
from executors.flyte.template import task_execution, task_template
from executors.hiding import Hidden
from executors.protocol import RunContext
from executors.schema import nearest

_KNOWN_FOR: Final = 60.0


class Jobs:
    """The jobs of one server."""

    def __init__(self, options: ServerOptions) -> None:
        self._rpc = Rpc("the connector server", options, "grpc")
        self._known: frozenset[tuple[str, int]] = frozenset()
        self._known_until = 0.0

    async def close(self) -> None:
        """Gives the connections up."""
        await self._rpc.close()

    async def create(self, run: RunContext, config: Any, secrets: Mapping[str, str], prefix: str) -> Job:
        """Submit the job; `PermanentError` if the server has no connector for it."""
        inputs = fitted_inputs(run, config.interface)
        request = connector_pb2.CreateTaskRequest(
            template=task_template(run, config, inputs),
            inputs=literals.named(literals.of_inputs(inputs)),
            output_prefix=prefix,
            task_execution_metadata=task_execution(run),
            connection=_connection(config, secrets),
        )
        # Asked first: what this finds wrong has made no job for certain.
        await self._be_sure_of_the_type(config)
        try:
            answer = await self._call("create_task", request, secrets, acts=True)
        except Refused as error:
            raise PermanentError(str(error)) from None
        return kept_job(config.type, answer.resource_meta)

    async def status(self, config: Any, job: Job, secrets: Mapping[str, str], prefix: str) -> JobStatus:
        """How the job stands."""
        request = connector_pb2.GetTaskRequest(
            resource_meta=kept_meta(job),
            task_category=_category(config),
            output_prefix=prefix,
            connection=_connection(config, secrets),
        )
        try:
            answer = await self._call("get_task", request, secrets)
        except Refused as error:
            _gone(job, error)
        return self._status(answer.resource, Hidden(secrets.values()))

    async def delete(self, config: Any, job: Job, secrets: Mapping[str, str]) -> None:
        """Have the job cancelled."""
        request = connector_pb2.DeleteTaskRequest(
            resource_meta=kept_meta(job), task_category=_category(config), connection=_connection(config, secrets)
        )
        try:
            await self._call("delete_task", request, secrets)
        except Refused as error:
            _gone(job, error)

    async def logs(self, config: Any, job: Job, secrets: Mapping[str, str]) -> str | None:
        """What the job has printed, the first MiB of it; None if its connector does not tell."""
        request = connector_pb2.GetTaskLogsRequest(resource_meta=kept_meta(job), task_category=_category(config))
        hidden = Hidden(secrets.values())
        text = LogText()

        async def collect(client: AsyncConnectorServiceClient, options: dict[str, Any]) -> None:
            async for part in client.get_task_logs(request, **options):
                text.add(part)
                if text.is_full:
                    return

        try:
            await self._rpc.call(AsyncConnectorServiceClient, collect, "GetTaskLogs", hidden=hidden)
        except RpcError as error:
            if error.code is Code.UNIMPLEMENTED or "NotImplementedError" in error.told:
                return None
            raise
        return None if text.is_empty else hidden.hide(str(text))

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, request: Any, secrets: Mapping[str, str], *, acts: bool = False) -> Any:
        name = "".join(word.title() for word in method.split("_"))
        return await self._rpc.call(
            AsyncConnectorServiceClient,
            lambda client, options: getattr(client, method)(request, **options),
            name,
            acts=acts,
            hidden=Hidden(secrets.values()),
        )

    async def _be_sure_of_the_type(self, config: FlyteTaskConfig) -> None:
        wanted = (config.type, config.version)
        if wanted in self._known and time.monotonic() < self._known_until:
            return
        try:
            answer = await self._rpc.call(
                ConnectorMetadataServiceClient,
                lambda client, options: client.list_connectors(connector_pb2.ListConnectorsRequest(), **options),
                "ListConnectors",
            )
        except RpcError as error:
            if error.code is Code.UNIMPLEMENTED:
                return  # A server that does not tell, then.
            raise
        self._known = frozenset(
            (category.name, category.version)
            for connector in answer.connectors
            for category in connector.supported_task_categories
        )
        self._known_until = time.monotonic() + _KNOWN_FOR
        if wanted not in self._known:
            raise PermanentError(f"{self._rpc.title} {self._lacks(*wanted)}")

    def _lacks(self, name: str, version: int) -> str:
        said = f"has no connector for the task type {name!r}, version {version}"
        versions = sorted(known for known_name, known in self._known if known_name == name)
        if versions:
            return f"{said} (there is version {', '.join(map(str, versions))})"
        return said + nearest(name, sorted({known for known, _ in self._known}))

    def _status(self, resource: Any, hidden: Hidden) -> JobStatus:
        try:
            phase = phase_of(int(resource.phase))
        except ValueError:
            raise RetryableError(f"{self._rpc.title} answered with the phase {resource.phase}, which is none") from None
        return JobStatus(
            phase,
            hidden.hide(resource.message),
            literals.plain_named(resource.outputs.literals) if resource.HasField("outputs") else None,
            tuple(Link(link.name or "log", link.uri) for link in resource.log_links if link.uri),
            literals.plain_struct(resource.custom_info) if resource.HasField("custom_info") else None,
        )


def _category(config: FlyteTaskConfig) -> Any:
    return connector_pb2.TaskCategory(name=config.type, version=config.version)


def _connection(config: Any, secrets: Mapping[str, str]) -> Any:
    return security_pb2.Connection(task_type=config.type, secrets=secrets, configs=config.configs)


def _gone(job: Job, error: Refused) -> NoReturn:
    # A connector that is not there now may come back; a job that its service does not know will not.
    if error.code is Code.NOT_FOUND and "connector" not in error.told.lower():
        raise JobGone(f"the job {job.job_id} is not known: {error.told}") from None
    raise error
