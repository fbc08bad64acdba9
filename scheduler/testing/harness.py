"""A worker for tests, on a real database, that works only when told to and never waits."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar, Union

from executors.protocol import Executor
from scheduler.app import App, HttpSessions, prepare_config
from scheduler.client import Client
from scheduler.domain.instants import Micros, to_datetime, to_micros
from scheduler.domain.run import BACKFILLED
from scheduler.domain.task import TaskDefinition
from scheduler.errors import ConfigError, NotFound
from scheduler.loop.performing import Performer
from scheduler.schedules import Trigger, definitions_of
from scheduler.services.backfill_steps import advance_backfill, backfills_under_way
from scheduler.services.finish import Ended, finish_runs
from scheduler.services.fire import fire_due
from scheduler.services.keeping import kept
from scheduler.services.operate import TriggerKey
from scheduler.services.recover import recover_runs
from scheduler.services.resume import next_until_at, resume_due
from scheduler.services.sync import refresh_summaries, sync_triggers
from scheduler.services.take import Execution, describe_runs, next_ready_at, take_runs
from scheduler.settings import Settings
from scheduler.store.transaction import Transaction
from scheduler.testing.clock import ManualClock, micros_of
from scheduler.testing.seen import Pruned, Ran, Run, Skipped, run_of, slot_of
from scheduler.testing.waits import HarnessWaits

T = TypeVar("T")
TriggerName: TypeAlias = Union[Trigger, TriggerKey, str]  # noqa: UP007  # evaluated at import

_BATCH: Final = 1_000
_ALL: Final = 1_000_000_000
_NEVER: Final[Micros] = 2**62


class Harness:
    """A database, a clock and a worker for one test. Nothing happens but in `tick`, and there in one fixed order."""

    def __init__(
        self,
        executor: Executor | None = None,
        *,
        executors: Mapping[str, Executor] | None = None,
        clock: ManualClock | None = None,
        database: str | None = None,
        misfire_grace: timedelta | str = "60s",
        lease: timedelta | str = "30s",
        max_lost: int = 5,
    ) -> None:
        """`executor` is known as `default`, `executors` by their names. `database`: a URL instead of a file of its own."""
        named = dict(executors or {}) | ({"default": executor} if executor is not None else {})
        if not named:
            raise TypeError("Harness() needs an executor: Harness(RecordingExecutor())")
        self.clock = clock or ManualClock()
        self._folder = None if database else Path(tempfile.mkdtemp(prefix="scheduler-harness-"))
        worker = {"misfire_grace": misfire_grace, "lease": lease, "max_lost": max_lost, "name": "harness"}
        url = database or f"sqlite:///{self._folder}/harness.db"
        settings = Settings(database={"url": url, "auto_upgrade": True}, worker=worker, tasks=())
        self._app = App(settings, clock=self.clock, executors=named)
        self._default = "default" if executor is not None else next(iter(named)) if len(named) == 1 else None
        self._executors = named
        self._options = self._app.worker_options()
        self._lease = to_micros(self._options.lease)
        self._store = self._app.open_store()
        self._app.prepare(self._store)
        self._sessions = HttpSessions()
        self._performer = Performer(named, self.clock.now, prepare_config, http_session=self._sessions.get)
        self._runner = asyncio.Runner()
        self._incarnations = 0
        self._crashing = False
        self._waits = HarnessWaits(self._store, self._performer, self.clock.now, self._await)
        self._begin()
        for each in named.values():
            self._await(each.start())
        self.client = Client(self._store, planning=self._options.planning, by="harness", create_projects=True)
        """For whatever this class has no short word for."""

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes executors and database, and removes the file."""
        for executor in self._executors.values():
            self._await(executor.close())
        self._await(self._sessions.close())
        self._runner.close()
        self._store.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- what people do ----------------------------------------------------------------------------------------------

    def deploy(self, *what: TaskDefinition | Trigger) -> None:
        """Deploys tasks, or the tasks that triggers make; a task's triggers become the ones named, no others.

        Raises `ConfigError` where an executor or a task's `config` cannot be.
        """
        definitions = [item for item in what if isinstance(item, TaskDefinition)]
        faults = [fault for task in definitions for fault in self._app.check_task(*_checked(task))]
        if faults:
            raise ConfigError("deploy", faults)
        triggers = [item for item in what if isinstance(item, Trigger)]
        definitions += definitions_of(triggers, self._default, self._app.check_task)
        list(self.client.deploy(definitions, source="library"))

    def fire(self, trigger: TriggerName, inputs: Mapping[str, Any] | None = None) -> str:
        """Fires a trigger by hand; the next tick executes the run, whose name this returns."""
        return self.client.fire(self.key(trigger), inputs=inputs)

    def activate(self, trigger: TriggerName) -> None:
        """Makes a trigger owe slots again, from now on."""
        self.client.activate(self.key(trigger))

    def deactivate(self, trigger: TriggerName) -> None:
        """Makes a trigger owe nothing."""
        self.client.deactivate(self.key(trigger))

    def crash(self) -> None:
        """The worker will die of the next run it executes: the code runs to its end, but nobody records the outcome.

        Another worker is there at once; it executes the run again, under the same key, when the lease is over.
        """
        self._crashing = True

    # --- what the worker does ----------------------------------------------------------------------------------------

    def tick(self, duration: timedelta | str = timedelta(0)) -> list[Run]:
        """Lets time pass and does all that becomes due, each thing at its instant; returns the runs that ended.

        Fires slots, fills those of backfills, executes runs one after the other, retries them when their wait is over,
        resumes and polls deferred ones, watches the jobs of external ones, takes runs back from crashed workers. Time an
        executor spends for real counts for nothing; it may move `clock` itself.
        """
        end = self.clock.now() + micros_of(duration)
        ended: dict[str, None] = {}
        worked = True
        while worked or self._next_instant() <= end:
            if not worked:
                self.clock.set(to_datetime(max(self.clock.now(), self._next_instant())))
            worked = self._work(ended)
        if self.clock.now() < end:
            self.clock.set(to_datetime(end))
        return [run_of(self.client.show_run(name)) for name in ended]

    def runs(self, trigger: TriggerName | None = None) -> list[Run]:
        """All runs so far, or a trigger's, in the order in which they were made."""
        chosen: dict[str, Any] = {}
        if trigger is not None:
            chosen = dict(zip(("project", "domain", "task", "trigger"), self.key(trigger), strict=True))
        return [
            run_of(self.client.show_run(row["name"])) for row in reversed(self.client.list_runs(limit=_ALL, **chosen))
        ]

    def slots(self, trigger: TriggerName) -> list[Ran | Skipped | Pruned]:
        """What became of each slot of a trigger so far, oldest first."""
        return [slot_of(entry) for entry in self.client.list_slots(self.key(trigger), _ALL)]

    def key(self, trigger: TriggerName) -> TriggerKey:
        """The key of a trigger, which may be named in short (`name`, `task/name`) where only one is meant."""
        if isinstance(trigger, Trigger):
            return trigger.key
        if isinstance(trigger, TriggerKey):
            return trigger
        keys = [
            TriggerKey(row["project"], row["domain"], row["task"], row["name"])
            for row in self.client.list_triggers(limit=_ALL)
        ]
        meant = [key for key in keys if f"/{key}".endswith(f"/{trigger}")]
        if len(meant) != 1:
            raise NotFound("trigger" if not meant else "only one trigger", trigger)
        return meant[0]

    # --- one pass ----------------------------------------------------------------------------------------------------

    def _work(self, ended: dict[str, None]) -> bool:
        """All that this instant has to offer, once around; True if that may have made more to do."""
        executions, more = self._store.run(self._decide_and_take, ended)
        for execution in executions:
            reports: list[Ended] = []
            if self._waits.is_job(self._executors[execution.run.executor]):
                reports = self._waits.submit(execution, dies=self._crashing)
            else:
                self._await(self._performer.perform(execution, reports.append))
            if self._crashing:
                # Nothing is recorded; what else this worker held stays with the dead until its lease is over.
                self._crashing = False
                self._begin()
                return True
            self._record(reports, ended)
        over, looked = self._waits.look(self._executors)
        self._record(over, ended)
        again = self._next_instant() <= self.clock.now()
        if again and not more and not executions and not looked:
            raise RuntimeError("something stays due however often the harness looks: this is a fault of the harness")
        return more or again

    def _record(self, reports: list[Ended], ended: dict[str, None]) -> None:
        reports = [kept(item, self._options.max_output_bytes) for item in reports]
        finished = self._store.run(finish_runs, [item for item in reports if item.deferral is None], "harness")
        ended.update(dict.fromkeys(name for name in finished.counted if name not in finished.retried))
        self._waits.defer([item.deferral for item in reports if item.deferral is not None])

    def _decide_and_take(self, tx: Transaction, ended: dict[str, None]) -> tuple[list[Execution], bool]:
        tx.workers.renew(self._me, self._lease)
        planned, tasks = sync_triggers(tx, self._options.planning, _BATCH)
        fired = fire_due(tx, self._options.planning, limit=_BATCH)
        refresh_summaries(tx, sorted({*tasks, *fired.replanned}))
        recovered = recover_runs(tx, self._me, lease=self._lease, max_lost=self._options.max_lost, limit=_BATCH)
        ended.update(dict.fromkeys(recovered.failed))
        due = resume_due(tx, _BATCH, self._me, "harness")
        if due.finished is not None:
            ended.update(dict.fromkeys(name for name in due.finished.counted if name not in due.finished.retried))
        for number in backfills_under_way(tx):
            while (step := advance_backfill(tx, number, {})) is not None and step.more:
                pass
        room = dict.fromkeys(self._executors, _ALL)
        on_time, late, *_ = take_runs(tx, self._me, room, on_time=_BATCH, late=_BATCH)
        taken = on_time + late
        specs, keys, names = describe_runs(tx, taken, ())
        executions = [
            Execution(run, specs[run.spec_digest], *keys[run.task_id], names.get(run.trigger_id or 0)) for run in taken
        ]
        full = max(planned, fired.claimed, len(recovered.requeued + recovered.failed)) >= _BATCH
        # When runs of a backfill have ended, it queues the next ones.
        return executions, full or any(run.kind in BACKFILLED for run in taken)

    def _next_instant(self) -> Micros:
        with self._store.read() as tx:
            instants = [tx.triggers.next_due_at(), next_ready_at(tx, self._executors), next_until_at(tx)]
            instants.append(self._waits.next_instant())
            instants += [row["lease_until"] + 1 for row in tx.workers.list_living() if row["incarnation"] != self._me]
        return min((at for at in instants if at is not None), default=_NEVER)

    def _begin(self) -> None:
        self._incarnations += 1
        self._me = f"harness-{self._incarnations}"
        self._waits.begin(self._me)
        executors = sorted(self._executors)
        self._store.run(_register, self._me, self._options.fingerprint, executors, self._lease)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def _register(tx: Transaction, me: str, fingerprint: str, executors: list[str], lease: Micros) -> None:
    tx.workers.register(me, "harness", "", fingerprint, executors, lease)


def _checked(task: TaskDefinition) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    return task.spec.executor, task.spec.config, task.spec.inputs
