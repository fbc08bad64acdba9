"""Simulated worlds: whatever people, clocks and crashes do, every owed slot has its one entry and every run its one end.

A failing world prints its seed and how to play it again alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from scheduler.domain.instants import SECOND
from tests.simulation.invariants import violations
from tests.simulation.play import WorldFailedError, play, postgres_world, sqlite_world
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
QUICK = range(24)
HEAVY = range(1_000, 1_600)
ON_POSTGRES = range(4)
_PACK = 25


@lru_cache
def story(seed: int) -> str:
    """What happened in a world, played once however many tests look at it."""
    with sqlite_world() as (store, clock):
        return "\n".join(play(seed, store, clock).events)


@pytest.mark.parametrize("seed", QUICK)
def test_a_world_keeps_every_promise(seed: int) -> None:
    assert story(seed)


@pytest.mark.heavy
@pytest.mark.parametrize("first", HEAVY[::_PACK])
def test_many_worlds_keep_every_promise(first: int) -> None:
    for seed in range(first, first + _PACK):
        with sqlite_world() as (store, clock):
            play(seed, store, clock)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(2_000, 2_010))
def test_a_long_world_keeps_every_promise(seed: int) -> None:
    with sqlite_world() as (store, clock):
        play(seed, store, clock, steps=1_500)


@pytest.mark.postgres
def test_worlds_on_postgresql_keep_every_promise(postgres_url: str) -> None:
    for seed in ON_POSTGRES:
        with postgres_world(postgres_url) as (store, clock):
            play(seed, store, clock)


@pytest.mark.heavy
@pytest.mark.postgres
def test_many_worlds_on_postgresql_keep_every_promise(postgres_url: str) -> None:
    for seed in range(5_000, 5_060):
        with postgres_world(postgres_url) as (store, clock):
            play(seed, store, clock)


# --- the worlds themselves -------------------------------------------------------------------------------------------


def test_a_seed_tells_the_same_story_each_time() -> None:
    stories = []
    for _ in range(2):
        with sqlite_world() as (store, clock):
            stories.append(play(7, store, clock, steps=60).events)
    assert stories[0] == stories[1]


def test_the_quick_worlds_see_every_kind_of_event() -> None:
    events = "\n".join(story(seed) for seed in QUICK)
    kinds = ["died", "froze", "left", "noticed", "moved by -", "deleted_at", "activated .*: True"]
    kinds += ["recorded [1-9]", "refused [1-9]", "took back [1-9]", "gave up [1-9]", "deployed .*: nothing new"]
    kinds += ["catchup_cap", "catchup_window", "catchup_policy", "coalesced", "covered_by_gap"]
    assert [kind for kind in kinds if not re.search(kind, events)] == []


@pytest.mark.parametrize(
    ("sabotage", "invariant"),
    [
        ("DELETE FROM runs WHERE name IN (SELECT min(name) FROM runs)", "every_owed_slot_has_its_one_entry"),
        ("UPDATE skips SET count = count + 1", "every_owed_slot_has_its_one_entry"),
        ("UPDATE trigger_due SET next_slot = next_slot + 60000000", "plans_are_what_the_rules_give"),
        ("UPDATE runs SET fence = fence + 1", "runs_stand_as_their_history_says"),
        ("DELETE FROM attempts", "attempts_are_recorded_once"),
        ("UPDATE runs SET scheduled_at = scheduled_at + 1000000", "runs_bear_the_names_of_their_slots"),
        ("UPDATE runs SET phase = 'RUNNING'", "nothing_is_open_without_an_owner_or_a_reason"),
        ("UPDATE runs SET lost = 7", "lost_runs_are_given_up_at_the_limit"),
        ("UPDATE tasks SET total_triggers = 99", "summaries_count_the_triggers"),
    ],
)
def test_the_invariants_notice_what_is_wrong(sabotage: str, invariant: str) -> None:
    with sqlite_world() as (store, clock):
        world = play(2, store, clock)
        assert violations(world) == []
        with store.begin() as tx:
            tx.connection.exec_driver_sql(sabotage)
        assert invariant in {fault.partition(":")[0] for fault in violations(world)}


def test_a_failing_world_says_how_to_play_it_again() -> None:
    with sqlite_world() as (store, clock):
        world = World(4_711, store, clock)
        world.move_clock(SECOND)
        error = WorldFailedError(world, 12, ["something is wrong"])
    assert str(error) == ("seed 4711, step 12; replay: python -m tests.simulation --seed 4711\nsomething is wrong")


def test_a_seed_can_be_played_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "3", "--steps", "30"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "worker-1 began" in done.stdout
    assert done.stdout.endswith("1 worlds, 0 failed\n")
