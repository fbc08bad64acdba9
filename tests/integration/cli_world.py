"""A folder with settings, manifests and a SQLite database in which something happened, and the command line called there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from scheduler.cli.main import cli
from scheduler.client import Client
from scheduler.clock import Clock
from scheduler.domain.instants import SECOND
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended, finish_runs
from scheduler.services.fire import fire_due
from scheduler.services.plan import Planning
from scheduler.services.take import Execution, describe_runs, take_runs
from scheduler.store.transaction import Store, Transaction
from tests.conftest import ManualClock

SETTINGS = """
executors: {logging: {use: logging}}
"""
REPORTS = """
tasks:
  - name: reports
    version: v1
    environment: {name: accounting}
    description: Sends the reports.
    executor: logging
    inputs: {region: eu}
    triggers:
      - name: nightly
        cron: {expression: "0 2 * * *", timezone: Europe/Paris}
        catchup: {policy: all, max_runs: 2, window: 30d}
      - {name: by-hand, inputs: {reason: asked}}
      - {name: resting, every: 1h, active: false}
"""
BILLING = """
project: flytesnacks
domain: production
tasks:
  - {name: billing, version: v7, executor: logging, triggers: [{name: hourly, cron: "0 * * * *", catchup: {policy: none}}]}
"""


class CliWorld:
    """One installation, seen through its command line; `clock` rules what happens to the database behind its back."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.config = self.write("config/scheduler.yaml", SETTINGS)
        self.url = f"sqlite:///{folder / 'scheduler.db'}"

    def write(self, name: str, text: str) -> Path:
        """A file of this world."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def call(self, *words: str, exits: int = 0) -> Result:
        """What the command line answers; the exit code must be this one."""
        result = CliRunner().invoke(cli, ["--config", str(self.config), *words])
        assert result.exit_code == exits, (result.exit_code, result.stdout, result.stderr, result.exception)
        return result

    def json(self, *words: str) -> Any:
        """The JSON document that a verb prints."""
        return json.loads(self.call(*words, "-o", "json").stdout)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client in this world's time."""
        with Client.open(self.url, clock=self.clock, by="a test", create_projects=True) as client:
            yield client

    @contextmanager
    def store(self, clock: Clock | None = None) -> Iterator[Store]:
        """The database in this world's time, or another: what the command line does, it does at the machine's."""
        store = Store.open(self.url, clock=clock or self.clock)
        yield store
        store.close()

    def deploy(self, *manifests: str) -> None:
        """Deploys these texts at the clock's instant."""
        from scheduler.app import App

        files = [self.write(f"config/tasks/{number}.yaml", text) for number, text in enumerate(manifests)]
        with self.client() as client:
            assert all(
                result.applied for result in client.deploy(App.load(self.config).load_manifests(files).definitions)
            )

    def fire(self) -> None:
        """Decides what is due at the clock's instant."""
        with self.store() as store:
            store.run(fire_due, Planning(), limit=1_000)

    def register(self, name: str) -> None:
        """A worker that declares the executor, alive from the clock's instant for half a minute."""
        with self.store() as store, store.begin() as tx:
            tx.workers.register(f"{name}-1", name, "0.1.0", "zones", ["logging"], 30 * SECOND)

    def execute(self, *ends: tuple[Phase, str | None]) -> None:
        """Executes queued runs, the late ones, oldest first, each for two seconds, with these ends."""
        with self.store() as store:
            self.register("box")
            for phase, error in ends:
                with store.begin() as tx:
                    executions = taken(tx, "box-1", on_time=0, late=1)
                self.clock.advance(2)
                with store.begin() as tx:
                    ended = [Ended(item, phase, error, outputs={"sent": 3}) for item in executions]
                    finish_runs(tx, ended, "box")


def make_history(world: CliWorld) -> None:
    """Five nights missed, of which the two newest are caught up: one fails, one succeeds; and one run on time, queued."""
    world.deploy(REPORTS, BILLING)
    world.clock.set("2026-04-01T12:00:00Z")
    world.fire()
    world.execute((Phase.FAILED, "the printer burns\nTraceback: …"), (Phase.SUCCEEDED, None))


def taken(tx: Transaction, incarnation: str, *, on_time: int, late: int) -> list[Execution]:
    """What a worker takes, at most so many runs of each sort."""
    first, second, *_ = take_runs(tx, incarnation, {"logging": 1_000}, on_time=on_time, late=late)
    runs = [*first, *second]
    specs, keys, names = describe_runs(tx, runs, ())
    return [
        Execution(run, specs[run.spec_digest], *keys[run.task_id], names[run.trigger_id] if run.trigger_id else None)
        for run in runs
    ]
