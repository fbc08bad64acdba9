"""One worker and ten thousand external jobs, each looked at every ten seconds.

    python -m tests.bench.waits [--waits 10000] [--interval 10] [--seconds 60] [--postgres] [--json FILE]

One worker submits the jobs and is told to stop. The next one takes them over and is measured while nothing but looking
happens: its share of a core, how late looks begin, its memory. Then all jobs end. The service is a process of its own, and
so is each worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executors.airbyte import AirbyteExecutor
from scheduler import logs
from scheduler.app import App, HttpSessions
from scheduler.settings import Settings
from scheduler.store.transaction import Store

if TYPE_CHECKING:
    from scheduler.loop.worker import Worker

A_TASK = 1_000


# --- what is measured ------------------------------------------------------------------------------------------------


async def submit(url: str, host: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Fires all triggers and submits their jobs."""
    async with working(url, host) as (worker, until):
        begun, cpu = time.monotonic(), time.process_time()
        waiting = worker.deferring.waiting
        await until(lambda: worker.deferring.submitting.submitted >= wanted.waits and waiting.count >= wanted.waits)
        seconds, used = time.monotonic() - begun, time.process_time() - cpu
        return {
            "submitted_per_second": round(wanted.waits / seconds),
            "submission_cpu_ms": round(used / wanted.waits * 1000, 2),
            "memory_after_submitting_mb": memory(),
        }


async def watch(url: str, host: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Takes all jobs over, looks at them for a while, and sees them end."""
    async with working(url, host) as (worker, until):
        empty = memory()
        waiting, late = worker.deferring.waiting, array("d")
        await until(lambda: waiting.count >= wanted.waits)
        # The first looks are spread over the interval; from then on it goes round.
        await asyncio.sleep(2 * wanted.interval)
        looks, used, begun = waiting.lookouts.looks, time.process_time(), time.monotonic()
        waiting.lookouts.on_look = lambda executor, behind, took: late.append(behind)
        await asyncio.sleep(wanted.seconds)
        seconds, cpu = time.monotonic() - begun, time.process_time() - used
        looks = waiting.lookouts.looks - looks
        waiting.lookouts.on_look = None
        held = memory()
        behind_by = sorted(late)
        print("end", file=sys.stderr, flush=True)
        begun = time.monotonic()
        await until(lambda: waiting.count == 0 and not worker.finishing.pending)
        return {
            "looks_per_second": round(looks / seconds),
            "core_share": round(cpu / seconds, 3),
            "look_cpu_ms": round(cpu / looks * 1000, 3),
            "late_p50_ms": round(behind_by[len(late) // 2] * 1000, 2),
            "late_p99_ms": round(behind_by[len(late) * 99 // 100] * 1000, 2),
            "late_max_ms": round(behind_by[-1] * 1000, 2),
            "memory_mb": held,
            "memory_empty_mb": empty,
            "ended_within_seconds": round(time.monotonic() - begun, 1),
        }


@asynccontextmanager
async def working(url: str, host: str) -> AsyncIterator[tuple[Worker, Callable[[Callable[[], bool]], Any]]]:
    """A worker of its own settings, and a way to wait for what it does."""
    settings = Settings(database={"url": url}, tasks=(), worker={"max_concurrent_runs": 100, "misfire_grace": "30m"})
    app = App(settings, executors={"airbyte": AirbyteExecutor({"host": host})})
    store, sessions = Store.open(url), HttpSessions()
    worker = app.make_worker(store, app.build_executors(), sessions)
    life = asyncio.create_task(worker.run())

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            if life.done():
                life.result()
            await asyncio.sleep(0.05)

    try:
        await until(lambda: worker.stage == "working")
        yield worker, until
    finally:
        worker.stop()
        await life
        await sessions.close()
        store.close()


def memory() -> float:
    """Resident megabytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


# --- what it is measured in ------------------------------------------------------------------------------------------


def deploy(url: str, wanted: argparse.Namespace) -> None:
    """As many tasks as it takes, whose triggers all fire once, now."""
    from scheduler.domain.automation import At
    from scheduler.domain.instants import to_datetime
    from scheduler.domain.task import TaskDefinition, TaskSpec
    from scheduler.domain.trigger import TriggerSpec
    from scheduler.store.upgrade import upgrade_schema
    from tests.e2e.worlds import DOMAIN, PROJECT, ago, deploy_as_of

    store = Store.open(url)
    upgrade_schema(store)
    store.close()
    slot = to_datetime((ago(seconds=1) // 1_000_000) * 1_000_000)
    before = ago(seconds=5)  # All as of one instant before the slot, however long deploying them takes.
    spec = TaskSpec("airbyte", config={"connection_id": "c", "poll_interval": f"{int(wanted.interval * 1000)}ms"})
    for start in range(0, wanted.waits, A_TASK):
        triggers = tuple(TriggerSpec(f"once-{n:05}", At(slot)) for n in range(start, min(wanted.waits, start + A_TASK)))
        deploy_as_of(url, before, [TaskDefinition(PROJECT, DOMAIN, f"t{start}", "v1", spec, triggers)])


@contextmanager
def service() -> Iterator[tuple[str, Callable[[], None]]]:
    """The job service, and a way to end all jobs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.job_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    stdin = process.stdin

    def end() -> None:
        stdin.write("end\n")
        stdin.flush()

    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", end
    finally:
        process.kill()
        process.wait()


@contextmanager
def database(*, postgres: bool) -> Iterator[str]:
    """An empty database."""
    with tempfile.TemporaryDirectory() as folder:
        if not postgres:
            yield f"sqlite:///{folder}/waits.db"
            return
        from tests.bench.scale import databases

        with databases(Path(folder), sqlite=False) as (url, _):
            yield url


def in_a_process(part: str, url: str, host: str, wanted: argparse.Namespace, end: Callable[[], None]) -> dict[str, Any]:
    """What one part finds, in a process of its own."""
    numbers = [f"--{name}={getattr(wanted, name)}" for name in ("waits", "interval", "seconds")]
    command = [sys.executable, "-m", "tests.bench.waits", *numbers, "--part", part, url, host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if line == "end\n":
                end()
            else:
                print(line, end="", file=sys.stderr)
        found: dict[str, Any] = json.loads(process.stdout.read() or "{}")
    assert process.returncode == 0
    return found


def main() -> None:
    """Measures, prints a table, and writes the figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waits", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.part:
        logs.configure("console", "warning")
        part, url, host = wanted.part
        if part == "deploy":
            deploy(url, wanted)
        else:
            print(json.dumps(asyncio.run((submit if part == "submit" else watch)(url, host, wanted))))
        return
    figures: dict[str, Any] = {
        "database": "postgresql" if wanted.postgres else "sqlite",
        "waits": wanted.waits,
        "interval_seconds": wanted.interval,
    }
    with database(postgres=wanted.postgres) as url, service() as (host, end):
        for part in ("deploy", "submit", "watch"):
            figures |= in_a_process(part, url, host, wanted, end)
    for name, value in figures.items():
        print(f"{name:30}{value!s:>14}")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
