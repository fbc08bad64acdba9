"""`scheduler export`: to standard output, into a file, into a folder; and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scheduler.domain.task import TaskDefinition, TaskSpec
from tests.conftest import ManualClock
from tests.integration.cli_world import BILLING, REPORTS, SETTINGS, CliWorld

HOLIDAYS = """
tasks:
  - {name: rests, version: v1, executor: logging, triggers: [{name: daily, cron: "@daily", calendars: [holidays]}]}
calendars: {holidays: {dates: [2026-12-25], policy: next}}
"""


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path, clock: ManualClock) -> CliWorld:
    """Two projects' domains, a calendar, three tasks."""
    world = CliWorld(tmp_path, clock)
    world.deploy(REPORTS, BILLING, HOLIDAYS)
    return world


def said(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_export_reads_like_a_manifest_that_someone_wrote(world: CliWorld) -> None:
    assert world.call("export", "--task", "reports").stdout == (
        """\
project: flytesnacks
domain: development
tasks:
- name: reports
  version: v1
  environment: {name: accounting}
  description: Sends the reports.
  executor: logging
  inputs: {region: eu}
  triggers:
  - name: nightly
    cron: {expression: 0 2 * * *, timezone: Europe/Paris}
    catchup: {window: 30d, max_runs: 2}
  - name: by-hand
    inputs: {reason: asked}
  - name: resting
    fixed_rate: {value: 1, unit: hour}
    active: false
"""
    )


def test_a_folder_gets_a_file_a_task_and_one_of_calendars_that_change_nothing(world: CliWorld, tmp_path: Path) -> None:
    result = world.call("export", "-o", str(tmp_path / "out"))
    assert result.stdout == f"exported 3 tasks with 5 triggers to {tmp_path / 'out'}\n"
    files = said(tmp_path / "out")
    assert list(files) == [
        "calendars.yaml",
        "flytesnacks.development.reports.yaml",
        "flytesnacks.development.rests.yaml",
        "flytesnacks.production.billing.yaml",
    ]
    told = world.call("deploy", str(tmp_path / "out"), "--dry-run").stdout.splitlines()
    assert told[-1].endswith(
        "3 tasks: 0 created, 0 changed, 3 unchanged; triggers: 0 created, 0 changed, 5 unchanged, 0 pruned"
    )
    assert "3 unchanged" in world.call("deploy", str(tmp_path / "out")).stdout
    # Elsewhere they make the same, and are exported as the very same files.
    elsewhere = CliWorld(tmp_path / "elsewhere", world.clock)
    elsewhere.config.write_text(SETTINGS + "defaults: {timezone: Asia/Tokyo}\n")
    assert "3 created" in elsewhere.call("deploy", str(tmp_path / "out")).stdout
    elsewhere.call("export", "-o", str(tmp_path / "again"))
    assert said(tmp_path / "again") == files


def test_a_file_holds_one_domain(world: CliWorld, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "development.yaml"
    world.call("export", "--domain", "development", "-o", str(file))
    assert yaml.safe_load(file.read_text())["calendars"] == {"holidays": {"dates": ["2026-12-25"], "policy": "next"}}
    assert "2 unchanged" in world.call("deploy", str(file), "--dry-run").stdout
    for words in ([], ["-o", str(tmp_path / "all.yaml")], ["-o", "-"]):
        result = world.call("export", *words, exits=2)
        assert "--project flytesnacks --domain production" in result.stderr
        assert result.stdout == ""
    assert not (tmp_path / "all.yaml").exists()


def test_an_export_over_a_former_one_replaces_it_and_names_what_is_left_from_before(
    world: CliWorld, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    world.call("export", "-o", str(out))
    world.call("export", "-o", f"{out}/")
    (out / "old.yaml").write_text("tasks: []\n")
    (out / "readme.txt").write_text("not a manifest\n")
    result = world.call("export", "-o", str(out))
    assert result.stderr == f"note: {out / 'old.yaml'} was there before and is not part of this export\n"
    assert len(said(out)) == 6
    assert not [name for name in said(out) if name.startswith(".")]


def test_what_happened_since_the_deploy_is_told_on_stderr_only(world: CliWorld) -> None:
    before = world.call("export", "--task", "reports").stdout
    world.call("triggers", "deactivate", "reports/nightly")
    result = world.call("export", "--task", "reports")
    assert result.stdout == before
    assert result.stderr == (
        "note: flytesnacks/development/reports/nightly is inactive now, and exported as deployed: active: true\n"
    )


def test_what_a_manifest_cannot_say_is_left_out_and_the_exit_code_says_so(world: CliWorld) -> None:
    spec = TaskSpec("logging", max_concurrent_runs=2_000_000)
    with world.client() as client:
        list(client.deploy([TaskDefinition("flytesnacks", "development", "endless", "v1", spec)], source="api"))
    result = world.call("export", "--domain", "development", exits=1)
    assert [task["name"] for task in yaml.safe_load(result.stdout)["tasks"]] == ["reports", "rests"]
    assert result.stderr.startswith("left out: flytesnacks/development/endless: tasks[0].max_concurrent_runs")


def test_what_does_not_exist_and_what_holds_nothing(world: CliWorld, tmp_path: Path, clock: ManualClock) -> None:
    assert "task 'nothing' does not exist" in world.call("export", "--task", "nothing", exits=4).stderr
    result = world.call("export", "--project", "other", "-o", str(tmp_path / "none"))
    assert (result.stdout, result.stderr) == ("", "nothing to export\n")
    assert not (tmp_path / "none").exists()
    nowhere = CliWorld(tmp_path / "nowhere", clock)
    assert "there is no database yet" in nowhere.call("export", exits=1).stderr


def test_a_format_where_a_path_belongs_is_refused(world: CliWorld) -> None:
    assert "write -o ./json" in world.call("export", "-o", "json", exits=2).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed_is_a_wrong_call(world: CliWorld, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written" in world.call("export", "-o", str(tmp_path / "closed"), exits=2).stderr


def test_a_path_below_a_file_is_a_wrong_call_and_leaves_nothing(world: CliWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = world.call("export", "-o", str(tmp_path / "file" / "out"), exits=2)
    assert "cannot be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    result = world.call("export", "-o", str(tmp_path / "file"), exits=2)
    assert "cannot be written" in result.stderr


def test_a_terminal_without_unicode_gets_escapes_that_read_the_same(world: CliWorld) -> None:
    world.deploy("tasks: [{name: caf\u00e9, version: v1, executor: logging, inputs: {a: \U0001f389}}]")
    command = [sys.executable, "-m", "scheduler", "export", "--task", "caf\u00e9"]
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(
        command, cwd=world.folder, capture_output=True, text=True, env=plain, timeout=30, check=True
    )
    (task,) = yaml.safe_load(result.stdout)["tasks"]
    assert (task["name"], task["inputs"]) == ("caf\u00e9", {"a": "\U0001f389"})
