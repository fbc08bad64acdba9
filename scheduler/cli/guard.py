"""From errors to exit codes and plain lines on stderr: one a fault, never wrapped, never a traceback unless asked for."""

from __future__ import annotations

import traceback
from typing import Final

from scheduler.cli.output import note
from scheduler.errors import ConfigError, Conflict, IllegalTransition, NotFound, SchedulerError, SpecError

FAILED: Final = 1
WRONG: Final = 2
NOT_FOUND: Final = 4
CONFLICT: Final = 5


class Refused(SchedulerError):
    """What was typed cannot be meant; the message says what to write instead."""


def exit_code(error: BaseException) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, (ConfigError, SpecError, Refused)):
        return WRONG
    if isinstance(error, NotFound):
        return NOT_FOUND
    return CONFLICT if isinstance(error, (Conflict, IllegalTransition)) else FAILED


def lines(error: BaseException) -> list[str]:
    """What is wrong, a line a fault."""
    if isinstance(error, ConfigError):
        return error.lines()
    text = " ".join(str(error).split())
    if isinstance(error, SchedulerError):
        return [text or type(error).__name__]
    name = type(error).__name__
    return [f"{name}: {text} (--debug shows where)" if text else f"{name} (--debug shows where)"]


def report(error: BaseException, *, debug: bool) -> int:
    """Prints the error and returns its exit code."""
    if debug:
        note("".join(traceback.format_exception(error)).rstrip("\n"))
    for line in lines(error):
        note(line)
    return exit_code(error)
