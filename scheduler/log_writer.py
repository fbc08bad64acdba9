"""Writes log lines in a thread of its own, so that whoever logs never waits for the reader and never sees its errors."""

from __future__ import annotations

import os
import select
import threading
from queue import Empty, SimpleQueue
from typing import Final

_MOST_LINES: Final = 20_000
_BATCH: Final = 500


class LogWriter:
    """A text stream to a file descriptor. Lines keep their order; what finds no room or cannot be written is counted."""

    def __init__(self, descriptor: int, *, most_lines: int = _MOST_LINES) -> None:
        """`most_lines` may wait to be written; further ones are dropped, and `dropped` says how many."""
        self._descriptor = descriptor
        self._most = most_lines
        self._lines: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._unsaid = 0
        self.dropped = 0
        self._count = threading.Lock()
        # A daemon: a write that hangs must not keep the process from ending.
        threading.Thread(target=self._write_forever, name="log-writer", daemon=True).start()

    def write(self, text: str) -> int:
        """Queues the text and returns at once."""
        if self._lines.qsize() < self._most:
            self._lines.put(text)
        else:
            self._drop(1)
        return len(text)

    def flush(self) -> None:
        """Does nothing: streams are flushed after every line, and a line must not wait."""

    def drain(self, seconds: float) -> bool:
        """Waits until all that was written so far is out; False if that takes longer than `seconds`."""
        done = threading.Event()
        self._lines.put(done)
        return done.wait(seconds)

    def _drop(self, lines: int) -> None:
        with self._count:
            self._unsaid += lines
            self.dropped += lines

    def _write_forever(self) -> None:
        while True:
            batch = [self._lines.get()]
            while len(batch) < _BATCH:
                try:
                    batch.append(self._lines.get_nowait())
                except Empty:
                    break
            texts = [item for item in batch if isinstance(item, str)]
            if texts and not self._put("".join(texts)):
                self._drop(len(texts))
            self._say_dropped()
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _say_dropped(self) -> None:
        with self._count:
            unsaid, self._unsaid = self._unsaid, 0
        if unsaid and not self._put(f"{unsaid} log lines were dropped\n"):
            with self._count:
                self._unsaid += unsaid

    def _put(self, text: str) -> bool:
        left = memoryview(text.encode(errors="backslashreplace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1)
            except OSError:
                return False
        return True
