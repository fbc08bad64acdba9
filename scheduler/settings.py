"""The settings: what `config/scheduler.yaml` may say, every key with its default, checked whole before anything starts.

`Settings.load()` reads the file and the environment; `Settings(worker={"lease": "10s"})` builds them in Python. Both
raise `ConfigError` with every fault at once. Durations are `500ms 30s 10m 24h 7d` or a `timedelta`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from scheduler.domain.instants import format_duration
from scheduler.errors import ConfigError, Problem
from scheduler.reading.database_url import redact_url, resolve_url
from scheduler.reading.interpolation import interpolate
from scheduler.reading.redaction import MASK, redact
from scheduler.reading.settings_models import (
    Auth,
    Database,
    Defaults,
    Executor,
    Logs,
    Name,
    Names,
    Paths,
    RateLimit,
    Retention,
    Secret,
    Section,
    Token,
    Web,
    Worker,
)
from scheduler.reading.settings_problems import faults
from scheduler.reading.settings_sources import gather
from scheduler.reading.texts import KeyPath, none_of, quoted, render

__all__ = [
    "Auth",
    "Database",
    "Defaults",
    "Executor",
    "Logs",
    "RateLimit",
    "Retention",
    "Secret",
    "Settings",
    "Token",
    "Web",
    "Worker",
    "interpolate",
]

S = TypeVar("S", bound=BaseModel)


def _projects() -> dict[str, tuple[str, ...]]:
    return {"flytesnacks": ("development", "staging", "production")}


def _executors() -> dict[str, Executor]:
    return {name: Executor(use=name) for name in ("logging", "python", "http")}


class Settings(Section):
    """Everything a process is told. Raises `ConfigError` with every fault, also when built by keywords."""

    database: Database = Database()
    defaults: Defaults = Defaults()
    projects: dict[Name, Names] = Field(default_factory=_projects)
    create_projects: bool = False
    tasks: Paths = (Path("config/tasks"),)
    worker: Worker = Worker()
    retention: Retention = Retention()
    executors: dict[Name, Executor] = Field(default_factory=_executors)
    secrets: dict[Name, Secret] = Field(default_factory=dict)
    web: Web = Web()
    auth: Auth = Auth()
    logs: Logs = Logs()

    _source: Path | None = PrivateAttr(None)

    def __init__(self, **values: Any) -> None:
        found: list[tuple[KeyPath, str]] = []
        cause: ValidationError | None = None
        try:
            super().__init__(**values)
        except ValidationError as error:
            cause = error
            found.extend(faults(error, type(self)))
        found.extend(_contradictions(values))
        if found:
            raise ConfigError("settings", [Problem(render(path), reason) for path, reason in found]) from cause

    @classmethod
    def load(cls, path: Path | str | None = None, env: Mapping[str, str] | None = None) -> Settings:
        """The settings of a file and of the environment (`SCHEDULER_WORKER__LEASE=10s` is `worker.lease`).

        The file is `path`, else the one that `SCHEDULER_CONFIG` names, else ./config/scheduler.yaml, else
        ./scheduler.yaml. Relative paths in it start at its folder, or at that folder's parent if it is named `config`;
        they are absolute in the result. Raises `ConfigError` with every fault, each naming the file and line or the
        variable.
        """
        sources = gather(path, os.environ if env is None else env, cls)
        try:
            settings = cls(**sources.values)
        except ConfigError as error:
            found = list(_contradictions(sources.values))
            if isinstance(error.__cause__, ValidationError):
                found[:0] = faults(error.__cause__, cls, sources.written)
            problems = [sources.problem(path, reason) for path, reason in found]
            raise ConfigError(sources.shown, [*problems, *sources.problems]) from None
        if sources.problems:
            raise ConfigError(sources.shown, sources.problems)
        return settings._placed(sources.file, sources.base)

    def _placed(self, file: Path, base: Path) -> Settings:
        tasks = tuple(base / path for path in self.tasks)
        if "tasks" not in self.model_fields_set and not tasks[0].exists():
            # The default folder is a convention, not a demand: only paths that someone wrote must exist.
            tasks = ()
        database = self.database.model_copy(update={"url": resolve_url(self.database.url, base)})
        placed = self.model_copy(update={"tasks": tasks, "database": database})
        placed._source = file
        return placed

    @property
    def source(self) -> Path | None:
        """The file these settings were loaded from; None for settings built in Python."""
        return self._source

    @property
    def known_projects(self) -> dict[str, tuple[str, ...]] | None:
        """The projects and domains a deploy may name; None where it may name any (`create_projects`)."""
        return None if self.create_projects else self.projects

    def document(self) -> dict[str, Any]:
        """Every key as plain values that YAML and JSON can hold, durations as texts. Holds passwords: see `redacted`."""
        plain: dict[str, Any] = _plain(self.model_dump())
        return plain

    def redacted(self) -> dict[str, Any]:
        """`document()` fit to be shown: passwords and whatever may be a secret replaced by `***`."""
        document = self.document()
        document["database"]["url"] = redact_url(document["database"]["url"])
        for executor in document["executors"].values():
            executor["options"] = redact(executor["options"])
        for token in document["auth"]["tokens"]:
            token["sha256"] = MASK
        return document

    def not_yet(self) -> list[str]:
        """A warning for each key that was set to something else than its default but does nothing yet."""
        document, default = self.document(), Settings().document()
        return [
            f"{'.'.join(path)} has no effect yet: {what}"
            for keys, what in _NOT_YET
            for path in _set_paths(document, default, keys)
        ]


# Keys of the final schema whose function is not there yet; `*` stands for every name. Remove a line with its lack.
_NOT_YET: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("web", "flyte"), "Flyte's own services are not answered"),
)


def _set_paths(
    document: Any, default: Any, keys: tuple[str, ...], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    if not keys:
        if document != default and document is not None:
            yield path
        return
    names = (list(document) if keys[0] == "*" else [keys[0]]) if isinstance(document, dict) else []
    for name in names:
        below = default.get(name) if isinstance(default, dict) else None
        yield from _set_paths(document.get(name), below, keys[1:], (*path, name))


def _contradictions(values: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong between sections, told beside the faults within them: of sections at fault nothing is said."""
    web, auth = _alone(Web, values.get("web")), _alone(Auth, values.get("auth"))
    if web and auth and web.enabled and not web.is_loopback and not auth.tokens:
        reason = f"{quoted(web.host)} can be reached from other machines: add auth.tokens, or listen on 127.0.0.1"
        yield ("web", "host"), reason
    defaults, projects = _alone(Defaults, values.get("defaults")), values.get("projects", _projects())
    if not defaults or not isinstance(projects, dict) or values.get("create_projects"):
        return
    if "project" in defaults.model_fields_set and defaults.project not in projects:
        yield ("defaults", "project"), none_of(defaults.project, map(str, projects))
    domains = projects.get(defaults.project)
    if "domain" in defaults.model_fields_set and isinstance(domains, (list, tuple)) and defaults.domain not in domains:
        yield ("defaults", "domain"), f"{none_of(defaults.domain, map(str, domains))} in project {defaults.project}"


def _alone(section: type[S], value: Any) -> S | None:
    if isinstance(value, section):
        return value
    try:
        return section.model_validate({} if value is None else value)
    except ValidationError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, timedelta):
        return format_duration(value)
    return str(value) if isinstance(value, Path) else value
