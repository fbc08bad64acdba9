"""A worker's real heartbeat on the world's time: what it believes about its own lease and about others' is its own code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scheduler.domain.instants import SECOND, Micros
from scheduler.loop.heartbeat import Heartbeat
from scheduler.loop.transactions import Transactions
from scheduler.store.transaction import Store

if TYPE_CHECKING:
    from tests.simulation.workers import SimulatedWorker
    from tests.simulation.world import World

T = TypeVar("T")
LEASE: Final = 120 * SECOND
BEAT: Final = LEASE // 3


class Inline(Transactions):
    """Transactions in the caller's thread: a world has one, and nothing in it waits."""

    def __init__(self, store: Store, ask: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(store)
        self._ask = ask

    async def _in_thread(self, work: Callable[[], T], threads: object = None) -> T:
        return self._ask(work)  # type: ignore[no-any-return]


class Pulse:
    """Renews one worker's lease, and keeps a plain record of when that succeeded, to judge the heartbeat by."""

    def __init__(self, world: World, worker: SimulatedWorker) -> None:
        self._world = world
        self._worker = worker
        store = world.store if worker.wall.check is None else world.store.guarded(worker.wall.check)
        self._transactions = Inline(store, world.ask)
        self._heartbeat = Heartbeat(
            self._transactions, LEASE, worker.wall, on_dead=_async(worker.begin_anew), on_jump=worker.clock_jumped
        )
        # When it was registered or renewed, and what the database's clock said whenever it was renewed.
        self._record: list[tuple[Micros, Micros | None]] = []
        self.next_at = 0

    def began(self, incarnation: str) -> None:
        with self._time():
            self._heartbeat.began(incarnation)
        self._record.append((self._world.elapsed, None))
        self._schedule()

    def beat(self) -> None:
        """One renewal, or the attempt at one."""
        before = self._heartbeat.incarnation
        with self._time():
            _finish(self._heartbeat.run_once())
        heard = not self._world.away and self._worker.doubted_at != self._world.elapsed
        if heard and self._heartbeat.incarnation == before:
            self._record.append((self._world.elapsed, self._world.now))
        self._schedule()

    @property
    def may_judge(self) -> bool:
        """The heartbeat's answer, which has to be what the record says."""
        with self._time():
            judges = self._heartbeat.may_judge
        assert judges == self._is_steady(), f"may judge: {judges}, and renewed at {self._record}"
        return judges

    def _is_steady(self) -> bool:
        """Renewed for a whole lease without a gap over half of it; a database clock that jumped begins it anew."""
        now = self._world.elapsed
        since = last = 0
        seen: tuple[Micros, Micros] | None = None
        for at, database in self._record:
            if database is None or at - last > LEASE // 2:
                since = at
            if database is not None:
                if seen is not None and abs((database - seen[1]) - (at - seen[0])) > SECOND + LEASE // 3:
                    since = at
                seen = at, database
            last = at
        return now - last <= LEASE // 2 and now - since >= LEASE

    def _schedule(self) -> None:
        # A timer never rings to the microsecond.
        self.next_at = self._world.elapsed + BEAT + self._world.random.randrange(1, SECOND // 4)

    @contextmanager
    def _time(self) -> Iterator[None]:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(_Ticking(self._world))  # type: ignore[arg-type]
        try:
            yield
        finally:
            asyncio._set_running_loop(before)


class _Ticking:
    """All that a heartbeat asks of its event loop: the monotonic time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return self._world.elapsed / SECOND


def _async(callback: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def called() -> None:
        callback()

    return called


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a heartbeat waits for nothing here")
