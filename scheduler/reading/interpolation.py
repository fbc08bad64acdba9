"""`${NAME}` in executor options: replaced when executors are built, never when settings are merely read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from scheduler.errors import Problem
from scheduler.reading.texts import KeyPath, render

_REFERENCE: Final = re.compile(r"\$(?:\$(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))", re.ASCII)


def interpolate(
    options: Mapping[str, Any], env: Mapping[str, str], where: KeyPath = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """The options with every `${NAME}` and `${NAME:-default}` replaced, and one problem for each that cannot be.

    The default stands in for a variable that is unset or empty, as in a shell; `$${` is a literal `${`. What is replaced
    stays a text. `where` is the path of the options in the settings, for the problems; they never repeat a value.
    """
    problems: list[Problem] = []

    def text(value: str, path: tuple[str | int, ...]) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default, malformed = match.groups()
            if malformed:
                reason = "holds a ${ that is no ${NAME} or ${NAME:-default}; write $${ for the characters themselves"
            elif name is None:
                return "$"
            elif default is not None:
                return env.get(name) or str(default)
            elif name in env:
                return env[name]
            else:
                reason = f"the environment variable {name} is not set (${{{name}:-…}} would give it a default)"
            problems.append(Problem(render(path), reason))
            return match[0]

        return _REFERENCE.sub(replace, value) if "${" in value else value

    def walk(value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, str):
            return text(value, path)
        if isinstance(value, Mapping):
            return {key: walk(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        return value

    return {key: walk(value, (*where, key)) for key, value in options.items()}, problems
