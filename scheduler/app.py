"""The composition root: from settings to a store, a client, executors, a running worker. Nothing else wires parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import structlog

from scheduler.client import Client
from scheduler.clock import Clock
from scheduler.domain.instants import to_micros
from scheduler.domain.occurrences import tzdata_version
from scheduler.errors import ConfigError, Problem, SchemaMismatch, StoreError
from scheduler.reading.database_url import redact_url
from scheduler.services.plan import Planning
from scheduler.services.sync import record_zones
from scheduler.settings import Settings
from scheduler.store.transaction import Store
from scheduler.store.upgrade import SchemaState, require_schema, schema_state, upgrade_schema
from scheduler.store.urls import sqlite_file

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from executors.protocol import Executor
    from scheduler.domain.task import TaskDefinition
    from scheduler.loop.transactions import Transactions
    from scheduler.loop.worker import Worker, WorkerOptions
    from scheduler.manifests import Manifests
    from scheduler.services.deploy import DeployResult
    from scheduler.services.take import Execution

log = structlog.get_logger("scheduler")

_OBJECTS_BETWEEN_SEARCHES: Final = 50_000
_TURN_SECONDS: Final = 0.0005
# After the grace: for what is handed back, for a second of answers under way, and for the logs.
_FORCE_SECONDS: Final = 10.0


@lru_cache(maxsize=1)
def version() -> str:
    """The installed version of this package."""
    try:
        return distribution_version("trigger-scheduler")
    except PackageNotFoundError:
        return "0+unknown"


class App:
    """Everything a process of this package may be asked for, made from its settings."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, executors: Mapping[str, Executor] | None = None
    ) -> None:
        """`executors`, if given, are used as they are instead of those that the settings declare."""
        self.settings = settings
        self._clock = clock
        self._executors = executors

    @classmethod
    def load(cls, config: Path | None = None) -> App:
        """The app that the settings file describes; raises `ConfigError` with every fault."""
        return cls(Settings.load(config))

    # --- the database ------------------------------------------------------------------------------------------------

    def open_store(self) -> Store:
        """The store of the settings' database; nothing is connected to yet."""
        database = self.settings.database
        return Store.open(
            database.url,
            clock=self._clock,
            pool_size=database.pool_size,
            command_timeout=database.command_timeout.total_seconds(),
        )

    def client(self) -> Client:
        """A client for a database that is there: whoever looks or acts never makes one. Raises `StoreError`."""
        store = self.open_store()
        file = sqlite_file(store.engine.url)
        if file is not None and not file.exists():
            raise StoreError(f"there is no database yet at {file}: `scheduler serve` or `scheduler deploy` makes it")
        require_schema(store)
        return self._client(store)

    def deploying_client(self) -> Client:
        """A client for deploys: the embedded database is made or upgraded first."""
        store = self.open_store()
        self.prepare(store)
        client = self._client(store)
        client.ensure_projects(self.settings.projects)
        return client

    def _client(self, store: Store) -> Client:
        settings = self.settings
        return Client(
            store, planning=self._planning, projects=settings.projects, create_projects=settings.create_projects
        )

    def schema_state(self) -> SchemaState:
        """Which schema the database has and which one this code needs."""
        return schema_state(self.open_store())

    def upgrade(self) -> SchemaState:
        """Brings the schema up to date; returns what it was."""
        return upgrade_schema(self.open_store())

    def prepare(self, store: Store) -> None:
        """Makes or upgrades the schema where the settings say so, else raises `SchemaMismatch` unless it fits."""
        if self.settings.database.upgrades_itself:
            upgrade_schema(store)
        else:
            require_schema(store)
        store.run(record_zones, tzdata_version())

    # --- what runs ---------------------------------------------------------------------------------------------------

    def build_executors(self) -> dict[str, Executor]:
        """The declared executors, made with their options; raises `ConfigError` naming every fault of every one."""
        if self._executors is not None:
            return dict(self._executors)
        from executors.errors import ExecutorConfigError, ExecutorNotFound
        from executors.registry import build
        from scheduler.reading.interpolation import interpolate

        built: dict[str, Executor] = {}
        problems: list[Problem] = []
        for name, declared in self.settings.executors.items():
            where = f"executors.{name}"
            options, missing = interpolate(declared.options, os.environ, ("executors", name, "options"))
            problems.extend(missing)
            if missing:
                continue
            try:
                built[name] = build(name, declared.use, options)
            except ExecutorConfigError as error:
                problems.extend(
                    Problem(f"{where}.{path}" if path else where, reason) for path, reason in error.problems
                )
            except ExecutorNotFound as error:
                problems.append(Problem(f"{where}.use", str(error)))
        if problems:
            raise ConfigError(self._source, problems)
        return built

    @cached_property
    def _executor_classes(self) -> dict[str, type[Executor] | None]:
        from executors.errors import ExecutorError
        from executors.registry import resolve

        if self._executors is not None:
            return {name: type(executor) for name, executor in self._executors.items()}
        classes: dict[str, type[Executor] | None] = {}
        for name, declared in self.settings.executors.items():
            try:
                classes[name] = resolve(declared.use, name)
            except ExecutorError:
                classes[name] = None  # Building it says what is wrong; a task that names it is not at fault.
        return classes

    def check_task(self, executor: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with a task's executor and `config`: undeclared, unknown keys, wrong types, unknown placeholders."""
        from executors.registry import check_config
        from executors.schema import nearest
        from executors.templating import check_placeholders

        if executor not in self._executor_classes:
            declared = sorted(self._executor_classes)
            hint = nearest(executor, declared)
            known = ", ".join(declared) or "none"
            where = "declared in the settings' executors" if self._executors is None else "one of the given executors"
            return [Problem("executor", f"{executor!r} is not {where} ({known}){hint}")]
        found = self._executor_classes[executor]
        if found is None:
            return []
        faults = [*check_config(found, config), *check_placeholders(config, inputs)]
        return [Problem(f"config.{path}" if path else "config", reason) for path, reason in faults]

    # --- manifests ---------------------------------------------------------------------------------------------------

    def load_manifests(self, paths: Sequence[Path] | None = None) -> Manifests:
        """The tasks of these files or folders, or of the settings' own; raises `ConfigError` with every fault of all."""
        from scheduler.manifests import load_manifests

        return load_manifests(
            self.settings.tasks if paths is None else paths,
            defaults=self.settings.defaults,
            projects=self.settings.known_projects,
            check_executor=self.check_task,
        )

    def warnings(self, manifests: Manifests) -> list[str]:
        """What settings and manifests ask for that is not in force yet, one text each."""
        return self.settings.not_yet() + manifests.not_yet_enforced()

    def check(self, paths: Sequence[Path] | None = None) -> Manifests:
        """Settings, executors and manifests, all of them; raises `ConfigError` with every fault there is."""
        problems: list[Problem] = []
        try:
            self.build_executors()
        except ConfigError as error:
            problems.extend(_filed(error))
        try:
            manifests = self.load_manifests(paths)
        except ConfigError as error:
            raise ConfigError(self._source, problems + _filed(error)) from None
        if problems:
            raise ConfigError(self._source, problems)
        return manifests

    @property
    def _planning(self) -> Planning:
        worker = self.settings.worker
        return Planning(to_micros(worker.misfire_grace), f"{version()}/{tzdata_version()}")

    @property
    def _source(self) -> str:
        return str(self.settings.source or "settings")

    # --- the worker --------------------------------------------------------------------------------------------------

    def worker_options(self) -> WorkerOptions:
        """How a worker of these settings behaves."""
        from scheduler.loop.worker import WorkerOptions
        from scheduler.services.retain import RetentionRules

        worker, kept = self.settings.worker, self.settings.retention
        return WorkerOptions(
            name=worker.name or "",
            version=version(),
            zones=tzdata_version(),
            resync_interval=worker.resync_interval,
            max_concurrent_runs=worker.max_concurrent_runs,
            max_catchup_runs_per_loop=worker.max_catchup_runs_per_loop,
            fire_batch=worker.fire_batch,
            lease=worker.lease,
            max_lost=worker.max_lost,
            shutdown_grace=worker.shutdown_grace,
            misfire_grace=worker.misfire_grace,
            max_output_bytes=worker.max_output_bytes,
            # A clock that somebody handed in may say what it likes.
            max_clock_jump=worker.max_clock_jump if self._clock is None else None,
            retention=RetentionRules(to_micros(kept.runs), kept.runs_per_trigger, to_micros(kept.revisions)),
        )

    def serve(self) -> int:
        """Runs the worker until SIGTERM or SIGINT; returns the exit code. Raises `ConfigError` before anything starts."""
        from scheduler import logs

        manifests = self.check()
        executors = self.build_executors()
        logs.configure(self.settings.logs.format, self.settings.logs.level)
        for warning in self.warnings(manifests):
            log.warning("not in force", what=warning)
        # What is loaded by now stays, and a run leaves no circles behind: searching for some at every few hundred objects
        # would cost a busy worker a tenth of its time.
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, 20, 20)
        # A thread that comes back from the database waits for its turn no longer than that, however busy the event loop.
        sys.setswitchinterval(_TURN_SECONDS)
        try:
            return asyncio.run(self._serve(executors, manifests))
        finally:
            # It has stopped: who asks once more gets no other exit code while Python ends.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            logs.drain()

    async def _serve(self, executors: Mapping[str, Executor], manifests: Manifests) -> int:
        from scheduler import logs

        store = self.open_store()
        sessions = HttpSessions()

        async def before_start(transactions: Transactions) -> None:
            client = self._client(transactions.store)
            await transactions.patiently(lambda: self.prepare(store))
            await transactions.patiently(lambda: client.ensure_projects(self.settings.projects))
            for definition in manifests.definitions:
                deploy = partial(_deploy_at_start, client, definition)
                result = await transactions.patiently(deploy)
                if result.applied:
                    log.info("deployed", task=result.key, version=result.version)
                for name, why in result.warnings.items():
                    log.warning("fires no more", trigger=f"{result.key}/{name}", because=why)

        worker = self.make_worker(store, executors, sessions, before_start)
        _stop_on_signals(worker.stop, self.settings.worker.shutdown_grace.total_seconds())
        try:
            async with self._observed(worker, store, executors):
                await worker.run()
        except SchemaMismatch as error:
            log.error("refused to start", error=str(error))
            print(error, file=sys.stderr)  # noqa: T201  # the command to run, plainly, not as a log event
            return 1
        finally:
            await sessions.close()
            store.close()
        if worker.performer.abandoned or worker.dispatching.running or worker.transactions.hanging:
            # Threads cannot be stopped; waiting for them would keep the process from ever ending.
            log.warning("leaving by force: code that was asked to end is still running")
            logs.drain()
            os._exit(0)
        return 0

    @contextlib.asynccontextmanager
    async def _observed(self, worker: Worker, store: Store, executors: Collection[str]) -> AsyncIterator[None]:
        """The worker's health and figures, over HTTP, while the block lasts; nothing where `web.enabled` is false."""
        web, tokens = self.settings.web, self.settings.auth.tokens
        if not web.enabled:
            yield
            return
        # Some ten megabytes and a fifth of a second: for workers with a web port alone.
        from scheduler import logs
        from scheduler.loop.health import Health
        from scheduler.loop.lag import LoopLag
        from scheduler.loop.sampling import Sampling
        from scheduler.metrics import Metrics
        from scheduler.web.app import make_app
        from scheduler.web.auth import Caller
        from scheduler.web.health import health_router
        from scheduler.web.server import WebServer

        options = self.worker_options()
        metrics = Metrics(
            executors=executors,
            lease_seconds=options.lease.total_seconds(),
            places=options.max_concurrent_runs,
            worker=worker.name,
            version=options.version,
            zones=options.zones,
            database=store.dialect.name,
            python=platform.python_version(),
        )
        lag = LoopLag(metrics.lagged)
        sampling = Sampling(worker.transactions, worker.beats, executors, metrics.sampled)
        health = Health(worker, lag, sampling, lease=options.lease)
        metrics.follow(worker, health, sampling)
        metrics.count_dropped_lines(logs.dropped)
        callers = [Caller(token.name, token.role, token.sha256) for token in tokens]
        app = make_app(health_router(health, metrics.render), callers=callers)
        server = WebServer(app, web.host, web.port, loopback_only=not tokens)
        store.watcher = metrics
        loops = [asyncio.create_task(lag.run_forever()), asyncio.create_task(sampling.run_forever())]
        await server.start()
        try:
            yield
        finally:
            await server.stop()
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    def make_worker(
        self,
        store: Store,
        executors: Mapping[str, Executor],
        sessions: HttpSessions,
        before_start: Callable[[Transactions], Awaitable[None]] | None = None,
    ) -> Worker:
        """A worker of these settings on a store, to be run on the event loop that calls this."""
        # Listings come through this module too, and need neither the loops nor their clockwork.
        from scheduler.loop.places import Rate
        from scheduler.loop.worker import Worker

        options = self.worker_options()

        def on_ready() -> None:
            log.info(
                "ready",
                version=options.version,
                database=redact_url(store.engine.url.render_as_string(hide_password=True)),
                zones=options.zones,
                executors=", ".join(sorted(executors)),
            )

        return Worker(
            store,
            executors,
            options,
            prepare=prepare_config,
            limits={
                name: declared.max_concurrent_runs
                for name, declared in self.settings.executors.items()
                if declared.max_concurrent_runs is not None
            },
            rates={
                name: Rate(declared.rate_limit.per_second, declared.rate_limit.burst)
                for name, declared in self.settings.executors.items()
                if declared.rate_limit is not None
            },
            clock=self._clock,
            on_ready=on_ready,
            http_session=sessions.get,
            before_start=before_start,
            secrets=self._secrets(),
            hidden_env=frozenset(secret.env for secret in self.settings.secrets.values()),
            announce=lambda: Client(store, planning=options.planning).upcoming(5),
        )

    def _secrets(self) -> dict[str, str]:
        return {
            name: os.environ[secret.env] for name, secret in self.settings.secrets.items() if secret.env in os.environ
        }


def _stop_on_signals(stop: Callable[[], None], grace_seconds: float) -> None:
    """SIGTERM, SIGINT and SIGHUP call `stop` on the running loop; a while after the grace the process is ended by force.

    The handlers are Python's and not the loop's: a loop that is blocked would never call its own.
    """
    from scheduler import logs

    loop = asyncio.get_running_loop()
    waiting: list[threading.Timer] = []

    def leave_by_force() -> None:
        from scheduler.loop.still_running import tasks_running, threads_running

        log.error(
            "leaving by force: still not stopped",
            after_seconds=grace_seconds + _FORCE_SECONDS,
            tasks=tasks_running(loop),
            threads=threads_running(),
        )
        logs.drain()
        os._exit(1)

    def asked(number: int, frame: FrameType | None) -> None:
        if not waiting:
            waiting.append(threading.Timer(grace_seconds + _FORCE_SECONDS, leave_by_force))
            waiting[0].daemon = True
            waiting[0].start()
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(stop)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, asked)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, asked)


def prepare_config(executor: Executor, execution: Execution) -> Any:
    """The config of one execution as its executor gets it: placeholders filled, checked, made a `Config`."""
    from executors.registry import filled_config
    from executors.templating import placeholders
    from scheduler.domain.instants import to_datetime

    run = execution.run
    values = placeholders(
        inputs=execution.inputs,
        run_name=run.name,
        key=execution.key,
        scheduled_at=None if run.scheduled_at is None else to_datetime(run.scheduled_at),
    )
    return filled_config(type(executor), execution.spec.config, values)


def _deploy_at_start(client: Client, definition: TaskDefinition) -> DeployResult:
    return next(client.deploy([definition], at_start=True))


def _filed(error: ConfigError) -> list[Problem]:
    return [Problem(problem.where, problem.reason, problem.file or error.path) for problem in error.problems]


class HttpSessions:
    """One HTTP session for all executors of a worker, made when the first of them asks."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None

    def get(self) -> ClientSession:
        """The session; call it on the event loop."""
        if self._session is None:
            from executors.http_client import new_session

            self._session = new_session()
        return self._session

    async def close(self) -> None:
        """Closes it, if any was made."""
        if self._session is not None:
            await self._session.close()
