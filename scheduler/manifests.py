"""Manifests: files of tasks with their triggers, read and checked whole before any of them is deployed.

loaded = load_manifests(settings.tasks, defaults=settings.defaults, projects=settings.known_projects)
loaded.definitions        what a deploy takes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

from scheduler.domain.calendars import Calendar
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, OnLost, OnUnknown, TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.errors import ConfigError, Problem, SpecError
from scheduler.reading.manifest_calendars import CALENDAR, NamedCalendar, read_calendar
from scheduler.reading.manifest_triggers import TRIGGER, read_trigger
from scheduler.reading.section import Report, Section
from scheduler.reading.settings_models import Defaults
from scheduler.reading.strict_yaml import load_file
from scheduler.reading.texts import parse_path, quoted, shown_path

CheckExecutor: TypeAlias = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Iterable[Problem]]
"""Asked with a task's executor, config and inputs; answers problems with paths below the task (`config.command[0]`)."""

_FILE: Final = frozenset({"project", "domain", "tasks", "calendars"})
_TASK: Final = frozenset(
    {
        "name",
        "version",
        "environment",
        "description",
        "long_description",
        "executor",
        "config",
        "inputs",
        "timeout",
        "deadline",
        "retries",
        "max_concurrent_runs",
        "on_lost",
        "on_unknown",
        "cancel_give_up",
        "triggers",
    }
)
_ENVIRONMENT: Final = frozenset({"name", "description"})
_RETRIES: Final = frozenset({"max_attempts", "initial", "multiplier", "maximum"})

_NO_RETRIES: Final = RetryPolicy()
_NO_ENVIRONMENT: Final = Environment()
_PLAIN: Final = TaskSpec(executor="none")


@dataclass(frozen=True)
class Manifests:
    """What the files define: tasks in file order, calendars by name, and by task key the file that defines it."""

    definitions: tuple[TaskDefinition, ...] = ()
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def not_yet_enforced(self) -> list[str]:
        """One warning for each key of these manifests that does nothing yet, naming file and task."""
        return [
            f"{self.sources[definition.key]}: {definition.name}: {key} has no effect yet"
            for definition in self.definitions
            for key in not_yet_enforced(definition)
        ]


def load_manifests(
    paths: Iterable[Path | str],
    *,
    defaults: Defaults | None = None,
    projects: Mapping[str, Collection[str]] | None = None,
    check_executor: CheckExecutor | None = None,
) -> Manifests:
    """Everything that the files under `paths` define; raises `ConfigError` with every fault of every file.

    A folder stands for its `*.yaml` and `*.yml` files by name, not for those in folders below it; a file named twice is
    read once. `defaults` gives project, domain and the zone of crons that name none. `projects` are the projects and
    domains that may be named, None for any. `check_executor` judges each task's executor, config and inputs.
    """
    reader = _Reader(defaults or Defaults(), projects, check_executor)
    names = []
    for path in paths:
        names.append(shown_path(Path(path)))
        for file in reader.files(Path(path)):
            reader.read(file)
    reader.check_calendars()
    if reader.problems:
        raise ConfigError(names[0] if len(names) == 1 else "manifests", reader.problems)
    definitions = tuple(_with_calendars(definition, reader.calendars) for definition in reader.definitions)
    return Manifests(definitions, reader.calendars, {key: seen[0] for key, seen in reader.seen.items()})


def _with_calendars(definition: TaskDefinition, calendars: Mapping[str, Calendar]) -> TaskDefinition:
    """The definition with the dates of the calendars that its triggers name, wherever in the files those stand."""
    if not any(trigger.calendars for trigger in definition.triggers):
        return definition
    triggers = (
        replace(
            trigger,
            calendars=tuple(
                calendars[calendar.name] if isinstance(calendar, NamedCalendar) else calendar
                for calendar in trigger.calendars
            ),
        )
        for trigger in definition.triggers
    )
    return replace(definition, triggers=tuple(triggers))


def _environment(section: Section) -> Environment:
    try:
        return Environment(section.text("name"), section.text("description")) if section.values else _NO_ENVIRONMENT
    except SpecError as error:
        section.fault(error.field.removeprefix("environment."), error.reason)
        return _NO_ENVIRONMENT


class _Reader:
    """Reads one file after the other; what spans files is kept here."""

    def __init__(
        self,
        defaults: Defaults,
        projects: Mapping[str, Collection[str]] | None,
        check_executor: CheckExecutor | None,
    ) -> None:
        self.problems: list[Problem] = []
        self.definitions: list[TaskDefinition] = []
        self.calendars: dict[str, Calendar] = {}
        self.seen: dict[str, tuple[str, str]] = {}
        self._calendar_files: dict[str, str] = {}
        self._calendars_used: list[tuple[Report, tuple[str | int, ...], str]] = []
        self._read: set[Path] = set()
        self._defaults = defaults
        self._projects = projects
        self._check_executor = check_executor

    def files(self, path: Path) -> list[Path]:
        """The manifests that a path stands for, those read before left out."""
        try:
            if path.is_dir():
                found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.name[0] != ".")
            elif path.exists():
                found = [path]
            else:
                found = []
                self.problems.append(Problem("", "no such file or folder", shown_path(path)))
            fresh = [file for file in found if file.resolve() not in self._read]
        except (OSError, ValueError) as error:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            self.problems.append(Problem("", reason, shown_path(path)))
            return []
        self._read.update(file.resolve() for file in fresh)
        return fresh

    def read(self, file: Path) -> None:
        """Takes in one file."""
        try:
            document = load_file(file, shown_path(file))
        except ConfigError as error:
            self.problems.extend(Problem(p.where, p.reason, p.file or error.path) for p in error.problems)
            return
        report = Report(document)
        top = Section(report, (), document.value, _FILE)
        if top.values and top.values.get("tasks") is None and top.values.get("calendars") is None:
            report.add((), "defines nothing: tasks or calendars are missing")
        self._read_calendars(top)
        project, domain = self._place(top)
        for path, item in top.items("tasks"):
            task = Section(report, path, item, _TASK)
            if task.given:
                self._read_task(task, project, domain)
        self.problems.extend(report.problems)

    def _place(self, top: Section) -> tuple[str, str]:
        project = top.name("project", self._defaults.project)
        domain = top.name("domain", self._defaults.domain)
        if self._projects is None or not top.values.get("tasks"):
            return project, domain
        known = "known in the settings"
        if project not in self._projects:
            top.fault("project", f"{quoted(project)} is not a project {known}: {', '.join(self._projects) or 'none'}")
        elif domain not in self._projects[project]:
            names = ", ".join(self._projects[project]) or "none"
            top.fault("domain", f"{quoted(domain)} is not a domain of {project} {known}: {names}")
        return project, domain

    def _read_task(self, task: Section, project: str, domain: str) -> None:
        report, before = task.report, task.report.faults
        name = task.name("name") if task.require("name") else ""
        version = task.name("version") if task.require("version") else ""
        spec = self._spec(task)
        environment = task.section("environment", _ENVIRONMENT)
        triggers = self._triggers(task)
        description, long_description = task.text("description"), task.text("long_description")
        belongs = _environment(environment)
        if name:
            self._check_unique(task, f"{project}/{domain}/{name}")
        if spec is None or report.faults > before:
            return
        try:
            self.definitions.append(
                TaskDefinition(
                    project=project,
                    domain=domain,
                    name=name,
                    version=version,
                    spec=spec,
                    triggers=triggers,
                    environment=belongs,
                    description=description,
                    long_description=long_description,
                )
            )
        except SpecError as error:
            report.add((*task.path, *parse_path(error.field)), error.reason)

    def _check_unique(self, task: Section, key: str) -> None:
        first = self.seen.setdefault(key, (task.report.file, f"tasks[{task.path[-1]}]"))
        if first != (task.report.file, f"tasks[{task.path[-1]}]"):
            place = first[1] if first[0] == task.report.file else f"{first[0]}: {first[1]}"
            task.fault("name", f"{quoted(key)} is defined twice: first at {place}")

    def _spec(self, task: Section) -> TaskSpec | None:
        before = task.report.faults
        executor = task.name("executor") if task.require("executor") else ""
        config, inputs = task.mapping("config"), task.mapping("inputs")
        usable = task.report.faults == before
        retries = task.section("retries", _RETRIES)
        parts: dict[str, Any] = {
            "timeout": task.duration("timeout", None, positive=True),
            "deadline": task.duration("deadline", None, positive=True),
            "max_concurrent_runs": task.whole("max_concurrent_runs", None, 1),
            "on_lost": task.choice("on_lost", get_args(OnLost), _PLAIN.on_lost),
            "on_unknown": task.choice("on_unknown", get_args(OnUnknown), _PLAIN.on_unknown),
            "cancel_give_up": task.duration("cancel_give_up", _PLAIN.cancel_give_up, positive=True),
        }
        policy = (
            RetryPolicy(
                max_attempts=retries.whole("max_attempts", _NO_RETRIES.max_attempts, 1),
                initial=retries.duration("initial", _NO_RETRIES.initial),
                multiplier=retries.number("multiplier", _NO_RETRIES.multiplier, 1, 100),
                maximum=retries.duration("maximum", _NO_RETRIES.maximum),
            )
            if retries.values
            else _NO_RETRIES
        )
        if usable and self._check_executor is not None:
            for problem in self._check_executor(executor, config, inputs):
                task.report.add((*task.path, *parse_path(problem.where)), problem.reason)
        if task.report.faults > before:
            return None
        try:
            return TaskSpec(executor=executor, config=config, inputs=inputs, retries=policy, **parts)
        except SpecError as error:
            task.report.add((*task.path, *parse_path(error.field)), error.reason)
            return None

    def _triggers(self, task: Section) -> tuple[TriggerSpec, ...]:
        triggers: list[TriggerSpec] = []
        names: set[str] = set()
        for path, item in task.items("triggers"):
            section = Section(task.report, path, item, TRIGGER)
            if not section.given:
                continue
            trigger = read_trigger(section, self._defaults.timezone)
            named = section.values.get("calendars")
            for number, calendar in enumerate(named if isinstance(named, list) else []):
                if isinstance(calendar, str):
                    self._calendars_used.append((task.report, (*path, "calendars", number), calendar))
            name = section.values.get("name")
            if isinstance(name, str) and name in names:
                section.fault("name", f"{quoted(name)} is used twice in this task")
            elif isinstance(name, str):
                names.add(name)
            if trigger is not None:
                triggers.append(trigger)
        return tuple(triggers)

    def _read_calendars(self, top: Section) -> None:
        for name in top.mapping("calendars"):
            path: tuple[str | int, ...] = ("calendars", name)
            section = Section(top.report, path, top.values["calendars"][name], CALENDAR)
            calendar = read_calendar(section, name)
            first = self._calendar_files.setdefault(name, top.report.file)
            if first != top.report.file:
                top.report.add(path, f"is defined twice: first in {first}")
            elif calendar is not None:
                self.calendars[name] = calendar

    def check_calendars(self) -> None:
        """Reports calendars that triggers name and no file defines; called once all files are read."""
        for report, path, name in self._calendars_used:
            if name not in self._calendar_files:
                known = ", ".join(sorted(self._calendar_files)) or "none"
                before = report.faults
                report.add(path, f"{quoted(name)} is not a calendar of these files: {known}")
                self.problems.extend(report.problems[before:])


# Keys of the final schema that are stored and pinned but not acted upon yet. Remove a line with its lack.
_TASK_NOT_YET: Final[tuple[tuple[str, Callable[[TaskDefinition], bool]], ...]] = ()
_TRIGGER_NOT_YET: Final[tuple[tuple[str, Callable[[TriggerSpec], bool]], ...]] = ()


def not_yet_enforced(definition: TaskDefinition) -> list[str]:
    """The keys this definition uses that do nothing yet, triggers' keys as `triggers.nightly.overlap`."""
    keys = [key for key, used in _TASK_NOT_YET if used(definition)]
    for trigger in definition.triggers:
        keys.extend(f"triggers.{trigger.name}.{key}" for key, used in _TRIGGER_NOT_YET if used(trigger))
    return keys
