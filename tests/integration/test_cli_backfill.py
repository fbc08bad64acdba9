"""`scheduler backfill` as people and scripts call it: a verb that takes a trigger, and a group with list, show, cancel."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scheduler.domain.run import Phase
from scheduler.services.backfill_steps import advance_backfill, backfills_under_way
from scheduler.services.finish import Ended, finish_runs
from tests.conftest import ManualClock
from tests.integration.cli_world import BILLING, REPORTS, CliWorld, taken

# Long before any clock that runs these tests: the command itself knows no other than the machine's.
JANUARY = ("--from", "2025-01-01T00:00:00Z", "--to", "2025-01-31T12:00:00Z")
NIGHTLY = "reports/nightly"


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path, clock: ManualClock) -> CliWorld:
    """The reports are deployed; nothing has ever fired."""
    world = CliWorld(tmp_path, clock)
    world.deploy(REPORTS, BILLING)
    return world


def work(world: CliWorld, phase: Phase = Phase.SUCCEEDED) -> bool:
    """Moves every backfill on and executes what that queued; False when there was nothing to do."""
    with world.store() as store:
        for number in store.run(backfills_under_way):
            store.run(advance_backfill, number, {})
        with store.begin() as tx:
            executions = taken(tx, "box-1", on_time=0, late=100)
        with store.begin() as tx:
            finish_runs(tx, [Ended(item, phase, "it broke", retryable=False) for item in executions], "box")
        return bool(executions or store.run(backfills_under_way))


@contextmanager
def a_worker(world: CliWorld, phase: Phase = Phase.SUCCEEDED) -> Iterator[None]:
    """Somebody who works as long as the block lasts."""
    world.register("box")
    over = threading.Event()

    def forever() -> None:
        while not over.wait(0.05):
            work(world, phase)

    thread = threading.Thread(target=forever)
    thread.start()
    yield
    over.set()
    thread.join()


def order(world: CliWorld, *words: str) -> dict[str, Any]:
    document: dict[str, Any] = world.json("backfill", NIGHTLY, *JANUARY, *words)
    return document


def test_an_order_says_its_number_and_returns(world: CliWorld) -> None:
    result = world.call("backfill", NIGHTLY, *JANUARY)
    assert result.stdout == "backfill 1: 31 slots of flytesnacks/development/reports/nightly\n"
    assert result.stderr == ""


def test_its_document_has_fixed_keys(world: CliWorld) -> None:
    document = order(world, "--max-active", "3", "--reverse", "--reprocess", "failed")
    assert ",".join(document) == (
        "backfill,project,domain,task,trigger,from,to,reprocess,max_active,reverse,state,slots,considered,left_alone,"
        "queued,open,succeeded,failed,aborted,created_at,created_by,finished_at,note"
    )
    assert {
        name: document[name] for name in ("from", "to", "max_active", "reverse", "reprocess", "state", "slots")
    } == {
        "from": "2025-01-01T00:00:00Z",
        "to": "2025-01-31T12:00:00Z",
        "max_active": 3,
        "reverse": True,
        "reprocess": "failed",
        "state": "running",
        "slots": 31,
    }
    assert world.json("backfill", "show", "1") == document
    assert world.json("backfill", "list") == [document]


def test_options_may_come_before_the_trigger_and_paths_may_be_whole(world: CliWorld) -> None:
    world.call("backfill", "--max-active", "2", *JANUARY, "flytesnacks/development/reports/nightly")
    world.call("backfill", *JANUARY, "flytesnacks/production/billing/hourly", "--detach")
    assert [(row["task"], row["slots"], row["max_active"]) for row in world.json("backfill", "list")] == [
        ("billing", 733, 1),
        ("reports", 31, 2),
    ]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(world: CliWorld) -> None:
    document = order(world, "--dry-run")
    assert document == {
        "project": "flytesnacks",
        "domain": "development",
        "task": "reports",
        "trigger": "nightly",
        "from": "2025-01-01T00:00:00Z",
        "to": "2025-01-31T12:00:00Z",
        "slots": 31,
        "first": "2025-01-01T01:00:00Z",
        "last": "2025-01-31T01:00:00Z",
        "left_alone": 0,
        "to_fill": 31,
        "next": document["next"],
    }
    assert [item["scheduled_at"][:10] for item in document["next"]] == [f"2025-01-0{day}" for day in range(1, 6)]
    assert all(item["run"].startswith("nightly-202501") for item in document["next"])
    result = world.call("backfill", NIGHTLY, *JANUARY, "--dry-run")
    assert "2025-01-01 02:00:00+01:00" in result.stdout
    assert result.stderr == "dry run, nothing was written\n"
    assert world.json("backfill", "list") == []


def test_what_the_trigger_fires_itself_is_cut_off_and_said(world: CliWorld) -> None:
    result = world.call(
        "backfill", NIGHTLY, "--from", "2025-01-30T00:00:00Z", "--to", "2199-01-01T00:00:00Z", "--dry-run"
    )
    assert re.search(r"^cut at \S+Z: the trigger fires later slots itself$", result.stderr, re.M)


def test_a_listing_shows_how_far_each_has_come(world: CliWorld) -> None:
    order(world, "--max-active", "10")
    world.register("box")
    work(world)
    result = world.call("backfill", "list")
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["NUMBER", "TRIGGER", "FROM", "(Europe/Paris)", "TO", "STATE", "SLOTS", "DONE", "RUNS"]
    assert row.split()[-4:] == ["running", "31", "10", "10"]
    shown = world.call("backfill", "show", "1").stdout
    assert "31, 10 looked at, 0 left alone" in shown
    assert "10: 10 succeeded" in shown
    assert world.call("backfill", "list", "--task", "billing").stderr == "no backfill matches\n"


def test_it_waits_until_all_is_over_if_told_to(world: CliWorld) -> None:
    with a_worker(world):
        result = world.call("backfill", NIGHTLY, *JANUARY, "--max-active", "50", "--wait")
    first, last = result.stdout.splitlines()
    assert first.startswith("backfill 1: 31 slots")
    assert last == "done: 31 runs, 0 left alone; 31: 31 succeeded"


def test_exit_code_1_says_that_not_all_went_well(world: CliWorld) -> None:
    with a_worker(world, Phase.FAILED):
        result = world.call("backfill", NIGHTLY, *JANUARY, "--max-active", "50", "--wait", "-o", "json", exits=1)
    assert '"failed": 31' in result.stdout
    assert world.call("backfill", NIGHTLY, *JANUARY, "--reprocess", "failed", "--dry-run", "-o", "json").exit_code == 0


def test_cancelled_it_says_how_far_it_came(world: CliWorld) -> None:
    order(world, "--max-active", "4")
    with world.store() as store:
        store.run(advance_backfill, 1, {})
    assert world.call("backfill", "cancel", "1").stdout == "cancelled backfill 1: 4 of 31 slots got a run\n"
    assert world.json("backfill", "show", "1")["aborted"] == 4
    assert world.call("backfill", "cancel", "1", exits=5).stderr == "backfill 1 is cancelled already\n"
    assert world.call("backfill", "cancel", "7", exits=4).stderr == "backfill '7' does not exist\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["reports/nothing", *JANUARY], 4, "trigger 'flytesnacks/development/reports/nothing' does not exist"),
        (["reports/by-hand", *JANUARY], 2, "has no schedule: it is fired by hand"),
        (["reports/resting", *JANUARY], 5, "was never active"),
        (
            [NIGHTLY, "--from", "2025"],
            2,
            "--from: '2025' is no time: write 2h (2h ago), 2026-11-25, 2026-11-25T14:00 or",
        ),
        ([NIGHTLY, *JANUARY[::-1]], 2, ""),
        ([NIGHTLY, "--from", "2025-02-01T00:00:00Z", "--to", "2025-01-01T00:00:00Z"], 2, "lies before"),
        ([NIGHTLY, *JANUARY, "--reprocess", "some"], 2, "'some' is none of none, failed, all"),
        ([NIGHTLY, *JANUARY, "--max-active", "0"], 2, "--max-active"),
        ([NIGHTLY], 2, "--from"),
        (["a/b/c", *JANUARY], 2, "write task/name or project/domain/task/name"),
        (["lst"], 2, "'lst' is not a verb: did you mean list?"),
        (["show", "x"], 2, "valid integer"),
        (["show", "9"], 4, "backfill '9' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(world: CliWorld, words: list[str], code: int, said: str) -> None:
    result = world.call("backfill", *words, exits=code)
    assert said in result.stderr
    assert world.json("backfill", "list") == []


def test_help_names_both_ways(world: CliWorld) -> None:
    shown = world.call("backfill", "--help").stdout
    for word in ("TRIGGER", "list", "show", "cancel"):
        assert re.search(rf"^  {word} ", shown, re.M)
    assert "--max-active N" in world.call("backfill", NIGHTLY, "--help").stdout


def test_on_a_terminal_there_is_a_bar_and_ctrl_c_ends_only_the_looking(world: CliWorld) -> None:
    master, slave = pty.openpty()
    words = ["backfill", NIGHTLY, *JANUARY, "--max-active", "2"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler", "--config", str(world.config), *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    world.register("box")
    seen = b""
    while b"/31" not in seen:
        work(world)
        seen += os.read(master, 65_536)
    process.send_signal(2)
    with pytest.raises(OSError):  # noqa: PT012  # the terminal closes when the command ends
        while True:
            seen += os.read(master, 65_536)
    assert process.wait(10) == 130
    os.close(master)
    assert "━".encode() in seen
    assert b"the backfill goes on: scheduler backfill show 1" in seen
    assert world.json("backfill", "show", "1")["state"] == "running"


def test_days_are_those_of_the_trigger_s_zone_the_last_one_whole(world: CliWorld) -> None:
    foreseen = world.json("backfill", NIGHTLY, "--from", "2025-01-01", "--to", "2025-01-31", "--dry-run")
    assert foreseen["slots"] == 31
    # Midnight in Paris is 23:00 UTC of the day before.
    foreseen = world.json("backfill", NIGHTLY, "--from", "2025-01-01T02:00", "--to", "2025-01-02T01:59", "--dry-run")
    assert foreseen["slots"] == 1
