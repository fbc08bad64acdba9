"""Reading a mapping that someone typed, key by key: what fits is given back, what does not is reported with its path.

A reader goes on after a fault and gets the key's default in its place, so one pass finds every fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from scheduler.domain.identity import check_name
from scheduler.domain.instants import format_duration, parse_duration, parse_rfc3339, to_datetime
from scheduler.domain.values import LONGEST
from scheduler.errors import Problem, SpecError
from scheduler.reading.strict_yaml import Document
from scheduler.reading.texts import KeyPath, clip, kind, none_of, quoted, render, unknown

T = TypeVar("T")
Path = tuple[str | int, ...]


class Report:
    """The faults of one file."""

    def __init__(self, document: Document) -> None:
        self.file = document.shown
        self.problems: list[Problem] = []
        self._document = document

    def add(self, path: KeyPath, reason: str) -> None:
        """One more fault, with the line it stands in."""
        line = self._document.line(path)
        where = " ".join(part for part in (render(path), f"(line {line})" if line else "") if part)
        self.problems.append(Problem(where, clip(reason), self.file))

    def wrong_type(self, path: KeyPath, value: object, wanted: str) -> None:
        """The value at `path` is no `wanted`; a number where a text belongs is told to be quoted, as it was typed."""
        typed = self._document.written(path) if isinstance(value, (bool, int, float)) else None
        if wanted == "a text" and typed is not None:
            self.add(path, f'{clip(typed, 40)} is {kind(value)}, not a text: quote it: "{clip(typed, 40)}"')
            return
        if typed is None and isinstance(value, str):
            typed = quoted(value)
        self.add(path, f"{typed + ' ' if typed else ''}is {kind(value)}, not {wanted}")

    @property
    def faults(self) -> int:
        """How many faults there are so far: a value is built only where reading its parts added none."""
        return len(self.problems)


class Section:
    """One mapping of the file. Keys that are absent or null have their default, unless they are required."""

    __slots__ = ("given", "path", "report", "values")

    def __init__(self, report: Report, path: Path, value: object, known: frozenset[str]) -> None:
        self.report = report
        self.path = path
        self.values: dict[str, Any] = {}
        self.given = False
        if value is None:
            return
        if not isinstance(value, dict):
            report.wrong_type(path, value, "a mapping of keys and values")
            return
        self.values = value
        self.given = True
        if not known.issuperset(value):
            for key in value:
                if key not in known:
                    report.add((*path, key), unknown(key, known))

    def fault(self, key: str, reason: str) -> None:
        """Reports the value of a key."""
        self.report.add((*self.path, key), reason)

    def require(self, key: str) -> bool:
        """Whether a required key has a value; reported if not."""
        if self.values.get(key) is not None:
            return True
        self.fault(key, "is empty: give it a value" if key in self.values else "is missing, but required")
        return False

    def text(self, key: str, default: str = "") -> str:
        """A text, which may be empty."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.report.wrong_type((*self.path, key), value, "a text")
            return default
        return value

    def name(self, key: str, default: str = "") -> str:
        """A text that may identify something."""
        value = self.text(key, default)
        return self._checked(key, value, check_name) if key in self.values and value is not default else value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.report.wrong_type((*self.path, key), value, "true or false")
        return default

    def whole(self, key: str, default: T, least: int, most: int = 1_000_000) -> int | T:
        """A whole number within bounds that every database column can hold."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.report.wrong_type((*self.path, key), value, "a whole number")
            return default
        if not least <= value <= most:
            self.fault(key, f"{value} is not within {least}–{most}")
            return default
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number within bounds."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.report.wrong_type((*self.path, key), value, "a number")
            return default
        if not least <= value <= most:
            self.fault(key, f"{value} is not within {least:g}–{most:g}")
            return default
        return float(value)

    def duration(self, key: str, default: T, *, positive: bool = False) -> timedelta | T:
        """A duration such as `30s`, at most a hundred years."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            hint = f": write {value}s" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
            self.fault(key, f"is {kind(value)}, not a duration such as 30s or 10m{hint}")
            return default
        duration = self._checked(key, value, parse_duration)
        if isinstance(duration, str):
            return default
        if duration > LONGEST:
            self.fault(key, f"{quoted(value)} is too long: at most {format_duration(LONGEST)}")
            return default
        if positive and not duration:
            self.fault(key, "must be longer than 0s: remove the key if there is no limit")
        return duration

    def instant(self, key: str) -> datetime | None:
        """An RFC 3339 time with its zone."""
        value = self.text(key)
        if not value:
            if self.values.get(key) == "":
                self.fault(key, "is empty: write a time like 2026-11-21T02:00:00Z")
            return None
        instant = self._checked(key, value, parse_rfc3339)
        return to_datetime(instant) if isinstance(instant, int) else None

    def choice(self, key: str, allowed: Collection[str], default: str) -> str:
        """One of a few words."""
        value = self.text(key, default)
        if value not in allowed:
            self.fault(key, none_of(value, allowed))
            return default
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping of the user's own, taken as it is."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.report.wrong_type((*self.path, key), value, "a mapping of keys and values")
            return {}
        return value

    def items(self, key: str) -> Iterator[tuple[Path, Any]]:
        """The items of a list, each with its path."""
        value = self.values.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.report.wrong_type((*self.path, key), value, "a list")
            return
        for index, item in enumerate(value):
            if item is None:
                self.report.add((*self.path, key, index), "is empty: give it a value or remove the dash")
            else:
                yield (*self.path, key, index), item

    def texts(self, key: str) -> Iterator[tuple[Path, str]]:
        """The items of a list of texts, each with its path."""
        for path, item in self.items(key):
            if isinstance(item, str):
                yield path, item
            else:
                self.report.wrong_type(path, item, "a text")

    def section(self, key: str, known: frozenset[str]) -> Section:
        """The mapping below a key, empty where there is none."""
        return Section(self.report, (*self.path, key), self.values.get(key), known)

    def _checked(self, key: str, value: str, check: Callable[[str, str], T]) -> T | str:
        try:
            return check(value, key)
        except SpecError as error:
            self.fault(key, error.reason)
            return value
