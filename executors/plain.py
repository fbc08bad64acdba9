"""Values as plain JSON and back, by their type hints: what a dataclass may hold and still be found again after a restart.

Beyond what JSON has: dataclasses, enums, datetime, date, timedelta, UUID, Decimal, Path, bytes, tuples, sets, mappings
with keys of any of these. What is written is read back only by the same hints; where a union's members look alike in
JSON, the first that fits is taken.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

_MICROSECOND: Final = timedelta(microseconds=1)
_TEXTS: Final[dict[type, Callable[[str], Any]]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    UUID: UUID,
    Decimal: Decimal,
    bytes: lambda text: base64.b64decode(text, validate=True),
}


def to_plain(value: Any) -> Any:
    """The value as JSON can carry it; `TypeError` or `ValueError` for what cannot be carried."""
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is a number that JSON does not have")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {_key(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be kept as JSON")


def from_plain(hint: Any, data: Any) -> Any:
    """What `to_plain` made of a value of this type; `TypeError` or `ValueError` if the data is none such."""
    if hint is Any or hint is object:
        return data
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.Final, typing.ClassVar):
        return from_plain(arguments[0], data)
    if origin is typing.Union or origin is types.UnionType:
        return _union(arguments, data)
    if origin is typing.Literal:
        return _one_of(arguments, data)
    kind = origin or hint
    if not isinstance(kind, type):
        return data  # A type variable or something as vague: nothing is known.
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data)
    if issubclass(kind, enum.Enum):
        return kind(_one_of([to_plain(member) for member in kind], data))
    if kind is timedelta:
        return _wanted(int, data) * _MICROSECOND
    if kind in _TEXTS:
        return _TEXTS[kind](_wanted(str, data))
    if issubclass(kind, PurePath):
        return kind(_wanted(str, data))
    if kind is not str and issubclass(kind, Mapping):
        return _mapping(arguments, data)
    if kind is not str and issubclass(kind, Collection):
        return _collection(kind, arguments, data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    return _wanted(kind, data)


def _dataclass(kind: type, data: Any) -> Any:
    given = _wanted(dict, data)
    hints = typing.get_type_hints(kind)
    # A field that this version does not know was written by another one.
    values = {
        field.name: from_plain(hints[field.name], given[field.name])
        for field in dataclasses.fields(kind)
        if field.init and field.name in given
    }
    return kind(**values)


def _union(members: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in members:
        return None
    # A text fits everywhere that something is written as one: tried last, like a number that has lost its kind.
    plain = [member for member in members if member in (str, float)]
    for member in [*(member for member in members if member not in plain), *plain]:
        try:
            return from_plain(member, data)
        except (TypeError, ValueError, ArithmeticError):
            continue
    raise TypeError(f"{data!r} is none of {', '.join(map(str, members))}")


def _one_of(choices: Collection[Any], data: Any) -> Any:
    for choice in choices:
        if choice == data and type(choice) is type(data):
            return choice
    raise ValueError(f"{data!r} is none of {', '.join(map(repr, choices))}")


def _mapping(arguments: tuple[Any, ...], data: Any) -> dict[Any, Any]:
    key, item = arguments or (str, Any)
    return {_from_key(key, text): from_plain(item, value) for text, value in _wanted(dict, data).items()}


def _collection(kind: type, arguments: tuple[Any, ...], data: Any) -> Any:
    items = _wanted(list, data)
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return tuple(from_plain(hint, item) for hint, item in zip(arguments, items, strict=True))
    hint = arguments[0] if arguments else Any
    made = [from_plain(hint, item) for item in items]
    return kind(made) if kind in (tuple, set, frozenset) else made


def _key(key: Any) -> str:
    plain = to_plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _from_key(hint: Any, text: str) -> Any:
    if hint in (str, Any):
        return text
    try:
        return from_plain(hint, text)
    except (TypeError, ValueError):
        return from_plain(hint, json.loads(text))


def _wanted(kind: type, data: Any) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise TypeError(f"{data!r} is no {kind.__name__}")
    return data
