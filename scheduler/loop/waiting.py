"""The waits of one worker: thousands on one event loop, held, watched and ended.

What cannot wait, because somebody wants a run to end or its time is over, interrupts a look, is stored first and acted
upon at once, whatever back-off the wait was in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import TaskSpec
from scheduler.domain.wait import Stage, WaitKind, pause_after_takeover
from scheduler.errors import StoreUnavailable
from scheduler.loop.containing import contained
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.finishing import Finishing
from scheduler.loop.held_wait import HeldWait, Place
from scheduler.loop.looking import Looker
from scheduler.loop.lookouts import Lookouts
from scheduler.loop.performing import Performer
from scheduler.loop.storing import Storing
from scheduler.loop.transactions import Transactions
from scheduler.loop.verdicts import Again, Decided, Found, Given, NotMade, Over, Verdict
from scheduler.services.defer import Deferral
from scheduler.services.finish import Ended
from scheduler.services.resume import PutBack, submitting_state
from scheduler.services.watch import Claimed, claim_waits, compare_waits, release_waits, wanted_ends
from scheduler.store.transaction import Transaction
from scheduler.store.waits import WaitKey

log = structlog.get_logger("scheduler.waiting")

_CLAIM: Final = 500
# Clocks that are apart by less are one clock.
_DRIFT: Final[Micros] = SECOND // 2
# An answer that took no longer than this says nothing new about the time.
_PASSING: Final[Micros] = SECOND


class Waiting:
    """A worker's waits. Its counters, and those of `lookouts` and `storing`, are for whoever shows them."""

    def __init__(
        self,
        transactions: Transactions,
        performer: Performer,
        finishing: Finishing,
        *,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._transactions = transactions
        self._finishing = finishing
        self.spread = spread
        self._performer = performer
        self._executors = sorted(performer.executors)
        self.looker = Looker(performer, self.now, spread=spread)
        self.lookouts = Lookouts(
            performer.executors, self.looker, is_up=self._is_up, up=self._time_is_up, looked=self._looked
        )
        self.storing = Storing(
            transactions, stored=self._stored, lost=self._lost, not_ours=self._not_ours, queued=self._queued
        )
        self._held: dict[str, HeldWait] = {}
        # Reported as ended and not recorded yet, and being submitted in a place: still this worker's in the database.
        self._ending: set[WaitKey] = set()
        self.submitting: set[WaitKey] = set()
        self._wanted: dict[str, str] = {}
        self._up: list[HeldWait] = []
        self._anchor: tuple[Micros, float] | None = None
        self._closed = False
        self.bell = Doorbell()
        self._time_bell = Doorbell()
        self.on_queued: Callable[[], None] | None = None
        self.on_until: Callable[[], None] | None = None
        self.taken_over = 0
        finishing.on_wait_over = self._recorded
        for executor in performer.executors.values():
            executor.look_soon = self.look_soon

    @property
    def incarnation(self) -> str:
        """Whose waits these are."""
        return self.storing.incarnation

    @property
    def count(self) -> int:
        """How many waits this worker holds."""
        return len(self._held) + len(self.submitting)

    # --- time --------------------------------------------------------------------------------------------------------

    def now(self) -> Micros:
        """The database's present instant: as it said last, and steady time since."""
        if self._anchor is None:
            raise RuntimeError("the database has not said yet what time it is")
        instant, then = self._anchor
        return instant + int((asyncio.get_running_loop().time() - then) * SECOND)

    def heard(self, now: Micros) -> None:
        """The database said what time it is; where its clock was moved, what was armed by the old one is armed anew."""
        before = now if self._anchor is None else self.now()
        self._anchor = (now, asyncio.get_running_loop().time())
        moved = now - before
        if abs(moved) <= _DRIFT:
            return
        for held in self._held.values():
            # Errors are borne for a while, an attempt ends at an instant.
            if held.error_since is not None:
                held.error_since += moved
            if held.place is Place.AGENDA and held.ends_at is not None:
                self._arm(held, held.due)

    def overheard(self, now: Micros) -> None:
        """The database said what time it is in passing, with an answer that may have been long under way."""
        if self._anchor is None or abs(now - self.now()) > _PASSING:
            self.heard(now)

    async def ask_time(self) -> None:
        """Asks the database what time it is."""
        self.heard(await self._transactions.run(_now))

    def _steady(self, instant: Micros) -> float:
        return asyncio.get_running_loop().time() + (instant - self.now()) / SECOND

    # --- held --------------------------------------------------------------------------------------------------------

    def hold(self, held: HeldWait, pause: Micros) -> None:
        """From now on this worker looks at the wait, first after `pause`."""
        if self._closed:
            return  # Whoever is there when this worker has left takes it over.
        self._held[held.name] = held
        self._arm(held, asyncio.get_running_loop().time() + pause / SECOND)

    def deferred(self, deferral: Deferral) -> None:
        """An executor has deferred a run: what has to be looked at is held, the rest the database watches."""
        if deferral.kind is WaitKind.UNTIL:
            self._until()
            return
        self.hold(HeldWait.begun(deferral, self.now()), deferral.interval)

    def settle(self, held: HeldWait, verdict: Verdict) -> None:
        """What was found of a wait that is not held yet is acted upon."""
        self._held[held.name] = held
        self._act(held, verdict)

    def _forget(self, held: HeldWait, *, over: bool = False) -> None:
        if self._held.get(held.name) is held:
            del self._held[held.name]
            self._wanted.pop(held.name, None)
        self.storing.drop(held)
        self.lookouts.drop(held)
        try:
            with contained():
                self._performer.executors[held.execution.run.executor].forget(held.name, over=over)
        except Exception:
            # What an executor keeps for itself must not keep a run from ending.
            log.warning("an executor cannot forget a wait", run=held.name, exc_info=True)

    def look_soon(self, name: str) -> None:
        """There is news of a run's wait: it is looked at now, unless it was told of too late or that is under way."""
        held = self._held.get(name)
        if held is not None and held.place is Place.AGENDA:
            self._arm_after(held, 0)

    def _arm(self, held: HeldWait, at: float) -> None:
        if held.ends_at is not None and held.stage is not Stage.CANCELLING:
            at = min(at, self._steady(held.ends_at))
        self.lookouts.put(held, at)

    def _arm_after(self, held: HeldWait, pause: Micros) -> None:
        self._arm(held, asyncio.get_running_loop().time() + pause / SECOND)

    # --- what looks find ---------------------------------------------------------------------------------------------

    def _looked(self, held: HeldWait, verdict: Verdict) -> None:
        if self._held.get(held.name) is not held:
            return
        why = self._wanted.pop(held.name, None)
        # An answer counts against a cancel; that the wait goes on does not.
        if why is None or held.stage is Stage.CANCELLING or isinstance(verdict, Over):
            self._act(held, verdict)
        else:
            self._act(held, self.looker.cancelled(held, why), new_job=isinstance(verdict, Found))

    def _act(self, held: HeldWait, verdict: Verdict, *, new_job: bool = False) -> None:
        match verdict:
            case Again(pause, changed):
                if changed:
                    self.storing.change(held)
                self._arm_after(held, pause)
            case Found():
                log.info("found the job of an interrupted submission", run=held.name, job=held.job_id)
                held.place = Place.STORE
                self.storing.change(held, urgent=True, new_job=True)
            case Decided():
                why = held.ending.error if held.ending is not None else None
                log.info("ending a job", run=held.name, job=held.job_id, why=why)
                held.place = Place.STORE
                self.storing.change(held, urgent=True, new_job=new_job)
            case Given():
                held.place = Place.STORE
                self.storing.change(held, urgent=True)
            case NotMade(tries, pause):
                held.place, held.last_error = Place.STORE, tries.error
                at = self.now() + pause
                not_before = at if held.ends_at is None else min(at, held.ends_at)
                self.storing.put_back(held, PutBack(held.execution, not_before, submitting_state(tries)))
            case Over(ended):
                self._forget(held, over=True)
                self._ending.add(held.key)
                self._finishing.report(ended)

    def _stored(self, held: HeldWait) -> None:
        if self._held.get(held.name) is not held or held.place is not Place.STORE:
            return
        why = self._wanted.pop(held.name, None)
        if held.kind is WaitKind.UNTIL:
            self._forget(held)
            self._until()
        elif why is not None and held.stage is not Stage.CANCELLING:
            self._act(held, self.looker.cancelled(held, why))
        else:
            self._arm_after(held, 0)

    def _lost(self, held: HeldWait) -> None:
        if self._held.get(held.name) is held:
            self._forget(held)

    def _not_ours(self, held: HeldWait) -> None:
        """The job that was found is another run's: this one has none."""
        if self._held.get(held.name) is not held:
            return
        held.state = held.job_id = None
        if held.stage is Stage.CANCELLING:
            self._act(held, Over(self.looker.as_decided(held)))
        else:
            held.stage = Stage.SUBMITTING
            self._act(held, self.looker.not_made(held, "the job that runs is another run's"))

    # --- what somebody wants, and what time wants --------------------------------------------------------------------

    async def obey_intents(self) -> None:
        """Ends the waits of runs that somebody wants to end; while the database is away, nobody can be asked."""
        if not self._held:
            return
        try:
            wanted = await self._transactions.read(wanted_ends, self.incarnation)
        except StoreUnavailable:
            return
        for name, why in wanted.items():
            held = self._held.get(name)
            # One that is being submitted is not held yet: its wish is answered when its job is stored.
            if held is not None:
                self.want(held, why)

    def want(self, held: HeldWait, why: str) -> None:
        """Somebody wants the run of a wait that is held to end."""
        if self._held.get(held.name) is not held:
            return
        if held.stage is Stage.CANCELLING:
            return  # Its job is being ended already, and no attempt will follow: every transition reads the intent.
        if held.place in (Place.LOOK, Place.STORE):
            self._wanted[held.name] = why
            if held.place is Place.LOOK:
                self.lookouts.interrupt(held)
        else:
            self.lookouts.drop(held)
            self._act(held, self.looker.cancelled(held, why))

    def _is_up(self, held: HeldWait) -> bool:
        return held.ends_at is not None and held.stage is not Stage.CANCELLING and held.ends_at <= self.now()

    def _time_is_up(self, held: HeldWait) -> None:
        self._up.append(held)
        self._time_bell.ring()

    async def watch_time(self) -> None:
        """Ends the waits whose attempts have no time left, by the database's clock, until cancelled."""
        while True:
            await self._time_bell.wait()
            up, self._up = self._up, []
            await self.ask_time()
            for held in up:
                if self._held.get(held.name) is not held or held.place is not Place.TIME:
                    continue
                if self._is_up(held):
                    self._act(held, self.looker.time_is_up(held, self.now()))
                else:
                    self._arm(held, self._steady(held.look_at))

    # --- taken over, let go ------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Does what somebody wants, and takes over waits that nobody holds, of executors that this worker declares."""
        await self.obey_intents()
        me, count = self.incarnation, _CLAIM
        while count >= _CLAIM and not self._closed:
            claimed, now = await self._transactions.run(claim_waits, me, self._executors, _CLAIM, self._specs())
            if self.incarnation != me:
                return
            self.heard(now)
            for item in claimed:
                self._take_over(item)
            count = len(claimed)
            self.taken_over += count
            if claimed:
                log.info("waits taken over", count=count)

    async def reconcile(self) -> None:
        """Makes what is held here and what is ours in the database the same again."""
        me = self.incarnation
        present = {held.key for held in self._held.values()} | self._ending | self.submitting
        unknown, lost, now = await self._transactions.run(compare_waits, me, present, self._specs())
        if self._closed or self.incarnation != me:
            return
        self.heard(now)
        for item in unknown:
            key = item.wait.run_name, item.wait.fence
            if key not in self._ending | self.submitting and item.wait.run_name not in self._held:
                self._take_over(item)
        for name, fence in lost:
            held = self._held.get(name)
            if held is not None and held.key == (name, fence) and not self.storing.pending(held.key):
                log.warning("a wait was taken over by another worker", run=name)
                self._forget(held)

    def _take_over(self, item: Claimed) -> None:
        try:
            held = HeldWait.of(item)
        except (ValueError, TypeError, KeyError) as error:
            log.error("a wait cannot be read", run=item.wait.run_name, error=str(error))
            return
        if held.stage is not Stage.WAITING:
            held.sure_at = self.now() + self.looker.settled_after
        # Thousands that come at once are spread over their interval; what is to end, or unclear, is not left waiting.
        pause = pause_after_takeover(held.interval, self.spread()) if held.stage is Stage.WAITING else 0
        if held.error_since is not None:
            pause = max(pause, held.look_at - self.now())
        self.hold(held, pause)
        if item.intent is not None:
            self.want(held, item.intent)

    async def let_go(self) -> None:
        """This worker leaves: nothing is looked at any more, and others may have its waits at once.

        Those being submitted stay until their jobs are stored, and those that have ended until that is recorded.
        """
        await self.stop()
        try:
            await asyncio.wait_for(self.storing.flush(), 5.0)
            count = await self._transactions.once(
                release_waits, self.incarnation, [name for name, _ in self.submitting | self._ending]
            )
        except (StoreUnavailable, TimeoutError):
            return  # The lease runs out instead.
        self._held.clear()
        if count:
            log.info("waits let go", count=count)

    async def stop(self) -> None:
        """Nothing is looked at any more."""
        self._closed = True
        await self.lookouts.stop(self._held.values())

    async def begin_anew(self, incarnation: str) -> None:
        """Others may hold these waits by now: they are forgotten, nothing is cancelled, and somebody new begins."""
        await self.stop()
        self._held.clear()
        self.storing.clear()
        self._wanted.clear()
        self._up.clear()
        self._ending.clear()
        self.storing.incarnation = incarnation
        self.lookouts.go_on()
        self._closed = False
        self.bell.ring()

    def _recorded(self, ended: Ended) -> None:
        self._ending.discard((ended.execution.run.name, ended.execution.run.fence))

    def _queued(self) -> None:
        if self.on_queued is not None:
            self.on_queued()

    def _until(self) -> None:
        if self.on_until is not None:
            self.on_until()

    def _specs(self) -> dict[str, TaskSpec]:
        return {held.execution.run.spec_digest: held.execution.spec for held in self._held.values()}


def _now(tx: Transaction) -> Micros:
    return tx.now()
