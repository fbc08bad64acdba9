"""The speed of the whole, beside APScheduler 3 and raw inserts on the same databases in one run.

    python -m tests.bench [--quick] [--into FOLDER]

Prints a table and writes `performance.json` and `performance.svg` into the folder. Ratios are what to look at: figures
drift with the machine, and all of one run drift together. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.life import Burst, burst
from tests.bench.peers import apscheduler, floor
from tests.bench.plot import bars
from tests.bench.scale import databases
from tests.bench.steady import Steady, steady

AT_ONCE = 10_000


def measured(sqlite: bool, size: dict[str, int], say: Callable[[str], None]) -> dict[str, Any]:
    """All figures of one database."""
    found: dict[str, Any] = {}
    with fresh(sqlite) as (folder, url):
        say("APScheduler 3")
        found["apscheduler_a_second"] = round(apscheduler(url, size["jobs"]))
    with fresh(sqlite) as (folder, url):
        say("raw batched inserts")
        found["raw_inserts_a_second"] = round(floor(url, size["rows"]))
    for workers in (1, 3):
        with fresh(sqlite) as (folder, url):
            say(f"{size['runs']:,} whole lives, {workers} worker(s)")
            found[f"whole_lives_{workers}"] = _told(burst(folder / "world", url, size["runs"], workers))
    with fresh(sqlite) as (folder, url):
        say(f"a burst of {AT_ONCE:,}")
        found["burst"] = _told(burst(folder / "world", url, AT_ONCE))
    with fresh(sqlite) as (folder, url):
        say(f"{size['rate']:,} a second among {size['triggers']:,} triggers")
        found["steady"] = _rounded(steady(folder / "world", url, size["triggers"], size["rate"], size["seconds"]))
    return found


@contextmanager
def fresh(sqlite: bool) -> Iterator[tuple[Path, str]]:
    """A folder and an empty database, both gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=sqlite) as (_, url):
        yield Path(folder), url


def _told(seen: Burst) -> dict[str, float]:
    return {**_rounded(seen), "a_second": round(seen.rate), "cpu_us": round(seen.cpu_seconds / seen.runs * 1e6)}


def _rounded(seen: Burst | Steady) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(seen).items()}


def table(results: dict[str, dict[str, Any]]) -> Table:
    """The figures side by side, each with how often it holds APScheduler's."""
    shown = Table("", *results, title="whole lives of runs a second, and what surrounds them")

    def row(name: str, of: Callable[[dict[str, Any]], str]) -> None:
        shown.add_row(name, *(of(found) for found in results.values()))

    def lives(workers: int) -> Callable[[dict[str, Any]], str]:
        def cell(found: dict[str, Any]) -> str:
            rate = found[f"whole_lives_{workers}"]["a_second"]
            return f"{rate:,} a second ({rate / found['apscheduler_a_second']:.1f} ×)"

        return cell

    row("APScheduler 3, nothing recorded", lambda found: f"{found['apscheduler_a_second']:,} a second")
    row("one worker, whole lives", lives(1))
    row("three workers", lives(3))
    row("raw batched inserts", lambda found: f"{found['raw_inserts_a_second']:,} a second")
    row(
        f"{AT_ONCE:,} at one instant, late",
        lambda found: f"{found['burst']['late_p50']:.2f} s, at 99 % {found['burst']['late_p99']:.2f} s",
    )
    row(
        "  at 99 %, in bursts divided by throughput",
        lambda found: f"{found['burst']['late_p99'] / (AT_ONCE / found['burst']['a_second']):.2f}",
    )
    row(
        "steady load, late",
        lambda found: f"{found['steady']['late_p50'] * 1e3:.0f} ms, at 99 % {found['steady']['late_p99'] * 1e3:.0f} ms",
    )
    row("  share of a core", lambda found: f"{found['steady']['core_share']:.0%}")
    row("  memory", lambda found: f"{found['steady']['memory_mb']:.0f} MB")
    row("ready after its start", lambda found: f"{found['steady']['start_seconds']:.2f} s")
    row("a lost run executed again (lease 5 s)", lambda found: f"{found['steady']['recovery_seconds']:.1f} s")
    return shown


def main() -> None:
    """Everything, on both databases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it runs")
    parser.add_argument("--into", type=Path, default=Path("build/bench"))
    wanted = parser.parse_args()
    size = {"jobs": 5_000, "rows": 200_000, "runs": 40_000, "triggers": 100_000, "rate": 1_000, "seconds": 40}
    if wanted.quick:
        size = {"jobs": 500, "rows": 20_000, "runs": 5_000, "triggers": 10_000, "rate": 100, "seconds": 20}
    console = Console(stderr=True)
    results = {}
    for name, sqlite in (("PostgreSQL", False), ("SQLite", True)):
        results[name] = measured(sqlite, size, partial(console.print, f"{name}:"))
    wanted.into.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()}
    (wanted.into / "performance.json").write_text(json.dumps({"machine": machine, "sizes": size, **results}, indent=2))
    (wanted.into / "performance.svg").write_text(bars(_bars(results), "whole lives of runs a second"))
    Console().print(table(results))
    Console().print(f"written to {wanted.into}/performance.json and performance.svg")


def _bars(results: dict[str, dict[str, Any]]) -> list[tuple[str, float]]:
    drawn = []
    for name, found in results.items():
        drawn.append((f"APScheduler 3, {name}", float(found["apscheduler_a_second"])))
        drawn.append((f"one worker, {name}", float(found["whole_lives_1"]["a_second"])))
        drawn.append((f"three workers, {name}", float(found["whole_lives_3"]["a_second"])))
    return drawn


if __name__ == "__main__":
    main()
