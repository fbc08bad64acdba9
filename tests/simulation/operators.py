"""What operators do: switch triggers on and off, let them sleep, fire by hand, cancel runs and begin them again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scheduler.domain.identity import manual_run_name
from scheduler.domain.instants import SECOND
from scheduler.domain.run import Phase
from scheduler.errors import Conflict, NotFound, SpecError
from scheduler.services import operate
from scheduler.services.cancel import cancel_run
from scheduler.services.many import delete_triggers, reset_fires, set_active_many
from scheduler.services.operate import TriggerKey
from scheduler.services.reopen import retry_run
from tests.simulation.grids import HOUR, MINUTE
from tests.simulation.ledger import TriggerModel

if TYPE_CHECKING:
    from tests.simulation.people import People
    from tests.simulation.runs import RunModel
    from tests.simulation.world import World


class Operators:
    """Those who type commands."""

    def __init__(self, world: World, everyone: People) -> None:
        self._world = world
        self._people = everyone

    # --- triggers ----------------------------------------------------------------------------------------------------

    def toggle(self) -> None:
        """Activates or deactivates a trigger."""
        key = self._people.any_trigger(alive=True)
        if key is None:
            return
        world, model = self._world, self._model(key)
        old, active = model.written, world.random.random() < (0.4 if model.written.active else 0.9)
        applied = self._switch(key, active)
        world.tell(f"{'activated' if active else 'deactivated'} {key}: {applied}")
        assert applied == (old.active != active or old.wakes(world.now) is not None)
        if applied:
            model.written = replace(old, active=active, snoozed_until=None)
            world.looked(self._id(key), self._people.planning, old, activated=active)
        if world.random.random() < 0.2:
            assert not self._switch(key, active), "it is so already"

    def _switch(self, key: TriggerKey, active: bool) -> bool:
        if self._world.random.random() < 0.5:
            return self._world.run(operate.set_active, key, active, self._people.planning, by="operator")
        return bool(self._world.run(set_active_many, [key], active, self._people.planning, by="operator"))

    def snooze(self) -> None:
        """Lets a trigger sleep for a while."""
        key = self._people.any_trigger(alive=True)
        if key is None:
            return
        world, model, planning = self._world, self._model(key), self._people.planning
        until = world.now + world.random.randrange(1, world.random.choice([90 * SECOND, 10 * MINUTE, HOUR]))
        old = model.written
        if not old.active:
            world.refuses(Conflict, operate.snooze, key, until, planning, by="operator")
            return
        world.refuses(SpecError, operate.snooze, key, world.now, planning, by="operator")
        world.run(operate.snooze, key, until, planning, by="operator")
        world.tell(f"snoozed {key} until {until}")
        model.written = replace(old, snoozed_until=until)
        world.looked(self._id(key), planning, old, activated=True)

    def skip_next(self) -> None:
        """Asks that a trigger leaves its next slot out."""
        key = self._people.any_trigger(alive=True)
        if key is None:
            return
        world, model = self._world, self._model(key)
        lives = model.written.live(world.now) or model.written.wakes(world.now) is not None
        if lives and model.written.timetable is None:
            world.refuses(SpecError, operate.skip_next, key)
            return
        slot = world.run(operate.skip_next, key)
        world.tell(f"skips the next slot of {key}: {slot}")
        if not model.pending and not model.aside:
            # What nobody has planned has no anchor to count from.
            assert slot == (_next_to_come(model, world.now) if lives else None)
        model.skip_next = model.skip_next if slot is None else slot

    def reset(self) -> None:
        """Counts a trigger's fires from 0 again."""
        key = self._people.any_trigger(alive=True)
        if key is None:
            return
        model = self._model(key)
        changed = self._world.run(reset_fires, [key], self._people.planning, by="operator")
        self._world.tell(f"reset the fires of {key}: {model.fires}")
        assert changed == ([key] if model.fires else [])
        if changed:
            model.fires = 0
            self._world.looked(self._id(key), self._people.planning, model.written)

    def delete(self) -> None:
        """Deletes a trigger by hand; the next deploy that names it brings it back."""
        key = self._people.any_trigger(alive=True)
        if key is None:
            return
        self._world.run(delete_triggers, [key], self._people.planning, by="operator")
        self._world.tell(f"deleted {key}")
        model = self._model(key)
        old, model.written = model.written, replace(model.written, deleted_at=self._world.now)
        self._people.register.deployed[key.task] = None
        self._world.looked(self._id(key), self._people.planning, old)

    # --- runs --------------------------------------------------------------------------------------------------------

    def fire(self) -> None:
        """Fires a trigger now; with a request's key, perhaps twice."""
        key = self._people.any_trigger()
        if key is None:
            return
        world, written = self._world, self._model(key).written
        request = world.random.choice([None, "monday", "tuesday"])
        spec = self._people.register.versions[key.task].get(written.version)
        if written.deleted or spec is None:
            world.refuses(NotFound if written.deleted else Conflict, operate.fire_by_hand, key, request_key=request)
            return
        for _ in range(world.random.choice([1, 1, 2])):
            name = world.run(operate.fire_by_hand, key, request_key=request)
            world.tell(f"fired {key} by hand: {name}")
            assert request is None or name == manual_run_name(*key, request)
            assert request is not None or name not in world.runs.runs, f"{name} is nobody else's"
            if name not in world.runs.runs:
                world.add_run(name, self._id(key), None, written.version, spec)

    def cancel(self) -> None:
        """Cancels a run."""
        world, run = self._world, self._any_run(open_ones=True)
        if run is None:
            return
        if not run.phase.open:
            world.refuses(Conflict, cancel_run, run.name, by="operator")
            return
        cancelled = world.run(cancel_run, run.name, by="operator")
        assert cancelled.ended + cancelled.ending == (run.name,)
        assert bool(cancelled.ended) == (run.phase is Phase.QUEUED)
        world.runs.cancelled(run)
        world.tell(f"cancelled {run.name}: {cancelled}")

    def retry(self) -> None:
        """Wants one more attempt of a run that is over."""
        world, run = self._world, self._any_run(open_ones=False)
        if run is None:
            return
        if run.phase.open or run.phase is Phase.SUCCEEDED:
            world.refuses(Conflict, retry_run, run.name)
            return
        world.run(retry_run, run.name)
        world.runs.reopen(run, world.now)
        world.tell(f"begins {run.name} again")

    # --- who is who --------------------------------------------------------------------------------------------------

    def _any_run(self, *, open_ones: bool) -> RunModel | None:
        runs = [run for _, run in sorted(self._world.runs.runs.items())]
        likely = [run for run in runs if run.phase.open == open_ones]
        if likely and self._world.random.random() < 0.9:
            runs = likely
        return self._world.random.choice(runs) if runs else None

    def _id(self, key: TriggerKey) -> int:
        return self._people.register.ids[key]

    def _model(self, key: TriggerKey) -> TriggerModel:
        return self._world.triggers[self._id(key)]


def _next_to_come(model: TriggerModel, now: int) -> int | None:
    """The next slot that fires and is not due yet, although it may have begun and wait out its jitter."""
    most = model.written.max_fires
    if most is not None and model.fires >= most:
        return None
    slot, planned = model.owed_slot(), model.planned
    while slot is not None and planned is not None and (planned.timetable.quiet(slot) or model.due_at(slot) <= now):
        slot = model.following(slot)
    return slot
