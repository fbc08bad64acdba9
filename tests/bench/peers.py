"""What the scheduler is measured beside: APScheduler 3 on the same database, and the least a database can be asked to do.

python -m tests.bench.peers [--jobs 3000] [--sqlite]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from scheduler.store.transaction import Store
from tests.bench.scale import databases

A_BATCH = 1_000
_WIDTH = 22

_done = threading.Semaphore(0)


def nothing() -> None:
    """The job: what is left is what a job itself costs."""
    _done.release()


def apscheduler(url: str, jobs: int) -> float:
    """Jobs a second of APScheduler 3 on its SQLAlchemy job store, all due at one instant, each once a day from then on.

    It keeps no record of what ran: the next time of each job is written, and the job called in a thread.
    """
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    store = SQLAlchemyJobStore(engine=_engine(url))
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone=UTC)
    scheduler.start(paused=True)
    due = datetime.now(UTC)
    for _ in range(jobs):
        scheduler.add_job(nothing, "interval", days=1, next_run_time=due, misfire_grace_time=None)
    begun = time.monotonic()
    scheduler.resume()
    for _ in range(jobs):
        _done.acquire()
    # The last job has been called; its next time was written before.
    seconds = time.monotonic() - begun
    scheduler.shutdown()
    return jobs / seconds


def floor(url: str, rows: int) -> float:
    """Rows a second: as wide as a run, a thousand a transaction, by primary key alone, and nothing else done."""
    engine, metadata = _engine(url), sa.MetaData()
    columns = [sa.Column(f"c{number}", sa.BigInteger) for number in range(_WIDTH)]
    table = sa.Table("raw_rows", metadata, sa.Column("name", sa.Text, primary_key=True), *columns)
    metadata.create_all(engine)
    values = {column.name: 1_700_000_000_000_000 for column in columns}
    batches = [
        [{"name": f"trigger-{start + n:09}-20260101t000000", **values} for n in range(A_BATCH)]
        for start in range(0, rows, A_BATCH)
    ]
    begun = time.monotonic()
    for batch in batches:
        with engine.begin() as connection:
            connection.execute(table.insert(), batch)
    seconds = time.monotonic() - begun
    metadata.drop_all(engine)
    engine.dispose()
    return rows / seconds


def _engine(url: str) -> sa.Engine:
    # Its own settings of durability, as everything here is to survive the loss of power.
    store = Store.open(url)
    return store.engine


def main() -> None:
    """Both, in a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--sqlite", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), sqlite=wanted.sqlite) as (one, other):
        print(f"APScheduler 3: {apscheduler(one, wanted.jobs):,.0f} jobs a second")
        print(f"raw batched inserts: {floor(other, 100_000):,.0f} rows a second")


if __name__ == "__main__":
    main()
