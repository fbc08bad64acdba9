"""Workers killed, frozen and replaced while jobs run elsewhere: every job is submitted once, and every end recorded once."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from scheduler.domain.automation import At
from scheduler.domain.instants import to_datetime
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import DOMAIN, PROJECT, World, ago, as_json, deploy_as_of
from tests.fakes.airbyte import FakeAirbyte

pytestmark = pytest.mark.heavy

A_TASK = 500


@pytest.fixture
def airbyte() -> Iterator[FakeAirbyte]:
    with FakeAirbyte() as server:
        yield server


def world_of(new_world: NewWorld, url: str, airbyte: FakeAirbyte, **worker: Any) -> World:
    executors = {"airbyte": {"use": "airbyte", "options": airbyte.options}}
    options = {"lease": "3s", "resync_interval": "2s", "misfire_grace": "30m", "shutdown_grace": "5s", **worker}
    world = new_world(url, executors=executors, worker=options)
    assert world.call("db", "upgrade").returncode == 0
    return world


def deploy(url: str, number: int, poll: str = "1s", **options: Any) -> None:
    """As many triggers that fire once, now, each syncing a connection of its own."""
    slot = to_datetime((ago(seconds=1) // 1_000_000) * 1_000_000)
    before = ago(seconds=5)  # All as of one instant before the slot, however long deploying them takes.
    config = {"connection_id": "{inputs.c}", "poll_interval": poll}
    for start in range(0, number, A_TASK):
        numbers = range(start, min(number, start + A_TASK))
        triggers = tuple(TriggerSpec(f"t{n:04}", At(slot), inputs={"c": f"c{n:04}"}) for n in numbers)
        spec = TaskSpec("airbyte", config=config, inputs={"c": ""}, **options)
        deploy_as_of(url, before, [TaskDefinition(PROJECT, DOMAIN, f"sync{start}", "v1", spec, triggers)])


def watched(world: World) -> int:
    return int(world.rows("SELECT count(*) FROM waits WHERE stage = 'waiting'")[0][0])


def assert_each_submitted_once(airbyte: FakeAirbyte, number: int) -> None:
    twice = {connection: count for connection, count in airbyte.submitted.items() if count > 1}
    assert not twice
    assert len(airbyte.submitted) == number


def assert_each_ended_once(world: World, airbyte: FakeAirbyte, number: int) -> None:
    """Every run has the outputs and the one event of the job of its own connection, and nothing was lost or doubled."""
    ended = world.rows("SELECT phase, attempt, lost, inputs, outputs, event FROM runs")
    assert len(ended) == number
    for phase, attempt, lost, inputs, outputs, event in ended:
        assert (phase, attempt) == ("SUCCEEDED", 1)
        assert lost < 5  # by workers killed before they came to submit
        job_id = json.loads(outputs)["job_id"]
        assert airbyte.jobs[job_id].connection_id == json.loads(inputs)["c"]
        said = {"status": "success", "message": f"Job run {job_id} has completed successfully.", "job_id": job_id}
        assert json.loads(event) == said
    assert world.rows("SELECT count(*) FROM attempts WHERE phase <> 'LOST'")[0][0] == number
    assert world.rows("SELECT count(*) FROM waits")[0][0] == 0
    assert not airbyte.cancels


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_is_submitted_twice_however_often_workers_are_killed(
    new_world: NewWorld,
    airbyte: FakeAirbyte,
    kind: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    number = 1_000
    world = world_of(new_world, url, airbyte, max_concurrent_runs=60)
    deploy(url, number)
    # Long enough under way that a kill finds submissions at every point: before, within and after.
    airbyte.fail("slow", on="create", times=None, seconds=0.1)
    chance = random.Random(8)
    kills = 0
    interrupted: set[str] = set()
    while len(airbyte.submitted) < number - 50 and kills < 12:
        with world.worker() as worker:
            goal = min(number, len(airbyte.submitted) + chance.randint(50, 150))
            worker.until(lambda goal=goal: len(airbyte.submitted) >= goal, f"{goal} jobs", 120)
            time.sleep(chance.random() * 0.2)
            worker.kill()
        kills += 1
        interrupted |= {row[0] for row in world.rows("SELECT run_name FROM waits WHERE stage = 'submitting'")}
    airbyte.heal()
    with world.worker() as last:
        last.until(lambda: watched(world) == number, "every job is watched", 180)
        assert_each_submitted_once(airbyte, number)
        airbyte.end("succeeded")
        last.until(lambda: world.count("phase = 'SUCCEEDED'") == number, "every run is over", 120)
        assert last.stop() == 0
    with capsys.disabled():
        print(f"\n{kind}: {number} jobs, {kills} kills, {len(interrupted)} submissions interrupted, none made twice")
    assert kills >= 5
    assert len(interrupted) >= 20
    assert_each_submitted_once(airbyte, number)
    assert_each_ended_once(world, airbyte, number)


@pytest.mark.parametrize("kind", BOTH)
def test_the_next_worker_watches_the_jobs_of_one_that_was_killed(
    new_world: NewWorld, airbyte: FakeAirbyte, kind: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = world_of(new_world, url, airbyte)
    deploy(url, 200)
    with world.worker() as first:
        first.until(lambda: watched(world) == 200, "every job runs", 60)
        first.kill()
    airbyte.end("succeeded")
    with world.worker() as second:
        second.until(lambda: world.count("phase = 'SUCCEEDED'") == 200, "every end is recorded", 60)
        assert second.stop() == 0
    assert_each_submitted_once(airbyte, 200)
    assert_each_ended_once(world, airbyte, 200)
    assert {row[0] for row in world.rows("SELECT lost FROM runs")} == {0}
    assert {row[0] for row in world.rows("SELECT worker FROM attempts")} == {"worker-2"}


def test_four_places_keep_a_thousand_jobs_going(
    new_world: NewWorld, airbyte: FakeAirbyte, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = world_of(new_world, sqlite_url, airbyte, max_concurrent_runs=4, lease="10s")
    deploy(sqlite_url, 1_000, poll="10s")
    with world.worker() as worker:
        worker.until(lambda: watched(world) == 1_000, "a thousand jobs run", 180)
        shown = as_json(world.call("workers", "list", "-o", "json"))
        assert [(row["running"], row["waits"]) for row in shown] == [(0, 1_000)]
        used, begun = worker.cpu_seconds(), time.monotonic()
        time.sleep(10)  # A round: each is looked at once.
        share = (worker.cpu_seconds() - used) / (time.monotonic() - begun)
        memory = worker.memory() / 1e6
        airbyte.end("succeeded")
        worker.until(lambda: world.count("phase = 'SUCCEEDED'") == 1_000, "all are over", 60)
        assert worker.stop() == 0
    with capsys.disabled():
        print(f"\n1,000 jobs at 10 s: {share:.1%} of a core, {memory:.0f} MB")
    assert_each_submitted_once(airbyte, 1_000)
    assert_each_ended_once(world, airbyte, 1_000)


def test_a_cancel_while_neither_service_nor_worker_is_there_is_carried_out_later(
    new_world: NewWorld, airbyte: FakeAirbyte, sqlite_url: str
) -> None:
    world = world_of(new_world, sqlite_url, airbyte)
    deploy(sqlite_url, 3)
    with world.worker() as first:
        first.until(lambda: watched(world) == 3, "every job runs")
        first.kill()
    with airbyte.away():
        (name, *_) = sorted(row[0] for row in world.rows("SELECT name FROM runs"))
        assert world.call("runs", "cancel", name).returncode == 0
        with world.worker() as second:
            second.until_said("ending a job")
            time.sleep(1)
            assert world.count("phase = 'DEFERRED'") == 3
            second.kill()
    with world.worker() as third:
        third.until(lambda: world.count("phase = 'ABORTED'") == 1, "the cancel is carried out", 40)
        (job,) = [job for job in airbyte.jobs.values() if job.status == "cancelled"]
        shown = as_json(world.call("runs", "show", name, "-o", "json"))
        assert shown["event"] == {
            "status": "cancelled",
            "message": f"Job run {job.job_id} has been cancelled.",
            "job_id": job.job_id,
        }
        airbyte.end("succeeded")
        third.until(lambda: world.count("phase = 'SUCCEEDED'") == 2, "the others are over")
        assert third.stop() == 0


@pytest.mark.postgres
def test_a_frozen_worker_forgets_its_jobs_and_ends_none(
    new_world: NewWorld, airbyte: FakeAirbyte, postgres_url: str
) -> None:
    world = world_of(new_world, postgres_url, airbyte)
    deploy(postgres_url, 100, poll="500ms")
    with world.worker("frozen") as frozen:
        frozen.until(lambda: watched(world) == 100, "every job runs")
        frozen.freeze()
        with world.worker("other") as other:
            other.until_said("waits taken over", 30)
            world.until(lambda: waits_of(world, "other") == 100, "all are the other's")
            frozen.thaw()
            frozen.until_said("declared dead")
            time.sleep(3)
            assert waits_of(world, "other") == 100
            assert not airbyte.cancels
            airbyte.end("succeeded")
            world.until(lambda: world.count("phase = 'SUCCEEDED'") == 100, "every end is recorded")
            assert other.stop() == 0
            assert frozen.stop() == 0
    assert_each_ended_once(world, airbyte, 100)
    assert {row[0] for row in world.rows("SELECT worker FROM attempts")} == {"other"}


@pytest.mark.postgres
def test_a_worker_that_leaves_hands_its_jobs_to_another_at_once(
    new_world: NewWorld, airbyte: FakeAirbyte, postgres_url: str
) -> None:
    world = world_of(new_world, postgres_url, airbyte, lease="30s", resync_interval="30s")
    deploy(postgres_url, 50, poll="500ms")
    with world.worker("one") as one:
        one.until(lambda: watched(world) == 50, "every job runs")
        with world.worker("two") as two:
            two.until_said("ready")
            world.until(lambda: len(world.client.list_workers()) == 2, "two workers are there")
            told = time.monotonic()
            assert one.stop() == 0
            world.until(lambda: waits_of(world, "two") == 50, "all are the second one's", 10)
            assert time.monotonic() - told < 10
            airbyte.end("succeeded")
            world.until(lambda: world.count("phase = 'SUCCEEDED'") == 50, "every end is recorded")
            assert two.stop() == 0
    assert_each_ended_once(world, airbyte, 50)


def test_a_storm_of_faults_ends_no_run(
    new_world: NewWorld, airbyte: FakeAirbyte, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 300
    world = world_of(new_world, sqlite_url, airbyte, max_concurrent_runs=20)
    chance = random.Random(9)
    kinds: list[Any] = [500, 503, 429, 401, "drop", "lost answer", "html", "bad json", "not an object", "slow"]
    storm = 0
    deploy(sqlite_url, number, poll="500ms", retries=RetryPolicy(3))
    with world.worker() as worker:
        end = time.monotonic() + 40
        while time.monotonic() < end or (watched(world) < number and time.monotonic() < end + 60):
            kind = chance.choice(kinds)
            on = chance.choice(["create", "status", "find", "token", "status"])
            if not (on == "token" and kind in ("lost answer", "slow", "not an object")):
                airbyte.fail(
                    kind, on=on, times=chance.randint(1, 5), retry_after=chance.choice([None, 0.2]), seconds=0.5
                )
                storm += 1
            time.sleep(0.1)
            if not worker.running:
                break
        airbyte.heal()
        worker.until(lambda: watched(world) == number, "every job is watched", 120)
        airbyte.end("succeeded")
        worker.until(lambda: world.count("phase = 'SUCCEEDED'") == number, "every run is over", 90)
        assert worker.stop() == 0
    with capsys.disabled():
        print(f"\n{number} jobs through {storm} faults: {airbyte.seen}")
    assert_each_submitted_once(airbyte, number)
    assert_each_ended_once(world, airbyte, number)


def waits_of(world: World, name: str) -> int:
    """How many waits a worker holds."""
    return sum(worker["waits"] for worker in world.client.list_workers() if worker["name"] == name)
