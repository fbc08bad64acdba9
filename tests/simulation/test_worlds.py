"""Simulated worlds: whatever people, clocks and crashes do, every owed slot has its one entry and every run its one end.

A failing world prints its seed and how to play it again alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.domain.instants import SECOND
from tests.simulation.faults import Garden, random_run_name
from tests.simulation.invariants import violations
from tests.simulation.packs import LONG, Pack, packs
from tests.simulation.play import STEPS, Universe, WorldFailedError, universe
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
# So many worlds are searched for one that has what a test needs; most tests find it in the first.
FEW = 100
# In packs, so that several processes have their share: a thousand worlds in all. `make simulate` plays more of each kind.
QUICK = [range(first, first + 25) for first in range(0, 200, 25)]
HEAVY = [range(first, first + 50) for first in range(1_000, 1_800, 50)]
LONG_ONES = [range(first, first + 2) for first in range(10_000, 10_010, 2)]
ON_POSTGRES = range(20_000, 20_006)
MANY_ON_POSTGRES = [range(first, first + 20) for first in range(20_100, 20_160, 20)]


@pytest.mark.parametrize("seeds", QUICK, ids=str)
def test_worlds_keep_every_promise(seeds: range, here: Universe) -> None:
    for seed in seeds:
        here.play(seed)


@pytest.mark.heavy
@pytest.mark.parametrize("seeds", HEAVY, ids=str)
def test_many_worlds_keep_every_promise(seeds: range, here: Universe) -> None:
    for seed in seeds:
        here.play(seed)


@pytest.mark.heavy
@pytest.mark.parametrize("seeds", LONG_ONES, ids=str)
def test_long_worlds_keep_every_promise(seeds: range, here: Universe) -> None:
    for seed in seeds:
        here.play(seed, steps=LONG)


@pytest.fixture
def over_there(postgres_url: str) -> Iterator[Universe]:
    with universe(postgres_url) as found:
        yield found


@pytest.mark.postgres
def test_worlds_on_postgresql_keep_every_promise(over_there: Universe) -> None:
    for seed in ON_POSTGRES:
        over_there.play(seed)


@pytest.mark.heavy
@pytest.mark.postgres
@pytest.mark.parametrize("seeds", MANY_ON_POSTGRES, ids=str)
def test_many_worlds_on_postgresql_keep_every_promise(seeds: range, over_there: Universe) -> None:
    for seed in seeds:
        over_there.play(seed)


# --- the worlds themselves -------------------------------------------------------------------------------------------


def test_a_seed_tells_the_same_story_each_time(here: Universe) -> None:
    assert here.play(7, steps=60).events == here.play(7, steps=60).events


def test_a_seed_tells_the_same_story_in_every_process(here: Universe) -> None:
    # Strings are hashed with another seed in each process: no set of them may decide what happens.
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3", "--steps", "60"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [*here.play(3, steps=60).events, "1 worlds, 0 failed"]


def test_a_few_worlds_see_every_kind_of_event(here: Universe) -> None:
    kinds = [
        "died",
        "froze",
        "left",
        "does not hear|did not hear",
        "database is away",
        "set back",
        "clock was set by [1-9]",
    ]
    kinds += ["does not believe the clock", "jitter': "]
    kinds += ["clock of .* was set", "backup was restored, to be caught up", "backup was restored, to skip"]
    kinds += ["recorded [1-9]", "refused [1-9]", "took back [1-9]", "gave up [1-9]", "expired [1-9]", "paused .*/"]
    kinds += [
        "nothing new",
        "at start: nothing new",
        "at start: applied",
        "activated .*: True",
        "snoozed",
        "deleted_at",
    ]
    kinds += ["fired .* by hand", "cancelled .*ended=\\('", "cancelled .*ending=\\('", "begins .* again", "deleted "]
    kinds += [
        "catchup_cap",
        "catchup_window",
        "catchup_policy",
        "coalesced",
        "covered_by_gap",
        "overlap",
        "buffer_full",
    ]
    kinds += ["calendar", "skip_next", "61 \\* \\* \\* \\*"]
    seed = 0
    while kinds and seed < FEW:
        events = "\n".join(here.play(seed).events)
        kinds = [kind for kind in kinds if not re.search(kind, events)]
        seed += 1
    assert kinds == [], f"never seen in {seed} worlds"


def first_world(here: Universe, wanted: Callable[[World], object]) -> World:
    """The first world in which that is so: what a seed holds is another with every change of the worlds themselves."""
    for seed in range(FEW):
        world = here.play(seed)
        if wanted(world):
            return world
    raise AssertionError(f"nothing of the kind in {FEW} worlds")


def is_plain(world: World) -> bool:
    """Whether the invariants look at everything: some have nothing to say after certain events."""
    unusual = world.was_set_back or world.flickered or any(model.pending for model in world.triggers.values())
    return not unusual and not any(run.reopened for run in world.runs.runs.values())


@pytest.mark.parametrize(
    ("sabotage", "invariant"),
    [
        (
            "DELETE FROM runs WHERE name IN (SELECT min(name) FROM runs WHERE kind = 'scheduled')",
            "every_owed_slot_has_its_one_entry",
        ),
        ("UPDATE skips SET count = count + 1", "every_owed_slot_has_its_one_entry"),
        ("UPDATE trigger_due SET next_slot = next_slot + 60000000 WHERE due_at > 0", "plans_are_what_the_rules_give"),
        ("UPDATE runs SET fence = fence + 1", "runs_stand_as_their_history_says"),
        ("DELETE FROM attempts", "attempts_are_recorded_once"),
        ("DELETE FROM lost_attempts", "lost_executions_are_recorded_once"),
        (
            "UPDATE runs SET scheduled_at = scheduled_at + 1000000 WHERE kind = 'scheduled'",
            "runs_bear_the_names_of_their_slots",
        ),
        ("UPDATE runs SET phase = 'RUNNING'", "nothing_is_open_without_an_owner_or_a_reason"),
        (
            "UPDATE runs SET phase = 'RUNNING', serial = true WHERE trigger_id IN "
            "(SELECT trigger_id FROM runs GROUP BY trigger_id HAVING count(*) > 1)",
            "limits_and_turns_are_kept",
        ),
        ("UPDATE runs SET lost = 7", "lost_runs_are_given_up_at_the_limit"),
        ("UPDATE triggers SET error = 'it broke'", "what_cannot_be_planned_says_so"),
        ("UPDATE tasks SET total_triggers = 99", "summaries_count_the_triggers"),
    ],
)
def test_the_invariants_notice_what_is_wrong(sabotage: str, invariant: str, here: Universe) -> None:
    def is_spoiled(world: World) -> bool:
        assert violations(world) == []
        with here.store.begin() as tx:
            return is_plain(world) and tx.connection.exec_driver_sql(sabotage).rowcount > 0

    # What changes nothing in a world spoils nothing there.
    world = first_world(here, is_spoiled)
    assert invariant in {fault.partition(":")[0] for fault in violations(world)}


def test_what_fired_for_an_inactive_time_is_noticed(here: Universe) -> None:
    def has_fired(world: World) -> bool:
        return is_plain(world) and any(run.scheduled for run in world.runs.runs.values())

    world = first_world(here, has_fired)
    assert violations(world) == []
    for model in world.triggers.values():
        model.periods.clear()
    assert "nothing_fired_for_an_inactive_time" in {fault.partition(":")[0] for fault in violations(world)}


def test_what_ci_has_no_time_for_is_played_in_packs_of_every_kind() -> None:
    told: dict[tuple[bool, int], list[int]] = {}
    for pack in packs(1_000, 2_000, lambda: "postgresql://new"):
        told.setdefault((pack.url is not None, pack.steps), []).extend(pack.seeds)
    assert told == {
        (False, STEPS): list(range(1_000, 3_000)),
        (False, LONG): list(range(1_000, 1_008)),
        (True, STEPS): list(range(1_000, 1_080)),
    }


def test_a_pack_tells_each_world_that_failed_and_plays_on() -> None:
    with Garden() as garden:
        random_run_name(garden)
        failures = Pack(range(3)).play()
    assert [failure.partition(",")[0] for failure in failures] == ["seed 0", "seed 1", "seed 2"]
    assert Pack(range(3)).play() == []


def test_a_failing_world_says_how_to_play_it_again(here: Universe) -> None:
    here.empty()
    world = World(4_711, here.store, here.clock)
    world.pass_time(SECOND)
    error = WorldFailedError(world, 12, ["something is wrong"], steps=1_200)
    how = ".venv/bin/python -m tests.simulation --seed 4711 --steps 1200"
    assert str(error) == f"seed 4711, step 12; replay: {how}\nsomething is wrong"
