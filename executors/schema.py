"""Dataclasses as schemas: plain data in, every fault at once or a typed instance out.

Strict: nothing is coerced silently. A text is no number and a number no text; an `int` may stand where a `float` is
wanted, and a `timedelta` is written `500ms`, `30s`, `1h30m`. Unknown keys are refused with the nearest known one. A
field whose key is no Python name says so: `in_: str = field(metadata={"key": "in"})`. What types cannot say, a method
`check(self) -> Iterable[Problem]` of the dataclass says.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from executors.errors import ExecutorConfigError, Problem
from executors.templating import is_placeholder

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_NAMES: Final[dict[Any, str]] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    timedelta: "a duration like 30s",
    datetime: "a time like 2026-11-21T02:00:00Z",
}
_BROKEN: Final = object()


def parse(
    schema: type, data: Any, *, show_values: bool = True, placeholders: bool = False
) -> tuple[Any, list[Problem]]:
    """An instance of the dataclass `schema`, or None and every fault of `data`.

    `show_values=False` keeps values, which may be secret, out of the reasons. With `placeholders=True` a text that is
    exactly one `{placeholder}` passes for any type, because its value is only known when a run is executed; if such a
    text stands for something else than a text, the result is None without problems.
    """
    reader = _Reader(show_values, placeholders)
    value = reader.dataclass(schema, data, "")
    if reader.problems or reader.unknown_yet:
        return None, reader.problems
    return value, []


def make_options(executor: type, options: Any, keywords: Mapping[str, Any]) -> Any:
    """The `options` of an executor: an instance of its `Options`, or None if it declares none."""
    schema = nested(executor, "Options")
    if schema is not None and isinstance(options, schema) and not keywords:
        return options
    if options is not None and not isinstance(options, Mapping):
        wanted = "a mapping" if schema is None else f"{schema.__qualname__} or a mapping"
        raise ExecutorConfigError(executor.__name__, [("options", f"must be {wanted}, not {_kind(options)}")])
    given = {**(options or {}), **keywords}
    if schema is None:
        if given:
            raise ExecutorConfigError(executor.__name__, [(f"options.{key}", "takes no options") for key in given])
        return None
    value, problems = parse(schema, given, show_values=False)
    if problems:
        # Reasons come from the schema alone, but `check` and `__post_init__` are the author's and may quote a value.
        hidden = sorted(_texts(given), key=len, reverse=True)
        raise ExecutorConfigError(
            executor.__name__, [(f"options.{p}" if p else "options", _hide(r, hidden)) for p, r in problems]
        )
    return value


def nested(executor: type, name: str) -> type | None:
    """The dataclass `Options` or `Config` that an executor class declares or inherits; None without one."""
    schema = getattr(executor, name, None)
    if schema is None:
        return None
    if not (isinstance(schema, type) and dataclasses.is_dataclass(schema)):
        raise ExecutorConfigError(
            executor.__name__, [(name, "must be a dataclass: put @dataclass(frozen=True) above it")]
        )
    try:
        typing.get_type_hints(schema)
    except NameError as error:
        reason = f"has a type that cannot be found at the top of its module: {error}"
        raise ExecutorConfigError(executor.__name__, [(name, reason)]) from None
    return schema


def nearest(word: str, known: Sequence[str]) -> str:
    """` (did you mean X?)` for a word that is nearly a known one, else the known ones, else nothing."""
    if close := difflib.get_close_matches(word, known, 1, 0.6):
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""


def parse_duration(text: str) -> timedelta | None:
    """`500ms`, `30s`, `10m`, `24h`, `7d` or a sum such as `1h30m`; None for anything else."""
    total, position = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    try:
        return timedelta(seconds=total) if text and position == len(text) else None
    except OverflowError:
        return None


class _Reader:
    """One pass over one document; collects problems and goes on."""

    def __init__(self, show_values: bool, placeholders: bool) -> None:
        self.show_values = show_values
        self.placeholders = placeholders
        self.problems: list[Problem] = []
        self.unknown_yet = False

    def dataclass(self, schema: type, data: Any, path: str) -> Any:
        if isinstance(data, schema):
            return data
        if not isinstance(data, Mapping):
            return self._wrong(path, "a mapping", data)
        before = len(self.problems)
        hints = typing.get_type_hints(schema, include_extras=False)
        fields = {f.metadata.get("key", f.name): f for f in dataclasses.fields(schema) if f.init}
        values: dict[str, Any] = {}
        for key, item in data.items():
            here = _join(path, key)
            if key not in fields:
                self.problems.append((here, f"unknown key{nearest(str(key), list(fields))}"))
                continue
            values[fields[key].name] = self.value(hints[fields[key].name], item, here)
        for key, known in fields.items():
            missing = known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
            if missing and key not in data:
                self.problems.append((_join(path, key), "is missing"))
        if len(self.problems) > before or any(value is _BROKEN for value in values.values()):
            return _BROKEN
        try:
            made = schema(**values)
        except (ValueError, TypeError) as error:
            self.problems.append((path, str(error)))
            return _BROKEN
        for where, why in getattr(made, "check", tuple)():
            self.problems.append((_join(path, where) if where else path, why))
        return made

    def value(self, hint: Any, data: Any, path: str) -> Any:
        if hint is Any or hint is object:
            return data
        if self.placeholders and isinstance(data, str) and is_placeholder(data) and not _takes_text(hint):
            self.unknown_yet = True
            return _BROKEN
        origin = typing.get_origin(hint)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(typing.get_args(hint), data, path)
        if origin is Literal:
            return self._literal(typing.get_args(hint), data, path)
        if isinstance(hint, type) and origin is None:
            if dataclasses.is_dataclass(hint):
                return self.dataclass(hint, data, path)
            if issubclass(hint, enum.Enum):
                found = self._literal([member.value for member in hint], data, path)
                return found if found is _BROKEN else hint(found)
        container = origin or hint
        if isinstance(container, type) and container is not str:
            if issubclass(container, Mapping):
                return self._mapping(hint, data, path)
            if container in (tuple, list, set, frozenset) or container is Sequence:
                return self._sequence(container, hint, data, path)
        return self._scalar(hint, data, path)

    def _scalar(self, hint: Any, data: Any, path: str) -> Any:
        if hint is None or hint is type(None):
            return None if data is None else self._wrong(path, "null", data)
        if hint is timedelta and isinstance(data, str):
            if (duration := parse_duration(data)) is not None:
                return duration
            self.problems.append((path, f"must be a duration like 500ms, 30s, 10m or 1h30m{self._shown(data)}"))
            return _BROKEN
        if hint is datetime and isinstance(data, (str, datetime)):
            return self._instant(data, path)
        if hint is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        if isinstance(hint, type) and isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
            return data
        return self._wrong(path, _name(hint), data)

    def _instant(self, data: str | datetime, path: str) -> Any:
        try:
            moment = datetime.fromisoformat(data) if isinstance(data, str) else data
        except ValueError:
            self.problems.append((path, f"must be a time like 2026-11-21T02:00:00Z{self._shown(data)}"))
            return _BROKEN
        if moment.tzinfo is None:
            self.problems.append((path, "has no zone: add Z or an offset"))
            return _BROKEN
        return moment

    def _literal(self, allowed: Sequence[Any], data: Any, path: str) -> Any:
        for choice in allowed:
            if data == choice and type(data) is type(choice):
                return choice
        choices = [str(choice) for choice in allowed]
        hint = nearest(data, choices) if isinstance(data, str) and self.show_values else ""
        self.problems.append(
            (path, f"must be {' or '.join(choices)}{self._shown(data)}{hint if 'mean' in hint else ''}")
        )
        return _BROKEN

    def _union(self, members: Sequence[Any], data: Any, path: str) -> Any:
        if data is None and type(None) in members:
            return None
        others = [member for member in members if member is not type(None)]
        attempts: list[list[Problem]] = []
        for member in others:
            trial = _Reader(self.show_values, self.placeholders)
            value = trial.value(member, data, path)
            if not trial.problems:
                self.unknown_yet |= trial.unknown_yet
                return value
            attempts.append(trial.problems)
        if len(others) == 1:
            self.problems += attempts[0]
            return _BROKEN
        # The member that fits in kind and fails further in says most.
        deeper = [problems for problems in attempts if all(where != path for where, _ in problems)]
        if deeper:
            self.problems += deeper[0]
            return _BROKEN
        return self._wrong(path, " or ".join(_name(member) for member in others), data)

    def _mapping(self, hint: Any, data: Any, path: str) -> Any:
        if not isinstance(data, Mapping):
            return self._wrong(path, "a mapping", data)
        key_hint, item_hint = typing.get_args(hint) or (Any, Any)
        result = {}
        for key, item in data.items():
            here = _join(path, key)
            if key_hint is str and not isinstance(key, str):
                self.problems.append((here, f"the key must be a text, not {_kind(key)}: quote it"))
                continue
            result[key] = self.value(item_hint, item, here)
        return _BROKEN if any(item is _BROKEN for item in result.values()) else result

    def _sequence(self, container: Any, hint: Any, data: Any, path: str) -> Any:
        if isinstance(data, str) or not isinstance(data, (list, tuple, set, frozenset)):
            advice = ": write it as a list, [word, word]" if isinstance(data, str) else ""
            return self._wrong(path, "a list", data, advice)
        arguments = typing.get_args(hint)
        if container is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(arguments) != len(data):
                self.problems.append((path, f"must have {len(arguments)} items, not {len(data)}"))
                return _BROKEN
            items = [
                self.value(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(arguments, data, strict=True))
            ]
        else:
            item_hint = arguments[0] if arguments else Any
            items = [self.value(item_hint, item, f"{path}[{i}]") for i, item in enumerate(data)]
        if any(item is _BROKEN for item in items):
            return _BROKEN
        return items if container is Sequence else container(items)

    def _wrong(self, path: str, wanted: str, data: Any, advice: str = "") -> Any:
        if not advice and wanted == "a text" and isinstance(data, (bool, int, float, datetime)):
            advice = ": quote it"
        if wanted == _NAMES[int] and isinstance(data, float):
            self.problems.append((path, "must be a whole number, without a decimal point"))
            return _BROKEN
        if not advice and wanted == _NAMES[timedelta] and isinstance(data, (int, float)) and not isinstance(data, bool):
            advice = ": add a unit" if not self.show_values else f": write {data:g}s if seconds are meant"
        self.problems.append((path, f"must be {wanted}, not {_kind(data)}{advice}"))
        return _BROKEN

    def _shown(self, data: Any) -> str:
        return f", not {data!r}" if self.show_values else ""


def _takes_text(hint: Any) -> bool:
    return hint is str or str in typing.get_args(hint)


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _kind(data: Any) -> str:
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, (int, float)):
        return "a number"
    if isinstance(data, str):
        return "a text"
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, (list, tuple, set, frozenset)):
        return "a list"
    if isinstance(data, datetime):
        return "a time"
    return f"a {type(data).__name__}"


def _name(hint: Any) -> str:
    if hint in _NAMES:
        return _NAMES[hint]
    origin = typing.get_origin(hint) or hint
    if origin is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(hint))
    if isinstance(origin, type):
        if issubclass(origin, (list, tuple, set, frozenset)) or origin is Sequence:
            return "a list"
        if issubclass(origin, Mapping) or dataclasses.is_dataclass(origin):
            return "a mapping"
        return f"a {origin.__name__}"
    return str(hint)


def _texts(data: Any) -> set[str]:
    if isinstance(data, Mapping):
        return set().union(*(_texts(item) for item in data.values())) if data else set()
    if isinstance(data, (list, tuple, set, frozenset)):
        return set().union(*(_texts(item) for item in data)) if data else set()
    return (
        {str(data)}
        if isinstance(data, (str, int, float)) and not isinstance(data, bool) and len(str(data)) > 3
        else set()
    )


def _hide(reason: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        reason = reason.replace(value, "…")
    return reason
