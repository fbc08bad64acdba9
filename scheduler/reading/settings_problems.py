"""What is wrong with settings, in the words of whoever typed them; and what the models say about a path."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from scheduler.errors import SpecError
from scheduler.reading.texts import KeyPath, clip, kind, quoted, unknown

Written = Callable[[KeyPath], str | None]

_NOT_A: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "tuple_type": "a list",
    "path_type": "a path",
    "is_instance_of": "a path",
}


def faults(
    error: ValidationError, root: type[BaseModel], written: Written = lambda path: None
) -> Iterator[tuple[KeyPath, str]]:
    """Path and reason of every fault; `written` gives a scalar as it was typed, where there is a file."""
    for item in error.errors(include_url=False):
        path: KeyPath = tuple(part for part in item["loc"] if part != "[key]")
        yield path, clip(_reason(item, path, root, written))


def _reason(item: Any, path: KeyPath, root: type[BaseModel], written: Written) -> str:
    code, value, context = item["type"], item.get("input"), item.get("ctx", {})
    if code == "extra_forbidden":
        return unknown_key(str(path[-1]), path[:-1], root)
    if code == "missing":
        return "is missing, but required"
    if value is None and code != "value_error":
        return "is empty: give it a value or remove the key"
    if code == "string_type" and isinstance(value, (int, float)):
        typed = written(path) or (str(value).lower() if isinstance(value, bool) else str(value))
        return f'{clip(typed, 40)} is {kind(value)}, not a text: quote it: "{clip(typed, 40)}"'
    if code in _NOT_A:
        # Only short scalars are repeated: a text in the place of a mapping may be a secret.
        said = quoted(value) + " is" if isinstance(value, (bool, int, float)) else "is"
        if isinstance(value, str) and _NOT_A[code] in ("a whole number", "a number", "true or false"):
            said = quoted(value) + " is"
        return f"{said} {kind(value)}, not {_NOT_A[code]}"
    if code == "literal_error":
        return f"{quoted(value)} is none of {str(context['expected']).replace(chr(39), '').replace(' or ', ', ')}"
    if code in ("greater_than_equal", "greater_than"):
        least = context.get("ge", context.get("gt"))
        return f"{value} is too small: {'at least' if 'ge' in context else 'more than'} {least}"
    if code == "less_than_equal":
        return f"{value} is too large: at most {context['le']}"
    if code == "string_too_short":
        return "is empty"
    cause = context.get("error")
    if isinstance(cause, SpecError):
        return cause.reason
    if cause is not None:
        return str(cause)
    return str(item["msg"][:1]).lower() + str(item["msg"][1:])


def unknown_key(key: str, parent: KeyPath, root: type[BaseModel]) -> str:
    """The reason for an unknown key of settings: the nearest one beside it, or the section that has it."""
    known = known_keys(parent, root) or ()
    reason = unknown(key, known)
    if "did you mean" in reason:
        return reason
    if parent and key in root.model_fields:
        return f"unknown key here: {key} stands at the top level"
    for name, field in root.model_fields.items():
        section = _bare(field.annotation)
        if isinstance(section, type) and issubclass(section, BaseModel) and key in section.model_fields:
            return f"unknown key here: {key} stands under {name}"
    return reason


def known_keys(path: KeyPath, root: type[BaseModel]) -> tuple[str, ...] | None:
    """The keys that the section at `path` has; None where the path leads to no section of fixed keys."""
    model = annotation_at(path, root)
    return tuple(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else None


def annotation_at(path: KeyPath, root: type[BaseModel]) -> Any:
    """The type that the models give the value at `path`, without optionality; None where they know none."""
    current: Any = root
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        elif get_origin(current) is dict:
            current = get_args(current)[1]
        elif get_origin(current) is tuple:
            current = get_args(current)[0]
        else:
            return None
        current = _bare(current)
    return current


def _bare(annotation: Any) -> Any:
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(item for item in get_args(annotation) if item is not type(None))
        else:
            return annotation
