"""Moving backfills on: after an order, whenever one of their runs has ended, and whenever the worker looks around."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from scheduler.errors import StoreUnavailable
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.backfill_steps import BackfillStep, advance_backfill, backfills_under_way, fail_backfill

log = structlog.get_logger("scheduler.backfilling")


class Backfilling:
    """Queues the next runs of backfills. `room` says how many runs of each executor may start in this worker."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        room: Callable[[], dict[str, int]],
        on_queued: Callable[[], None],
    ) -> None:
        self._transactions = transactions
        self._room = room
        self._on_queued = on_queued
        self.bell = Doorbell()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Moves every backfill on, a step each in turn, until none has more to do."""
        waiting = await self._transactions.run(backfills_under_way)
        while waiting:
            waiting = [number for number in waiting if await self._step(number)]

    async def _step(self, number: int) -> bool:
        try:
            step = await self._transactions.run(advance_backfill, number, self._room())
        except StoreUnavailable:
            raise
        except Exception as error:
            # One that cannot be moved on must not keep the worker from everything else.
            log.error("a backfill cannot go on", backfill=number, error=str(error))
            await self._transactions.run(fail_backfill, number, error)
            return False
        if step is None:
            return False
        if step.queued:
            self._on_queued()
        _report(step)
        return step.more


def _report(step: BackfillStep) -> None:
    if step.queued:
        log.debug("backfilled", backfill=step.number, trigger=step.trigger, runs=step.queued)
    if step.note is not None or step.state.over:
        detail = {"why": step.note} if step.note is not None else {}
        log.info("a backfill ends", backfill=step.number, trigger=step.trigger, state=str(step.state), **detail)
