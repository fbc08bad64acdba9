"""The store and its transactions: the only way to the database.

`store.begin()` writes, `store.read()` reads, and `store.run(service, …)` is `begin` with the retries that a deadlock or a
serialization failure needs. A transaction knows what time it is: the server's clock on PostgreSQL, the store's `Clock` on
SQLite or wherever one was given.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

from scheduler.clock import Clock, SystemClock
from scheduler.domain.instants import Micros
from scheduler.errors import StoreUnavailable
from scheduler.store.backfills import BackfillTable
from scheduler.store.dialect import Dialect, dialect_of, server_now
from scheduler.store.engine import ANSWER_WITHIN, begin_reading, open_engine
from scheduler.store.failures import TransactionUndoneError, needs_another_connection, translated_errors
from scheduler.store.ledger import LedgerTable
from scheduler.store.listings import ListingTable
from scheduler.store.meta import MetaTable
from scheduler.store.retention import RetentionTable
from scheduler.store.retries import RetryTable
from scheduler.store.runs import RunTable
from scheduler.store.specs import SpecTable
from scheduler.store.tally import Tally, Watcher
from scheduler.store.tasks import TaskTable
from scheduler.store.triggers import TriggerTable
from scheduler.store.waits import WaitTable
from scheduler.store.workers import WorkerTable

P = ParamSpec("P")
T = TypeVar("T")

_DEADLOCK_TRIES: Final = 20
CHANNEL: Final = "trigger_scheduler"
COMMAND_SECONDS: Final = 30.0


class Transaction:
    """One transaction and the tables seen through it; the caller owns it, services never commit."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        clock: Clock | None,
        tally: Tally,
        guard: Callable[[Micros], None] | None = None,
    ) -> None:
        self._guard = guard
        self.connection = connection
        self.dialect = dialect
        self.tally = tally
        self._clock = clock
        self.meta = MetaTable(self)
        self.tasks = TaskTable(self)
        self.specs = SpecTable(self)
        self.triggers = TriggerTable(self)
        self.listings = ListingTable(self)
        self.runs = RunTable(self)
        self.waits = WaitTable(self)
        self.ledger = LedgerTable(self)
        self.workers = WorkerTable(self)
        self.backfills = BackfillTable(self)
        self.retention = RetentionTable(self)
        self.retries = RetryTable(self)

    def now(self) -> Micros:
        """The present instant; ask after the locks are held, for they may have been waited for."""
        if self._clock is not None:
            return self.believed(self._clock.now())
        now = self.dialect.database_now(self.connection)
        assert now is not None  # a dialect without a clock of its own is always given one
        return self.believed(now)

    def believed(self, now: Micros) -> Micros:
        """The instant, if the store's guard believes it; raises `ClockJumped` otherwise."""
        if self._guard is not None:
            self._guard(now)
        return now

    def sql_now(self) -> Any:
        """The present instant as a SQL expression, read by the server once a statement."""
        return server_now(self.dialect, self._clock.now() if self._clock is not None else None)

    def given_now(self) -> dict[str, Micros]:
        """The parameter `now` of a statement made with `asked_now`; nothing where the server is asked for it."""
        return {} if self._clock is None else {"now": self.believed(self._clock.now())}

    def is_on_this_machine(self) -> bool:
        """Whether the clock that `now` asks is that of the machine this process runs on."""
        return self._clock is not None or self.dialect.is_on_this_machine(self.connection)

    def has_tables(self) -> bool:
        """Whether the schema was ever made."""
        return bool(self.connection.dialect.has_table(self.connection, "workers"))

    def notify(self) -> None:
        """Wakes the other workers when this transaction commits (PostgreSQL; elsewhere their sync beat looks)."""
        self.dialect.notify(self.connection, CHANNEL)

    def close(self) -> None:
        """It is over: the store says so. Its tables hold on to it as it does to them, which only the collector would part."""
        vars(self).clear()


class Store:
    """A database of triggers and runs. Threads may share it; each transaction belongs to one."""

    def __init__(self, engine: Engine, clock: Clock | None = None, given_up: threading.Event | None = None) -> None:
        self.engine = engine
        self._given_up = given_up or threading.Event()
        self.dialect = dialect_of(engine)
        # SQLite has no clock worth asking; PostgreSQL's own is the one all workers share.
        self.clock = clock if clock is not None or self.dialect.name == "postgresql" else SystemClock()
        self.guard: Callable[[Micros], None] | None = None
        self._watchers: list[Watcher] = []

    @classmethod
    def open(
        cls, url: str, *, clock: Clock | None = None, pool_size: int = 5, command_timeout: float = COMMAND_SECONDS
    ) -> Store:
        """A store for the URL; nothing is connected to yet.

        PostgreSQL may take `command_timeout` seconds for one statement; then the connection is closed, and the database
        counts as away.
        """
        given_up = threading.Event()
        engine = open_engine(url, pool_size=pool_size, answer_within=command_timeout, given_up=given_up)
        return cls(engine, clock, given_up)

    @property
    def watcher(self) -> Watcher | None:
        """Who counts what is done through this store, and through those that were made of it."""
        return self._watchers[0] if self._watchers else None

    @watcher.setter
    def watcher(self, watcher: Watcher) -> None:
        self._watchers[:] = [watcher]

    def guarded(self, guard: Callable[[Micros], None]) -> Store:
        """The same database, in whose transactions `guard` looks at each present instant, and may raise `ClockJumped`."""
        store = copy.copy(self)
        store.guard = guard
        return store

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that may write; committed at the end of the block, undone if it raises.

        Raises `StoreUnavailable` where the database is away.
        """
        with (
            self._watched() as tally,
            translated_errors(),
            self.engine.begin() as connection,
            contextlib.closing(Transaction(connection, self.dialect, self.clock, tally, self.guard)) as tx,
        ):
            yield tx

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads: on SQLite it waits for no writer."""
        with (
            self._watched() as tally,
            translated_errors(),
            self.engine.connect() as connection,
            begin_reading(connection),
            contextlib.closing(Transaction(connection, self.dialect, self.clock, tally, self.guard)) as tx,
        ):
            yield tx

    def run(
        self,
        service: Callable[Concatenate[Transaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The service's answer, its transaction committed; run again whole after a deadlock.

        Raises `StoreUnavailable` where the database is away.
        """
        for _ in range(_DEADLOCK_TRIES):
            try:
                with self.begin() as tx:
                    return service(tx, *args, **kwargs)
            except TransactionUndoneError:
                continue
        raise StoreUnavailable(f"the transaction was undone {_DEADLOCK_TRIES} times in a row")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[Tally]:
        tally, begun = Tally(), time.perf_counter()
        try:
            yield tally
        except BaseException as error:
            if needs_another_connection(error):
                # Those that are lent out are closed when they come back.
                self.engine.dispose()
            if self.watcher is not None:
                self.watcher.undone(error, time.perf_counter() - begun)
            raise
        if self.watcher is not None:
            self.watcher.committed(tally, time.perf_counter() - begun)

    def settle(self) -> None:
        """After much was written: moves it to where it belongs, in small portions and without holding anyone up."""
        self.dialect.settle(self.engine)

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """In the block, and in this thread, PostgreSQL may take no more than so long for one statement."""
        token = ANSWER_WITHIN.set(seconds)
        try:
            yield
        finally:
            ANSWER_WITHIN.reset(token)

    @contextlib.contextmanager
    def given_up(self) -> Iterator[None]:
        """While the block lasts no answer of PostgreSQL is waited for, in whatever thread: `StoreUnavailable` at once."""
        self._given_up.set()
        try:
            yield
        finally:
            self._given_up.clear()

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()
