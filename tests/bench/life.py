"""Whole lives of runs a second: due row → run committed → taken → no-op executor → finished with its attempt.

python -m tests.bench.life [--runs 30000] [--sqlite] [--workers 3]
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
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
KEEP_LOG = False


def lives(folder: Path, url: str, number: int, workers: int) -> tuple[float, float, float]:
    """Seconds from the first run's creation to the last one's end, and the p50 and p99 of lateness at their start."""
    folder.mkdir()
    world = World(
        folder,
        url,
        worker={"lease": "30s", "resync_interval": "30s", "max_concurrent_runs": 1000},
        executors={"noop": {"use": "tests.bench.noop:Noop"}},
        logs={"level": "info"},
    )
    assert world.call("db", "upgrade").returncode == 0
    moment = ago() + (10 + number // 2000) * SECOND
    moment -= moment % SECOND
    slot = to_datetime(moment)
    for n in range(number // A_TASK):
        triggers = tuple(TriggerSpec(f"once-{k:05}", At(slot)) for k in range(A_TASK))
        deploy_as_of(url, ago(), [TaskDefinition(PROJECT, DOMAIN, f"t{n}", "v1", TaskSpec("noop"), triggers)])
    assert ago() < moment, "deployed too slowly"
    with ExitStack() as stack:
        started = [stack.enter_context(world.worker(f"w{n}")) for n in range(workers)]
        started[0].until(lambda: world.count("phase = 'SUCCEEDED'") >= number, "all have been fired", 300)
        (first, last), *_ = _rows(url, "SELECT min(created_at), max(finished_at) FROM runs")
        late = sorted(row[0] for row in _rows(url, f"SELECT started_at - {moment} FROM runs"))
        cpu = sum(worker.cpu_seconds() for worker in started)
        for worker in started:
            worker.stop(60)
        if KEEP_LOG:
            print(started[0].log()[-9000:])
    world.close()
    print(f"  cpu of workers {cpu:.2f} s = {cpu / number * 1e6:.0f} µs a run")
    return (last - first) / SECOND, late[len(late) // 2] / SECOND, late[len(late) * 99 // 100] / SECOND


def _rows(url: str, statement: str) -> list[Any]:
    store = Store.open(url)
    try:
        with store.read() as tx:
            return list(tx.connection.exec_driver_sql(statement).all())
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sqlite", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=arguments.sqlite) as (_, url):
        took, p50, p99 = lives(Path(folder) / "w", url, arguments.runs, arguments.workers)
        print(f"{arguments.runs / took:,.0f} a second; lateness p50 {p50:.2f} s, p99 {p99:.2f} s")


if __name__ == "__main__":
    main()
