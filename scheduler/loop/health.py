"""A worker's judgement of itself, from what it knows already: nothing here asks the database or waits for anything.

*Live* is a worker that no restart would make better; it depends on nothing outside the process. *Ready* is one that
takes part: registered, its lease in force, the database answering, the schema right, not about to leave.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from scheduler.loop.lag import LoopLag
from scheduler.loop.sampling import Sampling
from scheduler.loop.worker import Worker

_LIVE_LAG: Final = 10.0
_READY_LAG: Final = 1.0
_STUCK: Final = 60.0
_SILENT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: whether it is as it should be, and what was seen, in plain words without addresses."""

    name: str
    ok: bool
    seen: str


class Health:
    """Answers whether a worker lives and whether it is ready; call it on the worker's event loop."""

    def __init__(self, worker: Worker, lag: LoopLag, sampling: Sampling, *, lease: timedelta) -> None:
        self._worker = worker
        self._lag = lag
        self._sampling = sampling
        self._lease = lease.total_seconds()

    def live(self) -> list[Check]:
        """Whether the event loop turns and the heartbeat beats; a database that is away changes neither."""
        lag, bound, stage = self._lag.worst, max(_LIVE_LAG, self._lease), self._worker.stage
        return [
            # It leaves by itself then; should it hang in that, it needs help.
            Check("worker", stage != "dying", stage),
            Check("loop", lag < bound, f"{lag:.3f} s late at worst, {bound:g} s is too much"),
            self._heartbeat(),
        ]

    def ready(self) -> list[Check]:
        """Whether this worker fires and performs what is due."""
        lag = self._lag.worst
        stage = self._worker.stage
        return [
            Check("worker", stage == "working", stage),
            self._lease_in_force(),
            self._database(),
            self._clock(),
            self._schema(),
            self._resources(),
            Check("loop", lag < _READY_LAG, f"{lag:.3f} s late at worst, {_READY_LAG:g} s is too much"),
        ]

    @property
    def is_ready(self) -> bool:
        """Whether every check of `ready` is as it should be."""
        return all(check.ok for check in self.ready())

    def _heartbeat(self) -> Check:
        heartbeat, transactions = self._worker.heartbeat, self._worker.transactions
        if self._worker.stage != "working":
            return Check("heartbeat", True, f"not looked at while {self._worker.stage}")
        bound = max(_STUCK, 2 * self._lease)
        since = heartbeat.asking_since
        if since is None:
            overdue = heartbeat.overdue
            return Check("heartbeat", overdue < bound, f"overdue by {overdue:.1f} s, {bound:g} s is too much")
        waiting = asyncio.get_running_loop().time() - since
        answered = transactions.answered_at is not None and transactions.answered_at > since + bound / 2
        # While the database answers nobody it is the database that is stuck, and a restart would only cost running work.
        return Check("heartbeat", waiting < bound or not answered, f"under way for {waiting:.1f} s")

    def _lease_in_force(self) -> Check:
        left = self._worker.heartbeat.lease_left
        if not self._worker.heartbeat.incarnation:
            return Check("lease", False, "not registered yet")
        return Check("lease", left > 0, f"{left:.1f} s left" if left > 0 else f"over for {-left:.1f} s")

    def _database(self) -> Check:
        transactions = self._worker.transactions
        if transactions.answered_at is None:
            return Check("database", False, "has not answered yet")
        silent = asyncio.get_running_loop().time() - transactions.answered_at
        # The heartbeat asks at every third of the lease: half of it without an answer means that one is missing.
        bound = max(_SILENT, self._lease / 2)
        ok = silent < bound and not transactions.away and transactions.degraded_since is None
        trouble = f", away now{': ' if transactions.trouble else ''}{transactions.trouble}" if not ok else ""
        return Check("database", ok, f"answered {silent:.1f} s ago{trouble}")

    def _resources(self) -> Check:
        lacking = self._worker.dispatching.lacking
        seen = "; ".join(f"{executor}: {why}" for executor, why in lacking.items())
        return Check("resources", not lacking, seen or "nothing is lacking")

    def _clock(self) -> Check:
        guard = self._worker.guard
        doubt = None if guard is None else guard.doubt()
        return Check("clock", doubt is None, "believed" if doubt is None else str(doubt))

    def _schema(self) -> Check:
        sample = self._sampling.last
        if sample is None:
            return Check("schema", False, "not looked at yet")
        found, needed = sample.schema.found or "none", sample.schema.needed
        return Check("schema", sample.schema.bearable, f"{found}, this version needs {needed}")
