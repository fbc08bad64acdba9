"""Backfills by real workers that are killed: ends whole, each slot once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from scheduler.domain.instants import SECOND, parse_rfc3339
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import WorkerProcess, World, as_json, task

pytestmark = pytest.mark.heavy

FIRST = parse_rfc3339("2025-03-01T00:00:00Z")
MINUTE = 60 * SECOND
SLOTS = 10_000


@pytest.mark.parametrize("kind", BOTH)
def test_ten_thousand_slots_with_a_worker_killed_twice_end_whole_and_each_once(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    world = new_world(
        request.getfixturevalue(f"{kind}_url"),
        [task("tick", "logging", trigger={"cron": "* * * * *"})],
        worker={"lease": "2s", "max_catchup_runs_per_loop": 100_000},
        logs={"level": "warning"},
    )
    assert world.call("db", "upgrade").returncode == 0
    assert world.call("deploy").returncode == 0
    words = ("--from", "2025-03-01T00:00:00Z", "--to", "2025-03-07T22:39:00Z", "--max-active", "300")
    foreseen = as_json(world.call("backfill", "tick/t", *words, "--dry-run", "-o", "json"))
    assert (foreseen["slots"], foreseen["to_fill"]) == (SLOTS, SLOTS)
    ordered = as_json(world.call("backfill", "tick/t", *words, "--detach", "-o", "json"))
    number = ordered["backfill"]
    began = time.monotonic()
    reached = []
    for share in (0.3, 0.7):
        with world.worker() as worker:
            worker.until(
                lambda share=share: world.client.show_backfill(number)["succeeded"] >= share * SLOTS,
                f"{share:.0%} of them are done",
                within=120,
            )
            worker.until(
                lambda worker=worker: caught_working(world, worker), "it is caught with runs in hand", within=60
            )
            worker.kill()
            reached.append(world.client.show_backfill(number)["considered"])
    with world.worker() as worker:
        result = world.call("backfill", "show", str(number), "-o", "json")
        worker.until(lambda: world.client.show_backfill(number)["state"] == "done", "it is done", within=240)
        took = time.monotonic() - began
        assert worker.stop() == 0
    with capsys.disabled():
        print(f"\n{kind}: {SLOTS} slots, killed at {reached}, whole after {took:.0f} s")

    assert as_json(result)["state"] == "running"
    document = world.client.show_backfill(number)
    assert (document["considered"], document["queued"], document["succeeded"]) == (SLOTS, SLOTS, SLOTS)
    runs = [run for run in world.runs("tick") if run["scheduled_at"] < FIRST + SLOTS * MINUTE]
    slots = Counter(run["scheduled_at"] for run in runs)
    assert set(slots) == {FIRST + number * MINUTE for number in range(SLOTS)}
    assert set(slots.values()) == {1}
    # Executed twice were those that a kill cut short, and no others.
    assert 0 < sum(run["lost"] for run in runs) <= 2 * 300
    ledger = [entry for entry in world.ledger("tick") if entry["kind"] == "run"]
    assert {entry["scheduled_at"] for entry in ledger} >= set(slots)


def caught_working(world: World, worker: WorkerProcess) -> bool:
    """Whether the worker, now frozen, has runs in hand; it goes on if it has none, as for a moment between two batches."""
    worker.freeze()
    time.sleep(0.05)  # What it had sent off is done by then.
    running = world.client.list_runs(task="tick", phase="RUNNING")
    if any(run["scheduled_at"] < FIRST + SLOTS * MINUTE for run in running):
        return True
    worker.thaw()
    return False


@pytest.mark.postgres
def test_two_workers_share_a_backfill_and_never_exceed_what_may_be_open(
    new_world: NewWorld, postgres_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    script = 'echo "start $SCHEDULER_KEY" >> "$0"; sleep 0.2'
    slow = task("slow", "shell", {"command": ["sh", "-c", script, str(file)]}, trigger={"cron": "* * * * *"})
    # Neither has places for all that may be open: whoever orders them cannot keep them all.
    world = new_world(postgres_url, [slow], worker={"max_concurrent_runs": 3})
    assert world.call("db", "upgrade").returncode == 0
    assert world.call("deploy").returncode == 0
    most = 0
    with world.worker("one") as one, world.worker("two") as two:
        one.until_said("ready")
        two.until_said("ready")
        words = ("--from", "2025-03-01T00:00:00Z", "--to", "2025-03-01T01:39:00Z", "--max-active", "6")
        number = as_json(world.call("backfill", "slow/t", *words, "-o", "json"))["backfill"]
        while (document := world.client.show_backfill(number))["state"] != "done":
            most = max(most, document["open"])
            assert two.running
            time.sleep(0.05)
        assert one.stop() == 0
        assert two.stop() == 0
    assert document["succeeded"] == 100
    assert most <= 6
    # A minute may have come meanwhile whose own run is none of the backfill's.
    keys = Counter(line.split()[1] for line in file.read_text().splitlines() if "t-20250301t" in line)
    assert len(keys) == 100
    assert set(keys.values()) == {1}
    workers = Counter(
        world.client.show_run(run["name"])["attempts"][0]["worker"] for run in world.runs("slow", "SUCCEEDED")
    )
    assert set(workers) == {"one", "two"}, workers


def test_cancelled_in_the_middle_it_stops_and_what_runs_finishes(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    # Longer than the command takes that cancels: just after two have ended, two less are queued than there may be.
    slow = task("slow", "shell", {"command": ["sleep", "5"]}, trigger={"cron": "* * * * *"})
    world = new_world(sqlite_url, [slow], worker={"max_concurrent_runs": 2})
    with world.worker() as worker:
        worker.until_said("ready")
        words = ("--from", "2025-03-01T00:00:00Z", "--to", "2025-03-01T01:00:00Z", "--max-active", "6")
        number = as_json(world.call("backfill", "slow/t", *words, "-o", "json"))["backfill"]
        world.until(lambda: len(world.runs("slow", "RUNNING")) == 2, "two of them run")
        result = world.call("backfill", "cancel", str(number))
        assert result.stdout.startswith(f"cancelling backfill {number}: "), result.stderr
        assert len(world.runs("slow", "ABORTED")) >= 4
        world.until(lambda: world.client.show_backfill(number)["state"] == "cancelled", "it is over", 10)
        document = world.client.show_backfill(number)
        assert document["open"] == 0
        assert document["succeeded"] + document["aborted"] == document["queued"] < 61
        assert document["succeeded"] >= 2
        assert world.call("backfill", "cancel", str(number)).returncode == 5
        assert worker.stop() == 0
