"""Many workers on one PostgreSQL: nothing fires twice, nothing waits in a circle."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from scheduler.client import Client
from scheduler.domain.automation import Cron
from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import SECOND
from scheduler.domain.task import TaskSpec
from scheduler.errors import StatementRefused
from scheduler.services.fire import fire_due
from scheduler.services.recover import recover_runs
from scheduler.services.take import take_runs
from scheduler.store.runs import NewRun
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import LEASE, PLENTY, World, definition, instant, key, only, retrying, trigger

pytestmark = pytest.mark.postgres


@pytest.fixture
def world(postgres_url: str, clock: ManualClock) -> Iterator[World]:
    store = Store.open(postgres_url, clock=clock, pool_size=8)
    yield World(store, clock)
    store.close()


def together(*works: Callable[[], Any]) -> list[Any]:
    """What the works return, all begun at one moment in threads of their own; the first error is raised."""
    begin = threading.Barrier(len(works))
    answers: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def work(place: int) -> None:
        try:
            begin.wait()
            answers[place] = works[place]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def until_nothing_is_due(world: World, **options: Any) -> Callable[[], list[str]]:
    def work() -> list[str]:
        names = []
        while (fired := world.fire(limit=25, **options)).claimed:
            names += [run.name for run in fired.runs]
        return names

    return work


def test_workers_that_claim_at_once_fire_no_slot_twice(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(300)))
    world.at("12:03")
    answers = together(*(until_nothing_is_due(world) for _ in range(3)))
    names = [name for answer in answers for name in answer]
    # Within the grace: 12:02 and 12:03; 12:01 is late by a minute and within the cap.
    assert len(names) == len(set(names)) == 900
    assert world.rows("SELECT count(*), count(DISTINCT (trigger_id, scheduled_at)) FROM runs") == [(900, 900)]
    assert sum(bool(answer) for answer in answers) > 1, "one worker did it all"


def test_workers_that_take_at_once_share_every_run(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(400)))
    world.step("12:01")

    def taking(owner: str) -> Callable[[], list[str]]:
        def work() -> list[str]:
            names: list[str] = []
            while taken := world.take(owner, on_time=20):
                names += [item.run.name for item in taken]
            return names

        return work

    answers = together(*(taking(world.register(f"w{number}")) for number in range(3)))
    names = [name for answer in answers for name in answer]
    assert len(names) == len(set(names)) == 400


def test_a_claim_leaves_out_what_another_worker_holds(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:01")
    with world.store.begin() as first:
        held = fire_due(first, world.planning, limit=1)
        assert held.claimed == 1
        assert world.fire().claimed == 1
        assert world.fire().claimed == 0
        with world.store.read() as looker:
            assert looker.triggers.next_due_at() == instant("12:01"), "re-arming must see locked rows too"
    assert world.rows("SELECT count(*) FROM runs") == [(2,)]


def test_overlapping_batches_of_inserts_never_deadlock(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(100)))
    ids = dict(world.rows("SELECT name, id FROM triggers"))
    new = [
        NewRun(
            slot_run_name("flytesnacks", "development", "report", name, slot),
            trigger_id,
            slot,
            None,
            None,
            0,
            slot,
            None,
        )
        for name, trigger_id in ids.items()
        for slot in (instant("12:01"), instant("12:02"))
    ]

    def inserting(seed: int) -> Callable[[], None]:
        def work() -> None:
            dice = random.Random(seed)
            for _ in range(12):
                # Two who insert one slot at one instant, which a due row's lock excludes, may also undo each other. Without
                # the retries of `store.run` a deadlock would be raised.
                with suppress(StatementRefused), world.store.begin() as tx:
                    tx.runs.insert_new(dice.sample(new, 150), tx.now())

        return work

    together(*(inserting(seed) for seed in range(4)))
    with world.store.begin() as tx:
        tx.runs.insert_new(new, tx.now())
    assert world.rows("SELECT count(*) FROM runs") == [(200,)]


def test_firing_planning_deploying_and_commanding_at_once_decide_every_slot_once(world: World) -> None:
    triggers = [trigger(f"t{number}") for number in range(40)]
    world.deploy(*triggers)
    world.register()
    rounds = range(2, 14)

    def firing() -> None:
        for minute in rounds:
            world.clock.set(max(world.clock.now(), instant(f"12:{minute:02}")))
            world.sync()
            while world.fire(limit=7, owner="w1", room={"logging": 5}, places=5).claimed:
                pass

    def deploying() -> None:
        for number in rounds:
            # Through a client, as a deploy from another process comes.
            client = Client(world.store, planning=world.planning, by="deployer", create_projects=True)
            list(client.deploy([definition(*triggers, version=f"v{number}", spec=retrying(number))]))

    def commanding() -> None:
        for number in rounds:
            world.client.deactivate(key(f"t{number}"))
            world.client.activate(key(f"t{number}"))

    def recovering() -> None:
        for _ in rounds:
            world.recover()
            world.succeed(*world.take(on_time=20, late=20))

    together(firing, firing, deploying, commanding, recovering)
    world.sync()
    while world.fire().claimed:
        pass
    for number in range(14, 40):  # nobody paused these
        ledger = world.ledger(f"t{number}")
        assert ledger == [f"12:{minute:02}" for minute in range(1, 14)]


def test_a_deadline_does_not_wait_for_a_run_that_somebody_holds_and_a_restore_does(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    held, free = sorted(run["name"] for run in world.runs())
    world.sql("UPDATE runs SET deadline_at = 5")
    ended: list[int] = []
    thread = threading.Thread(
        target=lambda: ended.append(world.store.run(lambda tx: tx.runs.abort_open(tx.now(), 9, "restored")))
    )
    with world.store.begin() as first:
        first.connection.exec_driver_sql(f"SELECT 1 FROM runs WHERE name = '{held}' FOR UPDATE")
        with world.store.begin() as second:
            second.connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
            assert second.runs.expire(second.now(), 9) == [free]
        thread.start()
        _until(lambda: bool(world.rows("SELECT 1 FROM pg_locks WHERE NOT granted")))
    thread.join()
    assert ended == [1]


def test_a_cancel_waits_for_a_run_that_somebody_holds(world: World) -> None:
    world.deploy(trigger())
    world.step("12:01")
    name = only(world.runs())["name"]
    thread = threading.Thread(target=lambda: world.client.cancel_run(name))
    with world.store.begin() as tx:
        tx.connection.exec_driver_sql("SELECT 1 FROM runs FOR UPDATE")
        thread.start()
        _until(lambda: bool(world.rows("SELECT 1 FROM pg_locks WHERE NOT granted")))
    thread.join()
    assert world.phases() == {"12:01": "ABORTED"}


def test_tasks_whose_turns_one_worker_takes_are_left_out_by_the_others(world: World) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(4)), spec=TaskSpec("logging", max_concurrent_runs=2))
    world.deploy(trigger(overlap="buffer_one"), task="bill")
    world.register("w1")
    world.register("w2")
    world.step("12:01")
    (task, other) = (number for (number,) in world.rows("SELECT id FROM tasks ORDER BY id"))
    with world.store.begin() as first:
        first.connection.exec_driver_sql(f"SELECT 1 FROM tasks WHERE id = {task} FOR UPDATE")
        with world.store.begin() as second:
            # Without skipping it would wait; without locking both would count the same free places.
            second.connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
            taken = take_runs(second, "w2", PLENTY, on_time=9, late=9)
            assert [run.task_id for run in taken.on_time] == [other]
            assert taken.missed
        found = take_runs(first, "w1", PLENTY, on_time=9, late=9)
    assert (len(found.on_time), found.missed) == (2, False)


def test_lost_runs_that_one_worker_takes_back_are_left_out_by_the_others(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.register()
    world.step("12:01")
    assert len(world.take()) == 2
    world.sql("UPDATE workers SET alive = false")
    with world.store.begin() as first:
        taken_back = recover_runs(first, "w2", lease=LEASE, max_lost=5, limit=1, judge=False)
        assert len(taken_back.requeued) == 1
        with world.store.begin() as second:
            # Without the lock it would wait for the first, and count the loss once more.
            second.connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
            others = recover_runs(second, "w3", lease=LEASE, max_lost=5, limit=9, judge=False)
    assert len(others.requeued) == 1
    assert {*taken_back.requeued, *others.requeued} == {run["name"] for run in world.runs()}
    assert world.rows("SELECT lost FROM runs") == [(1,), (1,)]


@pytest.mark.parametrize("ending", ["cancelled", "paused"])
def test_a_run_that_ends_while_its_turn_is_taken_does_not_start(world: World, ending: str) -> None:
    world.deploy(trigger(overlap="buffer_all"))
    world.register()
    world.step("12:01")
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(world.take()))
    with world.store.begin() as tx:
        if ending == "cancelled":
            tx.runs.cancel([only(world.runs())["name"]], tx.now(), "cancelled")
        else:
            tx.runs.abort_unstarted([only(world.rows("SELECT id FROM triggers"))[0]], tx.now(), "paused")
        thread.start()
        # It found the run as it was before, and waits for what becomes of its row.
        _until(lambda: bool(world.rows("SELECT 1 FROM pg_locks WHERE NOT granted")))
    thread.join()
    assert taken == [[]]
    assert world.phases() == {"12:01": "ABORTED"}


def test_a_deploy_that_waited_for_a_lock_decides_by_the_time_it_got_it(world: World) -> None:
    world.deploy(trigger())
    waiting = threading.Event()
    answers: list[Any] = []

    def deactivate() -> None:
        waiting.set()
        answers.append(world.client.deactivate(key()))

    thread = threading.Thread(target=deactivate)
    with world.store.begin() as tx:
        tx.triggers.lock_due([only(world.rows("SELECT id FROM triggers"))[0]])
        thread.start()
        waiting.wait()
        _until(lambda: bool(world.rows("SELECT 1 FROM pg_locks WHERE NOT granted")))
        world.at("12:05:30")
    thread.join()
    assert answers == [True]
    assert world.ledger() == ["paused 12:01–12:05 ×5"]


def test_the_servers_clock_moves_within_a_transaction(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    with store.begin() as tx:
        began = tx.connection.exec_driver_sql("SELECT extract(epoch FROM now()) * 1000000").scalar_one()
        first = tx.now()
        tx.connection.exec_driver_sql("SELECT pg_sleep(0.02)")
        second = tx.now()
        again = tx.connection.exec_driver_sql("SELECT extract(epoch FROM now()) * 1000000").scalar_one()
    store.close()
    assert began == again
    assert second - first >= 20_000
    assert abs(first - int(began)) < 5 * SECOND


def test_transactions_run_at_read_committed(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    with store.begin() as tx:
        assert tx.connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    store.close()


def test_a_deadlock_runs_the_whole_transaction_again(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    first, second = (row[0] for row in world.rows("SELECT id FROM triggers ORDER BY id"))
    both_hold_one = threading.Barrier(2)
    tries: list[int] = []

    def crosswise(mine: int, other: int) -> Callable[[], None]:
        def service(tx: Any) -> None:
            tx.triggers.lock_due([mine])
            tries.append(mine)
            if len(tries) <= 2:
                both_hold_one.wait()
            tx.triggers.lock_due([other])

        return lambda: world.store.run(service)

    together(crosswise(first, second), crosswise(second, first))
    # One of the two was undone at least once, and both came through: which, and how often, is for the server to say.
    assert len(tries) >= 3


def test_finishing_stays_fast_after_an_analyze_at_an_idle_moment(world: World) -> None:
    world.register()
    world.deploy(*(trigger(f"t{number}", automation=Cron("* * * * *")) for number in range(1_000)))
    for minute in range(1, 4):
        world.step(f"12:0{minute}")
    # Nothing is running: the planner learns that a running run is the rarest thing there is.
    world.sql("ANALYZE")
    taken = world.take(on_time=3_000)
    assert len(taken) == 3_000
    began = time.monotonic()
    for place in range(0, 3_000, 1_000):
        assert world.succeed(*taken[place : place + 1_000]).refused == ()
    took = time.monotonic() - began
    assert world.rows("SELECT phase, count(*) FROM runs GROUP BY phase") == [("SUCCEEDED", 3_000)]
    assert took < 3, f"3,000 runs took {took:.1f} s to finish"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
