"""Workers and commands behind pgbouncer, in each of the modes that work, and while it is restarted."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import assert_every_second_once, task, ticking
from tests.pgbouncer import pgbouncer

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]

DEAF = "nobody can listen through this pooler"
RESYNC = 8


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_workers_share_the_work_behind_a_pooler(mode: str, new_world: NewWorld, empty_postgres_url: str) -> None:
    with pgbouncer(empty_postgres_url, mode, default_pool_size="30") as pooler:
        world = new_world(
            empty_postgres_url,
            [ticking("tick"), task("manual", "shell", {"command": ["true"]}, trigger={})],
            worker={"lease": "3s", "resync_interval": f"{RESYNC}s"},
            database={"url": pooler.url(empty_postgres_url)},
        )
        upgrade = world.call("db", "upgrade")
        assert upgrade.returncode == 0, upgrade.stderr
        with world.worker() as one, world.worker() as two:
            world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 3, "they fire")
            for worker in (one, two):
                if mode == "transaction":
                    worker.until_said(DEAF)
                worker.until_said("ready")
            told = time.monotonic()
            fired = world.call("triggers", "fire", "manual/t")
            assert fired.returncode == 0, fired.stderr
            world.until(lambda: len(world.runs("manual", "SUCCEEDED")) == 1, "a command is obeyed", RESYNC + 20)
            print(f"{mode}: obeyed after {time.monotonic() - told:.1f} s")
            pooler.stop()
            for worker in (one, two):
                worker.until_said("degraded")
            pooler.start()
            count = len(world.runs("tick", "SUCCEEDED"))
            world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= count + 5, "they fire again")
            assert one.stop() == 0
            assert two.stop() == 0
        for worker in (one, two):
            assert worker.log().count(DEAF) == (mode == "transaction")
            assert not worker.said("Traceback")
    assert_every_second_once(world.ledger("tick"))
    assert all((run["attempt"], run["lost"]) == (1, 0) for run in world.runs("tick", "SUCCEEDED"))
