"""Tables on terminals of several widths, in a pipe, and as the options ask; runs by short names."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ManualClock
from tests.integration.cli_world import CliWorld, make_history
from tests.integration.test_cli_process import scheduler

LONG = "flytesnacks/production/billing/hourly"


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> CliWorld:
    world = CliWorld(tmp_path, ManualClock("2026-03-27T12:00:00Z"))
    make_history(world)
    return world


def on_terminal(world: CliWorld, columns: int, *words: str) -> list[str]:
    """The lines that a terminal of this width shows, colours left out."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        scheduler(*words),
        cwd=world.folder,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(main, 65_536):
            shown += piece
    except OSError:  # how Linux says that the other side of a terminal is closed
        pass
    os.close(main)
    assert process.wait(30) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal_and_no_name_is_cut_or_folded(world: CliWorld, columns: int) -> None:
    runs = world.json("runs", "list")
    lines = on_terminal(world, columns, "runs", "list")
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for run in runs:
        (line,) = (line for line in lines if run["name"].startswith(line.split()[0]) and not line.startswith(" "))
        assert len(line.split()[0]) >= len("nightly-20260401t000000-abcd") - 1
        assert run["phase"] in line
    assert LONG in text
    assert "reports/nightly" in text
    assert "the printer burns" in text


def test_at_80_columns_the_columns_that_matter_are_there_whole(world: CliWorld) -> None:
    heading, *rows = on_terminal(world, 80, "runs", "list", "--task", "reports")
    assert heading.split() == ["RUN", "TRIGGER", "PHASE", "WHEN", "TOOK"]
    assert re.fullmatch(
        r"nightly-20260401t000000-\w{4}  reports/nightly  SUCCEEDED  (in )?\d+ d( ago)?\s+2\.00s", rows[0]
    )
    assert rows[2] == "  the printer burns"


def test_a_wide_terminal_has_room_for_the_instants(world: CliWorld) -> None:
    (heading, *_) = on_terminal(world, 200, "runs", "list", "--task", "reports")
    assert re.search(r"SCHEDULED \(Europe/Paris\) +PHASE +ATTEMPT +STARTED", heading)
    assert heading.endswith("ERROR")


def test_wide_shows_a_terminal_what_a_pipe_gets(world: CliWorld) -> None:
    piped = world.call("runs", "list").stdout.splitlines()
    assert on_terminal(world, 60, "runs", "list", "--wide") == piped
    assert [run["name"] for run in world.json("runs", "list")] == [line.split()[0] for line in piped[1:]]


def test_columns_are_chosen_and_ordered_by_name(world: CliWorld) -> None:
    lines = world.call("runs", "list", "--columns", "phase, trigger,when").stdout.splitlines()
    assert lines[0].split() == ["PHASE", "TRIGGER", "WHEN"]
    assert lines[1].startswith(f"QUEUED     {LONG}")
    # A column that names a zone in its heading is called without it.
    assert world.call("runs", "list", "--columns", "scheduled").stdout.startswith("SCHEDULED (Europe/Paris)\n")
    result = world.call("runs", "list", "--columns", "phase,wen", exits=2)
    assert result.stderr.startswith("--columns: there is no WEN, there are RUN, TRIGGER, SCHEDULED, PHASE")


def test_rows_may_come_without_their_headings(world: CliWorld) -> None:
    bare = world.call("triggers", "list", "--no-header", "--columns", "trigger,state").stdout.splitlines()
    assert len(bare) == 4
    assert "flytesnacks/production/billing/hourly  scheduled" in bare


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list"],
        ["triggers", "list"],
        ["triggers", "revisions", "reports/nightly"],
        ["tasks", "list"],
        ["tasks", "versions", "reports"],
        ["slots", "reports/nightly"],
        ["workers", "list"],
        ["backfill", "list"],
        ["simulate"],
    ],
    ids=" ".join,
)
def test_every_listing_takes_the_same_options(words: list[str], world: CliWorld) -> None:
    shown = world.call(*words, "--help").stdout
    for option in ("--wide", "--columns", "--no-header", "--watch"):
        assert option in shown


def test_what_is_watched_is_printed_again_until_somebody_stops_it(world: CliWorld) -> None:
    import signal

    with subprocess.Popen(
        scheduler("runs", "list", "--watch", "--columns", "run"), cwd=world.folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(8)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert seen[0] == seen[4] == "RUN"
    assert seen[1] == seen[5]


# --- runs by short names ---------------------------------------------------------------------------------------------


def test_a_run_is_named_by_the_beginning_of_its_name(world: CliWorld) -> None:
    name = world.json("runs", "list", "--phase", "FAILED")[0]["name"]
    assert world.json("runs", "show", name[:24])["name"] == name
    assert world.json("runs", "show", name)["name"] == name
    assert world.call("runs", "retry", name[:28]).stdout == f"queued again {name}\n"
    assert world.call("runs", "cancel", name[:28]).stdout == f"cancelled {name}\n"


def test_a_beginning_of_several_names_them(world: CliWorld) -> None:
    result = world.call("runs", "show", "nightly-2026", exits=2)
    names = sorted(run["name"] for run in world.json("runs", "list", "--task", "reports"))
    assert result.stderr == f"run: 'nightly-2026' is the beginning of several: {', '.join(names)}: write more of it\n"


def test_the_latest_run_of_all_or_of_a_trigger(world: CliWorld) -> None:
    newest = world.json("runs", "list")[0]["name"]
    assert world.json("runs", "show", "@latest")["name"] == newest
    nightly = world.json("runs", "list", "--task", "reports")[0]["name"]
    assert world.json("runs", "show", "reports/nightly@latest")["name"] == nightly
    assert world.call("runs", "logs", "reports/nightly@latest").stderr == "attempt 1 printed nothing\n"
    result = world.call("runs", "show", "reports/by-hand@latest", exits=4)
    assert result.stderr == "run 'flytesnacks/development/reports/by-hand@latest' does not exist\n"
    assert "did you mean" in world.call("runs", "show", "reports/nihgtly@latest", exits=4).stderr


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["triggers", "show", "reports/nihgtly"], "flytesnacks/development/reports/nightly"),
        (["triggers", "show", "billing/hourly"], "flytesnacks/production/billing/hourly"),
        (["triggers", "deactivate", "report/nightly"], "flytesnacks/development/reports/nightly"),
        (["tasks", "show", "reprots"], "flytesnacks/development/reports"),
        (["slots", "reports/night"], "flytesnacks/development/reports/nightly"),
    ],
    ids=str,
)
def test_a_name_that_is_nearly_one_gets_a_hint(words: list[str], near: str, world: CliWorld) -> None:
    assert world.call(*words, exits=4).stderr.endswith(f"does not exist: did you mean {near}?\n")


def test_a_run_s_name_that_is_nearly_one_gets_a_hint(world: CliWorld) -> None:
    name = world.json("runs", "list", "--phase", "FAILED")[0]["name"]
    wrong = f"{name[:-2]}zz"
    assert world.call("runs", "show", wrong, exits=4).stderr == f"run '{wrong}' does not exist: did you mean {name}?\n"


def test_a_name_that_is_like_none_gets_none(world: CliWorld) -> None:
    assert world.call("tasks", "show", "zzz", exits=4).stderr == "task 'flytesnacks/development/zzz' does not exist\n"
