"""The pages of the documentation, taken apart: fenced blocks with their language and marker, and tables of keys.

A block may have a marker above it, a comment that readers do not see:

    <!-- test: exit 4 -->            its commands end with this code
    <!-- test: refused -->           its settings or manifest are wrong on purpose
    <!-- test: not run, needs X -->  its commands cannot be called by a test
    <!-- test: postgres, … -->       it sets PostgreSQL up: test_docs has a test of its own for these
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))

_FENCE = re.compile(r"```(\w*)\s*")
_MARKER = re.compile(r"<!-- test: (.+) -->")
_FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml))")
_CELLS = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its first line."""

    page: str
    line: int
    language: str
    marker: str
    text: str

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is the content of, if its first line is a comment that names one."""
        match = _FILE.fullmatch(self.text.partition("\n")[0])
        return match[1] if match else None


@cache
def text_of(page: str) -> str:
    """The page as it stands."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Every fenced block of a page; one that does not end fails."""
    found: list[Block] = []
    marker, start, language, lines = "", 0, "", list[str]()
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        fence = _FENCE.fullmatch(line)
        if start and line == "```":
            found.append(Block(page, start, language, marker, "\n".join(lines) + "\n"))
            start, marker = 0, ""
        elif start:
            lines.append(line)
        elif fence:
            start, language, lines = number + 1, fence[1], []
        elif match := _MARKER.fullmatch(line):
            marker = match[1]
        elif line:
            assert not marker, f"{page}:{number}: the marker {marker!r} stands above no block"
    assert not start, f"{page}:{start}: this block does not end"
    return tuple(found)


def blocks_in(page: str, *languages: str) -> list[Block]:
    """The page's blocks in these languages."""
    return [block for block in blocks(page) if block.language in languages]


@dataclass(frozen=True)
class Row:
    """One row of a table: the heading above the table, the name of its first column, and the cells."""

    heading: str
    column: str
    cells: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """What the first cell puts into backquotes."""
        return re.findall(r"`([^`]+)`", self.cells[0])


@cache
def rows(page: str) -> tuple[Row, ...]:
    """The rows of every table of a page."""
    return tuple(_rows(page))


def _rows(page: str) -> Iterator[Row]:
    heading, column, fenced = "", "", False
    for line in text_of(page).splitlines():
        fenced ^= line.startswith("```")
        if fenced:
            continue
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        if not line.startswith("|"):
            column = ""
            continue
        cells = tuple(cell.strip() for cell in _CELLS.split(line)[1:-1])
        if not column:
            column = cells[0]
        elif not set(line) <= set("|- :"):
            yield Row(heading, column, cells)
