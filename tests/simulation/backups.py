"""A backup of the database, and the day on which it is restored: all that happened since never happened."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from scheduler.errors import ClockJumped
from scheduler.services.restored import abort_restored, begin_epoch, skip_restored
from scheduler.services.sync import refresh_summaries
from scheduler.store.schema import metadata
from tests.simulation.ledger import TriggerModel
from tests.simulation.people import Register
from tests.simulation.runs import RunsModel

if TYPE_CHECKING:
    from tests.simulation.world import World

_PLENTY = 1_000
_TABLES = {table: [column for column in table.columns if column.computed is None] for table in metadata.sorted_tables}


class Backups:
    """Whoever keeps the backup of a world. Workers of before live on, and nothing they say may count."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._likely = world.random.choice([0, 0, 0, 0.1])
        self._rows: dict[str, list[dict[str, Any]]] | None = None
        self._models: tuple[dict[int, TriggerModel], RunsModel, Register, set[str], set[str]] | None = None

    def step(self) -> bool:
        """Something may happen to the backup; True if it did."""
        choice = self._world.random.random()
        if self._rows is None and choice < self._likely:
            self.make()
        elif self._rows is not None and choice < 3 * self._likely:
            # Soon afterwards, so that runs of the backup are still in somebody's hands.
            self.restore(catch_up=self._world.random.random() < 0.5)
        else:
            return False
        return True

    def make(self) -> None:
        """Keeps all rows, and what the models say of them."""
        world = self._world
        with world.store.read() as tx:
            self._rows = {
                table.name: [dict(row) for row in tx.connection.execute(select(*columns)).mappings()]
                for table, columns in _TABLES.items()
            }
        self._models = deepcopy((world.triggers, world.runs, world.people.register, world.flickered, world.registered))
        world.tell("a backup was made")

    def restore(self, *, catch_up: bool) -> None:
        """Puts the backup in the place of the database, and says so to the scheduler before anybody acts."""
        world = self._world
        assert self._rows is not None
        assert self._models is not None
        with world.store.begin() as tx:
            for table in reversed(_TABLES):
                tx.connection.execute(table.delete())
            for table in _TABLES:
                if self._rows[table.name]:
                    tx.connection.execute(table.insert(), self._rows[table.name])
        models = deepcopy(self._models)
        world.triggers, world.runs, world.people.register, world.flickered, world.registered = models
        world.void |= {f"incarnation-{number}" for number in range(1, world.incarnations + 1)}
        world.living, world.valid = set(), set()
        world.tell(f"the backup was restored, {'to be caught up' if catch_up else 'to skip what it owes'}")
        world.run(begin_epoch)
        if not catch_up:
            self._skip()
        elif world.random.random() < 0.5:
            self._late_results()

    def _late_results(self) -> None:
        """Workers of before record what they executed, before anybody has taken it back."""
        for worker in list(self._world.workers):
            if not worker.frozen:
                worker.succeed()
                with suppress(ClockJumped):  # Then it records them once it believes the clock.
                    worker.flush()

    def _skip(self) -> None:
        world, planning = self._world, self._world.people.planning
        open_runs = len(world.runs.open())
        assert world.run(abort_restored, _PLENTY) == open_runs
        world.runs.aborted()
        while (answer := world.run(skip_restored, planning, _PLENTY))[0] > 0:
            count, tasks = answer
            due = [number for number, model in sorted(world.triggers.items()) if model.is_due(world.now)]
            assert count == len(due)
            for number in due:
                if world.triggers[number].is_as_planned(world.now):
                    world.triggers[number].restored(world.now)
                else:
                    world.looked(number, planning)
            world.run(refresh_summaries, tasks)
