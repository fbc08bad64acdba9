"""A steady load: so many triggers fire every second, among many more that are not due yet.

    python -m tests.bench.steady [--triggers 100000] [--rate 1000] [--seconds 30] [--sqlite]
    python -m tests.bench.steady --triggers 1000000 --rate 2000 --seconds 120

Prints how late runs start, over all and in the first and the last twenty seconds: a scheduler that slows down as history
or the number of triggers grows shows it there. Then the worker is killed, and another one started at once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import SECOND, Micros, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.bench.life import A_TASK, rows
from tests.bench.scale import databases
from tests.e2e.worlds import DOMAIN, PROJECT, World, ago, deploy_as_of

_WINDOW = 20
_LEASE = 5
# Triggers deployed in a second, at least: all must be in before the first of them is due.
_DEPLOYED_A_SECOND = 2_500


@dataclass(frozen=True, slots=True)
class Steady:
    """How late runs started, in seconds, and what the worker held and used."""

    runs: int
    late_p50: float
    late_p99: float
    first_p99: float
    last_p99: float
    core_share: float
    memory_mb: float
    start_seconds: float
    """From the worker's start until it said it was ready, with all triggers there."""
    recovery_seconds: float
    """From a kill -9 until a run that it cut off is executed again by a worker that was started at once."""


def steady(folder: Path, url: str, triggers: int, rate: int, seconds: int) -> Steady:
    """Lets `rate` triggers fire each second for so many seconds, each of `triggers` in its turn."""
    folder.mkdir()
    world = World(
        folder,
        url,
        worker={"lease": f"{_LEASE}s", "resync_interval": "30s", "max_concurrent_runs": 1000},
        executors={"noop": {"use": "tests.bench.noop:Noop"}, "slow": {"use": "tests.bench.noop:Slow"}},
    )
    assert world.call("db", "upgrade").returncode == 0
    base = ago() + (30 + triggers // _DEPLOYED_A_SECOND) * SECOND
    base -= base % SECOND
    deploy_as_of(url, ago(), _tasks(triggers, rate, base))
    assert ago() < base - 10 * SECOND, "deployed too slowly"
    with world.worker("one") as worker:
        worker.until_said("ready", 60)
        start = time.monotonic() - worker.started
        time.sleep(max(0, (base - ago()) / SECOND))
        used, begun = worker.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        share = (worker.cpu_seconds() - used) / (time.monotonic() - begun)
        memory = worker.memory() / 1e6
        end = base + seconds * SECOND
        worker.until(lambda: world.count(f"scheduled_at < {end} AND phase <> 'SUCCEEDED'") == 0, "all are over", 120)
        found = rows(url, f"SELECT scheduled_at, started_at FROM runs WHERE scheduled_at < {end}")
        deploy_as_of(url, ago(), [TaskDefinition(PROJECT, DOMAIN, "slow", "v1", TaskSpec("slow"), (_soon(),))])
        worker.until(lambda: world.count("executor = 'slow' AND phase = 'RUNNING'") == 1, "the slow one runs", 30)
        worker.kill()
        killed = time.monotonic()
    with world.worker("two") as other:
        other.until(lambda: world.count("executor = 'slow' AND lost = 1 AND phase = 'RUNNING'") == 1, "taken over", 60)
        recovery = time.monotonic() - killed
    world.close()
    late = sorted(started - slot for slot, started in found)
    first = sorted(started - slot for slot, started in found if slot < base + _WINDOW * SECOND)
    last = sorted(started - slot for slot, started in found if slot >= end - _WINDOW * SECOND)
    return Steady(
        len(late), _at(late, 50), _at(late, 99), _at(first, 99), _at(last, 99), share, memory, start, recovery
    )


def _soon() -> TriggerSpec:
    return TriggerSpec("t", FixedRate(1, "day", to_datetime(ago() // SECOND * SECOND + 2 * SECOND)))


def _tasks(triggers: int, rate: int, base: Micros) -> Iterator[TaskDefinition]:
    interval = triggers // rate
    for number in range(triggers // A_TASK):
        specs = tuple(
            TriggerSpec(f"t{n:03}", FixedRate(interval, "second", to_datetime(base + (n % interval) * SECOND)))
            for n in range(number, number + A_TASK)
        )
        yield TaskDefinition(PROJECT, DOMAIN, f"steady-{number}", "v1", TaskSpec("noop"), specs)


def _at(late: Sequence[int], percent: int) -> float:
    return late[len(late) * percent // 100] / SECOND


def main() -> None:
    """One steady load, in some lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triggers", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--sqlite", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=wanted.sqlite) as (_, url):
        seen = steady(Path(folder) / "world", url, wanted.triggers, wanted.rate, wanted.seconds)
    print(f"{seen.runs:,} runs in {wanted.seconds} s among {wanted.triggers:,} triggers")
    print(f"late by {seen.late_p50 * 1000:.0f} ms in the median, {seen.late_p99 * 1000:.0f} ms at 99 %")
    print(f"at 99 % in the first {_WINDOW} s {seen.first_p99 * 1000:.0f} ms, in the last {seen.last_p99 * 1000:.0f} ms")
    print(f"{seen.core_share:.0%} of a core, {seen.memory_mb:.0f} MB; ready {seen.start_seconds:.2f} s after its start")
    print(
        f"after kill -9 a run that was cut off was executed again after {seen.recovery_seconds:.1f} s (lease {_LEASE} s)"
    )


if __name__ == "__main__":
    main()
