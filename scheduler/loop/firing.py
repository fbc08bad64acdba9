"""The scheduler loop: decide whatever is due, plan whatever changed, then sleep until the next due instant."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import structlog

from scheduler.domain.instants import SECOND, Micros, to_rfc3339
from scheduler.errors import StatementRefused, StoreUnavailable
from scheduler.loop.beats import Beats
from scheduler.loop.dispatching import Dispatching
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.finishing import ONE_BY_ONE
from scheduler.loop.transactions import Transactions
from scheduler.services.fire import Fired, due_triggers, fire_due, quarantine
from scheduler.services.plan import Planning
from scheduler.services.sync import (
    plan_after_clock_set_back,
    plan_with_new_zones,
    refresh_summaries,
    sync_triggers,
    unplanned_triggers,
)
from scheduler.store.runs import NewRun
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.firing")

# How long the claim may trust its floor: rollbacks and deploys put rows below it.
_FLOOR_SECONDS = 3.0
# On-time triggers are fired as places become free only while they are later by no more than this part of the grace.
_PACED_SHARE = 4
# Late triggers decided in one transaction before it is known how many runs each of them brings.
_FIRST_LATE = 10


class Firing:
    """Fires what is due, one batch a transaction, and arms the alarm for what comes next."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        dispatching: Dispatching,
        planning: Planning,
        *,
        fire_batch: int,
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self._dispatching = dispatching
        self._planning = planning
        self._batch = fire_batch
        self._floor: tuple[Micros, float] | None = None
        self._late_limit = _FIRST_LATE
        self._behind: Micros = 0
        self._unsynced = True
        self._clock_set_back = False
        self._calm_until = 0.0
        self.bell = Doorbell()

    def look_around(self) -> None:
        """Looks for what others wrote, not only for what is due; the sync beat and notices from elsewhere ring this."""
        self._unsynced = True
        self.bell.ring()

    def clock_jumped(self, jump: Micros) -> None:
        """A clock moved by `jump` microseconds: nothing armed before can be trusted."""
        self._clock_set_back = self._clock_set_back or jump < 0
        self.look_around()

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Plans what changed, decides all that is due, and arms the alarm for the next due instant.

        What is due within the grace comes first. Late triggers, which may owe hundreds of runs each, are decided a few at
        a time, and between any two such transactions whatever has come due or was changed meanwhile has its turn.
        """
        late = True
        self._calm_until = 0.0
        while late:
            await self._plan_changed()
            await self._fire_on_time()
            delay = await self._transactions.run(_until_next_due)
            late = delay == 0 and await self._fire_late()
        rings_in = self._beats.alarm("due", delay, self.bell.ring)
        self._calm_until = math.inf if rings_in is None else asyncio.get_running_loop().time() + rings_in / SECOND

    async def _fire_on_time(self) -> None:
        """Decides all that is due within the grace; where there is much, while one batch is written the next is decided."""
        self._behind = 0
        if not await self._fire_batch_on_time():
            return
        lanes = [self._fire_batches_on_time() for _ in range(self._dispatching.abreast)]
        # Each to its end, whatever becomes of the other: what a batch has taken must come to its start.
        for error in await asyncio.gather(*lanes, return_exceptions=True):
            if error is not None:
                raise error

    async def _fire_batches_on_time(self) -> None:
        while await self._fire_batch_on_time():
            pass

    async def _fire_batch_on_time(self) -> bool:
        """Decides a batch of what is due within the grace, at the pace of runs that are over in no time; False if all."""
        if self._behind < self._planning.misfire_grace // _PACED_SHARE:
            await self._dispatching.room_soon(self._batch)
        # What is fired beyond the places would be queued, and what follows it too.
        limit = min(self._batch, self._dispatching.places_on_time() or self._batch)
        fired = await self._fire(on_time=True, limit=limit)
        self._behind = max(fired.lateness, default=0)
        return fired.claimed >= limit

    @property
    def calm(self) -> float:
        """For how many seconds from now nothing will be decided, as far as is known; 0 while something is."""
        return max(0.0, self._calm_until - asyncio.get_running_loop().time())

    async def _plan_changed(self) -> None:
        if self._clock_set_back:
            self._clock_set_back = False
            await self._all(plan_after_clock_set_back)
        if self._unsynced:
            self._unsynced = False
            await self.sync()

    async def _fire_late(self) -> bool:
        """Decides a few of the triggers that are longest due; False where none could be had."""
        limit = min(self._late_limit, self._batch)
        fired = await self._fire(on_time=False, limit=limit)
        if fired.claimed < limit:
            self._late_limit = _FIRST_LATE
        else:
            # A transaction shall not write many more runs than a full batch of on-time triggers does.
            self._late_limit = max(1, min(limit * 10, self._batch * fired.claimed // max(1, len(fired.runs))))
        return fired.claimed > 0

    async def walk_zones(self, zones: str) -> None:
        """Plans every trigger anew whose zone's rules changed since the database was last planned."""
        after: int | None = 0
        while after is not None:
            after = await self._transactions.run(plan_with_new_zones, self._planning, zones, after, self._batch)

    async def sync(self) -> None:
        """Plans every trigger whose plan was made from something else than what stands there now."""
        planned = self._batch
        while planned >= self._batch:
            try:
                planned = await self._sync(limit=self._batch)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.error("a batch could not be planned; its triggers are tried one by one", error=str(error))
                planned = await self._sync_singly()

    async def _sync(self, *, limit: int, only: int | None = None) -> int:
        planned, tasks = await self._transactions.run(sync_triggers, self._planning, limit, only=only)
        if tasks:
            await self._transactions.run(refresh_summaries, tasks)
        return planned

    async def _sync_singly(self) -> int:
        ids = await self._transactions.run(unplanned_triggers, self._planning, self._batch)
        refused = await self._one_by_one(ids, lambda trigger_id: self._sync(limit=1, only=trigger_id))
        # While none can be planned the next beat tries again; what is due has its turn all the same, among others that fire.
        return len(ids) if refused is None else 0

    async def _all(self, service: Callable[[Transaction, Planning, int], int]) -> None:
        full = True
        while full:
            full = await self._transactions.run(service, self._planning, self._batch) >= self._batch

    async def _fire(self, *, on_time: bool, limit: int) -> Fired:
        try:
            fired = await self._fire_batch(on_time=on_time, limit=limit)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error("a batch could not be fired; its triggers are tried one by one", error=str(error))
            fired = await self._fire_singly()
        return fired

    async def _fire_batch(self, *, on_time: bool = False, limit: int = 1, only: int | None = None) -> Fired:
        now = asyncio.get_running_loop().time()
        if self._floor is not None and now - self._floor[1] > _FLOOR_SECONDS:
            self._floor = None
        async with self._dispatching.room_on_time(limit) as (places, room):
            fired = await self._transactions.run(
                fire_due,
                self._planning,
                limit=limit,
                owner=self._dispatching.incarnation if places else None,
                room=room,
                places=places,
                within=self._planning.misfire_grace if on_time else None,
                floor=self._floor[0] if on_time and self._floor is not None else None,
                only=only,
            )
            if on_time and fired.claimed >= limit and fired.newest_due is not None and self._floor is None:
                self._floor = (fired.newest_due, now)
            self._report(fired)
            await self._dispatching.fired(fired)
        if fired.replanned:
            await self._transactions.run(refresh_summaries, fired.replanned)
        return fired

    async def _fire_singly(self) -> Fired:
        ids = await self._transactions.run(due_triggers, self._batch)
        refused = await self._one_by_one(ids, lambda trigger_id: self._fire_batch(only=trigger_id))
        if refused is not None:
            raise StoreUnavailable(f"none of {len(ids)} triggers can be decided: {refused}")
        return Fired()

    async def _one_by_one(
        self, trigger_ids: Sequence[int], work: Callable[[int], Awaitable[object]]
    ) -> StatementRefused | None:
        """Does the work for each, and quarantines those that it fails on in the database itself.

        Where that refuses several and takes none, it is not the triggers that are at fault: nothing is set aside, and what
        it said last is returned.
        """
        failed: dict[int, Exception] = {}
        for trigger_id in trigger_ids:
            try:
                await work(trigger_id)
            except StoreUnavailable:
                raise
            except Exception as error:
                failed[trigger_id] = error
        refused = [error for error in failed.values() if isinstance(error, StatementRefused)]
        if len(refused) == len(trigger_ids) > 1:
            return refused[-1]
        for trigger_id, why in failed.items():
            log.error("a trigger is set aside: it cannot be fired", trigger_id=trigger_id, error=str(why))
            await self._transactions.run(quarantine, self._planning, trigger_id, why)
        return None

    def _report(self, fired: Fired) -> None:
        late: dict[int, list[NewRun]] = {}
        on_time = []
        for run in fired.runs:
            if run.priority:
                late.setdefault(run.trigger_id, []).append(run)
            else:
                on_time.append(run)
        if len(on_time) > ONE_BY_ONE:
            log.info("fired", runs=len(on_time), slots=_span(on_time))
        else:
            for run in on_time:
                log.info("fired", trigger=_key(fired, run), slot=to_rfc3339(run.scheduled_at), run=run.name)
        for runs in late.values():
            # One line a trigger: after a long outage a line a run would itself hold up what is on time.
            log.info("fired late", trigger=_key(fired, runs[0]), runs=len(runs), slots=_span(runs))
        for reason, count in fired.skipped.items():
            log.warning("slots skipped", reason=str(reason), count=count)
        for error in fired.quarantined:
            log.error("a trigger is set aside: it cannot be planned", error=error)


def _span(runs: Sequence[NewRun]) -> str:
    first, last = min(run.scheduled_at for run in runs), max(run.scheduled_at for run in runs)
    return to_rfc3339(first) if first == last else f"{to_rfc3339(first)} to {to_rfc3339(last)}"


def _key(fired: Fired, run: NewRun) -> str:
    row = fired.triggers[run.trigger_id]
    return f"{row['project']}/{row['domain']}/{row['task']}/{row['name']}"


def _until_next_due(tx: Transaction) -> Micros | None:
    due_at = tx.triggers.next_due_at()
    return None if due_at is None else max(0, due_at - tx.now())
