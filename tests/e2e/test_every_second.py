"""A minute of every second, through every executor there is; and what a target's answers make of runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from scheduler.domain.instants import SECOND
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import World, assert_every_second_once, marking, marks, task

EXECUTORS = {name: {"use": name} for name in ("shell", "python", "http", "logging")}
FUNCTIONS = '''
"""What the tasks call; every call leaves its key in a file."""

def _mark(file, run):
    with open(file, "a") as marks:
        marks.write(f"start {run.key}\\n")

def sync(file, run):
    _mark(file, run)
    return {"slot": run.scheduled_at.isoformat()}

async def asynchronous(file, run):
    _mark(file, run)
    return {"slot": run.scheduled_at.isoformat()}
'''


class Target:
    """A loopback server that writes down the key of every request before it answers by the given behaviours."""

    def __init__(self, *behaviours: str) -> None:
        self._behaviours = behaviours
        self.keys: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The n-th request for a slot gets the n-th behaviour, the last one for all that follow."""
        key = request.headers["Idempotency-Key"]
        await request.read()
        self.keys.append(key)
        seen = sum(slot_part(other) == slot_part(key) for other in self.keys)
        match self._behaviours[min(seen, len(self._behaviours)) - 1] if self._behaviours else "200":
            case "hangs":
                await asyncio.sleep(30)
            case "resets":
                assert request.transport is not None
                request.transport.abort()
            case status:
                return web.Response(status=int(status), text="said")
        return web.Response(status=200)


def slot_part(key: str) -> str:
    """The run's name within a key: what follows it counts attempts whose end was known."""
    return "-".join(key.split("-")[:3])


@contextmanager
def serving(*behaviours: str) -> Iterator[Target]:
    """The target, on a port of its own, in a thread of its own."""
    target = Target(*behaviours)
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/", target.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
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


@pytest.mark.heavy
def test_a_minute_of_every_second_gives_sixty_runs_through_every_executor_each_key_once(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    files = {name: tmp_path / f"{name}.marks" for name in ("shell", "process", "thread", "async")}

    def call(name: str, function: str, **config: str) -> dict[str, object]:
        return task(name, "python", {"callable": f"functions:{function}", "args": {"file": str(files[name])}, **config})

    with serving() as target:
        world = new_world(
            sqlite_url,
            [
                marking("shell", files["shell"]),
                call("process", "sync"),
                call("thread", "sync", **{"in": "thread"}),
                call("async", "asynchronous"),
                task("http", "http", {"url": target.url}),
            ],
            executors={**EXECUTORS, "python": {"use": "python", "options": {"path": [str(tmp_path)]}}},
        )
        with world.worker() as worker:
            names = ("shell", "process", "thread", "async", "http")
            world.until(
                lambda: all(len(world.runs(name, "SUCCEEDED")) >= 60 for name in names), "sixty runs of each", 100
            )
            assert worker.stop() == 0

    for name in names:
        ledger = world.ledger(name)
        slots = assert_every_second_once(ledger)
        assert len(slots) >= 60
        assert {entry.get("phase", "skipped") for entry in ledger} == {"SUCCEEDED"}, name
        keys = Counter(target.keys) if name == "http" else marks(files[name])
        assert keys == {run["name"]: 1 for run in world.runs(name)}, name


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("behaviours", "phase", "keys"),
    [
        pytest.param(("503", "200"), "SUCCEEDED", ["", "-2"], id="an error answer is known: a new key"),
        pytest.param(("502", "200"), "SUCCEEDED", ["", ""], id="a gateway's error is not: the same key"),
        pytest.param(("resets", "200"), "SUCCEEDED", ["", ""], id="nor is a broken connection: the same key"),
        pytest.param(("hangs", "200"), "SUCCEEDED", ["", ""], id="nor is silence: the same key"),
        pytest.param(("resets", "503", "200"), "SUCCEEDED", ["", "", "-2"], id="only known ends are counted"),
        pytest.param(("503",), "FAILED", ["", "-2", "-3"], id="when the attempts are used up the run fails"),
        pytest.param(("404",), "FAILED", [""], id="what cannot get better is not tried again"),
    ],
)
def test_a_run_is_tried_again_as_its_retries_say(
    behaviours: tuple[str, ...], phase: str, keys: list[str], new_world: NewWorld, sqlite_url: str
) -> None:
    with serving(*behaviours) as target:
        world = new_world(
            sqlite_url,
            [
                task(
                    "call",
                    "http",
                    {"url": target.url, "timeout": "2s"},
                    retries={"max_attempts": 3, "initial": "200ms", "multiplier": 1},
                    trigger={"every": "1s", "max_fires": 2},
                )
            ],
            executors=EXECUTORS,
        )
        with world.worker() as worker:
            world.until(lambda: len(world.runs("call", phase)) == 2, f"two runs have {phase}", 40)
            time.sleep(1)
            assert worker.stop() == 0

    for run in world.runs("call"):
        name = run["name"]
        assert [key for key in target.keys if key.startswith(name)] == [name + suffix for suffix in keys]
        assert run["attempt"] == len(keys)


@pytest.mark.heavy
def test_a_task_that_times_out_is_tried_again_under_the_same_key(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world: World = new_world(
        sqlite_url,
        [
            marking(
                "slow",
                file,
                then='[ "$(grep -c "^start" "$0")" -gt 1 ] || sleep 60',
                timeout="1s",
                retries={"max_attempts": 2, "initial": "100ms"},
                trigger={"every": "1s", "max_fires": 1},
            )
        ],
    )
    with world.worker() as worker:
        world.until(lambda: world.runs("slow", "SUCCEEDED"), "the second attempt has succeeded", 30)
        assert worker.stop() == 0
    (run,) = world.runs("slow")
    assert marks(file, "start") == {run["name"]: 2}
    assert [attempt["phase"] for attempt in world.client.show_run(run["name"])["attempts"]] == [
        "TIMED_OUT",
        "SUCCEEDED",
    ]
    assert run["finished_at"] - run["scheduled_at"] < 20 * SECOND
