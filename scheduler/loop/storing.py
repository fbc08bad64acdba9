"""Writing down how waits stand: in groups, only what has changed, and again where writing failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from scheduler.loop.doorbell import Doorbell
from scheduler.loop.held_wait import HeldWait
from scheduler.loop.transactions import Transactions
from scheduler.services.resume import PutBack, put_back
from scheduler.services.watch import write_waits
from scheduler.store.waits import WaitKey

log = structlog.get_logger("scheduler.waiting")

_GROUPED_SECONDS: Final = 0.2


class Storing:
    """What a worker has yet to store of its waits."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        stored: Callable[[HeldWait], None],
        lost: Callable[[HeldWait], None],
        not_ours: Callable[[HeldWait], None],
        queued: Callable[[], None],
    ) -> None:
        """`stored`, `lost` and `not_ours` (the job is another run's) are told of every wait; `queued` of runs put back."""
        self._transactions = transactions
        self._stored = stored
        self._lost = lost
        self._not_ours = not_ours
        self._queued = queued
        self._changed: dict[WaitKey, HeldWait] = {}
        self._new_jobs: dict[str, str] = {}
        self._put_back: dict[WaitKey, tuple[HeldWait, PutBack]] = {}
        self._urgent = asyncio.Event()
        self._bell = Doorbell()
        self.incarnation = ""
        self.written = 0

    def change(self, held: HeldWait, *, urgent: bool = False, new_job: bool = False) -> None:
        """The wait is to be stored: soon, together with others, or at once."""
        self._changed[held.key] = held
        if new_job:
            self._new_jobs[held.name] = held.execution.run.executor
        self._ring(urgent)

    def put_back(self, held: HeldWait, item: PutBack) -> None:
        """The run is to be queued again, its wait is over."""
        self._changed.pop(held.key, None)
        self._put_back[held.key] = held, item
        self._ring(urgent=True)

    def drop(self, held: HeldWait) -> None:
        """Nothing is to be stored of the wait any more."""
        self._changed.pop(held.key, None)
        self._put_back.pop(held.key, None)
        self._new_jobs.pop(held.name, None)

    def pending(self, key: WaitKey) -> bool:
        """Whether something is yet to be stored of the wait."""
        return key in self._changed or key in self._put_back

    def clear(self) -> None:
        """Forgets whatever was to be stored."""
        self._changed.clear()
        self._put_back.clear()
        self._new_jobs.clear()

    async def run_forever(self) -> None:
        """Stores what has changed, group by group, until cancelled."""
        while True:
            await self._bell.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GROUPED_SECONDS):
                    await self._urgent.wait()
            self._urgent.clear()
            await self.flush()

    async def flush(self) -> None:
        """Stores all that has changed so far."""
        while self._changed or self._put_back:
            await self._write()
            await self._queue_again()

    def _ring(self, urgent: bool) -> None:
        if urgent:
            self._urgent.set()
        self._bell.ring()

    async def _write(self) -> None:
        if not self._changed:
            return
        batch, self._changed = self._changed, {}
        jobs, self._new_jobs = self._new_jobs, {}
        states = [held.to_state() for held in batch.values()]
        try:
            written = await self._transactions.run(write_waits, states, jobs, self.incarnation)
        except BaseException:
            # A batch whose writing failed is written with the next; what changed since is newer.
            self._changed = batch | self._changed
            self._new_jobs = jobs | self._new_jobs
            self._bell.ring()
            raise
        self.written += len(written.held)
        for key, held in batch.items():
            if held.name in written.conflicts:
                self._not_ours(held)
            elif key not in written.held:
                self._lost(held)
            elif key not in self._changed:
                self._stored(held)

    async def _queue_again(self) -> None:
        if not self._put_back:
            return
        batch, self._put_back = self._put_back, {}
        try:
            queued = await self._transactions.run(put_back, [item for _, item in batch.values()], self.incarnation)
        except BaseException:
            self._put_back = batch | self._put_back
            self._bell.ring()
            raise
        for key, (held, _) in batch.items():
            self._lost(held)
            if key in queued:
                log.warning("no job was made, it is submitted again", run=held.name, error=held.last_error)
        self._queued()
