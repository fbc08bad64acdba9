"""`flyte_run` in a real worker, against a RunService of the generated ASGI class that fails on order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from connectrpc.code import Code

from executors.flyte.names import scheduled_name
from executors.flyte.run import FlyteRunExecutor
from scheduler.domain.automation import FixedRate
from scheduler.domain.instants import to_datetime
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.fakes.flyte import FakeFlyte
from tests.integration.waiting_world import DOMAIN, PROJECT, WaitingWorld

QUICK = {"poll_interval": "50ms", "error_budget": "20s"}


@pytest.fixture
def flyte() -> Iterator[FakeFlyte]:
    with FakeFlyte() as server:
        yield server


@pytest.fixture
def world(sqlite_url: str, flyte: FakeFlyte) -> Iterator[WaitingWorld]:
    options = {"endpoint": flyte.endpoint, "insecure": True, "timeout": "2s"}
    executors = {"fires": FlyteRunExecutor(options), "follows": FlyteRunExecutor({**options, "follow": True})}
    with WaitingWorld(sqlite_url, executors, max_concurrent_runs=10) as world:
        yield world


def created(world: WaitingWorld, flyte: FakeFlyte, number: int = 1) -> list[str]:
    """The names of the runs at Flyte, once there are so many."""
    world.until(lambda: len(flyte.created) >= number, f"{number} runs at Flyte: {flyte.created}")
    return list(flyte.created)


def state_of(world: WaitingWorld, run: str) -> str | None:
    """What the run keeps from one try to the next."""
    with world.store.read() as tx:
        row = tx.runs.find(run)
    return None if row is None else row["state"]


def test_slots_become_runs_under_the_names_that_flytes_scheduler_gives(world: WaitingWorld, flyte: FakeFlyte) -> None:
    trigger = TriggerSpec("every", FixedRate(1, "second"), kickoff_time_input_arg="when", max_fires=3)
    # A wait of ten seconds between looks is none for runs that nobody follows.
    spec = TaskSpec("fires", inputs={"x": 3})
    definition = TaskDefinition(PROJECT, DOMAIN, "report", "v1", spec, (trigger,))
    assert all(result.applied for result in world.client.deploy([definition]))
    began = time.monotonic()
    names = created(world, flyte, 3)
    runs = world.until(
        lambda: [run for run in world.client.list_runs() if run["phase"] == "SUCCEEDED"][2:], "three runs"
    )
    assert time.monotonic() - began < 9
    for run in world.client.list_runs():
        slot = to_datetime(run["scheduled_at"])
        name = scheduled_name(PROJECT, DOMAIN, "report", "every", slot)
        assert name in names
        request = flyte.request(name)
        (kickoff,) = request["inputs"]["literals"]
        stamp = slot.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert request["run_start_time"] == stamp
        assert kickoff == {"name": "when", "value": {"scalar": {"primitive": {"datetime": stamp}}}}
        shown = world.run(run["name"])
        assert shown["outputs"] == {"project": PROJECT, "domain": DOMAIN, "name": name}
        assert shown["event"] == {"status": "success", "message": f"Run {name} was created.", "job_id": name}
    assert runs
    assert set(flyte.created.values()) == {1}


def test_a_server_that_is_away_is_asked_again_under_the_same_name(world: WaitingWorld, flyte: FakeFlyte) -> None:
    with flyte.away():
        run = world.fire("away", "fires", QUICK)
        world.until(lambda: "connection refused" in str(state_of(world, run)), "it was tried in vain")
    flyte.fail(Code.UNAVAILABLE, on="CreateRun", times=2)
    ended = world.until_phase(run, "SUCCEEDED", "FAILED")
    assert (ended["phase"], ended["attempt"]) == ("SUCCEEDED", 1)
    assert list(flyte.created.values()) == [1]
    assert flyte.asked["CreateRun"] == 3


@pytest.mark.parametrize("fault", ["lost answer", "drop", Code.INTERNAL])
def test_an_answer_that_is_lost_makes_no_second_run(world: WaitingWorld, flyte: FakeFlyte, fault: Any) -> None:
    flyte.fail(fault, on="CreateRun")
    run = world.fire("lost", "fires", QUICK)
    ended = world.until_phase(run, "SUCCEEDED", "FAILED")
    assert (ended["phase"], ended["error"]) == ("SUCCEEDED", None)
    assert list(flyte.created.values()) == [1]


def test_what_flyte_refuses_has_failed_at_once_in_its_words(world: WaitingWorld, flyte: FakeFlyte) -> None:
    flyte.fail(Code.NOT_FOUND, on="CreateRun", says='trigger "t" not found')
    ended = world.until_phase(world.fire("gone", "fires", QUICK, retries=RetryPolicy(3)), "FAILED")
    assert ended["error"] == f'Flyte at 127.0.0.1:{flyte.port} answered CreateRun with NOT_FOUND: trigger "t" not found'
    assert ended["attempt"] == 1


def test_a_followed_run_lasts_as_long_as_the_one_at_flyte(world: WaitingWorld, flyte: FakeFlyte) -> None:
    run = world.fire("followed", "follows", QUICK)
    world.until_waiting(run)
    (name,) = created(world, flyte)
    flyte.fail(Code.UNAVAILABLE, on="GetRunDetails", times=2)
    flyte.fail("drop", on="GetRunDetails")
    flyte.end(name, "SUCCEEDED", {"rows": 3, "when": "x"})
    ended = world.until_phase(run, "SUCCEEDED", "FAILED")
    assert ended["outputs"] == {"rows": 3, "when": "x"}
    assert ended["links"] == [{"name": "log", "uri": f"https://flyte.example/{name}"}]
    message = f"Job run {name} has completed successfully."
    assert ended["event"] == {"status": "success", "message": message, "job_id": name}


def test_a_followed_run_that_is_cancelled_is_aborted_at_flyte(world: WaitingWorld, flyte: FakeFlyte) -> None:
    run = world.fire("cancelled", "follows", QUICK)
    world.until_waiting(run)
    (name,) = created(world, flyte)
    world.client.cancel_run(run)
    ended = world.until_phase(run, "ABORTED")
    assert flyte.runs[name].aborted == f"{run} was given up"
    assert ended["event"]["status"] == "cancelled"


def test_a_followed_run_that_fails_is_tried_again_as_another_run(world: WaitingWorld, flyte: FakeFlyte) -> None:
    retries = RetryPolicy(2, initial=timedelta(milliseconds=10))
    run = world.fire("again", "follows", QUICK, retries=retries)
    (first,) = created(world, flyte)
    world.until_waiting(run)
    flyte.end(first, "FAILED", error="no rows")
    second = created(world, flyte, 2)[1]
    assert second != first
    world.until_waiting(run)
    flyte.end(second, "SUCCEEDED")
    ended = world.until_phase(run, "SUCCEEDED", "FAILED")
    assert [each["error"] for each in ended["attempts"]] == [f"Job run {first} has failed: no rows", None]


def test_a_followed_run_goes_on_being_followed_by_the_next_worker(world: WaitingWorld, flyte: FakeFlyte) -> None:
    run = world.fire("handed", "follows", QUICK)
    world.until_waiting(run)
    (name,) = created(world, flyte)
    world.stop()
    flyte.end(name, "SUCCEEDED", {"rows": 1})
    world.start()
    assert world.until_phase(run, "SUCCEEDED", "FAILED")["outputs"] == {"rows": 1}
    assert flyte.created == {name: 1}
