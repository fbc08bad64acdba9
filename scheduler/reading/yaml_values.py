"""What the scalars, lists and mappings of strict YAML mean: values built straight from the parser's events."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml

from scheduler.errors import Problem
from scheduler.reading.texts import clip, quoted, render

MAX_DEPTH: Final = 64
MAX_ALIASED: Final = 1_000_000
MAX_DIGITS: Final = 400

_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NUMBER: Final = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NO_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_START: Final = frozenset("+-.0123456789")
_STANDARD: Final = "tag:yaml.org,2002:"
_IGNORED: Final = object()
_MERGE: Final = object()


def plain_value(text: str) -> Any:
    """What a plain, unquoted scalar means: None, a boolean, a number or the text itself.

    Raises `ValueError` for a number that cannot be stored.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _NO_NUMBER.fullmatch(text):
        raise ValueError(f"{text} is not a number that can be stored; quote it if a text is meant")
    if not _NUMBER.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits cannot be stored; quote it if a text is meant")
    if text.lstrip("+-").isdigit():
        return int(text)
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{clip(text, 40)} is too large a number; quote it if a text is meant")
    return number


class _Frame:
    """A mapping or list that is being read; `key` is the mapping's pending key."""

    __slots__ = ("anchor", "as_key", "key", "merges", "open_key", "size", "value")

    def __init__(self, value: dict[Any, Any] | list[Any], anchor: str | None, as_key: bool) -> None:
        self.value = value
        self.anchor = anchor
        self.as_key = as_key
        self.key: Any = None
        self.open_key = False
        self.merges: list[Any] | None = None
        self.size = 1


class Builder:
    """Turns events into values in one pass and collects what is not allowed."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.value: Any = None
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0

    def read(self, events: Any) -> None:
        """Reads everything; syntax errors of the parser pass through."""
        documents = 0
        while True:
            event = events.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._put(self._scalar(event), event, 1)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                if not self._open(event, {} if kind is yaml.MappingStartEvent else []):
                    return
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close(event)
            elif kind is yaml.AliasEvent:
                if not self._alias(event):
                    return
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    self._problem(event, "a second document begins here (---): use one file for each")
                    return
            elif kind is yaml.StreamEndEvent:
                if self.value is None and not self.problems:
                    self.problems.append(Problem("", "is empty"))
                return

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style == '"' and not _storable(text):
            self._problem(event, "a text cannot hold NUL or half of a surrogate pair")
            return self._anchored(event, "")
        tag = event.tag
        if tag is not None:
            if tag not in ("!", _STANDARD + "str"):
                self._refuse_tag(event)
        elif not event.style:
            try:
                value = plain_value(text)
            except ValueError as error:
                self._problem(event, str(error))
                return self._anchored(event, text)
            return self._anchored(event, value)
        return self._anchored(event, text)

    def _anchored(self, event: Any, value: Any) -> Any:
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        return value

    def _open(self, event: Any, value: dict[Any, Any] | list[Any]) -> bool:
        if event.tag is not None and event.tag not in ("!", _STANDARD + "map", _STANDARD + "seq"):
            self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._problem(event, f"is nested deeper than {MAX_DEPTH} levels")
            return False
        as_key = bool(self._stack) and self._expects_key(self._stack[-1])
        if as_key:
            self._problem(event, "a key must be a text, not a list or a mapping")
        self._stack.append(_Frame(value, event.anchor, as_key))
        return True

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        if frame.merges:
            assert isinstance(frame.value, dict)
            for merged in frame.merges:
                for key, value in merged.items():
                    frame.value.setdefault(key, value)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.value, frame.size)
        self._put(_IGNORED if frame.as_key else frame.value, event, frame.size)

    def _alias(self, event: Any) -> bool:
        if any(frame.anchor == event.anchor for frame in self._stack):
            self._problem(event, f"*{event.anchor} refers to the value that contains it")
            return False
        if event.anchor not in self._anchors:
            self._problem(
                event, f"*{event.anchor} has no anchor &{event.anchor} before it; quote it if a text is meant"
            )
            return False
        value, size = self._anchors[event.anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            self._problem(event, f"aliases (*{event.anchor}) repeat more than {MAX_ALIASED:,} values")
            return False
        self._put(value, event, size)
        return True

    def _put(self, value: Any, event: Any, size: int) -> None:
        if not self._stack:
            self.value = value
            return
        frame = self._stack[-1]
        frame.size += size
        container = frame.value
        if type(container) is list:
            container.append(value)
            return
        assert isinstance(container, dict)
        if not frame.open_key:
            self._take_key(frame, value, event)
            return
        key, frame.open_key, frame.key = frame.key, False, None
        if key is _IGNORED:
            return
        if key is _MERGE:
            self._merge(frame, value, event)
        else:
            container[key] = value

    def _take_key(self, frame: _Frame, key: Any, event: Any) -> None:
        if type(event) is yaml.ScalarEvent and key == "<<" and not event.style:
            key = _MERGE
        elif key is not _IGNORED and not isinstance(key, str):
            text = event.value if type(event) is yaml.ScalarEvent else str(key)
            self._problem(event, f'the key {text} is not a text: quote it: "{text}"' if text else "a key is empty")
            key = _IGNORED
        elif isinstance(key, str) and key in frame.value:
            self._problem(event, f"the key {quoted(key)} appears twice", key)
            key = _IGNORED
        frame.key, frame.open_key = key, True

    def _merge(self, frame: _Frame, value: Any, event: Any) -> None:
        sources = value if isinstance(value, list) else [value]
        if frame.merges is not None:
            self._problem(event, "the key '<<' appears twice: write <<: [*one, *other]")
        elif not all(isinstance(source, dict) for source in sources):
            self._problem(event, "<<: merges mappings only")
        else:
            frame.merges = sources

    @staticmethod
    def _expects_key(frame: _Frame) -> bool:
        return isinstance(frame.value, dict) and not frame.open_key

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace(_STANDARD, "!!") if event.tag.startswith(_STANDARD) else event.tag
        self._problem(event, f"the tag {clip(tag, 60)} is not allowed: plain values only")

    def _problem(self, event: Any, reason: str, *more: str) -> None:
        path: list[str | int] = []
        for frame in self._stack:
            if isinstance(frame.value, list):
                path.append(len(frame.value))
            elif isinstance(frame.key, str):
                path.append(frame.key)
        path.extend(more)
        line = event.start_mark.line + 1
        where = f"{render(path)} (line {line})" if path else f"line {line}"
        self.problems.append(Problem(where, clip(reason)))


def _storable(text: str) -> bool:
    # Only the escapes of a double-quoted text can make these; no database takes them.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
