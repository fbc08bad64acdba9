"""A worker with two hundred thousand triggers feels like one with none; ten thousand due at once fire whole."""

from __future__ import annotations

import json
import time

import pytest

from scheduler.domain.automation import At, Cron
from scheduler.domain.instants import SECOND, to_datetime
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import DOMAIN, PROJECT, WorkerProcess, World, ago, deploy_as_of

pytestmark = pytest.mark.heavy

SLEEPING = 200_000
DUE = 10
AT_ONCE = 10_000
MEBIBYTE = 2**20


def sleeping(number: int, a_task: int = 1_000) -> list[TaskDefinition]:
    """Tasks whose triggers fire once a year."""
    yearly = tuple(TriggerSpec(f"yearly-{n}", Cron("0 0 1 1 *")) for n in range(a_task))
    return [
        TaskDefinition(PROJECT, DOMAIN, f"sleeping-{n}", "v1", TaskSpec("logging"), yearly)
        for n in range(number // a_task)
    ]


def once(name: str, moment: int, number: int) -> TaskDefinition:
    """A task whose triggers all fire at one instant, once."""
    slot = to_datetime(moment - moment % SECOND)
    triggers = tuple(TriggerSpec(f"once-{n:05}", At(slot)) for n in range(number))
    return TaskDefinition(PROJECT, DOMAIN, name, "v1", TaskSpec("logging"), triggers)


def history_is_gone_through(world: World) -> bool:
    """Whether removing old history has come to its end, and stands to begin at an instant again."""
    found = world.rows("SELECT value FROM meta WHERE key = 'retention'")
    return any(value and json.loads(value)["next_at"] > 0 for (value,) in found)


def first_fire(world: World, worker: WorkerProcess) -> float:
    """Seconds from the start of the process until the runs due are over."""
    worker.until(lambda: world.count("phase = 'SUCCEEDED'") >= DUE, "what was due has been fired")
    return time.monotonic() - worker.started


def at_rest(world: World, worker: WorkerProcess, seconds: float = 20.0) -> tuple[float, float]:
    """Resident MiB, and the share of one processor used while nothing is due."""
    # A worker that starts goes through all history once, and then once an hour: until then it does not rest.
    worker.until(lambda: history_is_gone_through(world), "it has gone through history", 60)
    time.sleep(3)
    before = worker.cpu_seconds()
    time.sleep(seconds)
    return worker.memory() / MEBIBYTE, (worker.cpu_seconds() - before) / seconds


def test_two_hundred_thousand_sleeping_triggers_cost_next_to_nothing(
    new_world: NewWorld, sqlite_url: str, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty_url = f"sqlite:///{tmp_path_factory.mktemp('empty') / 'empty.db'}"
    figures = {}
    for name, url, definitions in (
        ("empty", empty_url, []),
        ("full", sqlite_url, sleeping(SLEEPING)),
    ):
        world = new_world(url, worker={"lease": "30s", "resync_interval": "30s"})
        assert world.call("db", "upgrade").returncode == 0
        deploy_as_of(url, ago(seconds=20), [*definitions, once("due", ago(seconds=10), DUE)])
        with world.worker() as worker:
            fired = first_fire(world, worker)
            memory, processor = at_rest(world, worker)
            figures[name] = (fired, memory, processor)
            begun = time.monotonic()
            deploy_as_of(url, ago(), [once("more", ago() + 2 * SECOND, DUE)])
            worker.until(lambda: world.count("phase = 'SUCCEEDED'") >= 2 * DUE, "what came later has been fired", 60)  # noqa: B023
            later = time.monotonic() - begun
            assert worker.stop() == 0
        with capsys.disabled():
            print(
                f"\n{name}: start to first fires {fired:.2f} s, {memory:.1f} MiB, {processor:.2%} of a processor "
                f"at rest, a deploy by another process fired after {later:.1f} s"
            )
    assert figures["full"][1] - figures["empty"][1] < 20
    assert figures["full"][2] < 0.02
    assert figures["full"][0] < 10


@pytest.mark.parametrize("kind", BOTH)
def test_ten_thousand_due_at_one_instant_fire_whole(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(url, worker={"lease": "30s", "resync_interval": "30s"})
    moment = ago() + 12 * SECOND
    moment -= moment % SECOND
    deploy_as_of(url, ago(), [once("all", moment, AT_ONCE)])
    with world.worker() as worker:
        worker.until(lambda: world.count("phase = 'SUCCEEDED'") == AT_ONCE, "all have been fired", 120)
        done = (ago() - moment) / SECOND
        assert worker.stop() == 0
    with capsys.disabled():
        print(f"\n{kind}: {AT_ONCE} due at one instant, all over after {done:.1f} s")
    assert world.count("1 = 1") == AT_ONCE
    assert world.count(f"scheduled_at = {moment} AND attempt = 1 AND lost = 0") == AT_ONCE
