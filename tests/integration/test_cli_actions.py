"""What the verbs that act do, and say they did: activate, deactivate, fire, upgrade; and the settings' verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import ManualClock
from tests.integration.cli_world import BILLING, REPORTS, SETTINGS, CliWorld


@pytest.fixture
def empty(tmp_path: Path, clock: ManualClock) -> CliWorld:
    """No database yet."""
    return CliWorld(tmp_path, clock)


@pytest.fixture
def world(sqlite_url: str, empty: CliWorld) -> CliWorld:
    """The reports are deployed."""
    empty.deploy(REPORTS)
    return empty


def test_triggers_are_deactivated_and_activated_once(world: CliWorld) -> None:
    nightly = "flytesnacks/development/reports/nightly"
    assert world.call("triggers", "deactivate", "reports/nightly").stdout == f"deactivated {nightly}\n"
    assert world.call("triggers", "deactivate", nightly).stdout == f"already inactive {nightly}\n"
    assert world.json("triggers", "show", "reports/nightly")["active"] is False
    assert world.call("triggers", "activate", "reports/nightly").stdout == f"activated {nightly}\n"
    assert world.call("triggers", "activate", "reports/nightly").stdout == f"already active {nightly}\n"
    assert world.json("triggers", "show", "reports/nightly")["state"] == "scheduled"


def test_of_several_triggers_those_that_exist_are_done_and_the_others_named(world: CliWorld) -> None:
    result = world.call("triggers", "deactivate", "reports/nothing", "reports/nightly", "reports/nightly", exits=4)
    assert result.stdout == "deactivated flytesnacks/development/reports/nightly\n"
    assert result.stderr == "trigger 'flytesnacks/development/reports/nothing' does not exist\n"


def test_a_trigger_that_is_no_path_is_refused_before_anything_is_done(world: CliWorld) -> None:
    for wrong in ("nightly", "a/b/c", "a/b/c/d/e", "reports/", "/nightly", ""):
        result = world.call("triggers", "deactivate", "reports/nightly", wrong, exits=2)
        assert "write task/name or project/domain/task/name" in result.stderr
    assert world.json("triggers", "show", "reports/nightly")["active"] is True


def test_firing_prints_the_run_and_gives_it_the_inputs(world: CliWorld) -> None:
    words = ["--input", "count=3", "--input", "reason=said so", "--input", 'when={"day": "1"}', "--input", "zip=007"]
    name = world.call("triggers", "fire", "reports/by-hand", *words).stdout.strip()
    run = world.json("runs", "show", name)
    assert run["inputs"] == {"region": "eu", "reason": "said so", "count": 3, "when": {"day": "1"}, "zip": "007"}
    assert (run["scheduled_at"], run["phase"], run["trigger"]) == (None, "QUEUED", "by-hand")
    assert "by hand" in world.call("runs", "list").stdout


def test_the_same_key_fires_the_same_run(world: CliWorld) -> None:
    first, again, other = (
        world.call("triggers", "fire", "reports/by-hand", "reports/nightly", "--key", key).stdout.splitlines()
        for key in ("monday", "monday", "tuesday")
    )
    assert first == again
    assert len({*first, *other}) == 4


def test_inputs_that_are_no_pairs_are_refused(world: CliWorld) -> None:
    for words in (["region"], ["=eu"], ["a=1", "--input", "a=2"]):
        assert "--input" in world.call("triggers", "fire", "reports/by-hand", "--input", *words, exits=2).stderr
    assert world.json("runs", "list") == []


def test_the_schema_is_made_once_and_named(empty: CliWorld) -> None:
    before = empty.call("db", "current", exits=1)
    assert before.stdout.splitlines()[0].split() == ["found", "none"]
    assert "scheduler db upgrade" in before.stderr
    assert not (empty.folder / "scheduler.db").exists()
    assert "upgraded the schema from none to" in empty.call("db", "upgrade").stdout
    found, needed = empty.call("db", "current").stdout.split()[1::2]
    assert found == needed
    assert "already" in empty.call("db", "upgrade").stdout


def test_a_schema_from_the_future_is_left_alone(world: CliWorld) -> None:
    with world.store() as store, store.begin() as tx:
        tx.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in world.call("db", "current", exits=1).stderr
    for words in (["db", "upgrade"], ["runs", "list"], ["triggers", "fire", "reports/by-hand"]):
        result = world.call(*words, exits=1)
        assert "newer than this version knows" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_configuration_is_checked_whole(empty: CliWorld) -> None:
    empty.write("config/tasks/reports.yaml", REPORTS)
    assert "nothing wrong in 1 executor, 1 task and 3 triggers" in empty.call("config", "check").stdout
    empty.write("config/tasks/billing.yaml", BILLING.replace("logging", "loging"))
    empty.config.write_text(SETTINGS.replace("use: logging", "use: logging, options: {levle: info}"))
    faults = empty.call("config", "check", exits=2).stderr.splitlines()
    assert any("scheduler.yaml" in fault and "levle" in fault for fault in faults)
    assert any("billing.yaml" in fault and "loging" in fault for fault in faults)


def test_wrong_settings_name_file_and_every_fault(empty: CliWorld) -> None:
    empty.config.write_text("wroker: {}\nworker: {lease: 10}\n")
    for words in (["runs", "list"], ["serve"], ["deploy"], ["config", "show"]):
        result = empty.call(*words, exits=2)
        assert len(result.stderr.splitlines()) == 2
        assert "scheduler.yaml" in result.stderr
        assert "did you mean worker?" in result.stderr
        assert result.stdout == ""


def test_settings_are_shown_without_their_secrets(empty: CliWorld) -> None:
    empty.config.write_text(SETTINGS + 'database: {url: "postgresql://me:hush@db/x"}\n')
    shown = empty.call("config", "show").stdout
    assert "hush" not in shown
    assert yaml.safe_load(shown)["worker"]["lease"] == "30s"
    assert json.loads(empty.call("config", "show", "-o", "json").stdout) == yaml.safe_load(shown)


def test_a_database_that_is_away_is_one_line_and_exit_1(empty: CliWorld) -> None:
    empty.config.write_text(SETTINGS + 'database: {url: "postgresql://me:hush@127.0.0.1:1/x"}\n')
    for words in (["runs", "list"], ["triggers", "activate", "a/b"], ["db", "current"]):
        result = empty.call(*words, exits=1)
        assert len(result.stderr.splitlines()) == 1
        assert "hush" not in result.stderr
