"""The child process of one call: reads what to call, calls it, writes back how it ended.

Started as a file, so that nothing but the standard library is needed until the worker's `sys.path` is known. Its
standard input is one end of a socket pair, the request and the reply go through it; stdout and stderr are the run's
output.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any


def main() -> None:
    """Serve one request."""
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # SIGTERM is how a timeout or a cancel arrives: `finally` blocks and atexit hooks of the callee get their chance.
    signal.signal(signal.SIGTERM, _leave)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # files, here
    request = json.loads(_read_all(channel))
    sys.path[:] = request["path"]
    reply = json.dumps(_perform(request)).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    channel.sendall(len(reply).to_bytes(8) + reply)
    channel.close()


def _perform(request: dict[str, Any]) -> dict[str, Any]:
    from executors import calls
    from executors.errors import RetryableError

    path = request["callable"]
    try:
        function = calls.load(path)
        if calls.is_async(function) and not request["run_async"]:
            return {"async": True}
        context = calls.CallContext.from_document(request["run"])
        keywords = calls.arguments(path, function, request["inputs"], context)
        return calls.to_reply(path, _call(function, keywords), request["max_output_bytes"])
    except SystemExit as error:
        try:
            calls.after_exit(error)
        except RetryableError as failure:
            return {"error": calls.describe(failure)}
        return {"outputs": {}}
    except BaseException as error:
        return {"error": calls.describe(error)}


def _call(function: Any, keywords: dict[str, Any]) -> Any:
    import inspect

    result = function(**keywords)
    if not inspect.isawaitable(result):
        return result
    import asyncio

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


def _read_all(channel: socket.socket) -> bytes:
    parts = []
    while part := channel.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
