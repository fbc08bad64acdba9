"""Seeded worlds in which slots are fired, skipped, filled, done again and forgotten in any order: the ledger stays whole."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from scheduler.domain.automation import Cron
from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.domain.trigger import CatchUp
from scheduler.services.finish import Ended
from scheduler.services.retain import RetentionRules, retain
from scheduler.store.transaction import Store
from tests.conftest import BOTH, ManualClock
from tests.integration.test_backfill import advance
from tests.integration.worlds import HOUR, MINUTE, World, instant, key, trigger

HOURLY = Cron("0 * * * *")
DEPLOYED = instant("12:00")
EARLIEST = DEPLOYED - 30 * HOUR
STEPS = ["time"] * 2 + ["fire"] * 3 + ["work", "backfill", "steps", "forget"] * 2 + ["cancel", "pause"]


class History:
    """One world, what was seen of it so far, and what must hold after every step."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.covered: set[Micros] = set()
        self.ran: set[Micros] = set()
        self.names: set[str] = set()
        self.gone: set[str] = set()
        policy = self.dice.choice(["all", "latest", "none", "gap"])
        catchup = CatchUp(policy, max_runs=self.dice.choice([0, 1, 3]))
        overlap = self.dice.choice(["allow_all", "skip", "buffer_one"])
        world.deploy(trigger("nightly", HOURLY, catchup=catchup, overlap=overlap))
        world.register()

    def step(self) -> None:
        """One thing that people, workers or time do."""
        dice, world = self.dice, self.world
        match dice.choice(STEPS):
            case "time":
                world.clock.advance(dice.choice([60, 3_600, 7_200, 30_000]))
            case "fire":
                world.step()
            case "work":
                self.work(dice.randrange(1, 6))
            case "backfill":
                self.order()
            case "steps":
                advance(world)
            case "cancel":
                if numbers := [row["backfill"] for row in world.client.list_backfills() if row["state"] == "running"]:
                    world.client.cancel_backfill(dice.choice(numbers))
            case "forget":
                self.forget()
            case "pause":
                (world.client.deactivate if world.trigger()["active"] else world.client.activate)(key())
        self.check()

    def work(self, most: int) -> None:
        for execution in self.world.take(on_time=most, late=most):
            phase = self.dice.choice([Phase.SUCCEEDED, Phase.SUCCEEDED, Phase.FAILED])
            self.world.finish(Ended(execution, phase, error="it broke", retryable=False))

    def order(self) -> None:
        dice, now = self.dice, self.world.clock.now()
        start = dice.randrange(EARLIEST, now, 20 * MINUTE)
        self.world.client.backfill(
            key(),
            start,
            dice.choice([None, start + dice.randrange(40) * HOUR]),
            reprocess=dice.choice(["none", "none", "failed", "all"]),
            max_active=dice.choice([1, 3, 100]),
            reverse=dice.random() < 0.5,
        )

    def forget(self) -> None:
        rules = RetentionRules(self.dice.choice([1, HOUR, 20 * HOUR]), self.dice.choice([0, 2, 10]))
        self.world.sql("DELETE FROM meta WHERE key = 'retention'")
        for _ in range(self.dice.choice([2, 50])):
            done = self.world.store.run(retain, rules, self.dice.choice([1, 3, 1_000]))
            if done is None or done.ended:
                return

    def check(self) -> None:
        """Every slot has one entry at most, keeps it, and is never given its own run a second time."""
        entries: Counter[Micros] = Counter()
        forgotten: set[Micros] = set()
        for entry in self.world.client.list_slots(key(), 10_000):
            if entry["kind"] == "run":
                entries[entry["scheduled_at"]] += 1
                continue
            slots = range(entry["from"], entry["to"] + 1, HOUR)
            assert len(slots) == entry["count"], entry
            entries.update(slots)
            forgotten.update(slots if entry["kind"] == "pruned" else ())
        assert set(entries.values()) <= {1}, [slot for slot, count in entries.items() if count > 1]
        assert self.covered <= set(entries), "a slot lost its entry"
        self.covered = set(entries)
        runs = self.world.rows("SELECT name, scheduled_at, phase FROM runs")
        names, slots = {row[0] for row in runs}, {row[1] for row in runs}
        assert not names & self.gone, "a name was used again"
        self.gone |= self.names - names
        self.names = names
        self.ran |= slots
        assert self.ran <= slots | forgotten, "a slot that had a run looks as if it never had"
        assert not forgotten & slots, "a forgotten slot has a run"
        assert forgotten <= self.ran

    def settle(self) -> None:
        """Everybody finishes what was begun."""
        for row in self.world.client.list_backfills(limit=1_000):
            if row["state"] == "running":
                self.world.client.cancel_backfill(row["backfill"])
        for _ in range(100):
            self.world.step()
            advance(self.world)
            self.work(1_000)
            if not [run for run in self.world.runs() if run["phase"] in ("QUEUED", "RUNNING")]:
                break
        advance(self.world)
        self.check()
        assert {row["state"] for row in self.world.client.list_backfills(limit=1_000)} <= {"done", "cancelled"}
        assert not [run for run in self.world.runs() if run["phase"] in ("QUEUED", "RUNNING")]


def play(url: str, seed: int, steps: int) -> None:
    store = Store.open(url, clock=(clock := ManualClock(DEPLOYED)))
    try:
        history = History(World(store, clock), seed)
        for _ in range(steps):
            history.step()
        history.settle()
    finally:
        store.close()


@pytest.mark.parametrize("seed", range(2))
def test_the_ledger_stays_whole(database_url: str, seed: int) -> None:
    play(database_url, seed, 40)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", BOTH)
def test_the_ledger_stays_whole_for_long(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    for seed in range(1_000, 1_060):
        world = Store.open(url)
        with world.engine.begin() as connection:
            for table in ("backfills", "attempts", "runs", "skips", "triggers", "task_versions", "tasks", "workers"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        world.close()
        try:
            play(url, seed, 150)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
