"""What a store tells its watcher is what the database holds; and what is counted in the database is counted right."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import event

from scheduler.domain.run import Phase
from scheduler.domain.task import TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.errors import NotFound
from scheduler.services.finish import Ended
from scheduler.services.fire import fire_due
from scheduler.services.recover import expire_runs
from scheduler.services.sample import OTHER, Sample, take_sample
from scheduler.store.tally import Tally
from scheduler.store.transaction import Store, Transaction
from tests.integration.worlds import PLENTY, World, instant, key, only, retrying, trigger


class Sum:
    """A watcher that adds up what it is told."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.committed_times: list[float] = []
        self.errors: list[BaseException] = []

    def committed(self, tally: Tally, seconds: float) -> None:
        self.committed_times.append(seconds)
        for field in fields(Tally):
            setattr(self.tally, field.name, getattr(self.tally, field.name) + getattr(tally, field.name))

    def undone(self, error: BaseException, seconds: float) -> None:
        self.errors.append(error)


@pytest.fixture
def counted(world: World) -> Tally:
    """Everything that is done in this world, added up."""
    world.store.watcher = found = Sum()
    world.register()
    return found.tally


# --- what a transaction did ------------------------------------------------------------------------------------------


def test_fires_starts_and_ends_are_counted_once_each(world: World, counted: Tally) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    world.succeed(*world.take())
    world.step("12:02")
    assert counted.inserted == {"scheduled": 4}
    assert Counter((start.executor, start.kind, start.late) for start in counted.started.elements()) == {
        ("logging", "scheduled", False): 2
    }
    assert counted.ended == {("SUCCEEDED", "logging"): 2}


def test_a_fire_that_takes_its_runs_counts_them_as_started(world: World, counted: Tally) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(4)))
    world.at("12:01:02").fire(owner="w1", room=PLENTY, places=3)
    assert counted.inserted == {"scheduled": 4}
    assert [start.lateness for start in counted.started.elements()] == [2_000_000] * 3


def test_lateness_counts_from_the_slot_to_the_first_start_only(world: World, counted: Tally) -> None:
    world.deploy(trigger(), spec=retrying())
    world.step("12:01:03")
    world.fail(only(world.take()))
    world.at("12:30")
    world.fail(only(world.take()))
    world.at("12:31").lose_worker("nobody")
    assert [(start.late, start.lateness) for start in counted.started.elements()] == [(False, 3_000_000), (False, None)]
    assert counted.retried == {"logging": 2}


def test_late_runs_start_late_and_say_so(world: World, counted: Tally) -> None:
    world.deploy(trigger())
    world.step("12:03:30")
    world.take()
    assert sorted((start.late, start.lateness) for start in counted.started.elements()) == [
        (False, 30_000_000),
        (True, 90_000_000),
        (True, 150_000_000),
    ]


def test_a_run_by_hand_has_no_lateness(world: World, counted: Tally) -> None:
    world.deploy(trigger())
    world.client.fire(key())
    world.take()
    assert counted.inserted["manual"] == 1
    assert [(start.kind, start.lateness) for start in counted.started.elements()] == [("manual", None)]


def test_the_same_request_inserts_once(world: World, counted: Tally) -> None:
    world.deploy(trigger())
    assert world.client.fire(key(), request_key="x") == world.client.fire(key(), request_key="x")
    assert counted.inserted["manual"] == 1


def test_skipped_slots_are_counted_by_reason_whoever_skips_them(world: World, counted: Tally) -> None:
    world.deploy(trigger("a"), trigger("b", catchup=CatchUp("none")))
    world.step("12:20:30")
    world.at("12:25:30").client.deactivate(key("a"))
    with world.store.read() as tx:
        stored = tx.ledger.counts_by_reason()
    assert counted.skipped == stored == {"catchup_cap": 9, "catchup_policy": 19, "paused": 5}


def test_a_range_that_is_extended_counts_only_what_it_grew_by(world: World, counted: Tally) -> None:
    world.deploy(trigger(catchup=CatchUp("none")))
    for moment in ("12:10:30", "12:20:30", "12:30:30"):
        world.step(moment)
    with world.store.read() as tx:
        assert counted.skipped == tx.ledger.counts_by_reason()


def test_lost_runs_are_counted_by_what_became_of_them(world: World, counted: Tally) -> None:
    world.deploy(trigger("a"))
    world.deploy(trigger("b"), task="once", spec=TaskSpec("logging", on_lost="fail"))
    world.step("12:01")
    world.take()
    world.lose_worker("w1")
    assert counted.lost == {"QUEUED": 1, "FAILED": 1}
    assert counted.ended == {("FAILED", "logging"): 1}


def test_a_result_that_comes_too_late_is_refused_and_ends_nothing(world: World, counted: Tally) -> None:
    world.deploy(trigger())
    world.step("12:01")
    first = only(world.take("w1"))
    world.lose_worker("w1")
    world.register("w2")
    second = only(world.take("w2"))
    world.succeed(first)
    assert (counted.refused, sum(counted.ended.values())) == (1, 0)
    world.succeed(second)
    assert (counted.refused, counted.ended) == (1, {("SUCCEEDED", "logging"): 1})


def test_runs_that_end_without_an_answer_are_counted_too(world: World, counted: Tally) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.deploy(trigger("c"), task="short", spec=TaskSpec("shell", deadline=timedelta(seconds=30)))
    world.step("12:01")
    world.client.deactivate(key("a"))
    world.client.cancel_run(only(world.runs(trigger="b"))["name"])
    world.at("12:03")
    world.store.run(expire_runs, 100, world.planning)
    assert counted.ended == {("ABORTED", "logging"): 2, ("TIMED_OUT", "shell"): 1}


def test_of_runs_handed_back_only_those_that_are_over_count_as_ended(world: World, counted: Tally) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    first, second = world.take()
    world.client.cancel_run(first.run.name)
    assert world.hand_back("w1", first, second) == 2
    assert counted.ended == {("ABORTED", "logging"): 1}


def test_a_retry_that_meets_a_cancel_counts_as_aborted(world: World, counted: Tally) -> None:
    world.deploy(trigger(), spec=retrying())
    world.step("12:01")
    execution = only(world.take())
    world.client.cancel_run(execution.run.name)
    world.fail(execution)
    assert (counted.retried, counted.ended) == ({}, {("ABORTED", "logging"): 1})


def test_what_is_counted_as_over_is_what_is_over(world: World, counted: Tally) -> None:
    world.deploy(*(trigger(f"t{number}") for number in range(12)), spec=retrying(2))
    world.deploy(trigger("other"), task="shells", spec=TaskSpec("shell"))
    world.step("12:01")
    held = world.take()
    phases = (Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED)
    world.finish(*(Ended(item, phases[index % 4], retryable=index % 3 > 0) for index, item in enumerate(held[:9])))
    world.hand_back("w1", held[9])
    world.client.cancel_runs([run["name"] for run in world.runs(phase="QUEUED")][:2])
    world.lose_worker("w1")
    world.step("12:03")
    final = "phase NOT IN ('QUEUED', 'RUNNING', 'DEFERRED')"
    stored = world.rows(f"SELECT phase, executor, count(*) FROM runs WHERE {final} GROUP BY phase, executor")
    assert counted.ended == {(phase, executor): count for phase, executor, count in stored}
    assert counted.inserted["scheduled"] == len(world.runs())


def test_a_transaction_that_is_undone_counts_nothing_and_is_told_of(world: World, counted: Tally) -> None:
    watcher = world.store.watcher
    assert isinstance(watcher, Sum)

    def fire_and_fail(tx: Transaction) -> None:
        assert fire_due(tx, world.planning, limit=10).runs
        raise NotFound("task", "x")

    world.deploy(trigger())
    world.at("12:01")
    with pytest.raises(NotFound):
        world.store.run(fire_and_fail)
    assert counted.inserted == {}
    assert [type(error) for error in watcher.errors] == [NotFound]
    before = len(watcher.committed_times)
    with world.store.read():
        pass
    assert len(watcher.committed_times) == before + 1
    assert all(seconds > 0 for seconds in watcher.committed_times)


# --- what the database holds -----------------------------------------------------------------------------------------


def sample(store: Store, *executors: str) -> Sample:
    with store.read() as tx:
        return take_sample(tx, executors)


def test_a_sample_shows_what_is_open_what_may_start_and_what_is_due(world: World) -> None:
    world.register()
    world.deploy(*(trigger(f"t{number}") for number in range(3)), spec=retrying())
    world.deploy(trigger("serial", overlap="buffer_all"), task="one")
    world.deploy(trigger("elsewhere"), task="two", spec=TaskSpec("shell"))
    assert sample(world.store, "logging").oldest_due == 0
    world.step("12:03:30")
    first, second, *_ = world.take(late=0)
    world.fail(first)  # Waits for its next attempt.
    world.at("12:05")
    found = sample(world.store, "logging", "http")
    phases = Counter(run["phase"] for run in world.runs())
    assert {phase: count for phase, count in found.open_runs.items() if count} == {
        phase: count for phase, count in phases.items() if phase in ("QUEUED", "RUNNING", "DEFERRED")
    }
    gated = world.rows("SELECT count(*) FROM runs WHERE gated")[0][0]
    assert gated
    assert found.startable["logging", True] == 6
    assert found.startable["http", False] == 0
    assert found.startable[OTHER, False] == 3
    # Three slots a trigger came due at 12:01, 12:02 and 12:03; the next one stands there undecided since 12:04.
    assert found.oldest_due == instant("12:05") - instant("12:04")
    assert second.run.name in {run["name"] for run in world.runs(phase="RUNNING")}


def test_runs_that_wait_for_their_next_attempt_cannot_start_yet(world: World) -> None:
    world.register()
    world.deploy(trigger(), spec=retrying())
    world.step("12:01")
    world.fail(only(world.take()))
    assert sample(world.store, "logging").startable["logging", False] == 0
    world.at("12:03")
    assert sample(world.store, "logging").startable["logging", False] == 1


def test_deferred_runs_are_open(world: World) -> None:
    world.register()
    world.deploy(trigger("a"), trigger("b"))
    world.step("12:01")
    world.sql("UPDATE runs SET phase = 'DEFERRED' WHERE name = (SELECT min(name) FROM runs)")
    assert sample(world.store, "logging").open_runs == {Phase.QUEUED: 1, Phase.RUNNING: 0, Phase.DEFERRED: 1}


def test_an_older_schema_is_seen_and_not_looked_into_a_newer_one_is_borne(world: World) -> None:
    needed = sample(world.store).schema.needed
    assert sample(world.store).schema.bearable
    world.sql("UPDATE alembic_version SET version_num = '9999'")
    assert (sample(world.store).schema.found, sample(world.store).schema.bearable) == ("9999", True)
    world.sql("UPDATE alembic_version SET version_num = '0001'")
    assert not sample(world.store).schema.bearable
    world.sql("DELETE FROM alembic_version")
    assert (sample(world.store).schema.found, sample(world.store).schema.bearable) == (None, False)
    world.sql(f"INSERT INTO alembic_version VALUES ('{needed}')")
    assert sample(world.store).schema.current


def plans(store: Store, *, as_if_full: bool) -> list[str]:
    """How the database carries out each statement of a sample, a line a step."""
    asked: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: object, _x: object, _many: bool) -> None:
        if "runs" in statement or "trigger_due" in statement:
            asked.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    sample(store, "logging", "shell")
    event.remove(store.engine, "before_cursor_execute", note)
    assert len(asked) == 3
    lines: list[str] = []
    with store.engine.connect() as connection:
        cursor = connection.connection.cursor()
        if store.dialect.name == "postgresql" and as_if_full:
            # Of an empty table everything is as cheap: shown is what the planner has to choose from.
            cursor.execute("SET enable_seqscan = off")
            cursor.execute("SET enable_bitmapscan = off")
        for statement, parameters in asked:
            cursor.execute(
                f"EXPLAIN {'' if store.dialect.name == 'postgresql' else 'QUERY PLAN '}{statement}", parameters
            )
            lines += [str(line[-1]) for line in cursor.fetchall()]
        connection.rollback()
    return lines


def test_a_sample_reads_indexes_only(world: World) -> None:
    steps = plans(world.store, as_if_full=True)
    looks = [step for step in steps if " runs" in step or " trigger_due" in step]
    assert looks
    assert not [step for step in looks if "INDEX" not in step and "Index Only Scan" not in step]


MILLION = 1_000_000
FILLED = """
INSERT INTO runs (name, kind, trigger_id, task_id, scheduled_at, version, spec_digest, revision, inputs, executor, gated,
                  phase, priority, not_before, fence, created_at, started_at, finished_at)
SELECT 'nightly-20261121t020000-' || i, 'scheduled', i % 10000, i % 100, {start} + i * {second}, 'v1', '{digest}', 1,
       '{{"region":"eu"}}', 'logging', {false}, '{phase}', 0, {start} + i * {second}, 2, {start} + i * {second},
       {start} + i * {second}, {start} + i * {second}
FROM {numbers}"""


def fill(world: World, first: int, number: int, phase: str) -> None:
    postgres = world.store.dialect.name == "postgresql"
    numbers = f"generate_series({first}::bigint, {first + number - 1}) AS n(i)"
    if not postgres:
        numbers = (
            f"(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first + number - 1}) "
            "SELECT i FROM n) AS n"
        )
    start, false = 1_700_000_000_000_000, "false" if postgres else "0"
    with world.store.engine.begin() as connection:
        connection.connection.cursor().execute(
            FILLED.format(start=start, second=1_000_000, digest="a" * 64, false=false, phase=phase, numbers=numbers)
        )
    if postgres:
        url = world.store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("VACUUM ANALYZE runs")


@pytest.mark.heavy
def test_a_million_runs_of_history_are_not_read_and_a_million_that_wait_are_counted_in_time(world: World) -> None:
    fill(world, 0, MILLION, "SUCCEEDED")
    fill(world, MILLION, 500, "QUEUED")
    steps = plans(world.store, as_if_full=False)
    assert not [step for step in steps if "Seq Scan on runs" in step or step.strip() == "SCAN runs"]
    found = min((sample(world.store, "logging", "shell") for _ in range(5)), key=lambda item: item.seconds)
    assert (found.open_runs[Phase.QUEUED], found.startable["logging", False]) == (500, 500)
    beside_history = found.seconds
    assert beside_history < 0.5

    fill(world, 2 * MILLION, MILLION, "QUEUED")
    found = sample(world.store, "logging", "shell")
    assert (found.open_runs[Phase.QUEUED], found.startable["logging", False]) == (MILLION + 500, MILLION + 500)
    print(f"500 beside a million: {beside_history * 1000:.1f} ms; a million waiting: {found.seconds * 1000:.0f} ms")
    assert found.seconds < 20
