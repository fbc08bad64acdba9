"""From rows back to what was deployed: a task's definition, a trigger's specification."""

from __future__ import annotations

import json

from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import SpecError
from scheduler.store.rows import Row


def definition_of(task: Row, version: Row, spec: TaskSpec, triggers: tuple[TriggerSpec, ...] = ()) -> TaskDefinition:
    """The definition that these rows of a task and one of its versions were deployed from."""
    return TaskDefinition(
        task["project"],
        task["domain"],
        task["name"],
        version["version"],
        spec,
        triggers,
        Environment(version["environment"], version["environment_description"]),
        version["description"],
        version["long_description"],
    )


def deployed_spec(row: Row) -> TriggerSpec | None:
    """What the last deploy of a trigger said; None where none did, or where this version cannot read it."""
    if row["deployed"] is None:
        return None
    try:
        return TriggerSpec.from_document(json.loads(row["deployed"]))
    except (SpecError, ValueError, KeyError, TypeError):
        return None
