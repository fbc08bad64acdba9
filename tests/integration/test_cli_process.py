"""The command as a process: what it imports, and how it behaves in pipes, on terminals and under Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ManualClock
from tests.integration.cli_world import SETTINGS, CliWorld, make_history

HEAVY = {"aiohttp", "fastapi", "uvicorn", "celery", "flyte", "sqlalchemy", "apscheduler", "executors"}
_LIST_IMPORTS = """
import sys
from scheduler.cli.main import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def scheduler(*words: str) -> list[str]:
    return [sys.executable, "-m", "scheduler", *words]


def modules_after(folder: Path, *words: str) -> set[str]:
    """What a call of the command has imported when it ends."""
    command = [sys.executable, "-c", _LIST_IMPORTS, *words]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    return set(result.stderr.splitlines()[-1].split())


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> CliWorld:
    world = CliWorld(tmp_path, ManualClock("2026-03-27T12:00:00Z"))
    make_history(world)
    return world


@pytest.mark.parametrize("words", [["--help"], ["version"], ["next", "@daily"], ["runs", "--help"]], ids=" ".join)
def test_help_version_and_next_import_no_store_no_web_and_no_executor(tmp_path: Path, words: list[str]) -> None:
    assert not modules_after(tmp_path, *words) & HEAVY


def test_help_imports_no_verb(tmp_path: Path) -> None:
    assert "scheduler.cli.runs" not in modules_after(tmp_path, "--help")


def test_a_listing_imports_no_executor_and_no_web(world: CliWorld) -> None:
    found = modules_after(world.folder, "runs", "list", "-o", "json")
    assert not found & {"aiohttp", "fastapi", "uvicorn", "celery", "flyte"}
    # The contract's values are known to the services; what executes, and what finds it, is not loaded.
    values = {"executors", "executors.protocol", "executors.errors", "executors.waits"}
    assert (
        not {name for name in found if name.startswith("executors")}
        - values
        - {
            "executors.jsonvalue",
            "executors.output",
        }
    )


def test_the_settings_are_found_from_the_current_folder(world: CliWorld) -> None:
    result = subprocess.run(scheduler("tasks", "list"), cwd=world.folder, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
    assert "reports" in result.stdout


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = scheduler("next", "* * * * *", "--count", "20000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith("+00:00\n")
        process.stdout.close()
        assert process.stderr.read() == "Every minute (UTC)\n"
        assert process.wait(30) == 0


def test_ctrl_c_exits_130_without_a_word(tmp_path: Path, clock: ManualClock) -> None:
    world = CliWorld(tmp_path, clock)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        world.config.write_text(SETTINGS + f'database: {{url: "postgresql://me@127.0.0.1:{port}/x?sslmode=disable"}}\n')
        command = scheduler("--config", str(world.config), "runs", "list")
        # The connection is kept open: it waits for a server that never answers, not for one that has gone.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process, silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


def test_names_that_the_encoding_lacks_are_escaped(world: CliWorld) -> None:
    tasks = "tasks: [{name: caf\u00e9, version: v1, executor: logging}]"
    world.deploy(tasks)
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for output, expected in (("table", "caf\\xe9"), ("json", '"caf\\u00e9"')):
        command = scheduler("tasks", "list", "-o", output)
        result = subprocess.run(command, cwd=world.folder, capture_output=True, text=True, env=plain, timeout=30)
        assert (result.returncode, result.stderr) == (0, "")
        assert expected in result.stdout
