"""Taking runs and executing them: who sits in this worker's places, and who is asked to leave one."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import TaskSpec
from scheduler.errors import StoreUnavailable
from scheduler.loop.beats import Beats
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.finishing import Finishing
from scheduler.loop.performing import Performer
from scheduler.loop.places import Places, Rate
from scheduler.loop.shortage import Shortage
from scheduler.loop.submitting import Submission, Submitting
from scheduler.loop.transactions import Transactions
from scheduler.loop.turnstile import Turnstile
from scheduler.services.finish import Ended
from scheduler.services.fire import Fired
from scheduler.services.recover import hand_back
from scheduler.services.take import Execution, describe_runs, next_ready_at, take_runs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.dispatching")

_PASS_SECONDS = 1.0
_LATE_SHARE = 10
_SPECS_KEPT = 1000
# Code that goes on after it was asked to end is asked again this often.
_ASK_AGAIN_SECONDS = 10.0
_TIMES_ASKED = 3
# Firing waits this long for places where runs are over in no time, and for this long no more after it waited in vain.
_PATIENCE_SECONDS = 0.05
_IMPATIENCE_SECONDS = 1.0


class Dispatching:
    """This worker's places. On-time runs start first; while late ones wait, one start in ten is late."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        performer: Performer,
        finishing: Finishing,
        *,
        places: int,
        abreast: int,
        late_per_pass: int,
        limits: Mapping[str, int],
        rates: Mapping[str, Rate],
        submitting: Callable[[], Submitting],
        heard: Callable[[Micros], None],
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self._performer = performer
        self._finishing = finishing
        self._submitting = submitting
        # Told of the instant at which the database gave runs out: what they have left is reckoned from it.
        self._heard = heard
        self._places = Places(
            places,
            performer.executors,
            limits=limits,
            rates=rates,
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self._late_per_pass = late_per_pass
        self._specs: OrderedDict[str, TaskSpec] = OrderedDict()
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._executions: dict[tuple[str, int], Execution] = {}
        self._cancelled: dict[tuple[str, int], str] = {}
        # Attempts whose outcome is told and whose code still runs, in a thread that cannot be stopped.
        self._over: set[tuple[str, int]] = set()
        # Who takes queued runs counts the room, takes, and starts what was taken before anybody else counts. Those who
        # take runs as they fire may do so together, each of a part of the room.
        self._counting = Turnstile(abreast)
        self.abreast = abreast
        """How many batches may be fired at once, each with places of its own."""
        self._turns_after = 0
        self._turns_missed = False
        self._late_waiting = False
        # Whether the last look found all there was, and room for more: then a run that ends makes place for nobody.
        self._drained = False
        self._someone_left = asyncio.Event()
        self._impatient_until = -math.inf
        self._backlog = True
        self._shortages: dict[str, Shortage] = {}
        self._on_time_streak = 0
        self._late_passed = -math.inf
        self._late_left = late_per_pass
        self.incarnation = ""
        self.bell = Doorbell()
        self.on_left: Callable[[], None] | None = None
        finishing.on_retry = self._left_queued

    @property
    def lacking(self) -> dict[str, str]:
        """What this worker lacks for runs of its executors, by executor: seen just now, or not tried again since."""
        now = asyncio.get_running_loop().time()
        return {name: item.why for name, item in sorted(self._shortages.items()) if item.lasts(now)}

    # --- room --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many executions hold a place."""
        return len(self._running)

    @contextlib.asynccontextmanager
    async def room_on_time(self, wanted: int) -> AsyncIterator[tuple[int, dict[str, int]]]:
        """How many on-time runs may be taken as they fire, and of which executors; none while older ones wait.

        The room is the caller's own until the block ends: at least for as many as are `wanted`, where there is so much, and
        beyond that for its share.
        """
        async with contextlib.AsyncExitStack() as held:
            await held.enter_async_context(self._counting.together())
            free = self.places_on_time()
            if free == 0:
                await held.aclose()
                yield 0, {}
                return
            places = min(free, max(wanted, free // self.abreast))
            with self._places.set_apart(places) as room:
                yield places, room

    def places_on_time(self) -> int:
        """How many runs may be taken as they fire: none while older ones wait."""
        free = self._places.unspoken()
        return 0 if self._backlog else free - self._reserved(free)

    async def room_soon(self, wanted: int) -> None:
        """Returns once there are places for half of the runs wanted, or after a moment.

        A run that is taken as it fires costs a third less than one that is queued first. So where runs are over in no
        time, firing waits for their places; it does not wait again for a while where that was in vain.
        """
        loop = asyncio.get_running_loop()
        enough = min(wanted, self._places.total) // 2
        until = loop.time() + _PATIENCE_SECONDS
        while self._places.unspoken() < enough or self._finishing.behind > 2 * wanted:
            left = until - loop.time()
            if self._backlog or loop.time() < self._impatient_until:
                return
            if left <= 0:
                self._impatient_until = loop.time() + _IMPATIENCE_SECONDS
                return
            self._someone_left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._someone_left.wait(), left)

    def room(self) -> dict[str, int]:
        """How many runs of each executor may start here now."""
        return self._places.room()

    def _reserved(self, free: int) -> int:
        # While late runs wait, every tenth start is theirs.
        return min(free, (self._on_time_streak + free) // _LATE_SHARE) if self._late_waiting else 0

    # --- taking ------------------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Fills the free places with queued runs, then arms the alarm for the next run that may start."""
        self._drained = False
        async with self._counting.alone():
            drained = await self._fill(self._places.free())
        await self._arm()
        self._drained = drained

    async def _fill(self, free: int) -> bool:
        """Takes and starts what there is room for; whether that was all there is."""
        if free == 0:
            return False
        loop = asyncio.get_running_loop()
        if loop.time() - self._late_passed >= _PASS_SECONDS:
            self._late_left = self._late_per_pass
        reserved = self._reserved(free)
        room, late_limit = self._places.room(), min(self._late_left, free)
        on_time, late, self._turns_after, missed, now = await self._transactions.run(
            take_runs,
            self.incarnation,
            room,
            on_time=free - reserved,
            late=late_limit,
            after=self._turns_after,
        )
        self._heard(now)
        await self._start_all(on_time + late)
        self._turns_missed = self._turns_missed or missed
        self._backlog = len(on_time) >= free - reserved
        if late_limit:  # Otherwise none were looked for.
            self._late_waiting = bool(late) and len(late) >= late_limit
        self._on_time_streak = 0 if late else self._on_time_streak + len(on_time)
        if late:
            if self._late_left == self._late_per_pass:
                self._late_passed = loop.time()
            self._late_left -= len(late)
        # An executor that had no room may have runs that were not looked at.
        whole = all(room.values()) and all(self._places.room().values())
        return whole and not (self._backlog or self._late_waiting or self._turns_after or missed)

    async def fired(self, fired: Fired) -> None:
        """Starts what a fire transaction took, and rings for what it left queued."""
        if fired.taken:
            self._on_time_streak += len(fired.taken)
            self._heard(fired.taken[0].started_at)
            await self._start_all(fired.taken, fired.triggers)
        if len(fired.taken) < len(fired.runs):
            self._late_waiting = self._late_waiting or any(run.priority for run in fired.runs)
            self._backlog = self._backlog or any(run.priority == 0 and run.owner is None for run in fired.runs)
            self._left_queued()

    def _left_queued(self) -> None:
        self._drained = False
        self.bell.ring()
        if self.on_left is not None:
            self.on_left()

    async def _arm(self) -> None:
        if self._places.free() == 0:
            return  # The next run that ends rings.
        # An executor without room is rung for when one of its runs ends, or when its rate allows another start.
        with_room = sorted(name for name, places in self._places.room().items() if places > 0)
        delay = await self._transactions.run(_until_ready, with_room)
        if delay == 0 and self._late_waiting and self._late_left <= 0:
            wait = self._late_passed + _PASS_SECONDS - asyncio.get_running_loop().time()
            delay = max(0, int(wait * SECOND))
        refill = self._places.seconds_to_refill()
        if refill is not None:
            delay = min(int(refill * SECOND), delay if delay is not None else int(refill * SECOND))
        if self._turns_after or self._turns_missed:
            delay = 0  # More tasks have runs that wait for a turn than were looked at.
            self._turns_missed = self._turns_missed and self._turns_after != 0
        self._beats.alarm("ready", delay, self.bell.ring)

    async def _start_all(self, taken: Sequence[TakenRun], triggers: Mapping[int, Any] | None = None) -> None:
        """Starts runs; `triggers` are the rows they were fired from, where the caller has just read them."""
        if not taken:
            return
        needed = {run.spec_digest for run in taken}
        if triggers is not None and needed <= self._specs.keys():
            executions = _executions_of(taken, triggers, self._specs)
        else:
            specs, keys, names = await self._transactions.run(describe_runs, taken, self._specs)
            self._specs.update(specs)
            executions = []
            for run in taken:
                trigger = None if run.trigger_id is None else names.get(run.trigger_id)
                executions.append(Execution(run, self._specs[run.spec_digest], *keys[run.task_id], trigger))
        for execution in executions:
            self._start(execution)
        for digest in needed:
            self._specs.move_to_end(digest)
        while len(self._specs) > _SPECS_KEPT:
            self._specs.popitem(last=False)

    # --- executing ---------------------------------------------------------------------------------------------------

    def _start(self, execution: Execution) -> None:
        run = execution.run
        key = (run.name, run.fence)
        task = asyncio.get_running_loop().create_task(self._occupy(key, execution), name=run.name)
        self._running[key] = task
        self._executions[key] = execution
        self._places.occupy(run.executor)

    async def _occupy(self, key: tuple[str, int], execution: Execution) -> None:
        """One place: from the start of an attempt's code until that code has ended."""
        try:
            if execution.run.fence > 1:  # Taken for the first time it has no earlier attempt.
                await self._earlier_ended(execution.run)

            def report(ended: Ended) -> None:
                self._over.add(key)
                self._finishing.report(ended)

            lacking: list[str] = []
            why, submitting = partial(self._cancelled.get, key), self._submitting()
            if submitting.is_for(execution):
                await submitting.submit(Submission(execution, report, why, partial(self._over.add, key)))
            else:
                await self._performer.perform(execution, report, why, lacking.append)
                await self._short_of(execution, lacking)
        finally:
            self._left(key, execution)

    async def _short_of(self, execution: Execution, lacking: Sequence[str]) -> None:
        """Hands a run back that this worker could not perform for want of something, and rests its executor for a while."""
        run = execution.run
        if not lacking:
            shortage = self._shortages.get(run.executor)
            if shortage is not None and asyncio.get_running_loop().time() >= shortage.until:
                del self._shortages[run.executor]
                log.info("the worker has again what its runs need", executor=run.executor)
            return
        now = asyncio.get_running_loop().time()
        shortage = self._shortages.setdefault(run.executor, Shortage(lacking[0], now))
        turns = shortage.turns
        pause = shortage.again(lacking[0], now)
        self._places.rest(run.executor, pause)
        if shortage.turns > turns:
            log.error(
                "degraded: the worker lacks what runs need, they are handed back",
                executor=run.executor,
                lacking=lacking[0],
                pause_seconds=round(pause, 1),
            )
        # Other workers may have what it takes; this one looks again after the rest.
        with contextlib.suppress(StoreUnavailable):  # It leaves: the run goes with all that is still held.
            await self._transactions.run(hand_back, run.owner, [(run.name, run.fence)])

    async def _earlier_ended(self, run: TakenRun) -> None:
        """Returns once the code of abandoned attempts of the same run has ended."""
        attempts = [task for (name, fence), task in self._running.items() if name == run.name and fence != run.fence]
        if attempts:
            await asyncio.wait(attempts)

    @staticmethod
    def _cancel(task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never comes to leave its place: so that step is taken first.
        asyncio.get_running_loop().call_soon(task.cancel)

    def _left(self, key: tuple[str, int], execution: Execution) -> None:
        del self._running[key], self._executions[key]
        self._cancelled.pop(key, None)
        self._over.discard(key)
        self._places.leave(execution.run.executor)
        self._someone_left.set()
        # A run that had to wait for its turn has one waiting behind it, maybe.
        if not self._drained or execution.run.gated:
            self.bell.ring()

    # --- cancelling --------------------------------------------------------------------------------------------------

    async def obey_intents(self) -> None:
        """Ends the code of runs that somebody cancelled, and asks again where it goes on all the same."""
        if not self._executions:
            return
        intended = await self._transactions.run(_intended, self.incarnation)
        for key, why in intended.items():
            if key in self._running and key not in self._cancelled:
                self._cancelled[key] = why
                log.info("cancelling", run=key[0], why=why)
                self._ask_to_end(key)

    def _ask_to_end(self, key: tuple[str, int]) -> None:
        task = self._running.get(key)
        if task is None or key not in self._cancelled:
            return
        self._cancel(task)
        asyncio.get_running_loop().call_later(_ASK_AGAIN_SECONDS, self._ask_to_end, key)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes nothing from now on."""
        self._places.close()

    async def settle(self) -> None:
        """Returns once nobody is in the middle of taking runs: what was taken has started."""
        async with self._counting.alone():
            pass

    async def wait_until_idle(self, seconds: float) -> None:
        """Returns once no code runs, or after so long."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=seconds)

    async def stop_executions(self) -> None:
        """Ends the code of every execution and waits until it has ended.

        Code that ends neither when asked nor when asked again is left behind, and its run with this worker's lease.
        """
        stopped = dict(self._running)
        left = set(stopped.values())
        for _ in range(_TIMES_ASKED):
            for task in left:
                self._cancel(task)
            if left:
                _, left = await asyncio.wait(left, timeout=_ASK_AGAIN_SECONDS)
        if left:
            log.warning("code goes on although it was asked to end", runs=len(left))

    async def hand_back_all(self) -> int:
        """Gives back every run that is this worker's and whose code does not run here; returns how many."""
        held = await self._transactions.run(_held, self.incarnation)
        unperformed = [key for key in held.items() if key not in self._executions]
        return await self._transactions.run(hand_back, self.incarnation, unperformed) if unperformed else 0

    async def reconcile(self) -> None:
        """Makes what is executed here and what is ours in the database the same again.

        Runs that are ours and in no place here are handed back: a commit's answer was lost on the way. Executions that are
        not ours any more end: somebody took the run while this worker was cut off.
        """
        if self._counting.busy or self._finishing.pending:
            return
        before = set(self._executions)
        held = await self._transactions.run(_held, self.incarnation)
        if self._counting.busy or self._finishing.pending:
            return
        stray = [key for key in held.items() if key not in before | self._executions.keys()]
        if stray:
            log.warning("runs held without being executed are handed back", count=len(stray))
            await self._transactions.run(hand_back, self.incarnation, stray)
            self.bell.ring()
        for key in before - held.items():
            task = self._running.get(key)
            if task is not None and key not in self._over:
                log.warning("a run is executed elsewhere: it ends here", run=key[0])
                self._cancel(task)


def _executions_of(
    taken: Sequence[TakenRun], triggers: Mapping[int, Any], specs: Mapping[str, TaskSpec]
) -> list[Execution]:
    executions = []
    for run in taken:
        assert run.trigger_id is not None  # Fired from one.
        row, spec = triggers[run.trigger_id], specs[run.spec_digest]
        executions.append(Execution(run, spec, row["project"], row["domain"], row["task"], row["name"]))
    return executions


def _until_ready(tx: Transaction, executors: list[str]) -> int | None:
    at = next_ready_at(tx, executors)
    return None if at is None else max(0, at - tx.now())


def _held(tx: Transaction, owner: str) -> dict[str, int]:
    return tx.runs.still_held(owner)


def _intended(tx: Transaction, owner: str) -> dict[tuple[str, int], str]:
    return tx.runs.intended(owner)
