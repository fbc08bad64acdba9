"""Those who write plain SQL: whatever they write is found, and nothing of the past fires for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from scheduler.domain.trigger import TriggerSpec
from scheduler.services.deploy import columns_of
from scheduler.services.operate import TriggerKey
from tests.simulation import people
from tests.simulation.grids import DAY, HOUR, MINUTE, Blackout, EveryMinutes, any_timetable
from tests.simulation.rules import Written

if TYPE_CHECKING:
    from tests.simulation.people import People
    from tests.simulation.world import World


class Editors:
    """Each method is one UPDATE."""

    def __init__(self, world: World, everyone: People) -> None:
        self._world = world
        self._random = world.random
        self._people = everyone

    def schedule(self) -> None:
        """Another schedule."""
        timetable, jitter = any_timetable(self._random, self._world.now), people.any_jitter(self._random)
        self._edit(lambda old: replace(old, timetable=timetable, jitter=jitter))

    def slightly(self) -> None:
        """The same schedule but for its jitter, an end or a quiet day far ahead, or every other slot."""
        random, now = self._random, self._world.now

        def change(old: Written) -> Written:
            if old.timetable is None:
                return old
            grid = old.timetable.grid
            far = Blackout((now // DAY + 30,), random.choice(["skip", "next", "previous"]))
            changes: list[dict[str, Any]] = [{"end": random.choice([None, now + 5 * DAY])}, {"blackout": far}]
            if isinstance(grid, EveryMinutes):
                changes.append({"grid": EveryMinutes(random.choice([1, 2, 3]))})
            if random.random() < 0.4:
                return replace(old, jitter=people.any_jitter(random))
            return replace(old, timetable=replace(old.timetable, **random.choice(changes)))

        self._edit(change)

    def nonsense(self) -> None:
        """What no deploy would have let through."""
        self._edit(lambda old: replace(old, timetable=None))

    def mend(self) -> None:
        """What cannot be planned is made what it was, or something else."""
        world, ids = self._world, self._people.register.ids
        broken = [key for key, number in sorted(ids.items()) if world.triggers[number].written.timetable is None]
        if not broken:
            return
        key = self._random.choice(broken)
        planned = world.triggers[ids[key]].planned
        jitter, timetable = 0, any_timetable(self._random, world.now)
        if planned is not None and self._random.random() < 0.6:
            jitter, timetable = planned.jitter, planned.timetable
        self._edit(lambda old: replace(old, timetable=timetable, jitter=jitter), key)

    def active(self) -> None:
        """On or off."""
        self._edit(lambda old: replace(old, active=not old.active))

    def deleted(self) -> None:
        """Gone, or back."""
        self._edit(lambda old: replace(old, deleted_at=None if old.deleted else 1))

    def snooze(self) -> None:
        """Asleep for a while, or awake."""
        until = self._world.now + self._random.randrange(-MINUTE, self._random.choice([5 * MINUTE, HOUR]))
        self._edit(lambda old: replace(old, snoozed_until=until if old.snoozed_until is None else None))

    def max_fires(self) -> None:
        """How often it may fire."""
        most = self._random.choice([None, 1, 3, 10, 30])
        self._edit(lambda old: replace(old, max_fires=most))

    def version(self) -> None:
        """Another version, or one that does not exist."""
        version = self._random.choice(["v1", "v2", "v9"])
        self._edit(lambda old: replace(old, version=version))

    def manners(self) -> None:
        """What becomes of late slots, of slots while runs are open, and after failures."""
        key = self._people.any_trigger()
        if key is None:
            return
        manners = people.any_manners(self._random)
        self._world.triggers[self._people.register.ids[key]].manners = manners
        self._update(
            key,
            catchup_policy=manners.catchup.policy,
            catchup_max_runs=manners.catchup.max_runs,
            catchup_window=manners.catchup.window,
            overlap=manners.overlap,
            pause_on_failure=manners.pause_on_failure,
        )

    def _edit(self, change: Callable[[Written], Written], key: TriggerKey | None = None) -> None:
        key = key or self._people.any_trigger()
        if key is None:
            return
        model = self._world.triggers[self._people.register.ids[key]]
        before = _columns(key.name, model.written)
        model.written = change(model.written)
        after = _columns(key.name, model.written)
        changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
        if changed:
            self._update(key, **changed)
        if not model.pending:
            self._world.flickered.add(key.task)

    def _update(self, key: TriggerKey, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        statement = text(f"UPDATE triggers SET {assignments} WHERE id = :id")
        with self._world.store.begin() as tx:
            tx.connection.execute(statement, {**columns, "id": self._people.register.ids[key]})
        self._world.tell(f"wrote {columns} to {key}")


def _columns(name: str, written: Written) -> dict[str, Any]:
    columns = {
        "active": written.active,
        "deleted_at": written.deleted_at,
        "snoozed_until": written.snoozed_until,
        "max_fires": written.max_fires,
        "version": written.version,
        "jitter": written.jitter,
    }
    if written.timetable is None:
        return columns | {"automation": '{"cron":"61 * * * *"}'}
    spelled = columns_of(TriggerSpec(name, **written.timetable.options()))
    return columns | {column: spelled[column] for column in ("automation", "start_at", "end_at", "calendars")}
