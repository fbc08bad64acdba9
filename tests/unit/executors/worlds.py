"""What these tests share: making runs, waiting for conditions, asking the system about processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from executors import Executor, Outcome, RunContext, as_outcome
from executors.registry import parse_config

ROOT = Path(__file__).parents[3]


def make_run(executor: Executor, config: dict[str, Any] | None = None, **members: Any) -> RunContext:
    """A run as the worker would make it: its config parsed by the executor's schema."""
    members.setdefault("run_name", "nightly-1")
    return RunContext(config=parse_config(type(executor), config or {}), **members)


async def perform(executor: Executor, run: RunContext) -> Outcome:
    """Start the executor, execute the run and close it again."""
    await executor.start()
    try:
        return as_outcome(await executor.execute(run))
    finally:
        await executor.close()


def alive(pid: int) -> bool:
    """True unless the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def members_of_group(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


async def eventually(condition: Callable[[], Any], within: float = 10.0) -> Any:
    """Wait until the condition holds and return what it said; fails the test after `within` seconds."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {within} s: {condition}"
        await asyncio.sleep(0.005)
    return value


async def printed(run: RunContext, text: str) -> None:
    """Wait until the run has printed the text."""
    await eventually(lambda: text in run.output.text())


async def cancel(task: asyncio.Task[Any]) -> bool:
    """Cancel a task and wait for its end; True if the cancellation came through."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def raised(awaitable: Awaitable[Any]) -> BaseException | None:
    """What awaiting raised."""
    try:
        await awaitable
    except Exception as error:
        return error
    return None


def open_descriptors() -> set[str]:
    """Numbers of this process's open file descriptors."""
    return set(os.listdir("/proc/self/fd"))
