"""What kinds of values Flyte's tasks take, written as Python writes types, and JSON values as values of these kinds.

    int  float  str  bool  datetime  timedelta  dict  None  any
    list[int]  dict[str, float]  int | None

`dict` alone is any JSON object; `any` is whatever the value turns out to be. An instant is RFC 3339 in JSON, a timedelta
a number of seconds or a text like 1h30m.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias

from executors.jsonvalue import json_fault
from executors.schema import parse_duration

_INTEGERS: Final = range(-(2**63), 2**63)
_WORD: Final = re.compile(r"\s*([A-Za-z]+|[\[\],|])")
_DEEPEST: Final = 20


class Simple(StrEnum):
    """A kind without parts."""

    INTEGER = "int"
    FLOAT = "float"
    STRING = "str"
    BOOLEAN = "bool"
    DATETIME = "datetime"
    DURATION = "timedelta"
    STRUCT = "dict"
    NONE = "None"
    ANY = "any"


@dataclass(frozen=True)
class ListOf:
    """Any number of values of one kind."""

    item: Kind

    def __str__(self) -> str:
        return f"list[{self.item}]"


@dataclass(frozen=True)
class MapOf:
    """Values of one kind by name."""

    item: Kind

    def __str__(self) -> str:
        return f"dict[str, {self.item}]"


@dataclass(frozen=True)
class OneOf:
    """A value of the first of these kinds that it fits."""

    members: tuple[Kind, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.members))


Kind: TypeAlias = Simple | ListOf | MapOf | OneOf

# Flyte's own names, and those of other languages, are understood too.
_NAMES: Final[Mapping[str, Kind]] = {
    **{str(kind).lower(): kind for kind in Simple},
    **{kind.name.lower(): kind for kind in Simple},
    "list": ListOf(Simple.ANY),
    "string": Simple.STRING,
    "boolean": Simple.BOOLEAN,
    "number": Simple.FLOAT,
    "object": Simple.STRUCT,
    "json": Simple.STRUCT,
    "null": Simple.NONE,
}


def parse_kind(text: str) -> Kind:
    """The kind that a text like `list[int]` means; `ValueError` with the reason if it means none."""
    words = []
    position = 0
    while position < len(text.rstrip()):
        word = _WORD.match(text, position)
        if word is None:
            raise ValueError(f"{text!r} is no type: {text[position:].strip()!r} is not understood")
        words.append(word[1])
        position = word.end()
    kind, rest = _union(words, text, 0)
    if rest:
        raise ValueError(f"{text!r} is no type: {rest[0]!r} is too much")
    return kind


def _union(words: list[str], text: str, depth: int) -> tuple[Kind, list[str]]:
    kind, words = _one(words, text, depth)
    members = [kind]
    while words[:1] == ["|"]:
        kind, words = _one(words[1:], text, depth)
        members.append(kind)
    return (members[0] if len(members) == 1 else OneOf(tuple(members))), words


def _one(words: list[str], text: str, depth: int) -> tuple[Kind, list[str]]:
    if depth > _DEEPEST:
        raise ValueError(f"the type is nested more than {_DEEPEST} deep")
    if not words:
        raise ValueError(f"{text!r} is no type: something is missing at its end")
    name, rest = words[0].lower(), words[1:]
    if rest[:1] != ["["]:
        if name not in _NAMES:
            known = ", ".join([*(str(kind) for kind in Simple), "list[…]", "dict[str, …]"])
            raise ValueError(f"{words[0]!r} is no type (known: {known})")
        return _NAMES[name], rest
    rest = rest[1:]
    if name == "dict":
        if [word.lower() for word in rest[:2]] != ["str", ","]:
            raise ValueError(f"{text!r} is no type: the keys of a dict are texts, write dict[str, …]")
        rest = rest[2:]
    elif name != "list":
        raise ValueError(f"{text!r} is no type: only list and dict have parts")
    item, rest = _union(rest, text, depth + 1)
    if rest[:1] != ["]"]:
        raise ValueError(f"{text!r} is no type: a ] is missing")
    return (ListOf(item) if name == "list" else MapOf(item)), rest[1:]


# --- values ----------------------------------------------------------------------------------------------------------


def infer(value: Any, path: str) -> Kind:
    """The kind that a JSON value is of; `ValueError`, beginning with its path, for one that Flyte has no kind for."""
    if value is None:
        return Simple.NONE
    if isinstance(value, bool):
        return Simple.BOOLEAN
    if isinstance(value, int):
        return Simple.INTEGER
    if isinstance(value, float):
        return Simple.FLOAT
    if isinstance(value, str):
        return Simple.STRING
    if isinstance(value, Mapping):
        return Simple.STRUCT
    if not isinstance(value, Sequence):
        raise ValueError(f"{path} is a {type(value).__name__}, which JSON does not have")
    item: Kind = Simple.NONE
    for index, part in enumerate(value):
        found = infer(part, f"{path}[{index}]")
        if index == 0 or _wider(item, found) == found:
            item = found
        elif _wider(item, found) is None:
            raise ValueError(f"{path} holds values of different kinds ({item}, {found}): put it into an object")
    return ListOf(item)


def _wider(first: Kind, second: Kind) -> Kind | None:
    """The kind that takes the values of both."""
    if first == second:
        return first
    if {first, second} == {Simple.INTEGER, Simple.FLOAT}:
        return Simple.FLOAT
    if isinstance(first, ListOf) and isinstance(second, ListOf):
        if Simple.NONE in (first.item, second.item):  # An empty list is a list of anything.
            return second if first.item == Simple.NONE else first
        item = _wider(first.item, second.item)
        return None if item is None else ListOf(item)
    return None


def fit(value: Any, kind: Kind, path: str) -> tuple[Any, Kind]:
    """The value as Python has it, instants and durations included, and the kind that it is of in the end.

    What is left open by `any` or `|` is decided by the value. `ValueError`, beginning with the path, if it does not fit.
    """
    if isinstance(kind, OneOf):
        faults = []
        for member in kind.members:
            try:
                return fit(value, member, path)
            except ValueError as fault:
                faults.append(str(fault))
        raise ValueError(f"{path} must be {kind}, not {_told(value)}")
    if isinstance(kind, ListOf):
        return _fit_list(value, kind, path)
    if isinstance(kind, MapOf):
        return _fit_map(value, kind, path)
    if kind is Simple.ANY:
        return fit(value, infer(value, path), path)
    return _fit_simple(value, kind, path), kind


def _fit_list(value: Any, kind: ListOf, path: str) -> tuple[Any, Kind]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"{path} must be {kind}, not {_told(value)}")
    if kind.item is Simple.ANY:
        kind = _list(infer(value, path))
    fitted = [fit(part, kind.item, f"{path}[{index}]") for index, part in enumerate(value)]
    return [part for part, _ in fitted], ListOf(_common([item for _, item in fitted], kind.item, path))


def _fit_map(value: Any, kind: MapOf, path: str) -> tuple[Any, Kind]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} must be {kind}, not {_told(value)}")
    wanted = _list(infer(list(value.values()), path)).item if kind.item is Simple.ANY else kind.item
    fitted = {str(key): fit(part, wanted, f"{path}.{key}") for key, part in value.items()}
    item = _common([found for _, found in fitted.values()], wanted, path)
    return {key: part for key, (part, _) in fitted.items()}, MapOf(item)


def _list(kind: Kind) -> ListOf:
    assert isinstance(kind, ListOf)
    return kind


def _common(found: Sequence[Kind], wanted: Kind, path: str) -> Kind:
    """One kind for all parts: what was declared, unless that leaves something open."""
    if not found:
        return Simple.NONE if wanted is Simple.ANY or isinstance(wanted, OneOf) else wanted
    item = found[0]
    for other in found[1:]:
        wider = _wider(item, other)
        if wider is None:
            raise ValueError(f"{path} holds values of different kinds ({item}, {other}): put it into an object")
        item = wider
    return item


def _fit_simple(value: Any, kind: Simple, path: str) -> Any:
    fault = f"{path} must be {_WANTED[kind]}, not {_told(value)}"
    match kind:
        case Simple.NONE:
            good = value is None
        case Simple.BOOLEAN:
            good = isinstance(value, bool)
        case Simple.INTEGER:
            good = isinstance(value, int) and not isinstance(value, bool)
            if good and value not in _INTEGERS:
                raise ValueError(f"{path} is a number of more than 64 bits, which Flyte has not")
        case Simple.FLOAT:
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if good:
                value = _float(value, path)
        case Simple.STRING:
            good = isinstance(value, str)
            if good and (wrong := json_fault(value, path)):
                raise ValueError(wrong)
        case Simple.STRUCT:
            good = isinstance(value, Mapping)
            if good and (wrong := json_fault(value, path)):
                raise ValueError(wrong)
        case Simple.DATETIME:
            return _instant(value, fault, path)
        case Simple.DURATION:
            return _duration(value, fault)
        case _:
            raise AssertionError(kind)
    if not good:
        raise ValueError(fault)
    return value


def _float(value: int | float, path: str) -> float:
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{path} is too large a number") from None
    if not math.isfinite(found):
        raise ValueError(f"{path} is {found}, a number that JSON does not have")
    if found != value:
        raise ValueError(f"{path} is a whole number that a float cannot hold exactly")
    return found


_WANTED: Final[Mapping[Kind, str]] = {
    Simple.INTEGER: "a whole number",
    Simple.FLOAT: "a number",
    Simple.STRING: "a text",
    Simple.BOOLEAN: "true or false",
    Simple.DATETIME: "a time like 2026-11-21T02:00:00Z",
    Simple.DURATION: "a number of seconds or a duration like 30s",
    Simple.STRUCT: "an object",
    Simple.NONE: "null",
    Simple.ANY: "anything",
}


def _instant(value: Any, fault: str, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(fault) from None
    if not isinstance(moment, datetime):
        raise ValueError(fault)
    if moment.tzinfo is None:
        raise ValueError(f"{path} is a time without a zone: add Z or an offset")
    return moment.astimezone(UTC)


def _duration(value: Any, fault: str) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise ValueError(fault) from None
    found = parse_duration(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(fault)
    return found


def _told(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"
