"""A run as Flyte's connectors are told of it: the task's template, its inputs, and which execution it is."""

from __future__ import annotations

from typing import Any

from flyteidl2.connector import connector_pb2
from flyteidl2.core import identifier_pb2, interface_pb2, tasks_pb2
from google.protobuf import json_format

from executors.errors import PermanentError
from executors.flyte import literals
from executors.flyte.interface import Fitted, kind_of
from executors.flyte.task import FlyteTaskConfig
from executors.protocol import RunContext


def task_template(run: RunContext, config: FlyteTaskConfig, inputs: Fitted) -> Any:
    """Flyte's `TaskTemplate`; raises `PermanentError` if the task's config cannot be made one."""
    try:
        template = json_format.ParseDict(config.template, tasks_pb2.TaskTemplate())
        json_format.ParseDict(config.custom, template.custom)
    except (json_format.Error, TypeError, ValueError) as error:
        raise PermanentError(f"the task's config is no task of Flyte's: {error}") from None
    template.type = config.type
    template.task_type_version = config.version
    template.id.CopyFrom(_task_id(run))
    template.interface.CopyFrom(
        interface_pb2.TypedInterface(
            inputs=literals.variables({name: kind for name, (_, kind) in inputs.items()}),
            outputs=literals.variables({name: kind_of(text) for name, text in config.interface.outputs.items()}),
        )
    )
    return template


def task_execution(run: RunContext) -> Any:
    """Flyte's `TaskExecutionMetadata`: the run's idempotency key is the name of the execution."""
    execution = identifier_pb2.WorkflowExecutionIdentifier(project=run.project, domain=run.domain, name=run.key)
    node = identifier_pb2.NodeExecutionIdentifier(node_id="n0", execution_id=execution)
    return connector_pb2.TaskExecutionMetadata(
        task_execution_id=identifier_pb2.TaskExecutionIdentifier(
            task_id=_task_id(run), node_execution_id=node, retry_attempt=max(0, run.attempt - 1)
        ),
        namespace=f"{run.project}-{run.domain}",
        labels={"run": run.run_name},
        max_attempts=1,
    )


def _task_id(run: RunContext) -> Any:
    return identifier_pb2.Identifier(
        resource_type=identifier_pb2.TASK, project=run.project, domain=run.domain, name=run.task, version=run.version
    )
