"""How faults are worded, alike for every file people write: paths, clipped values, the nearest known key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

KeyPath: TypeAlias = Sequence[str | int]

# Path and reason share one line of a terminal; a longer reason loses its middle, since the advice stands at its end.
MAX_REASON: Final = 150
MAX_PATH: Final = 70
_PLAIN_KEY: Final = re.compile(r"[\w-]+")
_PART: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def render(path: KeyPath) -> str:
    """`("tasks", 0, "name")` as `tasks[0].name`; a key with other characters in brackets and quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{clip(part, 40)}" if text else clip(part, 40)
        else:
            text += f"[{quoted(part)}]"
    return clip(text, MAX_PATH)


def parse_path(field: str) -> tuple[str | int, ...]:
    """The parts of a domain error's field: `triggers[0].name` → ("triggers", 0, "name")."""
    return tuple(int(index) if index else key for key, index in _PART.findall(field))


def clip(text: str, limit: int = MAX_REASON) -> str:
    """The text on one line of at most `limit` characters: control characters escaped, the middle cut out."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 3]}...{text[-tail:]}"


def quoted(value: object) -> str:
    """A short repr for messages."""
    return clip(repr(value), 40)


def unknown(key: str, known: Iterable[str]) -> str:
    """The reason for an unknown key: the nearest known one, or all of them where none is near and they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1) or difflib.get_close_matches(key.lower(), names, n=1)
    if near:
        return f"unknown key: did you mean {near[0]}?"
    return f"unknown key: known here are {clip(', '.join(names), 90)}"


def none_of(value: object, allowed: Iterable[str]) -> str:
    """The reason for a value that is not one of a few words."""
    return f"{quoted(value)} is none of {clip(', '.join(allowed), 80)}"


def kind(value: object) -> str:
    """What a YAML value is, in the reader's words."""
    if value is None:
        return "empty"
    for types, word in (
        (bool, "true or false"), (int, "a number"), (float, "a number"), (str, "a text"), (dict, "a mapping"),
    ):  # fmt: skip
        if isinstance(value, types):
            return word
    return "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"


def shown_path(path: Path) -> str:
    """A path as messages print it: relative to the current folder where it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
