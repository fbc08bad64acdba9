"""What operators and deploys say, and how soon a running worker acts on it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from scheduler.client import Client
from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.services.operate import TriggerKey
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import DOMAIN, PROJECT, World, reasons, ticking

pytestmark = pytest.mark.heavy

KEY = TriggerKey(PROJECT, DOMAIN, "tick", "t")


def test_a_pause_by_an_operator_survives_restarts_and_unchanged_deploys(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking("tick"), ticking("other")], worker={"resync_interval": "500ms"})
    with world.worker() as first:
        world.until(lambda: len(world.runs("tick")) >= 3, "it fires")
        assert world.call("triggers", "deactivate", "tick/t").returncode == 0
        time.sleep(1)
        paused = len(world.ledger("tick"))
        assert world.call("deploy", str(world.manifest)).returncode == 0
        time.sleep(2)
        first.kill()
    with world.worker() as second:
        world.until(lambda: world.runs("other", "SUCCEEDED"), "the worker is at work")
        others = len(world.runs("other"))
        world.until(lambda: len(world.runs("other")) >= others + 4, "the other trigger goes on")
        assert len(world.ledger("tick")) == paused
        assert world.client.show_trigger(KEY)["state"] == "inactive"
        assert world.call("triggers", "activate", "tick/t").returncode == 0
        world.until(lambda: len(world.ledger("tick")) >= paused + 3, "activated it goes on")
        assert second.stop() == 0

    # What was not owed while it was paused has no entry: the gap between the slots is the pause, and no reason covers it.
    ledger = world.ledger("tick")
    slots = [entry["scheduled_at"] for entry in ledger if entry["kind"] == "run"]
    assert max(later - earlier for earlier, later in pairwise(slots)) >= 4 * SECOND
    assert set(reasons(ledger)) <= {"paused"}


@pytest.mark.parametrize("kind", BOTH)
def test_another_process_deploys_and_the_worker_acts_on_it_at_once(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    # PostgreSQL tells; SQLite cannot, and the sync beat looks.
    beat, promised = ("2s", 2.0) if kind == "sqlite" else ("60s", 1.0)
    # Nothing else is due that would make the worker look.
    world = new_world(url, [ticking("idle", trigger={"every": "1d"})], worker={"resync_interval": beat, "lease": "30s"})
    with world.worker() as worker:
        worker.until_said("ready")
        time.sleep(2)
        waited = [seconds_until_first_run(world, f"new-{n}") for n in range(4)]
        assert worker.stop() == 0
    print(f"{kind}: first runs after {', '.join(f'{seconds:.2f}' for seconds in waited)} s")
    # The first slot is up to a second after the deploy, and a busy machine takes its time to run it.
    assert max(waited) <= promised + 1.0 + 1.0


def seconds_until_first_run(world: World, name: str) -> float:
    """Deploys a task of every second from here, as another process would, and waits until it has started."""
    definition = TaskDefinition(
        PROJECT, DOMAIN, name, "v1", TaskSpec("logging"), (TriggerSpec("t", FixedRate(1, "second"), max_fires=1),)
    )
    with Client.open(world.database_url) as client:
        assert all(result.applied for result in client.deploy([definition]))
        deployed = client.now()
    run = world.until(lambda: world.runs(name), f"{name} has fired")[-1]
    started = world.until(lambda: world.client.show_run(run["name"])["started_at"], "it has started")
    return float(started - deployed) / SECOND


@pytest.mark.postgres
def test_a_run_fired_by_hand_starts_within_a_second(new_world: NewWorld, postgres_url: str) -> None:
    world = new_world(postgres_url, [ticking("tick", trigger={"every": "1h"})], worker={"resync_interval": "60s"})
    with world.worker() as worker:
        worker.until_said("ready")
        time.sleep(1)
        for _ in range(5):
            name = world.client.fire(KEY)
            world.until(lambda name=name: world.client.show_run(name)["phase"] == "SUCCEEDED", "it is over", 10)
            run = world.client.show_run(name)
            assert run["started_at"] - run["created_at"] < SECOND
        assert worker.stop() == 0
