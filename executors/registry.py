"""From a name in the settings to an executor: entry points and dotted paths, options and task configs checked.

    resolve("shell")                      an entry point of the group `scheduler.executors`, of any distribution
    resolve("my_company.slack:SlackPost") a class by its dotted path

The built-in executors are entry points like everyone's.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from executors.errors import ExecutorConfigError, ExecutorNotFound, Problem
from executors.protocol import Executor
from executors.schema import nearest, nested, parse
from executors.templating import render, render_url

GROUP: Final = "scheduler.executors"


def build(name: str, use: str, options: Any = None) -> Executor:
    """The executor that the settings declare as `name: {use: …, options: …}`, ready for `start`.

    Raises `ExecutorNotFound` or `ExecutorConfigError`; neither ever shows the value of an option.
    """
    executor = resolve(use, name)
    try:
        return executor(options)
    except ExecutorConfigError as error:
        raise ExecutorConfigError(name, error.problems) from None
    except (TypeError, ValueError, LookupError, OSError) as error:
        raise ExecutorConfigError(
            name, [("options", f"{executor.__name__} could not be made ({type(error).__name__})")]
        ) from error


def resolve(use: str, name: str | None = None) -> type[Executor]:
    """The executor class that `use` means; `name` is what errors call it, if not `use` itself."""
    name = name or use
    found = _by_path(use, use, name) if ":" in use else _by_entry_point(use, name)
    if not (isinstance(found, type) and issubclass(found, Executor)):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ExecutorConfigError(
            name, [("use", f"{use} is {what}, which is no executors.Executor: derive it from that class")]
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ExecutorConfigError(name, [("use", f"{use} does not define {missing}")])
    for part in ("Options", "Config"):
        nested(found, part)
    return found


def known_names() -> dict[str, list[str]]:
    """Every entry point name of the group, and the distributions that give it."""
    names: dict[str, list[str]] = {}
    for point in _entry_points():
        names.setdefault(point.name, []).append(point.dist.name if point.dist else "an unnamed distribution")
    return {name: sorted(givers) for name, givers in sorted(names.items())}


def check_config(executor: type[Executor], config: Any) -> list[Problem]:
    """Every fault of a task's `config` as it was written, placeholders not yet filled; empty if it can be used."""
    schema = nested(executor, "Config")
    if schema is None:
        return [] if config is None or isinstance(config, Mapping) else [("", "must be a mapping")]
    return parse(schema, {} if config is None else config, placeholders=True)[1]


def parse_config(executor: type[Executor], config: Any, name: str | None = None) -> Any:
    """A run's `config`, placeholders filled, as `RunContext.config` carries it: a `Config`, or a dict without one.

    Raises `ExecutorConfigError` with every fault.
    """
    schema = nested(executor, "Config")
    if schema is None:
        return dict(config or {})
    value, problems = parse(schema, {} if config is None else config)
    if problems:
        raise ExecutorConfigError(
            name or executor.__name__, [(f"config.{p}" if p else "config", r) for p, r in problems]
        )
    return value


def filled_config(executor: type[Executor], config: Any, values: Mapping[str, Any]) -> Any:
    """A run's `config` as it was written, its placeholders filled with `values`, as `parse_config` gives it.

    A field of `Config` with `metadata={"url": True}` is a URL: what is put into it stays the part of it that it is.
    Raises `PermanentError` for what cannot be filled in, else like `parse_config`.
    """
    schema = nested(executor, "Config")
    urls: set[str] = set() if schema is None else {field.name for field in fields(schema) if field.metadata.get("url")}
    if not urls or not isinstance(config, Mapping):
        return parse_config(executor, render(config, values))
    filled = {
        key: render_url(value, values, base=True) if key in urls and isinstance(value, str) else render(value, values)
        for key, value in config.items()
    }
    return parse_config(executor, filled)


def _entry_points() -> Any:
    # Imported here: reading every installed distribution's metadata costs more than all of this package.
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _by_entry_point(use: str, name: str) -> object:
    points = [point for point in _entry_points() if point.name == use]
    if not points:
        known = list(known_names())
        raise ExecutorNotFound(
            name, f"no distribution gives {use!r}{nearest(use, known)}; a class is written pkg.mod:Class"
        )
    if len(points) > 1:
        givers = ", ".join(sorted(f"{point.dist.name if point.dist else '?'} ({point.value})" for point in points))
        raise ExecutorConfigError(
            name, [("use", f"{use} is given by several distributions: {givers}: name the class, pkg.mod:Class")]
        )
    return _by_path(points[0].value, use, name)


def _by_path(path: str, use: str, name: str) -> object:
    module_name, _, attributes = path.partition(":")
    if not module_name or not attributes:
        raise ExecutorConfigError(name, [("use", f"{use} is no path to a class: write pkg.mod:Class")])
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ExecutorNotFound(name, f"there is no module {error.name!r} to import for {use}") from None
        raise ExecutorConfigError(
            name, [("use", f"{use} needs the module {error.name!r}, which is not installed")]
        ) from error
    except Exception as error:
        raise ExecutorConfigError(
            name, [("use", f"importing {module_name} failed: {type(error).__name__}: {error}")]
        ) from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            near = nearest(attribute, [word for word in vars(found) if not word.startswith("_")])
            hint = near if "did you mean" in near else ""
            raise ExecutorNotFound(name, f"{module_name} has no {attribute!r}{hint}") from None
    return found
