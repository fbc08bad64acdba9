"""The shortest way round: fire, drain, die, come back, refuse what is wrong."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import (
    DOMAIN,
    PROJECT,
    as_json,
    assert_every_second_once,
    eventually,
    marking,
    marks,
    scheduler_command,
    ticking,
)


def test_a_worker_fires_every_second_and_drains_when_it_is_told_to_stop(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world = new_world(sqlite_url, [marking("tick", file, then="sleep 0.3")])
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick")) >= 3, "three runs")
        assert worker.stop() == 0

    runs = world.runs("tick")
    assert {run["phase"] for run in runs} == {"SUCCEEDED"}
    assert_every_second_once(world.ledger("tick"))
    assert marks(file, "end") == {run["name"]: 1 for run in runs}
    assert world.client.list_workers() == []


def test_a_killed_worker_leaves_no_child_and_the_next_one_accounts_for_every_slot(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world = new_world(sqlite_url, [marking("tick", file, then="sleep 1.5")], worker={"lease": "1s"})
    with world.worker() as first:
        world.until(lambda: marks(file).total() >= 2, "two commands have started")
        first.kill()
        world.until(lambda: not world.children(), "the killed worker's commands are gone", within=5)

    begun = {run["name"] for run in world.runs("tick", "RUNNING")}
    assert begun, "nothing was cut short: the test says nothing"
    with world.worker() as second:
        world.until(
            lambda: begun <= {run["name"] for run in world.runs("tick", "SUCCEEDED")}, "the cut runs have been redone"
        )
        assert second.stop() == 0

    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    assert {entry["phase"] for entry in ledger} == {"SUCCEEDED"}
    assert all(run["lost"] == (1 if run["name"] in begun else 0) for run in world.runs("tick"))


def test_wrong_settings_end_the_start_with_code_2_and_make_nothing(new_world: NewWorld, tmp_path: Path) -> None:
    database = tmp_path / "new" / "scheduler.db"
    world = new_world(
        f"sqlite:///{database}", [ticking(trigger={"cron": "61 * * * *"})], worker={"lease": "soon", "leese": "1s"}
    )
    with world.worker() as worker:
        assert worker.wait() == 2

    said = worker.log()
    assert "settings.yaml" in said
    assert "worker.lease" in said
    assert "worker.leese" in said
    assert "Traceback" not in said
    assert not database.parent.exists()


def test_a_wrong_manifest_ends_the_start_with_code_2_and_makes_nothing(new_world: NewWorld, tmp_path: Path) -> None:
    database = tmp_path / "new" / "scheduler.db"
    wrong = [ticking("one", trigger={"cron": "61 * * * *"}), {**ticking("two"), "executor": "shel"}]
    world = new_world(f"sqlite:///{database}", wrong)
    with world.worker() as worker:
        assert worker.wait() == 2

    said = worker.log()
    assert "tasks.yaml" in said
    assert "61" in said
    assert "'shel' is not declared" in said
    assert not database.parent.exists()


def test_what_a_worker_does_is_seen_and_steered_from_a_second_terminal(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking("tick")], worker={"resync_interval": "500ms"})
    with world.worker() as worker:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "two runs are over")
        listed = as_json(world.call("runs", "list", "--trigger", "tick/t", "-o", "json"))
        assert {(run["task"], run["trigger"], run["version"]) for run in listed} == {("tick", "t", "v1")}
        assert world.call("triggers", "deactivate", "tick/t").returncode == 0
        (trigger,) = as_json(world.call("triggers", "list", "--task", "tick", "-o", "json"))
        assert (trigger["active"], trigger["next_fire_at"]) == (False, None)
        assert worker.stop() == 0

    slots = as_json(world.call("slots", f"{PROJECT}/{DOMAIN}/tick/t", "-o", "json"))
    assert len(slots) >= 2
    # A slot that came due in the very moment of the pause is skipped for it.
    assert {slot.get("phase") or slot["reason"] for slot in slots} <= {"SUCCEEDED", "paused"}
    assert world.call("triggers", "show", "tick/other").returncode == 4


def test_sighup_drains(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking()])
    with world.worker() as worker:
        world.until(lambda: world.runs("tick", "SUCCEEDED"), "a run has ended")
        assert worker.stop(number=signal.SIGHUP) == 0
    assert world.client.list_workers() == []


def test_a_log_that_cannot_be_written_ends_no_worker(new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking()])
    command = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *scheduler_command(world.config, "serve")]
    with subprocess.Popen(command, env=world.environment()) as worker:
        try:
            eventually(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "runs end, though the log is full")
            worker.terminate()
            assert worker.wait(20) == 0
        finally:
            worker.kill()
