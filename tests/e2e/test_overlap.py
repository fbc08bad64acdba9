"""What overlapping slots, failures and deadlines make of a trigger, with commands that take their time."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scheduler.domain.instants import SECOND
from scheduler.services.operate import TriggerKey
from tests.conftest import BOTH
from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import DOMAIN, PROJECT, World, assert_every_second_once, reasons, slots_of, task, ticking

pytestmark = pytest.mark.heavy

TAKES = 3.5
WATCHED = 16
POLICIES = ("skip", "buffer_one", "buffer_all", "cancel_other")


class Execution(NamedTuple):
    """One execution as the command itself saw it; `ended` None where it was killed."""

    key: str
    began: float
    ended: float | None


def stamping(name: str, folder: Path, seconds: float, **more: Any) -> dict[str, Any]:
    """A command that writes down when it begins, takes its time, and writes down when it ends."""
    script = (
        'say() { echo "$1 $SCHEDULER_KEY $(date +%s.%N)" >> "$0"; }; trap "exit 1" TERM; '
        f"say began; sleep {seconds} & wait; say ended"
    )
    return task(name, "shell", {"command": ["sh", "-c", script, str(folder / name)]}, **more)


def executions(folder: Path, name: str) -> list[Execution]:
    """What a stamping command wrote down, in the order in which executions began."""
    file = folder / name
    words = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    ended = {key: float(at) for what, key, at in words if what == "ended"}
    began = [(key, float(at)) for what, key, at in words if what == "began"]
    return [Execution(key, at, ended.get(key)) for key, at in sorted(began, key=lambda pair: pair[1])]


@pytest.mark.parametrize("kind", BOTH)
def test_each_overlap_policy_does_with_slow_commands_what_it_says(
    new_world: NewWorld,
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(
        url, [stamping(name, tmp_path, TAKES, trigger={"every": "1s", "overlap": name}) for name in POLICIES]
    )
    with world.worker() as worker:
        world.until(lambda: all(executions(tmp_path, name) for name in POLICIES), "each has begun")
        time.sleep(WATCHED)
        worker.stop()

    all_runs = {run["name"]: run for name in POLICIES for run in world.runs(name)}
    slots = {name: run["scheduled_at"] / SECOND for name, run in all_runs.items()}
    phases = {name: run["phase"] for name, run in all_runs.items()}
    seen = {name: executions(tmp_path, name) for name in POLICIES}
    gaps: list[float] = []
    for name in POLICIES:
        ledger = world.ledger(name)
        assert_every_second_once(ledger)
        done = [(one.key, slots[one.key]) for one in seen[name]]
        assert done == sorted(done, key=lambda pair: pair[1]), f"{name}: not in the order of the slots"
        assert len({key for key, _ in done}) == len(done), f"{name}: twice"
        assert reasons(ledger).keys() == ({"overlap"} if name in ("skip", "buffer_one") else set()), name
        if name == "cancel_other":
            continue
        assert {phases[one.key] for one in seen[name]} == {"SUCCEEDED"}, name
        for one, following in pairwise(seen[name]):
            assert one.ended is not None
            assert following.began >= one.ended, f"{name}: two at once"
            if name != "skip":
                gaps.append(following.began - one.ended)

    # Every slot starts a run if none is open: the first after the command has ended. (It is seen to have ended when that
    # is committed, a moment after the instant that it says.)
    assert len(seen["skip"]) >= 3
    for one, following in pairwise(seen["skip"]):
        over = all_runs[one.key]["finished_at"] / SECOND
        assert all_runs[following.key]["created_at"] / SECOND >= over
        assert slots[following.key] < over + 1.1
    assert all(one.began - slots[one.key] < 1 for one in seen["skip"])
    # One waits behind the one that runs, and starts when that has ended; the slot it has is younger than that start.
    first = seen["buffer_one"][0]
    assert first.began - slots[first.key] <= TAKES + 0.5
    assert all(slots[following.key] >= one.began - 0.5 for one, following in pairwise(seen["buffer_one"]))
    # All wait, each for all before it.
    taken = [slots[one.key] for one in seen["buffer_all"]]
    assert taken == [taken[0] + number for number in range(len(taken))]
    # Each was ended by its successor, which started then; the last one alone has time to end, unless one waits already.
    overtaken, last = seen["cancel_other"][:-1], seen["cancel_other"][-1]
    assert len(seen["cancel_other"]) >= WATCHED - 1
    assert all(one.ended is None and phases[one.key] == "ABORTED" for one in overtaken)
    waits = [run for run in world.runs("cancel_other", "QUEUED") if run["scheduled_at"] / SECOND == slots[last.key] + 1]
    assert (phases[last.key], last.ended is not None) == (("ABORTED", False) if waits else ("SUCCEEDED", True))
    behind = max(one.began - slots[one.key] for one in seen["cancel_other"])
    with capsys.disabled():
        print(
            f"\n{kind}: from the end of one command to the start of the one that waits {max(gaps):.2f} s at most, "
            f"{sum(gaps) / len(gaps):.2f} s on average; cancel_other started after its slot by {behind:.2f} s at most"
        )
    assert max(gaps) < 0.5
    assert behind < 1
    assert not world.children()


def paused(world: World, name: str) -> bool:
    return [trigger["active"] for trigger in world.client.list_triggers(task=name)] == [False]


def test_a_trigger_whose_command_keeps_failing_is_paused_and_goes_on_when_it_is_activated(
    new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    mended, key = tmp_path / "mended", TriggerKey(PROJECT, DOMAIN, "broken", "t")
    broken = ["sh", "-c", 'echo "no such report" >&2; test -e "$0"', str(mended)]
    # The other one fails two times of three, and never three times in a row.
    counter = tmp_path / "counter"
    moody = ["sh", "-c", 'echo >> "$0"; test $(($(wc -l < "$0") % 3)) = 0', str(counter)]
    world = new_world(
        sqlite_url,
        [
            task("broken", "shell", {"command": broken}, trigger={"every": "1s", "pause_on_failure": 3}),
            task("moody", "shell", {"command": moody}, trigger={"every": "1s", "pause_on_failure": 3}),
            ticking("tick"),
        ],
    )
    with world.worker() as worker:
        world.until(lambda: paused(world, "broken"), "it is paused")
        assert worker.said("its runs keep failing")
        (revision, *_) = world.client.list_revisions(key)
        assert (revision["action"], revision["by"]) == ("DEACTIVATE", "scheduler")
        time.sleep(2.5)
        counted = Counter(run["phase"] for run in world.runs("broken"))
        # Slots that came due while the third was on its way may have fired already.
        assert 3 <= counted["FAILED"] <= 4
        assert counted.keys() <= {"FAILED", "ABORTED"}
        output = world.client.run_output(world.runs("broken", "FAILED")[0]["name"])
        assert [attempt["output"].strip() for attempt in output] == ["no such report"]

        # Activated, earlier failures count no more; while the command is broken it takes three new ones.
        first = len(world.runs("broken"))
        assert world.client.activate(key)
        world.until(lambda: paused(world, "broken"), "it is paused again")
        assert len(world.runs("broken", "FAILED")) >= counted["FAILED"] + 3
        assert len(world.runs("broken")) >= first + 3
        mended.touch()
        assert world.client.activate(key)
        world.until(lambda: len(world.runs("broken", "SUCCEEDED")) >= 4, "it goes on")
        assert not paused(world, "broken")
        assert len(world.runs("moody")) >= 9
        assert not paused(world, "moody")
        assert worker.stop() == 0
    assert {run["phase"] for run in world.runs("tick")} == {"SUCCEEDED"}
    assert_every_second_once(world.ledger("tick"))


@pytest.mark.parametrize("kind", BOTH)
def test_a_run_that_waits_past_its_deadline_ends_within_a_second_of_it(
    new_world: NewWorld, kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")
    world = new_world(
        url,
        [
            stamping("long", tmp_path, 12, trigger={"every": "1s", "max_fires": 1}),
            stamping("short", tmp_path, 0.1, deadline="3s", trigger={"every": "1s", "max_fires": 4}),
        ],
        # A lease at its default: whatever is done at a third of it would come ten seconds late.
        worker={"lease": "30s", "resync_interval": "30s"},
        executors={"shell": {"use": "shell", "max_concurrent_runs": 1}},
    )
    with world.worker() as worker:
        world.until(lambda: len(world.runs("short", "TIMED_OUT")) >= 3, "they time out", 25)
        world.until(lambda: world.runs("long", "SUCCEEDED"), "the long one is over", 25)
        assert worker.stop() == 0
    expired = world.runs("short", "TIMED_OUT")
    late = [(run["finished_at"] - run["created_at"]) / SECOND - 3 for run in expired]
    with capsys.disabled():
        print(f"\n{kind}: ended after their deadlines by {min(late):.2f} to {max(late):.2f} s")
    assert all("deadline" in run["error"] for run in expired)
    assert not {run["name"] for run in expired} & {one.key for one in executions(tmp_path, "short")}
    assert slots_of(world.ledger("short")) == sorted(run["scheduled_at"] for run in world.runs("short"))
    assert min(late) >= 0
    assert max(late) <= 1
