"""Limits as the target sees them: of a task across workers, of an executor, of a worker; and who takes what is left."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pytest

from scheduler.domain.instants import SECOND
from tests.e2e.conftest import NewWorld
from tests.e2e.targets import Target, Visit, http_executor, most_at_once, seconds_spent
from tests.e2e.worlds import World, assert_every_second_once, open_runs, task

pytestmark = [pytest.mark.heavy, pytest.mark.alone]


def calling(target: Target, name: str, hold: float, *, triggers: int = 1, every: str = "1s", **more: Any) -> Any:
    """A task that keeps the target busy for `hold` seconds a run, with some triggers that fire together."""
    made = task(name, "http", target.config(name, hold=hold), **more)
    options = more.get("options", {})
    made.pop("options", None)
    made["triggers"] = [{"name": f"t{number}", "every": every, **options} for number in range(triggers)]
    return made


def lateness(world: World, target: Target, name: str, since: float = 0) -> list[float]:
    """By how many seconds each of a task's runs, of slots since an instant, came after its slot; shortest first."""
    slots = {run["name"]: run["scheduled_at"] / SECOND for run in world.runs(name)}
    return sorted(visit.arrived - slots[visit.key] for visit in target.of(name) if slots[visit.key] >= since)


def of_worker(visits: Iterable[Visit], worker: str) -> list[Visit]:
    return [visit for visit in visits if visit.worker == worker]


@pytest.mark.postgres
def test_a_tasks_limit_holds_across_three_workers_is_used_in_full_and_starves_nobody(
    new_world: NewWorld, postgres_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    most, watched = 3, 10
    world = new_world(
        postgres_url,
        [
            calling(target, "saturated", 0.8, triggers=8, max_concurrent_runs=most),
            calling(target, "modest", 0.1, triggers=2, max_concurrent_runs=2),
            calling(target, "free", 0.1, triggers=5),
        ],
        executors=http_executor(),
    )
    with world.worker("one") as one, world.worker("two") as two, world.worker("three") as three:
        world.until(lambda: len({visit.worker for visit in list(target.visits)}) == 3, "all three execute", 40)
        begun = time.time()
        time.sleep(watched)
        ended = time.time()
        for worker in (one, two, three):
            assert worker.stop() == 0

    used = seconds_spent(target.of("saturated"), begun, ended) / (most * (ended - begun))
    late = {name: lateness(world, target, name, begun) for name in ("modest", "free")}
    with capsys.disabled():
        print(
            f"\nlimit {most}: {used:.0%} used over {watched} s by three workers; others started after their slots by "
            + ", ".join(
                f"{times[len(times) // 2]:.2f} s ({name}, at most {times[-1]:.2f})" for name, times in late.items()
            )
        )
    assert most_at_once(target.of("saturated")) == most
    assert most_at_once(target.of("modest")) <= 2
    assert len({visit.worker for visit in target.of("saturated")}) > 1
    assert used > 0.8
    assert all(len(times) >= watched and times[-1] < 2 for times in late.values())
    assert max(target.keys("saturated").values()) == 1


def test_a_rate_is_kept_and_used_in_full(
    new_world: NewWorld, sqlite_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    per_second, burst, watched = 10, 20, 10
    world = new_world(
        sqlite_url,
        [calling(target, "call", 0.0, triggers=40)],
        executors=http_executor(rate_limit={"per_second": per_second, "burst": burst}),
    )
    with world.worker() as worker:
        worker.until(lambda: target.visits, "the first run")
        first = target.visits[0].arrived
        time.sleep(max(0.0, first + watched + 0.3 - time.time()))
        worker.kill()

    times = [visit.arrived for visit in target.of("call") if visit.arrived <= first + watched]
    allowed = burst + per_second * watched
    with capsys.disabled():
        print(f"\n{per_second} a second, {burst} at once: {len(times)} of {allowed} in {watched} s")
    # Who is sent off in time may arrive a little later, and so a little closer to the next one.
    closest = max(
        (later + 1 - earlier) - burst - per_second * (times[later] - times[earlier])
        for earlier, later in combinations(range(len(times)), 2)
    )
    assert closest <= 2
    assert len([at for at in times if at < first + 0.9]) <= burst + per_second
    assert len(times) >= 0.9 * allowed


@pytest.mark.postgres
def test_full_workers_leave_runs_to_others_and_never_hold_more_than_they_may(
    new_world: NewWorld, postgres_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large, watched = 2, 5, 12
    world = new_world(
        postgres_url,
        [
            # Together 9 s of work a second for 7 places: runs that wait for a turn, and runs that wait for none.
            calling(target, "turns", 0.7, triggers=4, options={"overlap": "buffer_all"}),
            calling(target, "limited", 0.5, triggers=4, max_concurrent_runs=2),
            calling(target, "free", 0.4, triggers=12),
        ],
        executors=http_executor(max_concurrent_runs=large),
    )
    with (
        world.worker("small", SCHEDULER_WORKER__MAX_CONCURRENT_RUNS=str(small)) as first,
        world.worker("large") as second,
    ):
        world.until(lambda: {visit.worker for visit in list(target.visits)} == {"small", "large"}, "both execute", 40)
        time.sleep(2)
        begun = time.time()
        time.sleep(watched)
        ended = time.time()
        first.send(15)
        assert second.stop() == 0
        assert first.wait() == 0

    used = {
        name: seconds_spent(of_worker(target.visits, name), begun, ended) / (places * (ended - begun))
        for name, places in (("small", small), ("large", large))
    }
    with capsys.disabled():
        print(f"\nplaces used: {', '.join(f'{share:.0%} of {name}' for name, share in used.items())}")
    assert most_at_once(of_worker(target.visits, "small")) == small
    assert most_at_once(of_worker(target.visits, "large")) == large
    assert most_at_once(target.of("limited")) <= 2
    assert min(used.values()) > 0.8
    assert (
        max(visit_count for label in ("turns", "limited", "free") for visit_count in target.keys(label).values()) == 1
    )


@pytest.mark.postgres
def test_two_batches_on_their_way_at_once_share_the_room_that_there_is(
    new_world: NewWorld, postgres_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    most, seconds = 4, 8
    every_second = [{"name": f"t{number}", "every": "1s"} for number in range(150)]
    world = new_world(
        postgres_url,
        [
            calling(target, "call", 0.05, triggers=40),
            {**task("quick", "logging"), "triggers": every_second},
        ],
        executors={**http_executor(max_concurrent_runs=most), "logging": {"use": "logging"}},
        worker={"max_concurrent_runs": 60, "fire_batch": 20},
        logs={"level": "warning"},
    )
    with world.worker() as worker:
        worker.until(lambda: len(target.visits) >= seconds * 40, "some seconds of it", 60)
        assert worker.stop() == 0

    held = target.of("call")
    with capsys.disabled():
        print(f"\ntwo batches at once: {len(held)} calls, {most_at_once(held)} at once at most")
    assert most_at_once(held) == most
    assert max(target.keys("call").values()) == 1
    for name, triggers in (("call", 40), ("quick", 150)):
        for number in range(triggers):
            assert_every_second_once(world.ledger(name, f"t{number}"))


@pytest.mark.postgres
def test_a_worker_with_one_place_keeps_no_turns_from_a_worker_with_many(
    new_world: NewWorld, postgres_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = 8
    world = new_world(
        postgres_url,
        [
            # Each of these waits for a turn of its task, and the turn is free at every slot.
            calling(target, f"turn-{number}", 1.5, every="3s", max_concurrent_runs=1)
            for number in range(tasks)
        ],
        executors=http_executor(),
    )
    names = [f"turn-{number}" for number in range(tasks)]
    with world.worker("tiny", SCHEDULER_WORKER__MAX_CONCURRENT_RUNS="1") as tiny, world.worker("wide") as wide:
        world.until(lambda: len(world.client.list_workers()) == 2, "both are there")
        begun = time.time()
        world.until(lambda: len(lateness(world, target, names[-1], begun)) >= 4, "four slots of each", 30)
        assert tiny.stop() == 0
        assert wide.stop() == 0
    late = sorted(seconds for name in names for seconds in lateness(world, target, name, begun))
    with capsys.disabled():
        print(
            f"\nturns beside a full worker: started after their slots by {late[len(late) // 2]:.2f} s, {late[-1]:.2f} at most"
        )
    assert most_at_once(of_worker(target.visits, "tiny")) == 1
    assert late[-1] < 1


def test_a_run_that_no_living_worker_can_take_says_so_and_runs_when_one_comes(
    new_world: NewWorld, sqlite_url: str, target: Target
) -> None:
    knowing = new_world(sqlite_url, [calling(target, "call", 0.0, options={"max_fires": 1})], executors=http_executor())
    assert knowing.call("deploy", str(knowing.manifest)).returncode == 0
    # Another worker of the same database, whose settings do not declare the executor.
    other = new_world(sqlite_url, [task("tick", "logging")], executors={"logging": {"use": "logging"}})
    with other.worker("other") as worker:
        world_runs = other.until(lambda: other.runs("call"), "the slot has come")
        worker.until_said("no living worker declares")
        assert "http" in worker.log().split("no living worker declares", 1)[1].splitlines()[0]
        (run,) = world_runs
        assert other.client.show_run(run["name"])["waiting_for"] == "no worker for executor http"
        assert not target.visits
        with knowing.worker("knowing") as second:
            second.until(lambda: knowing.runs("call", "SUCCEEDED"), "a worker that declares it has done it")
            assert second.stop() == 0
        assert worker.stop() == 0
    assert worker.log().count("no living worker declares") == 1
    assert not open_runs(other.runs("call"))
