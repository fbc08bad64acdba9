"""Runs that are told to end between being started and the first step of their code."""

from __future__ import annotations

import asyncio

from executors import Executor, Outcome, RunContext, Succeeded
from scheduler.services.fire import Fired
from scheduler.services.take import take_runs
from tests.integration.waiting_world import WaitingWorld


class Counting(Executor):
    """Knows how often it was executed to its end."""

    executed = 0

    async def execute(self, run: RunContext) -> Outcome:
        await asyncio.sleep(0.05)
        self.executed += 1
        return Succeeded()


def test_a_run_stopped_before_its_first_step_leaves_its_place_and_is_executed_later(sqlite_url: str) -> None:
    counting = Counting()
    with WaitingWorld(sqlite_url, {"counting": counting}) as world:
        key = world.deploy("job", "counting")
        # Its specification is known from then on: starting asks nobody.
        world.until_phase(world.again(key), "SUCCEEDED")
        dispatching = world.worker.dispatching

        async def start_and_stop() -> str:
            name = world.client.fire(key)
            taken = world.store.run(take_runs, dispatching.incarnation, {"counting": 1}, on_time=1, late=0).on_time
            with world.store.read() as tx:
                rows = tx.triggers.load(run.trigger_id for run in taken if run.trigger_id is not None)
            assert [run.name for run in taken] == [name]
            await dispatching.fired(Fired(taken=tuple(taken), triggers=rows))
            assert dispatching.running == 1
            await dispatching.stop_executions()
            assert dispatching.running == 0
            return name

        name = world.await_there(start_and_stop())
        assert counting.executed == 1
        world.until_phase(name, "SUCCEEDED")
    assert counting.executed == 2
