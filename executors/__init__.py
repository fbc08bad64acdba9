"""What a plugin author imports: the contract of executors, its values and its errors.

Names are loaded at first use, so that `import executors` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from executors.errors import (
        ExecutorConfigError,
        ExecutorError,
        ExecutorNotFound,
        PermanentError,
        RetryableError,
    )
    from executors.external_job import ExternalJob, Job, JobBusy, JobConfig, JobGone, JobPhase, JobStatus, Link
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
    "Deferred": "protocol",
    "Executor": "protocol",
    "ExecutorConfigError": "errors",
    "ExecutorError": "errors",
    "ExecutorNotFound": "errors",
    "ExternalJob": "external_job",
    "Failed": "protocol",
    "HttpExecutor": "http_request",
    "Job": "external_job",
    "JobBusy": "external_job",
    "JobConfig": "external_job",
    "JobGone": "external_job",
    "JobPhase": "external_job",
    "JobStatus": "external_job",
    "Link": "external_job",
    "LoggingExecutor": "logging_executor",
    "Outcome": "protocol",
    "Output": "output",
    "PermanentError": "errors",
    "Poll": "waits",
    "PythonExecutor": "python_call",
    "Resumed": "protocol",
    "RetryableError": "errors",
    "RunContext": "protocol",
    "ShellExecutor": "shell",
    "Succeeded": "protocol",
    "Until": "waits",
    "as_failure": "protocol",
    "as_outcome": "protocol",
}

__all__ = [
    "Deferred",
    "Executor",
    "ExecutorConfigError",
    "ExecutorError",
    "ExecutorNotFound",
    "ExternalJob",
    "Failed",
    "HttpExecutor",
    "Job",
    "JobBusy",
    "JobConfig",
    "JobGone",
    "JobPhase",
    "JobStatus",
    "Link",
    "LoggingExecutor",
    "Outcome",
    "Output",
    "PermanentError",
    "Poll",
    "PythonExecutor",
    "Resumed",
    "RetryableError",
    "RunContext",
    "ShellExecutor",
    "Succeeded",
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
