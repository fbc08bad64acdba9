"""What the process says: one event a line on standard error, for people or as JSON."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal, TextIO, cast

import structlog

from scheduler.log_writer import LogWriter

_writer: LogWriter | None = None


def configure(style: Literal["console", "json"] = "console", level: str = "info") -> None:
    """Sends structlog's events and the libraries' warnings to standard error, in UTC.

    A thread writes them: logging never waits for the reader, and no error of the stream reaches who logs.
    """
    stream = _stream()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(stream=stream, level=max(threshold, logging.WARNING), format="%(levelname)s %(message)s")
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr is not None and sys.stderr.isatty(), pad_event_to=12)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def drain(seconds: float = 2.0) -> None:
    """Waits until what was logged so far is written, at most `seconds`."""
    if _writer is not None:
        _writer.drain(seconds)


def dropped() -> int:
    """How many lines were not written since the start: nobody read them, or there was no room."""
    return 0 if _writer is None else _writer.dropped


def _stream() -> TextIO:
    global _writer
    if sys.stderr is None:
        return open(os.devnull, "w", encoding="utf-8")  # as long as the process
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):
        return sys.stderr
    _writer = LogWriter(descriptor)
    return cast(TextIO, _writer)
