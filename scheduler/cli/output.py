"""Where results and remarks go, and the three ways to print rows: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TextIO

from scheduler.errors import SchedulerError

if TYPE_CHECKING:
    from rich.text import Text

_PHASE_STYLES: Final = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "ABORTED": "yellow",
    "RUNNING": "cyan",
    "DEFERRED": "cyan",
    "quarantined": "red",
    "inactive": "yellow",
}
# A pipe has no width: whatever reads it gets every name whole and every row on one line.
_PIPE_WIDTH: Final = 1_000_000


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def emit(text: str) -> None:
    """A result, on stdout."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Anything else, on stderr. Where that cannot be written, nobody can be told."""
    with contextlib.suppress(CannotWrite):
        _write(sys.stderr, text)


class CannotWrite(SchedulerError):
    """The result has nowhere to go: a full disk, for one."""


def discard(stream: TextIO) -> None:
    """Sends what the stream still holds, and all that is written to it from now on, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`). What is being done goes on; what is still printed, nobody reads.
        discard(stream)
    except OSError as error:
        discard(stream)
        raise CannotWrite(f"cannot write the result: {error.strerror or error}") from error


# --- for programs -------------------------------------------------------------------------------------------------------


def dump(document: Any, output: Output) -> str:
    """JSON or YAML; the rows of a JSON array stand one a line, so that line tools can be used on them too."""
    if output is Output.YAML:
        import yaml

        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=prints_unicode(), width=_PIPE_WIDTH)
        return text.rstrip("\n")
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return "[" + ",\n ".join(_json(row) for row in document) + "]"
    return _json(document, indent=2) if isinstance(document, dict) else _json(document)


def _json(document: Any, indent: int | None = None) -> str:
    return json.dumps(document, indent=indent, ensure_ascii=not prints_unicode())


def prints_unicode() -> bool:
    """Whether standard output can show any character."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


# --- for people ---------------------------------------------------------------------------------------------------------


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing in full: a name and a value a line; values that are None are left out."""
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            drawn.add_row(cell(name), cell(value))
    emit(_drawn(drawn))


def compact(document: Any) -> str | None:
    """A mapping or list as one line of JSON; None where there is nothing in it."""
    return _json(document) if document not in (None, {}, []) else None


def one_line(value: str) -> str:
    """The text without what would break a line or colour a terminal."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def cell(value: object) -> Text:
    """A value as a cell of a table shows it: on one line, nothing for None."""
    from rich.text import Text

    text = "" if value is None else one_line(str(value))
    return Text(text, style=_PHASE_STYLES.get(text, ""))


def _drawn(renderable: Any) -> str:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=None if terminal else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def first_line(text: object) -> str | None:
    """What an error begins with: the rest, a traceback or captured output, belongs elsewhere."""
    lines = str(text).strip().splitlines() if text is not None else []
    return lines[0] if lines else None


def counted(count: int, noun: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cut(rows: list[dict[str, Any]], limit: int, what: str, *, newest_last: bool = False) -> list[dict[str, Any]]:
    """The rows that `--limit` allows, of one row more than that: a remark says so where some were left out."""
    if len(rows) <= limit:
        return rows
    note(f"there are more {what} than the {limit} shown: raise --limit")
    return rows[-limit:] if newest_last else rows[:limit]


def keyed(row: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The row with these keys only, in this order."""
    return {key: row[key] for key in keys}
