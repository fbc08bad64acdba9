"""Plays one world from its seed to its last reckoning."""

from __future__ import annotations

import gc
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import text
from structlog.testing import capture_logs

from scheduler.domain import overlap
from scheduler.domain.instants import SECOND
from scheduler.store.schema import metadata
from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema
from scheduler.testing import ManualClock
from tests.simulation.clocks import process_clocks
from tests.simulation.invariants import violations
from tests.simulation.rules import BUFFER
from tests.simulation.workers import LEASE, PLENTY
from tests.simulation.world import World

STEPS = 120
_LOOK_EVERY = 30
# Passes of a world's last worker: few worlds need more than five, hardly one more than twenty.
_PATIENCE = 500


class WorldFailedError(AssertionError):
    """A world in which something was wrong; tells how to see it again."""

    def __init__(self, world: World, step: int, faults: list[str], steps: int = STEPS) -> None:
        self.world = world
        how = f".venv/bin/python -m tests.simulation --seed {world.seed}"
        if steps != STEPS:
            how += f" --steps {steps}"
        if world.store.dialect.name == "postgresql":
            how += " --postgres URL"
        super().__init__("\n".join([f"seed {world.seed}, step {step}; replay: {how}", *faults[:20]]))


class Universe:
    """A database in which one world after the other is played; each finds it empty."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        upgrade_schema(store)
        self._tables = [table.name for table in reversed(metadata.sorted_tables)]

    def play(self, seed: int, steps: int = STEPS) -> World:
        """The world of a seed, all its invariants checked on the way and at the end; raises `WorldFailedError`."""
        self.empty()
        # What a world leaves behind is looked for once, when it is over.
        gc.disable()
        try:
            return play(seed, self.store, self.clock, steps)
        finally:
            gc.enable()

    def empty(self) -> None:
        """Forgets all that former worlds left behind."""
        with self.store.begin() as tx:
            if self.store.dialect.name == "postgresql":
                tx.connection.execute(text(f"TRUNCATE {', '.join(self._tables)} RESTART IDENTITY CASCADE"))
                return
            for name in self._tables:
                tx.connection.exec_driver_sql(f"DELETE FROM {name}")


@contextmanager
def universe(url: str | None = None) -> Iterator[Universe]:
    """A universe in a PostgreSQL database, or in a SQLite file of its own, in memory where the machine offers that."""
    clock = ManualClock()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="worlds-", dir=memory if memory.is_dir() else None))
    store = Store.open(url or f"sqlite:///{folder}/world.db", clock=clock)
    try:
        here = Universe(store, clock)
        gc.collect()
        gc.freeze()  # No search after a world looks at what was there before.
        yield here
    finally:
        gc.unfreeze()
        store.close()
        shutil.rmtree(folder)


def play(seed: int, store: Store, clock: ManualClock, steps: int = STEPS) -> World:
    """The world of a seed in an empty database."""
    world = World(seed, store, clock)
    step = 0

    def check(faults: list[str]) -> None:
        if faults:
            raise WorldFailedError(world, step, faults, steps)

    with process_clocks(world), _dice(world), patch.object(overlap, "MAX_BUFFERED", BUFFER), capture_logs():
        try:
            world.begin()
            for step in range(1, steps + 1):
                world.step()
                if step % _LOOK_EVERY == 0:
                    check(violations(world))
            settle(world)
        except WorldFailedError:
            raise
        except Exception as error:
            raise WorldFailedError(world, step, [f"{type(error).__name__}: {error}"], steps) from error
        check(violations(world))
    check([f"{run.name} never ended: {run}" for run in world.runs.open()])
    return world


def _dice(world: World) -> AbstractContextManager[object]:
    """What the product draws is drawn from the world's seed as well."""
    return patch.object(secrets, "token_hex", lambda size: f"{world.random.getrandbits(8 * size):0{2 * size}x}")


def settle(world: World) -> None:
    """Peace at last: everyone dies, and one worker that never fails takes over until nothing is open."""
    world.workers.clear()
    world.away_until = 0
    world.max_clock_jump = None
    heir = world.start_worker()
    heir.immortal = True
    heir.executors = ("simulated", "rare")
    heir.notice_clock_set_back()
    passes = 0
    while world.living != {heir.incarnation} and (passes := passes + 1) <= _PATIENCE:
        world.pass_time(LEASE + SECOND)
        heir.recover()
    assert world.living == {heir.incarnation}, f"nobody declared {world.living} dead"
    # What is open after so many passes will never end, and that is told afterwards.
    while (open_runs := world.runs.open()) and (passes := passes + 1) <= _PATIENCE:
        # Also what a worker took that a restore had voided, and that died before it heard of that.
        heir.recover()
        heir.sync()
        heir.fire()
        heir.expire()
        heir.take(on_time=PLENTY, late=PLENTY)
        heir.obey()
        heir.succeed()
        heir.flush()
        waits = [run.not_before for run in open_runs if run.phase.open and run.not_before > world.now]
        world.pass_time(min(waits, default=world.now) - world.now)
