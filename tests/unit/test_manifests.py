"""Manifests: what a file of tasks becomes."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.errors import ConfigError, Problem
from scheduler.manifests import Manifests, load_manifests, not_yet_enforced
from scheduler.settings import Defaults, Settings

ROOT = Path(__file__).parents[2]
TASK = "{name: report, version: v1, executor: logging"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def only_trigger(lines: str, timezone: str = "UTC") -> TriggerSpec:
    path = write("a.yaml", f"tasks: [{TASK}, triggers: [{{name: t, {lines}}}]}}]\n")
    (definition,) = load_manifests([path], defaults=Defaults(timezone=timezone)).definitions
    (trigger,) = definition.triggers
    return trigger


def test_a_manifest_with_every_key_becomes_the_definition_it_says() -> None:
    path = write("all.yaml", """
project: flytesnacks
domain: production
tasks:
  - name: reports.nightly
    version: v1
    environment: {name: reports, description: Reporting jobs}
    description: Sends the nightly report.
    long_description: At length.
    executor: shell
    config: {command: ["python", "-m", "reports"], env: {LANG: C}}
    inputs: {region: eu}
    timeout: 10m
    deadline: 2h
    retries: {max_attempts: 3, initial: 20s, multiplier: 3, maximum: 2h}
    max_concurrent_runs: 4
    on_lost: fail
    on_unknown: resubmit
    cancel_give_up: 12h
    triggers:
      - name: nightly
        cron: {expression: "0 2 * * *", timezone: Europe/Paris, dialect: standard, day_rule: debian, dst: instant}
        kickoff_time_input_arg: when
        inputs: {region: us}
        catchup: {policy: latest, window: 3d, max_runs: 5}
        overlap: skip
        pause_on_failure: 5
        jitter: 30s
        start: 2026-12-01T00:00:00Z
        end: 2027-12-01T00:00:00+01:00
        max_fires: 100
        calendars: [holidays]
        active: false
        description: Nightly.
calendars: {holidays: {dates: [2026-12-25, "2027-01-01"], policy: next}}
""")  # fmt: skip
    holidays = Calendar("holidays", frozenset({date(2026, 12, 25), date(2027, 1, 1)}), "next")
    expected = TaskDefinition(
        project="flytesnacks",
        domain="production",
        name="reports.nightly",
        version="v1",
        environment=Environment("reports", "Reporting jobs"),
        description="Sends the nightly report.",
        long_description="At length.",
        spec=TaskSpec(
            executor="shell",
            config={"command": ["python", "-m", "reports"], "env": {"LANG": "C"}},
            inputs={"region": "eu"},
            timeout=timedelta(minutes=10),
            deadline=timedelta(hours=2),
            retries=RetryPolicy(3, timedelta(seconds=20), 3.0, timedelta(hours=2)),
            max_concurrent_runs=4,
            on_lost="fail",
            on_unknown="resubmit",
            cancel_give_up=timedelta(hours=12),
        ),
        triggers=(
            TriggerSpec(
                name="nightly",
                automation=Cron("0 2 * * *", "Europe/Paris", "standard", "debian", "instant"),
                kickoff_time_input_arg="when",
                inputs={"region": "us"},
                catchup=CatchUp("latest", timedelta(days=3), 5),
                overlap="skip",
                pause_on_failure=5,
                jitter=timedelta(seconds=30),
                start=datetime(2026, 12, 1, tzinfo=UTC),
                end=datetime(2027, 11, 30, 23, tzinfo=UTC),
                max_fires=100,
                calendars=(holidays,),
                active=False,
                description="Nightly.",
            ),
        ),
    )
    loaded = load_manifests([path])
    assert loaded == Manifests((expected,), {"holidays": holidays}, {expected.key: "all.yaml"})


def test_what_is_left_out_or_null_has_its_default() -> None:
    plain = load_manifests([write("a.yaml", f"tasks: [{TASK}}}]\n")]).definitions
    nulls = "config: , inputs: , timeout: null, retries: , triggers: , environment: , description: "
    assert load_manifests([write("a.yaml", f"tasks: [{TASK}, {nulls}}}]\n")]).definitions == plain
    assert plain == (
        TaskDefinition("flytesnacks", "development", "report", "v1", TaskSpec(executor="logging")),
    )  # fmt: skip


def test_project_domain_and_zone_come_from_the_defaults() -> None:
    path = write("a.yaml", f"tasks: [{TASK}, triggers: [{{name: t, cron: '0 2 * * *'}}]}}]\n")
    (definition,) = load_manifests(
        [path], defaults=Defaults(project="p", domain="d", timezone="Asia/Tokyo")
    ).definitions
    assert definition.key == "p/d/report"
    assert definition.triggers[0].automation == Cron("0 2 * * *", timezone="Asia/Tokyo")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('cron: "0 2 * * *"', Cron("0 2 * * *", "Europe/Paris")),
        ("cron: 0 2 * * 1-5", Cron("0 2 * * 1-5", "Europe/Paris")),
        ('cron: "@daily"', Cron("@daily", "Europe/Paris")),
        ('cron: {expression: "0 2 * * *"}', Cron("0 2 * * *", "Europe/Paris")),
        ('cron: {expression: "0 2 * * *", timezone: UTC}', Cron("0 2 * * *", "UTC")),
        ('cron: "CRON_TZ=Asia/Tokyo 0 2 * * *"', Cron("0 2 * * *", "Asia/Tokyo")),
        ('cron: {expression: "TZ=Asia/Tokyo 0 2 * * *", timezone: Asia/Tokyo}', Cron("0 2 * * *", "Asia/Tokyo")),
        ("every: 1s", FixedRate(1, "second")),
        ("every: 90s", FixedRate(90, "second")),
        ("every: 1h30m", FixedRate(90, "minute")),
        ("fixed_rate: {value: 5, unit: minute}", FixedRate(5, "minute")),
        (
            "fixed_rate: {value: 5, unit: minute, start_time: 2026-11-21T12:00:00Z}",
            FixedRate(5, "minute", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ),
        ("at: 2026-12-24T18:00:00Z", At(datetime(2026, 12, 24, 18, tzinfo=UTC))),
        ("at: 2026-12-24 18:00:00+01:00", At(datetime(2026, 12, 24, 17, tzinfo=UTC))),
        ("active: true", None),
    ],
)
def test_schedules_are_what_they_say(lines: str, expected: object) -> None:
    assert only_trigger(lines, "Europe/Paris").automation == expected


def test_a_trigger_fired_by_hand_may_still_say_how() -> None:
    assert only_trigger("inputs: {a: 1}").inputs == {"a": 1}
    assert only_trigger("catchup: {policy: none}").catchup == CatchUp(policy="none")


def test_anchors_share_what_tasks_have_in_common() -> None:
    text = f"""
tasks:
  - &base {TASK}, retries: {{max_attempts: 3}}}}
  - {{<<: *base, name: other}}
"""
    first, second = load_manifests([write("a.yaml", text)]).definitions
    assert (first.name, second.name) == ("report", "other")
    assert first.spec == second.spec


# --- files -----------------------------------------------------------------------------------------------------------


def names(*paths: str) -> list[str]:
    return [definition.name for definition in load_manifests(paths).definitions]


def test_a_folder_stands_for_its_yaml_files_in_order_of_name() -> None:
    for name in ("jobs/b.yml", "jobs/a.yaml", "jobs/.hidden.yaml", "jobs/deeper/d.yaml", "jobs/notes.txt"):
        write(name, f"tasks: [{{name: {Path(name).stem}, version: v1, executor: logging}}]\n")
    assert names("jobs") == ["a", "b"]
    assert names("jobs/deeper", "jobs") == ["d", "a", "b"]


def test_a_file_named_twice_is_read_once() -> None:
    write("jobs/a.yaml", f"tasks: [{TASK}}}]\n")
    Path("link.yaml").symlink_to("jobs/a.yaml")
    assert names("jobs", "jobs/a.yaml", "./jobs/../jobs/a.yaml", "link.yaml") == ["report"]


def test_an_empty_folder_defines_nothing() -> None:
    Path("jobs").mkdir()
    assert load_manifests(["jobs"]) == Manifests()


def test_the_same_task_in_two_files_is_told_with_both_places() -> None:
    write("a.yaml", f"tasks: [{TASK}}}]\n")
    write("b.yaml", f"tasks: [{TASK}}}]\n")
    write("c.yaml", f"domain: staging\ntasks: [{TASK}}}]\n")
    with pytest.raises(ConfigError) as caught:
        load_manifests(["."])
    assert caught.value.lines() == [
        "b.yaml: tasks[0].name (line 1): 'flytesnacks/development/report' is defined twice: first at a.yaml: tasks[0]"
    ]


def test_a_trigger_may_hold_a_calendar_in_full_beside_one_of_the_same_name() -> None:
    write(
        "a.yaml",
        f"""tasks: [{TASK}, triggers: [
          {{name: a, every: 5s, calendars: [{{name: h, dates: [2026-12-24], policy: previous}}, h, {{name: h, dates: []}}]}}]}}]
calendars: {{h: {{dates: [2026-12-25]}}}}
""",
    )
    (definition,) = load_manifests(["a.yaml"]).definitions
    assert definition.triggers[0].calendars == (
        Calendar("h", frozenset({date(2026, 12, 24)}), "previous"),
        Calendar("h", frozenset({date(2026, 12, 25)})),
        Calendar("h"),
    )


def test_a_calendar_may_stand_in_a_later_file_but_only_once() -> None:
    write("a.yaml", f"tasks: [{TASK}, triggers: [{{name: t, every: 5s, calendars: [h]}}]}}]\n")
    write("b.yaml", "calendars: {h: {dates: [2026-12-25]}}\n")
    (definition,) = load_manifests(["."]).definitions
    assert definition.triggers[0].calendars == (Calendar("h", frozenset({date(2026, 12, 25)})),)
    write("c.yaml", "calendars: {h: {dates: [2026-12-26]}}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: calendars\.h \(line 1\): is defined twice: first in b\.yaml"):
        load_manifests(["."])


def test_files_are_called_by_their_path_from_here() -> None:
    write("jobs/a.yaml", "tasks: {}\n")
    with pytest.raises(ConfigError, match=r"^jobs/a\.yaml: tasks \(line 1\): is a mapping, not a list$"):
        load_manifests([Path.cwd() / "jobs"])


# --- what others decide ----------------------------------------------------------------------------------------------


def test_each_task_is_put_to_the_one_who_knows_executors() -> None:
    asked = []

    def check(*task: object) -> list[Problem]:
        asked.append(task)
        return [Problem("config.command[1]", "is bad"), Problem("executor", "is off")] if task[0] == "shell" else []

    text = "tasks:\n  - {name: a, version: v1, executor: logging}\n  - name: b\n    version: v1\n    executor: shell\n"
    path = write("a.yaml", text + "    config:\n      command: [x, y]\n    inputs: {k: v}\n")
    with pytest.raises(ConfigError) as caught:
        load_manifests([path], check_executor=check)
    assert asked == [("logging", {}, {}), ("shell", {"command": ["x", "y"]}, {"k": "v"})]
    assert caught.value.lines() == [
        "a.yaml: tasks[1].config.command[1] (line 7): is bad",
        "a.yaml: tasks[1].executor (line 5): is off",
    ]


def test_any_project_may_be_named_where_none_is_known() -> None:
    path = write("a.yaml", f"project: any\ndomain: thing\ntasks: [{TASK}}}]\n")
    assert load_manifests([path]).definitions[0].key == "any/thing/report"
    with pytest.raises(ConfigError, match="'any' is not a project known in the settings: acme"):
        load_manifests([path], projects={"acme": ["prod"]})


def test_keys_that_are_not_enforced_yet_are_named_with_file_and_task() -> None:
    path = write("a.yaml", f"tasks: [{TASK}, timeout: 5s, triggers: [{{name: t, every: 5s, active: false}}]}}]\n")
    loaded = load_manifests([path])
    assert not_yet_enforced(loaded.definitions[0]) == []
    assert loaded.not_yet_enforced() == []


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_thousand_tasks_with_three_triggers_each_load_in_a_moment() -> None:
    def one(number: int) -> str:
        return f"""
  - name: team{number % 50}.job{number}
    version: v1
    executor: shell
    config: {{command: ["python3", "-m", "jobs.run", "{number}"], env: {{LANG: C}}}}
    inputs: {{region: eu, size: {number}}}
    timeout: 10m
    triggers:
      - {{name: a, cron: {{expression: "{number % 60} 2 * * *", timezone: Europe/Paris}}, catchup: {{max_runs: 5}}}}
      - {{name: b, every: 5m}}
      - {{name: c, cron: "{number % 60} * * * 1-5"}}"""

    path = write("many.yaml", "tasks:" + "".join(map(one, range(1000))))
    began = time.perf_counter()
    assert len(load_manifests([path]).definitions) == 1000
    # A quarter of a second where nothing else runs; a tenfold slowdown is what this would catch.
    assert time.perf_counter() - began < 5


def test_a_file_full_of_faults_is_told_in_a_moment_too() -> None:
    path = write("many.yaml", "tasks:" + "".join(f"\n  - {{name: a{n}, version: 1.{n}0}}" for n in range(2000)))
    began = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        load_manifests([path])
    assert len(caught.value.problems) == 4000
    assert 'tasks[1999].version (line 2001): 1.19990 is a number, not a text: quote it: "1.19990"' in str(caught.value)
    assert time.perf_counter() - began < 10


# --- the files of this project ---------------------------------------------------------------------------------------


def test_the_samples_of_this_project_load_and_use_only_what_is_in_force() -> None:
    settings = Settings.load(ROOT / "config/scheduler.yaml", {})
    loaded = load_manifests(settings.tasks, defaults=settings.defaults, projects=settings.known_projects)
    assert {definition.name for definition in loaded.definitions} == {
        "samples.heartbeat", "samples.clock", "reports.nightly",
    }  # fmt: skip
    assert {definition.spec.executor for definition in loaded.definitions} <= set(settings.executors)
    assert loaded.not_yet_enforced() == []
