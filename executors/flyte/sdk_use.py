"""A connector of Flyte's SDK as one run uses it: called as a connector server calls it, its answers made ours."""

from __future__ import annotations

import base64
import dataclasses
import enum
import inspect
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

from flyte.connectors import AsyncConnector

from executors.connector import link_of, phase_of
from executors.connector_use import ConnectorUse
from executors.errors import PermanentError, RetryableError
from executors.external_job import Job, JobPhase, JobStatus
from executors.flyte import literals
from executors.flyte.interface import fitted_inputs
from executors.flyte.kept import kept_job, kept_meta
from executors.flyte.logs import LogText
from executors.flyte.template import task_execution, task_template
from executors.jsonvalue import json_fault
from executors.protocol import RunContext

_DEEPEST: Final = 50


class SdkUse(ConnectorUse):
    """One connector and the secrets of one run, which no text that leaves it shows."""

    def submission(self, run: RunContext, prefix: str) -> dict[str, Any]:
        """What `create` is called with besides the secrets; raises `PermanentError` for what Flyte has no words for."""
        inputs = fitted_inputs(run, run.config.interface)
        return {
            "task_template": task_template(run, run.config, inputs),
            "output_prefix": prefix,
            "inputs": {name: value for name, (value, _) in inputs.items()},
            "task_execution_metadata": task_execution(run),
        }

    async def create(self, sent: Mapping[str, Any]) -> Job:
        """Submit the job."""
        meta = await self.call(self.connector.create, **sent)
        try:
            encoded = meta.encode()
        except Exception as error:
            said = f"{self}: the job's metadata cannot be kept: {type(error).__name__}: {error}"
            raise PermanentError(self.hidden.hide(said), outcome_known=False) from None
        if not isinstance(encoded, bytes):
            raise PermanentError(f"{self} returned a {type(meta).__name__}, not a ResourceMeta", outcome_known=False)
        return kept_job(self.connector.task_type_name, encoded)

    async def look(self, job: Job) -> JobStatus:
        """How the job stands."""
        return self.status(await self.call(self.connector.get, resource_meta=self.meta(job)))

    async def delete(self, job: Job) -> None:
        """Have the job cancelled."""
        await self.call(self.connector.delete, resource_meta=self.meta(job))

    async def logs(self, job: Job) -> str | None:
        """What the job has printed; None if the connector does not tell."""
        if type(self.connector).get_logs is AsyncConnector.get_logs:
            return None
        text = LogText()

        async def collect(**named: Any) -> None:
            found: Any = self.connector.get_logs(**named)
            if not inspect.isasyncgen(found):
                text.add(await found)
                return
            async for part in found:
                text.add(part)
                if text.is_full:
                    return

        await self.call(collect, resource_meta=self.meta(job), token="")  # of a page, no secret
        return None if text.is_empty else self.hidden.hide(str(text))

    def meta(self, job: Job) -> Any:
        """The metadata as its class has it; `RetryableError` if this version of the connector cannot read it."""
        try:
            return self.connector.metadata_type.decode(kept_meta(job))
        except Exception as error:
            # Another version has written it, and a worker of that version may take over.
            said = f"{self} cannot read the metadata of its job: {type(error).__name__}: {error}"
            raise RetryableError(self.hidden.hide(said)) from None

    def status(self, resource: Any) -> JobStatus:
        """The answer of `get` as the worker takes it."""
        try:
            phase = phase_of(resource.phase)
            links = tuple(link_of(link) for link in resource.log_links or ())
            message, outputs, custom = resource.message, resource.outputs, resource.custom_info
        except (AttributeError, ValueError, TypeError) as error:
            raise RetryableError(f"{self} answered with something else than a Resource: {error}") from None
        told = {
            name: None if value is None else _plain(value)
            for name, value in (("outputs", outputs), ("custom_info", custom))
        }
        for name, value in told.items():
            fault = json_fault(value, name)
            if value is not None and not isinstance(value, dict):
                fault = f"{name} is a {type(value).__name__}, not a mapping"
            if fault and not phase.is_over:
                raise RetryableError(f"{self}: {fault}")
            if fault:
                # The job is over whatever it left: asked again, it would only say the same.
                said = f"what the job left cannot be stored: {fault}"
                return JobStatus(JobPhase.FAILED, said, links=links, retryable=False)
        return JobStatus(phase, self.hidden.hide(message or ""), told["outputs"], links, told["custom_info"])


def _plain(value: Any, depth: int = 0) -> Any:
    """A value of Python's as JSON, as literals are told; what is none of these stays what it is."""
    if value is None or isinstance(value, (bool, str)) or depth > _DEEPEST:
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, depth + 1)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, datetime):
        return literals.rfc3339(value) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return literals.seconds(value)
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode(), "tag": ""}
    return _plain_object(value, depth)


def _plain_object(value: Any, depth: int) -> Any:
    if hasattr(value, "DESCRIPTOR") and hasattr(value, "literals"):  # Flyte's own Outputs and LiteralMap.
        named = value.literals
        if isinstance(named, Mapping):
            return {name: literals.plain(each) for name, each in named.items()}
        return literals.plain_named(named)
    if type(value).__module__.partition(".")[0] == "flyte":  # Files, folders and tables: where they are.
        found = getattr(value, "uri", None) or getattr(value, "path", None)
        if isinstance(found, str):
            return {"uri": found}
    if callable(dump := getattr(value, "model_dump", None)):  # As pydantic's models have it.
        return _plain(dump(mode="json"), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(fields, depth + 1)
    return value
