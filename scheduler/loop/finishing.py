"""Recording how attempts ended, in batches: all that end while one batch is written go into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from executors.jsonvalue import MAX_OUTPUT_BYTES
from executors.output import clip
from scheduler.domain.run import BACKFILLED, Phase
from scheduler.errors import StoreUnavailable
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.defer import Deferral, defer_runs
from scheduler.services.finish import Ended, Finished, finish_runs
from scheduler.services.keeping import failed, kept
from scheduler.services.plan import Planning

log = structlog.get_logger("scheduler.dispatching")

# So many runs of one batch have a line of the log each.
ONE_BY_ONE = 20
# Letters of an error in a line of the log; all of it is kept with the attempt.
_LINE: Final = 1000
# Letters of one batch: PostgreSQL takes a message of a gigabyte.
_BATCH_TEXT: Final = 32 * 1024 * 1024


class Finishing:
    """The attempts of one worker that have ended and are not recorded yet."""

    def __init__(
        self,
        transactions: Transactions,
        planning: Planning,
        *,
        worker: str,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self._transactions = transactions
        self._planning = planning
        self._worker = worker
        self._max_output_bytes = max_output_bytes
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
        self._ended.append(kept(ended, self._max_output_bytes))
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
                        some, rest = _one_batch(batch)
                        # One that failed on the way is among the ends then: it is recorded in the next round.
                        await self._store(some)
                        batch = rest
                except BaseException:
                    self._ended = batch + self._ended
                    raise

    async def _store(self, batch: list[Ended]) -> None:
        """Records a batch. Where something in it cannot be stored, halves are tried, until it is found and fails alone."""
        try:
            await (self._defer(batch) if batch[0].deferral is not None else self._finish(batch))
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._store(batch[:half])
                await self._store(batch[half:])
                return
            (item,) = batch
            run = item.execution.run
            log.error("the end of a run cannot be stored", run=run.name, phase=str(item.phase), exc_info=True)
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            # If not even this can be stored, it is not for what the run has said.
            await self._finish([failed(item, f"how it ended cannot be stored: {said}")._replace(output=None)])

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


def _one_batch(ended: Sequence[Ended]) -> tuple[list[Ended], list[Ended]]:
    """What one transaction records, and the rest: one kind, for what waits is no end and has its own order of locks, and
    not so much text that the database would refuse it.
    """
    waits, room = ended[0].deferral is not None, _BATCH_TEXT
    some: list[Ended] = []
    rest: list[Ended] = []
    for item in ended:
        if (item.deferral is not None) is not waits or room <= 0:
            rest.append(item)
            continue
        some.append(item)
        room -= sum(len(text) for text in (item.outputs_text, item.output, item.error) if text)
        if item.deferral is not None:
            room -= len(item.deferral.state or "")
    return some, rest


def _report(item: Ended, again: bool) -> None:
    run = item.execution.run
    detail = {"error": clip(item.error.splitlines()[-1], _LINE)} if item.error else {}
    if again:
        log.warning("failed, will be retried", run=run.name, attempt=run.attempt, phase=str(item.phase), **detail)
    elif item.error:
        log.error("finished", run=run.name, phase=str(item.phase), **detail)
    else:
        log.info("finished", run=run.name, phase=str(item.phase))
