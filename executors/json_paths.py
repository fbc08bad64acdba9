"""Paths into a JSON document: `$` is the whole, `$.job.id` a member, `$.jobs[0]` an item, `$['odd name']` any key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Step: TypeAlias = str | int
_STEP: Final = re.compile(r"\.([^\s.\[\]'\"]+)|\[(-?\d+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
_NOTHING: Final = object()


@dataclass(frozen=True)
class JsonPath:
    """A path, ready to be looked up."""

    text: str
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """The path that a text writes; `ValueError` says what is wrong."""
        if not text.startswith("$"):
            raise ValueError(f"{text!r} is no path: it begins with $, as in $.id")
        steps: list[Step] = []
        position = 1
        while position < len(text):
            match = _STEP.match(text, position)
            if match is None:
                raise ValueError(f"{text!r} is no path: {text[position:]!r} is neither .name nor [0] nor ['name']")
            name, index, single, double = match.groups()
            steps.append(int(index) if index is not None else next(x for x in (name, single, double) if x is not None))
            position = match.end()
        return cls(text, tuple(steps))

    def look_up(self, document: Any, default: Any = None) -> Any:
        """What stands there; `default` if nothing does."""
        value = document
        for step in self.steps:
            value = _step(value, step)
            if value is _NOTHING:
                return default
        return value


def path_fault(text: str | None) -> str | None:
    """Why a text is no path; None if it is one, or if there is none."""
    try:
        if text is not None:
            JsonPath.parse(text)
    except ValueError as error:
        return str(error)
    return None


def _step(value: Any, step: Step) -> Any:
    if isinstance(step, str):
        return value.get(step, _NOTHING) if isinstance(value, dict) else _NOTHING
    if not isinstance(value, list) or not -len(value) <= step < len(value):
        return _NOTHING
    return value[step]
