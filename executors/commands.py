"""One command from start to end, as the executors that run commands share it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta

from executors.output import Output
from executors.pipes import Capture, Descriptor
from executors.processes import hire


async def run_command(
    holder: object,
    output: Output,
    argv: Sequence[str],
    stdin: Descriptor,
    *,
    env: Mapping[str, str],
    cwd: str | None,
    kill_after: timedelta,
) -> int:
    """Run a command to the end of its process group; its stdout and stderr go to `output` as they come.

    Returns its exit code, or minus the number of the signal that ended it. Cancelled, it sends SIGTERM to the group,
    SIGKILL after `kill_after` (at once if cancelled a second time), and passes the cancellation on only when the group
    has ended.
    """
    capture = Capture(output)
    try:
        process = hire(holder).spawn(argv, env=env, cwd=cwd, stdin=stdin.give(), output=capture.writer.give())
        try:
            return await process.ended()
        except asyncio.CancelledError:
            await process.stop(kill_after)
            raise
    finally:
        capture.finish()


def describe_exit(code: int) -> str:
    """`exit code 3`, or `killed by SIGSEGV` for minus a signal's number."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
