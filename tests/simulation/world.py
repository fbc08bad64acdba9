"""A world: a database, clocks, triggers that people change, and workers that come, work, freeze and die.

Everything is drawn from one `random.Random(seed)`. Each thing that happens is one transaction of the real services; the
models are told what it must have done, and complain where it did something else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import SECOND, Micros, parse_rfc3339, to_datetime, to_rfc3339
from scheduler.errors import ClockJumped, StoreUnavailable
from scheduler.services.plan import Planning
from scheduler.store.transaction import Store, Transaction
from scheduler.testing import ManualClock
from tests.simulation.backups import Backups
from tests.simulation.clocks import Wall
from tests.simulation.grids import DAY, HOUR, MINUTE
from tests.simulation.ledger import Decision, TriggerModel
from tests.simulation.people import People
from tests.simulation.rules import Fire, Written
from tests.simulation.runs import RunModel, RunsModel, Spec
from tests.simulation.workers import LEASE, SimulatedWorker

T = TypeVar("T")
GRACE = 60 * SECOND
# Some begin in the middle of a day, some shortly before its end.
_BEGINNINGS = ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00Z", "2026-11-21T22:30:00Z")


class ProcessDiedError(Exception):
    """A process ended in the middle of a transaction, which therefore never happened."""


class World:
    """See the module. `events` is the story so far, for whoever replays a seed."""

    def __init__(self, seed: int, store: Store, clock: ManualClock) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.violence = self.random.choice([0.5, 1, 1, 4])
        self.most_workers = self.random.randrange(1, 6)
        self.grace = GRACE
        # In some worlds every clock is believed.
        self.max_clock_jump = self.random.choice([HOUR, HOUR, 15 * MINUTE, None])
        self.store = store
        # The database's clock; true time has its own count.
        self.clock = clock
        self.began_at = parse_rfc3339(self.random.choice(_BEGINNINGS))
        self.clock.set(to_datetime(self.began_at))
        self.elapsed: Micros = 0
        self.away_until: Micros = 0
        # Whose process acts: what asks the machine's clock is told this one's.
        self.here = Wall(self)
        self.triggers: dict[int, TriggerModel] = {}
        self.incarnations = 0
        self.runs = RunsModel(LEASE, max_lost=self.random.choice([2, 2, 4]))
        self.renewed: dict[str, Micros] = {}
        self.heard_of: dict[str, Micros] = {}
        self.living: set[str] = set()
        # Who was registered since the database was last restored: only their word counts.
        self.valid: set[str] = set()
        # Who has a row, living or dead; and whose row was lost, or voided, with a restore.
        self.registered: set[str] = set()
        self.void: set[str] = set()
        self.workers: list[SimulatedWorker] = []
        self.people = People(self)
        self.backups = Backups(self)
        self.was_set_back = False
        # Tasks where a change was taken back before a worker saw it: a summary counted in between stays until the next.
        self.flickered: set[str] = set()
        self.events: list[str] = []

    # --- time and transactions ---------------------------------------------------------------------------------------

    @property
    def now(self) -> Micros:
        """What the database's clock says."""
        return self.clock.now()

    @property
    def away(self) -> bool:
        """Whether the database cannot be reached."""
        return self.elapsed < self.away_until

    def tell(self, what: str) -> None:
        self.events.append(f"{to_rfc3339(self.now)} {what}")

    def ask(self, work: Callable[[], T]) -> T:
        """What the database answers, if it is there."""
        if self.away:
            raise StoreUnavailable("the database is away")
        return work()

    def run(self, service: Callable[..., T], *args: Any, here: Wall | None = None, **options: Any) -> T:
        """One transaction, in a process with this clock."""
        self.here = here or self.people.wall
        store = self.store if self.here.check is None else self.store.guarded(self.here.check)
        return self.ask(lambda: store.run(service, *args, **options))

    def refuses(self, error: type[Exception], service: Callable[..., Any], *args: Any, **options: Any) -> None:
        """A transaction that must not be."""
        try:
            answer = self.run(service, *args, **options)
        except error:
            return
        raise AssertionError(f"{service.__name__} answered {answer}, and should have raised {error.__name__}")

    def run_and_die(self, service: Callable[..., Any], *args: Any, here: Wall | None = None, **options: Any) -> None:
        """A transaction whose process ends just before its commit: all of it is undone."""

        def died(tx: Transaction) -> None:
            service(tx, *args, **options)
            raise ProcessDiedError

        with contextlib.suppress(ProcessDiedError):
            self.run(died, here=here)

    def pass_time(self, by: Micros) -> None:
        """Time passes for everybody, and hearts beat."""
        end = self.elapsed + by
        while awake := [worker for worker in self.workers if not worker.frozen or (worker.thaws_at or 0) <= end]:
            worker = min(awake, key=lambda worker: worker.pulse.next_at)
            if worker.pulse.next_at > end:
                break
            self._forward(max(0, worker.pulse.next_at - self.elapsed))
            worker.beat()
        self._forward(end - self.elapsed)
        self.tell(f"{by / SECOND:g} s passed")

    def _forward(self, by: Micros) -> None:
        self.elapsed += by
        self._set_clock(by)

    def set_database_clock(self, by: Micros) -> None:
        """Somebody sets the database's clock."""
        self._set_clock(by)
        self.tell(f"the database's clock was set by {by / SECOND:g} s")
        self.was_set_back = self.was_set_back or by < 0

    def _set_clock(self, by: Micros) -> None:
        self.clock.set(to_datetime(self.now + by))

    # --- a step ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """There is something to do, and somebody to do it."""
        self.people.deployers.first()
        self.start_worker()

    def step(self) -> None:
        """Something happens."""
        choice = self.random.random()
        if choice < 0.22:
            self._time_passes()
        elif choice < 0.87:
            self._a_worker_works()
        elif not self.away and not self.backups.step():
            self.people.step()

    def _time_passes(self) -> None:
        choice, random = self.random.random(), self.random
        if choice < 0.75:
            self.pass_time(random.randrange(1, 90 * SECOND))
        elif choice < 0.86:
            self.pass_time(random.randrange(2 * MINUTE, 10 * MINUTE))
        elif choice < 0.90:
            self.away_until = self.elapsed + random.randrange(SECOND, 4 * MINUTE)
            self.tell(f"the database is away for {(self.away_until - self.elapsed) / SECOND:g} s")
        elif choice < 0.92:
            self._clock_errs()
        elif choice < 0.94:
            self._everyone_sleeps(random.randrange(10 * MINUTE, 4 * HOUR))
        elif choice < 0.955:
            self.set_database_clock(random.randrange(SECOND, random.choice([90 * SECOND, HOUR, 4 * HOUR])))
        elif choice < 0.98:
            self.set_database_clock(-random.randrange(SECOND, random.choice([90 * SECOND, 3 * HOUR])))
            if (
                random.random() < 0.5
                and not self.away
                and (awake := [each for each in self.workers if not each.frozen])
            ):
                random.choice(awake).clock_jumped(-1)
        elif self.workers:
            worker, jump = random.choice(self.workers), random.randrange(-2 * HOUR, 2 * HOUR)
            worker.wall.offset += jump
            self.tell(f"the clock of {worker.name} was set by {jump / SECOND:g} s")
            if not worker.frozen:
                worker.clock_jumped(jump)

    def _clock_errs(self) -> None:
        """The database's clock is far ahead for some seconds, in which workers and people go on, and then right again."""
        random = self.random
        by = random.randrange(10 * MINUTE, random.choice([2 * HOUR, DAY, 3 * DAY]))
        self.set_database_clock(by)
        for _ in range(random.randrange(1, 5)):
            self.pass_time(random.randrange(SECOND, random.choice([5 * SECOND, 50 * SECOND])))
            if random.random() < 0.8:
                self._a_worker_works()
            elif not self.away:
                self.people.step()
        self.set_database_clock(-by)
        awake = [each for each in self.workers if not each.frozen]
        if awake and not self.away and random.random() < 0.8:
            random.choice(awake).clock_jumped(-1)

    def _everyone_sleeps(self, by: Micros) -> None:
        """As if all machines were stopped: only true time and the database's clock go on."""
        for worker in self.workers:
            worker.thaws_at = max(worker.thaws_at or 0, self.elapsed + by)
            worker.pulse.next_at = max(worker.pulse.next_at, worker.thaws_at) + self.random.choice([0, 10 * SECOND])
        self.pass_time(by)

    def _a_worker_works(self) -> None:
        few = len(self.workers) < self.most_workers
        if few and not self.away and (not self.workers or self.random.random() < 0.1):
            self.start_worker()
        elif self.workers:
            self.random.choice(self.workers).step()

    def start_worker(self) -> SimulatedWorker:
        worker = SimulatedWorker(self, self.incarnations + 1)
        self.workers.append(worker)
        try:
            worker.start()
        except ClockJumped:
            # Whoever started it gives up, and it has not done anything.
            self.tell(f"{worker.name} does not believe the clock, and does not begin")
            self.workers.remove(worker)
        return worker

    # --- telling the models ------------------------------------------------------------------------------------------

    def decided(self, trigger_id: int, planning: Planning) -> list[RunModel]:
        """A worker fired a due trigger; returns the new runs that may start in the same moment."""
        model, waits = self.triggers[trigger_id], bool(self.runs.open_scheduled(trigger_id))
        if model.pending or not model.written.live(self.now):
            # What a run is to copy is being written just then: it is taken by what stands there afterwards.
            self.looked(trigger_id, planning)
            return []
        if not model.is_due(self.now):
            return []
        runs = self._follow(trigger_id, model.decide(self.now, len(self.runs.open_scheduled(trigger_id))))
        if model.manners.overlap != "allow_all":
            runs = [] if waits else runs[:1]
        return [run for run in runs if not run.late and self.runs.limits.get(run.task) is None]

    def synced(self, limit: int, planning: Planning) -> None:
        """A worker planned what anyone wrote, and tried again what other code could not plan."""
        pending = [number for number, model in sorted(self.triggers.items()) if model.pending][:limit]
        aside = [
            number
            for number, model in sorted(self.triggers.items())
            if model.aside not in ("", planning.fingerprint) and not model.written.deleted and number not in pending
        ]
        for trigger_id in pending + aside[: limit - len(pending)]:
            self.looked(trigger_id, planning)

    def noticed_set_back(self, planning: Planning) -> None:
        self.runs.released(self.now, self.now + GRACE)
        for model in self.triggers.values():
            model.clock_set_back(self.now, planning.fingerprint)

    def looked(
        self, trigger_id: int, planning: Planning, before: Written | None = None, *, activated: bool = False
    ) -> None:
        """A worker or a command looked at what is written about a trigger."""
        decision = self.triggers[trigger_id].look(
            self.now,
            before,
            planning.fingerprint,
            plannable=self.people.points(trigger_id),
            open_runs=len(self.runs.open_scheduled(trigger_id)),
            activated=activated,
        )
        self._follow(trigger_id, decision)

    def paused(self, candidates: Iterable[int], planning: Planning) -> set[str]:
        """Pauses those of these triggers whose runs keep failing, and returns their names."""
        found = set()
        # Of a trigger that a restore took back, only workers of before still have runs.
        for trigger_id in sorted(set(candidates) & self.triggers.keys()):
            model = self.triggers[trigger_id]
            written, times = model.written, model.manners.pause_on_failure
            if times is None or not written.active or written.deleted:
                continue
            if self.runs.keeps_failing(trigger_id, model.activated_at or 0, times):
                model.written = replace(written, active=False, snoozed_until=None)
                self.looked(trigger_id, planning, written)
                found.add(model.identity)
        return found

    def _follow(self, trigger_id: int, decision: Decision) -> list[RunModel]:
        """What a decision means for the runs; returns the new ones, oldest slot first."""
        if decision.fires and self.triggers[trigger_id].manners.overlap == "cancel_other":
            for run in self.runs.open_scheduled(trigger_id):
                self.runs.cancelled(run)
        if decision.silenced:
            self.runs.silenced(trigger_id)
        key = self.people.register.key_of(trigger_id)
        return [
            self.add_run(slot_run_name(*key, fire.slot), trigger_id, fire, *self.people.register.pointed[trigger_id])
            for fire in decision.fires
        ]

    def add_run(self, name: str, trigger_id: int, fire: Fire | None, version: str, spec: Spec) -> RunModel:
        """A run was made of a trigger's slot, or by hand."""
        task = self.people.register.key_of(trigger_id).task
        run = RunModel(name, task, trigger_id, None, 0, self.now, self.now, version, spec)
        if fire is not None:
            run.slot, run.turn, run.not_before = fire.slot, fire.turn, fire.due_at
            run.serial, run.covers = fire.serial, fire.covers
        self.runs.add(run)
        return run
