"""Cancelling reaches code wherever it runs, whoever asks and whatever happens meanwhile; first commit wins."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.client import Client
from scheduler.errors import Conflict, StoreUnavailable
from scheduler.services.operate import TriggerKey
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.servers import Server
from tests.e2e.targets import Target, http_executor
from tests.e2e.worlds import DOMAIN, PROJECT, World, eventually, marking, marks, open_runs, task

pytestmark = pytest.mark.heavy

ONCE = {"every": "1s", "max_fires": 1}
FUNCTIONS = '''
"""Code that takes its time, and minds a cancel as well as it can."""

import asyncio
import time

def _mark(file, word, run):
    with open(file, "a") as marks:
        marks.write(f"{word} {run.key}\\n")

def sleeping(file, seconds, run):
    _mark(file, "start", run)
    time.sleep(seconds)
    _mark(file, "end", run)

async def waiting(file, run):
    _mark(file, "start", run)
    await asyncio.sleep(120)

async def stubborn(file, run):
    """Goes on when it is asked to end for the first time."""
    _mark(file, "start", run)
    try:
        await asyncio.sleep(120)
    except asyncio.CancelledError:
        _mark(file, "asked", run)
    await asyncio.sleep(120)

async def answering(file, run):
    """Has an answer all the same when it is asked to end."""
    _mark(file, "start", run)
    try:
        await asyncio.sleep(120)
    except asyncio.CancelledError:
        return {"kept": "this"}
'''


def only_run(world: World, name: str) -> dict[str, Any]:
    (run,) = world.runs(name)
    return run


def cancel_all(world: World, *names: str) -> None:
    for name in names:
        (run,) = open_runs(world.runs(name))
        world.client.cancel_run(run["name"])


def ended(world: World, name: str) -> bool:
    return not open_runs(world.runs(name))


def test_a_cancel_ends_code_of_every_kind(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_functions.py").write_text(FUNCTIONS)
    files = {name: tmp_path / f"{name}.marks" for name in ("shell", "process", "thread", "async", "stubborn", "answer")}

    def call(name: str, function: str, *, executor: str = "python", place: str | None = None, **args: Any) -> Any:
        config = {"callable": f"slow_functions:{function}", "args": {"file": str(files[name]), **args}}
        return task(name, executor, config | ({"in": place} if place else {}), trigger=ONCE)

    python = {"use": "python", "options": {"path": [str(tmp_path)]}}
    world = new_world(
        sqlite_url,
        [
            # The child of the command that it does not wait for is of its group too.
            marking("shell", files["shell"], then="sleep 321 & sleep 321", trigger=ONCE),
            call("process", "sleeping", seconds=120),
            call("thread", "sleeping", executor="threads", place="thread", seconds=9),
            call("async", "waiting"),
            call("stubborn", "stubborn"),
            call("answer", "answering"),
            task("http", "http", target.config("http", hold=120), trigger=ONCE),
        ],
        executors={
            "shell": {"use": "shell"},
            "python": python,
            "threads": {**python, "max_concurrent_runs": 1},
            **http_executor(),
        },
    )
    quick, slow = ("shell", "process", "thread", "async", "answer", "http"), "stubborn"
    took: dict[str, float] = {}
    with world.worker() as worker:
        worker.until(lambda: all(marks(file).total() == 1 for file in files.values()), "all have begun")
        worker.until(lambda: target.present("http"), "the target is called")
        begun = {name: only_run(world, name) for name in (*quick, slow)}
        assert commands_of(world)
        asked = time.monotonic()
        cancel_all(world, *quick, slow)

        def all_ended() -> bool:
            for name in quick:
                if name not in took and ended(world, name):
                    took[name] = time.monotonic() - asked
            return len(took) == len(quick)

        worker.until(all_ended, "they have ended", 8)
        # The thread cannot be stopped: recorded as over, it keeps its place until it has returned.
        world.client.fire(TriggerKey(PROJECT, DOMAIN, "thread", "t"))
        assert marks(files["thread"], "end").total() == 0
        assert marks(files["thread"]).total() == 1
        assert target.of("http")[0].cut
        assert not commands_of(world)
        # Asked again, the stubborn one gives in; until then its run is open and says what is owed.
        assert (only_run(world, slow)["phase"], only_run(world, slow)["aborting"]) == ("RUNNING", True)
        assert world.client.cancel_run(only_run(world, slow)["name"]).ending, "a second cancel changes nothing"
        worker.until(lambda: marks(files["thread"], "end").total() == 1, "the thread has returned", 15)
        worker.until(lambda: marks(files["thread"]).total() == 2, "its place is free", 3)
        words = [line.split()[0] for line in files["thread"].read_text().splitlines()]
        assert words == ["start", "end", "start"], "another run had its place before"
        worker.until(lambda: ended(world, slow), "the stubborn one has given in", 15)
        took[slow] = time.monotonic() - asked
        with pytest.raises(Conflict, match="ABORTED already"):
            world.client.cancel_run(begun["shell"]["name"])
        world.client.cancel_run(world.runs("thread", "RUNNING")[0]["name"])
        worker.until(lambda: ended(world, "thread"), "the second one is cancelled too")
        worker.kill()  # Its thread would keep it for a while.

    with capsys.disabled():
        print("\nover after a cancel in " + ", ".join(f"{took[name]:.2f} s ({name})" for name in took))
    for name in (*quick, slow):
        run = world.client.show_run(begun[name]["name"])
        phase = "SUCCEEDED" if name == "answer" else "ABORTED"
        assert (run["phase"], [attempt["phase"] for attempt in run["attempts"]]) == (phase, [phase]), name
        assert ("cancelled by tests" in (run["error"] or "")) is (phase == "ABORTED"), name
        assert run["finished_at"] is not None
    assert world.client.show_run(begun["answer"]["name"])["outputs"] == {"kept": "this"}
    assert 9 <= took[slow] < 14
    assert all(seconds < 4 for name, seconds in took.items() if name != slow)


def commands_of(world: World) -> list[str]:
    """The commands and calls that run, keepers and workers left out."""
    found = []
    for process in world.children():
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "sleep 321" in words or "python_child" in words:
            found.append(words)
    return found


@pytest.mark.postgres
def test_what_waits_is_over_at_once_and_never_executed(
    new_world: NewWorld, postgres_url: str, tmp_path: Path, target: Target
) -> None:
    world = new_world(
        postgres_url,
        [
            marking("long", tmp_path / "long", then="sleep 4", trigger=ONCE),
            marking("behind", tmp_path / "behind", trigger={"every": "1s", "max_fires": 3}),
            task(
                "failing",
                "http",
                target.config("failing", status=503),
                retries={"max_attempts": 3, "initial": "3s", "multiplier": 1},
                trigger=ONCE,
            ),
        ],
        executors={"shell": {"use": "shell", "max_concurrent_runs": 1}, **http_executor()},
    )
    with world.worker() as worker:
        worker.until(lambda: marks(tmp_path / "long").total() + marks(tmp_path / "behind").total() >= 1, "it is busy")
        worker.until(lambda: len(world.runs("behind")) == 3 and world.runs("long"), "all have fired")
        worker.until(lambda: target.visits and world.runs("failing", "QUEUED"), "it waits for its retry")
        queued = [run["name"] for run in world.runs("behind", "QUEUED")]
        (retrying,) = world.runs("failing", "QUEUED")
        for name in (*queued, retrying["name"]):
            assert world.client.cancel_run(name).ended == (name,)
            run = world.client.show_run(name)
            assert (run["phase"], run["error"]) == ("ABORTED", "cancelled by tests")
        assert [attempt["phase"] for attempt in world.client.show_run(retrying["name"])["attempts"]] == ["FAILED"]
        worker.until(lambda: world.runs("long", "SUCCEEDED"), "the long one is over", 15)
        time.sleep(2)
        assert worker.stop() == 0
    assert queued
    assert not set(queued) & set(marks(tmp_path / "behind"))
    assert len(target.visits) == 1


@pytest.mark.parametrize("kind", BOTH)
def test_a_run_of_another_process_hears_of_its_cancel_within_about_a_second(
    new_world: NewWorld,
    kind: str,
    request: pytest.FixtureRequest,
    target: Target,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    calls = [task(f"call-{number}", "http", target.config("call", hold=60), trigger=ONCE) for number in range(8)]
    # Nothing is found by looking around for long: only a notice can be what tells it.
    slow = {"lease": "30s", "resync_interval": "60s", "max_concurrent_runs": 4}
    world = new_world(url, calls, worker=slow, executors=http_executor())
    with world.worker("one") as one, world.worker("two") as two:
        world.until(lambda: len(target.present("call")) == 8, "all are called", 40)
        assert {visit.worker for visit in target.visits} == {"one", "two"}
        asked = {}
        for visit in target.present("call"):
            asked[visit.key] = time.time()
            world.client.cancel_run(visit.key)
            time.sleep(0.3)
        world.until(lambda: not target.present("call"), "none is called any more", 10)
        took = sorted((visit.left or 0) - asked[visit.key] for visit in target.visits)
        world.until(lambda: all(ended(world, f"call-{number}") for number in range(8)), "all are over", 5)
        assert one.stop() == 0
        assert two.stop() == 0
    with capsys.disabled():
        print(f"\n{kind}: the target was let go {took[0]:.2f} to {took[-1]:.2f} s after the cancel")
    assert all(visit.cut for visit in target.visits)
    assert {run["phase"] for number in range(8) for run in world.runs(f"call-{number}")} == {"ABORTED"}
    assert took[-1] < 1.5


@pytest.mark.parametrize("kind", BOTH)
def test_an_answer_and_a_cancel_that_meet_leave_one_end(
    new_world: NewWorld,
    kind: str,
    request: pytest.FixtureRequest,
    target: Target,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    hold, chance = 0.8, random.Random(f"{kind} 7")
    world = new_world(
        url,
        [task(f"call-{number}", "http", target.config("call", hold=hold)) for number in range(10)],
        executors=http_executor(),
    )
    refused, accepted = set(), set()
    with world.worker() as worker:
        worker.until(lambda: target.visits, "it fires")
        seen, end = 0, time.monotonic() + 8
        owed: list[tuple[float, str]] = []
        while time.monotonic() < end:
            for visit in list(target.visits)[seen:]:
                seen += 1
                # Most in the moment of the answer; some before, for on SQLite a worker hears of it half a second later.
                early = -0.75 if chance.random() < 0.3 else -0.06
                owed.append((visit.arrived + hold + chance.uniform(early, 0.04), visit.key))
            owed.sort(reverse=True)
            while owed and owed[-1][0] <= time.time():
                _, key = owed.pop()
                try:
                    world.client.cancel_run(key)
                    accepted.add(key)
                except Conflict:
                    refused.add(key)
            time.sleep(0.005)
        assert worker.stop() == 0

    phases = {}
    for number in range(10):
        for run in world.runs(f"call-{number}"):
            phases[run["name"]] = run["phase"]
            assert not run["aborting"], run
            if run["started_at"]:
                attempts = world.client.show_run(run["name"])["attempts"]
                assert [attempt["phase"] for attempt in attempts] == [run["phase"]], run
    answered = {visit.key for visit in target.visits if visit.answered}
    outcomes = {name: phases[name] for name in accepted}
    with capsys.disabled():
        print(
            f"\n{kind}: of {len(accepted) + len(refused)} cancels {len(refused)} came after the answer; of the others "
            f"{sum(phase == 'SUCCEEDED' for phase in outcomes.values())} met an answer that stands"
        )
    assert {phases[name] for name in refused} <= {"SUCCEEDED"}
    assert set(outcomes.values()) <= {"SUCCEEDED", "ABORTED"}
    assert {name for name, phase in phases.items() if phase == "SUCCEEDED"} <= answered
    assert {name for name, phase in phases.items() if phase == "ABORTED"} <= accepted
    assert refused
    assert "ABORTED" in outcomes.values()
    assert set(target.keys("call").values()) == {1}


def frozen_while_cancelled(world: World, target: Target, meanwhile: Callable[[], None]) -> str:
    """The name of a run that was cancelled while its only worker was frozen; then something happens."""
    name = target.present("call")[0].key
    assert world.client.cancel_run(name).ending == (name,)
    meanwhile()
    return name


@pytest.mark.postgres
def test_a_cancel_that_the_worker_could_not_hear_of_is_obeyed_when_the_database_is_back(
    new_world: NewWorld, server: Server, target: Target
) -> None:
    world = new_world(
        server.url,
        [task("call", "http", target.config("call", hold=60), trigger=ONCE)],
        worker={"lease": "30s", "resync_interval": "60s"},
        executors=http_executor(),
    )
    assert world.call("db", "upgrade").returncode == 0
    with world.worker() as worker:
        worker.until(lambda: target.present("call"), "it is called")
        worker.freeze()
        name = frozen_while_cancelled(world, target, lambda: server.stop("immediate"))
        worker.thaw()
        world.close()
        with Client.open(server.url) as away, pytest.raises(StoreUnavailable):
            away.cancel_run(name)
        time.sleep(1.5)
        server.start()
        worker.until(lambda: target.visits[0].cut, "its code is ended", 12)
        eventually(lambda: ended(world, "call"), "it is over", 8)
        assert worker.stop() == 0
    assert only_run(world, "call")["phase"] == "ABORTED"
    assert len(target.visits) == 1


@pytest.mark.postgres
def test_a_cancelled_run_whose_worker_is_killed_is_aborted_and_not_tried_again(
    new_world: NewWorld, postgres_url: str, target: Target
) -> None:
    world = new_world(
        postgres_url,
        [task("call", "http", target.config("call", hold=60), trigger=ONCE)],
        worker={"lease": "2s"},
        executors=http_executor(),
    )
    with world.worker("first") as first:
        first.until(lambda: target.present("call"), "it is called")
        world.freeze(first)
        name = frozen_while_cancelled(world, target, first.kill)
        with world.worker("second") as second:
            second.until(lambda: ended(world, "call"), "the other has looked after it", 20)
            time.sleep(3)
            assert second.stop() == 0
    run = world.client.show_run(name)
    assert (run["phase"], run["lost"]) == ("ABORTED", 1)
    assert "cancelled by tests" in run["error"]
    assert len(target.visits) == 1
