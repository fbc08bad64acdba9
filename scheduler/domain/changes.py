"""What differs between two documents, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scheduler.domain.task import canonical_json

_PLAIN_KEY: Final = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Change:
    """One field by its path (`config.env.LANG`) with its value before and after; None where it was, or is, absent."""

    field: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The fields whose values differ, in the order of the documents. Mappings are compared key by key, lists whole."""
    return tuple(_changes("", before, after))


def _changes(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        field = _joined(prefix, key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(field, old, new)
        elif (key in before) != (key in after) or canonical_json(old) != canonical_json(new):
            yield Change(field, old, new)


def _joined(prefix: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{prefix}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{prefix}.{key}" if prefix else key
