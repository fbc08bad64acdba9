"""The pages' tables say what the code says: every key with its default, every reason, every log event, every link."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from executors import (
    AirbyteExecutor,
    ConnectorExecutor,
    HttpExecutor,
    HttpJobExecutor,
    Job,
    JobStatus,
    LoggingExecutor,
    PythonExecutor,
    ShellExecutor,
)
from executors.airbyte import _PHASES as AIRBYTE_PHASES
from executors.airflow.operator import AirflowOperatorExecutor
from executors.airflow.trigger import AirflowTriggerExecutor
from executors.flyte.run import FlyteRunExecutor
from executors.flyte.sdk import FlyteSdkExecutor
from executors.flyte.service import FlyteServiceExecutor
from scheduler import manifests
from scheduler.domain.automation import Cron
from scheduler.domain.calendars import Calendar
from scheduler.domain.instants import parse_duration
from scheduler.domain.ledger import Reason
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, CatchUpPolicy, TriggerSpec
from scheduler.reading import manifest_triggers
from scheduler.settings import _NOT_YET, Settings
from tests.pages import PAGES, ROOT, rows, text_of

REQUIRED = "required"
LATER = "not in force yet"


# --- what the pages say ----------------------------------------------------------------------------------------------


def documented(page: str) -> dict[str, tuple[str, str]]:
    """Default and meaning of every key in the page's tables of keys."""
    found: dict[str, tuple[str, str]] = {}
    for row in rows(page):
        if row.column == "key":
            (key,) = row.names
            assert key not in found, f"{page}: {key} has two rows"
            found[key] = (row.cells[2], row.cells[3])
    return found


def same(cell: str, default: object) -> bool:
    """Whether the cell of a table names this default."""
    if default is REQUIRED:
        return cell == REQUIRED
    if cell == "none":
        return default in (None, (), [])
    value = yaml.safe_load(cell.strip("`"))
    if isinstance(default, timedelta):
        return parse_duration(str(value), "") == default
    if isinstance(default, (tuple, frozenset)):
        default = list(default)
    if isinstance(default, Mapping):
        default = {key: list(item) if isinstance(item, tuple) else item for key, item in default.items()}
    return value == default


def assert_said(page: str, facts: Mapping[str, object]) -> None:
    """The page has a row for each key, none for any other, and each with the right default."""
    said = documented(page)
    assert set(said) == set(facts), f"{page}: missing {set(facts) - set(said)}, unknown {set(said) - set(facts)}"
    wrong = {
        key: (said[key][0], default)
        for key, default in facts.items()
        # "`defaults.project` of the settings": checked where that key stands.
        if not same(said[key][0], default) and not said[key][0].endswith("of the settings")
    }
    assert not wrong, f"{page}: says another default than the code: {wrong}"


# --- settings --------------------------------------------------------------------------------------------------------


def settings_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        default: Any = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        if not inner:
            yield key, [str(path) for path in default] if key == "tasks" else default
            continue
        shape = get_origin(field.annotation)
        below = ".NAME." if shape is dict else "[]." if shape is tuple else "."
        if below == "[].":
            yield key, default
        yield from settings_keys(inner[0], key + below)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def test_the_settings_page_has_every_key_with_its_default() -> None:
    assert_said("docs/settings.md", dict(settings_keys(Settings)))


def test_the_settings_page_says_which_keys_do_nothing_yet() -> None:
    later = {key for key, (_, meaning) in documented("docs/settings.md").items() if LATER in meaning}
    known = {key for path in _NOT_YET for key in _below(".".join("NAME" if p == "*" else p for p in path[0]))}
    assert later == known


def _below(prefix: str) -> list[str]:
    keys = [key for key in documented("docs/settings.md") if key == prefix or key.startswith(prefix + ".")]
    return [key for key in keys if "[]" not in key]  # A list's parts go with the list.


# --- manifests -------------------------------------------------------------------------------------------------------


def manifest_keys() -> dict[str, object]:
    task, trigger = TaskSpec("x"), TriggerSpec("x")
    definition = TaskDefinition("p", "d", "x", "v", task)
    facts: dict[str, object] = dict.fromkeys(manifests._FILE)
    for key in manifests._TASK - {"environment", "retries"}:
        facts[key] = getattr(task, key, getattr(definition, key, None))
    facts.update(dict.fromkeys(("name", "version", "executor"), REQUIRED), tasks=None, triggers=[])
    facts.update({f"environment.{key}": getattr(Environment(), key) for key in manifests._ENVIRONMENT})
    facts.update({f"retries.{key}": getattr(RetryPolicy(), key) for key in manifests._RETRIES})
    for key in manifest_triggers.TRIGGER - {"catchup"}:
        facts[f"triggers[].{key}"] = getattr(trigger, key, None)
    facts["triggers[].name"] = REQUIRED
    facts["triggers[].calendars"] = []
    facts.update({f"triggers[].catchup.{key}": getattr(CatchUp(), key) for key in manifest_triggers._CATCHUP})
    cron = Cron("* * * * *")
    facts.update({f"triggers[].cron.{key}": getattr(cron, key) for key in manifest_triggers._CRON})
    facts["triggers[].cron.expression"] = REQUIRED
    facts.update({f"triggers[].fixed_rate.{key}": REQUIRED for key in manifest_triggers._FIXED_RATE})
    facts["triggers[].fixed_rate.start_time"] = None
    facts.update({"calendars.NAME.dates": REQUIRED, "calendars.NAME.policy": Calendar("x").policy})
    return facts


def test_the_manifests_page_has_every_key_with_its_default() -> None:
    assert_said("docs/manifests.md", manifest_keys())


def test_the_manifests_page_says_which_keys_do_nothing_yet() -> None:
    later = {key for key, (_, meaning) in documented("docs/manifests.md").items() if LATER in meaning}
    known = {key for key, _ in manifests._TASK_NOT_YET} | {f"triggers[].{k}" for k, _ in manifests._TRIGGER_NOT_YET}
    assert later == known


# --- executors -------------------------------------------------------------------------------------------------------


def fields_of(schema: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(schema):
        key = prefix + str(field.metadata.get("key", field.name))
        default: object = REQUIRED
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(default):
            yield from fields_of(type(default), f"{key}.")
            continue
        yield key, default
        if key == "signature":
            from executors.http_request import Signature

            yield from fields_of(Signature, "signature.")


@pytest.mark.parametrize(
    ("page", "name", "executor"),
    [
        ("docs/executors.md", "shell", ShellExecutor),
        ("docs/executors.md", "python", PythonExecutor),
        ("docs/executors.md", "http", HttpExecutor),
        ("docs/connectors.md", "connector", ConnectorExecutor),
        ("docs/connectors.md", "http_job", HttpJobExecutor),
        ("docs/airbyte.md", "airbyte", AirbyteExecutor),
        ("docs/flyte-connectors.md", "flyte_service", FlyteServiceExecutor),
        ("docs/flyte-connectors.md", "flyte_sdk", FlyteSdkExecutor),
        ("docs/flyte-connectors.md", "flyte_run", FlyteRunExecutor),
        ("docs/airflow.md", "airflow_trigger", AirflowTriggerExecutor),
        ("docs/airflow.md", "airflow_operator", AirflowOperatorExecutor),
    ],
)
@pytest.mark.parametrize(("column", "schema"), [("config", "Config"), ("option", "Options")])
def test_the_page_of_an_executor_has_every_key(page: str, name: str, executor: type, column: str, schema: str) -> None:
    said = {row.names[0]: row.cells[2] for row in rows(page) if row.heading == name and row.column.strip("`") == column}
    facts = dict(fields_of(getattr(executor, schema)))
    assert set(said) == set(facts)
    assert not {key: said[key] for key, default in facts.items() if not same(said[key], default)}


def test_the_airbyte_page_tells_every_end_word_for_word() -> None:
    executor, job = AirbyteExecutor(host="https://airbyte.example"), Job({"job_id": 12345}, "12345")
    said = [(row.cells[0], *row.cells[1:]) for row in rows("docs/airbyte.md") if row.column == "at Airbyte"]
    ends = {word: JobStatus(phase) for word, phase in AIRBYTE_PHASES.items() if phase.is_over}
    assert said == [
        *((f"`{word}`", f"`{end.event}`", executor.end_message(job, end)) for word, end in ends.items()),
        ("still running after the task's `timeout`", "`error`", executor.timeout_message(job, 3600)),
        ("still running at the task's `deadline`", "`timeout`", executor.deadline_message(job)),
    ]


def test_the_logging_executor_has_no_keys_to_document() -> None:
    assert not dataclasses.fields(LoggingExecutor.Config)


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_catch_up_page_explains_every_reason() -> None:
    said = [name for row in rows("docs/catch-up.md") if row.column == "reason" for name in row.names]
    assert sorted(said) == sorted(str(reason) for reason in Reason)


def test_the_operations_page_explains_every_log_event() -> None:
    said = {name: row.cells[1] for row in rows("docs/operations.md") if row.column == "event" for name in row.names}
    events = dict(log_events())
    assert set(said) == set(events), f"missing {set(events) - set(said)}, unknown {set(said) - set(events)}"
    wrong = {event: (said[event], levels) for event, levels in events.items() if set(said[event].split(", ")) != levels}
    assert not wrong


def log_events() -> dict[str, set[str]]:
    """Every event that the package logs, with its levels, read from its code."""
    events: dict[str, set[str]] = {}
    for file in (ROOT / "scheduler").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}: an event is a plain text"
                events.setdefault(node.args[0].value, set()).add(node.func.attr)
    return events


def test_the_catch_up_page_explains_every_policy() -> None:
    said = {name for row in rows("docs/catch-up.md") if row.column == "`policy`" for name in row.names[:1]}
    assert said == set(get_args(CatchUpPolicy))


# --- links and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", text_of("README.md")))
    assert linked == set(PAGES[1:])


def test_the_unit_gives_the_worker_time_to_drain_and_kills_the_rest() -> None:
    text = (ROOT / "config/systemd/trigger-scheduler.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    assert unit["KillMode"] == "mixed"
    assert unit["Restart"] == "on-failure"
    grace = Settings().worker.shutdown_grace + ShellExecutor.Config(["true"]).kill_after
    assert parse_duration(unit["TimeoutStopSec"], "") > grace
    assert unit["ExecStart"].endswith(" serve")


def test_the_compose_file_names_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "config/docker/compose.yaml").read_text())
    worker = compose["services"]["worker"]
    build = worker["build"]
    context = (ROOT / "config/docker" / build["context"]).resolve()
    assert context == ROOT
    dockerfile = (context / build["dockerfile"]).read_text()
    copied = [word for line in dockerfile.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied
    assert all((context / name).exists() for name in copied)
    postgres = Settings.load(ROOT / "config/scheduler.postgres.yaml", env={})
    assert parse_duration(worker["stop_grace_period"], "") > postgres.worker.shutdown_grace
    (variable,) = worker["environment"]
    overridden = Settings.load(ROOT / "config/scheduler.postgres.yaml", env={variable: "postgresql://elsewhere/db"})
    assert overridden.database.url.endswith("://elsewhere/db")
