"""A worker with code that hangs in every way there is ends by force, and says what hung."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import task

EXECUTOR = """
import asyncio, threading, time
from executors import LoggingExecutor

class Hangs(LoggingExecutor):
    async def close(self):
        threading.Thread(target=time.sleep, args=[300], name="stuck thread").start()
        {how}
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    "how", ["await asyncio.shield(asyncio.sleep(300))", "time.sleep(300)"], ids=["a task", "the loop itself"]
)
def test_a_worker_that_hangs_ends_after_its_grace_and_says_what_hung(
    how: str, new_world: NewWorld, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "hanging.py").write_text(EXECUTOR.format(how=how))
    world = new_world(
        sqlite_url,
        [task("tick", "hangs")],
        worker={"shutdown_grace": "1s"},
        executors={"hangs": {"use": "hanging:Hangs"}},
    )
    with world.worker(PYTHONPATH=str(tmp_path)) as worker:
        worker.until(lambda: world.runs("tick", "SUCCEEDED"), "a run")
        asked = time.monotonic()
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGTERM)
        code = worker.wait(40)
        said = worker.log()
    assert code == 1
    assert time.monotonic() - asked >= 10
    assert "leaving by force: still not stopped" in said
    assert "Hangs.close" in said
    assert "stuck thread" in said
