"""Looks at the whole database at every beat, never for more than a hundredth of the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from scheduler.errors import StoreUnavailable
from scheduler.loop.beats import Beats
from scheduler.loop.doorbell import Doorbell
from scheduler.loop.transactions import Transactions
from scheduler.services.sample import Sample, take_sample

log = structlog.get_logger("scheduler.sampling")

_BEAT_SECONDS = 15.0
# With a million runs waiting a look takes a few hundred milliseconds: then there are fewer of them.
_SHARE = 100


class Sampling:
    """Keeps the last look at the database and hands each on. Without it nothing else works differently."""

    def __init__(
        self,
        transactions: Transactions,
        beats: Beats,
        executors: Collection[str],
        on_sample: Callable[[Sample], None] | None = None,
    ) -> None:
        """`executors` are those whose waiting runs are counted by name."""
        self._transactions = transactions
        self._executors = executors
        self._on_sample = on_sample
        self._not_before = 0.0
        self._failing = False
        self._taken_at: float | None = None
        self.last: Sample | None = None
        self.bell = Doorbell()
        beats.every("sample", _BEAT_SECONDS, self.bell.ring)
        beats.alarm("first sample", 0, self.bell.ring)  # As soon as the beats begin, when the worker does.

    @property
    def age(self) -> float | None:
        """Seconds since the last look that the database answered; None before the first."""
        return None if self._taken_at is None else asyncio.get_running_loop().time() - self._taken_at

    async def run_forever(self) -> None:
        """Answers the bell until cancelled."""
        while True:
            await self.bell.wait()
            await self.run_once()

    async def run_once(self) -> None:
        """One look, unless the last ones took too much of the time; one that fails leaves things as they were."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before or self._transactions.away:
            return  # While the database is away, those who need it are first to notice its return.
        try:
            sample = await self._transactions.read(take_sample, self._executors)
        except StoreUnavailable:
            return  # Whoever cannot do without the database says so; here its age shows it.
        except RuntimeError:
            return  # The threads are closed: the worker is leaving.
        except Exception as error:
            # Figures that are missing are no reason to stop working.
            if not self._failing:
                log.error("the database could not be looked at for its figures", error=str(error))
            self._failing = True
            return
        self._failing = False
        self.last, self._taken_at = sample, loop.time()
        self._not_before = self._taken_at + sample.seconds * _SHARE
        if self._on_sample is not None:
            self._on_sample(sample)
