"""What a task's `config` says to executors that use Flyte's connectors, in this process or behind a server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from executors.errors import Problem
from executors.external_job import JobConfig
from executors.flyte.interface import Interface

# What the methods of a connector are called with besides the secrets.
_TAKEN: Final = frozenset({"task_template", "output_prefix", "inputs", "task_execution_metadata", "resource_meta"})


@dataclass(frozen=True, kw_only=True)
class FlyteTaskConfig(JobConfig):
    """`type` and `version` name the connector, `custom` is what it is told, `interface` what the task takes and gives.

    `secrets` maps a keyword of the connector's methods to the environment variable that holds its value. `template` is
    more of Flyte's TaskTemplate, as protobuf JSON: `{sql: {statement: SELECT 1}}`.
    """

    type: str
    version: int = 0
    custom: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    interface: Interface = field(default_factory=Interface)
    template: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        yield from super().check()
        if not self.type:
            yield "type", "is empty"
        if self.version not in range(-(2**31), 2**31):
            yield "version", "is a number of more than 32 bits"
        for name in self.secrets:
            if name in _TAKEN:
                yield f"secrets.{name}", "is what the connector gets anyway: choose another name"
        for name in ("type", "task_type_version", "taskTypeVersion", "custom", "interface"):
            if name in self.template:
                yield f"template.{name}", "has a key of its own in the config"


def output_prefix(folder: str | None, key: str) -> str:
    """Where a run's job may write: a place of its own below the folder, or below the machine's for temporary files."""
    top = folder or (Path(tempfile.gettempdir()) / "trigger-scheduler").as_uri()
    return f"{top.rstrip('/')}/{key}"
