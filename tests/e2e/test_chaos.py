"""Workers are killed and frozen at random while hundreds of triggers fire: nothing is lost, nothing done twice for nothing."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler.app import App
from scheduler.domain.instants import SECOND
from tests.e2e.chaos import Chaos
from tests.e2e.conftest import NewWorld
from tests.e2e.servers import Server
from tests.e2e.targets import Target, Visit, http_executor
from tests.e2e.worlds import World, task

pytestmark = pytest.mark.heavy

LEASE = 3.0
HOLD = 0.2
# How long it may take on a busy machine to record an answer, and for a thawed worker to learn that it is out.
MARGIN = 3.0


def calling(target: Target, name: str, triggers: int, start: float, seconds: int) -> dict[str, Any]:
    """A task whose triggers fire every second of a period."""
    made = task(name, "http", target.config(name, hold=HOLD))
    period = {"start": iso(start), "end": iso(start + seconds)}
    made["triggers"] = [{"name": f"t{number}", "every": "1s", **period} for number in range(triggers)]
    return made


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Account:
    """What became of every slot and every execution; raises where a promise was broken."""

    def __init__(self, world: World, target: Target, chaos: Chaos, tasks: Sequence[str]) -> None:
        self.runs = [run for name in tasks for run in world.runs(name)]
        self.visits: dict[str, list[Visit]] = defaultdict(list)
        for visit in target.visits:
            self.visits[visit.key].append(visit)
        self._world, self._chaos, self._tasks = world, chaos, tasks

    def every_slot_once(self, triggers: int, seconds: int) -> None:
        """Each trigger has one run for each second of the period, and no other entry."""
        grids = set()
        for name in self._tasks:
            for number in range(triggers):
                ledger = self._world.ledger(name, f"t{number}")
                assert {entry["kind"] for entry in ledger} == {"run"}, [e for e in ledger if e["kind"] != "run"]
                grids.add(tuple(entry["scheduled_at"] // SECOND for entry in ledger))
        assert len(grids) == 1, "triggers with different slots"
        (slots,) = grids
        assert slots == tuple(range(slots[0], slots[0] + len(slots)))
        assert seconds <= len(slots) <= seconds + 1

    def every_run_executed(self) -> None:
        """Every run succeeded, with one recorded attempt, and the target answered it."""
        others = Counter((run["phase"], run["error"]) for run in self.runs if run["phase"] != "SUCCEEDED")
        assert not others, others
        assert {run["attempt"] for run in self.runs} == {1}
        assert self.visits.keys() == {run["name"] for run in self.runs}
        unanswered = [key for key, visits in self.visits.items() if not any(visit.answered for visit in visits)]
        assert not unanswered

    def second_executions(self) -> Counter[str]:
        """Why runs were executed again, counted: of all executions of a run but one, something befell the worker."""
        reasons: Counter[str] = Counter()
        for key, visits in self.visits.items():
            # A frozen worker may come last: what it had taken before it goes on when it is thawed, until it learns of it.
            excuses = [self._chaos.excuse(visit, MARGIN) for visit in visits] if len(visits) > 1 else [None]
            assert excuses.count(None) <= 1, (
                f"{key} was executed again for no reason: {visits}\n{self._chaos.timeline()}"
            )
            reasons.update(sorted(excuse for excuse in excuses if excuse is not None)[: len(visits) - 1])
        return reasons

    def redone(self) -> list[float]:
        """How long after a kill the runs that it cut off were executed again, shortest first."""
        kills = {trouble.worker: trouble.begun for trouble in self._chaos.troubles if trouble.kind == "kill"}
        return sorted(
            visits[1].arrived - kills[visits[0].worker]
            for visits in self.visits.values()
            if len(visits) > 1 and visits[0].cut and visits[0].worker in kills
        )

    def lateness(self) -> list[float]:
        """How long after its slot each run was first executed, shortest first."""
        slots = {run["name"]: run["scheduled_at"] / SECOND for run in self.runs}
        return sorted(visits[0].arrived - slots[key] for key, visits in self.visits.items())


def percentiles(seconds: Sequence[float]) -> str:
    """Sorted durations in three figures."""
    if not seconds:
        return "nothing"
    middle, most = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
    return f"{middle:.2f} s in the median, {most:.2f} s at 99 %, {seconds[-1]:.2f} s at most"


def check(kind: str, account: Account, chaos: Chaos, triggers: int, seconds: int, settled: float) -> str:
    """Holds the account against every promise; returns the figures."""
    reasons = account.second_executions()
    account.every_slot_once(triggers, seconds)
    account.every_run_executed()
    takeovers = chaos.takeovers()
    assert not {worker: times for worker, times in takeovers.items() if times[0] > times[1]}, "taken over late"
    # Nobody was hindered but by us, unless the machine, or the database for too long, had no time for anybody.
    excused = chaos.stall > LEASE / 6 or chaos.away > LEASE / 3
    assert "cut off" not in reasons or excused, f"{reasons}\n{chaos.timeline()}"
    assert not any("Traceback" in said for said in chaos.logs())

    done = {what: chaos.count(what) for what in ("kill", "freeze", "short freeze")}
    executions = [len(visits) for visits in account.visits.values()]
    took = sorted(times[0] for times in takeovers.values())
    return "\n".join(
        [
            "",
            f"{kind}: {len(account.runs)} runs under {done}; {sum(executions)} executions, again because of {dict(reasons)}",
            f"most for one run: {max(executions)} executions, {max(run['lost'] for run in account.runs)} losses",
            f"first executed after the slot by {percentiles(account.lateness())}; all over {settled:.1f} s after the last one",
            f"killed workers were declared dead after {percentiles(took)} (those {len(took)} that another one could look at)",
            f"{len(account.redone())} runs cut off by kills were executed again after {percentiles(account.redone())}",
            f"the database was away for {chaos.away:.1f} s; the machine kept us waiting for {chaos.stall:.2f} s at most",
        ]
    )


def begin(world: World, target: Target, names: Sequence[str], triggers: int, seconds: int) -> int:
    """Deploys the triggers while the workers run, and waits for their first slot; returns when that is."""
    start = int(time.time()) + 6
    world.write_manifest([calling(target, name, triggers, start, seconds) for name in names])
    manifests = App.load(world.config).load_manifests([world.manifest])
    assert all(result.applied for result in world.client.deploy(manifests.definitions))
    assert time.time() < start, "the deploy took too long"
    time.sleep(start - time.time())
    return start


@pytest.mark.postgres
def test_three_workers_on_postgresql_under_kills_freezes_and_a_restart_of_the_database(
    new_world: NewWorld, server: Server, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, triggers, seconds = 10, 30, 60
    names = [f"call-{number}" for number in range(tasks)]
    world = new_world(server.url, worker={"lease": f"{LEASE:g}s"}, executors=http_executor())
    assert world.call("db", "upgrade").returncode == 0

    def restart() -> None:
        world.close()
        begun = time.time()
        server.stop("immediate")
        server.start()
        chaos.outage(begun, time.time())

    with Chaos(world, ["one", "two", "three"], seed=20_261_121, lease=LEASE) as chaos:
        start = begin(world, target, names, triggers, seconds)
        chaos.rage(seconds, midway=restart)
        chaos.calm()
        world.until(lambda: world.count("phase IN ('QUEUED', 'RUNNING')") == 0, "every run is over", 180)
        settled = max(visit.left or 0 for visit in target.visits) - (start + seconds)
        assert set(chaos.stop()) == {0}

    figures = check("postgresql", Account(world, target, chaos, names), chaos, triggers, seconds, settled)
    with capsys.disabled():
        print(figures)


def test_two_processes_on_sqlite_under_kills_and_freezes(
    new_world: NewWorld, sqlite_url: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, triggers, seconds = 10, 30, 60
    names = [f"call-{number}" for number in range(tasks)]
    world = new_world(sqlite_url, worker={"lease": f"{LEASE:g}s"}, executors=http_executor())
    with Chaos(world, ["one", "two"], seed=7, lease=LEASE) as chaos:
        start = begin(world, target, names, triggers, seconds)
        chaos.rage(seconds)
        chaos.calm()
        world.until(lambda: world.count("phase IN ('QUEUED', 'RUNNING')") == 0, "every run is over", 180)
        settled = max(visit.left or 0 for visit in target.visits) - (start + seconds)
        assert set(chaos.stop()) == {0}

    figures = check("sqlite", Account(world, target, chaos, names), chaos, triggers, seconds, settled)
    with capsys.disabled():
        print(figures)
