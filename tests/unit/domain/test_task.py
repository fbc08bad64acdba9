"""Task specifications, their digests, and what a deploy brings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec, merge_inputs
from scheduler.domain.trigger import CatchUp, TriggerSpec
from scheduler.errors import SpecError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text(), VALUES, max_size=4)
# PostgreSQL keeps no NUL in a text.
_KEPT = st.characters(exclude_characters="\0", codec="utf-8")
DURATIONS = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=9_999))
SPECS = st.builds(
    TaskSpec,
    executor=st.sampled_from(["logging", "shell"]),
    config=DOCUMENTS,
    inputs=DOCUMENTS,
    timeout=st.none() | DURATIONS,
    deadline=st.none() | DURATIONS,
    retries=st.builds(RetryPolicy, st.integers(1, 99), DURATIONS, st.floats(1, 100), DURATIONS),
    max_concurrent_runs=st.none() | st.integers(1, 9),
    on_lost=st.sampled_from(["retry", "fail"]),
    on_unknown=st.sampled_from(["fail", "resubmit"]),
    cancel_give_up=DURATIONS,
)


def task(**options: Any) -> TaskDefinition:
    values = {"project": "p", "domain": "d", "name": "reports.nightly", "version": "v1", "spec": TaskSpec("logging")}
    return TaskDefinition(**values | options)


@given(SPECS)
def test_a_specification_is_read_back_as_it_was_written(spec: TaskSpec) -> None:
    assert TaskSpec.decode(spec.encode()) == spec
    assert TaskSpec.decode(spec.encode()).digest == spec.digest


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    assert TaskSpec("x", config={"a": 1, "b": 2}).digest == TaskSpec("x", config={"b": 2, "a": 1}).digest


def test_defaults_written_out_do_not_change_the_digest() -> None:
    assert TaskSpec("x", retries=RetryPolicy(1), on_lost="retry", inputs={}).digest == TaskSpec("x").digest
    assert TaskSpec("x").encode() == b'{"executor":"x"}'


def test_any_other_value_changes_the_digest() -> None:
    plain = TaskSpec("x")
    others = [
        TaskSpec("y"),
        replace(plain, config={"a": 1}),
        replace(plain, inputs={"a": 1}),
        replace(plain, timeout=timedelta(seconds=1)),
        replace(plain, deadline=timedelta(seconds=1)),
        replace(plain, retries=RetryPolicy(2)),
        replace(plain, max_concurrent_runs=1),
        replace(plain, on_lost="fail"),
        replace(plain, on_unknown="resubmit"),
        replace(plain, cancel_give_up=timedelta(hours=1)),
    ]
    digests = {spec.digest for spec in (plain, *others)}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"executor": ""}, "executor"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"deadline": timedelta(seconds=-1)}, "deadline"),
        ({"max_concurrent_runs": 0}, "max_concurrent_runs"),
        ({"on_lost": "shrug"}, "on_lost"),
        ({"on_unknown": "shrug"}, "on_unknown"),
        ({"inputs": {"when": datetime(2026, 1, 1, tzinfo=UTC)}}, "inputs.when"),
        ({"inputs": {"a": [1, {"b": float("nan")}]}}, "inputs.a[1].b"),
        ({"config": {1: "a"}}, "config"),
        ({"config": {"a": "half \ud800"}}, "config.a"),
        ({"inputs": {"half \ud800": 1}}, "inputs"),
    ],
)
def test_a_specification_that_cannot_be_is_refused_at_its_path(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        TaskSpec(**{"executor": "x"} | options)
    assert caught.value.field == field


def test_two_triggers_of_one_name_are_refused() -> None:
    with pytest.raises(SpecError, match=r"triggers\[1\].name.*used twice"):
        task(triggers=(TriggerSpec("a"), TriggerSpec("a")))


def test_a_deploy_digest_covers_all_a_deploy_says_and_no_order() -> None:
    plain = task(triggers=(TriggerSpec("a"), TriggerSpec("b")))
    assert plain.deploy_digest == task(triggers=(TriggerSpec("b"), TriggerSpec("a"))).deploy_digest
    others = [
        replace(plain, version="v2"),
        replace(plain, spec=TaskSpec("shell")),
        replace(plain, description="x"),
        replace(plain, long_description="x"),
        replace(plain, environment=Environment("reports")),
        replace(plain, environment=Environment("reports", "x")),
        replace(plain, triggers=(TriggerSpec("a"),)),
        replace(plain, triggers=(TriggerSpec("a"), TriggerSpec("b", active=False))),
        replace(plain, triggers=(TriggerSpec("a"), TriggerSpec("b", inputs={"n": 1}))),
    ]
    digests = {definition.deploy_digest for definition in (plain, *others)}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    ("name", "environment", "function"),
    [
        ("reports.nightly", "reports", "nightly"),
        ("reports.nightly", "", "nightly"),
        ("reports.daily.nightly", "reports", "daily.nightly"),
        ("reports.nightly", "other", "nightly"),
        ("nightly", "nightly", "nightly"),
        ("reports.", "", "reports."),
    ],
)
def test_a_function_is_named_without_its_environment(name: str, environment: str, function: str) -> None:
    assert task(name=name, environment=Environment(environment)).function_name == function


def test_descriptions_are_cut_to_what_is_stored() -> None:
    long = task(description="d" * 999, long_description="l" * 9_999)
    assert (len(long.short_description), len(long.full_description)) == (255, 2_048)
    assert long.key == "p/d/reports.nightly"


def test_later_inputs_win_key_by_key() -> None:
    assert merge_inputs({"a": 1, "b": 1}, {"b": 2, "c": 2}, {"c": 3}) == {"a": 1, "b": 2, "c": 3}


TRIGGERS = st.builds(
    TriggerSpec,
    name=st.just("nightly"),
    automation=st.sampled_from([None, Cron("0 2 * * *", "Europe/Paris"), FixedRate(5, "minute")]),
    kickoff_time_input_arg=st.none() | st.just("when"),
    inputs=DOCUMENTS,
    catchup=st.builds(CatchUp, st.sampled_from(["all", "gap"]), DURATIONS, st.integers(0, 9)),
    overlap=st.sampled_from(["allow_all", "skip"]),
    pause_on_failure=st.none() | st.integers(1, 9),
    jitter=st.just(timedelta(0)) | DURATIONS,
    start=st.none() | st.just(datetime(2026, 11, 21, 12, 0, 0, 500, tzinfo=UTC)),
    end=st.none() | st.just(datetime(2026, 11, 22, tzinfo=UTC)),
    max_fires=st.none() | st.integers(1, 9),
    active=st.booleans(),
    description=st.text(_KEPT, max_size=9),
)


@given(TRIGGERS)
def test_a_trigger_is_read_back_as_it_was_written(spec: TriggerSpec) -> None:
    assert TriggerSpec.from_document(spec.to_document()) == spec


def test_a_triggers_defaults_are_not_written() -> None:
    assert TriggerSpec("nightly").to_document() == {"name": "nightly"}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"overlap": "maybe"}, "overlap"),
        ({"pause_on_failure": 0}, "pause_on_failure"),
        ({"max_fires": 0}, "max_fires"),
        ({"max_fires": 2**31}, "max_fires"),
        ({"pause_on_failure": 2**31}, "pause_on_failure"),
        ({"jitter": timedelta(days=40_000)}, "jitter"),
        ({"inputs": {"n": float("nan")}}, "inputs.n"),
        ({"inputs": {"n": ["\ud800"]}}, "inputs.n[0]"),
        ({"kickoff_time_input_arg": "k" * 256}, "kickoff_time_input_arg"),
        ({"description": "a\0b"}, "description"),
        ({"jitter": timedelta(seconds=-1)}, "jitter"),
        ({"start": datetime(2026, 1, 1)}, "start"),
        ({"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)}, "end"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused_at_its_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        TriggerSpec(**{"name": "nightly"} | options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"policy": "some"}, "catchup.policy"),
        ({"window": timedelta(seconds=-1)}, "catchup.window"),
        ({"max_runs": -1}, "catchup.max_runs"),
    ],
)
def test_a_catch_up_that_cannot_be_is_refused_at_its_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        CatchUp(**options)
    assert caught.value.field == field
