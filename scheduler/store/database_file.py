"""The SQLite file a process uses: whether it is still there, and still the same."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from scheduler.errors import StoreUnavailable


class DatabaseFile:
    """A file by its path, and which one it was when it was first opened.

    An open file can be written long after it was deleted, or another one was put in its place: nobody would ever read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._opened: tuple[int, int] | None = None
        self._guard = threading.Lock()

    def opened(self) -> None:
        """Somebody has just opened it; raises as `check` does where that was not the first file any more."""
        with self._guard:
            if self._opened is None:
                self._opened = self._found()
        self.check()

    def check(self) -> None:
        """Raises `StoreUnavailable` unless the file that was first opened, if any was, lies at its path."""
        if self._opened is None:
            return
        found = self._found()
        if found is None:
            raise StoreUnavailable(
                f"the database file is gone: put {self.path} back, or restart to begin with a new one"
            )
        if found != self._opened:
            raise StoreUnavailable(
                f"another file lies where the database was: put the first {self.path} back, or restart to use this one"
            )

    def is_there(self) -> bool:
        """Whether `check` has nothing to say."""
        try:
            self.check()
        except StoreUnavailable:
            return False
        return True

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino
