"""A loopback HTTP target that writes down who asked for what, when, and for how long: what really was executed.

with serving() as target:
    task("call", "http", target.config("call", hold=0.2))
    …
    target.keys("call"), target.most_at_once("call")
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

WORKER = "X-Worker"


def http_executor(**more: Any) -> dict[str, Any]:
    """The executor `http` whose requests tell which worker sends them."""
    headers = {WORKER: "${SCHEDULER_WORKER__NAME}"}
    return {"http": {"use": "http", "options": {"headers": headers}, **more}}


@dataclass(slots=True)
class Visit:
    """One request, in seconds of the epoch. `cut`: the other side went away before it had its answer."""

    label: str
    key: str
    worker: str
    arrived: float
    left: float | None = None
    cut: bool = False

    @property
    def answered(self) -> bool:
        """Whether the answer was sent."""
        return self.left is not None and not self.cut


class Target:
    """What was asked for, by label; a label is whatever a task calls itself."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.url = ""

    def config(self, label: str, *, hold: float = 0.0, status: int = 200, **more: Any) -> dict[str, Any]:
        """An `http` task's config: a request under this label, answered with `status` after `hold` seconds."""
        return {"url": f"{self.url}{label}?hold={hold}&status={status}", **more}

    async def answer(self, request: web.Request) -> web.Response:
        """One request."""
        visit = Visit(
            request.match_info["label"],
            request.headers.get("Idempotency-Key", ""),
            request.headers.get(WORKER, ""),
            time.time(),
        )
        self.visits.append(visit)
        try:
            await request.read()
            await asyncio.sleep(float(request.query["hold"]))
        except BaseException:
            visit.cut = True
            raise
        finally:
            visit.left = time.time()
        return web.Response(status=int(request.query["status"]))

    def of(self, label: str) -> list[Visit]:
        """The visits under a label, in the order of their arrival."""
        return [visit for visit in list(self.visits) if visit.label == label]

    def keys(self, label: str) -> Counter[str]:
        """How often each key was seen under a label."""
        return Counter(visit.key for visit in self.of(label))

    def present(self, label: str) -> list[Visit]:
        """The visits that have no end yet."""
        return [visit for visit in self.of(label) if visit.left is None]


def most_at_once(visits: Iterable[Visit]) -> int:
    """How many of these were there together, at most."""
    # At one instant those that leave go first: their ends were written down before the others arrived.
    moves = sorted(
        move for visit in visits for move in ((visit.arrived, 1), (visit.left or time.time(), -1)) if move[0]
    )
    most = present = 0
    for _, change in moves:
        present += change
        most = max(most, present)
    return most


def seconds_spent(visits: Iterable[Visit], since: float, until: float) -> float:
    """The time these spent at the target between two instants, added up."""
    return sum(max(0.0, min(visit.left or until, until) - max(visit.arrived, since)) for visit in visits)


@contextmanager
def serving() -> Iterator[Target]:
    """The target, on a port of its own, in a thread of its own."""
    target = Target()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{label}", target.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        target.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield target
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
