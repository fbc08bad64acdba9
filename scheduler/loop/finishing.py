"""Recording how attempts ended, in batches: all that end while one batch is written go into the next."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.finish import Ended, finish_runs
from scheduler.services.plan import Planning

log = structlog.get_logger("scheduler.dispatching")


class Finishing:
    """The attempts of one worker that have ended and are not recorded yet."""

    def __init__(self, transactions: Transactions, planning: Planning, *, worker: str) -> None:
        self._transactions = transactions
        self._planning = planning
        self._worker = worker
        self._ended: list[Ended] = []
        self.bell = Doorbell()
        self.refused = 0
        self.on_finished: Callable[[Ended], None] | None = None
        self.on_retry: Callable[[], None] | None = None

    @property
    def pending(self) -> bool:
        """Whether some end is not recorded yet."""
        return bool(self._ended)

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
        while self._ended:
            batch, self._ended = self._ended, []
            try:
                finished = await self._transactions.run(finish_runs, batch, self._worker, self._planning)
            except BaseException:
                self._ended = batch + self._ended
                raise
            self.refused += len(finished.refused)
            for name in finished.refused:
                log.warning("a late result does not count: the run was taken again", run=name)
            for trigger in finished.paused:
                log.warning("a trigger is paused: its runs keep failing", trigger=trigger)
            for item in batch:
                if finished.counts(item):
                    _report(item, item.execution.run.name in finished.retried)
                    if self.on_finished is not None:
                        self.on_finished(item)
            if finished.retried and self.on_retry is not None:
                self.on_retry()


def _report(item: Ended, again: bool) -> None:
    run = item.execution.run
    detail = {"error": item.error.splitlines()[-1]} if item.error else {}
    if again:
        log.warning("failed, will be retried", run=run.name, attempt=run.attempt, phase=str(item.phase), **detail)
    elif item.error:
        log.error("finished", run=run.name, phase=str(item.phase), **detail)
    else:
        log.info("finished", run=run.name, phase=str(item.phase))
