"""Looking after runs that nobody would end: of workers that are gone, past their deadline, for executors nobody has."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from scheduler.domain.instants import Micros, to_micros
from scheduler.loop.beats import Beats
from scheduler.loop.deferring import Deferring
from scheduler.loop.dispatching import Dispatching
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.heartbeat import Heartbeat
from scheduler.loop.transactions import Transactions
from scheduler.services.plan import Planning
from scheduler.services.recover import Recovered, expire_runs, recover_runs
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.worker")

_BATCH = 500
# A full worker leaves runs behind many times a second: deadlines are looked up no more often than this.
_ARM_SECONDS = 0.5
_FORGET_DEAD_AFTER = timedelta(days=1)


class Recovering:
    """A worker's duty towards all runs, at every third of a lease; any number of workers may have it at once."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        heartbeat: Heartbeat,
        dispatching: Dispatching,
        deferring: Deferring,
        planning: Planning,
        *,
        lease: Micros,
        max_lost: int,
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self._heartbeat = heartbeat
        self._dispatching = dispatching
        self._deferring = deferring
        self._planning = planning
        self._lease = lease
        self._max_lost = max_lost
        self._untakable: set[str] = set()
        self.bell = Doorbell()
        self.queued_bell = Doorbell()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Takes runs back from workers that are gone, ends overdue ones, and looks after what this worker itself holds."""
        await self._take_back()
        await self._expire()
        await self._transactions.run(_forget_dead, to_micros(_FORGET_DEAD_AFTER))
        await self._deferring.look_after()
        await self._dispatching.reconcile()
        await self._dispatching.obey_intents()
        await self._tell_of_untakable()

    async def _take_back(self) -> None:
        recovered = Recovered(requeued=("",))
        while recovered.more:
            recovered = await self._transactions.run(
                recover_runs,
                self._heartbeat.incarnation,
                lease=self._lease,
                max_lost=self._max_lost,
                limit=_BATCH,
                judge=self._heartbeat.may_judge,
                planning=self._planning,
            )
            for name in recovered.workers:
                log.warning("a worker is gone: its lease is over", worker=name)
            _tell_of_paused(recovered.paused)
            if recovered.more:
                log.warning("runs taken back", requeued=len(recovered.requeued), failed=len(recovered.failed))
                self._dispatching.bell.ring()

    async def _expire(self) -> None:
        """Ends queued runs whose deadline is over, and arms the alarm for the next one."""
        expired: tuple[str, ...] = ("",)
        while expired:
            expired, paused = await self._transactions.run(expire_runs, _BATCH, self._planning)
            for name in expired:
                log.error("finished", run=name, phase="TIMED_OUT", error="its deadline was over before it could start")
            _tell_of_paused(paused)
        await self._arm_deadline()

    async def watch_deadlines(self) -> None:
        """Whenever runs were left in the queue, arms the alarm for the first deadline among them; until cancelled."""
        while True:
            await self.queued_bell.wait()
            await self._arm_deadline()
            await asyncio.sleep(_ARM_SECONDS)

    async def _arm_deadline(self) -> None:
        self._beats.alarm("deadline", await self._transactions.run(_until_deadline), self.bell.ring)

    async def _tell_of_untakable(self) -> None:
        waiting = await self._transactions.run(_untakable)
        for executor in sorted(waiting - self._untakable):
            log.warning("runs wait for an executor that no living worker declares", executor=executor)
        self._untakable = waiting


def _tell_of_paused(triggers: tuple[str, ...]) -> None:
    for trigger in triggers:
        log.warning("a trigger is paused: its runs keep failing", trigger=trigger)


def _until_deadline(tx: Transaction) -> Micros | None:
    at = tx.runs.next_deadline()
    return None if at is None else max(0, at - tx.now())


def _untakable(tx: Transaction) -> set[str]:
    return (tx.runs.executors_wanted() | tx.waits.executors_wanted()) - tx.workers.declared_executors()


def _forget_dead(tx: Transaction, after: Micros) -> int:
    return tx.workers.forget_dead(tx.now() - after)
