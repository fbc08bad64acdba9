"""A database that refuses for a while: whatever it says, no trigger is blamed, no loop ends, and all slots fire afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from scheduler.domain.instants import SECOND
from scheduler.errors import StatementRefused, StoreError, StoreUnavailable
from scheduler.loop import worker as worker_module
from scheduler.loop.worker import Worker, WorkerOptions
from scheduler.store.failures import translate
from scheduler.store.retries import interval
from scheduler.store.transaction import Store, Transaction
from tests.conftest import ManualClock
from tests.integration.worlds import World, trigger

# By class, with the state that people met. What waits: everything that is not the statement's own fault.
PASSING = {
    "08006": "connection failure",
    "0B000": "invalid transaction initiation",
    "25006": "read only: a standby, a failover",
    "25P04": "transaction_timeout",
    "26000": "a prepared statement is gone",
    "28000": "the role is not let in",
    "3D000": "the database is gone",
    "3F000": "the schema is gone",
    "42501": "privileges were revoked",
    "42P01": "a table is gone",
    "42703": "a column is gone",
    "42883": "a function is gone",
    "42P05": "a pooler's prepared statement",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "53400": "configuration limit exceeded",
    "55006": "object in use",
    "55P03": "lock_timeout",
    "57014": "statement_timeout, or a cancelled statement",
    "57P01": "admin shutdown",
    "57P03": "starting up",
    "58030": "i/o error",
    "58P01": "undefined file",
    "72000": "snapshot too old",
    "F0000": "configuration file error",
    "XX000": "internal error",
    "XX001": "data corrupted",
    "ZZ999": "a state that nobody knows",
}
REFUSED = ("22001", "22P02", "23502", "23505", "23514", "42601", "42804", "54000", "P0001")


@contextmanager
def refusing(url: str, state: str) -> Iterator[None]:
    """Every run that is inserted fails with this SQLSTATE meanwhile."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'refused as %', '{state}' USING ERRCODE = '{state}'; END $$"
        )
        admin.execute("CREATE TRIGGER refuse BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION refuse()")
        try:
            yield
        finally:
            admin.execute("DROP TRIGGER refuse ON runs")
            admin.execute("DROP FUNCTION refuse")


@pytest.fixture
def world(postgres_url: str, clock: ManualClock) -> Iterator[World]:
    store = Store.open(postgres_url, clock=clock)
    yield World(store, clock)
    store.close()


_STILL_DUE = "SELECT 1 FROM trigger_due d JOIN triggers t ON t.id = d.trigger_id WHERE d.last_slot IS NULL"


def meanwhile(world: World, trouble: Callable[[Worker], Awaitable[None]]) -> list[str]:
    """Lets a worker fire whatever is due while the database is in trouble, and afterwards; returns what it logged."""

    async def scene() -> None:
        worker = Worker(world.store, {}, WorkerOptions(), prepare=lambda executor, execution: None)
        worker.beats.start()
        firing = asyncio.create_task(worker._kept_going("firing", worker.firing.run_forever))
        worker.firing.bell.ring()
        try:
            await trouble(worker)
            async with asyncio.timeout(20):
                while worker.transactions.degraded_since is not None or world.rows(_STILL_DUE):
                    await asyncio.sleep(0.01)
            assert not firing.done()
        finally:
            firing.cancel()
            worker.beats.stop()
            worker.transactions.close()

    with capture_logs() as logs:
        asyncio.run(scene())
    return [line["event"] for line in logs]


async def degraded(worker: Worker) -> None:
    async with asyncio.timeout(20):
        while worker.transactions.degraded_since is None:
            await asyncio.sleep(0.005)


@pytest.mark.postgres
@pytest.mark.parametrize("state", PASSING)
def test_what_passes_is_waited_for_and_no_trigger_is_set_aside(state: str, world: World, postgres_url: str) -> None:
    world.deploy(trigger("a"), trigger("b"), trigger("c"))
    world.at("12:01")

    async def trouble(worker: Worker) -> None:
        with refusing(postgres_url, state):
            await degraded(worker)
            assert f"refused as {state}" in worker.transactions.trouble

    events = meanwhile(world, trouble)
    assert [world.ledger(name) for name in "abc"] == [["12:01"]] * 3
    assert {world.trigger(name)["state"] for name in "abc"} == {"scheduled"}
    assert [event for event in events if "set aside" in event] == []
    assert events.count("degraded: the database is away, trying again") == 1
    assert events.count("the database is back") == 1


@pytest.mark.postgres
@pytest.mark.parametrize("state", REFUSED)
def test_a_statement_that_fails_for_every_trigger_blames_none(
    state: str, world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "_CALM_SECONDS", 0.2)
    world.deploy(trigger("a"), trigger("b"), trigger("c"))
    world.at("12:01")

    async def trouble(worker: Worker) -> None:
        with refusing(postgres_url, state):
            await degraded(worker)

    events = meanwhile(world, trouble)
    assert [world.ledger(name) for name in "abc"] == [["12:01"]] * 3
    assert {world.trigger(name)["state"] for name in "abc"} == {"scheduled"}
    assert "a loop begins again: the database refused what it asked" in events


@pytest.mark.postgres
@pytest.mark.parametrize("state", ["40001", "40P01", "40003"])
def test_what_was_undone_is_run_again_at_once(state: str, world: World, postgres_url: str) -> None:
    tries = []

    def service(tx: Transaction) -> str:
        tries.append(1)
        if len(tries) == 1:
            tx.connection.exec_driver_sql(f"DO $$ BEGIN RAISE USING ERRCODE = '{state}'; END $$")
        return "done"

    assert world.store.run(service) == "done"
    assert len(tries) == 2


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "kind"), [*((s, StoreUnavailable) for s in PASSING), *((s, StatementRefused) for s in REFUSED)]
)
def test_every_error_of_the_database_is_one_of_ours(state: str, kind: type[Exception], world: World) -> None:
    with pytest.raises(kind, match="it said so"), world.store.begin() as tx:
        tx.connection.exec_driver_sql(f"DO $$ BEGIN RAISE 'it said so' USING ERRCODE = '{state}'; END $$")


@pytest.mark.postgres
def test_privileges_that_are_revoked_for_a_while_cost_nothing(world: World, postgres_url: str) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:01")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS poor")
        admin.execute("CREATE ROLE poor LOGIN")
        admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO poor")
        admin.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO poor")
        admin.execute("REVOKE INSERT ON runs FROM poor")
        poor = Store.open(postgres_url.replace("postgres:", "poor:").replace("postgres@", "poor@"), clock=world.clock)
        theirs = World(poor, world.clock)

        async def trouble(worker: Worker) -> None:
            await degraded(worker)
            assert "the database role lacks a right: permission denied for table runs" in worker.transactions.trouble
            admin.execute("GRANT INSERT ON runs TO poor")

        try:
            meanwhile(theirs, trouble)
        finally:
            poor.close()
            admin.execute("DROP OWNED BY poor")
            admin.execute("DROP ROLE poor")
    assert [world.ledger(name) for name in "ab"] == [["12:01"]] * 2


@pytest.mark.postgres
def test_a_statement_that_somebody_cancels_is_asked_again(world: World, postgres_url: str) -> None:
    world.deploy(trigger("a"))
    world.at("12:01")
    with psycopg.connect(postgres_url, autocommit=True) as admin, psycopg.connect(postgres_url) as holder:
        holder.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")

        async def trouble(worker: Worker) -> None:
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            async with asyncio.timeout(20):
                while (found := admin.execute(waiting).fetchone()) is None:
                    await asyncio.sleep(0.01)
                admin.execute("SELECT pg_cancel_backend(%s)", found)
            await degraded(worker)
            assert "the statement was cancelled" in worker.transactions.trouble
            holder.rollback()

        meanwhile(world, trouble)
    assert world.ledger("a") == ["12:01"]


# --- one trigger alone -----------------------------------------------------------------------------------------------


def spoil_one(world: World, name: str) -> str:
    """Runs of this trigger are refused by the database, those of others are not; the statement mends it."""
    number = world.rows(f"SELECT id FROM triggers WHERE name = '{name}'")[0][0]
    return spoil(world, f"NEW.trigger_id = {number}")


def spoil(world: World, condition: str) -> str:
    if world.store.dialect.name == "postgresql":
        world.sql(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {condition} THEN RAISE EXCEPTION 'no such run' USING ERRCODE = '23514'; END IF; "
            "RETURN NEW; END $$"
        )
        world.sql("CREATE TRIGGER spoil BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION spoil()")
        return "DROP TRIGGER spoil ON runs"
    world.sql(
        f"CREATE TRIGGER spoil BEFORE INSERT ON runs WHEN {condition} BEGIN SELECT RAISE(ABORT, 'no such run'); END"
    )
    return "DROP TRIGGER spoil"


def test_who_alone_fails_is_set_aside_and_tried_again_at_growing_intervals(store: Store, clock: ManualClock) -> None:
    world = World(store, clock)
    world.deploy(trigger("bad"), trigger("good"))
    mend = spoil_one(world, "bad")
    world.at("12:01")
    look(world)
    assert (world.ledger("good"), world.trigger("bad")["state"]) == (["12:01"], "quarantined")
    assert "the database refused a statement" in world.trigger("bad")["error"]
    tried = []
    for _ in range(40):
        clock.advance(30)
        before = world.rows("SELECT retries FROM trigger_retries")[0][0]
        look(world)
        if world.rows("SELECT retries FROM trigger_retries")[0][0] > before:
            tried.append(clock.now())
    assert [round((b - a) / SECOND) for a, b in pairwise(tried)] == [120, 240, 480]
    assert world.trigger("bad")["state"] == "quarantined"
    world.sql(mend)
    clock.advance(3_600)
    look(world)
    assert world.trigger("bad")["state"] == "scheduled"
    # It owed everything since, and catch-up decided.
    assert len(world.ledger("bad")) > 3


def test_several_that_cannot_be_planned_keep_nobody_from_firing(store: Store, clock: ManualClock) -> None:
    world = World(store, clock)
    world.deploy(trigger("bad"), trigger("worse"), trigger("good"))
    spoil(world, "NEW.trigger_id IN (SELECT id FROM triggers WHERE name IN ('bad', 'worse'))")
    world.at("12:01:10")
    # What is due is fired under the old plan, which the database refuses for both.
    world.sql("UPDATE triggers SET jitter = 1000000 WHERE name <> 'good'")
    look(world)
    assert world.ledger("good") == ["12:01"]
    assert {world.trigger(name)["state"] for name in ("bad", "worse")} == {"quarantined"}


def test_intervals_double_up_to_an_hour() -> None:
    minutes = [interval(retries) // (60 * SECOND) for retries in (0, 1, 2, 5, 6, 100)]
    assert minutes == [1, 2, 4, 32, 60, 60]


def test_triggers_that_were_set_aside_by_a_release_before_are_tried_once_more(store: Store, clock: ManualClock) -> None:
    world = World(store, clock)
    world.deploy(trigger("a"), trigger("b"))
    world.at("12:01")
    world.sql("UPDATE triggers SET error = 'OperationalError: canceling statement', error_fingerprint = '/'")
    world.sql("UPDATE trigger_due SET due_at = NULL")
    world.sql("INSERT INTO trigger_retries (trigger_id, retry_at, retries) SELECT id, 0, 0 FROM triggers")
    look(world)
    assert {world.trigger(name)["state"] for name in "ab"} == {"scheduled"}
    assert [world.ledger(name) for name in "ab"] == [["12:01"]] * 2


def look(world: World) -> None:
    """One look of a worker at everything."""

    async def once() -> None:
        worker = Worker(world.store, {}, WorkerOptions(), prepare=lambda executor, execution: None)
        worker.beats.start()
        try:
            worker.firing.look_around()
            await worker.firing.run_once()
        finally:
            worker.beats.stop()
            worker.transactions.close()

    asyncio.run(once())


# --- SQLite ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_file(sqlite_url: str, clock: ManualClock) -> Iterator[World]:
    store = Store.open(sqlite_url, clock=clock)
    yield World(store, clock)
    store.close()


def test_a_full_disk_is_waited_for(on_file: World) -> None:
    world, pages = on_file, 1_000_000
    names = [f"t{number}" for number in range(50)]
    world.deploy(*map(trigger, names))
    world.sql("CREATE TABLE ballast (filling BLOB)")
    # SQLite counts pages as a disk counts blocks, for each connection.
    event.listen(
        world.store.engine, "checkout", lambda connection, *_: connection.execute(f"PRAGMA max_page_count = {pages}")
    )
    pages = world.rows("PRAGMA page_count")[0][0]

    def fill() -> None:
        while True:
            with world.store.begin() as tx:
                tx.connection.exec_driver_sql("INSERT INTO ballast VALUES (randomblob(200))")

    with pytest.raises(StoreUnavailable, match="the database's disk is full"):
        fill()
    world.at("12:01")

    async def trouble(worker: Worker) -> None:
        nonlocal pages
        await degraded(worker)
        assert "the database's disk is full" in worker.transactions.trouble
        pages = 1_000_000

    events = meanwhile(world, trouble)
    assert [world.ledger(name) for name in names] == [["12:01"]] * 50
    assert [event for event in events if "set aside" in event] == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT, StoreUnavailable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_NOTADB, StoreError),
        (sqlite3.SQLITE_CONSTRAINT_CHECK, StatementRefused),
        (sqlite3.SQLITE_MISMATCH, StatementRefused),
        (sqlite3.SQLITE_TOOBIG, StatementRefused),
    ],
)
def test_sqlites_result_codes_are_classed_alike(code: int, kind: type[Exception]) -> None:
    original = sqlite3.OperationalError("it said so")
    original.sqlite_errorcode = code
    found = translate(DBAPIError("SELECT", {}, original))
    assert type(found) is kind
