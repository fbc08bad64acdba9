"""A connector task executed here and now: no worker, no database."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

from executors.connector_executor import ConnectorExecutor
from executors.connector_registry import ConnectorNotFound
from executors.connector_tasks import TaskTemplate
from executors.errors import ExecutorError
from executors.following import follow
from executors.protocol import Failed, RunContext, Succeeded


async def execute_task(task: TaskTemplate, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `AsyncConnectorExecutorMixin.execute` does."""
    known = task.interface.inputs
    if unknown := sorted(inputs.keys() - known.keys()):
        raise TypeError(f"{task.name} takes no input {', '.join(unknown)} (it takes {', '.join(known) or 'none'})")
    defaults = {name: default for name, (_, default) in known.items() if default is not None}
    config = ConnectorExecutor.Config(
        type=task.task_type, version=task.task_type_version, custom=task.custom, poll_interval=timedelta(seconds=1)
    )
    slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-")[:16].strip("-") or "task"
    run = RunContext(f"{slug}-{uuid.uuid4().hex}", task=task.name, inputs=defaults | inputs, config=config)
    try:
        async with run:
            outcome = await follow(_LocalExecutor(task), run)
    except ConnectorNotFound:
        raise
    except ExecutorError as error:
        raise RuntimeError(f"the task {task.name} did not succeed: {error}") from error
    match outcome:
        case Succeeded(outputs):
            return dict(outputs or {})
        case Failed(error=said):
            raise RuntimeError(f"the task {task.name} did not succeed: {said}")
    raise AssertionError(f"a job that is followed ends, and this one is {outcome}")


class _LocalExecutor(ConnectorExecutor):
    """Executes one task object; the connector sees that very object."""

    def __init__(self, task: TaskTemplate) -> None:
        super().__init__()
        self._task = task

    def _template(self, run: RunContext) -> TaskTemplate:
        return self._task
