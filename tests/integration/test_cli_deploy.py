"""`scheduler deploy`: what it says it changes, as a dry run and in earnest, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scheduler.clock import SystemClock
from tests.conftest import ManualClock
from tests.integration.cli_world import BILLING, REPORTS, SETTINGS, CliWorld


@pytest.fixture
def empty(tmp_path: Path, clock: ManualClock) -> CliWorld:
    """No database yet."""
    return CliWorld(tmp_path, clock)


CHANGED = (
    REPORTS.replace("0 2 * * *", "0 3 * * *")
    .replace("name: resting", "name: rested")
    .replace("version: v1", "version: v2")
    .replace("region: eu", "region: us")
)


def test_a_deploy_says_what_became_of_every_task_and_trigger(empty: CliWorld) -> None:
    manifest = empty.write("tasks.yaml", REPORTS)
    assert empty.call("deploy", str(manifest)).stdout.splitlines() == [
        "flytesnacks/development/reports v1 created",
        "  + created: nightly, by-hand, resting",
        "1 task: 1 created, 0 changed, 0 unchanged; triggers: 3 created, 0 changed, 0 unchanged, 0 pruned",
    ]
    manifest.write_text(CHANGED)
    *head, heading, first = empty.call("deploy", str(manifest)).stdout.splitlines()[:8]
    assert head == [
        "flytesnacks/development/reports v2 changed",
        "  version: v1 → v2",
        "  inputs.region: eu → us",
        "  + created: rested",
        "  ~ changed: nightly",
        "      cron.expression: 0 2 * * * → 0 3 * * *",
    ]
    assert heading.split() == ["FIRES", "BEFORE", "FIRES", "AFTER"]
    assert [time[:8] for time in first.split() if ":" in time] == ["02:00:00", "03:00:00"]
    assert empty.call("deploy", str(manifest)).stdout.splitlines() == [
        "flytesnacks/development/reports v2 unchanged",
        "1 task: 0 created, 0 changed, 1 unchanged; triggers: 0 created, 0 changed, 3 unchanged, 0 pruned",
    ]


def test_after_the_changed_ones_come_those_that_stay_and_those_that_go(empty: CliWorld) -> None:
    manifest = empty.write("tasks.yaml", REPORTS)
    empty.call("deploy", str(manifest))
    manifest.write_text(CHANGED)
    *_, unchanged, pruned, summary = empty.call("deploy", str(manifest)).stdout.splitlines()
    assert (unchanged, pruned) == ("  = unchanged: by-hand", "  - pruned: resting")
    assert summary == "1 task: 0 created, 1 changed, 0 unchanged; triggers: 1 created, 1 changed, 1 unchanged, 1 pruned"


def test_programs_get_every_field_and_the_next_five_fires(empty: CliWorld) -> None:
    manifest = empty.write("tasks.yaml", REPORTS)
    empty.call("deploy", str(manifest))
    manifest.write_text(CHANGED)
    (told,) = empty.json("deploy", str(manifest), "--dry-run")
    assert list(told) == ["project", "domain", "name", "version", "action", "changes", "triggers"]
    assert (told["name"], told["version"], told["action"]) == ("reports", "v2", "changed")
    assert told["changes"] == [
        {"field": "version", "before": "v1", "after": "v2"},
        {"field": "inputs.region", "before": "eu", "after": "us"},
    ]
    nightly = next(item for item in told["triggers"] if item["name"] == "nightly")
    assert list(nightly) == ["name", "action", "changes", "fires_before", "fires_after"]
    assert nightly["changes"] == [{"field": "cron.expression", "before": "0 2 * * *", "after": "0 3 * * *"}]
    assert (len(nightly["fires_before"]), len(nightly["fires_after"])) == (5, 5)
    assert all(fire.endswith(":00:00Z") for fire in nightly["fires_before"])
    by_name = {item["name"]: item for item in told["triggers"]}
    assert by_name["resting"]["action"] == "pruned"
    assert by_name["by-hand"] == {
        "name": "by-hand",
        "action": "unchanged",
        "changes": [],
        "fires_before": [],
        "fires_after": [],
    }
    assert empty.json("deploy", str(manifest)) == [told]
    empty.call("deploy", str(manifest), "-o", "yaml")
    assert yaml.safe_load(empty.call("deploy", str(manifest), "-o", "yaml").stdout)[0]["action"] == "unchanged"


def test_a_deploy_without_path_takes_the_settings_tasks(empty: CliWorld) -> None:
    empty.write("config/tasks/reports.yaml", REPORTS)
    empty.write("config/tasks/billing.yaml", BILLING)
    assert "2 tasks: 2 created" in empty.call("deploy").stdout
    assert len(empty.json("tasks", "list")) == 2


def test_a_deploy_without_any_manifests_is_a_wrong_call(empty: CliWorld) -> None:
    assert "no manifests" in empty.call("deploy", exits=2).stderr


def test_a_dry_run_says_the_same_and_writes_nothing(empty: CliWorld) -> None:
    manifest = str(empty.write("tasks.yaml", REPORTS))
    without_database = empty.call("deploy", manifest, "--dry-run").stdout
    assert "  + created: nightly, by-hand, resting" in without_database
    assert "dry run, nothing was written: 1 task: 1 created" in without_database
    assert not (empty.folder / "scheduler.db").exists()
    empty.call("deploy", str(empty.write("other.yaml", BILLING)))
    assert empty.call("deploy", manifest, "--dry-run").stdout == without_database
    assert [task["name"] for task in empty.json("tasks", "list")] == ["billing"]


def test_a_fault_in_one_file_deploys_nothing_and_names_every_fault(empty: CliWorld) -> None:
    good = empty.write("good.yaml", REPORTS)
    bad = empty.write("bad.yaml", BILLING.replace("0 * * * *", "61 * * * *").replace("version: v7", "version: 1.10"))
    result = empty.call("deploy", str(good), str(bad), exits=2)
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all("bad.yaml" in line for line in lines)
    assert any("quote it" in line for line in lines)
    assert any("61" in line for line in lines)
    assert result.stdout == ""
    assert not (empty.folder / "scheduler.db").exists()


def test_when_the_database_fails_half_way_what_was_done_is_told(sqlite_url: str, empty: CliWorld) -> None:
    with empty.store() as store, store.begin() as tx:
        tx.connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON triggers WHEN NEW.name = 'refused' "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    tasks = "".join(
        f"  - {{name: {name}, version: v1, executor: logging, triggers: [{{name: {trigger}}}]}}\n"
        for name, trigger in (("a", "fine"), ("b", "refused"), ("c", "fine"))
    )
    manifest = str(empty.write("tasks.yaml", f"tasks:\n{tasks}"))
    result = empty.call("deploy", manifest, "-o", "json", exits=1)
    assert [(task["name"], task["action"]) for task in json.loads(result.stdout)] == [("a", "created")]
    assert "the disk is full" in result.stderr
    assert [task["name"] for task in empty.json("tasks", "list")] == ["a"]
    told = empty.call("deploy", manifest, exits=1).stdout
    assert told == "flytesnacks/development/a v1 unchanged\n"


def test_values_that_would_tear_a_line_are_escaped_and_long_ones_cut(empty: CliWorld) -> None:
    manifest = empty.write("tasks.yaml", REPORTS)
    empty.call("deploy", str(manifest))
    manifest.write_text(REPORTS.replace("region: eu", 'region: "a\\nb\\e[31m", long: ' + "x" * 999))
    lines = empty.call("deploy", str(manifest), "--dry-run").stdout.splitlines()
    assert '  inputs.region: eu → "a\\nb\\u001b[31m"' in lines
    assert max(map(len, lines)) < 300


def test_a_reader_that_leaves_early_does_not_stop_a_deploy(empty: CliWorld) -> None:
    tasks = "\n".join(f"  - {{name: t{number}, version: v1, executor: logging}}" for number in range(60))
    manifest = empty.write("tasks.yaml", f"tasks:\n{tasks}\n")
    command = [sys.executable, "-m", "scheduler", "--config", str(empty.config), "deploy", str(manifest)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "flytesnacks/development/t0 v1 created\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    assert len(empty.json("tasks", "list", "--limit", "1000")) == 60


def test_on_a_terminal_a_bar_shows_how_far_a_deploy_of_many_tasks_is(empty: CliWorld) -> None:
    tasks = "\n".join(f"  - {{name: t{number}, version: v1, executor: logging}}" for number in range(200))
    manifest = empty.write("tasks.yaml", f"tasks:\n{tasks}\n")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "scheduler", "--config", str(empty.config), "deploy", "--dry-run", "-o", "json"]
    command.append(str(manifest))
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=environment) as process:
        os.close(terminal)
        shown = b""
        assert process.stdout is not None
        said = process.stdout.read()
        try:
            while piece := os.read(main, 65_536):
                shown += piece
        except OSError:  # how Linux says that the other side of a terminal is closed
            pass
        assert process.wait(60) == 0
    os.close(main)
    assert "200/200" in shown.decode()
    assert [item["action"] for item in json.loads(said)] == ["created"] * 200


def test_a_deploy_into_a_pipe_has_no_bar(empty: CliWorld) -> None:
    tasks = "\n".join(f"  - {{name: t{number}, version: v1, executor: logging}}" for number in range(250))
    result = empty.call("deploy", "--dry-run", str(empty.write("tasks.yaml", f"tasks:\n{tasks}\n")))
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 251


def test_where_a_terminal_has_no_arrows_they_are_typed(empty: CliWorld) -> None:
    manifest = empty.write("tasks.yaml", REPORTS)
    empty.call("deploy", str(manifest))
    manifest.write_text(REPORTS.replace("version: v1", "version: vé"))
    command = [sys.executable, "-m", "scheduler", "--config", str(empty.config), "deploy", "--dry-run", str(manifest)]
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(command, capture_output=True, text=True, env=plain, timeout=30, check=True)
    assert "  version: v1 -> v\\xe9" in result.stdout.splitlines()


def test_keys_that_are_not_in_force_yet_are_named_on_stderr(empty: CliWorld) -> None:
    empty.config.write_text(SETTINGS + "web: {flyte: true}\n")
    result = empty.call("deploy", str(empty.write("tasks.yaml", REPORTS)))
    assert "warning: web.flyte" in result.stderr
    assert "warning" not in result.stdout


NO_MORE = """
tasks:
  - name: reports
    version: v1
    executor: logging
    triggers:
      - {name: once, at: 2020-01-01T00:00:00Z}
      - {name: ended, cron: "0 2 * * *", end: 2020-01-01T00:00:00Z}
      - {name: nightly, cron: "0 2 * * *"}
"""


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_what_fires_no_more_is_named_on_stderr_and_told_to_programs(empty: CliWorld, options: tuple[str, ...]) -> None:
    manifest = str(empty.write("tasks.yaml", NO_MORE))
    result = empty.call("deploy", manifest, *options)
    place = "warning: flytesnacks/development/reports"
    assert [line for line in result.stderr.splitlines() if line.startswith("warning")] == [
        f"{place}/once fires no more: its only slot, 2020-01-01T00:00:00Z, is past",
        f"{place}/ended fires no more: its end, 2020-01-01T00:00:00Z, is past",
    ]
    assert "warning" not in result.stdout
    (told,) = empty.json("deploy", str(empty.write("tasks.yaml", NO_MORE + "    inputs: {region: eu}\n")), *options)
    assert [item.get("warning") for item in told["triggers"]] == [
        "its only slot, 2020-01-01T00:00:00Z, is past",
        "its end, 2020-01-01T00:00:00Z, is past",
        None,
    ]


def test_the_fires_of_a_new_trigger_begin_after_now(empty: CliWorld) -> None:
    now = SystemClock().now()
    (told,) = empty.json("deploy", str(empty.write("tasks.yaml", REPORTS)), "--dry-run")
    fires = {item["name"]: item["fires_after"] for item in told["triggers"]}
    assert (len(fires["nightly"]), fires["by-hand"], fires["resting"]) == (5, [], [])
    from scheduler.domain.instants import parse_rfc3339

    assert now < parse_rfc3339(fires["nightly"][0]) <= now + 86_400_000_000 + 3_600_000_000
