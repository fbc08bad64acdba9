"""A worker's life: open the database, take part, drain, leave. The loops it starts do the work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any

import structlog

from executors.jsonvalue import MAX_OUTPUT_BYTES
from executors.protocol import Executor
from scheduler.clock import Clock, SystemClock, since_boot
from scheduler.domain.instants import SECOND, Micros, to_micros, to_rfc3339
from scheduler.errors import SchemaMismatch, StoreError
from scheduler.loop.backfilling import Backfilling
from scheduler.loop.beats import Beats, seconds
from scheduler.loop.clock_guard import ClockGuard
from scheduler.loop.containing import contained, tasks_contained
from scheduler.loop.deferring import Deferring
from scheduler.loop.dispatching import Dispatching
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.finishing import Finishing
from scheduler.loop.firing import Firing
from scheduler.loop.heartbeat import Heartbeat
from scheduler.loop.performing import Performer, Prepare
from scheduler.loop.places import Rate
from scheduler.loop.recovering import Recovering
from scheduler.loop.retaining import Retaining
from scheduler.loop.transactions import Transactions
from scheduler.services.clock_history import read_clock_history, record_boot
from scheduler.services.plan import Planning
from scheduler.services.retain import RetentionRules
from scheduler.store.notifications import Listener
from scheduler.store.transaction import Store, Transaction

log = structlog.get_logger("scheduler.worker")

_LEFT_WHEN_DRAINING = {
    "firing",
    "dispatching",
    "recovering",
    "deadlines",
    "backfilling",
    "retaining",
    "waiting",
    "resuming",
}
# While the database is away, nothing that is being taken comes to an end.
_SETTLED_SECONDS = 5.0
# From a loop that the database refused to its next try, and how long that has to go well to count.
_PAUSE_SECONDS = 2.0
_CALM_SECONDS = 5.0
_LET_GO_SECONDS = 6.0
# For recording and handing back at the end: what is left of the grace, within these bounds.
_GOODBYE_SECONDS = 10.0
_LEAST_GOODBYE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker behaves; the settings' section `worker` says the same."""

    name: str = ""
    version: str = ""
    zones: str = ""
    resync_interval: timedelta = timedelta(seconds=30)
    max_concurrent_runs: int = 100
    max_catchup_runs_per_loop: int = 100
    fire_batch: int = 1000
    lease: timedelta = timedelta(seconds=30)
    max_lost: int = 5
    shutdown_grace: timedelta = timedelta(seconds=30)
    misfire_grace: timedelta = timedelta(seconds=60)
    max_output_bytes: int = MAX_OUTPUT_BYTES
    max_clock_jump: timedelta | None = None
    """None: whatever the clock says is believed at once."""
    retention: RetentionRules = RetentionRules()

    @property
    def fingerprint(self) -> str:
        """What makes this worker plan as it does: its version and its zone data."""
        return f"{self.version}/{self.zones}"

    @property
    def planning(self) -> Planning:
        """What every planner is told."""
        return Planning(to_micros(self.misfire_grace), self.fingerprint)


class Worker:
    """Fires what is due and performs it, until told to stop. Any number may share one PostgreSQL database."""

    def __init__(
        self,
        store: Store,
        executors: Mapping[str, Executor],
        options: WorkerOptions,
        *,
        prepare: Prepare,
        limits: Mapping[str, int] | None = None,
        rates: Mapping[str, Rate] | None = None,
        clock: Clock | None = None,
        on_ready: Callable[[], None] | None = None,
        http_session: Callable[[], Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        hidden_env: frozenset[str] = frozenset(),
        before_start: Callable[[Transactions], Awaitable[None]] | None = None,
        announce: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> None:
        self._store = store
        self._executors = executors
        self._options = options
        self._name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._clock = clock or store.clock or SystemClock()
        self._before_start = before_start
        self._on_ready = on_ready
        self._announce = announce
        self._lease: Micros = to_micros(options.lease)
        bound = options.max_clock_jump
        self.guard = None if bound is None else ClockGuard(to_micros(bound), self._clock)
        self.transactions = Transactions(store if self.guard is None else store.guarded(self.guard.check))
        self.beats = Beats()
        self.performer = Performer(
            executors,
            # A worker's own clock may be wrong; what runs have left is told in the database's time.
            store.clock.now if store.clock is not None else lambda: self.deferring.waiting.now(),
            prepare,
            http_session=http_session,
            secrets=secrets,
            hidden_env=hidden_env,
            max_output_bytes=options.max_output_bytes,
        )
        self.finishing = Finishing(
            self.transactions, options.planning, worker=self._name, max_output_bytes=options.max_output_bytes
        )
        # A second batch is on its way beside the first only where there are places for both: else it would queue its runs.
        ample = options.max_concurrent_runs >= self.transactions.abreast * options.fire_batch
        self.dispatching = Dispatching(
            self.transactions,
            self.beats,
            self.performer,
            self.finishing,
            places=options.max_concurrent_runs,
            abreast=self.transactions.abreast if ample else 1,
            late_per_pass=options.max_catchup_runs_per_loop,
            limits=limits or {},
            rates=rates or {},
            submitting=lambda: self.deferring.submitting,
            heard=lambda now: self.deferring.waiting.overheard(now),
        )
        self.deferring = Deferring(
            self.transactions,
            self.beats,
            self.performer,
            self.finishing,
            options.planning,
            worker=self._name,
            on_queued=self.dispatching.bell.ring,
        )
        self.firing = Firing(
            self.transactions, self.beats, self.dispatching, options.planning, fire_batch=options.fire_batch
        )
        self.heartbeat = Heartbeat(
            self.transactions, self._lease, self._clock, on_dead=self._begin_anew, on_jump=self._clock_jumped
        )
        self.recovering = Recovering(
            self.transactions,
            self.beats,
            self.heartbeat,
            self.dispatching,
            self.deferring,
            options.planning,
            lease=self._lease,
            max_lost=options.max_lost,
        )
        self.dispatching.on_left = self.recovering.queued_bell.ring
        self.backfilling = Backfilling(
            self.transactions, room=self.dispatching.room, on_queued=self.dispatching.bell.ring
        )
        self.finishing.on_backfilled = self.backfilling.bell.ring
        self.retaining = Retaining(self.transactions, options.retention, calm=lambda: self.firing.calm)
        self._clock_is_ours = False
        self._intents_bell = Doorbell()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopped_at: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._walk: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What listings call it."""
        return self._name

    @property
    def stage(self) -> str:
        """Where in its life it stands: starting, working, draining once it was told to stop, or dying of a loop's error."""
        if self._stopping.is_set():
            return "draining"
        if any(task.done() for task in self._tasks):
            return "dying"
        return "working" if self._tasks else "starting"

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Works until `stop`; returns when everything running has ended or was handed back.

        Raises `SchemaMismatch` where the database is not this code's, and whatever a loop died of.
        """
        with tasks_contained(asyncio.get_running_loop()):
            try:
                await self._until_stopped(self._start())
                if not self._stopping.is_set():
                    await self._work()
            finally:
                await self._leave()

    def stop(self) -> None:
        """The first call drains: nothing new, running work may end within the grace. A second one stops at once."""
        if self._stopping.is_set():
            self._hurry.set()
        else:
            self._stopped_at = monotonic()
        self._stopping.set()

    async def _start(self) -> None:
        await self._compare_clocks()
        if self._before_start is not None:
            await self._before_start(self.transactions)
        for executor in self._executors.values():
            await executor.start()
        if await self.transactions.run(_clock_went_back):
            log.warning("the clock is behind the last worker's: it was set back meanwhile")
            self.firing.clock_jumped(-1)
        await self._register()
        await self._kept_going("sync", self.firing.sync)
        if self._on_ready is not None:
            self._on_ready()
        if self._announce is not None:
            for row in await self.transactions.patiently(self._announce):
                key = f"{row['project']}/{row['domain']}/{row['task']}/{row['name']}"
                log.info("fires next", trigger=key, at=to_rfc3339(row["next_fire_at"]))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        listener = Listener(
            self._store, partial(_call_soon, loop, self._noticed), partial(_call_soon, loop, self._unheard)
        )
        third = self._lease / 3_000_000
        self.beats.every("sync", seconds(self._options.resync_interval), self._noticed)
        self.beats.every("recover", third, self.recovering.bell.ring)
        self.beats.every("retention", self._options.retention.interval / SECOND, self.retaining.bell.ring)
        self.beats.start()
        listener.start()
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "heartbeat": self.heartbeat.renew_forever,
            "clock guard": self.heartbeat.guard_forever,
            "firing": self.firing.run_forever,
            "dispatching": self.dispatching.run_forever,
            "finishing": self.finishing.run_forever,
            "recovering": self.recovering.run_forever,
            "deadlines": self.recovering.watch_deadlines,
            "backfilling": self.backfilling.run_forever,
            "retaining": self.retaining.run_forever,
            "cancelling": partial(self._answer, self._intents_bell, self.dispatching.obey_intents),
            **self.deferring.loops(),
        }
        self._tasks = [self._spawn(name, self._kept_going(name, loop)) for name, loop in loops.items()]
        # A fire notices by itself a plan made with other zone data; this finds those that are not due for long.
        self._walk = self._spawn(
            "zones", self._kept_going("zones", partial(self.firing.walk_zones, self._options.zones))
        )
        self._noticed()
        self.retaining.bell.ring()
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([*self._tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # A loop ends only by an error: let the process end with it, and be started again.
            await self._drain()
        finally:
            stopping.cancel()
            await asyncio.to_thread(listener.stop)

    async def _drain(self) -> None:
        if self.dispatching.running:
            log.info("draining", running=self.dispatching.running, grace_seconds=seconds(self._options.shutdown_grace))
        self.dispatching.close()
        if self._walk is not None:
            self._walk.cancel()
        # What is being taken right now comes to its start first, or nobody would know of it here.
        settled = min(_SETTLED_SECONDS, max(1.0, self._grace_left))
        await self._first(self.dispatching.settle(), asyncio.sleep(settled), self._hurry.wait())
        for task in self._tasks:
            # The heartbeat goes on while work is still held; finishing goes on until all is recorded.
            if task.get_name() in _LEFT_WHEN_DRAINING:
                task.cancel()
        let_go = min(_LET_GO_SECONDS, max(1.0, self._grace_left))
        await self._first(self.deferring.let_go(), asyncio.sleep(let_go), self._hurry.wait())
        await self._first(self.dispatching.wait_until_idle(self._grace_left), self._hurry.wait())

    @property
    def _grace_left(self) -> float:
        """Seconds of the grace that are left since the worker was told to stop."""
        since = monotonic() - self._stopped_at if self._stopped_at is not None else 0.0
        return max(0.0, seconds(self._options.shutdown_grace) - since)

    async def _leave(self) -> None:
        """Whatever happened: code still running is ended, its runs are handed back, and the lease is given up."""
        self.dispatching.close()
        self.beats.stop()
        await self.dispatching.stop_executions()
        self.transactions.give_up()
        if self.guard is not None:
            self.guard.let_go()
        handing_back = asyncio.create_task(self._hand_back())
        least = _LEAST_GOODBYE_SECONDS if self.transactions.silent_for < _LEAST_GOODBYE_SECONDS else 1.0
        within = max(least, min(_GOODBYE_SECONDS, self._grace_left))
        try:
            _, left = await asyncio.wait([handing_back], timeout=within)
            if left:
                # Once the lease is over, others take over what could not be recorded.
                log.warning("the database does not answer: leaving without handing back", waited_seconds=within)
        finally:
            handing_back.cancel()
        results = await self._end_loops()
        for name, executor in self._executors.items():
            try:
                with contained():
                    await executor.close()
            except Exception:  # The others, and the worker, leave all the same.
                log.error("an executor cannot be closed", executor=name, exc_info=True)
        await asyncio.to_thread(self.transactions.close, *([0.0] if left else []))
        await asyncio.wait([handing_back])
        failed = None if handing_back.cancelled() else handing_back.exception()
        died = [error for error in (*results, failed) if isinstance(error, Exception)]
        log.info("stopped", worker=self._name, **({"error": repr(died[0])} if died else {}))
        if failed is not None:
            raise failed

    async def _end_loops(self) -> list[BaseException | None]:
        loops = [*self._tasks, *([self._walk] if self._walk is not None else [])]
        for loop in loops:
            loop.cancel()
        return await asyncio.gather(*loops, return_exceptions=True)

    async def _hand_back(self) -> None:
        """Records what has ended, hands back what has not, and gives up the lease; nothing of it while the database is away."""
        with contextlib.suppress(Exception):  # What it fails on is met again below.
            # Waits for what its loop is writing: were that cut off, nobody would know what became of it.
            await self.finishing.flush()
        await self._end_loops()
        with contextlib.suppress(StoreError):  # Once the lease is over, others take over.
            await self.finishing.flush()
            await self.deferring.leave()
            if self.heartbeat.incarnation:
                if self._stopping.is_set():
                    count = await self.dispatching.hand_back_all()
                    if count:
                        log.info("handed back what had not finished", runs=count)
                # A worker that dies of an error may die of one of its runs: whoever finds them counts that they were lost.
                await self.transactions.run(_retire, self.heartbeat.incarnation)

    async def _compare_clocks(self) -> None:
        """Whether the clock can be right, as far as that can be told from what the database knows."""
        if self.guard is None:
            return
        history = await self.transactions.run(read_clock_history)
        moved = None if history.booted_at is None else abs(history.now - since_boot() - history.booted_at)
        bound = to_micros(self._options.max_clock_jump or timedelta(0))
        # A database of before this was written down cannot tell.
        unset = history.alone and (moved is None or moved <= bound)
        self.guard.begin(history.now, history.last_seen, alone=history.alone, unset=unset)
        self._clock_is_ours = history.alone

    # --- beats -------------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        incarnation = token_hex(16)
        await self.transactions.run(
            _register,
            incarnation,
            self._name,
            self._options.version,
            self._options.fingerprint,
            sorted(self._executors),
            self._lease,
        )
        if self.guard is not None and self._clock_is_ours:
            await self.transactions.run(record_boot, since_boot())
        self.heartbeat.began(incarnation)
        self.dispatching.incarnation = incarnation
        await self.deferring.began(incarnation)

    async def _begin_anew(self) -> None:
        # Others may have taken our runs already: first end what runs here, then come back as somebody new. What they
        # produced so far is still offered; it counts wherever nobody took the run since.
        await self.dispatching.stop_executions()
        self.finishing.bell.ring()
        await self._register()
        self._noticed()

    def _clock_jumped(self, jump: Micros) -> None:
        self.beats.rearm()
        self.firing.clock_jumped(jump)
        self.dispatching.bell.ring()

    def _noticed(self) -> None:
        self.firing.look_around()
        self.dispatching.bell.ring()
        self.backfilling.bell.ring()
        self._intents_bell.ring()
        self.recovering.queued_bell.ring()
        self.deferring.look_around()

    def _unheard(self) -> None:
        resync = seconds(self._options.resync_interval)
        log.warning("nobody can listen through this pooler: changes are found by the sync beat", resync_seconds=resync)

    async def _answer(self, bell: Doorbell, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await bell.wait()
            await work()

    # --- small helpers -----------------------------------------------------------------------------------------------

    def _spawn(self, name: str, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(loop, name=name)

    async def _kept_going(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs a loop; where the database refuses what it asks, the loop begins again after a pause.

        Only another schema ends it, which no waiting changes, and errors that are not the database's.
        """
        calm: asyncio.TimerHandle | None = None
        while True:
            try:
                return await loop()
            except SchemaMismatch:
                raise
            except StoreError as error:
                if calm is not None:
                    calm.cancel()
                self.transactions.refused(name, error)
                log.warning("a loop begins again: the database refused what it asked", loop=name, error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)
            # Refused work leaves no mark when it is done at last: it is, if nothing is heard of it for a while.
            calm = asyncio.get_running_loop().call_later(_CALM_SECONDS, self.transactions.accepted, name)
            self.finishing.bell.ring()
            self._noticed()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Carries the start through, unless the worker is told to stop before."""
        await self._first(work, self._stopping.wait())

    async def _first(self, *works: Coroutine[Any, Any, Any]) -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _register(
    tx: Transaction, incarnation: str, name: str, version: str, fingerprint: str, executors: list[str], lease: Micros
) -> None:
    tx.workers.register(incarnation, name, version, fingerprint, executors, lease)


def _clock_went_back(tx: Transaction) -> bool:
    seen = tx.workers.last_seen()
    return seen is not None and seen > tx.now()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _retire(tx: Transaction, incarnation: str) -> None:
    tx.workers.retire(incarnation)
    tx.notify()
