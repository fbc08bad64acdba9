"""A connector as one run uses it: called with its secrets, its answers made what the worker understands."""

from __future__ import annotations

import base64
import inspect
import json
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from executors.connector import AsyncConnector, Resource, ResourceMeta
from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.external_job import Job, JobPhase, JobStatus
from executors.hiding import Hidden
from executors.jsonvalue import json_fault
from executors.output import clip


class ConnectorUse:
    """One connector and the secrets of one run, which no text that leaves it shows."""

    def __init__(self, connector: AsyncConnector[Any], secrets: Mapping[str, str]) -> None:
        self.connector = connector
        self.secrets = secrets
        self.hidden = Hidden(secrets.values())

    def __str__(self) -> str:
        return f"the connector {self.connector.task_type_name}"

    async def call(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What the method answers to this, the secrets and those of `named` that it has a place for.

        An error whose text shows a secret is told without it.
        """
        try:
            waiting = method(*given, **_accepted(method, {**self.secrets, **named}))
        except TypeError as error:
            raise PermanentError(f"{self} cannot be called: {error}") from error
        try:
            return await waiting
        except ExecutorError as error:
            if not self.hidden.shown_in(str(error)):
                raise
            error.args = (self.hidden.hide(str(error)),)
            raise error from None
        except Exception as error:
            told = "".join(traceback.format_exception(error))
            if not self.hidden.shown_in(told):
                raise
            raise RetryableError(clip(self.hidden.hide(told)), outcome_known=False) from None

    # --- metadata ----------------------------------------------------------------------------------------------------

    def job(self, meta: object) -> Job:
        """The job as the worker keeps it: what `encode` wrote, readable where that is a JSON object."""
        kind = self.connector.metadata_type
        if not isinstance(meta, ResourceMeta):
            said = f"{self} returned a {type(meta).__name__}, not a {kind.__name__}"
            raise PermanentError(said, outcome_known=False)
        try:
            encoded = meta.encode()
        except (TypeError, ValueError) as error:
            raise PermanentError(f"{self}: the job's metadata cannot be kept: {error}", outcome_known=False) from None
        kept = _readable(encoded)
        stored = {"base64": base64.b64encode(encoded).decode()} if kept is None else {"json": kept}
        # Two kinds of jobs may number theirs alike, and ids are unique per executor; no id is nobody's.
        job_id = self.connector.job_id(meta)
        return Job(stored, f"{self.connector.task_type_name}:{job_id}" if job_id else "")

    def meta(self, job: Job) -> ResourceMeta:
        """The metadata that `job` keeps; `RetryableError` if this version of the connector cannot read it."""
        stored = job.meta
        try:
            encoded = _written(stored["json"]) if "json" in stored else base64.b64decode(stored["base64"])
            found: ResourceMeta = self.connector.metadata_type.decode(encoded)
        except (KeyError, TypeError, ValueError) as error:
            # Another version has written it, and a worker of that version may take over.
            raise RetryableError(f"{self} cannot read the metadata of its job: {error}") from error
        return found

    # --- answers -----------------------------------------------------------------------------------------------------

    def status(self, resource: object) -> JobStatus:
        """The answer of `get` as the worker takes it."""
        if not isinstance(resource, Resource):
            raise RetryableError(f"{self} answered with a {type(resource).__name__}, not a Resource")
        phase: JobPhase = resource.phase
        links = tuple(resource.log_links or ())
        if fault := _fault("outputs", resource.outputs) or _fault("custom_info", resource.custom_info):
            if not phase.is_over:
                raise RetryableError(f"{self}: {fault}")
            # The job is over whatever it left: asked again, it would only say the same.
            said = f"what the job left cannot be stored: {fault}"
            return JobStatus(JobPhase.FAILED, said, links=links, retryable=False)
        message = self.hidden.hide(resource.message or "")
        return JobStatus(phase, message, resource.outputs, links, resource.custom_info)


def _accepted(method: Callable[..., Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that a method has a place for; `run` only where a parameter asks for it by name."""
    names, takes_any = _places(getattr(method, "__func__", method))
    return {name: value for name, value in named.items() if name in names or (takes_any and name != "run")}


# Looked up for every poll of every job, and the same for all of them.
@lru_cache(maxsize=1_000)
def _places(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    parameters = inspect.signature(function).parameters
    return frozenset(parameters), any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _fault(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return f"{name} is a {type(value).__name__}, not a mapping"
    return json_fault(value, name)


def _readable(encoded: bytes) -> Any:
    """The JSON object that was encoded, if it can be stored as one and is written again to the same; else None."""
    if b"\\u0000" in encoded:
        return None  # NUL, which PostgreSQL cannot store.
    try:
        document = json.loads(encoded)
    except ValueError:
        return None
    if not isinstance(document, dict) or json_fault(document, "meta"):
        return None
    return document if _written(document) == encoded else None


def _written(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
