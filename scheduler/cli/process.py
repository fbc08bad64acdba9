"""The first thing that the command's process does, before anything that takes long to load."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from types import FrameType


def main() -> None:
    """The console script."""
    open_standard_streams()
    if _verb(sys.argv[1:]) == "serve":
        _end_on_signals()
    from scheduler.cli.main import main as run

    run()


def open_standard_streams() -> None:
    """Opens /dev/null as each of the descriptors 0, 1 and 2 that is closed (`2>&-`).

    Otherwise the next file or socket would take its place, and be written into by whoever writes to standard error.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _end_on_signals() -> None:
    # Until the worker's own handlers stand, it has begun nothing. As process 1 of a container it would ignore a signal that
    # it has no handler for.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _verb(words: Iterable[str]) -> str | None:
    rest = iter(words)
    for word in rest:
        if word == "--config":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None
