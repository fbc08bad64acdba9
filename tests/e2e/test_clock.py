"""A wall clock that is set forth and back by hours under a running worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from executors import LoggingExecutor
from executors.registry import parse_config
from scheduler.client import Client
from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.loop.worker import Worker, WorkerOptions
from scheduler.services.operate import TriggerKey
from scheduler.store.transaction import Store
from tests.conftest import BOTH
from tests.e2e.worlds import DOMAIN, EVERYTHING, PROJECT, assert_every_second_once, open_runs

HOUR = 3_600 * SECOND
KEY = TriggerKey(PROJECT, DOMAIN, "tick", "t")


class MovedClock:
    """The machine's clock, as wrong as it is set to be."""

    def __init__(self) -> None:
        self.offset: Micros = 0

    def now(self) -> Micros:
        """The present instant by this clock."""
        return time.time_ns() // 1_000 + self.offset


@pytest.mark.heavy
@pytest.mark.parametrize("kind", BOTH)
def test_jumps_by_hours_lose_no_slot_and_double_none(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    clock = MovedClock()
    store = Store.open(url, clock=clock)
    client = Client(store, create_projects=True)
    every_second = (TriggerSpec("t", FixedRate(1, "second")),)
    definition = TaskDefinition(PROJECT, DOMAIN, "tick", "v1", TaskSpec("logging"), every_second)
    assert all(result.applied for result in client.deploy([definition]))
    waited: list[float] = []

    async def jump(hours: float, *, fires: bool = True) -> None:
        clock.offset += int(hours * HOUR)
        at, begun = clock.now(), time.monotonic()
        if fires:
            # On-time runs after the jump, by the clock as it is now.
            await _until(lambda: _count(client, after=at) >= 1)
            waited.append(time.monotonic() - begun)
            await _until(lambda: _count(client, after=at) >= 4)
        else:
            await asyncio.sleep(5)

    async def life() -> None:
        worker = Worker(
            store,
            {"logging": LoggingExecutor()},
            WorkerOptions(),
            prepare=lambda executor, execution: parse_config(type(executor), execution.spec.config),
            clock=clock,
        )
        working = asyncio.create_task(worker.run())
        try:
            await _until(lambda: _count(client) >= 3)
            await jump(-2)  # into hours that nobody has decided
            await jump(+6)  # most of them are skipped by the cap of catch-up
            await jump(-1, fires=False)  # into hours that have their entries already, and keep them
            await jump(+1)
            await jump(-9)
            await jump(+12)
        finally:
            worker.stop()
            await working

    asyncio.run(life())
    with capsys.disabled():
        print(f"\n{kind}: fires again after {', '.join(f'{seconds:.1f}' for seconds in waited)} s")
    ledger = client.list_slots(KEY, EVERYTHING)
    slots = assert_every_second_once(ledger)
    assert slots[-1] - slots[0] >= 12 * HOUR
    runs = client.list_runs(limit=EVERYTHING)
    store.close()
    assert not open_runs(runs)
    assert {run["phase"] for run in runs} == {"SUCCEEDED"}
    # The guard looks once a second, the first slot after a jump is at most a second away.
    assert max(waited) < 4


def _count(client: Client, after: Micros | None = None) -> int:
    runs: list[dict[str, Any]] = client.list_runs(phase="SUCCEEDED", limit=EVERYTHING)
    return len([run for run in runs if after is None or after < run["scheduled_at"] <= after + 60 * SECOND])


async def _until(condition: Callable[[], bool], within: float = 15.0) -> None:
    end = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, "it does not go on after the jump"
        await asyncio.sleep(0.1)
