"""Rehearsals: verbs that change many things say to what they would do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ManualClock
from tests.integration.cli_world import CliWorld, make_history


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> CliWorld:
    world = CliWorld(tmp_path, ManualClock("2026-03-27T12:00:00Z"))
    make_history(world)
    return world


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["triggers", "deactivate", "--task", "reports"], "would deactivate flytesnacks/development/reports/by-hand\n"),
        (["triggers", "activate", "reports/resting"], "would activate flytesnacks/development/reports/resting\n"),
        (["triggers", "delete", "--all"], "would delete flytesnacks/production/billing/hourly\n"),
        (["triggers", "snooze", "--all", "--for", "2h"], "would snooze flytesnacks/development/reports/nightly\n"),
        (["triggers", "skip-next", "--all"], "would skip the next slot of flytesnacks/production/billing/hourly\n"),
        (["runs", "cancel", "--task", "flytesnacks/production/billing"], "would cancel hourly-20260401t120000-"),
        (["runs", "retry", "--task", "reports"], "would retry nightly-20260331t000000-"),
        (["runs", "retry", "nightly-20260331"], "would retry nightly-20260331t000000-"),
        (["tasks", "delete", "reports"], "would delete flytesnacks/development/reports\n"),
        (["tasks", "delete", "--all"], "would delete flytesnacks/production/billing\n"),
        (
            ["tasks", "delete", "reports", "--version", "v1"],
            "would delete version v1 of flytesnacks/development/reports\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_dry_run_says_to_what_it_would_be_done_and_does_nothing(words: list[str], said: str, world: CliWorld) -> None:
    before = [world.call(kind, "list", "-o", "json").stdout for kind in ("tasks", "triggers", "runs")]
    result = world.call(*words, "--dry-run")
    assert said in result.stdout
    assert result.stderr == "dry run, nothing was done\n"
    assert [world.call(kind, "list", "-o", "json").stdout for kind in ("tasks", "triggers", "runs")] == before


def test_a_dry_run_of_what_does_not_exist_says_so(world: CliWorld) -> None:
    assert "does not exist" in world.call("triggers", "delete", "reports/zzz", "--dry-run", exits=4).stderr
    assert "does not exist" in world.call("tasks", "delete", "zzz", "--dry-run", exits=4).stderr
    assert "does not exist" in world.call("runs", "cancel", "zzz", "--dry-run", exits=4).stderr
