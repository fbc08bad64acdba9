"""A proxy between worker and database that resets, silences or slows down: the worker notices, goes on, and can be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from tests.e2e.conftest import NewWorld
from tests.e2e.web import ANY_PORT, Web
from tests.e2e.worlds import WorkerProcess, World, assert_every_second_once, task, ticking
from tests.fakes.proxy import Proxy

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]

GRACE = 5
# What is closed and said at the very end, and a machine that is busy.
AND_THEN = 15.0
FAULTS: dict[str, Callable[[Proxy], None]] = {
    "reset": Proxy.reset,
    "silent": Proxy.silence,
    "silent but for new connections": lambda proxy: proxy.silence(new=False),
    "slow": lambda proxy: proxy.slow(0.15),
}


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """A proxy in front of this test's database."""
    with Proxy(f"{make_url(postgres_url).query['host']}/.s.PGSQL.5432") as running:
        yield running


@pytest.fixture
def behind(new_world: NewWorld, postgres_url: str, proxy: Proxy) -> Callable[..., World]:
    """A world whose workers see the database through the proxy, and the test as it is."""

    def make(timeout: str, **more: Any) -> World:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(postgres_url).path}"
        worker = {"lease": "3s", "resync_interval": "1s", "shutdown_grace": f"{GRACE}s"}
        database = {"url": url, "command_timeout": timeout}
        return new_world(postgres_url, [ticking("tick")], worker=worker, database=database, **more)

    return make


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_proxy_does_for_a_while_costs_no_slot_and_holds_up_no_stop(
    fault: str, behind: Callable[..., World], proxy: Proxy
) -> None:
    world = behind("2s", web=ANY_PORT)
    with world.worker() as worker:
        web = Web(worker)
        web.until_ready()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        FAULTS[fault](proxy)
        if fault != "slow":
            worker.until_said("degraded")
            assert web.status("/livez") == 200
        if fault in ("reset", "silent"):
            assert "database" in web.failing()
            time.sleep(4)
            assert worker.running
        before = len(world.runs("tick", "SUCCEEDED"))
        if fault != "silent but for new connections":
            proxy.heal()
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= before + 5, "it fires again")
        web.until_ready()
        assert_every_second_once(world.ledger("tick"))
        FAULTS[fault](proxy)
        stops(worker)


@pytest.mark.parametrize("fault", ["silent", "silent but for new connections"])
def test_a_worker_is_stopped_within_its_grace_while_every_thread_waits_for_an_answer(
    fault: str, behind: Callable[..., World], proxy: Proxy
) -> None:
    world = behind("5m")
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "it fires")
        FAULTS[fault](proxy)
        time.sleep(2)
        stops(worker)


def stops(worker: WorkerProcess) -> None:
    """Tells it to stop: it does, in good order."""
    told = time.monotonic()
    assert worker.stop(GRACE + AND_THEN) == 0
    print(f"stopped after {time.monotonic() - told:.1f} s")
    assert worker.said("stopped")
    assert not worker.said("Traceback")


def test_connections_that_went_silent_cost_neither_the_lease_nor_the_hearing(
    new_world: NewWorld, postgres_url: str, proxy: Proxy
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}{urlsplit(postgres_url).path}"
    once = {"every": "1s", "max_fires": 1}
    world = new_world(
        postgres_url,
        [
            task("long", "shell", {"command": ["sleep", "25"]}, trigger=once),
            task("manual", "shell", {"command": ["true"]}, trigger={}),
        ],
        worker={"lease": "9s", "resync_interval": "5m"},
        database={"url": url, "command_timeout": "5m"},
    )
    with world.worker() as worker:
        world.until(lambda: len(world.runs("long", "RUNNING")) == 1, "the long one runs")
        with world.worker("other", SCHEDULER_DATABASE__URL=postgres_url, SCHEDULER_TASKS="[]") as other:
            other.until_said("ready")
            proxy.silence(new=False)
            world.until_closed("long", 60)
            assert other.stop() == 0
        (run,) = world.runs("long")
        assert (run["phase"], run["lost"]) == ("SUCCEEDED", 0)
        assert not other.said("a worker is gone")
        assert not worker.said("declared dead")
        # The listening connection has been made anew by now: the sync beat is minutes away.
        assert world.call("triggers", "fire", "manual/t").returncode == 0
        world.until(lambda: len(world.runs("manual", "SUCCEEDED")) == 1, "a command is heard of", 30)
        assert worker.stop() == 0
