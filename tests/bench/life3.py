"""Whole lives of runs: due row → run committed → taken → no-op executor → finished with its attempt.

    python -m tests.bench.life [--runs 30000] [--sqlite] [--workers 3]

All triggers fire once, at one and the same instant. Counted from the first run's creation to the last one's end, by the
database's clock and by what it holds: a run counts when its end and its attempt are committed.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.domain.automation import At
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.store.transaction import Store
from tests.bench.scale import databases
from tests.e2e.worlds import DOMAIN, PROJECT, World, ago, deploy_as_of

A_TASK = 1_000
# Triggers deployed in a second, at least: the slot must lie ahead when the last one is in.
_DEPLOYED_A_SECOND = 2_000


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of runs that were all due at one instant. Lateness is that of their starts, in seconds."""

    runs: int
    seconds: float
    late_p50: float
    late_p99: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Whole lives a second."""
        return self.runs / self.seconds


def burst(folder: Path, url: str, runs: int, workers: int = 1) -> Burst:
    """Fires `runs` triggers at one instant with that many workers, and waits for the last end."""
    folder.mkdir()
    world = World(
        folder,
        url,
        worker={"lease": "30s", "resync_interval": "30s", "max_concurrent_runs": 1000},
        executors={"noop": {"use": "tests.bench.noop:Noop"}},
        logs={"level": "info"},
    )
    assert world.call("db", "upgrade").returncode == 0
    moment = ago() + (10 + runs // _DEPLOYED_A_SECOND) * SECOND
    moment -= moment % SECOND
    slot = to_datetime(moment)
    tasks = []
    for number in range(-(-runs // A_TASK)):
        triggers = tuple(TriggerSpec(f"once-{k:05}", At(slot)) for k in range(min(A_TASK, runs - number * A_TASK)))
        tasks.append(TaskDefinition(PROJECT, DOMAIN, f"t{number}", "v1", TaskSpec("noop"), triggers))
    deploy_as_of(url, ago(), tasks)
    assert ago() < moment, "deployed too slowly"
    with ExitStack() as stack:
        started = [stack.enter_context(world.worker(f"w{number}")) for number in range(workers)]
        started[0].until(
            lambda: (__import__("time").sleep(1.0), world.count("phase = 'SUCCEEDED'") >= runs)[1],
            "all have been fired",
            600,
        )
        (first, last), *_ = rows(url, "SELECT min(created_at), max(finished_at) FROM runs")
        late = sorted(row[0] for row in rows(url, f"SELECT started_at - {moment} FROM runs"))
        cpu = sum(worker.cpu_seconds() for worker in started)
        for worker in started:
            worker.stop(60)
    world.close()
    assert len(late) == runs
    return Burst(runs, (last - first) / SECOND, late[runs // 2] / SECOND, late[runs * 99 // 100] / SECOND, cpu)


def rows(url: str, statement: str) -> list[Any]:
    """What a statement answers."""
    store = Store.open(url)
    try:
        with store.read() as tx:
            return list(tx.connection.exec_driver_sql(statement).all())
    finally:
        store.close()


def main() -> None:
    """One burst, in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sqlite", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=wanted.sqlite) as (_, url):
        seen = burst(Path(folder) / "world", url, wanted.runs, wanted.workers)
    cost = seen.cpu_seconds / seen.runs * 1e6
    print(f"{seen.rate:,.0f} whole lives a second; {cost:.0f} µs of processor each, the workers' start included")
    print(f"late by {seen.late_p50:.2f} s in the median, {seen.late_p99:.2f} s at 99 %")


if __name__ == "__main__":
    main()
