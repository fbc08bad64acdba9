"""A million old runs are forgotten beside live firing: how much later what is due starts for it.

    python -m tests.bench.retention [--sqlite] [--spread]

The worker fires a hundred triggers a second, all at once or spread over it; in turns, retention rests or has a million runs
to remove.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import sqlalchemy

from scheduler.domain.instants import SECOND, Micros
from scheduler.store.engine import parse_url
from tests.bench.scale import databases
from tests.e2e.worlds import World, ago, task

TRIGGERS = 100
OLD = 1_000_000
OLD_TRIGGERS = 500
SECONDS = 25
TURNS = 4

_NUMBERS = {
    "sqlite": "(WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i < {last}) SELECT i FROM s) AS q",
    "postgresql": "(SELECT i FROM generate_series(0, {last}) AS i) AS q",
}


def _fill(world: World) -> None:
    """A million runs, over for two months, of a task that was deployed before; in the order in which they were made."""
    engine = sqlalchemy.create_engine(parse_url(world.database_url))
    numbers = _NUMBERS[engine.dialect.name]
    instant = f"({ago(days=60)} + CAST(q.i AS BIGINT) * 1000000)"
    slot = f"({ago(days=60) // SECOND * SECOND} + CAST(q.i / {OLD_TRIGGERS} AS BIGINT) * 1000000)"
    name = f"'old-' || (q.i % {OLD_TRIGGERS}) || '-' || q.i || '-abcdefghijklmnopqrstuvwxyz'"
    with engine.begin() as connection:

        def say(statement: str) -> None:
            # As text: a driver would take the sign for what is left of a division for a place of a parameter.
            connection.execute(sqlalchemy.text(statement))

        say("INSERT INTO tasks (id, project, domain, name) VALUES (999, 'p', 'd', 'old')")
        say(
            "INSERT INTO triggers (id, task_id, name, active, deleted_at, planned_from) "
            f"SELECT 100000 + q.i, 999, 'old-' || q.i, false, 1, '' FROM {numbers.format(last=OLD_TRIGGERS - 1)}"
        )
        say("UPDATE triggers SET planned_from = plan_source WHERE task_id = 999")
        say(
            "INSERT INTO runs (name, kind, trigger_id, task_id, scheduled_at, version, spec_digest, revision, inputs, "
            "executor, gated, phase, priority, not_before, fence, created_at, started_at, finished_at) "
            f"SELECT {name}, 'scheduled', 100000 + q.i % {OLD_TRIGGERS}, 999, {slot}, 'v1', '{'a' * 64}', 1, '{{}}', "
            f"'logging', false, 'SUCCEEDED', 0, 0, 2, {instant}, {instant}, {instant} "
            f"FROM {numbers.format(last=OLD - 1)}"
        )
        say(
            "INSERT INTO attempts (run_name, attempt, phase, started_at, finished_at, worker) "
            "SELECT name, 1, 'SUCCEEDED', started_at, finished_at, 'gone' FROM runs WHERE task_id = 999"
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Once now, or the server would do it by itself in the first turn.
        connection.exec_driver_sql("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE")
    engine.dispose()


def _let_it_rest(world: World, moment: Micros) -> None:
    """Retention has been through, as of that instant."""
    engine = sqlalchemy.create_engine(parse_url(world.database_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM meta WHERE key = 'retention'")
        state = json.dumps({"chore": 0, "after": 0, "next_at": moment})
        connection.execute(sqlalchemy.text("INSERT INTO meta VALUES ('retention', :state)"), {"state": state})
    engine.dispose()


def _lateness(world: World, since: Micros, until: Micros) -> list[float]:
    """How late, in milliseconds, the run of each slot between the two was created, from when it was due."""
    engine = sqlalchemy.create_engine(parse_url(world.database_url))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT created_at - not_before FROM runs "
            f"WHERE scheduled_at > {since} AND scheduled_at <= {until} AND kind = 'scheduled' AND task_id <> 999"
        )
        found = [row[0] / 1_000 for row in rows]
    engine.dispose()
    return found


def measure(folder: Path, url: str, *, spread: bool) -> str:
    """The figures of one database, in a line."""
    folder.mkdir()
    every_second: dict[str, object] = {"every": "1s", "catchup": {"policy": "none"}}
    if spread:
        every_second["jitter"] = "1s"
    world = World(
        folder,
        url,
        [task(f"live-{number}", "logging", trigger=every_second) for number in range(TRIGGERS)],
        worker={},
        retention={"runs": "30d", "runs_per_trigger": 0},
        logs={"level": "warning"},
    )
    assert world.call("db", "upgrade").returncode == 0
    _fill(world)
    late: dict[bool, list[float]] = {False: [], True: []}
    removed = 0
    # In turns, so that whatever else this machine does meanwhile is shared out evenly.
    for turn in range(TURNS):
        removing = turn % 2 == 1
        _let_it_rest(world, 0 if removing else ago(hours=-0.9))
        left = world.count("task_id = 999")
        with world.worker() as worker:
            world.until(lambda: world.count("task_id <> 999 AND phase = 'SUCCEEDED'") > 0, "it fires")
            time.sleep(3)
            since = ago()
            time.sleep(SECONDS)
            until = ago()
            assert worker.stop() == 0
        late[removing] += _lateness(world, since, until)
        removed += left - world.count("task_id = 999")
    world.close()
    rate = removed / (TURNS // 2 * (SECONDS + 3))
    alone, beside = (
        f"p50 {_percentile(found, 50):.1f} ms, p99 {_percentile(found, 99):.1f} ms"
        for found in (late[False], late[True])
    )
    return f"{removed:,} of {OLD:,} runs removed at {rate:,.0f} a second; late alone {alone}; beside it {beside}"


def _percentile(values: list[float], number: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * number // 100)]


def main() -> None:
    """One database, in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--spread", action="store_true", help="fire at any time of a second, not all at once")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=wanted.sqlite) as (_, url):
        print(measure(Path(folder) / "world", url, spread=wanted.spread))


if __name__ == "__main__":
    main()
