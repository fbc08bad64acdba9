"""A worker without descriptors, threads or processes: its trouble, which costs no run an attempt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_to_all(database_url: str) -> Iterator[str]:
    """A database that the worker reaches also while it is nobody: no limit of processes holds for root."""
    if not database_url.startswith("sqlite"):
        yield database_url
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(database_url.removeprefix("sqlite:///"), folder))
        Path(folder).chmod(0o777)
        copy.chmod(0o666)
        yield f"sqlite:///{copy}"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("descriptors", "Too many open files"),
        ("threads", "no thread can be started"),
        ("processes", "Resource temporarily unavailable"),
    ],
)
def test_what_the_worker_lacks_costs_no_run_an_attempt(what: str, said: str, open_to_all: str) -> None:
    command = [sys.executable, "-m", "tests.integration.short_of", open_to_all, what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stdout[-5000:] + done.stderr[-5000:]
    answer: dict[str, Any] = json.loads(lines[0].removeprefix("ANSWER "))
    assert any(said in why for why in answer["lacking"].values()), answer
    assert set(answer["phases"]) <= {"QUEUED", "RUNNING"}
    assert all(run == ["SUCCEEDED", 1, 0, ["SUCCEEDED"]] for run in answer["ended"]), answer
    assert "degraded: the worker lacks what runs need" in done.stdout + done.stderr
    assert "the worker has again what its runs need" in done.stdout + done.stderr
