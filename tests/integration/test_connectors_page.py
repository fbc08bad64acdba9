"""The tutorial of docs/connectors.md does what it says, word for word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import blocks_in

FILES = ("connector.py", "task.py", "run.py")


def follow_the_tutorial(folder: Path, job_seconds: int) -> str:
    """Write the tutorial's files as they stand, but for the length of the job, and run them; returns what they print."""
    found = {block.file: block.text for block in blocks_in("docs/connectors.md", "python") if block.file is not None}
    for name in FILES:
        assert ("elapsed < 10:" in found[name]) == (name == "connector.py")
        (folder / name).write_text(found[name].replace("elapsed < 10:", f"elapsed < {job_seconds}:"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def assert_it_worked(printed: str) -> None:
    submitted, result = printed.splitlines()
    match = re.fullmatch(r"Submitted batch job ([0-9a-f]{8})", submitted)
    assert match is not None
    assert result == f"Task result: {{'result': 'output-from-{match[1]}'}}"


def test_the_tutorial_works_with_a_shorter_job(tmp_path: Path) -> None:
    assert_it_worked(follow_the_tutorial(tmp_path, 1))


@pytest.mark.heavy
def test_the_tutorial_works_to_the_letter(tmp_path: Path) -> None:
    assert_it_worked(follow_the_tutorial(tmp_path, 10))


def test_the_tutorial_needs_nothing_but_this_package() -> None:
    imported = {
        match[1]
        for block in blocks_in("docs/connectors.md", "python")
        if block.file in FILES
        for match in re.finditer(r"^(?:from|import) (\w+)", block.text, re.MULTILINE)
    }
    assert imported - set(sys.stdlib_module_names) == {"executors", "task", "connector"}
