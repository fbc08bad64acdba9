"""Plays one world from its seed to its last reckoning."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from scheduler.domain.run import Phase
from scheduler.services.finish import Ended
from scheduler.store.transaction import Store
from scheduler.store.upgrade import table_names, upgrade_schema
from scheduler.testing import ManualClock
from tests.simulation.invariants import violations
from tests.simulation.workers import LEASE
from tests.simulation.world import World

STEPS = 120
_LOOK_EVERY = 20


class WorldFailedError(AssertionError):
    """A world in which something was wrong; tells how to see it again."""

    def __init__(self, world: World, step: int, faults: list[str]) -> None:
        self.world = world
        how = f"python -m tests.simulation --seed {world.seed}"
        if world.store.dialect.name == "postgresql":
            how += " --postgres URL"
        super().__init__("\n".join([f"seed {world.seed}, step {step}; replay: {how}", *faults[:20]]))


def play(seed: int, store: Store, clock: ManualClock, steps: int = STEPS) -> World:
    """The world of a seed, all its invariants checked on the way and at the end; raises `WorldFailedError`."""
    world = World(seed, store, clock)
    step = 0
    try:
        for step in range(1, steps + 1):
            world.step()
            if step % _LOOK_EVERY == 0:
                _check(world, step)
        settle(world)
    except WorldFailedError:
        raise
    except Exception as error:
        raise WorldFailedError(world, step, [f"{type(error).__name__}: {error}"]) from error
    _check(world, step)
    if still_open := [run for run in world.runs.runs.values() if run.phase.open]:
        raise WorldFailedError(world, step, [f"{run.name} never ended: {run}" for run in still_open])
    return world


def settle(world: World) -> None:
    """Peace at last: everyone dies, and one worker that never fails takes over until nothing is open."""
    world.workers.clear()
    newest = max((world.renewed[incarnation] for incarnation in world.living), default=0)
    world.move_clock(max(0, newest + LEASE + 1 - world.now))
    heir = world.start_worker()
    heir.immortal = True
    heir.notice_clock_set_back()
    open_runs = True
    while open_runs:
        heir.renew()
        heir.sync()
        heir.fire()
        heir.recover(judge=True)
        heir.take(on_time=1_000, late=1_000)
        heir.ended += [Ended(execution, Phase.SUCCEEDED) for execution in heir.held.values()]
        heir.held.clear()
        heir.flush()
        open_runs = [run for run in world.runs.runs.values() if run.phase.open]
        waits = [run.not_before for run in open_runs if run.not_before > world.now]
        world.move_clock(max(waits) - world.now if waits else 0)


def _check(world: World, step: int) -> None:
    if faults := violations(world):
        raise WorldFailedError(world, step, faults)


@contextmanager
def sqlite_world() -> Iterator[tuple[Store, ManualClock]]:
    """An empty database in a file of its own, in memory where the machine offers that."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=memory if memory.is_dir() else None))
    clock = ManualClock()
    store = Store.open(f"sqlite:///{folder}/world.db", clock=clock)
    try:
        upgrade_schema(store)
        yield store, clock
    finally:
        store.close()
        shutil.rmtree(folder)


@contextmanager
def postgres_world(url: str) -> Iterator[tuple[Store, ManualClock]]:
    """A PostgreSQL database, emptied before it is used: many worlds may follow each other in it."""
    clock = ManualClock()
    store = Store.open(url, clock=clock)
    try:
        upgrade_schema(store)
        with store.begin() as tx:
            names = ", ".join(table for table in table_names(store) if table != "alembic_version")
            tx.connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        yield store, clock
    finally:
        store.close()
