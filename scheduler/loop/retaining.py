"""Forgetting old history, a small batch at a time, in the gaps between what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from scheduler.domain.instants import SECOND
from scheduler.errors import StoreUnavailable
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.retain import BATCH, Retained, RetentionRules, retain
from scheduler.services.specs import Orphans, collect_orphan_specs, find_orphan_specs
from scheduler.store.transaction import Store

log = structlog.get_logger("scheduler.retaining")

_SPECS_BATCH = 500
# What comes due during a batch waits for it. So long shall one take at first, and so long where all of it takes too long:
# a larger batch takes less time a run.
_BATCH_SECONDS, _LARGE_BATCH_SECONDS = 0.015, 0.05
_FIRST_BATCH = 100
_LEAST_BATCH = 50
# One begins where nothing is decided for twice as long. Where there is no such gap it is not waited for without end: at
# first a hundredth of the time is used, and more the longer all of it takes, up to a fifth.
_CALM = 2.0
_GENTLE, _HURRIED = 99.0, 4.0
_LEAST_REST_SECONDS, _LONGEST_REST_SECONDS = 0.02, 10.0
_GLANCE_SECONDS = 0.01


class Retaining:
    """Removes history that is over its age; one worker of all does. `calm` says for how many seconds nothing comes due."""

    def __init__(self, transactions: Transactions, rules: RetentionRules, *, calm: Callable[[], float]) -> None:
        self._transactions = transactions
        self._rules = rules
        self._calm = calm
        self._limit = _FIRST_BATCH
        self.bell = Doorbell()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Goes once through all history, resting between batches, unless another worker does or it is not time yet."""
        loop = asyncio.get_running_loop()
        total, started = Retained(), loop.time()
        while not total.ended:
            began = loop.time()
            hurry = min(1.0, (began - started) * SECOND / self._rules.interval)
            aim = _BATCH_SECONDS + hurry * (_LARGE_BATCH_SECONDS - _BATCH_SECONDS)
            done = await self._transactions.run(retain, self._rules, self._limit, total.window)
            if done is None:
                break
            took = loop.time() - began
            total = total.then(done)
            if done.runs:
                await self._transactions.aside(Store.settle)
                self._limit = max(_LEAST_BATCH, min(BATCH, int(self._limit * min(2.0, aim / took))))
            await self._rest(took, hurry, _CALM * aim)
        specs = await self._collect_specs() if total.ended else 0
        if total.runs or total.revisions or total.backfills or specs:
            log.info(
                "old history is removed",
                runs=total.runs,
                revisions=total.revisions,
                backfills=total.backfills,
                specs=specs,
            )

    async def _rest(self, took: float, hurry: float, enough: float) -> None:
        """Until the next batch: `took` is how long one takes, `enough` how long a gap it needs, in seconds.

        `hurry` grows from 0 to 1 while all of it goes on.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(_LONGEST_REST_SECONDS, took * max(_HURRIED, _GENTLE * (1 - hurry)))
        await asyncio.sleep(max(_LEAST_REST_SECONDS, took))
        while True:
            left, calm = end - loop.time(), self._calm()
            if left <= 0 or calm >= enough:
                return
            await asyncio.sleep(min(left, max(_GLANCE_SECONDS, calm)))

    async def _collect_specs(self) -> int:
        try:
            found = await self._transactions.aside(_orphan_specs)
        except StoreUnavailable:
            return 0  # The next time will do.
        return await self._transactions.run(collect_orphan_specs, found) if found.pinned or found.free else 0


def _orphan_specs(store: Store) -> Orphans:
    with store.read() as tx, tx.dialect.long_statements(tx.connection):
        return find_orphan_specs(tx, _SPECS_BATCH)
