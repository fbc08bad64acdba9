"""The worker's pulse, on monotonic time: it renews the lease and notices when a clock jumped.

It depends on no wall clock, so nothing that happens to one can make a living worker look dead to itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from scheduler.clock import Clock
from scheduler.domain.instants import SECOND, Micros
from scheduler.errors import StoreUnavailable
from scheduler.loop.transactions import Transactions
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.heartbeat")

_GUARD_SECONDS = 1.0
_LEAST_WAIT_SECONDS = 2.0
_JUMP: Micros = SECOND


class Heartbeat:
    """Renews a worker's lease at a third of it, and tells whether this worker may judge others."""

    def __init__(
        self,
        transactions: Transactions,
        lease: Micros,
        clock: Clock,
        *,
        on_dead: Callable[[], Awaitable[None]],
        on_jump: Callable[[Micros], None],
    ) -> None:
        self._transactions = transactions
        self._lease = lease
        self._clock = clock
        self._on_dead = on_dead
        self._on_jump = on_jump
        self._steady_since: float | None = None
        self._renewed: float | None = None
        self._next: float | None = None
        self.asking_since: float | None = None
        """Since when a renewal has been asked for in vain; while nobody is answered, only since the last try."""
        self._database: tuple[Micros, float] | None = None
        self.incarnation = ""

    @property
    def may_judge(self) -> bool:
        """Whether this worker has itself renewed for a whole lease without a gap over half of it.

        After a database outage nobody has, so nobody's runs are taken away for having been cut off too.
        """
        loop = asyncio.get_running_loop()
        if self._steady_since is None or self._renewed is None:
            return False
        lease = self._lease / SECOND
        return loop.time() - self._steady_since >= lease and loop.time() - self._renewed <= lease / 2

    @property
    def lag(self) -> float:
        """Seconds since the last renewal."""
        return asyncio.get_running_loop().time() - self._renewed if self._renewed is not None else 0.0

    @property
    def lease_left(self) -> float:
        """Seconds until the lease is over, as far as this worker knows; negative once it is, or while there is none."""
        return self._lease / SECOND - self.lag if self._renewed is not None else -1.0

    @property
    def overdue(self) -> float:
        """By how many seconds the next renewal is late in being asked for; while one is under way, none is."""
        if self.asking_since is not None or self._next is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - self._next)

    def began(self, incarnation: str) -> None:
        """A new incarnation was registered just now."""
        self.incarnation = incarnation
        self._renewed = self._steady_since = asyncio.get_running_loop().time()

    async def renew_forever(self) -> None:
        """Renews at every third of the lease until cancelled."""
        loop = asyncio.get_running_loop()
        pause = self._lease / SECOND / 3
        self.asking_since = None
        while True:
            self._next = loop.time() + pause
            await asyncio.sleep(self._next - loop.time())
            asked = loop.time()
            self.asking_since = self.asking_since or asked
            renewed = await self.run_once()
            others = self._transactions.answered_at is not None and self._transactions.answered_at > asked
            if renewed or not others:
                self.asking_since = None
            # One connection that went silent must not cost the lease: there is time for another try.
            pause = self._lease / SECOND / (3 if renewed else 10)

    async def run_once(self) -> bool:
        """One renewal; a worker that was declared dead is told so and begins anew. False while the database is away."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        within = max(_LEAST_WAIT_SECONDS, self._lease / SECOND / 3)
        try:
            now = await self._transactions.promptly(within, _renew, self.incarnation, self._lease)
        except StoreUnavailable:
            return False  # The gap shows in `may_judge`; the next beat tries again.
        if now is None:
            log.warning("this worker was declared dead: it stops what it no longer holds and begins anew")
            await self._on_dead()
            return True
        gap = asked - (self._renewed if self._renewed is not None else asked)
        if gap > self._lease / SECOND / 2:
            self._steady_since = asked
        self._renewed = loop.time()
        self._watch_database(now, self._renewed)
        return True

    async def guard_forever(self) -> None:
        """Compares the wall clock with the monotonic one every second, and tells when they part by more than one."""
        loop = asyncio.get_running_loop()
        wall, steady = self._clock.now(), loop.time()
        while True:
            await asyncio.sleep(_GUARD_SECONDS)
            moved, elapsed = self._clock.now() - wall, int((loop.time() - steady) * SECOND)
            wall, steady = wall + moved, steady + elapsed / SECOND
            if abs(moved - elapsed) > _JUMP:
                log.warning("the wall clock jumped", seconds=round((moved - elapsed) / SECOND, 1))
                self._on_jump(moved - elapsed)

    def _watch_database(self, now: Micros, at: float) -> None:
        # The database's clock decides what is due; it may jump as any other, and not with ours.
        if self._database is not None:
            before, then = self._database
            jump = (now - before) - int((at - then) * SECOND)
            if abs(jump) > _JUMP + self._lease // 3:
                log.warning("the database's clock jumped", seconds=round(jump / SECOND, 1))
                # Others have not renewed in the new time yet: nobody is judged for a whole lease.
                self._steady_since = at
                self._on_jump(jump)
        self._database = (now, at)


def _renew(tx: Transaction, incarnation: str, lease: Micros) -> Micros | None:
    return tx.workers.renew(incarnation, lease)
