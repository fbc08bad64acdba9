"""Where settings come from: which file is read, and what the environment changes in it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel

from scheduler.errors import ConfigError, Problem
from scheduler.reading.settings_problems import annotation_at
from scheduler.reading.strict_yaml import Document, load_file, load_text, plain_value
from scheduler.reading.texts import KeyPath, clip, kind, render, shown_path

PREFIX: Final = "SCHEDULER_"
CONFIG_VARIABLE: Final = "SCHEDULER_CONFIG"
PLACES: Final = ("config/scheduler.yaml", "scheduler.yaml")
_OVERRIDE: Final = re.compile(r"SCHEDULER_(?:[A-Za-z0-9_]*__|_)[A-Za-z0-9_]+", re.ASCII)


@dataclass
class Sources:
    """What was found, before it is checked: `values` as the file and the environment give them together."""

    file: Path
    shown: str
    document: Document
    values: dict[str, Any]
    overrides: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    """The variable behind each overridden path."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def base(self) -> Path:
        """The folder where relative paths start: the file's, or its parent if that folder is named `config`."""
        folder = self.file.absolute().parent
        return folder.parent if folder.name == "config" else folder

    def written(self, path: KeyPath) -> str | None:
        """The scalar at `path` as it was typed in the file."""
        return None if self.variable(path) else self.document.written(path)

    def variable(self, path: KeyPath) -> str | None:
        """The variable that set `path` or a part above it; or that alone made the section in which `path` is wrong."""
        for end in range(len(path), 0, -1):
            part = tuple(path[:end])
            if part in self.overrides:
                return self.overrides[part]
            if not self.document.has(part):
                below = (name for made, name in self.overrides.items() if made[:end] == part)
                found = next(below, None)
                if found is not None:
                    return found
        return None

    def problem(self, path: KeyPath, reason: str) -> Problem:
        """A problem that names the variable, or else the file's line."""
        variable = self.variable(path)
        if variable is not None:
            return Problem(render(path), reason, f"environment {variable}")
        line = self.document.line(path) if path else None
        return Problem(f"{render(path)} (line {line})" if line else render(path), reason)


def find_file(path: Path | str | None, env: Mapping[str, str]) -> tuple[Path, str]:
    """The settings file and how messages call it; raises `ConfigError` where there is none."""
    if path is not None:
        return Path(path), str(path)
    named = env.get(CONFIG_VARIABLE)
    if named:
        return Path(named), f"{named} (named by {CONFIG_VARIABLE})"
    for place in PLACES:
        if Path(place).exists():
            return Path(place), place
    reason = f"neither {' nor '.join(PLACES)} exists here: name a file with --config or {CONFIG_VARIABLE}"
    raise ConfigError(shown_path(Path.cwd()) if Path.cwd() != Path() else ".", [Problem("settings", reason)])


def gather(path: Path | str | None, env: Mapping[str, str], root: type[BaseModel]) -> Sources:
    """The file's values with the environment's laid over them; raises `ConfigError` if the file cannot be read at all."""
    file, shown = find_file(path, env)
    document = load_file(file, shown)
    if not isinstance(document.value, dict):
        raise ConfigError(shown, [f"holds {kind(document.value)} where the settings' keys should stand"])
    # A section whose every key is commented out is an empty section, not a fault.
    values = {key: value for key, value in document.value.items() if value is not None or key not in root.model_fields}
    sources = Sources(file, shown, document, copy.deepcopy(values))
    for variable in sorted(name for name in env if _OVERRIDE.fullmatch(name)):
        _override(sources, variable, env[variable], root)
    return sources


def _override(sources: Sources, variable: str, text: str, root: type[BaseModel]) -> None:
    names = variable.removeprefix(PREFIX).removeprefix("_").lower().split("__")
    if not all(names):
        sources.problems.append(Problem(".".join(names), "names no key of the settings", f"environment {variable}"))
        return
    target: dict[str, Any] = sources.values
    path: tuple[str | int, ...] = ()
    for depth, name in enumerate(names):
        if depth == 0 and len(names) > 1 and name not in target:
            target.update(_defaults(name, root))
        key = _existing(target, name)
        path = (*path, key)
        if depth < len(names) - 1:
            if not _may_hold_keys(path, root):
                problem = Problem(
                    render((*path, *names[depth + 1 :])), f"{key} has no keys below it", f"environment {variable}"
                )
                sources.problems.append(problem)
                return
            if target.get(key) is None:
                target[key] = {}
            below = target[key]
            if not isinstance(below, dict):
                # The file holds something wrong here; that is reported with its line.
                return
            target = below
    sources.overrides[path] = variable
    try:
        target[key] = text if annotation_at(path, root) is str else parse_value(text)
    except ConfigError as error:
        reason = error.problems[0].reason
        sources.problems.append(Problem(render(path), clip(reason), f"environment {variable}"))


def parse_value(text: str) -> Any:
    """The value of an override: a list or mapping in brackets, a quoted text, or a plain scalar as YAML reads it."""
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        return load_text(stripped, "").value
    try:
        return plain_value(stripped)
    except ValueError as error:
        raise ConfigError("", [str(error)]) from None


def _may_hold_keys(path: KeyPath, root: type[BaseModel]) -> bool:
    found = annotation_at(path, root)
    # An unknown key (None) is reported as such later, with the nearest known one.
    if found is None or found is Any or get_origin(found) is dict:
        return True
    return isinstance(found, type) and issubclass(found, BaseModel)


def _existing(target: Mapping[str, Any], name: str) -> str:
    # Variables are upper case by custom and cannot hold a dash: an executor named `my-Job` is MY_JOB there.
    return next((key for key in target if key == name or key.lower().replace("-", "_") == name), name)


def _defaults(name: str, root: type[BaseModel]) -> dict[str, Any]:
    """The default of an open mapping, so that a variable adds to it as it would to the same lines in the file."""
    found = root.model_fields.get(name)
    default = found.get_default(call_default_factory=True) if found else None
    if not isinstance(default, dict):
        return {}
    return {name: {key: value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
                   for key, value in default.items()}}  # fmt: skip
