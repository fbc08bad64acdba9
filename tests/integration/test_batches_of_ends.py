"""A batch of ends with one in it that the database refuses: that run fails alone."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.domain.instants import SECOND
from scheduler.domain.run import Phase
from scheduler.domain.wait import WaitKind
from scheduler.loop.finishing import Finishing
from scheduler.loop.transactions import Transactions
from scheduler.services.defer import Deferral
from scheduler.services.finish import Ended
from scheduler.services.plan import Planning
from scheduler.services.take import Execution
from scheduler.store.transaction import Store
from tests.integration.worlds import World, trigger


def refuse(world: World, table: str, column: str, value: str) -> None:
    """From now on the database refuses such rows, as one with a rule of its own does."""
    if world.store.dialect.name == "postgresql":
        world.sql(f"ALTER TABLE {table} ADD CONSTRAINT rule CHECK ({column} <> '{value}')")
    else:
        world.sql(
            f"CREATE TRIGGER rule BEFORE INSERT ON {table} WHEN NEW.{column} = '{value}' "
            "BEGIN SELECT RAISE(ABORT, 'it is against the rule'); END"
        )


def flushed(store: Store, *ended: Ended, **options: int) -> Finishing:
    async def main() -> Finishing:
        transactions = Transactions(store)
        finishing = Finishing(transactions, Planning(), worker="worker-w1", **options)
        for item in ended:
            finishing.report(item)
        try:
            await finishing.flush()
        finally:
            transactions.close()
        assert not finishing.pending
        return finishing

    return asyncio.run(main())


@pytest.fixture
def taken(world: World) -> list[Execution]:
    world.register()
    world.deploy(*(trigger(f"t{number}") for number in range(20)))
    world.step("12:01")
    return world.take()


def test_one_end_that_the_database_refuses_fails_alone(world: World, taken: list[Execution]) -> None:
    refuse(world, "attempts", "output", "refused")
    ends = [
        Ended(item, Phase.SUCCEEDED, outputs={"n": place}, output="refused" if place in (7, 8) else "fine")
        for place, item in enumerate(taken)
    ]
    flushed(world.store, *ends)
    for place, item in enumerate(taken):
        run = world.run(item.run.name)
        if place in (7, 8):
            assert (run["phase"], run["outputs"]) == ("FAILED", None)
            assert run["error"].startswith("how it ended cannot be stored: ")
            assert "rule" in run["error"]
        else:
            assert (run["phase"], run["outputs"]) == ("SUCCEEDED", {"n": place})
        assert len(run["attempts"]) == 1


def test_one_deferral_that_the_database_refuses_fails_alone(world: World, taken: list[Execution]) -> None:
    refuse(world, "waits", "state", "1")
    at = world.clock.now() + 60 * SECOND
    ends = [
        Ended(item, Phase.DEFERRED, deferral=Deferral(item, WaitKind.UNTIL, look_at=at, state=str(place)))
        for place, item in enumerate(taken[:5])
    ]
    flushed(world.store, *ends)
    phases = [world.run(item.run.name)["phase"] for item in taken[:5]]
    assert phases == ["DEFERRED", "FAILED", "DEFERRED", "DEFERRED", "DEFERRED"]


def test_a_database_that_refuses_whatever_is_said_is_no_runs_fault(world: World, taken: list[Execution]) -> None:
    refuse(world, "attempts", "worker", "worker-w1")
    with pytest.raises(Exception, match="rule"):
        flushed(world.store, *(Ended(item, Phase.SUCCEEDED) for item in taken))
    assert {world.run(item.run.name)["phase"] for item in taken} == {"RUNNING"}


def test_results_that_are_large_together_are_recorded_in_several_batches(world: World, taken: list[Execution]) -> None:
    outputs = {"text": "x" * 4_000_000}
    flushed(world.store, *(Ended(item, Phase.SUCCEEDED, outputs=outputs) for item in taken), max_output_bytes=5_000_000)
    assert set(world.phases().values()) == {"SUCCEEDED"}
    assert world.run(taken[-1].run.name)["outputs"] == outputs
