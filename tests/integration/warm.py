"""`python -m scheduler …`, many times over, without importing the libraries anew each time.

A process that has imported them and does nothing else forks for every command; the package's own modules are imported by
the command itself, as ever. Called as a program it is that process: JSON lines in (words, folder, file for the output),
exit codes out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

LIBRARIES = (
    "alembic.command",
    "croniter",
    "pydantic",
    "rich.table",
    "sqlalchemy.dialects.sqlite",
    "structlog",
    "typer.main",
    "yaml",
)


class WarmCommands:
    """Calls the command line; use it in a `with`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(env), text=True
        )

    def __enter__(self) -> WarmCommands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def call(self, words: Sequence[str], folder: Path) -> tuple[int, str]:
        """The exit code, and all that was printed."""
        output = folder / "output.log"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(words), str(folder), str(output)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), output.read_text(errors="replace")


def _serve() -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    for line in sys.stdin:
        words, folder, output = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(words, folder, output)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(words: list[str], folder: str, output: str) -> None:
    os.chdir(folder)
    sys.path[0] = folder
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["scheduler", *words]
    code: object = 0
    try:
        runpy.run_module("scheduler", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking a large interpreter apart would cost more than most commands.
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
