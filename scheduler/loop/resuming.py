"""The instants that deferred runs wait for: nothing is kept here, the database knows who is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from scheduler.domain.instants import Micros
from scheduler.loop.beats import Beats
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.finishing import Finishing
from scheduler.loop.transactions import Transactions
from scheduler.services.plan import Planning
from scheduler.services.resume import next_until_at, resume_due
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.waiting")

_BATCH: Final = 500


class Resuming:
    """Queues deferred runs whose instant has come, and ends those whose time is over or whose end somebody wants."""

    def __init__(
        self, transactions: Transactions, beats: Beats, finishing: Finishing, planning: Planning, *, worker: str
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self._finishing = finishing
        self._planning = planning
        self._worker = worker
        self.incarnation = ""
        self.bell = Doorbell()
        self.on_queued: Callable[[], None] | None = None
        self.resumed = 0

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Does what is due, batch by batch, and arms the alarm for the next instant."""
        more = True
        while more:
            due = await self._transactions.run(resume_due, _BATCH, self.incarnation, self._worker, self._planning)
            more = due.more
            self.resumed += len(due.resumed)
            if due.finished is not None:
                self._finishing.tell(due.ended, due.finished)
            for name in due.resumed:
                log.info("goes on", run=name)
            if due.resumed and self.on_queued is not None:
                self.on_queued()
        self._beats.alarm("resume", await self._transactions.run(_until_next), self.bell.ring)


def _until_next(tx: Transaction) -> Micros | None:
    at = next_until_at(tx)
    return None if at is None else max(0, at - tx.now())
