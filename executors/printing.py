"""What code inside the worker prints, sent to the run it belongs to.

`sys.stdout` and `sys.stderr` are wrapped once; the wrapper looks at a context variable, so each task and each thread
that was started with a copy of its context prints into its own run, and all other code prints where it always did.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from executors.output import Output

_output: ContextVar[Output | None] = ContextVar("executors_output", default=None)


class _Routed:
    """A text stream that belongs to whoever prints."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        output = _output.get()
        if output is not None:
            return output.write(text)
        return 0 if self._stream is None else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _output.get() is None and self._stream is not None:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printing_to(output: Output) -> Iterator[None]:
    """Within the block, what this task or thread prints goes to `output`.

    Threads that the code starts by itself print where the worker does: they do not inherit its context.
    """
    # Looked at each time: a test runner or a user may have put another stream in place since.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Routed):
            setattr(sys, name, _Routed(stream))
    token = _output.set(output)
    try:
        yield
    finally:
        _output.reset(token)
