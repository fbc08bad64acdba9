"""Workers that are killed, frozen and told to stop: every slot keeps its one entry, every run gets its end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from scheduler.domain.instants import SECOND
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import (
    World,
    assert_every_second_once,
    eventually,
    marking,
    marks,
    open_runs,
    reasons,
    ticking,
)

pytestmark = pytest.mark.heavy

LEASE = 3


@pytest.mark.parametrize("kind", BOTH)
def test_a_worker_killed_for_twenty_seconds_accounts_for_every_slot(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    file = tmp_path / "marks"
    # Twenty seconds are more than the grace: five of the late slots are caught up, the rest is a range with its reason.
    late = {"every": "1s", "catchup": {"max_runs": 5}}
    world = new_world(
        url,
        [marking("tick", file, then="sleep 2", trigger=late), ticking("second")],
        worker={"lease": f"{LEASE}s", "misfire_grace": "8s"},
    )
    with world.worker() as first:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 5, "five runs are over")
        first.kill()
        world.until(lambda: not world.children(), "no command is left", within=5)
    running = {run["name"] for run in world.runs("tick", "RUNNING")}
    assert running
    time.sleep(20)
    assert not world.children()

    with world.worker() as second:
        newest = max(run["scheduled_at"] for run in world.runs("tick"))
        world.until(
            lambda: any(run["scheduled_at"] > newest + 25 * SECOND for run in world.runs("tick", "SUCCEEDED")),
            "it has gone on",
        )
        world.until(lambda: not running & {run["name"] for run in open_runs(world.runs("tick"))}, "the lost are done")
        assert second.stop() == 0

    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    assert {entry["phase"] for entry in ledger if entry["kind"] == "run"} == {"SUCCEEDED"}
    assert set(reasons(ledger)) == {"catchup_cap"}
    assert len([entry for entry in ledger if entry["kind"] == "skipped"]) == 1
    assert_every_second_once(world.ledger("second"))
    assert {run["name"] for run in world.runs("tick") if run["lost"] == 1} == running
    # Executed again were only those that the kill cut short, and under the same keys.
    assert {key for key, count in marks(file).items() if count > 1} <= running
    assert set(marks(file, "end")) == {run["name"] for run in world.runs("tick")}


@pytest.mark.postgres
def test_the_other_worker_takes_over_within_two_leases(
    new_world: NewWorld, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "marks"
    world = new_world(postgres_url, [marking("tick", file, then="sleep 1.2")], worker={"lease": f"{LEASE}s"})
    with world.worker("one") as one, world.worker("two") as two:
        world.until(lambda: len(world.client.list_workers()) == 2, "two workers are there")
        two.until_said("finished")
        one.until_said("finished")
        time.sleep(LEASE)
        world.until(lambda: held_by(world, "one") >= 1, "the first holds runs")
        one.kill()
        killed = time.monotonic()
        orphans = {run["name"] for run in world.runs("tick", "RUNNING")}
        world.until(lambda: two.said("a worker is gone"), "the other has noticed", 2 * LEASE + 2)
        noticed = time.monotonic() - killed
        world.until(
            lambda: not orphans & {run["name"] for run in open_runs(world.runs("tick"))}, "all it held is done", 10
        )
        taken = time.monotonic() - killed
        lost = {run["name"] for run in world.runs("tick") if run["lost"]}
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 15, "it goes on alone")
        assert two.stop() == 0
    with capsys.disabled():
        print(f"\nwith a lease of {LEASE} s noticed after {noticed:.1f} s, all {len(lost)} redone after {taken:.1f} s")

    assert lost
    assert lost <= orphans
    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    assert {entry["phase"] for entry in ledger} == {"SUCCEEDED"}
    assert {key for key, count in marks(file).items() if count > 1} <= lost


def held_by(world: World, name: str) -> int:
    """How many runs the worker holds."""
    return sum(worker["running"] for worker in world.client.list_workers() if worker["name"] == name)


@pytest.mark.postgres
def test_what_a_frozen_worker_finishes_late_does_not_count(
    new_world: NewWorld, postgres_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world = new_world(postgres_url, [marking("tick", file, then="sleep 1.5")], worker={"lease": f"{LEASE}s"})
    with world.worker("frozen") as frozen, world.worker("other") as other:
        world.until(lambda: len(world.client.list_workers()) == 2, "two workers are there")
        frozen.until_said("finished")
        other.until_said("finished")
        time.sleep(LEASE)
        world.until(lambda: held_by(world, "frozen") >= 1, "it holds runs")
        world.freeze(frozen)
        other.until_said("a worker is gone", 3 * LEASE)
        world.until(lambda: held_by(world, "frozen") == 0, "its runs have been taken")
        time.sleep(2 * LEASE)
        thawed = len(world.runs("tick"))
        frozen.thaw()
        frozen.until_said("declared dead")
        world.until(lambda: len(world.client.list_workers()) == 2, "it is back as somebody new")
        world.until(lambda: len(world.runs("tick")) >= thawed + 8, "both go on")
        assert frozen.stop() == 0
        assert other.stop() == 0

    ledger = world.ledger("tick")
    assert_every_second_once(ledger)
    runs = world.runs("tick")
    assert {run["phase"] for run in runs} == {"SUCCEEDED"}
    for run in runs:
        attempts = world.client.show_run(run["name"])["attempts"]
        assert [attempt["phase"] for attempt in attempts] == ["LOST"] * run["lost"] + ["SUCCEEDED"], run
    assert {key for key, count in marks(file).items() if count > 1} <= {run["name"] for run in runs if run["lost"]}


@pytest.mark.postgres
def test_work_past_the_grace_is_ended_handed_back_and_done_by_another_under_the_same_key(
    new_world: NewWorld, postgres_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    script = 'trap \'echo "term $SCHEDULER_KEY" >> "$0"; exit 1\' TERM; echo "start $SCHEDULER_KEY" >> "$0"; '
    script += 'if [ "$(grep -c ^start "$0")" = 1 ]; then for i in $(seq 600); do sleep 0.1; done; fi'
    long = {
        "name": "long",
        "version": "v1",
        "executor": "shell",
        "config": {"command": ["sh", "-c", script, str(file)], "kill_after": "5s"},
        "triggers": [{"name": "t", "every": "1s", "max_fires": 1}],
    }
    world = new_world(postgres_url, [long], worker={"shutdown_grace": "2s", "lease": "30s"})
    with world.worker("first") as first:
        eventually(lambda: marks(file).total() == 1, "the command has started")
        begun = time.monotonic()
        assert first.stop() == 0
        took = time.monotonic() - begun
        assert 2 <= took < 6
        assert marks(file, "term").total() == 1
        assert first.said("handed back")
        assert not world.children()
        (run,) = world.runs("long")
        assert (run["phase"], run["attempt"], run["lost"]) == ("QUEUED", 1, 0)
        with world.worker("second") as second:
            world.until(lambda: world.runs("long", "SUCCEEDED"), "another has done it")
            assert second.stop() == 0

    (run,) = world.runs("long")
    assert (run["attempt"], run["lost"]) == (1, 0)
    assert marks(file) == {run["name"]: 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(
    number: signal.Signals, new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    world = new_world(sqlite_url, [marking("long", file, then="sleep 60", trigger={"every": "1s", "max_fires": 1})])
    with world.worker() as worker:
        eventually(lambda: marks(file).total() == 1, "the command has started")
        worker.send(number)
        worker.until_said("draining")
        time.sleep(1)
        assert worker.running
        begun = time.monotonic()
        assert worker.stop(number=number) == 0
        assert time.monotonic() - begun < 5
    assert not world.children()
    (run,) = world.runs("long")
    assert (run["phase"], run["attempt"], run["lost"]) == ("QUEUED", 1, 0)


def test_ctrl_c_drains(new_world: NewWorld, sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    world = new_world(sqlite_url, [marking("tick", file, then="sleep 2")])
    with world.worker() as worker:
        world.until(lambda: marks(file).total() >= 3, "commands have started")
        assert worker.stop(number=signal.SIGINT) == 0
        assert worker.said("draining")
        assert not worker.said("Traceback")
    assert {run["phase"] for run in world.runs("tick")} == {"SUCCEEDED"}
    assert marks(file, "end") == marks(file, "start")
    assert world.client.list_workers() == []


def test_a_kill_in_the_middle_of_a_start_leaves_nothing_that_the_next_start_minds(
    new_world: NewWorld, tmp_path: Path
) -> None:
    world = new_world(f"sqlite:///{tmp_path / 'made.db'}", [ticking("tick")])
    for delay in (0.3, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4):
        with world.worker() as worker:
            time.sleep(delay)
            worker.kill()
    with world.worker() as worker:
        worker.until_said("ready")
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 3, "it fires")
        assert worker.stop() == 0
    assert_every_second_once(world.ledger("tick"))
