"""YAML as people mean it: safe, no duplicate keys, no surprises, and every fault with its line.

What differs from plain YAML 1.1, and why: `yes`, `no`, `on` and `off` stay texts (a country code is not a boolean),
`12:30` and `010` stay texts (no base 60, no octal), dates and times stay texts (whoever reads them asks for a zone),
keys are texts, tags other than `!!str` are refused, and aliases may not multiply a small file into a huge one.

Values are built straight from the parser's events, so a file of a hundred thousand values costs no node tree. Lines are
looked up only once something is wrong: `Document.line` reads the text a second time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from scheduler.errors import ConfigError, Problem
from scheduler.texts import KeyPath, clip, quoted, render

# libyaml is about eight times as fast; a PyYAML built without it reads the same language.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES: Final = 128 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_ALIASED: Final = 1_000_000
MAX_DIGITS: Final = 400

Events: TypeAlias = Any

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


class Document:
    """One file's value, with the means to say where in it something stands."""

    def __init__(self, shown: str, text: str, value: Any) -> None:
        self.shown = shown
        self.value = value
        self._text = text
        self._root: Any = None

    def line(self, path: KeyPath) -> int | None:
        """The line, from 1, of the key or item at `path`; of its nearest existing parent where it is missing."""
        found = self._find(path)
        return found[0] if found else None

    def written(self, path: KeyPath) -> str | None:
        """The scalar at `path` as it was typed (`1.10`, not 1.1), or None if no scalar is there."""
        found = self._find(path)
        return found[1].value if found and found[2] and isinstance(found[1], yaml.ScalarNode) else None

    def _find(self, path: KeyPath) -> tuple[int, Any, bool] | None:
        if self._root is None and self._text:
            self._root = yaml.compose(self._text, Loader=_Loader)
        node = self._root
        if node is None:
            return None
        line = node.start_mark.line + 1
        for part in path:
            step = _step(node, part)
            if step is None:
                return line, node, False
            line, node = step
        return line, node, True


def load_file(path: Path, shown: str | None = None) -> Document:
    """The document in a file; raises `ConfigError` with every fault of its YAML.

    `shown` is what problems call the file; by default its path as given.
    """
    name = shown or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(name, ["no such file"]) from None
    except IsADirectoryError:
        raise ConfigError(name, ["is a folder, not a file"]) from None
    except PermissionError:
        raise ConfigError(name, ["cannot be read: permission denied"]) from None
    except (OSError, ValueError) as error:
        raise ConfigError(name, [f"cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(name, [f"is larger than {MAX_BYTES // 2**20} MiB: split it into several files"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(name, [Problem(f"line {line}", "is not UTF-8 text: save the file as UTF-8")]) from None
    return load_text(text, name)


def load_text(text: str, shown: str) -> Document:
    """The document in a text; raises `ConfigError` with every fault of its YAML. An empty one is a fault too."""
    builder = _Builder()
    try:
        builder.read(_Loader(text))
    except yaml.YAMLError as error:
        builder.problems.append(_syntax_problem(error))
    except UnicodeError:
        builder.problems.append(Problem("", "is not UTF-8 text"))
    if builder.problems:
        raise ConfigError(shown, builder.problems)
    return Document(shown, text, builder.value)


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


class _Builder:
    """Turns events into values in one pass and collects what is not allowed."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.value: Any = None
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0

    def read(self, events: Events) -> None:
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


def _step(node: Any, part: str | int) -> tuple[int, Any] | None:
    """One step down the node tree: the line of the key or item, and the node there."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line + 1, child
    if not isinstance(node, yaml.MappingNode) or not isinstance(part, str):
        return None
    for key, child in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == part:
            return key.start_mark.line + 1, child
    for key, child in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<":
            sources: Sequence[Any] = child.value if isinstance(child, yaml.SequenceNode) else [child]
            for source in sources:
                found = _step(source, part)
                if found:
                    return found
    return None


# What the parser says is right but seldom what the reader needs: the usual slips, and what to do about them.
_ADVICE: Final = (
    ("scanning an alias", 'quote a text that begins with *: "*/5 * * * *"'),
    ("scanning an anchor", "quote a text that begins with &"),
    ("\\t", "indent with spaces, not tabs"),
    ("start any token", "indent with spaces, not tabs; quote a text that begins with @, ` or %"),
    ("mapping values are not allowed", "quote a text that contains ': ', and check the indentation"),
    ("flow sequence", "a [ is not closed, or a text with brackets needs quotes"),
    ("flow mapping", "a { is not closed, or a text with brackets needs quotes"),
    ("quoted scalar, found unexpected end", "the quote is not closed"),
    ("expected key", "check the indentation and the quotes"),
    ("expected <block end>", "check the indentation and the quotes"),
    ("expected ':'", "check the indentation and the colons"),
    ("expected '-'", "check the indentation of the list"),
    ("characters are not allowed", "remove the control character"),
)


def _storable(text: str) -> bool:
    # Only the escapes of a double-quoted text can make these; no database takes them.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read")
    context = str(getattr(error, "context", None) or "")
    mark, begin = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    advice = next((advice for sign, advice in _ADVICE if sign in f"{context}, {said}"), None)
    if begin is not None and mark is not None and begin.line < mark.line:
        said += f" (begun in line {begin.line + 1})"
    where = f"line {mark.line + 1}" if mark is not None else ""
    return Problem(where, clip(f"is not valid YAML: {said}: {advice}" if advice else f"is not valid YAML: {said}"))
