"""A program with a `Scheduler` ends, in whatever way: its commands are ended and its runs handed back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import Client
from tests.e2e.worlds import eventually

PROGRAM = """
import os, sys, threading, time
from executors.shell import ShellExecutor
from scheduler import FixedRate, Scheduler, Trigger

scheduler = Scheduler(ShellExecutor(), database=sys.argv[1], shutdown_grace="60s")
file = sys.argv[2]
config = {"command": ["sh", "-c", f"echo $$ > {file}.new; mv {file}.new {file}; exec sleep 300"]}
trigger = Trigger(
    project="p", domain="d", task="t", name="n", automation=FixedRate(1, "second"), config=config, overlap="skip"
)

def until_running():
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.02)
"""

PLAIN = PROGRAM + "scheduler.update_schedules([trigger])\nscheduler.start()\nuntil_running()\n"
BLOCK = (
    PROGRAM + "with scheduler:\n    scheduler.update_schedules([trigger])\n    scheduler.start()\n    until_running()\n"
)

ENDS = {
    "waiting": (PLAIN + "scheduler.wait()\n", 2),
    "waiting in a block": (BLOCK + "    scheduler.wait()\n", 2),
    "sleeping in a block": (BLOCK + "    time.sleep(300)\n", 2),
    "impatient": (PLAIN + "scheduler.wait()\n", 5),
    "an error in a block": (BLOCK + "    raise ValueError\n", 2),
    "sys.exit": (PLAIN + "sys.exit(3)\n", 0),
    "an error": (PLAIN + "raise ValueError\n", 0),
    "the end of the file": (PLAIN, 0),
    "sys.exit in another thread": (PLAIN + "threading.Thread(target=sys.exit, args=[3]).start()\n", 0),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("source", "signals"), ENDS.values(), ids=ENDS)
def test_no_end_of_a_program_leaves_a_run_or_a_command_behind(
    source: str, signals: int, name: signal.Signals, sqlite_url: str, tmp_path: Path
) -> None:
    if not signals and name is signal.SIGTERM:
        pytest.skip("no signal is sent")
    pid_file, script, log = tmp_path / "pid", tmp_path / "program.py", tmp_path / "log"
    script.write_text(source)
    with log.open("w") as said:
        program = subprocess.Popen([sys.executable, str(script), sqlite_url, str(pid_file)], stdout=said, stderr=said)
    try:
        eventually(lambda: pid_file.exists() or program.poll() is not None, "the command runs", within=30)
        child = int(pid_file.read_text())
        for _ in range(signals):
            if program.poll() is None:
                program.send_signal(name)
                try:
                    program.wait(0.7)
                except subprocess.TimeoutExpired:
                    continue
        program.wait(20)
    finally:
        program.kill()
        program.wait()

    eventually(lambda: not os.path.exists(f"/proc/{child}"), "the command has ended", within=2)
    with Client.open(sqlite_url) as client:
        runs = client.list_runs()
        assert [(run["phase"], run["lost"]) for run in runs] == [("QUEUED", 0)], log.read_text()
        assert client.list_workers() == []
