"""`scheduler simulate`: what would fire in a period, and where it heaps up."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.cli.simulate import heat_map
from tests.conftest import ManualClock
from tests.integration.cli_world import CliWorld

MANIFEST = """
tasks:
  - name: reports
    version: v1
    executor: logging
    triggers:
      - {name: nightly, cron: {expression: "0 2 * * *", timezone: Europe/Paris}}
      - {name: workdays, cron: "0 9 * * 1-5", calendars: [holidays]}
      - {name: thrice, every: 6h, max_fires: 3}
      - {name: resting, every: 1s, active: false}
      - {name: by-hand}
calendars: {holidays: {dates: [2026-11-23]}}
"""
PERIOD = ("--from", "2026-11-21T12:00:00Z", "--to", "2026-11-24T12:00:00Z")


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> CliWorld:
    world = CliWorld(tmp_path, clock)
    world.call("db", "upgrade")
    world.deploy(MANIFEST)
    return world


def test_it_lists_every_fire_of_the_period_in_order(world: CliWorld) -> None:
    fires = world.json("simulate", *PERIOD)
    assert [(fire["trigger"], fire["scheduled_at"]) for fire in fires] == [
        ("thrice", "2026-11-21T18:00:00Z"),
        ("thrice", "2026-11-22T00:00:00Z"),
        ("nightly", "2026-11-22T01:00:00Z"),
        ("thrice", "2026-11-22T06:00:00Z"),
        ("nightly", "2026-11-23T01:00:00Z"),
        ("nightly", "2026-11-24T01:00:00Z"),
        ("workdays", "2026-11-24T09:00:00Z"),
    ]


def test_it_fires_nothing(world: CliWorld) -> None:
    before = world.json("triggers", "list")
    world.call("simulate", *PERIOD)
    assert world.json("runs", "list") == []
    assert world.json("triggers", "list") == before


def test_the_limit_cuts_the_list_and_says_so(world: CliWorld) -> None:
    result = world.call("simulate", *PERIOD, "--limit", "2", "-o", "json")
    assert result.stdout.count("scheduled_at") == 2
    assert "7 fires in all; the first 2 are listed" in result.stderr


def test_one_trigger_can_be_asked_for(world: CliWorld) -> None:
    fires = world.json("simulate", *PERIOD, "--trigger", "reports/nightly")
    assert {fire["trigger"] for fire in fires} == {"nightly"}


def test_the_table_ends_with_the_busiest_minute(world: CliWorld) -> None:
    assert world.call("simulate", *PERIOD).stdout.rstrip().endswith("busiest minute: 01:00 UTC, 3 fires")


def test_a_period_that_is_none_is_wrong_usage(world: CliWorld) -> None:
    result = world.call("simulate", "--from", "2026-11-21T12:00:00Z", "--to", "2026-11-21T12:00:00Z", exits=2)
    assert "--to" in result.stderr


def test_the_map_draws_a_crowd_darker_than_the_rest() -> None:
    rows = heat_map({2 * 60: 1000, 2 * 60 + 30: 1, 14 * 60: 30}).splitlines()
    assert rows[0].startswith("UTC    000102")
    midnight_past = next(row for row in rows if row.startswith(":00 "))
    assert midnight_past[7 + 4 : 7 + 6] == "██"
    assert midnight_past[7 + 28 : 7 + 30] not in ("██", "  ")
    assert rows[-1] == "busiest minute: 02:00 UTC, 1000 fires"
