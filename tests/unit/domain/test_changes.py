"""What differs between two documents, and how tasks and triggers read as manifests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.changes import Change, changes
from scheduler.domain.manifest_form import task_form, trigger_form
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp, TriggerSpec
from tests.definitions import MAPPINGS


def test_mappings_are_compared_key_by_key_and_lists_whole() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "gone": {"x": 1}}
    after = {"a": {"b": 2, "c": [1]}, "d": 1, "new": None}
    assert changes(before, after) == (
        Change("a.b", 1, 2),
        Change("a.c", [1, 2], [1]),
        Change("gone", {"x": 1}, None),
        Change("new", None, None),
    )


def test_keys_that_would_not_read_as_a_path_are_quoted() -> None:
    assert [change.field for change in changes({"a": {"b.c": 1, "": 1}}, {"a": {}, "x y": 1})] == [
        'a["b.c"]',
        'a[""]',
        '["x y"]',
    ]


def test_what_python_calls_equal_may_still_differ() -> None:
    assert changes({"a": 1, "b": 1, "c": [0]}, {"a": True, "b": 1.0, "c": [False]}) == (
        Change("a", 1, True),
        Change("b", 1, 1.0),
        Change("c", [0], [False]),
    )


@given(MAPPINGS, MAPPINGS)
def test_there_are_changes_exactly_where_documents_differ(one: dict[str, object], other: dict[str, object]) -> None:
    from scheduler.domain.task import canonical_json

    assert changes(one, one) == ()
    assert bool(changes(one, other)) == (canonical_json(one) != canonical_json(other))


def test_a_form_holds_what_differs_from_the_defaults() -> None:
    definition = TaskDefinition("p", "d", "t", "v1", TaskSpec("logging"))
    assert task_form(definition) == {"name": "t", "version": "v1", "executor": "logging"}
    spec = TaskSpec("logging", timeout=timedelta(minutes=90), config={"a": (1, 2)})
    definition = TaskDefinition("p", "d", "t", "v1", spec, environment=Environment("e"), description="d" * 999)
    assert task_form(definition) == {
        "name": "t",
        "version": "v1",
        "environment": {"name": "e"},
        "description": "d" * 255,
        "executor": "logging",
        "config": {"a": [1, 2]},
        "timeout": "1h30m",
    }


def test_a_trigger_names_its_zone_always_and_of_its_catch_up_what_is_unusual() -> None:
    assert trigger_form(TriggerSpec("t")) == {"name": "t"}
    spec = TriggerSpec("t", Cron("0 2 * * *"), catchup=CatchUp(max_runs=3), end=datetime(2027, 1, 1, tzinfo=UTC))
    assert trigger_form(spec) == {
        "name": "t",
        "cron": {"expression": "0 2 * * *", "timezone": "UTC"},
        "catchup": {"max_runs": 3},
        "end": "2027-01-01T00:00:00Z",
    }
    assert trigger_form(TriggerSpec("t", FixedRate(5, "minute"))) == {
        "name": "t",
        "fixed_rate": {"value": 5, "unit": "minute"},
    }


def test_a_whole_form_has_every_key() -> None:
    whole = trigger_form(TriggerSpec("t", Cron("0 2 * * *")), whole=True)
    assert whole["catchup"] == {"policy": "all", "window": "7d", "max_runs": 10}
    assert whole["cron"] == {
        "expression": "0 2 * * *",
        "timezone": "UTC",
        "dialect": "auto",
        "day_rule": "robfig",
        "dst": "once",
    }
    assert (whole["fixed_rate"], whole["at"], whole["max_fires"], whole["active"]) == (None, None, None, True)
