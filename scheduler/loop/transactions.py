"""From the event loop to the database: one thread hop a transaction, and patience while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from scheduler.errors import ClockJumped, StoreUnavailable
from scheduler.store.transaction import Store, Transaction

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger("scheduler.database")

_CHORES = 2
_BREAK_SECONDS = 1.0


class Transactions:
    """Runs services in transactions of one store, off the event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # SQLite has one writer however many threads ask; PostgreSQL's heartbeat must not queue behind large batches.
        one_writer = store.dialect.name == "sqlite"
        self.abreast = 1 if one_writer else 2
        """How many large transactions are worth having under way at once."""
        self._threads = ThreadPoolExecutor(1 if one_writer else self.abreast + 2, thread_name_prefix="database")
        # Were it one of them, all of which may wait for answers that never come, the lease would be lost meanwhile.
        self._prompt = self._threads if one_writer else ThreadPoolExecutor(1, thread_name_prefix="database heartbeat")
        # Chores have threads of their own, so that no transaction waits for one.
        self._aside = ThreadPoolExecutor(_CHORES, thread_name_prefix="database chore")
        # One that is wanted later might not be had any more.
        _start_all(self._threads)
        _start_all(self._aside)
        self._under_way: set[Future[Any]] = set()
        self._giving_up = _Flag()
        self.degraded_since: float | None = None
        self.trouble = ""
        """What the database said last to work that waits for it; nothing while none does."""
        self._refused: set[object] = set()
        self.answered_at: float | None = None
        self._failed_at: float | None = None

    @property
    def away(self) -> bool:
        """Whether the database was away when it was last asked."""
        return self._failed_at is not None and (self.answered_at is None or self.answered_at < self._failed_at)

    async def run(self, service: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The service's answer; while the database is away, waits with back-off and tries again.

        A transaction whose commit may have been lost on the way is run again, so services are idempotent. Raises
        `StoreUnavailable` only after `give_up`.
        """
        return await self.patiently(lambda: self.store.run(service, *args, **kwargs))

    async def patiently(self, work: Callable[[], T]) -> T:
        """What `work` returns, called in a database thread, and called again while the database is away."""
        try:
            return await self._in_thread(work)
        except StoreUnavailable as error:
            failed: StoreUnavailable | None = error
        # Made only by who has to wait: it leaves circles behind, and a search for those holds up whatever is due.
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(StoreUnavailable),
                wait=wait_exponential(multiplier=0.1, max=5.0) + wait_random(0, 0.2),
                stop=stop_when_event_set(self._giving_up),  # type: ignore[arg-type]
                before_sleep=lambda state: self.refused(work, state.outcome.exception() if state.outcome else None),
                reraise=True,
            ):
                with attempt:
                    if failed is not None:
                        first, failed = failed, None
                        raise first
                    result = await self._in_thread(work)
        finally:
            self.accepted(work)
        return result

    async def once(self, service: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The service's answer, or `StoreUnavailable` at once."""
        return await self._in_thread(lambda: self.store.run(service, *args, **kwargs))

    async def promptly(
        self, within: float, service: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `once`, behind nothing else, and with so many seconds for each statement of PostgreSQL."""

        def work() -> T:
            with self.store.hurried(within):
                return self.store.run(service, *args, **kwargs)

        return await self._in_thread(work, self._prompt)

    async def read(self, service: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a service that only reads, waiting for no writer, or `StoreUnavailable` at once."""

        def work() -> T:
            with self.store.read() as tx:
                return service(tx, *args, **kwargs)

        return await self._in_thread(work)

    async def aside(self, work: Callable[[Store], T]) -> T:
        """What `work` returns, in a thread of its own: for reads and chores so long that no transaction shall wait for them."""
        return await self._called(self._aside, lambda: work(self.store))

    async def _in_thread(self, work: Callable[[], T], threads: ThreadPoolExecutor | None = None) -> T:
        loop = asyncio.get_running_loop()
        try:
            answer = await self._called(threads or self._threads, work)
        except ClockJumped:
            self.answered_at = loop.time()  # It is there; what it says about the time is not believed.
            raise
        except StoreUnavailable:
            self._failed_at = loop.time()
            raise
        self.answered_at = loop.time()
        return answer

    async def _called(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        future = threads.submit(work)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return await asyncio.wrap_future(future)

    @property
    def silent_for(self) -> float:
        """For how many seconds the database has not answered although it is being asked."""
        if not self._under_way or self.answered_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self.answered_at

    @property
    def hanging(self) -> bool:
        """Whether a thread is still in the database, although it was closed: the process must not wait for it."""
        return bool(self._under_way)

    def give_up(self) -> None:
        """From now on a database that is away is not waited for."""
        self._giving_up.set()

    def close(self, patience: float = 2.0) -> None:
        """Ends the threads. What is under way has so many seconds to end, then PostgreSQL is not waited for any longer."""
        for threads in (self._threads, self._prompt, self._aside):
            threads.shutdown(wait=False, cancel_futures=True)
        if wait(set(self._under_way), timeout=patience).not_done:
            with self.store.given_up():
                wait(set(self._under_way), timeout=_BREAK_SECONDS)

    def refused(self, work: object, error: BaseException | None) -> None:
        """The database does not do this work, which waits until it does: degraded while there is any such work."""
        if isinstance(error, ClockJumped):
            return  # Told of by whoever watches the clocks.
        self.trouble = str(error)
        if self.degraded_since is None:
            self.degraded_since = asyncio.get_running_loop().time()
            log.warning("degraded: the database is away, trying again", error=self.trouble)
        self._refused.add(work)

    def accepted(self, work: object) -> None:
        """The work was done, or is no longer wanted."""
        self._refused.discard(work)
        if self.degraded_since is not None and not self._refused:
            away = asyncio.get_running_loop().time() - self.degraded_since
            self.degraded_since, self.trouble = None, ""
            if not self._giving_up.is_set():
                log.info("the database is back", away_seconds=round(away, 1))


def _start_all(pool: ThreadPoolExecutor) -> None:
    """Has all threads of a pool start now."""
    number = pool._max_workers
    together = Barrier(number)
    wait([pool.submit(together.wait) for _ in range(number)])


class _Flag:
    """What tenacity asks whether to stop: an event without a thread's lock."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: Any = None) -> bool:
        return self._set
