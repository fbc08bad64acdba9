"""The clockwork: APScheduler rings bells at instants and beats; it never does work, and nothing is kept in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from scheduler.clock import Clock, SystemClock
from scheduler.domain.instants import SECOND, Micros, to_datetime

# A timer far away is looked at again by the sync beat anyhow; a bound keeps dates within what a calendar can hold.
_FARTHEST = 24 * 3_600 * 1_000_000
# Two rings of an alarm closer than this are one: a claim that finds nothing must not become a spin. The first comes in time.
_APART = 50_000

Ring = Callable[[], None]


class Beats:
    """One-shot alarms and regular beats, each of which rings a bell on the event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        # APScheduler follows the machine's wall clock, whatever clock the store goes by.
        self._clock = clock or SystemClock()
        self._beats: dict[str, tuple[float, Ring]] = {}
        self._rang: dict[str, float] = {}
        self._scheduler = AsyncIOScheduler(timezone="UTC", logger=_quiet())
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        self.failures = 0

    def start(self) -> None:
        """Begins to ring; call it on the event loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """Rings no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, name: str, seconds: float, ring: Ring) -> None:
        """Rings regularly, first after one beat."""
        self._beats[name] = (seconds, ring)
        self._scheduler.add_job(
            _calling(ring),
            IntervalTrigger(seconds=seconds, timezone="UTC"),
            id=name,
            replace_existing=True,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )

    def alarm(self, name: str, delay: Micros | None, ring: Ring) -> Micros | None:
        """Rings once after `delay` microseconds, replacing the alarm of that name; None takes it away.

        Returns after how many it will ring: not sooner than 50 ms after it rang last.

        Never call it from inside `ring`: a job that re-arms itself for now while it runs would be dropped.
        """
        if delay is None:
            if self._scheduler.get_job(name) is not None:
                self._scheduler.remove_job(name)
            return None

        def ring_alarm() -> None:
            self._rang[name] = time.monotonic()
            ring()

        wait = 0
        if name in self._rang:
            wait = _APART - int((time.monotonic() - self._rang[name]) * SECOND)
        rings_in = min(max(delay, wait, 0), _FARTHEST)
        self._scheduler.add_job(
            _calling(ring_alarm),
            DateTrigger(to_datetime(self._clock.now() + rings_in), timezone="UTC"),
            id=name,
            replace_existing=True,
            misfire_grace_time=None,
        )
        return rings_in

    def rearm(self) -> None:
        """After the wall clock jumped: every beat starts anew from now, so that none waits for the old time to return."""
        for name, (seconds, ring) in self._beats.items():
            self.every(name, seconds, ring)
        self._scheduler.wakeup()

    def _failed(self, event: JobExecutionEvent) -> None:
        self.failures += 1


def _calling(ring: Ring) -> Any:
    # A coroutine function runs on the event loop itself; a plain function would be sent to a thread.
    async def call() -> None:
        ring()

    return call


def _quiet() -> logging.Logger:
    logger = logging.getLogger("scheduler.beats.apscheduler")
    logger.setLevel(logging.ERROR)
    return logger


def seconds(duration: timedelta) -> float:
    """A duration in seconds."""
    return duration.total_seconds()
