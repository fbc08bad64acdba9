"""Deploys: the command, and workers that start with the files they were given."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from scheduler.domain.instants import Micros, to_datetime
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.services.deploy import deploy_task
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from tests.simulation import people
from tests.simulation.clocks import Wall
from tests.simulation.grids import any_timetable
from tests.simulation.ledger import TriggerModel
from tests.simulation.rules import Written

if TYPE_CHECKING:
    from tests.simulation.people import Manifest, People, Said
    from tests.simulation.workers import SimulatedWorker
    from tests.simulation.world import World


class Deployers:
    """Those who say what tasks and triggers there are."""

    def __init__(self, world: World, everyone: People) -> None:
        self._world = world
        self._people = everyone
        # What the workers' files say.
        self._files: dict[str, Manifest] = {}

    def first(self) -> None:
        """Every task is deployed for the first time."""
        for task in people.TASKS:
            self.deploy(task)

    def deploy(self, task: str | None = None) -> None:
        """A task is deployed with a set of triggers drawn anew, often much the same as before."""
        random, register = self._world.random, self._people.register
        first, task = task is not None, task or random.choice(people.TASKS)
        before = register.deployed.get(task)
        wanted = {name: said for name, said in (before.triggers if before else ()) if random.random() < 0.9}
        for name in people.NAMES:
            if random.random() < (0.7 if first else 0.25):
                wanted[name] = self._any_said()
            elif name in wanted and random.random() < 0.1:
                wanted[name] = replace(wanted[name], active=not wanted[name].active)
        version = random.choice(["v1", "v2"])
        spec = register.versions[task].get(version)
        if spec is None or random.random() < 0.1:
            spec = people.any_spec(random)
        manifest = people.Manifest(version, spec, tuple(sorted(wanted.items())))
        if first or random.random() < 0.8:
            self._apply(task, manifest, self._people.planning, self._people.wall, at_start=False)
        if random.random() < 0.7:
            # With the command or without: then the next worker that starts deploys it.
            self._files[task] = manifest

    def start(self, worker: SimulatedWorker) -> None:
        """A worker starts with its files, whether or not somebody deployed something newer since."""
        for task, manifest in sorted(self._files.items()):
            self._apply(task, manifest, worker.planning, worker.wall, at_start=True)

    def _apply(self, task: str, manifest: Manifest, planning: Planning, wall: Wall, *, at_start: bool) -> None:
        world, register = self._world, self._people.register
        definition = _definition(task, manifest)
        result = world.run(deploy_task, definition, planning, by="deployer", at_start=at_start, here=wall)
        applied = "applied" if result.applied else "nothing new"
        world.tell(f"deployed {task} {manifest}{' at start' if at_start else ''}: {applied}")
        known = register.deployed.get(task) == manifest or (at_start and manifest in register.ever[task])
        assert result.applied != known, "what was said before changes nothing"
        if known:
            return
        register.deployed[task] = manifest
        register.ever[task].add(manifest)
        register.versions[task][manifest.version] = manifest.spec
        world.runs.limits[task] = manifest.spec.limit
        self._learn_ids(task, manifest)
        wanted = dict(manifest.triggers)
        for key, trigger_id in register.ids_of(task):
            model, said = world.triggers[trigger_id], wanted.get(key.name)
            old, woken = model.written, False
            if said is None:
                model.written = replace(old, deleted_at=old.deleted_at or world.now)
            else:
                woken = self._write(trigger_id, said, manifest.version) and old.wakes(world.now) is not None
                register.pointed[trigger_id] = manifest.version, manifest.spec
            world.looked(trigger_id, planning, old, activated=woken)
        if world.random.random() < 0.1:
            again = world.run(deploy_task, definition, planning, by="deployer", at_start=at_start, here=wall)
            assert not again.applied, "an identical deploy changes nothing"

    def _write(self, trigger_id: int, said: Said, version: str) -> bool:
        """What a deploy writes about a trigger that it names; True if it tells it to be active or not."""
        model, register = self._world.triggers[trigger_id], self._people.register
        old, before = model.written, register.said.get(trigger_id)
        register.said[trigger_id] = said
        if not old.deleted and said == before:
            model.written = replace(old, version=version)
            return False
        model.manners = said.manners
        # An operator's pause survives a change, unless the change is to `active` itself, or the trigger is brought back.
        told = old.deleted or before is None or before.active != said.active
        if told:
            model.skip_next = None
        if old.deleted:
            model.fires = 0  # It begins again.
        model.written = Written(
            said.timetable,
            said.jitter,
            said.active if told else old.active,
            snoozed_until=None if told else old.snoozed_until,
            max_fires=said.max_fires,
            version=version,
        )
        return told

    def _learn_ids(self, task: str, manifest: Manifest) -> None:
        """The triggers that this deploy made."""
        world, register = self._world, self._people.register
        statement = (
            "SELECT r.id, r.name FROM triggers r JOIN tasks t ON t.id = r.task_id WHERE t.name = :task ORDER BY r.id"
        )
        with world.store.read() as tx:
            rows = tx.connection.execute(text(statement), {"task": task}).all()
        for row in rows:
            key = TriggerKey(people.PROJECT, people.DOMAIN, task, row.name)
            if key not in register.ids:
                said = dict(manifest.triggers)[row.name]
                register.ids[key] = row.id
                register.said[row.id] = said
                written = Written(
                    said.timetable, said.jitter, said.active, max_fires=said.max_fires, version=manifest.version
                )
                world.triggers[row.id] = TriggerModel(str(key), written, world.grace, said.manners)

    def _any_said(self) -> Said:
        random = self._world.random
        return people.Said(
            any_timetable(random, self._world.now),
            people.any_jitter(random),
            people.any_manners(random),
            random.choice([None] * 9 + [1, 5, 20]),
            random.random() < 0.9,
        )


def _definition(task: str, manifest: Manifest) -> TaskDefinition:
    said = manifest.spec
    spec = TaskSpec(
        said.executor,
        retries=RetryPolicy(said.max_attempts),
        on_lost=said.on_lost,  # type: ignore[arg-type]
        deadline=None if said.deadline is None else _duration(said.deadline),
        max_concurrent_runs=said.limit,
    )
    triggers = tuple(_trigger(name, said) for name, said in manifest.triggers)
    return TaskDefinition(people.PROJECT, people.DOMAIN, task, manifest.version, spec, triggers)


def _trigger(name: str, said: Said) -> TriggerSpec:
    rule = said.manners.catchup
    return TriggerSpec(
        name,
        **said.timetable.options(),
        jitter=_duration(said.jitter),
        max_fires=said.max_fires,
        active=said.active,
        overlap=said.manners.overlap,  # type: ignore[arg-type]
        pause_on_failure=said.manners.pause_on_failure,
        catchup=CatchUp(rule.policy, _duration(rule.window), rule.max_runs),  # type: ignore[arg-type]
    )


def _duration(micros: Micros) -> timedelta:
    return to_datetime(micros) - to_datetime(0)
