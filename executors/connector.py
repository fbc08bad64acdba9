"""Connectors: one class a kind of external job, found by the type that a task names.

    @dataclass
    class BatchMeta(ResourceMeta):
        job_id: str

    class BatchConnector(AsyncConnector[BatchMeta]):
        name = "Batch"
        task_type_name = "batch_job"
        metadata_type = BatchMeta

        async def create(self, task_template, output_prefix, inputs=None, *, run_name, **secrets) -> BatchMeta: …
        async def get(self, resource_meta, **secrets) -> Resource: …
        async def delete(self, resource_meta, **secrets) -> None: …

    ConnectorRegistry.register(BatchConnector())

The shape is that of Flyte's connectors, so that one written for Flyte needs other imports and nothing else.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from executors.connector_tasks import TaskTemplate
from executors.external_job import JobPhase, Link
from executors.plain import from_plain, to_plain

Phase: TypeAlias = JobPhase

# The numbers of flyteidl's TaskExecution.Phase; 0 is "undefined", which is no answer.
_NUMBERS: Final = {
    1: JobPhase.QUEUED,
    2: JobPhase.RUNNING,
    3: JobPhase.SUCCEEDED,
    4: JobPhase.ABORTED,
    5: JobPhase.FAILED,
    6: JobPhase.INITIALIZING,
    7: JobPhase.QUEUED,
    8: JobPhase.RETRYABLE_FAILED,
}
_NAMES: Final = {**{str(phase): phase for phase in JobPhase}, "WAITING_FOR_RESOURCES": JobPhase.QUEUED}


@dataclass
class ResourceMeta:
    """What finds a job again: a dataclass of one's own derived from this one.

    It is stored as JSON when the job is created and given to every later call, after restarts too. What is not told by
    a dataclass's fields goes into `encode` and `decode` of one's own.
    """

    def encode(self) -> bytes:
        """The fields as a JSON object in UTF-8. Raises `TypeError` or `ValueError` for what JSON cannot carry."""
        if inspect.get_annotations(type(self)) and "__dataclass_fields__" not in vars(type(self)):
            raise TypeError(f"{type(self).__name__} must be a dataclass: put @dataclass above it")
        return json.dumps(to_plain(self), separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What `encode` wrote; fields that are not known any more are left out. `ValueError` for anything else."""
        try:
            made: Self = from_plain(cls, json.loads(data))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"this is no {cls.__name__}: {error}") from None
        return made


Meta = TypeVar("Meta", bound=ResourceMeta)


@dataclass
class Resource:
    """How a job stands. `phase` may also be a member of another enum of the same names, or a number of flyteidl's.

    `log_links` are `Link`s or anything with a name and a uri; `outputs` and `custom_info` are JSON objects.
    """

    phase: Any
    message: str | None = None
    log_links: Sequence[Any] | None = None
    outputs: Mapping[str, Any] | None = None
    custom_info: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.phase = phase_of(self.phase)
        self.log_links = [link_of(link) for link in self.log_links or ()]


class AsyncConnector(Generic[Meta]):
    """Submits, watches and cancels the jobs of one kind. One instance serves all of them, many at once.

    `task_type_name`, `metadata_type`, `create`, `get` and `delete` are needed before a job is submitted. Every call
    gets the secrets as keywords. An error means what it means in `executors.external_job`: `JobGone` and
    `PermanentError` are final, `JobBusy` refuses a second job, anything else is tried again.
    """

    name: str = "Async Connector"
    task_type_name: str
    task_type_version: int = 0
    metadata_type: type[Meta]

    async def create(
        self,
        task_template: TaskTemplate,
        output_prefix: str,
        inputs: dict[str, Any] | None = None,
        *,
        run_name: str,
        **secrets: Any,
    ) -> Meta:
        """Submit the job and return as soon as it is accepted.

        `run_name` is the idempotency key: stable while it is unknown whether an attempt has submitted a job.
        """
        raise NotImplementedError

    async def get(self, resource_meta: Meta, **secrets: Any) -> Resource:
        """How the job stands."""
        raise NotImplementedError

    async def delete(self, resource_meta: Meta, **secrets: Any) -> None:
        """Cancel the job; called any number of times, also when it is over."""
        raise NotImplementedError

    async def find(self, key: str, **secrets: Any) -> Meta | None:
        """The job that was submitted under this key (`run_name`), None if there is none.

        Define it where the service can tell: then a worker that dies in the middle of `create` costs nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot find jobs by their key")

    async def get_many(self, resource_metas: Sequence[Meta], **secrets: Any) -> Sequence[Resource | Exception]:
        """How each of these jobs stands, in their order. Define it where the service answers for many at once."""
        raise NotImplementedError(f"{type(self).__name__} asks for one job at a time")

    async def get_logs(self, resource_meta: Meta, **secrets: Any) -> str | None:
        """What the job has printed; None if the service does not tell."""
        return None

    def job_id(self, resource_meta: Meta) -> str:
        """The service's name for the job, as people see it: the field `job_id` or `id`, or the only field there is."""
        fields = [field.name for field in dataclasses.fields(resource_meta)]
        named = next((name for name in ("job_id", "id") if name in fields), fields[0] if len(fields) == 1 else None)
        return "" if named is None else str(getattr(resource_meta, named))

    def defines(self, method: str) -> bool:
        """Whether the connector has a method of its own in the place of one that does nothing."""
        return getattr(type(self), method) is not getattr(AsyncConnector, method)

    def missing(self) -> list[str]:
        """What the connector lacks, so that no job can be entrusted to it."""
        lacking = [method for method in ("create", "get", "delete") if not self.defines(method)]
        return lacking if hasattr(self, "metadata_type") else [*lacking, "metadata_type"]


class ConnectorSecretsMixin:
    """For connectors with secrets: `secrets` maps the keyword that the methods get to an environment variable."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        super().__init__()
        self._secrets: Final = dict(secrets)

    @property
    def secrets(self) -> Mapping[str, str]:
        """Keyword and environment variable of each secret; no values."""
        return self._secrets


def phase_of(value: object) -> JobPhase:
    """The phase that an enum's member, a name or a number of flyteidl's means; `ValueError` if none."""
    if isinstance(value, JobPhase):
        return value
    if isinstance(value, Enum):
        value = value.name
    found = None
    if isinstance(value, str):
        found = _NAMES.get(value.upper())
    elif isinstance(value, int) and not isinstance(value, bool):
        found = _NUMBERS.get(int(value))
    if found is None:
        raise ValueError(f"{value!r} is no phase of a job: {', '.join(JobPhase)}")
    return found


def link_of(value: Any) -> Link:
    """A link out of anything that has a name and a uri."""
    if isinstance(value, Link):
        return value
    if isinstance(value, Mapping):
        return Link(str(value["name"]), str(value["uri"]))
    return Link(str(value.name), str(value.uri))
