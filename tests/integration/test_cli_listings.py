"""What the listings print: promised keys for programs, the trigger's own time for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import ManualClock
from tests.integration.cli_world import REPORTS, CliWorld, make_history

TASK = [
    *("project", "domain", "name", "version", "environment", "function_name", "description"),
    *("total_triggers", "active_triggers", "deployed_at", "deployed_by"),
]
TRIGGER = [
    *("project", "domain", "task", "name", "version", "active", "automation", "next_fire_at", "triggered_at"),
    *("revision", "state", "error"),
]
RUN = [
    *("name", "project", "domain", "task", "version", "trigger", "scheduled_at", "phase", "attempt", "lost"),
    *("created_at", "started_at", "finished_at", "error", "aborting", "waiting_for"),
]


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> CliWorld:
    world = CliWorld(tmp_path, ManualClock("2026-03-27T12:00:00Z"))
    make_history(world)
    return world


def test_tasks_list_has_exactly_the_promised_keys(world: CliWorld) -> None:
    reports, billing = world.json("tasks", "list")
    assert list(reports) == list(billing) == TASK
    assert (reports["name"], reports["total_triggers"], reports["active_triggers"]) == ("reports", 3, 2)
    assert reports["deployed_at"] == "2026-03-27T12:00:00Z"
    assert reports["deployed_by"] == "a test"


def test_triggers_list_has_exactly_the_promised_keys(world: CliWorld) -> None:
    by_hand, nightly, resting, hourly = world.json("triggers", "list")
    assert list(nightly) == list(by_hand) == list(resting) == list(hourly) == TRIGGER
    assert nightly["automation"] == {"cron": {"expression": "0 2 * * *", "timezone": "Europe/Paris"}}
    assert (nightly["next_fire_at"], nightly["state"]) == ("2026-04-02T00:00:00Z", "scheduled")
    assert (by_hand["next_fire_at"], by_hand["automation"], by_hand["state"]) == (None, None, "manual")
    assert (resting["active"], resting["next_fire_at"]) == (False, None)


def test_runs_list_has_exactly_the_promised_keys_newest_first(world: CliWorld) -> None:
    runs = world.json("runs", "list")
    assert all(list(run) == RUN for run in runs)
    assert [(run["task"], run["scheduled_at"], run["phase"]) for run in runs] == [
        ("billing", "2026-04-01T12:00:00Z", "QUEUED"),
        ("reports", "2026-04-01T00:00:00Z", "SUCCEEDED"),
        ("reports", "2026-03-31T00:00:00Z", "FAILED"),
    ]
    assert runs[1]["started_at"] == "2026-04-01T12:00:02Z"
    assert runs[1]["finished_at"] == "2026-04-01T12:00:04Z"
    assert runs[2]["error"] == "the printer burns\nTraceback: …"


def test_slots_tell_runs_and_skipped_ranges_oldest_first(world: CliWorld) -> None:
    skipped, failed, succeeded = world.json("slots", "reports/nightly")
    assert skipped == {
        "kind": "skipped",
        "from": "2026-03-28T01:00:00Z",
        "to": "2026-03-30T00:00:00Z",
        "count": 3,
        "reason": "catchup_cap",
    }
    assert list(failed) == list(succeeded) == ["kind", "scheduled_at", "run", "phase"]
    assert (failed["phase"], succeeded["phase"]) == ("FAILED", "SUCCEEDED")


def test_workers_list_has_exactly_the_promised_keys(world: CliWorld) -> None:
    (worker,) = world.json("workers", "list")
    assert list(worker) == ["name", "version", "started_at", "renewed_at", "lease_until", "running", "waits"]
    assert (worker["name"], worker["lease_until"]) == ("box", "2026-04-01T12:00:30Z")


def test_a_run_shown_adds_inputs_outputs_links_event_and_attempts(world: CliWorld) -> None:
    name = world.json("runs", "list", "--phase", "failed")[0]["name"]
    run = world.json("runs", "show", name)
    assert list(run)[: len(RUN)] == RUN
    assert (run["inputs"], run["outputs"], run["links"], run["event"]) == ({"region": "eu"}, {"sent": 3}, [], None)
    (attempt,) = run["attempts"]
    assert list(attempt) == ["attempt", "phase", "started_at", "finished_at", "worker", "error"]
    assert (attempt["attempt"], attempt["phase"], attempt["worker"]) == (1, "FAILED", "box")
    assert attempt["started_at"] == "2026-04-01T12:00:00Z"


def test_one_task_or_trigger_shown_is_an_object_with_the_listing_s_keys(world: CliWorld) -> None:
    assert list(world.json("tasks", "show", "reports")) == TASK
    assert list(world.json("triggers", "show", "flytesnacks/production/billing/hourly")) == TRIGGER


def test_yaml_says_what_json_says(world: CliWorld) -> None:
    for verb in (["runs", "list"], ["triggers", "list"], ["tasks", "list"], ["slots", "reports/nightly"]):
        assert yaml.safe_load(world.call(*verb, "-o", "yaml").stdout) == world.json(*verb)


def test_a_json_array_has_one_row_a_line(world: CliWorld) -> None:
    lines = world.call("runs", "list", "-o", "json").stdout.splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1].strip().rstrip(","))["phase"] == "SUCCEEDED"


def test_people_read_times_in_the_trigger_s_zone_with_the_offset_of_that_day(world: CliWorld) -> None:
    table = world.call("slots", "reports/nightly").stdout
    assert "2026-03-28 02:00:00+01:00" in table  # before the clocks went forward
    assert "2026-03-31 02:00:00+02:00" in table
    runs = world.call("runs", "list").stdout
    assert "SCHEDULED (Europe/Paris)" in runs
    assert "2026-04-01 14:00:02+02:00" in runs  # started, in the zone of the nightly trigger
    assert "2026-04-01 14:00:00+02:00" in runs  # the hourly trigger names no zone: it follows the other
    assert "SCHEDULED (UTC)" in world.call("runs", "list", "--task", "flytesnacks/production/billing").stdout
    triggers = world.call("triggers", "list").stdout
    assert "NEXT (Europe/Paris)" in triggers
    assert "2026-04-02 02:00:00+02:00" in triggers


def test_tables_in_a_pipe_keep_every_name_whole_and_a_row_on_one_line(world: CliWorld) -> None:
    names = [run["name"] for run in world.json("runs", "list")]
    heading, *rows = world.call("runs", "list").stdout.splitlines()
    assert heading.startswith("RUN")
    assert [row.split()[0] for row in rows] == names
    assert "flytesnacks/production/billing/hourly" in rows[0]
    assert rows[2].endswith("the printer burns")


def test_filters_narrow_the_runs(world: CliWorld) -> None:
    def tasks(*words: str) -> list[str]:
        return [run["task"] for run in world.json("runs", "list", *words)]

    assert tasks("--trigger", "reports/nightly") == ["reports", "reports"]
    assert tasks("--trigger", "flytesnacks/development/reports/nightly", "--phase", "SUCCEEDED") == ["reports"]
    assert tasks("--task", "reports", "--trigger", "nightly", "--limit", "1") == ["reports"]
    assert tasks("--task", "flytesnacks/production/billing") == ["billing"]
    assert tasks("--domain", "production", "--trigger", "billing/hourly") == ["billing"]
    assert tasks("--project", "other") == []
    assert tasks("--since", "2026-04-01T12:00:00Z", "--task", "reports") == ["reports", "reports"]
    assert tasks("--since", "2026-04-01T12:00:01Z") == []


def test_since_counts_back_from_now(world: CliWorld) -> None:
    name = world.call("triggers", "fire", "reports/by-hand").stdout.strip()  # now, by the machine's clock
    assert [run["name"] for run in world.json("runs", "list", "--since", "1h", "--trigger", "reports/by-hand")] == [
        name
    ]
    assert name in [run["name"] for run in world.json("runs", "list", "--since", "999999999d")]


def test_filters_narrow_triggers_tasks_and_slots(world: CliWorld) -> None:
    names = [trigger["name"] for trigger in world.json("triggers", "list", "--inactive")]
    assert names == ["resting"]
    assert len(world.json("triggers", "list", "--active", "--task", "reports")) == 2
    assert len(world.json("triggers", "list", "--trigger", "reports/nightly")) == 1
    assert [task["name"] for task in world.json("tasks", "list", "--domain", "production")] == ["billing"]
    assert len(world.json("slots", "reports/nightly", "--since", "2026-03-31T00:00:00Z")) == 2


def test_a_limit_that_hides_rows_says_so_on_stderr_only(world: CliWorld) -> None:
    result = world.call("runs", "list", "--limit", "2", "-o", "json")
    assert len(json.loads(result.stdout)) == 2
    assert result.stderr.startswith("there are more runs than the 2 shown; the next: --page ")
    assert world.call("runs", "list", "--limit", "3").stderr == ""
    assert [slot["kind"] for slot in world.json("slots", "reports/nightly", "--limit", "2")] == ["run", "run"]


def test_nothing_found_is_an_empty_array_or_a_remark(world: CliWorld) -> None:
    assert world.json("runs", "list", "--task", "nothing") == []
    result = world.call("runs", "list", "--task", "nothing")
    assert (result.stdout, result.stderr) == ("", "no run matches\n")


def test_details_for_people_hold_what_the_promised_keys_leave_out(world: CliWorld) -> None:
    shown = world.call("triggers", "show", "reports/nightly").stdout
    assert "At 02:00, every day (Europe/Paris)" in shown
    assert "all, not older than 30d, at most 2" in shown
    assert '{"region": "eu"}' in world.call("tasks", "show", "reports").stdout
    name = world.json("runs", "list", "--phase", "FAILED")[0]["name"]
    assert '{"sent": 3}' in world.call("runs", "show", name).stdout


def test_a_schedule_that_plain_sql_broke_is_listed_with_its_error(world: CliWorld) -> None:
    with world.store() as store, store.begin() as tx:
        tx.connection.exec_driver_sql(
            """UPDATE triggers SET automation = '{"cron": "nonsense"}' WHERE name='nightly'"""
        )
    (trigger,) = world.json("triggers", "list", "--trigger", "reports/nightly")
    assert trigger["automation"] == {"cron": "nonsense"}
    assert '{"cron": "nonsense"}' in world.call("triggers", "list").stdout
    assert "nonsense" in world.call("triggers", "show", "reports/nightly").stdout


def test_what_does_not_exist_exits_4_and_says_what(world: CliWorld) -> None:
    for verb in (["runs", "show"], ["tasks", "show"]):
        assert "does not exist" in world.call(*verb, "nothing", exits=4).stderr
    result = world.call("slots", "reports/nothing", exits=4)
    assert result.stderr == "trigger 'flytesnacks/development/reports/nothing' does not exist\n"
    assert result.stdout == ""


def test_reading_makes_no_database(tmp_path: Path, clock: ManualClock) -> None:
    world = CliWorld(tmp_path, clock)
    result = world.call("runs", "list", exits=1)
    assert "there is no database yet" in result.stderr
    assert not (tmp_path / "scheduler.db").exists()
    assert REPORTS not in result.stdout
