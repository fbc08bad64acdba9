"""A worker's judgement of itself, of a real worker on a real database, while things go wrong around it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text

from executors import Executor, LoggingExecutor, Outcome, RunContext, Succeeded
from scheduler.app import App, HttpSessions
from scheduler.client import Client
from scheduler.loop import health as health_module
from scheduler.loop import lag as lag_module
from scheduler.loop import sampling as sampling_module
from scheduler.loop.health import Check, Health
from scheduler.loop.lag import LoopLag
from scheduler.loop.sampling import Sampling
from scheduler.loop.worker import Worker
from scheduler.services.plan import Planning
from scheduler.settings import Settings
from scheduler.store.transaction import Store
from tests.integration.worlds import definition, key, trigger


@dataclass
class Living:
    """A worker that runs in this process, and what looks at it."""

    worker: Worker
    health: Health
    sampling: Sampling
    store: Store

    @property
    def unready(self) -> set[str]:
        """The checks of `ready` that fail."""
        return failing(self.health.ready())

    @property
    def unlive(self) -> set[str]:
        """The checks of `live` that fail."""
        return failing(self.health.live())


def failing(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


async def until(condition: Callable[[], object], what: str, within: float = 15) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def prepared(
    url: str, lease: str = "3s", executor: Executor | None = None
) -> AsyncIterator[tuple[Living, Callable[[], None]]]:
    """A worker that has not begun, and what makes it begin; at the end it is told to stop, and has."""
    settings = Settings(
        database={"url": url}, tasks=(), worker={"lease": lease, "resync_interval": "200ms", "shutdown_grace": "1s"}
    )
    executors: dict[str, Executor] = {"logging": executor or LoggingExecutor()}
    app = App(settings, executors=executors)
    store, sessions = app.open_store(), HttpSessions()
    worker = app.make_worker(store, executors, sessions)
    lag, sampling = LoopLag(), Sampling(worker.transactions, worker.beats, executors)
    living = Living(worker, Health(worker, lag, sampling, lease=settings.worker.lease), sampling, store)
    loops = [asyncio.create_task(lag.run_forever()), asyncio.create_task(sampling.run_forever())]
    running: list[asyncio.Task[None]] = []
    try:
        yield living, lambda: running.append(asyncio.create_task(worker.run()))
    finally:
        worker.stop()
        await asyncio.wait_for(asyncio.gather(*running), 30)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        store.close()


@asynccontextmanager
async def ready(url: str, lease: str = "3s") -> AsyncIterator[Living]:
    """A worker that is ready."""
    async with prepared(url, lease) as (living, begin):
        begin()
        await until(lambda: living.health.is_ready, "it is ready")
        yield living


def test_a_worker_is_live_from_the_start_and_ready_from_when_it_works_to_when_it_is_told_to_stop(
    database_url: str,
) -> None:
    async def test() -> None:
        async with prepared(database_url) as (living, begin):
            assert living.unready == {"worker", "lease", "database", "schema"}
            assert not living.unlive
            begin()
            await until(lambda: living.health.is_ready, "it is ready")
            assert not living.unlive
            living.worker.stop()
            assert living.unready == {"worker"}
            assert not living.unlive

    asyncio.run(test())


def test_what_is_seen_holds_no_address_and_no_password(sqlite_url: str) -> None:
    async def test() -> None:
        async with ready(sqlite_url) as living:
            said = " ".join(check.seen for check in [*living.health.ready(), *living.health.live()])
            assert "sqlite" not in said
            assert "/" not in said

    asyncio.run(test())


def test_under_an_older_schema_a_worker_is_not_ready_under_a_newer_one_it_goes_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_module, "_SHARE", 0)

    async def test() -> None:
        async with ready(sqlite_url) as living:
            assert living.sampling.last is not None
            needed = living.sampling.last.schema.needed

            def becomes(revision: str) -> None:
                with living.store.begin() as tx:
                    tx.connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))

            def unready_now() -> set[str]:
                living.sampling.bell.ring()
                return living.unready

            await asyncio.to_thread(becomes, "0001")
            await until(lambda: unready_now() == {"schema"}, "the older schema is noticed")
            assert not living.unlive
            await asyncio.to_thread(becomes, "9999")
            await until(lambda: not unready_now(), "the newer schema is borne")
            await asyncio.to_thread(becomes, needed)

    asyncio.run(test())


@pytest.mark.heavy
def test_a_loop_that_was_held_up_is_not_ready_for_a_while_and_not_live_if_it_was_for_long(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_READY_LAG", 0.3)
    monkeypatch.setattr(health_module, "_LIVE_LAG", 0.6)
    monkeypatch.setattr(lag_module, "_REMEMBERED_SECONDS", 1.0)

    async def test() -> None:
        async with ready(sqlite_url) as living:
            living.health._lease = 0.6  # The bound of liveness is never below a lease, which is a second at least.
            time.sleep(0.95)  # What an async callable that blocks does.
            assert living.unready == {"loop"}
            await until(lambda: living.health.is_ready, "the lag is past")
            time.sleep(1.6)
            assert living.unlive == {"loop"}
            await until(lambda: not living.unlive, "the lag is past")

    asyncio.run(test())


class Stubborn(Executor):
    """Takes its time to end when it is told to."""

    async def execute(self, run: RunContext) -> Outcome:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(2)
            raise
        return Succeeded()


@pytest.mark.heavy
def test_a_worker_of_which_a_loop_has_died_is_not_live_while_it_leaves(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug() -> None:
        raise RuntimeError("a mistake of ours")

    async def test() -> None:
        async with prepared(sqlite_url, executor=Stubborn()) as (living, begin):
            begin()
            await until(lambda: living.health.is_ready, "it is ready")
            client = Client(living.store, planning=Planning(60_000_000, "one"))
            await asyncio.to_thread(client.ensure_projects, {"flytesnacks": ["development"]})
            await asyncio.to_thread(list, client.deploy([definition(trigger("by-hand", None))]))
            await asyncio.to_thread(client.fire, key("by-hand"))
            await until(lambda: living.worker.dispatching.running, "it executes something")
            # What a database says ends no loop any more.
            monkeypatch.setattr(living.worker.recovering, "run_once", bug)
            living.worker.recovering.bell.ring()
            await until(lambda: living.unlive == {"worker"}, "a loop has died")
            assert "worker" in living.unready

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        asyncio.run(test())


@pytest.mark.heavy
@pytest.mark.postgres
def test_a_heartbeat_that_is_stuck_while_the_database_answers_others_is_not_live(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_STUCK", 1.0)

    async def test() -> None:
        async with ready(postgres_url, lease="1s") as living:
            with psycopg.connect(postgres_url) as other:
                other.execute("SELECT 1 FROM workers FOR UPDATE")
                await until(lambda: living.unlive == {"heartbeat"}, "the heartbeat is stuck", 10)
                assert "lease" in living.unready
                other.rollback()
            await until(lambda: not living.unlive and living.health.is_ready, "it beats again", 10)

    asyncio.run(test())


@pytest.mark.heavy
def test_a_database_that_answers_nobody_makes_no_worker_dead(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_STUCK", 1.0)
    monkeypatch.setattr(health_module, "_SILENT", 1.0)
    file = urlsplit(sqlite_url).path

    async def test() -> None:
        async with ready(sqlite_url, lease="1s") as living:
            other = sqlite3.connect(file, isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            await until(lambda: {"database", "lease"} <= living.unready, "nobody is answered")
            end = time.monotonic() + 4
            while time.monotonic() < end:
                assert not living.unlive
                await asyncio.sleep(0.05)
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: living.health.is_ready, "it goes on")

    asyncio.run(test())


def test_counting_the_database_takes_no_more_than_its_share_of_the_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with ready(sqlite_url) as living:
            monkeypatch.setattr(sampling_module, "_SHARE", 1_000_000)
            before = living.sampling.last

            def counted_again() -> bool:
                living.sampling.bell.ring()
                return living.sampling.last is not before

            await until(counted_again, "it counts again")
            last = living.sampling.last
            for _ in range(10):
                await living.sampling.run_once()
            assert living.sampling.last is last

    asyncio.run(test())
