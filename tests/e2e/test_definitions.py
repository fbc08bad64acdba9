"""Deploys by real processes: many at once while a worker fires, and some that are killed in the middle."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from scheduler.client import Client
from scheduler.domain.instants import SECOND
from scheduler.services.operate import TriggerKey
from scheduler.store.urls import parse_url
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.deployers import TASK, definition
from tests.e2e.worlds import DOMAIN, PROJECT, eventually, scheduler_command, slots_of, ticking

pytestmark = pytest.mark.heavy

PROCESSES = 8
ROUNDS = 10


def rows(url: str, statement: str) -> list[Any]:
    engine = sqlalchemy.create_engine(parse_url(url))
    try:
        with engine.connect() as connection:
            return list(connection.exec_driver_sql(statement))
    finally:
        engine.dispose()


@pytest.mark.postgres
def test_deploys_of_one_task_from_eight_processes_while_it_fires_every_second(
    new_world: NewWorld, postgres_url: str, tmp_path: Path
) -> None:
    world = new_world(postgres_url, [ticking("idle", trigger={"every": "1d"})], worker={"resync_interval": "1s"})
    start = tmp_path / "start"
    with world.worker() as worker:
        worker.until_said("ready")
        with Client.open(postgres_url) as client:
            list(client.deploy([definition(0, -1)]))
        world.until(lambda: world.runs(TASK), "it fires")
        command = [sys.executable, "-m", "tests.e2e.deployers", postgres_url]
        deployers = [
            subprocess.Popen(
                [*command, str(number), str(ROUNDS), str(start)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=world.environment(),
            )
            for number in range(PROCESSES)
        ]
        time.sleep(3)
        begun = time.monotonic()
        start.touch()
        said = [deployer.communicate(timeout=180) for deployer in deployers]
        took = time.monotonic() - begun
        fired = len(world.runs(TASK))
        world.until(lambda: len(world.runs(TASK)) >= fired + 3, "it fires on")
        assert worker.stop() == 0
        log = worker.log()

    # Nobody saw a deadlock, and nobody's deploy was lost.
    assert [deployer.returncode for deployer in deployers] == [0] * PROCESSES, [error[-2000:] for _, error in said]
    deploys = [json.loads(line) for output, _ in said for line in output.splitlines()]
    assert len(deploys) == PROCESSES * ROUNDS
    assert all(each["applied"] for each in deploys)
    print(f"{len(deploys)} deploys from {PROCESSES} processes in {took:.1f} s")
    assert "deadlock" not in log.lower()
    assert "Traceback" not in log

    # No revision is missing or doubled, and each deploy made exactly one of `t`.
    revisions = rows(
        postgres_url,
        "SELECT t.name, r.revision, r.action, r.spec, r.active, r.version, r.at FROM trigger_revisions r "
        f"JOIN triggers t ON t.id = r.trigger_id JOIN tasks k ON k.id = t.task_id WHERE k.name = '{TASK}' "
        "ORDER BY t.name, r.revision",
    )
    of_t = [row for row in revisions if row[0] == "t"]
    assert [row[1] for row in of_t] == list(range(1, len(of_t) + 1))
    marks = [tuple(json.loads(row[3])["inputs"].values()) for row in of_t if row[2] == "DEPLOY"]
    assert sorted(marks) == sorted([(0, -1), *((each["number"], each["turn"]) for each in deploys)])
    for name in {row[0] for row in revisions}:
        numbers = [row[1] for row in revisions if row[0] == name]
        assert numbers == list(range(1, len(numbers) + 1)), name

    # The end is the last deploy's, whole.
    by, turn = marks[-1]
    last = definition(by, turn)
    with Client.open(postgres_url) as client:
        (task,) = client.list_tasks(name=TASK)
        listed = {row["name"]: row for row in client.list_triggers(task=TASK)}
        inputs = client.show_trigger(TriggerKey(PROJECT, DOMAIN, TASK, "t"))["inputs"]
        assert client.list_versions(PROJECT, DOMAIN, TASK)[0]["version"] == last.version
    assert (task["version"], task["digest"]) == (last.version, last.spec.digest)
    assert set(listed) == {spec.name for spec in last.triggers}
    assert {row["version"] for row in listed.values()} == {last.version}
    assert inputs == {"by": by, "turn": turn}
    assert listed["t"]["revision"] == len(of_t)
    assert task["total_triggers"] == 2
    assert task["active_triggers"] == sum(row["active"] for row in listed.values())

    # And all the while every second had at most one entry; only where `t` was switched off is one missing.
    slots = slots_of(world.ledger(TASK))
    assert len(slots) == len(set(slots))
    off = [row[6] for row in of_t if row[2] == "DEACTIVATE"]
    missing = set(range(slots[0], slots[-1] + 1, SECOND)) - set(slots)
    assert all(any(at - SECOND <= slot <= at + 2 * SECOND for at in off) for slot in missing)


# --- killed in the middle --------------------------------------------------------------------------------------------

TASKS = 200


def manifest(version: str, triggers: list[str]) -> dict[str, Any]:
    every_day = [{"name": name, "cron": "0 3 * * *", "inputs": {"of": version}} for name in triggers]
    return {
        "project": PROJECT,
        "domain": DOMAIN,
        "tasks": [
            {
                "name": f"task-{number:03}",
                "version": version,
                "executor": "logging",
                "inputs": {"n": number, "of": version},
                "triggers": every_day,
            }
            for number in range(TASKS)
        ],
    }


def state(url: str) -> dict[str, str]:
    """Each task as `old`, `new`, or what is wrong with it."""
    found: dict[str, list[Any]] = {}
    for row in rows(
        url,
        "SELECT k.name, k.latest_version, k.total_triggers, k.active_triggers, t.name, t.version, t.deleted_at, t.inputs, "
        "t.revision, (SELECT max(r.revision) FROM trigger_revisions r WHERE r.trigger_id = t.id), "
        "(SELECT count(*) FROM trigger_revisions r WHERE r.trigger_id = t.id), d.due_at, "
        "(SELECT max(v.deployed_at) FROM task_versions v WHERE v.task_id = k.id) = k.deployed_at, t.spec_digest = "
        "(SELECT v.spec_digest FROM task_versions v WHERE v.task_id = k.id AND v.version = k.latest_version) "
        "FROM tasks k JOIN triggers t ON t.task_id = k.id LEFT JOIN trigger_due d ON d.trigger_id = t.id",
    ):
        found.setdefault(row[0], []).append(row)
    return {name: _state(triggers) for name, triggers in found.items()}


def _state(triggers: list[Any]) -> str:
    version = triggers[0][1]
    live = sorted(row[4] for row in triggers if row[6] is None)
    whole = (
        live == {"old": ["a", "b"], "new": ["b", "c"]}[version]
        and (triggers[0][2], triggers[0][3]) == (2, 2)
        and all(row[8] == row[9] == row[10] for row in triggers)
        and all(row[5] == version and json.loads(row[7]) == {"of": version} for row in triggers if row[6] is None)
        and all((row[11] is not None) == (row[6] is None) for row in triggers)
        and all(row[12] for row in triggers)
        and all(row[13] for row in triggers if row[6] is None)
    )
    return version if whole else f"neither: {triggers}"


@pytest.mark.parametrize("kind", BOTH)
def test_a_deploy_killed_in_the_middle_leaves_each_task_old_or_new(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(url, [])
    old, new = world.folder / "old.yaml", world.folder / "new.yaml"
    old.write_text(yaml.safe_dump(manifest("old", ["a", "b"])))
    new.write_text(yaml.safe_dump(manifest("new", ["b", "c"])))
    assert world.call("deploy", str(old)).returncode == 0
    assert set(state(url).values()) == {"old"}

    generator = random.Random(6)
    halves = 0
    for turn in range(8):
        target, before = (new, "old") if turn % 2 == 0 else (old, "new")
        with subprocess.Popen(
            scheduler_command(world.config, "deploy", str(target)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=world.environment(),
        ) as process:
            # It has begun when the first task changed; from then on any moment will do.
            eventually(
                lambda before=before, process=process: begun(url, before) or process.poll() is not None, "it began"
            )
            time.sleep(generator.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        states = state(url)
        assert set(states.values()) <= {"old", "new"}, [each for each in states.values() if len(each) > 3][:2]
        halves += len(set(states.values())) == 2
        print(f"{kind}: killed with {sum(each != before for each in states.values())} of {TASKS} tasks changed")
        # The same deploy once more brings the rest.
        assert world.call("deploy", str(target)).returncode == 0
        assert set(state(url).values()) == {target.stem}
    assert halves >= 4


def begun(url: str, before: str) -> bool:
    return bool(rows(url, f"SELECT 1 FROM tasks WHERE latest_version <> '{before}' LIMIT 1"))
