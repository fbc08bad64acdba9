"""All about runs that wait outside the worker, in one piece for the worker: who submits, who watches, who resumes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from scheduler.loop.beats import Beats
from scheduler.loop.finishing import Finishing
from scheduler.loop.performing import Performer
from scheduler.loop.resuming import Resuming
from scheduler.loop.submitting import Submitting
from scheduler.loop.transactions import Transactions
from scheduler.loop.waiting import Waiting
from scheduler.services.plan import Planning
from scheduler.services.watch import release_lost_waits, release_waits

log = structlog.get_logger("scheduler.waiting")

_BATCH: Final = 500


class Deferring:
    """`waiting` holds what is looked at, `resuming` minds instants, `submitting` makes jobs."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        performer: Performer,
        finishing: Finishing,
        planning: Planning,
        *,
        worker: str,
        on_queued: Callable[[], None],
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self.waiting = Waiting(transactions, performer, finishing)
        self.submitting = Submitting(transactions, performer, self.waiting)
        self.resuming = Resuming(transactions, beats, finishing, planning, worker=worker)
        self.waiting.on_queued = self.resuming.on_queued = on_queued
        self.waiting.on_until = self.resuming.bell.ring
        finishing.on_deferred = self.waiting.deferred

    @property
    def count(self) -> int:
        """How many waits this worker holds."""
        return self.waiting.count

    def loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """What runs as long as the worker does, by name."""
        return {
            "waiting": self.waiting.run_forever,
            "storing": self.waiting.storing.run_forever,
            "watching time": self.waiting.watch_time,
            "resuming": self.resuming.run_forever,
        }

    async def began(self, incarnation: str) -> None:
        """The worker has a new incarnation: whatever it held before is another's by now, or will be."""
        await self.waiting.begin_anew(incarnation)
        self.resuming.incarnation = incarnation
        await self.waiting.ask_time()

    def look_around(self) -> None:
        """Somebody has written something: an end that is wanted, a wait that is free, an instant."""
        self.waiting.bell.ring()
        self.resuming.bell.ring()

    async def look_after(self) -> None:
        """Frees the waits of workers that are gone, and compares what this one holds with what is stored."""
        released = _BATCH
        while released >= _BATCH:
            released = await self._transactions.run(release_lost_waits, _BATCH)
            if released:
                log.warning("waits of workers that are gone are free", count=released)
        await self.waiting.reconcile()
        self.look_around()

    async def let_go(self) -> None:
        """The worker drains: others may have its waits at once; jobs whose submission is under way come to be stored."""
        await self.waiting.let_go()

    async def leave(self) -> None:
        """Nothing is submitted any more: what is known is stored, and whatever is still held is free."""
        await self.waiting.stop()
        if self.waiting.incarnation:
            await self.waiting.storing.flush()
            await self._transactions.run(release_waits, self.waiting.incarnation)
