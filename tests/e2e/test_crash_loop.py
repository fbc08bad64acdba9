"""Code that kills its worker: it ends when it has done so often enough, and everybody else's runs go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import (
    WorkerProcess,
    World,
    assert_every_second_once,
    eventually,
    marking,
    marks,
    open_runs,
    task,
)

pytestmark = pytest.mark.heavy

MAX_LOST = 4
DEADLY = """
import os, signal

def deadly(file, run):
    with open(file, "a") as marks:
        marks.write(f"start {run.key}\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Supervisor:
    """Starts a worker anew whenever one has died, as a service manager does."""

    def __init__(self, world: World, count: int, stack: ExitStack) -> None:
        self._world, self._stack = world, stack
        self._workers = [self._start() for _ in range(count)]
        self.deaths = 0

    def _start(self) -> WorkerProcess:
        return self._stack.enter_context(self._world.worker())

    def until(self, condition: Callable[[], object], what: str, within: float) -> None:
        """Waits for a condition, and looks after the workers meanwhile."""

        def looked_after() -> object:
            for place, worker in enumerate(self._workers):
                if not worker.running:
                    self.deaths += 1
                    self._workers[place] = self._start()
            return condition()

        eventually(looked_after, what, within)

    def stop(self) -> list[int]:
        return [worker.stop() for worker in self._workers]


@pytest.mark.parametrize("kind", BOTH)
def test_a_callable_that_kills_its_worker_fails_after_max_lost_and_the_others_go_on(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    (tmp_path / "deadly_functions.py").write_text(DEADLY)
    file, others = tmp_path / "marks", tmp_path / "others"
    deadly = {"callable": "deadly_functions:deadly", "in": "thread", "args": {"file": str(file)}}
    world = new_world(
        url,
        [
            task("deadly", "python", deadly, trigger={"every": "1s", "max_fires": 1}),
            marking("other", others),
        ],
        worker={"lease": "1s", "max_lost": MAX_LOST},
        executors={"python": {"use": "python", "options": {"path": [str(tmp_path)]}}, "shell": {"use": "shell"}},
    )
    with ExitStack() as stack:
        supervisor = Supervisor(world, 1 if kind == "sqlite" else 2, stack)
        supervisor.until(lambda: world.runs("deadly", "FAILED"), "it has failed for good", 60)
        count = len(world.runs("other", "SUCCEEDED"))
        supervisor.until(lambda: len(world.runs("other", "SUCCEEDED")) >= count + 5, "the others go on", 15)
        assert set(supervisor.stop()) == {0}

    (run,) = world.runs("deadly")
    spent = (run["finished_at"] - run["created_at"]) / 1e6
    with capsys.disabled():
        print(f"\n{kind}: {supervisor.deaths} workers died, failed for good {spent:.1f} s after it fired")
    assert (run["phase"], run["lost"], run["attempt"]) == ("FAILED", MAX_LOST, 1)
    assert run["error"] == f"lost its worker {MAX_LOST} times"
    assert marks(file) == {run["name"]: MAX_LOST}
    assert supervisor.deaths == MAX_LOST
    attempts = world.client.show_run(run["name"])["attempts"]
    assert [attempt["phase"] for attempt in attempts] == ["LOST"] * (MAX_LOST - 1) + ["FAILED"]

    # Whoever was in the same worker was lost with it, and has been done again; nobody else was.
    assert_every_second_once(world.ledger("other"))
    runs = world.runs("other")
    assert not open_runs(runs)
    assert {run["phase"] for run in runs} == {"SUCCEEDED"}, [run for run in runs if run["lost"] > 1]
    assert marks(others, "end").keys() == {run["name"] for run in runs}
    assert {key for key, times in marks(others).items() if times > 1} <= {run["name"] for run in runs if run["lost"]}
