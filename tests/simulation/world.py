"""A world: a database, a clock, triggers that people change, and workers that come, work, freeze and die.

Everything is drawn from one `random.Random(seed)`. Each thing that happens is one transaction of the real services; the
models are told what it must have done, and complain where it did something else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from sqlalchemy import text

from scheduler.domain.automation import automation_to_document
from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import SECOND, Micros, to_datetime, to_rfc3339
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.services import operate
from scheduler.services.deploy import deploy_task
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from scheduler.store.transaction import Store, Transaction
from scheduler.testing import ManualClock
from tests.simulation.grids import HOUR, MINUTE, Grid, any_grid
from tests.simulation.ledger import CatchUpRule, Fire, TriggerModel, Written
from tests.simulation.runs import RunModel, RunsModel
from tests.simulation.workers import LEASE, SimulatedWorker

T = TypeVar("T")
PROJECT, DOMAIN, EXECUTOR = "flytesnacks", "development", "simulated"
TASKS = ("report", "bill")
NAMES = ("a", "b", "c")
GRACE = 60 * SECOND
ATTEMPTS = 2


class ProcessDiedError(Exception):
    """A process ended in the middle of a transaction, which therefore never happened."""


@dataclass(frozen=True)
class Deployed:
    """What the last deploy said about one trigger."""

    grid: Grid
    jitter: Micros
    catchup: CatchUpRule


class World:
    """See the module. `events` is the story so far, for whoever replays a seed."""

    def __init__(self, seed: int, store: Store, clock: ManualClock) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.violence = self.random.choice([0.5, 1, 1, 4])
        self.store = store
        self.clock = clock
        self.clock.set("2026-11-21T12:00:00Z")
        self.planning = Planning(GRACE, "simulated")
        self.triggers: dict[int, TriggerModel] = {}
        self.ids: dict[TriggerKey, int] = {}
        self.deployed: dict[str, tuple[str, dict[str, Deployed]]] = {}
        self.said: dict[int, Deployed] = {}
        self.incarnations = 0
        self.runs = RunsModel(LEASE, max_lost=self.random.choice([2, 2, 4]))
        self.renewed: dict[str, Micros] = {}
        self.living: set[str] = set()
        self.workers: list[SimulatedWorker] = []
        self.was_set_back = False
        # Tasks where a change was taken back before a worker saw it: a summary counted in between stays until the next.
        self.flickered: set[str] = set()
        self.events: list[str] = []

    # --- time and transactions ---------------------------------------------------------------------------------------

    @property
    def now(self) -> Micros:
        return self.clock.now()

    def tell(self, what: str) -> None:
        self.events.append(f"{to_rfc3339(self.now)} {what}")

    def run(self, service: Callable[..., T], *args: Any, **options: Any) -> T:
        """One transaction."""
        self._learn_ranges()
        return self.store.run(service, *args, **options)

    def run_and_die(self, service: Callable[..., Any], *args: Any, **options: Any) -> None:
        """A transaction whose process ends just before its commit: all of it is undone."""

        def died(tx: Transaction) -> None:
            service(tx, *args, **options)
            raise ProcessDiedError

        with contextlib.suppress(ProcessDiedError):
            self.store.run(died)

    def move_clock(self, by: Micros) -> None:
        self.clock.set(to_datetime(self.now + by))
        self.tell(f"the clock moved by {by / SECOND:g} s")
        if by < 0:
            self.was_set_back = True

    # --- a step ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens."""
        choice = self.random.random()
        if choice < 0.30:
            self._time_passes()
        elif choice < 0.85:
            self._a_worker_works()
        else:
            self._somebody_changes_something()

    def _time_passes(self) -> None:
        choice = self.random.random()
        if choice < 0.75:
            self.move_clock(self.random.randrange(1, 90 * SECOND))
        elif choice < 0.87:
            self.move_clock(self.random.randrange(2 * MINUTE, 30 * MINUTE))
        elif choice < 0.94:
            self.move_clock(self.random.randrange(HOUR, 4 * HOUR))
        else:
            self.move_clock(-self.random.randrange(SECOND, self.random.choice([90 * SECOND, 3 * HOUR])))
            if self.random.random() < 0.8 and (awake := [worker for worker in self.workers if not worker.frozen]):
                self.random.choice(awake).notice_clock_set_back()

    def _a_worker_works(self) -> None:
        if len(self.workers) < 3 and (not self.workers or self.random.random() < 0.05):
            self.start_worker()
            return
        self.random.choice(self.workers).step()

    def start_worker(self) -> SimulatedWorker:
        worker = SimulatedWorker(self, self.incarnations + 1)
        self.workers.append(worker)
        worker.register()
        return worker

    # --- people ------------------------------------------------------------------------------------------------------

    def _somebody_changes_something(self) -> None:
        often = [self.deploy, self.edit_schedule, self.toggle]
        change = self.random.choice([*often, *often, self.edit_active, self.edit_catchup, self.edit_deleted])
        change()

    def deploy(self) -> None:
        """A task is deployed with a set of triggers drawn anew, often much the same as before."""
        task = self.random.choice(TASKS)
        version, before = self.deployed.get(task, ("", {}))
        wanted = {name: spec for name, spec in before.items() if self.random.random() < 0.8}
        for name in NAMES:
            if self.random.random() < 0.35:
                wanted[name] = Deployed(any_grid(self.random, self.now), self._any_jitter(), self._any_catchup())
        version = self.random.choice(["v1", "v2"])
        specs = [self._spec(name, item) for name, item in sorted(wanted.items())]
        definition = TaskDefinition(
            PROJECT, DOMAIN, task, version, TaskSpec(EXECUTOR, retries=RetryPolicy(ATTEMPTS)), tuple(specs)
        )
        result = self.run(deploy_task, definition, self.planning, by="deployer")
        self.tell(f"deployed {task} {version} {wanted}: {'applied' if result.applied else 'nothing new'}")
        last = self.deployed.get(task)
        assert result.applied == (last is None or last != (version, wanted)), "an identical deploy changes nothing"
        if not result.applied:
            return
        self.deployed[task] = version, wanted
        self._learn_ids()
        for key, trigger_id in self.ids.items():
            if key.task != task:
                continue
            model, said = self.triggers[trigger_id], wanted.get(key.name)
            old = model.written
            if said is None:
                model.written = replace(old, deleted=True)
            elif old.deleted or said != self.said.get(trigger_id):
                # An operator's pause survives a change, and ends where the trigger is brought back.
                model.written = Written(said.grid, said.jitter, active=old.active or old.deleted)
                model.catchup = said.catchup
                self.said[trigger_id] = said
            self._looked(trigger_id, old)

    def toggle(self) -> None:
        """An operator activates or deactivates a trigger."""
        key = self._any_trigger()
        if key is None:
            return
        model = self.triggers[self.ids[key]]
        if model.written.deleted:
            return
        old, active = model.written, self.random.random() < 0.5
        applied = self.run(operate.set_active, key, active, self.planning, by="operator")
        self.tell(f"{'activated' if active else 'deactivated'} {key}: {applied}")
        assert applied == (old.active != active)
        if applied:
            model.written = replace(old, active=active)
            self._looked(self.ids[key], old)

    def edit_schedule(self) -> None:
        """Somebody changes a schedule in psql."""
        key = self._any_trigger()
        if key is None:
            return
        model = self.triggers[self.ids[key]]
        model.written = replace(model.written, grid=any_grid(self.random, self.now), jitter=self._any_jitter())
        document = json.dumps(automation_to_document(model.written.grid.automation()), separators=(",", ":"))
        self._update(key, automation=document, jitter=model.written.jitter)

    def edit_active(self) -> None:
        """Somebody switches a trigger on or off in psql."""
        key = self._any_trigger()
        if key is not None:
            model = self.triggers[self.ids[key]]
            model.written = replace(model.written, active=not model.written.active)
            self._update(key, active=model.written.active)

    def edit_deleted(self) -> None:
        """Somebody deletes a trigger, or brings one back, in psql."""
        key = self._any_trigger()
        if key is not None:
            model = self.triggers[self.ids[key]]
            model.written = replace(model.written, deleted=not model.written.deleted)
            self._update(key, deleted_at=self.now if model.written.deleted else None)

    def edit_catchup(self) -> None:
        """Somebody changes what becomes of late slots, in psql."""
        key = self._any_trigger()
        if key is not None:
            rule = self.triggers[self.ids[key]].catchup = self._any_catchup()
            self._update(key, catchup_policy=rule.policy, catchup_max_runs=rule.max_runs, catchup_window=rule.window)

    def _update(self, key: TriggerKey, **columns: Any) -> None:
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self.store.begin() as tx:
            tx.connection.execute(
                text(f"UPDATE triggers SET {assignments} WHERE id = :id"), {**columns, "id": self.ids[key]}
            )
        if not self.triggers[self.ids[key]].pending:
            self.flickered.add(key.task)
        self.tell(f"wrote {columns} to {key}")

    # --- telling the models ------------------------------------------------------------------------------------------

    def decided(self, trigger_id: int) -> None:
        """A worker fired a due trigger."""
        model = self.triggers[trigger_id]
        if model.pending:
            self._looked(trigger_id, None)
        else:
            self._fired(trigger_id, model.decide(self.now))

    def synced(self) -> None:
        """A worker planned all that anyone wrote."""
        for trigger_id, model in self.triggers.items():
            if model.pending:
                self._looked(trigger_id, None)

    def noticed_set_back(self) -> None:
        self.runs.released(self.now, self.now + GRACE)
        for model in self.triggers.values():
            model.clock_set_back(self.now)

    def _looked(self, trigger_id: int, before: Written | None) -> None:
        fires, silenced = self.triggers[trigger_id].look(self.now, before)
        if silenced:
            self.runs.silenced(trigger_id)
        self._fired(trigger_id, fires)

    def _fired(self, trigger_id: int, fires: list[Fire]) -> None:
        key = next(key for key, number in self.ids.items() if number == trigger_id)
        for fire in fires:
            name = slot_run_name(*key, fire.slot)
            run = RunModel(name, trigger_id, fire.slot, fire.turn > 0, fire.due_at, self.now, ATTEMPTS)
            self.runs.add(run)

    def _learn_ranges(self) -> None:
        if not self.was_set_back:
            return
        for model in self.triggers.values():
            model.stored_ranges.clear()
        with self.store.read() as tx:
            for row in tx.connection.execute(text("SELECT trigger_id, from_slot, to_slot FROM skips")):
                self.triggers[row.trigger_id].stored_ranges.append((row.from_slot, row.to_slot))

    def _learn_ids(self) -> None:
        with self.store.read() as tx:
            rows = tx.connection.execute(
                text(
                    "SELECT r.id, t.name AS task, r.name FROM triggers r JOIN tasks t ON t.id = r.task_id ORDER BY r.id"
                )
            ).all()
        for row in rows:
            key = TriggerKey(PROJECT, DOMAIN, row.task, row.name)
            if key not in self.ids:
                said = self.deployed[row.task][1][row.name]
                self.ids[key] = row.id
                written = Written(said.grid, said.jitter)
                self.triggers[row.id] = TriggerModel(str(key), written, GRACE, said.catchup)

    def learn_waits(self, retried: Sequence[str]) -> None:
        """Reads when the retries may begin."""
        if retried:
            with self.store.read() as tx:
                self.runs.retry_waits({name: tx.runs.find(name)["not_before"] for name in retried})  # type: ignore[index]

    # --- what is drawn -----------------------------------------------------------------------------------------------

    def _any_trigger(self) -> TriggerKey | None:
        return self.random.choice(sorted(self.ids)) if self.ids else None

    def _any_jitter(self) -> Micros:
        return self.random.choice([0, 0, 0, 20 * SECOND, 5 * MINUTE])

    def _any_catchup(self) -> CatchUpRule:
        policy = self.random.choice(["all", "all", "all", "latest", "none", "gap"])
        window = self.random.choice([7 * 24 * HOUR, 7 * 24 * HOUR, 20 * MINUTE, 10 * SECOND])
        return CatchUpRule(policy, self.random.choice([0, 1, 3, 10]), window)

    def _spec(self, name: str, said: Deployed) -> TriggerSpec:
        rule = said.catchup
        return TriggerSpec(
            name,
            said.grid.automation(),
            jitter=_duration(said.jitter),
            catchup=CatchUp(rule.policy, _duration(rule.window), rule.max_runs),  # type: ignore[arg-type]
        )


def _duration(micros: Micros) -> Any:
    return to_datetime(micros) - to_datetime(0)
