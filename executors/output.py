"""What an attempt printed: a buffer that keeps the beginning and the end, however much is written."""

from __future__ import annotations

import codecs
import threading
from typing import Final

LIMIT: Final = 64 * 1024
MAX_ERROR: Final = 16 * 1024
_MARKER_ROOM: Final = 64
_DECODER: Final = codecs.getincrementaldecoder("utf-8")


class Output:
    """Text as it is kept with an attempt: at most `limit` bytes of UTF-8, the middle replaced by a line that says so.

    Bytes that are not UTF-8 become U+FFFD, and so does NUL, which PostgreSQL cannot store. Any thread may write.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        if limit < 4 * _MARKER_ROOM:
            raise ValueError(f"limit={limit} leaves no room for text: give at least {4 * _MARKER_ROOM}")
        self._limit = limit
        self._head_room = limit // 2
        self._tail_room = limit - self._head_room
        self._head = bytearray()
        self._tail = bytearray()
        # Made for the first bytes: most attempts print nothing, or texts.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._lock = threading.Lock()
        self._seen = 0

    def write(self, data: bytes | str) -> int:
        """Add what was printed; returns the length of `data`, as a text file's `write` does."""
        with self._lock:
            text = data if isinstance(data, str) else self._decoded(data)
            if "\0" in text:
                text = text.replace("\0", "\ufffd")
            self._keep(text.encode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back; here so that an Output can stand where a text file is expected."""

    @property
    def bytes_seen(self) -> int:
        """How many bytes of text, as UTF-8, were written in all, kept or not."""
        return self._seen

    @property
    def bytes_left_out(self) -> int:
        """How many bytes of the middle are not kept."""
        return self._split()[2]

    def text(self) -> str:
        """What is kept: everything, or the beginning, a line `… N bytes left out …` and the end."""
        with self._lock:
            if self._decoder is None and not self._seen:
                return ""
            head, tail, left_out = self._split()
            # A character that has only begun may yet be completed: shown as broken, not decided.
            if self._decoder is not None and self._decoder.getstate()[0] and len(head) + len(tail) + 3 <= self._limit:
                tail += "\ufffd".encode()
        if not left_out:
            return (head + tail).decode()
        return f"{head.decode()}\n… {left_out} bytes left out …\n{tail.decode()}"

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            self._decoder = _DECODER("replace")
        return self._decoder.decode(data)

    def _keep(self, data: bytes) -> None:
        self._seen += len(data)
        if room := self._head_room - len(self._head):
            self._head += data[:room]
            data = data[room:]
        if len(data) >= self._tail_room:
            self._tail[:] = data[-self._tail_room :]
            return
        self._tail += data
        # Trimmed only when twice too long: each byte is then moved once on average, not once a write.
        if len(self._tail) > 2 * self._tail_room:
            del self._tail[: -self._tail_room]

    def _split(self) -> tuple[bytes, bytes, int]:
        if self._seen <= self._limit:
            return bytes(self._head), bytes(self._tail), 0
        head = bytes(self._head).decode("utf-8", "ignore").encode()
        tail = bytes(self._tail[-(self._tail_room - _MARKER_ROOM) :])
        # Both cuts may fall inside a character; its remaining bytes count as left out.
        while tail and tail[0] & 0xC0 == 0x80:
            tail = tail[1:]
        return head, tail, self._seen - len(head) - len(tail)


def clip(text: str, limit: int = MAX_ERROR) -> str:
    """The text as an attempt's error may be kept: its end, where the cause stands, if it is too long."""
    text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"… {len(text) - limit} characters left out …\n{text[-limit:]}"
