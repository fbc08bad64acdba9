"""What JSON can carry, checked without changing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def json_fault(value: Any, path: str) -> str | None:
    """Why `value` cannot be stored as JSON, beginning with the path of the part at fault; None if it can."""
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, str):
        return None if _is_unicode(value) else f"{path} holds half a surrogate pair, which no encoding can write"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value}, a number that JSON does not have"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{path} has the key {key!r}, which is a {type(key).__name__} and not a text"
            if fault := json_fault(item, f"{path}.{key}"):
                return fault
        return None
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if fault := json_fault(item, f"{path}[{index}]"):
                return fault
        return None
    return (
        f"{path} is a {type(value).__name__}, which JSON does not have: make it a text, a number, a list or a mapping"
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
