"""Tables for people: which columns a terminal has room for, and the options that say otherwise.

On a terminal the columns that matter least go first, until the rest fits; what then needs more room than is left, such as
an error, stands in a line of its own below its row. In a pipe, and with `--wide`, every column is there and whole.
"""

from __future__ import annotations

import functools
import inspect
import io
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from scheduler.cli.guard import Refused
from scheduler.cli.output import cell, emit, note

if TYPE_CHECKING:
    from rich.text import Text

_GAP: Final = 2
_WATCHED_SECONDS: Final = 2.0
# Less than so much of a text tells nothing: it gets a line of its own.
_LEAST: Final = 24
_CLEAR: Final = "\x1b[2J\x1b[H"


@dataclass(frozen=True)
class Column:
    """One column: its heading, and what becomes of it where there is little room.

    Those with the highest `rank` go first, those of rank 0 stay. `text` is prose that may be cut or moved below the row.
    `live` columns, such as "2 min ago", are for terminals only. `right` is for numbers, `if_any` leaves a column out
    that holds nothing.
    """

    name: str
    rank: int = 0
    right: bool = False
    if_any: bool = False
    text: bool = False
    live: bool = False


@dataclass(frozen=True)
class Look:
    """What the options of a listing say about its table."""

    wide: bool = False
    columns: tuple[str, ...] = ()
    header: bool = True


_LOOK: ContextVar[Look] = ContextVar("look")
_WIDE = Annotated[bool, typer.Option("--wide", help="Every column, however narrow the terminal is.")]
_COLUMNS = Annotated[
    str | None, typer.Option("--columns", metavar="NAME,…", help="These columns, in this order.", show_default=False)
]
_NO_HEADER = Annotated[bool, typer.Option("--no-header", help="Without the line of headings.")]
_WATCH = Annotated[bool, typer.Option("--watch", help="Print it again every two seconds, until Ctrl-C.")]


def listing(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb that prints a table the options `--wide`, `--columns`, `--no-header` and `--watch`."""

    @functools.wraps(verb)
    def looked_at(*args: Any, wide: bool, columns: str | None, no_header: bool, watch: bool, **given: Any) -> None:
        names = tuple(name.strip().upper() for name in (columns or "").split(",") if name.strip())
        token = _LOOK.set(Look(wide, names, not no_header))
        try:
            while True:
                if watch and sys.stdout.isatty():
                    emit(_CLEAR)
                verb(*args, **given)
                if not watch:
                    return
                time.sleep(_WATCHED_SECONDS)
        finally:
            _LOOK.reset(token)

    asked = inspect.signature(verb, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("wide", False, _WIDE),
            ("columns", None, _COLUMNS),
            ("no_header", False, _NO_HEADER),
            ("watch", False, _WATCH),
        )
    ]
    looked_at.__signature__ = asked.replace(parameters=[*asked.parameters.values(), *more])  # type: ignore[attr-defined]
    looked_at.__annotations__ = {name: each.annotation for name, each in looked_at.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return looked_at


def is_narrow() -> bool:
    """Whether the table is for a terminal, so that short forms are right; not so in a pipe and with `--wide`."""
    return sys.stdout.isatty() and not _look().wide


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows, each with a value for every column, as the options and the terminal ask."""
    look = _look()
    whole = list(rows)
    chosen = _chosen(columns, whole, look)
    drawn = {n: [cell(row[n]) for row in whole] for n in chosen}
    below: list[int] = []
    left_out: list[str] = []
    room = shutil.get_terminal_size().columns if is_narrow() else None
    if room is not None and not look.columns:
        chosen, below, left_out = _fitted(columns, chosen, drawn, room, header=look.header)
    emit(_drawn(columns, chosen, below, drawn, look, room))
    if left_out:
        note(f"left out: {', '.join(left_out)} (--wide shows all)")


def _look() -> Look:
    return _LOOK.get(Look())


def _chosen(columns: Sequence[Column], rows: Sequence[Sequence[object]], look: Look) -> list[int]:
    numbers = {column.name.partition(" (")[0]: n for n, column in enumerate(columns)}
    if look.columns:
        if unknown := [name for name in look.columns if name not in numbers]:
            raise Refused(f"--columns: there is no {', '.join(unknown)}, there are {', '.join(numbers)}")
        return [numbers[name] for name in look.columns]
    narrow = is_narrow()
    return [
        n
        for n, column in enumerate(columns)
        if (narrow or not column.live) and (not column.if_any or any(row[n] is not None for row in rows))
    ]


def _fitted(
    columns: Sequence[Column], chosen: list[int], drawn: dict[int, list[Text]], room: int, *, header: bool
) -> tuple[list[int], list[int], list[str]]:
    """The columns that fit, those that go below their rows, and the names of those left out."""
    widths = {n: _width(columns[n], drawn[n], header) for n in chosen}
    kept = list(chosen)

    def needed() -> int:
        return sum(min(widths[n], _LEAST) if columns[n].text else widths[n] for n in kept) + _GAP * (len(kept) - 1)

    gone = []
    while needed() > room and (loose := [n for n in kept if columns[n].rank]):
        last = max(loose, key=lambda n: columns[n].rank)
        kept.remove(last)
        gone.append(last)
    below: list[int] = []
    while needed() > room and len(kept) > 1:
        # Prose first; then what is widest, but never what the row is called by.
        prose = [n for n in kept if columns[n].text]
        moved = prose[-1] if prose else max(kept[1:], key=lambda n: widths[n])
        kept.remove(moved)
        below.append(moved)
    below.sort()
    return kept, below, [columns[n].name for n in chosen if n in gone]


def _width(column: Column, cells: Sequence[Text], header: bool) -> int:
    return max([text.cell_len for text in cells] + [len(column.name) if header else 0], default=0)


def _drawn(
    columns: Sequence[Column],
    chosen: Sequence[int],
    below: Sequence[int],
    drawn: dict[int, list[Text]],
    look: Look,
    room: int | None,
) -> str:
    from rich.console import Console
    from rich.text import Text

    widths = {n: _width(columns[n], drawn[n], look.header) for n in chosen}
    if room is not None:
        for n in chosen:
            if columns[n].text:
                others = sum(width for m, width in widths.items() if m != n) + _GAP * (len(chosen) - 1)
                widths[n] = min(widths[n], max(room - others, _LEAST))
    terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=1_000_000, markup=False, emoji=False)
    heads = {n: Text(columns[n].name, style="bold") for n in chosen}
    count = len(next(iter(drawn.values()), []))

    def line(cells: dict[int, Text]) -> Text:
        whole = Text()
        for place, n in enumerate(chosen):
            text = cells[n].copy()
            if text.cell_len > widths[n]:
                text.truncate(widths[n], overflow="ellipsis")
            blank = widths[n] - text.cell_len
            if place:
                whole.append(" " * _GAP)
            if columns[n].right:
                whole.append(" " * blank)
            whole.append_text(text)
            if not columns[n].right:
                whole.append(" " * blank)
        whole.rstrip()
        return whole

    lines = [line(heads)] if look.header else []
    for row in range(count):
        lines.append(line({n: drawn[n][row] for n in chosen}))
        for n in below:
            if drawn[n][row].plain:
                text = Text("  ").append_text(drawn[n][row])
                if room is not None:
                    text.truncate(room, overflow="ellipsis")
                lines.append(text)
    with console.capture() as captured:
        console.print(Text("\n").join(lines), soft_wrap=True, end="")
    return captured.get()
