"""Replicas that want the same run, or the same turn, in the same moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from scheduler.domain.task import TaskSpec
from scheduler.services.take import Execution
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import PLENTY, World, key, trigger

pytestmark = [pytest.mark.heavy, pytest.mark.postgres]

QUEUED, FIRED = 700, 300
SPEC = TaskSpec("logging")


class Replica(World):
    """A worker's services under a name of its own."""

    def __init__(self, name: str, url: str, clock: ManualClock) -> None:
        super().__init__(Store.open(url, clock=clock, pool_size=1), clock)
        self.name = self.register(name)

    def executions(self, runs: Sequence[TakenRun]) -> list[Execution]:
        """As a worker that knows the specification already."""
        return [Execution(run, SPEC, *key()) for run in runs]

    def takes(self) -> list[Execution]:
        return self.take(self.name)

    def fires(self) -> list[Execution]:
        """Fires what is due, and keeps what it may start at once."""
        return self.executions(self.fire(owner=self.name, room=PLENTY, places=100).taken)

    def retries_and_takes(self, name: str) -> list[Execution]:
        """A person wants a failed run tried again, and this replica is the first to hear of it."""
        self.client.retry_run(name)
        return self.takes()

    def running(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM runs WHERE phase = 'RUNNING' ORDER BY scheduled_at")]


class Race:
    """Two replicas that start in the same moment."""

    def __init__(self, one: Replica, two: Replica) -> None:
        self.one, self.two = one, two
        self._threads = ThreadPoolExecutor(2)

    def run(self, *both: Callable[[], list[Execution]]) -> list[Execution]:
        """What they took, together."""
        gate = Barrier(2)

        def start(work: Callable[[], list[Execution]]) -> list[Execution]:
            gate.wait(10)
            return work()

        return [taken for future in [self._threads.submit(start, work) for work in both] for taken in future.result(30)]

    def close(self) -> None:
        self._threads.shutdown()
        self.one.store.close()
        self.two.store.close()


@pytest.fixture
def race(postgres_url: str, clock: ManualClock) -> Iterator[Race]:
    """Two replicas on PostgreSQL, and a `skip` trigger."""
    made = Race(Replica("one", postgres_url, clock), Replica("two", postgres_url, clock))
    made.one.deploy(trigger(overlap="skip"))
    yield made
    made.close()


def a_failed_run(replica: Replica) -> str:
    """The slot of a minute later fails; a person may want it tried again."""
    replica.clock.advance(60)
    (execution,) = replica.fires()
    replica.fail(execution)
    return execution.run.name


def test_of_two_queued_runs_of_a_trigger_that_skips_never_two_run_at_once(race: Race) -> None:
    one, two = race.one, race.two
    winners = {"one": 0, "two": 0}
    older = a_failed_run(one)
    for _ in range(QUEUED):
        one.clock.advance(60)
        (newer,) = one.fire().runs
        one.client.retry_run(older)  # Two runs of one trigger wait now.
        taken = race.run(one.takes, two.takes)
        assert [execution.run.name for execution in taken] == [older] == one.running()
        winners[taken[0].run.owner] += 1
        one.succeed(*taken)
        rest = two.takes()
        assert [execution.run.name for execution in rest] == [newer.name] == one.running()
        two.fail(*rest)
        older = newer.name
    print(f"who was first: {winners}")
    assert min(winners.values()) > QUEUED // 50, "that was no race"


def test_a_run_tried_again_and_one_that_fires_at_once_never_run_together(race: Race) -> None:
    one, two = race.one, race.two
    firsts = Counter[str]()
    for _ in range(FIRED):
        older = a_failed_run(one)
        one.clock.advance(60)
        taken = race.run(one.fires, lambda older=older: two.retries_and_takes(older))
        assert [execution.run.name for execution in taken] == one.running()
        assert len(taken) <= 1, "two runs of one trigger run at once"
        firsts["neither" if not taken else "tried again" if taken[0].run.name == older else "fired"] += 1
        one.fire()  # One that found its trigger's row locked left it due.
        while taken:
            one.succeed(*taken)
            taken = one.takes()
    print(f"who was first: {dict(firsts)}")
    assert firsts["fired"] > 0
