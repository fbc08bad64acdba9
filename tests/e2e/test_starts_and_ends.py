"""Signals and closed descriptors in a worker's first moments."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import NewWorld
from tests.e2e.worlds import eventually, scheduler_command, ticking

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for the signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_handles_signals_before_it_loads_anything_large(
    number: signal.Signals, new_world: NewWorld, sqlite_url: str
) -> None:
    world = new_world(sqlite_url, [ticking()])
    with world.worker() as worker:
        # Python itself handles SIGINT from its start on: SIGHUP comes last of the three.
        eventually(lambda: handles(worker.pid, signal.SIGHUP), "the handlers stand", every=0.001)
        loaded = Path(f"/proc/{worker.pid}/maps").read_text()
        assert worker.stop(number=number) == 0
        assert "Traceback" not in worker.log()
    assert "pydantic" not in loaded


@pytest.mark.heavy
@pytest.mark.parametrize("delay", [0.2, 0.4, 0.6, 0.8, 1.0, 1.5])
def test_process_1_ends_in_order_whenever_it_is_told_to(delay: float, new_world: NewWorld, sqlite_url: str) -> None:
    space = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("no process may have a process space of its own here")
    world = new_world(sqlite_url, [ticking()])
    outer = subprocess.Popen(
        [*space, *scheduler_command(world.config, "serve")], stderr=subprocess.PIPE, text=True, env=world.environment()
    )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        first = int(eventually(children.read_text, "process 1 is there", every=0.001))
        eventually(lambda: handles(first, signal.SIGTERM), "the handlers stand", every=0.001)
        time.sleep(delay - 0.2)
        os.kill(first, signal.SIGTERM)
        said = outer.communicate(timeout=20)[1]
    finally:
        outer.kill()
        outer.wait()
    assert outer.returncode == 0, said
    assert "Traceback" not in said


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_a_worker_works_whose_standard_streams_are_closed(closed: str, new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking()])
    shut = " ".join(f"{digit}>&-" for digit in closed)
    command = ["sh", "-c", f'exec "$@" {shut}', "sh", *scheduler_command(world.config, "serve")]
    worker = subprocess.Popen(command, env=world.environment())
    try:
        world.until(lambda: len(world.runs("tick", "SUCCEEDED")) >= 2, "two runs")
        for digit in closed:
            assert os.readlink(f"/proc/{worker.pid}/fd/{digit}") == "/dev/null"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize(
    "words", [["runs", "list", "-o", "json"], ["tasks", "list", "-o", "json"], ["--help"], ["version"]], ids=" ".join
)
def test_a_result_that_cannot_be_written_is_said_in_one_line(
    words: list[str], new_world: NewWorld, sqlite_url: str
) -> None:
    world = new_world(sqlite_url, [ticking()])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            scheduler_command(world.config, *words),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=world.environment(),
        )
    assert (done.returncode, done.stderr) == (1, "cannot write the result: No space left on device\n")


@pytest.mark.parametrize("remarks", ["2>&-", "2>/dev/full"])
def test_remarks_that_cannot_be_written_are_no_error(remarks: str, new_world: NewWorld, sqlite_url: str) -> None:
    world = new_world(sqlite_url, [ticking()])
    command = ["sh", "-c", f'exec "$@" {remarks}', "sh", *scheduler_command(world.config, "runs", "list")]
    done = subprocess.run(command, capture_output=True, env=world.environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
