"""What a process that does not end is still doing, in names and lines for its log."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import CoroutineType


def threads_running() -> list[str]:
    """Each thread but the caller's, and the line that it is at."""
    frames = sys._current_frames()
    return sorted(
        f"{thread.name}: {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and (frame := frames.get(thread.ident or 0)) is not None
    )


def tasks_running(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Each task of the loop, which may be another thread's, and what it awaits, the innermost last."""
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:  # They change too fast to be counted: then it is not a task that hangs.
        return []
    return sorted(f"{task.get_name()}: {_awaited(task.get_coro())}" for task in tasks)


def _awaited(waiting: object) -> str:
    names = []
    while isinstance(waiting, CoroutineType):
        names.append(waiting.__qualname__)
        waiting = waiting.cr_await
    return " > ".join(names)
