"""Workers and their leases: who lives, who may judge, who is declared dead, and whose row goes."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.domain.instants import SECOND, Micros
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Store
from scheduler.store.waits import NewWait
from tests.conftest import ManualClock
from tests.integration.worlds import HOUR, LEASE, World, instant, trigger


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    return World(store, clock)


def row(world: World, incarnation: str) -> tuple[Any, ...]:
    """When it last renewed, until when its lease lasts, and whether it lives."""
    renewed, until, alive = world.rows(
        f"SELECT renewed_at, lease_until, alive FROM workers WHERE incarnation = '{incarnation}'"
    )[0]
    return renewed, until, bool(alive)


def renew(world: World, incarnation: str) -> Micros | None:
    return world.store.run(lambda tx: tx.workers.renew(incarnation, LEASE))


def judged(world: World, me: str = "judge") -> list[str]:
    return world.store.run(lambda tx: tx.workers.bury_expired(me, LEASE))


def living(world: World) -> list[str]:
    return [str(row["incarnation"]) for row in world.store.run(lambda tx: tx.workers.list_living())]


def test_a_worker_is_registered_with_all_it_says_of_itself(world: World) -> None:
    world.store.run(lambda tx: tx.meta.begin_epoch())
    with world.store.begin() as tx:
        tx.workers.register("w1", "host-1", "1.2.3", "zones of 2026", ["shell", "http"], LEASE)
    (found,) = world.store.run(lambda tx: tx.workers.list_living())
    now = world.clock.now()
    assert dict(found) == {
        "incarnation": "w1",
        "name": "host-1",
        "version": "1.2.3",
        "fingerprint": "zones of 2026",
        "executors": '["shell", "http"]',
        "epoch": 1,
        "started_at": now,
        "renewed_at": now,
        "lease_until": now + LEASE,
        "alive": True,
        "running": 0,
        "waits": 0,
    }


def waiting(run: TakenRun) -> NewWait:
    later = run.started_at + HOUR
    return NewWait(run.name, run.fence, "logging", "poll", "waiting", "w9", later, 1, 1, None, None, None, False, None)


def test_the_living_are_listed_oldest_first_with_the_runs_and_waits_each_holds(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(6)))
    for incarnation in ("w1", "w5", "w9"):
        world.clock.advance(1)
        world.register(incarnation)
    world.sql("UPDATE workers SET started_at = 0 WHERE incarnation = 'w9'")
    world.step("12:01")
    deferred = [execution.run for execution in world.take("w9", on_time=3)]
    assert len(world.store.run(lambda tx: tx.waits.begin(list(map(waiting, deferred)), "w9", tx.now()))) == 3
    world.take("w1", on_time=2)
    world.take("w5")
    world.store.run(lambda tx: tx.workers.retire("w5"))
    rows = world.store.run(lambda tx: tx.workers.list_living())
    assert [(row["incarnation"], row["running"], row["waits"]) for row in rows] == [("w9", 0, 3), ("w1", 2, 0)]


def test_only_what_living_workers_declare_is_declared(world: World) -> None:
    world.register("w1", executors=("shell", "http"))
    world.register("w2", executors=("http", "python"))
    world.store.run(lambda tx: tx.workers.retire("w2"))
    assert world.store.run(lambda tx: tx.workers.declared_executors()) == {"shell", "http"}


def test_a_renewal_extends_ones_own_lease_alone(world: World) -> None:
    began = world.clock.now()
    world.register("w1")
    world.register("w2")
    now = world.clock.advance(7)
    assert renew(world, "w1") == now
    assert row(world, "w1") == (now, now + LEASE, True)
    assert row(world, "w2") == (began, began + LEASE, True)
    assert world.store.run(lambda tx: tx.workers.last_seen()) == now


def test_a_worker_that_leaves_leaves_alone_and_cannot_come_back(world: World) -> None:
    world.register("w1")
    world.register("w2")
    now = world.clock.advance(7)
    world.store.run(lambda tx: tx.workers.retire("w1"))
    assert row(world, "w1")[1:] == (now, False)
    assert living(world) == ["w2"]
    assert renew(world, "w1") is None
    assert [world.store.run(lambda tx, of=of: tx.workers.is_dead_now(of)) for of in ("w1", "w2", "nobody")] == [
        (True, now),
        (False, now),
        (False, now),
    ]


def test_all_are_void_after_a_restore(world: World) -> None:
    for incarnation in ("w1", "w2", "w3"):
        world.register(incarnation)
    world.store.run(lambda tx: tx.workers.retire("w3"))
    assert world.store.run(lambda tx: tx.workers.void_all()) == 2
    assert living(world) == []


# --- judging ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_over_after_its_last_instant(world: World) -> None:
    world.register("w1")
    world.clock.advance(LEASE / SECOND)
    world.register("judge")
    assert judged(world) == []
    world.clock.set(world.clock.now() + 1)
    renew(world, "judge")
    assert judged(world) == ["worker-w1"]
    assert judged(world) == [], "it is declared dead once"
    assert living(world) == ["judge"]


def test_a_judge_goes_by_its_own_last_renewal(world: World) -> None:
    world.register("w1")
    world.clock.advance(LEASE / SECOND - 1)
    world.register("judge")
    world.clock.advance(20)
    assert judged(world) == [], "when the judge was last heard of, the lease was not over"
    renew(world, "judge")
    assert judged(world) == ["worker-w1"]


@pytest.mark.parametrize("apart", [LEASE, -LEASE])
def test_a_judge_whose_own_renewal_is_more_than_a_lease_away_judges_nobody(world: World, apart: Micros) -> None:
    world.at("13:00").register("judge")
    world.at("12:00").register("gone")
    world.sql(f"UPDATE workers SET lease_until = {instant('11:00')} WHERE incarnation = 'gone'")
    world.clock.set(instant("13:00") + apart + (1 if apart > 0 else -1))
    assert judged(world) == []
    world.clock.set(instant("13:00") + apart)
    assert judged(world) == ["worker-gone"]


def test_a_judge_that_nobody_registered_goes_by_now_and_nobody_buries_himself(world: World) -> None:
    world.register("w1")
    world.register("w2")
    world.clock.advance(LEASE / SECOND + 1)
    assert judged(world, "w1") == []
    renewed = world.clock.now()
    world.sql(f"UPDATE workers SET renewed_at = {renewed} WHERE incarnation = 'w1'")
    assert judged(world, "w1") == ["worker-w2"]
    assert judged(world, "nobody") == ["worker-w1"]


def test_a_lease_renewed_by_a_clock_set_back_since_is_one_lease_from_now(world: World) -> None:
    at_noon = world.clock.now()
    for incarnation, ahead in (("far", LEASE + 1), ("near", LEASE), ("dead", HOUR), ("judge", 0)):
        world.clock.set(at_noon + ahead)
        world.register(incarnation)
    world.store.run(lambda tx: tx.workers.retire("dead"))
    world.clock.set(at_noon + 5)
    assert judged(world) == []
    assert row(world, "far") == (at_noon + 5, at_noon + 5 + LEASE, True)
    assert row(world, "near") == (at_noon + LEASE, at_noon + 2 * LEASE, True)
    assert row(world, "judge") == (at_noon, at_noon + LEASE, True)
    assert row(world, "dead")[0] == at_noon + HOUR


# --- forgetting ------------------------------------------------------------------------------------------------------


def test_the_dead_are_forgotten_once_they_are_long_dead_and_no_run_names_them(world: World) -> None:
    world.deploy(trigger())
    for incarnation in ("holder", "dead", "fresh", "alive"):
        world.register(incarnation)
    world.step("12:01")
    assert len(world.take("holder")) == 1
    for incarnation in ("holder", "dead"):
        world.store.run(lambda tx, of=incarnation: tx.workers.retire(of))
    before = world.clock.now()
    world.clock.advance(1)
    world.store.run(lambda tx: tx.workers.retire("fresh"))

    def forgotten(since: Micros) -> int:
        return world.store.run(lambda tx: tx.workers.forget_dead(since))

    assert forgotten(before) == 0
    assert forgotten(before + 1) == 1
    assert sorted(world.rows("SELECT incarnation FROM workers")) == [("alive",), ("fresh",), ("holder",)]
