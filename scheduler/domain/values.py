"""What a definition may hold besides names: texts, counts, durations and JSON that every database can keep."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from scheduler.domain.instants import format_duration
from scheduler.errors import SpecError

LARGEST_COUNT: Final = 2**31 - 1
# Durations become BIGINT microseconds in the database; a hundred years are far inside.
LONGEST: Final = timedelta(days=36_500)
# Readers of JSON give up on deeper documents and on numbers of thousands of digits.
_DEEPEST: Final = 100
_WIDEST: Final = 1024


def check_text(value: str, field: str, longest: int | None = None) -> None:
    """Raises `SpecError` for a text that a database refuses: NUL, half a surrogate pair, or too many characters."""
    if "\0" in value:
        raise SpecError(field, "holds a NUL character, which no stored text may")
    if not _is_unicode(value):
        raise SpecError(field, "holds half a surrogate pair, which no encoding can write")
    if longest is not None and len(value) > longest:
        raise SpecError(field, f"has {len(value)} characters: at most {longest} are allowed")


def check_count(value: int | None, field: str, least: int = 1) -> None:
    """Raises `SpecError` for a number that is less than `least`, or more than anybody can count to; None is no number."""
    if value is None:
        return
    if value < least:
        raise SpecError(field, f"{value} is less than {least}")
    if value > LARGEST_COUNT:
        raise SpecError(field, f"{value} is more than {LARGEST_COUNT}")


def check_duration(value: timedelta | None, field: str, *, positive: bool = False) -> None:
    """Raises `SpecError` for a negative duration, for nought where it must be positive, and for more than a hundred years."""
    if value is None:
        return
    if value < timedelta(0):
        raise SpecError(field, "cannot be negative")
    if positive and not value:
        raise SpecError(field, f"{format_duration(value)} is not a positive duration")
    if value > LONGEST:
        raise SpecError(field, f"{value.days} days is too long: at most {format_duration(LONGEST)}")


def check_json(value: Any, field: str, depth: int = 0) -> None:
    """Raises `SpecError` at the first part that JSON cannot carry, naming its path."""
    if depth > _DEEPEST:
        raise SpecError(field, f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str) and not _is_unicode(value):
        raise SpecError(field, "holds half a surrogate pair, which no encoding can write")
    if isinstance(value, int) and value.bit_length() > _WIDEST:
        raise SpecError(field, "is a number of more than 300 digits: quote it to make it a text")
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise SpecError(field, f"{value} cannot be stored: JSON has no such number")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SpecError(field, f"the key {key!r} is not a text: quote it")
            check_json(key, field)
            check_json(item, f"{field}.{key}", depth + 1)
        return
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_json(item, f"{field}[{index}]", depth + 1)
        return
    raise SpecError(field, f"a {type(value).__name__} cannot be stored: quote it to make it a text")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
