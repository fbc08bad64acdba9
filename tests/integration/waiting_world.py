"""A real worker in a thread of this process, and executors whose waits tests can see into.

with WaitingWorld(url, {"airbyte": AirbyteExecutor(airbyte.options)}) as world:
    run = world.fire("sync", "airbyte", {"connection_id": "c", "poll_interval": "50ms"})
    world.until_phase(run, "SUCCEEDED")
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from executors.protocol import Executor
from scheduler.app import App, HttpSessions
from scheduler.client import Client
from scheduler.clock import Clock
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.loop.worker import Worker
from scheduler.services.operate import TriggerKey
from scheduler.settings import Settings
from scheduler.store.transaction import Store

T = TypeVar("T")
PROJECT, DOMAIN = "flytesnacks", "development"


class WaitingWorld:
    """One database and one worker that can be stopped and started again."""

    def __init__(
        self,
        url: str,
        executors: Mapping[str, Executor],
        *,
        settled_after: float = 0.3,
        clock: Clock | None = None,
        **worker: Any,
    ) -> None:
        """`clock` is the worker's own: the database has one of its own."""
        options = {"lease": "2s", "resync_interval": "1s", "shutdown_grace": "5s", **worker}
        self._app = App(Settings(database={"url": url}, worker=options, tasks=()), executors=executors, clock=clock)
        self._executors = executors
        self._settled_after = int(settled_after * 1_000_000)
        self.url = url
        self.store = Store.open(url)
        self.client = Client(self.store, create_projects=True, by="tester")
        self.worker: Worker
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._died: list[BaseException] = []
        self._fired = 0

    def __enter__(self) -> WaitingWorld:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.store.close()

    # --- the worker --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the worker, or another one after a stop, and waits until it takes part."""
        ready = threading.Event()

        def live() -> None:
            with suppress(SystemExit):  # A run may end the loop; the worker's end is noted.
                asyncio.run(self._work(ready))

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()
        assert ready.wait(10), "the worker does not start"

    def stop(self) -> None:
        """Tells the worker to stop, as SIGTERM does, and waits until it has left."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self.worker.stop)
            self._thread.join(30)
            assert not self._thread.is_alive(), "the worker does not end"
            self._thread = None
        assert not self._died, self._died

    def wait_for_death(self, kind: type[BaseException]) -> None:
        """Waits until the worker has died of such an error, as it should."""
        assert self._thread is not None
        self._thread.join(30)
        assert not self._thread.is_alive(), "the worker does not die"
        self._thread = None
        (error,) = self._died
        assert isinstance(error, kind), error
        self._died.clear()

    def call(self, work: Callable[[], T]) -> T:
        """Does something on the worker's loop."""

        async def on_loop() -> T:
            return work()

        return self.await_there(on_loop())

    def await_there(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits something on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _work(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        store, sessions = Store.open(self.url), HttpSessions()
        self.worker = self._app.make_worker(store, self._executors, sessions)
        self.worker.deferring.waiting.looker.settled_after = self._settled_after
        self._loop.call_soon(self._watch, ready)
        try:
            await self.worker.run()
        except BaseException as error:
            self._died.append(error)
        finally:
            ready.set()
            await sessions.close()
            store.close()

    def _watch(self, ready: threading.Event) -> None:
        if self.worker.stage == "working":
            ready.set()
        else:
            self._loop.call_later(0.01, self._watch, ready)

    # --- runs --------------------------------------------------------------------------------------------------------

    def deploy(self, task: str, executor: str, config: Mapping[str, Any] | None = None, **options: Any) -> TriggerKey:
        """A task with one trigger that is fired by hand."""
        spec = TaskSpec(executor, config=dict(config or {}), **options)
        definition = TaskDefinition(PROJECT, DOMAIN, task, "v1", spec, (TriggerSpec("t", None),))
        assert all(result.applied for result in self.client.deploy([definition]))
        return TriggerKey(PROJECT, DOMAIN, task, "t")

    def fire(self, task: str, executor: str, config: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Deploys such a task and fires it once; the run's name."""
        return self.again(self.deploy(task, executor, config, **options))

    def again(self, key: TriggerKey, inputs: Mapping[str, Any] | None = None) -> str:
        """Fires a trigger; the run's name."""
        name: str = self.client.fire(key, inputs=inputs)
        if self._thread is not None:
            # A notice of ours would come with PostgreSQL alone.
            self._loop.call_soon_threadsafe(self.worker.dispatching.bell.ring)
        return name

    def run(self, name: str) -> dict[str, Any]:
        """What `runs show` tells."""
        return self.client.show_run(name)

    def wait_of(self, name: str) -> dict[str, Any] | None:
        """The row of a run's wait."""
        with self.store.read() as tx:
            row = tx.waits.of_run(name)
        return None if row is None else dict(row)

    def until_phase(self, name: str, *phases: str, within: float = 15.0) -> dict[str, Any]:
        """The run as it was seen in one of these phases, in which it need not be any more."""

        def seen() -> dict[str, Any] | None:
            run = self.run(name)
            return run if run["phase"] in phases else None

        found = self.until(seen, f"{name} is {phases}: {self.run(name)}", within)
        assert found is not None
        return found

    def until_waiting(self, name: str, stage: str = "waiting", within: float = 15.0) -> dict[str, Any]:
        """The row of a run's wait, once it is in this stage."""

        def row() -> dict[str, Any] | None:
            found = self.wait_of(name)
            return found if found is not None and found["stage"] == stage else None

        found = self.until(row, f"{name} waits, {stage}: {self.run(name)}", within)
        assert found is not None
        return found

    def until(self, condition: Callable[[], T], what: str, within: float = 15.0) -> T:
        """What the condition says once it is true."""
        end = time.monotonic() + within
        while not (value := condition()):
            assert not self._died, self._died
            assert time.monotonic() < end, f"not within {within:g} s: {what}"
            time.sleep(0.02)
        return value


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
