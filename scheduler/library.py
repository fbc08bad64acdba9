"""A scheduler inside a program: its triggers are given in Python, its worker runs in a thread.

    with Scheduler(executor=LoggingExecutor(), database="sqlite:///demo.db") as scheduler:
        scheduler.update_schedules([Trigger(project=…, domain=…, task=…, name=…, automation=Cron("* * * * *"))])
        scheduler.catchup_all(max_runs=10)
        scheduler.start()
        scheduler.wait()

It is the worker that `scheduler serve` runs, on the same database, with the same promises; other workers, of programs or
of `serve`, may share that database. What it says goes through structlog, which the program may configure; it opens no
web port.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # before _stop_all is registered: what is registered last is called first
import contextlib
import signal
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, TypedDict

import structlog

from scheduler.app import App, HttpSessions
from scheduler.client import Client, operating_system_user
from scheduler.clock import Clock
from scheduler.reading.database_url import resolve_url
from scheduler.schedules import Trigger, definitions_of
from scheduler.services.deploy import DeployResult
from scheduler.services.deploy_set import deploy_set
from scheduler.services.fire import fire_due
from scheduler.settings import Settings
from scheduler.store.transaction import Store

if TYPE_CHECKING:
    from typing import Unpack

    from executors.protocol import Executor
    from scheduler.loop.worker import Worker

__all__ = ["Scheduler", "Trigger"]

log = structlog.get_logger("scheduler")

_SOURCE: Final = "library"
_ONLY: Final = "default"
# How long a stop that was asked to hurry may take: for what is ended and handed back.
_HURRIED_SECONDS: Final = 10.0


class WorkerKeys(TypedDict, total=False):
    """How the worker behaves: the keys of the settings' section `worker`, durations as `timedelta` or text."""

    name: str
    resync_interval: timedelta | str
    max_concurrent_runs: int
    max_catchup_runs_per_loop: int
    fire_batch: int
    lease: timedelta | str
    max_lost: int
    shutdown_grace: timedelta | str
    misfire_grace: timedelta | str
    max_output_bytes: int


class Scheduler:
    """Fires the program's triggers while it runs, and knows the next time what was missed while it did not.

    `executor` performs all runs; `executors` gives several by name. `database` is a SQLite file or a PostgreSQL URL. Made
    or upgraded by itself is, unless `auto_upgrade` says otherwise, only SQLite.

    All methods may be called from any thread. As a context manager it stops when the block is left, `async with` too.
    """

    def __init__(
        self,
        executor: Executor | None = None,
        *,
        executors: Mapping[str, Executor] | None = None,
        database: str = "sqlite:///scheduler.db",
        auto_upgrade: bool | None = None,
        clock: Clock | None = None,
        **worker: Unpack[WorkerKeys],
    ) -> None:
        """Connects to nothing yet. Raises `ConfigError` with every fault of the settings."""
        named = dict(executors or {}) | ({_ONLY: executor} if executor is not None else {})
        if not named:
            raise TypeError("Scheduler() needs an executor: executor=LoggingExecutor(), or executors={name: …}")
        settings = Settings(database={"url": database, "auto_upgrade": auto_upgrade}, worker=dict(worker), tasks=())
        # A relative file is meant where the program stands now, not where it goes later.
        url = resolve_url(settings.database.url, Path.cwd())
        settings = settings.model_copy(update={"database": settings.database.model_copy(update={"url": url})})
        self._app = App(settings, clock=clock, executors=named)
        self._default = _ONLY if executor is not None else next(iter(named)) if len(named) == 1 else None
        self._guard = threading.Lock()
        self._opening = threading.Lock()
        self._opened: Store | None = None
        self._thread: threading.Thread | None = None
        self._running: tuple[asyncio.AbstractEventLoop, Worker] | None = None
        self._asked = 0
        self._ended = threading.Event()
        self._error: BaseException | None = None

    # --- schedules ---------------------------------------------------------------------------------------------------

    def update_schedules(self, triggers: Iterable[Trigger]) -> list[DeployResult]:
        """Makes these triggers the whole set of the library's, in one transaction; tells what that changed, by task.

        Tasks are made as needed. Triggers that are no longer in the list are deleted, those of manifests and of the API
        stay. The same list again changes nothing: a trigger keeps its position, and so owes what was missed meanwhile. A
        running worker acts on the change at once. Raises `ConfigError` with every fault, `Conflict` where a trigger of
        that name comes from elsewhere.
        """
        definitions = definitions_of(triggers, self._default, self._app.check_task)
        planning = self._app.worker_options().planning
        results = self._store.run(deploy_set, definitions, planning, by=operating_system_user(), source=_SOURCE)
        for result in results:
            if result.applied:
                log.info("deployed", task=result.key, triggers=len(result.created + result.changed + result.unchanged))
            for name, why in result.warnings.items():
                log.warning("fires no more", trigger=f"{result.key}/{name}", because=why)
        self._ring()
        return results

    def catchup_all(self, max_runs: int | None = None) -> list[str]:
        """Decides now what the library's triggers owe, and returns the names of the runs it queued, oldest slot first.

        A worker does the same as soon as it starts; this does it before, or with another cap: of each trigger's slots
        older than the misfire grace the newest `max_runs` are kept (its own `catchup.max_runs` if None), the others are
        skipped, and the ledger says so.
        """
        planning, limit = self._app.worker_options().planning, self._app.settings.worker.fire_batch
        queued: list[tuple[int, str]] = []
        claimed = limit
        while claimed >= limit:
            fired = self._store.run(fire_due, planning, limit=limit, source=_SOURCE, max_runs=max_runs)
            queued += [(run.scheduled_at, run.name) for run in fired.runs]
            claimed = fired.claimed
        if queued:
            log.info("caught up", runs=len(queued))
            self._ring()
        return [name for _, name in sorted(queued)]

    @cached_property
    def client(self) -> Client:
        """For looking at triggers, runs and slots in this scheduler's database."""
        return Client(self._store, planning=self._app.worker_options().planning, create_projects=True)

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the worker in a thread of its own and returns; what goes wrong in it is raised by `wait` and `stop`.

        Called from the main thread, SIGTERM and SIGHUP from now on end the program as Ctrl-C does, draining, unless the
        program handles them itself. A program that ends without `stop` hands back at once what runs.
        """
        self._store  # noqa: B018  # a database that cannot be used is the caller's to know, now
        with self._guard:
            if self._asked:
                raise RuntimeError("this Scheduler was stopped: make another one")
            if self._thread is not None:
                raise RuntimeError("this Scheduler was started already")
            # A daemon, so that a program that ends without stop() ends: _stop_all hands back what ran.
            self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
            _started.add(self)
        _end_on_signals()
        self._thread.start()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Returns once the scheduler was stopped, by `stop`, Ctrl-C or SIGTERM, and has drained; raises what it died of.

        False if it is still running after `timeout`.
        """
        if self._thread is None:
            raise RuntimeError("nothing to wait for: call start() first")
        try:
            if not self._ended.wait(None if timeout is None else timeout.total_seconds()):
                return False
        except (KeyboardInterrupt, _Terminated):
            log.info("stopping")
        self.stop()
        return True

    def stop(self) -> None:
        """Takes nothing new, lets running work finish within `shutdown_grace`, hands back the rest, and closes.

        A Ctrl-C or SIGTERM meanwhile hands back at once, and so do further ones, which are not raised. Called by an
        executor, on the worker's own thread, it only asks. Raises what the worker died of, once.
        """
        self._ask_to_stop()
        if threading.current_thread() is self._thread:
            return
        if self._thread is not None:
            if not self._until_ended():
                log.error("still not stopped: left as it is", after_seconds=_HURRIED_SECONDS)
                return
            self._thread.join()
            _default_signals()
        with self._opening:
            if self._opened is not None:
                self._opened.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except Exception as died:
            if kind is None:
                raise
            log.error("the worker had died", error=repr(died))  # The block's own error matters more.

    async def __aenter__(self) -> Scheduler:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # --- the worker's thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            log.error("the worker died", error=repr(error))
            self._error = error
        finally:
            self._ended.set()

    async def _live(self) -> None:
        sessions = HttpSessions()
        worker = self._app.make_worker(self._store, self._app.build_executors(), sessions)
        with self._guard:
            self._running = asyncio.get_running_loop(), worker
            for _ in range(self._asked):
                worker.stop()
        try:
            await worker.run()
        finally:
            with self._guard:
                self._running = None
            await sessions.close()

    def _ask_to_stop(self, *, at_once: bool = False) -> None:
        # However many threads ask, the worker drains; only who asks for it makes it stop at once.
        wanted = 2 if at_once else 1
        with self._guard:
            missing, self._asked = wanted - self._asked, max(wanted, self._asked)
            if self._running is not None:
                loop, worker = self._running
                for _ in range(missing):
                    loop.call_soon_threadsafe(worker.stop)

    def _until_ended(self, *, at_once: bool = False) -> bool:
        # Not by Thread.join(): interrupted, Python 3.11 takes the thread for ended while it runs.
        give_up: float | None = None
        while True:
            try:
                if at_once and give_up is None:
                    give_up = time.monotonic() + _HURRIED_SECONDS
                    self._ask_to_stop(at_once=True)
                return self._ended.wait(None if give_up is None else give_up - time.monotonic())
            except (KeyboardInterrupt, _Terminated):
                at_once = True

    def _end_with_program(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            log.info("stopping", because="the program ends")
            self._until_ended(at_once=True)

    def _ring(self) -> None:
        with self._guard:
            if self._running is not None:
                loop, worker = self._running
                loop.call_soon_threadsafe(worker.firing.look_around)
                loop.call_soon_threadsafe(worker.dispatching.bell.ring)

    @property
    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                store = self._app.open_store()
                with _closed_on_error(store):
                    self._app.prepare(store)
                self._opened = store
            return self._opened


class _Terminated(SystemExit):
    """SIGTERM or SIGHUP: like Ctrl-C it interrupts the main thread, and unlike it, it leaves no traceback."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated(128 + number)


def _end_on_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            if signal.getsignal(name) is signal.SIG_DFL:
                signal.signal(name, _terminate)


def _default_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            if signal.getsignal(name) is _terminate:
                signal.signal(name, signal.SIG_DFL)


def _stop_all() -> None:
    for scheduler in list(_started):
        scheduler._end_with_program()


_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_started: weakref.WeakSet[Scheduler] = weakref.WeakSet()
# atexit is too late: by then no pool starts anything any more, and a run is handed back by a thread of a pool.
threading._register_atexit(_stop_all)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _closed_on_error(store: Store) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.close()
        raise
