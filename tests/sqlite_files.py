"""Whether somebody else could write into an SQLite file just now."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def may_be_written(file: Path | str, within: float = 0.0) -> bool:
    """Whether another process gets the file for writing, within so many seconds."""
    with closing(sqlite3.connect(file, timeout=within, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        other.execute("ROLLBACK")
        return True
