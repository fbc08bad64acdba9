"""What is deployed, written back: deployed again it changes nothing, anywhere else it makes the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.cli.manifest_files import CALENDARS, Forms, file_name, text_of, unsayable
from scheduler.domain.automation import At, Cron, FixedRate
from scheduler.domain.calendars import Calendar
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.manifests import load_manifests
from scheduler.reading.strict_yaml import load_text
from scheduler.settings import Defaults
from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.definitions import MAPPINGS, NAMES, PROJECTS, TEXTS, definitions
from tests.integration.worlds import World, definition, key, only, trigger

PLACE = ("flytesnacks", "development")
HOLIDAYS = Calendar("holidays", frozenset({date(2026, 12, 25), date(2027, 1, 1)}), "next")


def exported(world: World) -> list[TaskDefinition]:
    return [item.definition for item in world.client.export() if item.definition is not None]


def remarks(world: World) -> list[str]:
    return [remark for item in world.client.export() for remark in item.remarks]


def write(folder: Path, found: Iterable[TaskDefinition]) -> dict[str, bytes]:
    """The export's files in the folder, and what is in them."""
    forms = Forms(found)
    texts = {name: text_of(document) for name, (_, document) in forms.files().items()}
    texts[CALENDARS] = text_of(forms.calendars() or {"calendars": {}})
    for name, text in texts.items():
        folder.joinpath(name).write_text(text, encoding="utf-8")
    return {name: text.encode() for name, text in texts.items()}


@contextmanager
def sqlite_world(template: str) -> Iterator[World]:
    """An empty world in a file of its own."""
    with TemporaryDirectory() as folder:
        shutil.copy(template.removeprefix("sqlite:///"), Path(folder, "scheduler.db"))
        clock = ManualClock()
        world = World(Store.open(f"sqlite:///{folder}/scheduler.db", clock=clock), clock)
        world.client.ensure_projects(PROJECTS)
        try:
            yield world
        finally:
            world.store.close()


# --- round trips -----------------------------------------------------------------------------------------------------

ELSEWHERE = Defaults(project="nowhere", domain="nowhen", timezone="Pacific/Auckland")
"""Defaults that an export must not lean on."""


SETS = st.lists(definitions(), min_size=1, max_size=3, unique_by=lambda item: item.key)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=SETS)
def test_any_definitions_come_back_as_files_that_change_nothing_and_make_the_same(
    sqlite_url: str, drawn: list[TaskDefinition]
) -> None:
    assert_round_trip(sqlite_url, drawn)


@pytest.mark.heavy
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=SETS)
def test_many_more_definitions_come_back(sqlite_url: str, drawn: list[TaskDefinition]) -> None:
    assert_round_trip(sqlite_url, drawn)


def assert_round_trip(sqlite_url: str, drawn: list[TaskDefinition]) -> None:
    with sqlite_world(sqlite_url) as first, sqlite_world(sqlite_url) as second, TemporaryDirectory() as folder:
        list(first.client.deploy_planned(drawn))
        assert unsayable(exported(first)) == {}
        files = write(Path(folder), exported(first))
        read = load_manifests([folder], defaults=ELSEWHERE).definitions
        assert {plan.action for plan in first.client.plan_deploy(read)} == {"unchanged"}
        assert all(not result.applied for result in first.client.deploy(read))
        list(second.client.deploy_planned(read))
        with TemporaryDirectory() as other:
            assert write(Path(other), exported(second)) == files


def test_a_task_of_every_key_comes_back_on_either_database(world: World, tmp_path: Path) -> None:
    manifest = Path(__file__).parents[2] / "config/tasks"
    wanted = [*load_manifests([manifest]).definitions, full()]
    world.client.ensure_projects(PROJECTS)
    list(world.client.deploy_planned(wanted))
    write(tmp_path, exported(world))
    read = load_manifests([tmp_path]).definitions
    assert {item.key: item.deploy_digest for item in read} == {item.key: item.deploy_digest for item in wanted}


def full() -> TaskDefinition:
    """Every key there is, none with its default."""
    spec = TaskSpec(
        "shell",
        {"command": ["sh", "-c", "set -e\nrun it\n"], "env": {"LANG": "C", "on": "off"}},
        {"region": "eu", "n": 1.0, "none": None},
        timedelta(minutes=10),
        timedelta(hours=2),
        RetryPolicy(3, timedelta(seconds=1), 1.5, timedelta(minutes=1)),
        4,
        "fail",
        "resubmit",
        timedelta(hours=1),
    )
    nightly = TriggerSpec(
        "nightly",
        Cron("0 2 * * *", "Europe/Paris", "standard", "debian", "skip_once"),
        "when",
        {"region": "us"},
        CatchUp("gap", timedelta(days=1), 3),
        "skip",
        5,
        timedelta(seconds=30),
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 12, 1, 0, 0, 0, 500, tzinfo=UTC),
        100,
        (HOLIDAYS, Calendar("rest")),
        False,
        "every night",
    )
    rate = TriggerSpec("steady", FixedRate(5, "minute", datetime(2026, 11, 21, tzinfo=UTC)))
    once = TriggerSpec("once", At(datetime(2026, 12, 24, 18, tzinfo=UTC)))
    triggers, belongs = (nightly, rate, once, TriggerSpec("by-hand")), Environment("reports", "Reporting")
    return TaskDefinition(*PLACE, "full", "1.10", spec, triggers, belongs, "Short.", "Long.\n\nLonger.")


@settings(max_examples=30, deadline=None)
@given(MAPPINGS)
def test_any_value_is_read_back_as_it_was(value: dict[str, object]) -> None:
    for unicode in (True, False):
        text = text_of({"inputs": value}, unicode=unicode)
        assert load_text(text, "x").value == {"inputs": value}
        assert unicode or text.isascii()


DOTTED = st.one_of(NAMES, st.sampled_from(["a", "b", "a.b", "A", ".", "..", ".a"]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(DOTTED, DOTTED, DOTTED), min_size=2, max_size=2, unique=True))
def test_two_tasks_never_share_a_file(keys: list[tuple[str, str, str]]) -> None:
    names = [file_name(TaskDefinition(*names, "v1", TaskSpec("x"))) for names in keys]
    assert names[0].lower() != names[1].lower()
    for name in names:
        assert name.isascii()
        assert len(name) < 200
        assert name[0] != "."
        assert name != CALENDARS


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_texts_are_written_for_people_where_they_can_be(text: str) -> None:
    assert load_text(text_of({"command": [text], "line": text}), "x").value == {"command": [text], "line": text}


def test_a_script_keeps_its_lines() -> None:
    assert text_of({"script": "set -e\nrun it\n"}) == "script: |\n  set -e\n  run it\n"


# --- what is told, and what is not -----------------------------------------------------------------------------------


def test_a_calendar_is_defined_once_and_two_of_one_name_are_written_where_they_are_used(
    world: World, tmp_path: Path
) -> None:
    world.deploy(trigger("a", calendars=(HOLIDAYS,)), task="one")
    world.deploy(trigger("b", calendars=(HOLIDAYS,)), task="two")
    assert Forms(exported(world)).calendars() == {
        "calendars": {"holidays": {"dates": ["2026-12-25", "2027-01-01"], "policy": "next"}}
    }
    other = replace(HOLIDAYS, policy="skip")
    world.deploy(trigger("c", calendars=(other, Calendar("rest"))), task="three")
    assert Forms(exported(world)).calendars() == {"calendars": {"rest": {"dates": [], "policy": "skip"}}}
    write(tmp_path, exported(world))
    read = load_manifests([tmp_path]).definitions
    assert {item.name: item.triggers[0].calendars for item in read} == {
        "one": (HOLIDAYS,),
        "two": (HOLIDAYS,),
        "three": (other, Calendar("rest")),
    }


def test_what_operators_and_sql_did_since_is_told_and_not_exported(world: World) -> None:
    wanted = (trigger("a"), trigger("b", active=False), trigger("c"))
    world.deploy(*wanted)
    world.client.deactivate(key("a"))
    world.client.activate(key("b"))
    world.sql("""UPDATE triggers SET automation = '{"cron": "0 0 * * *"}', jitter = 5 WHERE name = 'c'""")
    world.sql("INSERT INTO triggers (task_id, name) SELECT id, 'by-sql' FROM tasks")
    assert only(exported(world)) == definition(*wanted)
    place = "flytesnacks/development/report"
    assert remarks(world) == [
        f"{place}/a is inactive now, and exported as deployed: active: true",
        f"{place}/b is active now, and exported as deployed: active: false",
        f"{place}/c was changed by SQL since its deploy (automation, jitter), and is exported as deployed",
        f"{place}/by-sql is left out: it was made by SQL, not by a deploy",
    ]


def test_what_programs_deploy_themselves_is_left_out(world: World) -> None:
    world.deploy(trigger("theirs"), source="library", task="program")
    world.deploy(trigger("theirs"), source="library", task="mixed", version="v1")
    world.deploy(trigger("mine"), task="mixed", version="v2")
    assert [(item.name, [each.name for each in item.triggers]) for item in exported(world)] == [("mixed", ["mine"])]
    assert remarks(world) == [
        "flytesnacks/development/mixed/theirs is left out: a program deploys it",
        "flytesnacks/development/program is left out: a program deploys it",
    ]


def test_what_was_deleted_is_not_exported(world: World) -> None:
    world.deploy(trigger("a"), trigger("b"))
    world.deploy(trigger("c"), task="gone")
    world.client.delete_trigger(key("a"))
    world.client.delete_task("flytesnacks", "development", "gone")
    (found,) = exported(world)
    assert [item.name for item in found.triggers] == ["b"]
    assert {plan.action for plan in world.client.plan_deploy([found])} == {"unchanged"}


def test_the_latest_version_is_exported(world: World) -> None:
    world.deploy(trigger(), version="v1")
    world.deploy(trigger(automation=Cron("0 * * * *")), version="v2", spec=TaskSpec("logging", inputs={"a": 1}))
    (found,) = exported(world)
    assert (found.version, found.spec.inputs) == ("v2", {"a": 1})


def test_tasks_come_by_key_and_filters_choose_among_them(world: World) -> None:
    for name in ("b", "a", "a.c"):
        world.deploy(task=name)
    assert [item.name for item in exported(world)] == ["a", "a.c", "b"]
    assert [item.key for item in world.client.export(task="a")] == ["flytesnacks/development/a"]
    assert world.client.export(project="other") == []


def test_what_a_manifest_cannot_say_is_found_out(world: World) -> None:
    world.deploy(trigger(), task="fine")
    world.deploy(spec=TaskSpec("logging", max_concurrent_runs=2_000_000), task="endless")
    (key, reasons), *others = unsayable(exported(world)).items()
    assert (key, others) == ("flytesnacks/development/endless", [])
    assert "2000000 is not within" in only(reasons)


def test_a_specification_in_a_foreign_format_and_one_that_cannot_be_read_are_faults(world: World) -> None:
    world.deploy(trigger(), task="foreign")
    world.deploy(TriggerSpec("x"), task="broken", spec=TaskSpec("logging", inputs={"n": 1}))
    world.sql("UPDATE task_specs SET format = 'flyte' WHERE digest NOT IN (SELECT spec_digest FROM runs)")
    assert len([item.fault for item in world.client.export() if item.fault]) == 2
    world.sql("UPDATE task_specs SET format = 'json'")
    world.sql("UPDATE triggers SET deployed = '{}' WHERE name = 'x'")
    (fault,) = [item.fault for item in world.client.export() if item.fault]
    assert fault == "flytesnacks/development/broken/x: what its deploy said cannot be read"


@pytest.mark.heavy
def test_a_thousand_tasks_are_exported_in_half_a_minute_and_change_nothing(sqlite_url: str, tmp_path: Path) -> None:
    import time

    many = [definition(trigger("a"), trigger("b"), task=f"t{number}") for number in range(1_000)]
    with sqlite_world(sqlite_url) as world:
        list(world.client.deploy(many))
        start = time.monotonic()
        write(tmp_path, exported(world))
        assert time.monotonic() - start < 30
        assert {plan.action for plan in world.client.plan_deploy(load_manifests([tmp_path]).definitions)} == {
            "unchanged"
        }
