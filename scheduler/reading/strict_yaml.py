"""YAML as people mean it: safe, no duplicate keys, no surprises, and every fault with its line.

What differs from plain YAML 1.1, and why: `yes`, `no`, `on` and `off` stay texts (a country code is not a boolean),
`12:30` and `010` stay texts (no base 60, no octal), dates and times stay texts (whoever reads them asks for a zone),
keys are texts, tags other than `!!str` are refused, and aliases may not multiply a small file into a huge one.

Values are built straight from the parser's events, so a file of a hundred thousand values costs no node tree. Lines are
looked up only once something is wrong: `Document.line` reads the text a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from scheduler.errors import ConfigError, Problem
from scheduler.reading.texts import KeyPath, clip
from scheduler.reading.yaml_values import Builder, plain_value

__all__ = ["Document", "load_file", "load_text", "plain_value"]

# libyaml is about eight times as fast; a PyYAML built without it reads the same language.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES: Final = 128 * 1024 * 1024


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

    def has(self, path: KeyPath) -> bool:
        """Whether the text says something at `path`."""
        found = self._find(path)
        return found is not None and found[2]

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
    builder = Builder()
    try:
        builder.read(_Loader(text))
    except yaml.YAMLError as error:
        builder.problems.append(_syntax_problem(error))
    except UnicodeError:
        builder.problems.append(Problem("", "is not UTF-8 text"))
    if builder.problems:
        raise ConfigError(shown, builder.problems)
    return Document(shown, text, builder.value)


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


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read")
    context = str(getattr(error, "context", None) or "")
    mark, begin = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    advice = next((advice for sign, advice in _ADVICE if sign in f"{context}, {said}"), None)
    if begin is not None and mark is not None and begin.line < mark.line:
        said += f" (begun in line {begin.line + 1})"
    where = f"line {mark.line + 1}" if mark is not None else ""
    return Problem(where, clip(f"is not valid YAML: {said}: {advice}" if advice else f"is not valid YAML: {said}"))
