"""What operators type about triggers, tasks and runs: by name or by many, once or twice, also where it is wrong."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import psycopg
import pytest
import yaml

from scheduler.clock import SystemClock
from scheduler.domain.instants import SECOND, parse_rfc3339
from scheduler.domain.run import Phase
from scheduler.services.finish import Ended, finish_runs
from tests.conftest import ManualClock
from tests.integration.cli_world import BILLING, REPORTS, SETTINGS, CliWorld, make_history, taken

PLACE = "flytesnacks/development/reports"


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> CliWorld:
    """Three triggers of reports and one of billing, deployed by the machine's clock, which the verbs go by."""
    world = CliWorld(tmp_path, ManualClock(SystemClock().now()))
    world.deploy(REPORTS, BILLING)
    return world


@pytest.fixture
def history(sqlite_url: str, tmp_path: Path) -> CliWorld:
    """A run that FAILED, one that SUCCEEDED and one that is QUEUED; long ago."""
    world = CliWorld(tmp_path, ManualClock("2026-03-27T12:00:00Z"))
    make_history(world)
    return world


def phases(world: CliWorld) -> list[str]:
    return [run["phase"] for run in world.json("runs", "list")]


def names(world: CliWorld, *phase: str) -> list[str]:
    return [run["name"] for run in world.json("runs", "list") if run["phase"] in phase]


# --- many triggers ---------------------------------------------------------------------------------------------------


def test_many_triggers_are_chosen_by_filters_and_never_without_a_yes(world: CliWorld) -> None:
    result = world.call("triggers", "deactivate", "--task", "reports", exits=2)
    assert result.stderr == "this would deactivate 3 triggers: repeat it with --yes\n"
    assert len(world.json("triggers", "list", "--active")) == 3
    assert world.call("triggers", "deactivate", "--task", "reports", "--yes").stdout.splitlines() == [
        f"deactivated {PLACE}/by-hand",
        f"deactivated {PLACE}/nightly",
        f"already inactive {PLACE}/resting",
    ]
    assert [row["task"] for row in world.json("triggers", "list", "--active")] == ["billing"]
    assert "4 triggers" in world.call("triggers", "activate", "--all", exits=2).stderr
    assert len(world.call("triggers", "activate", "--all", "-y").stdout.splitlines()) == 4
    assert len(world.json("triggers", "list", "--active")) == 4


def test_names_and_filters_exclude_each_other_and_one_must_be_given(world: CliWorld) -> None:
    for verb in ("activate", "deactivate", "delete", "skip-next"):
        assert "name triggers, or choose them" in world.call("triggers", verb, exits=2).stderr
        assert "not both" in world.call("triggers", verb, "reports/nightly", "--all", exits=2).stderr
    assert "no trigger matches" in world.call("triggers", "delete", "--task", "nothing", "--yes").stderr


def test_deleted_triggers_are_gone_from_listings_and_keep_their_history(world: CliWorld) -> None:
    assert world.call("triggers", "delete", "reports/nightly").stdout == f"deleted {PLACE}/nightly\n"
    assert world.call("triggers", "delete", "reports/nightly", exits=4).stdout == ""
    assert len(world.json("triggers", "list")) == 3
    assert [(row["revision"], row["action"]) for row in world.json("triggers", "revisions", "reports/nightly")] == [
        (2, "DELETE"),
        (1, "DEPLOY"),
    ]
    result = world.call("triggers", "delete", "reports/nightly", "reports/by-hand", exits=4)
    assert result.stdout == f"deleted {PLACE}/by-hand\n"


def test_revisions_have_exactly_the_promised_keys_and_one_is_shown_in_full(world: CliWorld) -> None:
    world.call("triggers", "deactivate", "reports/nightly")
    newest, oldest = world.json("triggers", "revisions", "reports/nightly")
    assert list(newest) == list(oldest) == ["revision", "action", "at", "by", "automation"]
    assert (newest["action"], oldest["by"]) == ("DEACTIVATE", "a test")
    assert newest["automation"] == {"cron": {"expression": "0 2 * * *", "timezone": "Europe/Paris"}}
    assert parse_rfc3339(newest["at"]) > parse_rfc3339(oldest["at"])
    full = world.json("triggers", "revisions", "reports/nightly", "--revision", "1")
    assert list(full)[5:] == ["version", "active", "note", "spec"]
    assert full["spec"]["catchup"] == {"policy": "all", "window": "30d", "max_runs": 2}
    shown = world.call("triggers", "revisions", "reports/nightly", "--revision", "1").stdout
    assert yaml.safe_load(shown) == full
    assert "does not exist" in world.call("triggers", "revisions", "reports/nightly", "--revision", "9", exits=4).stderr
    assert "does not exist" in world.call("triggers", "revisions", "reports/nothing", exits=4).stderr
    assert "DEACTIVATE" in world.call("triggers", "revisions", "reports/nightly").stdout


def test_fires_are_reset_and_the_answer_says_of_what(world: CliWorld) -> None:
    with closing(sqlite3.connect(world.folder / "scheduler.db")) as connection, connection:
        connection.execute("UPDATE trigger_due SET fires = 3")
    assert world.call("triggers", "reset", "reports/nightly", "--dry-run").stdout == (
        f"would reset the fires of {PLACE}/nightly\n"
    )
    assert world.call("triggers", "reset", "reports/nightly").stdout == f"reset {PLACE}/nightly\n"
    assert world.call("triggers", "reset", "reports/nightly").stdout == f"nothing to reset of {PLACE}/nightly\n"
    newest, *_ = world.json("triggers", "revisions", "reports/nightly")
    assert (newest["revision"], newest["action"]) == (2, "RESET")
    assert "does not exist" in world.call("triggers", "reset", "reports/nothing", exits=4).stderr
    assert "revision 2" in world.call("triggers", "reset", "reports/nightly", "--expect-revision", "1", exits=5).stderr


def test_a_revision_that_somebody_else_made_first_is_a_conflict(world: CliWorld) -> None:
    world.call("triggers", "deactivate", "reports/nightly", "--expect-revision", "1")
    result = world.call("triggers", "activate", "reports/nightly", "--expect-revision", "1", exits=5)
    assert "at revision 2, not 1" in result.stderr
    world.call("triggers", "activate", "reports/nightly", "--expect-revision", "2")
    assert (
        "at revision 3" in world.call("triggers", "delete", "reports/nightly", "--expect-revision", "2", exits=5).stderr
    )
    wrong = world.call("triggers", "delete", "reports/nightly", "reports/by-hand", "--expect-revision", "3", exits=2)
    assert "is of one trigger" in wrong.stderr
    assert len(world.json("triggers", "list")) == 4


def test_the_next_slot_is_skipped_once_however_often_it_is_said(world: CliWorld) -> None:
    due = world.json("triggers", "show", "reports/nightly")["next_fire_at"]
    first = world.call("triggers", "skip-next", "reports/nightly", "reports/by-hand", "reports/resting").stdout
    slot, manual, inactive = first.splitlines()
    assert slot.startswith("will skip ")
    assert slot.endswith(f" of {PLACE}/nightly")
    assert parse_rfc3339(slot.removeprefix("will skip ").split(" of ")[0].replace(" ", "T")) == parse_rfc3339(due)
    assert (manual, inactive) == (f"nothing to skip of {PLACE}/by-hand", f"nothing to skip of {PLACE}/resting")
    assert world.call("triggers", "skip-next", "reports/nightly").stdout.splitlines() == [slot]
    assert "will skip" in world.call("triggers", "show", "reports/nightly").stdout
    after = world.json("triggers", "show", "reports/nightly")["next_fire_at"]
    assert 22 * 3_600 * SECOND < parse_rfc3339(after) - parse_rfc3339(due) < 26 * 3_600 * SECOND
    assert "does not exist" in world.call("triggers", "skip-next", "reports/nothing", exits=4).stderr


def test_a_snooze_has_an_end(world: CliWorld) -> None:
    now = SystemClock().now()
    said = world.call("triggers", "snooze", "reports/nightly", "--for", "1h30m").stdout
    assert said.endswith(f" {PLACE}/nightly\n")
    end = parse_rfc3339("T".join(said.removeprefix("snoozed until ").split()[:2]))
    assert -SECOND < end - now - 5_400 * SECOND < 60 * SECOND
    assert world.json("triggers", "show", "reports/nightly")["state"] == "snoozed"
    assert "snoozed until" in world.call("triggers", "show", "reports/nightly").stdout
    world.call("triggers", "snooze", "reports/nightly", "--until", "2199-01-01T00:00:00+02:00")
    assert world.call("triggers", "activate", "reports/nightly").stdout == f"activated {PLACE}/nightly\n"
    assert world.json("triggers", "show", "reports/nightly")["state"] == "scheduled"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give either --for"),
        (["--for", "1h", "--until", "2199-01-01T00:00:00Z"], 2, "give either --for"),
        (["--for", "soon"], 2, "--for: 'soon' is not a duration"),
        (["--until", "tomorrow"], 2, "--until: 'tomorrow' is no time"),
        (["--until", "2020-01-01T00:00:00Z"], 2, "is past"),
        (["--for", "0s"], 2, "is past"),
        (["--for", "99999999d"], 2, "--for: ends after 2199"),
        (["--until", "9999-12-31T23:59:59Z"], 2, "--until: ends after 2199"),
    ],
)
def test_a_snooze_that_cannot_be_is_refused(world: CliWorld, words: list[str], code: int, said: str) -> None:
    assert said in world.call("triggers", "snooze", "reports/nightly", *words, exits=code).stderr
    assert world.json("triggers", "show", "reports/nightly")["state"] == "scheduled"


def test_an_inactive_trigger_cannot_be_snoozed(world: CliWorld) -> None:
    result = world.call("triggers", "snooze", "--task", "reports", "--for", "1h", "--yes", exits=5)
    assert [line.split()[-1] for line in result.stdout.splitlines()] == [f"{PLACE}/by-hand", f"{PLACE}/nightly"]
    assert result.stderr == f"inactive already: {PLACE}/resting\n"
    assert {row["state"] for row in world.json("triggers", "list", "--task", "reports")} == {"snoozed", "inactive"}
    world.call("triggers", "activate", "--task", "reports", "--yes")
    result = world.call("triggers", "snooze", "--task", "reports", "--until", "2199-01-01T00:00:00Z", "--yes")
    assert result.stdout.splitlines()[0] == f"snoozed until 2199-01-01 00:00:00+00:00 {PLACE}/by-hand"
    assert len(result.stdout.splitlines()) == 3


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_versions_have_exactly_the_promised_keys_newest_first(world: CliWorld) -> None:
    world.deploy(REPORTS.replace("version: v1", "version: v2").replace("region: eu", "region: us"))
    newest, oldest = world.json("tasks", "versions", "reports")
    assert list(newest) == list(oldest) == ["version", "digest", "deployed_at", "deployed_by"]
    assert (newest["version"], oldest["version"]) == ("v2", "v1")
    assert len(newest["digest"]) == 64
    assert oldest["digest"][:12] in world.call("tasks", "versions", "reports").stdout
    assert "does not exist" in world.call("tasks", "versions", "nothing", exits=4).stderr


def test_a_deleted_task_takes_its_triggers_along_and_a_deploy_brings_it_back(world: CliWorld) -> None:
    manifest = str(world.write("again.yaml", REPORTS))
    assert world.call("tasks", "delete", "reports").stdout == f"deleted {PLACE} and 3 triggers\n"
    assert [row["name"] for row in world.json("tasks", "list")] == ["billing"]
    assert world.call("tasks", "delete", "reports", exits=4).stdout == ""
    assert len(world.json("tasks", "versions", "reports")) == 1
    assert "1 created" in world.call("deploy", manifest).stdout
    assert len(world.json("tasks", "list")) == 2


def test_many_tasks_are_deleted_only_with_a_yes(world: CliWorld) -> None:
    assert "this would delete 2 tasks" in world.call("tasks", "delete", "--all", exits=2).stderr
    assert "one of both" in world.call("tasks", "delete", exits=2).stderr
    assert "one of both" in world.call("tasks", "delete", "reports", "--all", exits=2).stderr
    world.call("tasks", "delete", "--domain", "production", "--yes")
    assert [row["name"] for row in world.json("tasks", "list")] == ["reports"]


def test_one_version_is_removed_unless_it_is_the_latest(world: CliWorld) -> None:
    world.deploy(REPORTS.replace("version: v1", "version: v2"))
    assert "latest version" in world.call("tasks", "delete", "reports", "--version", "v2", exits=5).stderr
    assert world.call("tasks", "delete", "reports", "--version", "v1").stdout == f"deleted version v1 of {PLACE}\n"
    assert "does not exist" in world.call("tasks", "delete", "reports", "--version", "v1", exits=4).stderr
    assert "name it" in world.call("tasks", "delete", "--all", "--version", "v1", exits=2).stderr


# --- listings a page at a time ---------------------------------------------------------------------------------------


def test_pages_follow_each_other_and_the_hint_says_how(world: CliWorld) -> None:
    words = ["triggers", "list", "--limit", "3"]
    first = world.call(*words, "-o", "json")
    assert first.stderr.startswith("3 of 4 triggers are shown; the next: --page ")
    token = first.stderr.split()[-1]
    second = world.call(*words, "-o", "json", "--page", token)
    assert second.stderr == ""
    rows = json.loads(first.stdout) + json.loads(second.stdout)
    assert [row["name"] for row in rows] == ["by-hand", "nightly", "resting", "hourly"]
    matching = world.call("triggers", "list", "--task", "reports", "--limit", "1").stderr
    assert matching.startswith("1 of 3 triggers that match, of 4 in all are shown; the next: --page ")


@pytest.mark.parametrize("token", ["", "x", "e30", "W10", "🎉", "x" * 10_000])
def test_a_wrong_page_token_is_a_wrong_call(world: CliWorld, token: str) -> None:
    for words in (["tasks", "list"], ["triggers", "list"], ["triggers", "revisions", "reports/nightly"]):
        result = world.call(*words, "--page", token, exits=2)
        assert "ask without a token for the first page" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_token_of_another_question_is_refused(world: CliWorld) -> None:
    token = world.call("triggers", "list", "--limit", "1").stderr.split()[-1]
    for words in (["--task", "reports"], ["--sort", "-name"]):
        assert "another" in world.call("triggers", "list", "--limit", "1", "--page", token, *words, exits=2).stderr


def test_conditions_narrow_listings(world: CliWorld) -> None:
    def found(*words: str) -> list[str]:
        return [row["name"] for row in world.json(*words)]

    assert found("tasks", "list", "--where", "name~port") == ["reports"]
    assert found("tasks", "list", "--where", "name=reports", "--where", "name=billing") == ["reports", "billing"]
    assert found("tasks", "list", "--where", "environment=accounting") == ["reports"]
    assert found("tasks", "list", "--where", "total_triggers>=2") == ["reports"]
    assert found("tasks", "list", "--where", "deployed_at>=1h") == ["reports", "billing"]
    assert found("tasks", "list", "--since", "2199-01-01T00:00:00Z") == []
    assert found("tasks", "list", "--sort", "name") == ["billing", "reports"]
    assert found("triggers", "list", "--where", "active=no") == ["resting"]
    assert found("triggers", "list", "--where", "name~i", "--sort", "-name") == ["resting", "nightly"]
    world.call("triggers", "deactivate", "reports/nightly")
    assert [
        row["action"] for row in world.json("triggers", "revisions", "reports/nightly", "--where", "by=a test")
    ] == ["DEPLOY"]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("name", "is none of FIELD=VALUE"),
        ("colour=red", "'colour' is no field of this listing"),
        ("active=perhaps", "write true or false"),
        ("total_triggers=many", "is not a whole number"),
        ("deployed_at>=yesterday", "is no time: write 2h (2h ago)"),
        ("name>=1h", "cannot be filtered by 'since'"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(world: CliWorld, condition: str, said: str) -> None:
    assert said in world.call("tasks", "list", "--where", condition, exits=2).stderr


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_queued_run_is_cancelled_at_once_and_only_once(history: CliWorld) -> None:
    (name,) = names(history, "QUEUED")
    assert history.call("runs", "cancel", name).stdout == f"cancelled {name}\n"
    assert "ABORTED already" in history.call("runs", "cancel", name, exits=5).stderr
    assert "does not exist" in history.call("runs", "cancel", "nothing", exits=4).stderr
    assert history.json("runs", "show", name)["error"].startswith("cancelled by ")


def test_of_several_runs_those_that_can_be_cancelled_are(history: CliWorld) -> None:
    (queued,), (over,) = names(history, "QUEUED"), names(history, "SUCCEEDED")
    result = history.call("runs", "cancel", "nothing", over, queued, exits=4)
    assert result.stdout == f"cancelled {queued}\n"
    assert len(result.stderr.splitlines()) == 2


def test_a_run_under_way_shows_that_it_is_to_be_aborted(history: CliWorld) -> None:
    history.call("triggers", "fire", "reports/by-hand")
    with history.store(SystemClock()) as store:
        with store.begin() as tx:
            tx.workers.register("now-1", "now", "0.1.0", "zones", ["logging"], 3_600 * SECOND)
        with store.begin() as tx:
            assert taken(tx, "now-1", on_time=5, late=0)
    (name,) = [run["name"] for run in history.json("runs", "list", "--trigger", "reports/by-hand")]
    said = history.call("runs", "cancel", name).stdout
    assert said == f"cancelling {name}: it is over when its code has ended\n"
    run = history.json("runs", "show", name)
    assert (run["phase"], run["aborting"]) == ("RUNNING", True)
    assert "RUNNING, aborting" in history.call("runs", "list").stdout
    assert "RUNNING, aborting" in history.call("runs", "show", name).stdout
    assert history.call("runs", "cancel", name).stdout == said


def test_runs_are_cancelled_by_filters_only_with_a_yes(history: CliWorld) -> None:
    for _ in range(3):
        history.call("triggers", "fire", "reports/by-hand")
    result = history.call("runs", "cancel", "--trigger", "reports/by-hand", exits=2)
    assert result.stderr == "this would cancel 3 runs: repeat it with --yes\n"
    assert len(history.call("runs", "cancel", "--trigger", "reports/by-hand", "--yes").stdout.splitlines()) == 3
    assert phases(history).count("QUEUED") == 1
    assert "no run matches" in history.call("runs", "cancel", "--task", "reports", "--yes").stderr
    assert "only runs that are QUEUED" in history.call("runs", "cancel", "--phase", "FAILED", exits=2).stderr
    for words in ([], ["x", "--phase", "QUEUED"]):
        assert "one of both" in history.call("runs", "cancel", *words, exits=2).stderr


def test_what_is_typed_in_another_encoding_names_no_run(history: CliWorld) -> None:
    for words in (["runs", "show"], ["runs", "logs"], ["runs", "cancel"], ["runs", "retry"]):
        result = history.call(*words, "\udcff", exits=4)
        assert result.stderr == "run '\\udcff' does not exist\n"
    assert "2147483647" in history.call("triggers", "revisions", "a/b", "--revision", "9" * 20, exits=2).stderr


def test_a_failed_run_is_tried_again_and_one_that_is_open_is_not(history: CliWorld) -> None:
    (name,) = names(history, "FAILED")
    assert history.call("runs", "retry", name).stdout == f"queued again {name}\n"
    run = history.json("runs", "show", name)
    assert (run["phase"], run["attempt"], len(run["attempts"])) == ("QUEUED", 2, 1)
    assert "is QUEUED" in history.call("runs", "retry", name, exits=5).stderr
    (succeeded,) = names(history, "SUCCEEDED")
    assert "fire its trigger for another run" in history.call("runs", "retry", succeeded, exits=5).stderr
    assert "does not exist" in history.call("runs", "retry", "nothing", exits=4).stderr


def test_failed_runs_are_tried_again_by_filters(history: CliWorld) -> None:
    assert "this would retry 1 run:" in history.call("runs", "retry", "--task", "reports", exits=2).stderr
    assert "queued again" in history.call("runs", "retry", "--task", "reports", "--yes").stdout
    history.call("runs", "cancel", *names(history, "QUEUED"))
    assert "no run matches" in history.call("runs", "retry", "--since", "9999d", "--yes").stderr
    assert len(history.call("runs", "retry", "--phase", "aborted", "--yes").stdout.splitlines()) == 2


def test_what_attempts_printed_is_printed_again(history: CliWorld) -> None:
    (name,) = names(history, "QUEUED")
    assert history.call("runs", "logs", name).stderr == "no attempt has ended yet: the run is QUEUED\n"
    for number, text in enumerate(("first\nline\n", "\x1b[32mgreen\x1b[0m \x1b[2Jé\r\n"), start=1):
        with history.store(SystemClock()) as store:
            with store.begin() as tx:
                tx.workers.register(f"now-{number}", "now", "0.1.0", "zones", ["logging"], 3_600 * SECOND)
            with store.begin() as tx:
                (execution,) = taken(tx, f"now-{number}", on_time=1, late=0)
            with store.begin() as tx:
                finish_runs(tx, [Ended(execution, Phase.FAILED, "it broke", output=text)], "now")
        if number == 1:
            history.call("runs", "retry", name)
    result = history.call("runs", "logs", name)
    assert result.stdout_bytes.decode() == "first\nline\n\x1b[32mgreen\x1b[0m \x1b[2Jé\r\n"
    assert result.stderr == "# attempt 1: FAILED\n# attempt 2: FAILED\n"
    alone = history.call("runs", "logs", name, "--attempt", "1")
    assert (alone.stdout, alone.stderr) == ("first\nline\n", "")
    assert [item["attempt"] for item in history.json("runs", "logs", name)] == [1, 2]
    assert "does not exist" in history.call("runs", "logs", name, "--attempt", "3", exits=4).stderr
    assert "does not exist" in history.call("runs", "logs", "nothing", exits=4).stderr


def test_a_terminal_is_shown_colours_but_nothing_that_moves_the_cursor() -> None:
    from scheduler.cli.run_logs import _tame

    assert _tame("a\x1b[1;32mb\x1b[0m\tc\n") == "a\x1b[1;32mb\x1b[0m\tc\n"
    assert _tame("\x1b[2J\x1b]0;title\x07\r\x00é日\u202e") == "\\x1b[2J\\x1b]0;title\\x07\\r\\x00é日\\u202e"


def test_queued_runs_say_what_they_wait_for(history: CliWorld) -> None:
    (run,) = [row for row in history.json("runs", "list") if row["phase"] == "QUEUED"]
    assert run["waiting_for"] == "a free place in a worker"
    assert "WAITS FOR" in history.call("runs", "list").stdout
    assert "WAITS FOR" not in history.call("runs", "list", "--phase", "FAILED").stdout
    with history.store() as store, store.begin() as tx:
        tx.connection.exec_driver_sql("UPDATE workers SET alive = false")
    assert history.json("runs", "list")[0]["waiting_for"] == "no worker for executor logging"


# --- fire and wait ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ender(world: CliWorld) -> Iterator[list[tuple[Phase, str | None]]]:
    """Somebody who ends the runs that are fired, in order, as this list says, a moment later."""
    ends: list[tuple[Phase, str | None]] = []
    over = False

    def work() -> None:
        with world.store(SystemClock()) as store:
            with store.begin() as tx:
                tx.workers.register("now-1", "now", "0.1.0", "zones", ["logging"], 3_600 * SECOND)
            while not over:
                time.sleep(0.05)
                if not ends:
                    continue
                with store.begin() as tx:
                    executions = taken(tx, "now-1", on_time=1, late=0)
                for item in executions:
                    phase, error = ends.pop(0)
                    with store.begin() as tx:
                        finish_runs(tx, [Ended(item, phase, error)], "now")

    worker = Thread(target=work)
    worker.start()
    yield ends
    over = True
    worker.join()


def test_waiting_ends_with_the_run_and_its_phase(world: CliWorld, ender: list[tuple[Phase, str | None]]) -> None:
    ender.append((Phase.SUCCEEDED, None))
    result = world.call("triggers", "fire", "reports/by-hand", "--wait", "--timeout", "30s")
    (name,) = names(world, "SUCCEEDED")
    assert result.stdout == f"{name} SUCCEEDED\n"
    assert result.stderr == f"fired {name}\n"


def test_a_run_that_does_not_succeed_is_exit_1(world: CliWorld, ender: list[tuple[Phase, str | None]]) -> None:
    ender.extend([(Phase.SUCCEEDED, None), (Phase.FAILED, "it broke\nbadly")])
    result = world.call("triggers", "fire", "reports/by-hand", "reports/nightly", "--wait", "--timeout", "30s", exits=1)
    assert sorted(line.split()[1] for line in result.stdout.splitlines()) == ["FAILED", "SUCCEEDED"]
    assert result.stderr.endswith(": it broke\n")


def test_waiting_has_an_end_and_says_what_it_waits_for(world: CliWorld) -> None:
    result = world.call("triggers", "fire", "reports/by-hand", "--wait", "--timeout", "2500ms", exits=1)
    (name,) = names(world, "QUEUED")
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"fired {name}",
        f"{name} waits for no worker for executor logging",
        f"still open after 2.5 s: 1 run, {name}",
    ]


def test_of_several_that_are_fired_those_that_exist_are_waited_for(
    world: CliWorld, ender: list[tuple[Phase, str | None]]
) -> None:
    ender.append((Phase.SUCCEEDED, None))
    result = world.call("triggers", "fire", "reports/nothing", "reports/by-hand", "--wait", "--timeout", "30s", exits=4)
    assert result.stdout.endswith(" SUCCEEDED\n")
    assert "--timeout is for --wait" in world.call("triggers", "fire", "a/b", "--timeout", "1s", exits=2).stderr


@pytest.mark.postgres
def test_waiting_goes_on_when_the_database_cuts_its_connections(postgres_url: str, tmp_path: Path) -> None:
    world = CliWorld(tmp_path, ManualClock(SystemClock().now()))
    world.url = postgres_url
    world.config.write_text(f'{SETTINGS}database: {{url: "{postgres_url}"}}\n')
    world.deploy(REPORTS)

    def cut_and_end() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            end = time.monotonic() + 30
            while not admin.execute("SELECT 1 FROM runs").fetchone() and time.monotonic() < end:
                time.sleep(0.05)
            for _ in range(5):
                time.sleep(0.2)
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            admin.execute("UPDATE runs SET phase = 'SUCCEEDED', finished_at = 1")

    cutter = Thread(target=cut_and_end)
    cutter.start()
    result = world.call("triggers", "fire", "reports/by-hand", "--wait", "--timeout", "30s")
    cutter.join()
    assert result.stdout.endswith(" SUCCEEDED\n")


# --- after a restore -------------------------------------------------------------------------------------------------


def test_after_a_restore_one_chooses_what_becomes_of_what_is_owed(history: CliWorld) -> None:
    for words in ([], ["--catch-up", "--skip"]):
        assert "--catch-up or --skip" in history.call("db", "restored", *words, exits=2).stderr
    assert history.call("db", "restored", "--catch-up").stdout == "epoch 1 has begun: what is owed will be caught up\n"
    assert phases(history).count("QUEUED") == 1
    assert "epoch 2 has begun: what was owed is skipped" in history.call("db", "restored", "--skip").stdout
    assert phases(history).count("QUEUED") == 0
    (skipped,) = [row for row in history.json("slots", "reports/nightly") if row.get("reason") == "restored"]
    assert skipped["count"] > 100
    assert history.json("workers", "list") == []


def test_what_acts_makes_no_database(tmp_path: Path, clock: ManualClock) -> None:
    nowhere = CliWorld(tmp_path, clock)
    for words in (
        ["runs", "cancel", "x"],
        ["runs", "retry", "--phase", "FAILED"],
        ["runs", "logs", "x"],
        ["triggers", "delete", "a/b"],
        ["triggers", "fire", "a/b", "--wait"],
        ["tasks", "delete", "a"],
        ["tasks", "versions", "a"],
        ["db", "restored", "--skip"],
    ):
        assert "there is no database yet" in nowhere.call(*words, exits=1).stderr
    assert not (tmp_path / "scheduler.db").exists()


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, 3), ("y", 0, 1)])
def test_somebody_at_a_terminal_is_asked(world: CliWorld, answer: str, code: int, left: int) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "scheduler", "triggers", "deactivate", "--task", "reports"]
    with subprocess.Popen(
        command, cwd=world.folder, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as process:
        os.close(terminal)
        asked = b""
        while b"[y/N]" not in asked:
            asked += os.read(main, 1_000)
        os.write(main, f"{answer}\n".encode())
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(30) == code
    os.close(main)
    assert asked.startswith(b"deactivate 3 triggers?")
    assert len(said.splitlines()) == (3 if answer == "y" else 0)
    assert len(world.json("triggers", "list", "--active")) == left
