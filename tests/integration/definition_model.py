"""What definitions are, as plain dictionaries: the promises of deploys, switches and deletes without any database.

Every method answers as the real one does, or raises what it raises; `Model` is then what the database must show.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import TaskDefinition
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import Conflict, NotFound, RevisionConflict

MINUTE = 60 * SECOND


@dataclass
class Change:
    """One revision."""

    action: str
    at: Micros
    by: str
    version: str
    active: bool
    spec: dict[str, Any]


@dataclass
class Trigger:
    """One trigger that ever was; its revision is the length of its history."""

    spec: TriggerSpec
    source: str
    version: str
    active: bool
    deleted: bool = False
    history: list[Change] = field(default_factory=list)
    planned: object = None
    anchor: tuple[int, Micros] | None = None
    next_slot: Micros | None = None

    @property
    def revision(self) -> int:
        return len(self.history)

    @property
    def live(self) -> bool:
        return self.active and not self.deleted

    def plan(self, now: Micros) -> None:
        """What is planned stays as long as the schedule does; a new one begins strictly after now."""
        automation = self.spec.automation
        if not self.live or automation is None:
            self.planned = self.next_slot = None
            return
        if isinstance(automation, FixedRate) and (self.anchor is None or self.anchor[0] != automation.interval):
            self.anchor = automation.interval, now - now % SECOND
        schedule = automation, self.anchor
        if schedule != self.planned:
            self.planned, self.next_slot = schedule, self.after(now)

    def after(self, now: Micros) -> Micros:
        """The first slot after an instant: of `*/n` minutes, or of a rate from its anchor."""
        automation = self.spec.automation
        if isinstance(automation, FixedRate):
            assert self.anchor is not None
            interval, begin = self.anchor[0] * SECOND, self.anchor[1]
            return begin + ((now - begin) // interval + 1) * interval
        assert isinstance(automation, Cron)
        step = int(automation.expression.split()[0].removeprefix("*/")) * MINUTE
        return (now // step + 1) * step


@dataclass
class Task:
    """One task that ever was."""

    versions: dict[str, tuple[Micros, str]] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    deploys: set[str] = field(default_factory=set)
    last: str | None = None
    latest: str = ""
    deployed_at: Micros = -1
    deleted: bool = False

    @property
    def listed(self) -> dict[str, Trigger]:
        return {name: trigger for name, trigger in self.triggers.items() if not trigger.deleted}


class Model:
    """Every task of one project and domain, by name."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}

    def deploy(
        self,
        definition: TaskDefinition,
        now: Micros,
        by: str,
        source: str,
        *,
        at_start: bool = False,
        expected: dict[str, int] | None = None,
    ) -> bool:
        """Whether it said anything new."""
        task = self.tasks.get(definition.name, Task())
        for name, revision in (expected or {}).items():
            found = task.listed[name].revision if name in task.listed else 0
            if found != revision:
                raise RevisionConflict(name, revision, found)
        digest = definition.deploy_digest
        self.tasks[definition.name] = task
        if task.last == digest or (at_start and digest in task.deploys):
            return False
        task.last, task.latest, task.deleted = digest, definition.version, False
        task.deploys.add(digest)
        task.deployed_at = max(now, task.deployed_at + 1)
        task.versions[definition.version] = task.deployed_at, definition.spec.digest
        named = {spec.name: spec for spec in definition.triggers}
        for name, spec in named.items():
            self._name(task, name, spec, definition.version, now, by, source)
        for name, trigger in task.listed.items():
            if name not in named and trigger.source == source:
                self._delete(trigger, definition.version, now, by)
        return True

    def _name(self, task: Task, name: str, spec: TriggerSpec, version: str, now: Micros, by: str, source: str) -> None:
        old = task.triggers.get(name)
        if old is None:
            old = task.triggers[name] = Trigger(spec, source, version, spec.active)
        elif old.deleted:
            old.active, old.deleted = spec.active, False
        elif old.spec == spec:
            old.version, old.source = version, source
            return
        elif old.spec.active != spec.active:
            old.active = spec.active
        old.spec, old.source, old.version = spec, source, version
        old.history.append(Change("DEPLOY", now, by, version, old.active, spec.to_document()))
        old.plan(now)

    def switch(self, keys: list[tuple[str, str]], active: bool, now: Micros, by: str, expected: dict[Any, int]) -> int:
        """How many were not so before."""
        found = self._found(keys, expected)
        changed = [trigger for trigger in found if trigger.active != active]
        for trigger in changed:
            standing = replace(trigger.spec, active=trigger.active).to_document()
            trigger.active = active
            action = "ACTIVATE" if active else "DEACTIVATE"
            trigger.history.append(Change(action, now, by, trigger.version, active, standing))
            trigger.plan(now)
        return len(changed)

    def delete_triggers(self, keys: list[tuple[str, str]], now: Micros, by: str, expected: dict[Any, int]) -> None:
        for trigger in self._found(keys, expected):
            self._delete(trigger, trigger.version, now, by)
        for task, _ in keys:
            self.tasks[task].last = None

    def delete_task(self, name: str, now: Micros, by: str) -> int:
        """How many triggers went with it."""
        task = self.tasks.get(name)
        if task is None or task.deleted:
            raise NotFound("task", name)
        gone = list(task.listed.values())
        for trigger in gone:
            self._delete(trigger, trigger.version, now, by)
        task.deleted, task.last = True, None
        return len(gone)

    def delete_version(self, name: str, version: str) -> None:
        task = self.tasks.get(name)
        if task is None or version not in task.versions:
            raise NotFound("task version", version)
        pointing = any(trigger.version == version for trigger in task.listed.values())
        if pointing or (task.latest == version and not task.deleted):
            raise Conflict(version)
        del task.versions[version]

    def fire(self, now: Micros) -> None:
        """A worker decides all that is due."""
        for task in self.tasks.values():
            for trigger in task.triggers.values():
                if trigger.next_slot is not None and trigger.next_slot <= now:
                    trigger.next_slot = trigger.after(now)

    def _found(self, keys: list[tuple[str, str]], expected: dict[Any, int]) -> list[Trigger]:
        listed = {(task, name): item for task in self.tasks for name, item in self.tasks[task].listed.items()}
        if any(key not in listed for key in keys):
            raise NotFound("trigger", "…")
        for key in sorted(set(keys)):
            if key in expected and listed[key].revision != expected[key]:
                raise RevisionConflict(str(key), expected[key], listed[key].revision)
        return [listed[key] for key in sorted(set(keys))]

    def _delete(self, trigger: Trigger, version: str, now: Micros, by: str) -> None:
        standing = replace(trigger.spec, active=trigger.active).to_document()
        trigger.history.append(Change("DELETE", now, by, version, trigger.active, standing))
        trigger.deleted = True
        trigger.plan(now)
