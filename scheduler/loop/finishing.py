"""Recording how attempts ended, in batches: all that end while one batch is written go into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from scheduler.domain.run import BACKFILLED, Phase
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.defer import Deferral, defer_runs
from scheduler.services.finish import Ended, Finished, finish_runs
from scheduler.services.plan import Planning

log = structlog.get_logger("scheduler.dispatching")

# So many runs of one batch have a line of the log each.
ONE_BY_ONE = 20


class Finishing:
    """The attempts of one worker that have ended and are not recorded yet."""

    def __init__(self, transactions: Transactions, planning: Planning, *, worker: str) -> None:
        self._transactions = transactions
        self._planning = planning
        self._worker = worker
        self._ended: list[Ended] = []
        self._writing = asyncio.Lock()
        self.bell = Doorbell()
        self.refused = 0
        self.on_finished: Callable[[Ended], None] | None = None
        self.on_retry: Callable[[], None] | None = None
        self.on_deferred: Callable[[Deferral], None] | None = None
        self.on_wait_over: Callable[[Ended], None] | None = None
        self.on_backfilled: Callable[[], None] | None = None

    @property
    def pending(self) -> bool:
        """Whether some end is not recorded yet; what is being written may wait for a lock, or for the database."""
        return bool(self._ended) or self._writing.locked()

    @property
    def behind(self) -> int:
        """How many ends wait for their turn to be recorded."""
        return len(self._ended)

    def report(self, ended: Ended) -> None:
        """An attempt has ended."""
        self._ended.append(ended)
        self.bell.ring()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.flush()

    async def flush(self) -> None:
        """Records every attempt that has ended so far."""
        async with self._writing:
            while self._ended:
                batch, self._ended = self._ended, []
                try:
                    while batch:
                        # One kind at a time: what waits is no end, and each has its own order of locks.
                        waits = batch[0].deferral is not None
                        some = [item for item in batch if (item.deferral is not None) is waits]
                        await (self._defer(some) if waits else self._finish(some))
                        batch = [item for item in batch if (item.deferral is not None) is not waits]
                except BaseException:
                    self._ended = batch + self._ended
                    raise

    async def _finish(self, batch: list[Ended]) -> None:
        finished = await self._transactions.run(finish_runs, batch, self._worker, self._planning)
        self.tell(batch, finished)

    def tell(self, batch: Sequence[Ended], finished: Finished) -> None:
        """These ends were recorded, or refused: tells the log, and whoever waits for it."""
        self._refuse(finished.refused)
        for trigger in finished.paused:
            log.warning("a trigger is paused: its runs keep failing", trigger=trigger)
        counted = [item for item in batch if finished.counts(item)] if finished.refused else batch
        told_singly = [item for item in counted if item.phase is not Phase.SUCCEEDED]
        well = len(counted) - len(told_singly)
        if well > ONE_BY_ONE:
            # Thousands a second are told of together: a line each would cost more than what it tells of.
            log.info("finished", runs=well, phase=str(Phase.SUCCEEDED))
        for item in told_singly if well > ONE_BY_ONE else counted:
            _report(item, item.execution.run.name in finished.retried)
        if self.on_wait_over is not None:
            for item in batch:
                if item.waited:
                    self.on_wait_over(item)
        if self.on_finished is not None:
            for item in counted:
                self.on_finished(item)
        if finished.retried and self.on_retry is not None:
            self.on_retry()
        if self.on_backfilled is not None and any(item.execution.run.kind in BACKFILLED for item in batch):
            self.on_backfilled()

    async def _defer(self, batch: list[Ended]) -> None:
        by_owner: dict[str, list[Deferral]] = {}
        for item in batch:
            if item.deferral is not None:
                by_owner.setdefault(item.execution.run.owner, []).append(item.deferral)
        for owner, deferrals in by_owner.items():
            begun = await self._transactions.run(defer_runs, deferrals, owner)
            self._refuse(tuple(deferral.key[0] for deferral in deferrals if deferral.key not in begun))
            for deferral in deferrals:
                if deferral.key not in begun:
                    continue
                why = begun[deferral.key]
                if why is not None:
                    run, printed = deferral.execution, deferral.printed
                    self.report(Ended(run, Phase.ABORTED, error=why, output=printed, retryable=False, waited=True))
                    continue
                log.info("deferred", run=deferral.key[0], kind=str(deferral.kind))
                if self.on_deferred is not None:
                    self.on_deferred(deferral)

    def _refuse(self, names: tuple[str, ...]) -> None:
        self.refused += len(names)
        for name in names:
            log.warning("a late result does not count: the run was taken again", run=name)


def _report(item: Ended, again: bool) -> None:
    run = item.execution.run
    detail = {"error": item.error.splitlines()[-1]} if item.error else {}
    if again:
        log.warning("failed, will be retried", run=run.name, attempt=run.attempt, phase=str(item.phase), **detail)
    elif item.error:
        log.error("finished", run=run.name, phase=str(item.phase), **detail)
    else:
        log.info("finished", run=run.name, phase=str(item.phase))
