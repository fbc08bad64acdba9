"""What a program schedules: its triggers, each with the task it runs, and the deploy they make together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from scheduler.domain.automation import Automation
from scheduler.domain.calendars import Calendar
from scheduler.domain.identity import check_name
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, Overlap, TriggerSpec
from scheduler.domain.values import check_json
from scheduler.errors import ConfigError, Problem
from scheduler.services.operate import TriggerKey

VERSION: Final = "library"
"""The version of the tasks that triggers make; a version of its own, so that no manifest's is overwritten."""

CheckTask: TypeAlias = Callable[[str, Mapping[str, Any], Mapping[str, Any]], list[Problem]]
"""What is wrong with a task's executor, config and inputs."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a task runs, and what the task is. Raises `SpecError`, a `ValueError`, where that cannot be.

    `automation` is a `Cron`, a `FixedRate` or an `At`; without one the trigger is fired by hand only. `executor` names one
    of the scheduler's executors, and may be left out where there is but one. `config`, `timeout`, `deadline` and
    `retries` belong to the task, so all triggers of a task say the same.
    """

    project: str
    domain: str
    task: str
    name: str
    automation: Automation | None = None
    executor: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    kickoff_time_input_arg: str | None = None
    timeout: timedelta | None = None
    deadline: timedelta | None = None
    retries: RetryPolicy = RetryPolicy()
    catchup: CatchUp = CatchUp()
    overlap: Overlap = "allow_all"
    pause_on_failure: int | None = None
    jitter: timedelta = timedelta(0)
    start: datetime | None = None
    end: datetime | None = None
    max_fires: int | None = None
    calendars: tuple[Calendar, ...] = ()
    active: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        for label in ("project", "domain", "task"):
            check_name(getattr(self, label), label)
        check_json(self.inputs, "inputs")
        # Building them is the check.
        self.spec()
        self.task_spec(self.executor or "executor")

    @property
    def key(self) -> TriggerKey:
        """`project/domain/task/name` as a text."""
        return TriggerKey(self.project, self.domain, self.task, self.name)

    def spec(self) -> TriggerSpec:
        """The trigger's part."""
        return TriggerSpec(
            self.name,
            self.automation,
            kickoff_time_input_arg=self.kickoff_time_input_arg,
            inputs=self.inputs,
            catchup=self.catchup,
            overlap=self.overlap,
            pause_on_failure=self.pause_on_failure,
            jitter=self.jitter,
            start=self.start,
            end=self.end,
            max_fires=self.max_fires,
            calendars=self.calendars,
            active=self.active,
            description=self.description,
        )

    def task_spec(self, executor: str) -> TaskSpec:
        """The task's part, run by `executor`."""
        return TaskSpec(
            executor, config=self.config, timeout=self.timeout, deadline=self.deadline, retries=self.retries
        )


def definitions_of(
    triggers: Iterable[Trigger], default_executor: str | None, check_task: CheckTask
) -> list[TaskDefinition]:
    """The tasks that these triggers make, each with its triggers; raises `ConfigError` with every fault."""
    specs: dict[tuple[str, str, str], TaskSpec] = {}
    members: dict[tuple[str, str, str], dict[str, TriggerSpec]] = {}
    problems: list[Problem] = []
    for index, trigger in enumerate(triggers):
        where = f"[{index}] {trigger.key}"
        executor = trigger.executor or default_executor
        if executor is None:
            problems.append(Problem(where, "names no executor, and there are several to choose from"))
            continue
        task = trigger.key[:3]
        spec = trigger.task_spec(executor)
        problems += [
            Problem(f"{where}: {fault.where}", fault.reason)
            for fault in check_task(executor, trigger.config, trigger.inputs)
        ]
        if specs.setdefault(task, spec) != spec:
            reason = "executor, config, timeout, deadline and retries differ from an earlier trigger's of the same task"
            problems.append(Problem(where, f"{reason}: they belong to the task"))
        names = members.setdefault(task, {})
        if trigger.name in names:
            problems.append(Problem(where, "is named twice"))
        names[trigger.name] = trigger.spec()
    if problems:
        raise ConfigError("schedules", problems)
    return [TaskDefinition(*task, VERSION, spec, tuple(members[task].values())) for task, spec in specs.items()]
