"""What has time: moving backfills on, and forgetting old history. Neither holds up what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from scheduler.errors import StoreUnavailable
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.backfill_steps import BackfillStep, advance_backfill, backfills_under_way, fail_backfill
from scheduler.services.retain import Retained, RetentionRules, retain
from scheduler.services.specs import collect_orphan_specs, find_orphan_specs
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.housekeeping")

_SPECS_BATCH = 500
# After a batch the loop rests this many times as long as the batch took, and no less than a moment: what is due comes first.
_REST = 4.0
_LEAST_REST_SECONDS = 0.02


class Backfilling:
    """Queues the next runs of backfills whenever some may be: after an order, when one of their runs has ended."""

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


class Retaining:
    """Removes history that is over its age, a small batch at a time; one worker of all does."""

    def __init__(self, transactions: Transactions, rules: RetentionRules) -> None:
        self._transactions = transactions
        self._rules = rules
        self.bell = Doorbell()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Goes once through all history, resting between batches, unless another worker does or it is not time yet."""
        total = Retained()
        loop = asyncio.get_running_loop()
        while not total.ended:
            began = loop.time()
            done = await self._transactions.run(_retain, self._rules)
            if done is None:
                break
            total = Retained(
                total.runs + done.runs, total.revisions + done.revisions, total.backfills + done.backfills, done.ended
            )
            await asyncio.sleep(max(_LEAST_REST_SECONDS, (loop.time() - began) * _REST))
        specs = await self._collect_specs() if total.ended else 0
        if total.runs or total.revisions or total.backfills or specs:
            log.info(
                "old history is removed",
                runs=total.runs,
                revisions=total.revisions,
                backfills=total.backfills,
                specs=specs,
            )

    async def _collect_specs(self) -> int:
        try:
            found = await self._transactions.read(find_orphan_specs, _SPECS_BATCH)
        except StoreUnavailable:
            return 0  # The next time will do.
        return await self._transactions.run(collect_orphan_specs, found) if found.pinned or found.free else 0


def _report(step: BackfillStep) -> None:
    if step.queued:
        log.debug("backfilled", backfill=step.number, trigger=step.trigger, runs=step.queued)
    if step.note is not None or step.state.over:
        detail = {"why": step.note} if step.note is not None else {}
        log.info("a backfill ends", backfill=step.number, trigger=step.trigger, state=str(step.state), **detail)


def _retain(tx: Transaction, rules: RetentionRules) -> Retained | None:
    return retain(tx, rules)
