"""Taking runs, executing them, recording how they ended: the worker's places and who sits in them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskSpec
from scheduler.loop.beats import Beats
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.performing import Performer
from scheduler.loop.transactions import Transactions
from scheduler.services.finish import Ended, finish_runs
from scheduler.services.fire import Fired
from scheduler.services.recover import hand_back
from scheduler.services.take import Execution, describe_runs, next_ready_at, take_runs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction

log = structlog.get_logger("scheduler.dispatching")

_PASS_SECONDS = 1.0
_LATE_SHARE = 10
_SPECS_KEPT = 1000


class Dispatching:
    """This worker's places. On-time runs start first; while late ones wait, one start in ten is late."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        performer: Performer,
        *,
        worker: str,
        places: int,
        late_per_pass: int,
        limits: Mapping[str, int],
    ) -> None:
        self._transactions = transactions
        self._beats = beats
        self._performer = performer
        self._worker = worker
        self._places = places
        self._late_per_pass = late_per_pass
        self._limits = limits
        self._specs: OrderedDict[str, TaskSpec] = OrderedDict()
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._executions: dict[tuple[str, int], Execution] = {}
        self._by_executor: Counter[str] = Counter()
        self._ended: list[Ended] = []
        self._taking = 0
        self._late_waiting = False
        self._backlog = True
        self._on_time_streak = 0
        self._late_passed = -math.inf
        self._late_left = late_per_pass
        self._closed = False
        self.incarnation = ""
        self.bell = Doorbell()
        self.finish_bell = Doorbell()
        self.refused = 0
        self.on_finished: Callable[[Ended], None] | None = None

    # --- room --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many executions hold a place."""
        return len(self._running)

    def _free(self) -> int:
        return 0 if self._closed else max(0, self._places - len(self._running))

    def _room(self) -> dict[str, int]:
        free = self._free()
        return {
            name: min(free, self._limits.get(name, self._places) - self._by_executor[name])
            for name in self._performer.executors
        }

    def room_on_time(self) -> tuple[int, dict[str, int]]:
        """How many on-time runs may be taken as they fire, and of which executors; none while older ones wait."""
        free = self._free()
        if self._backlog or free == 0:
            return 0, {}
        return free - self._reserved(free), self._room()

    def _reserved(self, free: int) -> int:
        # While late runs wait, every tenth start is theirs.
        return min(free, (self._on_time_streak + free) // _LATE_SHARE) if self._late_waiting else 0

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Marks a transaction that may take runs: until it is through, what is held and what runs may differ."""
        self._taking += 1
        try:
            yield
        finally:
            self._taking -= 1

    # --- taking ------------------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """Fills the free places with queued runs, then arms the alarm for the next run that may start."""
        free = self._free()
        if free == 0:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._late_passed >= _PASS_SECONDS:
            self._late_left = self._late_per_pass
        reserved = self._reserved(free)
        with self.taking():
            on_time, late = await self._transactions.run(
                take_runs,
                self.incarnation,
                self._room(),
                on_time=free - reserved,
                late=min(self._late_left, free),
            )
            await self._start_all(on_time + late)
        self._backlog = len(on_time) >= free - reserved
        self._late_waiting = bool(late) and len(late) >= min(self._late_left, free)
        self._on_time_streak = 0 if late else self._on_time_streak + len(on_time)
        if late:
            if self._late_left == self._late_per_pass:
                self._late_passed = loop.time()
            self._late_left -= len(late)
        await self._arm()

    async def fired(self, fired: Fired) -> None:
        """Starts what a fire transaction took, and rings for what it left queued."""
        if fired.taken:
            self._on_time_streak += len(fired.taken)
            await self._start_all(fired.taken)
        if len(fired.taken) < len(fired.runs):
            self._late_waiting = self._late_waiting or any(run.priority for run in fired.runs)
            self._backlog = self._backlog or any(run.priority == 0 and run.owner is None for run in fired.runs)
            self.bell.ring()

    async def _arm(self) -> None:
        if self._free() == 0:
            return  # The next run that ends rings.
        # An executor without room is rung for when one of its runs ends.
        with_room = sorted(name for name, places in self._room().items() if places > 0)
        delay = await self._transactions.run(_until_ready, with_room)
        if delay == 0 and self._late_waiting and self._late_left <= 0:
            wait = self._late_passed + _PASS_SECONDS - asyncio.get_running_loop().time()
            delay = max(0, int(wait * SECOND))
        self._beats.alarm("ready", delay, self.bell.ring)

    async def _start_all(self, taken: Sequence[TakenRun]) -> None:
        if not taken:
            return
        specs, keys, names = await self._transactions.run(describe_runs, taken, self._specs)
        self._specs.update(specs)
        for run in taken:
            self._specs.move_to_end(run.spec_digest)
            project, domain, task = keys[run.task_id]
            trigger = names.get(run.trigger_id) if run.trigger_id is not None else None
            self._start(Execution(run, self._specs[run.spec_digest], project, domain, task, trigger))
        while len(self._specs) > _SPECS_KEPT:
            self._specs.popitem(last=False)

    # --- executing ---------------------------------------------------------------------------------------------------

    def _start(self, execution: Execution) -> None:
        key = (execution.run.name, execution.run.fence)
        task = asyncio.create_task(self._occupy(execution), name=execution.run.name)
        self._running[key] = task
        self._executions[key] = execution
        self._by_executor[execution.run.executor] += 1
        task.add_done_callback(lambda _: self._left(key, execution))

    async def _occupy(self, execution: Execution) -> None:
        """One place: from the start of an attempt's code until that code has ended."""
        run = execution.run
        earlier = [task for (name, fence), task in self._running.items() if name == run.name and fence != run.fence]
        if earlier:  # An abandoned attempt of the same run: its code must have ended first.
            await asyncio.wait(earlier)
        await self._performer.perform(execution, self._report_end)

    def _report_end(self, ended: Ended) -> None:
        self._ended.append(ended)
        self.finish_bell.ring()

    def _left(self, key: tuple[str, int], execution: Execution) -> None:
        del self._running[key], self._executions[key]
        self._by_executor[execution.run.executor] -= 1
        self.bell.ring()

    # --- finishing ---------------------------------------------------------------------------------------------------

    async def finish_forever(self) -> None:
        """Records ended attempts in batches: all that end while one batch is written go into the next."""
        while True:
            await self.finish_bell.wait()
            await self.flush()

    async def flush(self) -> None:
        """Records every attempt that has ended so far."""
        while self._ended:
            batch, self._ended = self._ended, []
            try:
                finished = await self._transactions.run(finish_runs, batch, self._worker)
            except BaseException:
                self._ended = batch + self._ended
                raise
            self.refused += len(finished.refused)
            for name in finished.refused:
                log.warning("a late result does not count: the run was taken again", run=name)
            for item in batch:
                if finished.counts(item):
                    _report(item, item.execution.run.name in finished.retried)
                    if self.on_finished is not None:
                        self.on_finished(item)
            if finished.retried:
                self.bell.ring()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes nothing from now on."""
        self._closed = True

    async def wait_until_idle(self, seconds: float) -> bool:
        """Waits for running work; False where some is left after `seconds`."""
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=seconds)
        return not self._running

    async def stop_executions(self) -> list[tuple[str, int]]:
        """Ends the code of every execution, waits until it has ended, and returns the runs that got no outcome."""
        stopped = dict(self._running)
        for task in stopped.values():
            task.cancel()
        if stopped:
            await asyncio.wait(list(stopped.values()))
        return [key for key, task in stopped.items() if task.cancelled()]

    async def reconcile(self) -> None:
        """Hands back runs that are ours in the database and in no place here: a commit's answer was lost on the way."""
        if self._taking or self._ended:
            return
        before = set(self._executions)
        held = await self._transactions.run(_held, self.incarnation)
        if self._taking or self._ended:
            return
        stray = [(name, fence) for name, fence in held.items() if (name, fence) not in before | set(self._executions)]
        if stray:
            log.warning("runs held without being executed are handed back", count=len(stray))
            await self._transactions.run(hand_back, self.incarnation, stray)
            self.bell.ring()


def _until_ready(tx: Transaction, executors: list[str]) -> int | None:
    at = next_ready_at(tx, executors)
    return None if at is None else max(0, at - tx.now())


def _held(tx: Transaction, owner: str) -> dict[str, int]:
    return tx.runs.still_held(owner)


def _report(item: Ended, again: bool) -> None:
    run = item.execution.run
    detail = {"error": item.error.splitlines()[-1]} if item.error else {}
    if again:
        log.warning("failed, will be retried", run=run.name, attempt=run.attempt, phase=str(item.phase), **detail)
    elif item.error:
        log.error("finished", run=run.name, phase=str(item.phase), **detail)
    else:
        log.info("finished", run=run.name, phase=str(item.phase))
