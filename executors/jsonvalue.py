"""What JSON can carry, checked without changing anything, and as it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

MAX_OUTPUT_BYTES: Final = 1024 * 1024
"""How much of a result is kept unless the worker is told otherwise."""
# Deeper ones are read by nobody: every parser has its limit, most between a hundred and a thousand.
_DEEPEST: Final = 100
# What Python makes of a longer number takes ages, and by default it refuses.
_WIDEST: Final = 996


def json_fault(value: Any, path: str, depth: int = 0) -> str | None:
    """Why `value` cannot be stored as JSON, beginning with the path of the part at fault; None if it can."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return f"{path} is a number of more than 300 digits: make it a text" if value.bit_length() > _WIDEST else None
    if depth > _DEEPEST:
        return f"{path[:80]}… is nested more than {_DEEPEST} levels deep, or contains itself"
    if isinstance(value, str):
        return None if _is_unicode(value) else f"{path} holds half a surrogate pair, which no encoding can write"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value}, a number that JSON does not have"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{path} has the key {key!r}, which is a {type(key).__name__} and not a text"
            if not _is_unicode(key):
                return f"{path} has a key with half a surrogate pair, which no encoding can write"
            if fault := json_fault(item, f"{path}.{key}", depth + 1):
                return fault
        return None
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if fault := json_fault(item, f"{path}[{index}]", depth + 1):
                return fault
        return None
    return (
        f"{path} is a {type(value).__name__}, which JSON does not have: make it a text, a number, a list or a mapping"
    )


def as_json(value: Any) -> str:
    """The value as it is stored; mappings of any kind are objects."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_as_object)


def size_fault(what: str, text: str, most: int) -> str | None:
    """Why a text that somebody wants kept is too large; None if it is not."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size <= most:
        return None
    return (
        f"its {what} has {size:,} bytes, {most:,} are kept: keep it elsewhere and return where it is "
        "(worker.max_output_bytes in the settings is the limit)"
    )


def _as_object(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored as JSON")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
