"""What a plugin author imports: the contract of executors, its values and its errors.

Names are loaded at first use, so that `import executors` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from executors.airbyte import AirbyteExecutor
    from executors.connector import AsyncConnector, ConnectorSecretsMixin, Phase, Resource, ResourceMeta
    from executors.connector_executor import ConnectorExecutor
    from executors.connector_registry import ConnectorNotFound, ConnectorRegistry
    from executors.connector_tasks import (
        AsyncConnectorExecutorMixin,
        NativeInterface,
        SerializationContext,
        TaskTemplate,
    )
    from executors.errors import (
        ExecutorConfigError,
        ExecutorError,
        ExecutorNotFound,
        PermanentError,
        RetryableError,
        WorkerExhausted,
    )
    from executors.external_job import ExternalJob, Job, JobBusy, JobConfig, JobGone, JobPhase, JobStatus, Link
    from executors.http_job import HttpJobExecutor
    from executors.http_request import HttpExecutor
    from executors.logging_executor import LoggingExecutor
    from executors.output import Output
    from executors.protocol import (
        Deferred,
        Executor,
        Failed,
        Outcome,
        Resumed,
        RunContext,
        Succeeded,
        as_failure,
        as_outcome,
    )
    from executors.python_call import PythonExecutor
    from executors.shell import ShellExecutor
    from executors.waits import Poll, Until

_HOME: Final = {
    "AirbyteExecutor": "airbyte",
    "AsyncConnector": "connector",
    "AsyncConnectorExecutorMixin": "connector_tasks",
    "ConnectorExecutor": "connector_executor",
    "ConnectorNotFound": "connector_registry",
    "ConnectorRegistry": "connector_registry",
    "ConnectorSecretsMixin": "connector",
    "Deferred": "protocol",
    "Executor": "protocol",
    "ExecutorConfigError": "errors",
    "ExecutorError": "errors",
    "ExecutorNotFound": "errors",
    "ExternalJob": "external_job",
    "Failed": "protocol",
    "HttpExecutor": "http_request",
    "HttpJobExecutor": "http_job",
    "Job": "external_job",
    "JobBusy": "external_job",
    "JobConfig": "external_job",
    "JobGone": "external_job",
    "JobPhase": "external_job",
    "JobStatus": "external_job",
    "Link": "external_job",
    "LoggingExecutor": "logging_executor",
    "NativeInterface": "connector_tasks",
    "Outcome": "protocol",
    "Output": "output",
    "PermanentError": "errors",
    "Phase": "connector",
    "Poll": "waits",
    "PythonExecutor": "python_call",
    "Resource": "connector",
    "ResourceMeta": "connector",
    "Resumed": "protocol",
    "RetryableError": "errors",
    "WorkerExhausted": "errors",
    "RunContext": "protocol",
    "SerializationContext": "connector_tasks",
    "ShellExecutor": "shell",
    "Succeeded": "protocol",
    "TaskTemplate": "connector_tasks",
    "Until": "waits",
    "as_failure": "protocol",
    "as_outcome": "protocol",
}

__all__ = [
    "AirbyteExecutor",
    "AsyncConnector",
    "AsyncConnectorExecutorMixin",
    "ConnectorExecutor",
    "ConnectorNotFound",
    "ConnectorRegistry",
    "ConnectorSecretsMixin",
    "Deferred",
    "Executor",
    "ExecutorConfigError",
    "ExecutorError",
    "ExecutorNotFound",
    "ExternalJob",
    "Failed",
    "HttpExecutor",
    "HttpJobExecutor",
    "Job",
    "JobBusy",
    "JobConfig",
    "JobGone",
    "JobPhase",
    "JobStatus",
    "Link",
    "LoggingExecutor",
    "NativeInterface",
    "Outcome",
    "Output",
    "PermanentError",
    "Phase",
    "Poll",
    "PythonExecutor",
    "Resource",
    "ResourceMeta",
    "Resumed",
    "RetryableError",
    "WorkerExhausted",
    "RunContext",
    "SerializationContext",
    "ShellExecutor",
    "Succeeded",
    "TaskTemplate",
    "Until",
    "as_failure",
    "as_outcome",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
