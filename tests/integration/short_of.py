"""A worker in a process of its own that comes to lack something while it works; prints what became of its runs, as JSON.

`python -m tests.integration.short_of DATABASE descriptors|threads|processes`
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import threading
from typing import Any

from executors import Executor, Outcome, PythonExecutor, RunContext, ShellExecutor, Succeeded
from tests.integration.waiting_world import WaitingWorld

_NOBODY = 65534


class Connects(Executor):
    """Needs a connection, as any that asks somebody over the network."""

    async def execute(self, run: RunContext) -> Outcome:
        """Connects to a server of its own."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            _, writer = await asyncio.open_connection(*server.getsockname())
            writer.close()
        return Succeeded()


def nothing() -> None:
    """A function that needs a thread to run in."""


class Lack:
    """What is lacking from the beginning of the block to its end."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        if self._what == "descriptors":
            self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, self._limits[1]))
            # The gaps below the highest one, too.
            self._fillers = []
            while True:
                try:
                    self._fillers.append(os.dup(0))
                except OSError:
                    break
        elif self._what == "processes":
            self._limits = resource.getrlimit(resource.RLIMIT_NPROC)
            resource.setrlimit(resource.RLIMIT_NPROC, (1, self._limits[1]))
            if os.getuid() == 0:  # The limit is none for root.
                os.setresuid(_NOBODY, _NOBODY, 0)
        else:
            # No machine has an address space for it.
            threading.stack_size(1 << 46)

    def __exit__(self, *error: object) -> None:
        if self._what == "descriptors":
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
            for filler in self._fillers:
                os.close(filler)
        elif self._what == "processes":
            if os.getresuid()[2] == 0:
                os.setresuid(0, 0, 0)
            resource.setrlimit(resource.RLIMIT_NPROC, self._limits)
        else:
            threading.stack_size(0)


def main(url: str, what: str) -> dict[str, Any]:
    """Runs while it is lacking, and afterwards."""
    executors = {"shell": ShellExecutor(), "python": PythonExecutor(), "connects": Connects()}
    with WaitingWorld(url, executors) as world:
        config = {"callable": "tests.integration.short_of:nothing"}
        if what == "threads":
            keys = [world.deploy("thread", "python", {**config, "in": "thread"})]
        else:
            keys = [world.deploy("shell", "shell", {"command": ["true"]}), world.deploy("process", "python", config)]
        if what == "descriptors":
            keys.append(world.deploy("connects", "connects"))
            # The keeper is there before.
            world.until_phase(world.fire("first", "shell", {"command": ["true"]}), "SUCCEEDED", "FAILED")
        with Lack(what):
            names = [world.again(key) for key in keys]
            world.until(
                lambda: len(world.call(lambda: world.worker.dispatching.lacking)) == len(keys), "it lacks something"
            )
            seen = world.call(lambda: dict(world.worker.dispatching.lacking))
            phases = sorted({world.run(name)["phase"] for name in names})
        ended = [world.until_phase(name, "SUCCEEDED", "FAILED") for name in names]
        facts = [
            [run["phase"], run["attempt"], run["lost"], [item["phase"] for item in run["attempts"]]] for run in ended
        ]
        return {"lacking": seen, "phases": phases, "ended": facts}


if __name__ == "__main__":
    answer = main(*sys.argv[1:])
    print("ANSWER " + json.dumps(answer), flush=True)
