"""When waits are looked at, and how many at a time: one agenda for all, a line and a few callers for each executor."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from executors.external_job import ExternalJob
from executors.protocol import Executor
from scheduler.domain.instants import SECOND
from scheduler.domain.wait import Stage, WaitKind
from scheduler.loop.agenda import Agenda
from scheduler.loop.containing import contained
from scheduler.loop.held_wait import HeldWait, Place
from scheduler.loop.looking import Looker
from scheduler.loop.verdicts import Again, Verdict

log = structlog.get_logger("scheduler.waiting")

_AT_ONCE: Final = 100
_CONCURRENCY: Final = 50
# Where an executor answers for many jobs at once, their turns fall together.
_TURNS_SECONDS: Final = 0.25


class _Line:
    """The waits of one executor that are due, and how many callers are busy with them."""

    __slots__ = ("batches", "busy", "callers", "queue")

    def __init__(self, executor: Executor) -> None:
        self.queue: deque[HeldWait] = deque()
        self.busy = 0
        self.callers: int = getattr(executor, "concurrency", _CONCURRENCY)
        self.batches = isinstance(executor, ExternalJob) and executor.batches


class Lookouts:
    """Looks at waits when they are due. `looked` gets each verdict, `is_up` tells waits whose attempt has no time left,
    which go to `up` instead.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        looker: Looker,
        *,
        is_up: Callable[[HeldWait], bool],
        up: Callable[[HeldWait], None],
        looked: Callable[[HeldWait, Verdict], None],
    ) -> None:
        self._looker = looker
        self._is_up = is_up
        self._up = up
        self._looked = looked
        self._lines = {name: _Line(executor) for name, executor in executors.items()}
        self._agenda: Agenda[HeldWait] = Agenda(self._come_up)
        self._callers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.looks = 0
        self.errors = 0
        self.on_look: Callable[[str, float, float], None] | None = None
        """Told of every look: the executor, how late it began and how long it took, in seconds."""

    @property
    def in_line(self) -> int:
        """How many waits are due and not looked at yet."""
        return sum(len(line.queue) for line in self._lines.values())

    def put(self, held: HeldWait, at: float) -> None:
        """The wait is due at this monotonic instant."""
        line = self._lines[held.execution.run.executor]
        if line.batches and held.stage is Stage.WAITING:
            turns = min(_TURNS_SECONDS, held.interval / SECOND / 20)
            at = math.ceil(at / turns) * turns
        held.place = Place.AGENDA
        self._agenda.put(held, at)

    def drop(self, held: HeldWait) -> None:
        """The wait is due no more; a look that is under way is broken off."""
        self._agenda.drop(held)
        if held.place is Place.LOOK:
            self.interrupt(held)
        else:
            held.place = Place.NOWHERE

    def interrupt(self, held: HeldWait) -> None:
        """Breaks a look off that is under way."""
        held.attention = True
        if held.timer is not None and not held.timer.expired():
            held.timer.reschedule(asyncio.get_running_loop().time())

    async def stop(self, waits: Iterable[HeldWait]) -> None:
        """No wait is due any more, and no look is under way when this returns."""
        self._closed = True
        self._agenda.clear(waits)
        for line in self._lines.values():
            line.queue.clear()
        callers = list(self._callers)
        for caller in callers:
            caller.cancel()
        if callers:
            await asyncio.gather(*callers, return_exceptions=True)

    def go_on(self) -> None:
        """After a stop."""
        self._closed = False

    # --- looking -----------------------------------------------------------------------------------------------------

    def _come_up(self, due: list[HeldWait]) -> None:
        for held in due:
            if self._is_up(held):
                held.place = Place.TIME
                self._up(held)
                continue
            line = self._lines[held.execution.run.executor]
            held.place = Place.LINE
            # What is to end does not wait behind what goes on.
            if held.stage is Stage.CANCELLING:
                line.queue.appendleft(held)
            else:
                line.queue.append(held)
            if line.busy < line.callers and not self._closed:
                line.busy += 1
                caller = asyncio.create_task(self._call(line), name="looking")
                self._callers.add(caller)
                caller.add_done_callback(self._callers.discard)

    async def _call(self, line: _Line) -> None:
        try:
            while line.queue:
                waits = self._next(line)
                if waits:
                    await self._look(waits)
        finally:
            line.busy -= 1

    def _next(self, line: _Line) -> list[HeldWait]:
        """The next in line, and behind it all that can be asked for together with it."""
        held = line.queue.popleft()
        if held.place is not Place.LINE:
            return []
        if not line.batches or not _can_be_asked_together(held):
            return [held]
        together = [held]
        others: list[HeldWait] = []
        while line.queue and len(together) < _AT_ONCE:
            held = line.queue.popleft()
            if held.place is Place.LINE:
                (together if _can_be_asked_together(held) else others).append(held)
        line.queue.extendleft(reversed(others))
        return together

    async def _look(self, waits: Sequence[HeldWait]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for held in waits:
            held.place = Place.LOOK
        verdicts: Sequence[Verdict]
        try:
            with contained():
                if len(waits) == 1:
                    verdicts = [await self._looker.look(waits[0])]
                else:
                    verdicts = await self._looker.look_many(waits)
        except Exception:
            log.error("waits could not be looked at", runs=[held.name for held in waits], exc_info=True)
            verdicts = [Again(max(held.interval, SECOND)) for held in waits]
        took = loop.time() - begun
        for held, verdict in zip(waits, verdicts, strict=True):
            held.place, held.attention = Place.NOWHERE, False
            self.looks += 1
            self.errors += held.errors > 0
            if self.on_look is not None:
                self.on_look(held.execution.run.executor, begun - held.due, took)
            self._looked(held, verdict)


def _can_be_asked_together(held: HeldWait) -> bool:
    return held.kind is WaitKind.JOB and held.stage is Stage.WAITING
