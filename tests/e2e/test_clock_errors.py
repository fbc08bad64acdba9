"""A clock that is a year ahead for some seconds, under a running worker and under one that starts meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from executors import LoggingExecutor
from executors.registry import parse_config
from scheduler.client import Client
from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.loop import clock_guard
from scheduler.loop.health import Health
from scheduler.loop.lag import LoopLag
from scheduler.loop.sampling import Sampling
from scheduler.loop.worker import Worker, WorkerOptions
from scheduler.services.operate import TriggerKey
from scheduler.store.transaction import Store
from tests.e2e.worlds import DOMAIN, PROJECT

YEAR = 8_760 * 3_600 * SECOND
KEY = TriggerKey(PROJECT, DOMAIN, "tick", "t")
OPTIONS = WorkerOptions(lease=timedelta(seconds=3), max_clock_jump=timedelta(hours=1))


class MovedClock:
    """The machine's clock, as wrong as it is set to be."""

    def __init__(self) -> None:
        self.offset: Micros = 0

    def now(self) -> Micros:
        """The present instant by this clock."""
        return time.time_ns() // 1_000 + self.offset


class Place:
    """A database with a trigger that fires each second, and the clock that decides."""

    def __init__(self, url: str) -> None:
        self.clock = MovedClock()
        self.store = Store.open(url, clock=self.clock)
        self.client = Client(self.store, create_projects=True)
        every_second = (TriggerSpec("t", FixedRate(1, "second")),)
        definition = TaskDefinition(PROJECT, DOMAIN, "tick", "v1", TaskSpec("logging"), every_second)
        assert all(result.applied for result in self.client.deploy([definition]))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Health]:
        """A worker of this place, and its health."""
        worker = Worker(
            self.store,
            {"logging": LoggingExecutor()},
            OPTIONS,
            prepare=lambda executor, execution: parse_config(type(executor), execution.spec.config),
            clock=self.clock,
        )
        working = asyncio.create_task(worker.run())
        sampling = Sampling(worker.transactions, worker.beats, {"logging"})
        try:
            yield Health(worker, LoopLag(), sampling, lease=OPTIONS.lease)
        finally:
            worker.stop()
            await working

    def runs(self) -> list[Micros]:
        return sorted(run["scheduled_at"] for run in self.client.list_runs(limit=10_000))

    def newest(self) -> Micros:
        return max(self.runs(), default=0)

    async def fires(self) -> None:
        """Something fires from now on."""
        begun = self.clock.now()
        end = time.monotonic() + 15
        while await asyncio.to_thread(self.newest) <= begun:
            assert time.monotonic() < end, "it does not go on"
            await asyncio.sleep(0.05)


def doubted(health: Health) -> bool:
    return any(check.name == "clock" and not check.ok for check in health.ready())


async def doubts(health: Health) -> None:
    """Waits until the worker does not believe the clock."""
    async with asyncio.timeout(15):
        while not doubted(health):
            await asyncio.sleep(0.05)


def test_a_clock_a_year_ahead_for_seconds_decides_nothing(sqlite_url: str) -> None:
    place = Place(sqlite_url)

    async def life() -> None:
        async with place.worker() as health:
            await place.fires()
            place.clock.offset += YEAR
            await doubts(health)
            await asyncio.sleep(1.5)
            place.clock.offset -= YEAR
            await place.fires()
            assert not doubted(health)

    with capture_logs() as logs:
        asyncio.run(life())
    assert place.newest() <= place.clock.now()
    entries = place.client.list_slots(KEY, 1_000)
    assert {entry["kind"] for entry in entries} == {"run"}, "what came due meanwhile is late by seconds, and fires"
    slots = place.runs()
    assert slots == list(range(slots[0], slots[-1] + 1, SECOND))
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["the clock jumped ahead: nothing is decided until that has lasted"]
    place.store.close()


def test_a_jump_that_lasts_is_believed(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_guard, "LASTING", 2 * SECOND)
    place = Place(sqlite_url)

    async def life() -> None:
        async with place.worker() as health:
            await place.fires()
            place.clock.offset += 3 * 3_600 * SECOND
            await doubts(health)
            await place.fires()
            assert not doubted(health)

    asyncio.run(life())
    place.store.close()


def test_a_worker_that_starts_while_the_clock_is_wrong_decides_nothing_either(sqlite_url: str) -> None:
    place = Place(sqlite_url)

    async def life() -> None:
        async with place.worker():
            await place.fires()
        before = await asyncio.to_thread(place.runs)
        place.clock.offset += YEAR
        async with place.worker() as health:
            await doubts(health)
            await asyncio.sleep(1.5)
            assert await asyncio.to_thread(place.runs) == before
            place.clock.offset -= YEAR
            await place.fires()

    asyncio.run(life())
    assert place.newest() <= place.clock.now()
    place.store.close()


def test_a_worker_told_to_stop_while_the_clock_is_wrong_leaves_and_records_what_ended(sqlite_url: str) -> None:
    place = Place(sqlite_url)

    async def life() -> None:
        async with place.worker() as health:
            await place.fires()
            place.clock.offset += YEAR
            await doubts(health)
        place.clock.offset -= YEAR

    begun = time.monotonic()
    asyncio.run(life())
    assert time.monotonic() - begun < 20
    assert {run["phase"] for run in place.client.list_runs(limit=10_000)} <= {"SUCCEEDED", "QUEUED"}
    place.store.close()


def test_a_worker_that_was_down_for_a_week_begins_at_once(sqlite_url: str) -> None:
    place = Place(sqlite_url)

    async def life() -> None:
        async with place.worker():
            await place.fires()
        # As if the last worker had been here a week ago; nobody set the clock since.
        with place.store.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE workers SET renewed_at = renewed_at - {YEAR // 52}")
        begun = time.monotonic()
        async with place.worker() as health:
            await place.fires()
            assert not doubted(health)
        assert time.monotonic() - begun < 10

    asyncio.run(life())
    place.store.close()
