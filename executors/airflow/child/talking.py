"""How the Airflow child and its worker talk, and what hosted code prints.

Loaded by main.py from beside it; stdlib only, Python 3.9 and later.

Frames, both ways: 4 bytes of length, then JSON.

    worker → child    {"path": […]}                                           first: folders to import from
                      {"ask": n, "make": {classpath, kwargs, at}}          a trigger made and serialized
                      {"host": name, "turn": n, "trigger": {classpath, kwargs}}
                      {"ask": n, "drop": name, "trigger": {…}, "kill": bool}
                      {"ask": n, "operate": {…}}    {"interrupt": n}          see operators.py
    child → worker    {"ready": {python, pid}}
                      {"answer": n, …}    {"answer": n, "fault": {kind, message}}
                      {"ended": name, "turn": n, "event": {kind, payload, plain}} or {…, "fault": {…}}
                      {"printed": name, "text": "…"}
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import socket
import threading
import time
from typing import Any

LARGEST = 4 * 1024 * 1024
MOST_PRINTED = 64 * 1024
MOST_PARTS = 2_000
TOLD_EVERY = 0.1

owner: contextvars.ContextVar[Any] = contextvars.ContextVar("owner", default=None)
"""The name of the run that the present task or thread works for."""


class Talk:
    """The child's end of the socket. Any thread may write."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._printed: dict[str, list[str]] = {}
        threading.Thread(target=self._tell, name="printed", daemon=True).start()

    def send(self, frame: dict[str, Any]) -> None:
        """Write one frame, behind what was printed before; a worker that has gone is noticed by whoever reads."""
        content = json.dumps(frame).encode()
        if len(content) > LARGEST:
            # The worker's event loop would be held up by reading it.
            said = f"what it has come to is larger than {LARGEST >> 20} MiB: keep it elsewhere, and tell where"
            about = {key: frame[key] for key in ("answer", "ended", "turn") if key in frame}
            content = json.dumps({**about, "fault": {"kind": "wrong", "message": said}}).encode()
        with self._lock, contextlib.suppress(OSError):
            self._flush()
            self._channel.sendall(len(content).to_bytes(4, "big") + content)

    def printed(self, name: str, text: str) -> None:
        """Keep what a run has printed until it is told, a few times a second: of a flood, the middle is left out."""
        with self._lock:
            parts = self._printed.setdefault(name, [])
            parts.append(text[-MOST_PRINTED:])
            if len(parts) > MOST_PARTS:
                half = MOST_PARTS // 2
                parts[half:-half] = ["\n… left out …\n"]

    def _tell(self) -> None:
        while True:
            time.sleep(TOLD_EVERY)
            with self._lock, contextlib.suppress(OSError):
                self._flush()

    def _flush(self) -> None:
        printed, self._printed = self._printed, {}
        for name, parts in printed.items():
            text = "".join(parts)
            if len(text) > MOST_PRINTED:
                text = text[: MOST_PRINTED // 2] + "\n… left out …\n" + text[-MOST_PRINTED // 2 :]
            content = json.dumps({"printed": name, "text": text}).encode()
            self._channel.sendall(len(content).to_bytes(4, "big") + content)

    def receive(self) -> dict[str, Any] | None:
        """The next frame; None at the end."""
        head = self._read(4)
        content = None if head is None else self._read(int.from_bytes(head, "big"))
        return None if content is None else json.loads(content)

    def _read(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._channel.recv(min(size - len(parts), 1 << 20))
            except OSError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)


class Routed:
    """A text stream that sends what hosted code prints to the run it belongs to."""

    def __init__(self, stream: Any, talk: Talk) -> None:
        self._stream = stream
        self._talk = talk

    def write(self, text: str) -> int:
        """Print."""
        name = owner.get()
        if name is None:
            return int(self._stream.write(text))
        if text:
            self._talk.printed(name, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Print several."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back."""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
