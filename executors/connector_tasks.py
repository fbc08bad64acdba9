"""What a connector is told about the task, and tasks that can be executed without a worker or a database.

class BatchTask(AsyncConnectorExecutorMixin, TaskTemplate): …
outputs = await BatchTask(name="batch", …).execute(val=42)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

# What Flyte's task templates take besides: about containers and Flyte's own scheduling, which are not ours.
_OF_FLYTE: Final = frozenset(
    {
        "cache",
        "debuggable",
        "docs",
        "entrypoint",
        "env_vars",
        "interruptible",
        "links",
        "max_inline_io_bytes",
        "parent_env",
        "parent_env_name",
        "pod_template",
        "queue",
        "report",
        "resources",
        "retries",
        "reusable",
        "secrets",
        "short_name",
        "timeout",
        "triggers",
    }
)


@dataclass(frozen=True)
class NativeInterface:
    """Names and types of what a task takes, each with its default or None, and of what it gives."""

    inputs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SerializationContext:
    """Where a task belongs, for `TaskTemplate.custom_config`."""

    version: str = ""
    project: str | None = None
    domain: str | None = None
    org: str | None = None


class TaskTemplate:
    """One task as a connector sees it: its name, its type and, in `custom`, what it says to the connector.

    Derive from it to give a task type a Python class of its own. Arguments of Flyte's that mean nothing here are kept
    as attributes; unknown ones raise `TypeError`.
    """

    def __init__(
        self,
        name: str,
        interface: NativeInterface | None = None,
        task_type: str = "python",
        task_type_version: int = 0,
        image: Any = None,
        *,
        custom: Mapping[str, Any] | None = None,
        context: SerializationContext | None = None,
        **of_flyte: Any,
    ) -> None:
        if unknown := sorted(of_flyte.keys() - _OF_FLYTE):
            raise TypeError(f"{type(self).__name__}() got unexpected arguments: {', '.join(unknown)}")
        self.name = name
        self.interface = interface or NativeInterface()
        self.task_type = task_type
        self.task_type_version = task_type_version
        self.image = image
        self.context = context or SerializationContext()
        self._custom = custom
        for key, value in of_flyte.items():
            setattr(self, key, value)

    @property
    def type(self) -> str:
        """The task type, by the name that it has in Flyte's messages."""
        return self.task_type

    @property
    def custom(self) -> dict[str, Any]:
        """What the task says to its connector: a task's `config.custom`, or what `custom_config` returns."""
        return dict(self._custom if self._custom is not None else self.custom_config(self.context) or {})

    def custom_config(self, sctx: SerializationContext) -> dict[str, Any] | None:
        """For task classes: what the task says to its connector."""
        return None


class AsyncConnectorExecutorMixin:
    """Gives a `TaskTemplate` an `execute` that submits its job by the registered connector and waits for the end."""

    name: str
    task_type: str
    task_type_version: int

    async def execute(self, **inputs: Any) -> dict[str, Any]:
        """The job's outputs. Cancelled, it cancels the job.

        Raises `RuntimeError` if the job does not succeed, `ConnectorNotFound` without a connector for the task's type,
        `TypeError` for an input that the task does not take.
        """
        from executors.connector_local import execute_task

        return await execute_task(cast(TaskTemplate, self), inputs)
