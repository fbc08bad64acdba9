"""A scheduler's database with a clock that stands still, and short words for what a worker does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg

from scheduler.client import Client
from scheduler.domain.automation import At, Automation, Cron
from scheduler.domain.instants import SECOND, Micros, parse_rfc3339, to_datetime
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.run import Phase
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.services.deploy import DeployResult, Source, deploy_task
from scheduler.services.finish import Ended, Finished, finish_runs
from scheduler.services.fire import Fired, fire_due
from scheduler.services.operate import TriggerKey
from scheduler.services.plan import Planning
from scheduler.services.recover import Recovered, hand_back, recover_runs
from scheduler.services.sync import plan_after_clock_set_back, refresh_summaries, sync_triggers
from scheduler.services.take import Execution, describe_runs, take_runs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import CHANNEL, Store
from tests.conftest import ManualClock

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
LEASE = 30 * SECOND
EVERY_MINUTE = Cron("* * * * *")
PLENTY = {"logging": 10_000}


def instant(text: str) -> Micros:
    """`12:05`, `12:05:30` or `22 00:00` as an instant: a time of 2026-11-21, or of another day of that month."""
    day, _, time = text.rpartition(" ")
    return parse_rfc3339(f"2026-11-{day or '21'}T{time if time.count(':') == 2 else time + ':00'}Z")


def spoken(moment: Micros) -> str:
    """The reverse of `instant`."""
    when = to_datetime(moment)
    text = when.strftime("%H:%M:%S").removesuffix(":00")
    return text if (when.month, when.day) == (11, 21) else f"{when.day} {text}"


def trigger(name: str = "nightly", automation: Automation | None = EVERY_MINUTE, **options: Any) -> TriggerSpec:
    return TriggerSpec(name, automation, **options)


def once(text: str) -> At:
    return At(to_datetime(instant(text)))


def key(name: str = "nightly", task: str = "report") -> TriggerKey:
    return TriggerKey("flytesnacks", "development", task, name)


def definition(
    *triggers: TriggerSpec, task: str = "report", version: str = "v1", spec: TaskSpec | None = None, **options: Any
) -> TaskDefinition:
    return TaskDefinition(
        "flytesnacks", "development", task, version, spec or TaskSpec("logging"), triggers=triggers, **options
    )


class World:
    """What deployers, operators and workers do, each in a transaction of its own."""

    def __init__(self, store: Store, clock: ManualClock, *, fingerprint: str = "one") -> None:
        self.store = store
        self.clock = clock
        self.planning = Planning(misfire_grace=MINUTE, fingerprint=fingerprint)
        self.client = Client(store, planning=self.planning, by="tester", create_projects=True)

    # --- deployers and operators -------------------------------------------------------------------------------------

    def deploy(
        self, *triggers: TriggerSpec, source: Source = "manifest", at_start: bool = False, **options: Any
    ) -> DeployResult:
        return self.store.run(
            deploy_task, definition(*triggers, **options), self.planning, by="tester", source=source, at_start=at_start
        )

    def sql(self, statement: str) -> None:
        """What somebody types into psql or sqlite3."""
        with self.store.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.store.engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    # --- a worker's loop ---------------------------------------------------------------------------------------------

    def at(self, text: str) -> World:
        self.clock.set(instant(text))
        return self

    def sync(self, fingerprint: str | None = None) -> int:
        planning = self.planning if fingerprint is None else Planning(self.planning.misfire_grace, fingerprint)
        count, tasks = self.store.run(sync_triggers, planning, 1_000)
        self.store.run(refresh_summaries, tasks)
        return count

    def fire(self, **options: Any) -> Fired:
        return self.store.run(fire_due, self.planning, **{"limit": 1_000, **options})

    def step(self, text: str | None = None) -> list[str]:
        """A pass of the loop at a time: plans what changed, decides what is due. The slots that got a run."""
        if text is not None:
            self.at(text)
        self.sync()
        return self.fire_all()

    def fire_all(self) -> list[str]:
        slots: list[str] = []
        while (fired := self.fire()).claimed:
            slots += [spoken(run.scheduled_at) for run in sorted(fired.runs, key=lambda run: run.scheduled_at)]
        return slots

    def clock_set_back(self, text: str) -> None:
        """The clock jumps back, and the worker's guard notices."""
        self.at(text)
        self.store.run(plan_after_clock_set_back, self.planning, 1_000)

    def register(self, incarnation: str = "w1", executors: Sequence[str] = ("logging",)) -> str:
        with self.store.begin() as tx:
            tx.workers.register(incarnation, f"worker-{incarnation}", "0.1.0", "one", executors, LEASE)
        return incarnation

    def take(self, owner: str = "w1", *, on_time: int = 1_000, late: int = 1_000) -> list[Execution]:
        first, second, *_ = self.store.run(take_runs, owner, PLENTY, on_time=on_time, late=late)
        return self.executions([*first, *second])

    def executions(self, runs: Sequence[TakenRun]) -> list[Execution]:
        with self.store.read() as tx:
            specs, keys, names = describe_runs(tx, runs, ())
        return [
            Execution(run, specs[run.spec_digest], *keys[run.task_id], names.get(run.trigger_id or 0)) for run in runs
        ]

    def finish(self, *ended: Ended) -> Finished:
        return self.store.run(finish_runs, ended, "worker-w1")

    def succeed(self, *executions: Execution) -> Finished:
        return self.finish(*(Ended(execution, Phase.SUCCEEDED) for execution in executions))

    def fail(self, *executions: Execution, **options: Any) -> Finished:
        return self.finish(*(Ended(execution, Phase.FAILED, error="it broke", **options) for execution in executions))

    def recover(self, me: str = "judge", *, max_lost: int = 5, limit: int = 1_000) -> Recovered:
        return self.store.run(recover_runs, me, lease=LEASE, max_lost=max_lost, limit=limit)

    def lose_worker(self, incarnation: str) -> Recovered:
        """The worker's lease runs out and another one notices."""
        self.clock.advance(LEASE / SECOND + 1)
        return self.recover()

    def hand_back(self, owner: str, *executions: Execution) -> int:
        return self.store.run(hand_back, owner, [(held.run.name, held.run.fence) for held in executions])

    @contextmanager
    def listening(self) -> Iterator[Callable[[], bool]]:
        """Hears what other workers hear: the function tells whether a notice came since it was last asked."""
        if self.store.dialect.name == "sqlite":
            seen = self._notices()

            def heard() -> bool:
                nonlocal seen
                before, seen = seen, self._notices()
                return seen != before

            yield heard
            return
        url = self.store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            notices: list[psycopg.Notify] = []
            connection.add_notify_handler(notices.append)
            connection.execute(f"LISTEN {CHANNEL}")

            def heard() -> bool:
                connection.execute("SELECT 1")  # The server tells of what was committed before it answers.
                came = bool(notices)
                notices.clear()
                return came

            yield heard

    def _notices(self) -> list[tuple[Any, ...]]:
        return self.rows(f"SELECT value FROM meta WHERE key = '{CHANNEL}'")

    # --- looking -----------------------------------------------------------------------------------------------------

    def ledger(self, name: str = "nightly", task: str = "report", limit: int = 1_000) -> list[str]:
        """A trigger's entries, oldest first: `12:01` is a run, `catchup_cap 12:02–12:05 ×4` a range."""
        return [
            spoken(entry["scheduled_at"])
            if entry["kind"] == "run"
            else f"{entry['reason']} {spoken(entry['from'])}–{spoken(entry['to'])} ×{entry['count']}"
            for entry in self.client.list_slots(key(name, task), limit)
        ]

    def trigger(self, name: str = "nightly", task: str = "report") -> dict[str, Any]:
        return self.client.show_trigger(key(name, task))

    def next_fire(self, name: str = "nightly", task: str = "report") -> str | None:
        moment = self.trigger(name, task)["next_fire_at"]
        return None if moment is None else spoken(moment)

    def runs(self, **options: Any) -> list[dict[str, Any]]:
        return self.client.list_runs(**{"limit": 10_000, **options})

    def run(self, name: str) -> dict[str, Any]:
        return self.client.show_run(name)

    def phases(self) -> dict[str, str]:
        """Phases of scheduled runs by slot."""
        return {spoken(run["scheduled_at"]): run["phase"] for run in self.runs() if not run["manual"]}


def retrying(attempts: int = 3, **options: Any) -> TaskSpec:
    policy = RetryPolicy(max_attempts=attempts, initial=timedelta(seconds=10))
    return TaskSpec("logging", retries=policy, **options)


def only(found: Mapping[Any, Any] | Sequence[Any]) -> Any:
    (item,) = found
    return item
