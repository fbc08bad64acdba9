"""A bar that shows how far a long piece of work has come: on standard error, and only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from scheduler.cli.output import emit

MANY: Final = 200
"""From so many pieces on, people want to see how far it is."""


@contextmanager
def progress(total: int, what: str) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """Two functions: one to be called after each piece of work, and one that prints a result.

    On a terminal results wait until the bar is gone, also where the work is broken off: they would tear each other apart.
    """
    if total < MANY or not sys.stderr.isatty():
        yield _nothing, emit
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    held: list[str] = []
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task), held.append if sys.stdout.isatty() else emit
    finally:
        if held:
            emit("\n".join(held))


def _nothing() -> None:
    pass
