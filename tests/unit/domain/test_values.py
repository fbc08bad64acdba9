"""What no database would keep is refused before it gets there, with the part that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from scheduler.domain.retry import RetryPolicy
from scheduler.domain.task import Environment, TaskDefinition, TaskSpec
from scheduler.domain.trigger import CatchUp
from scheduler.domain.values import check_json
from scheduler.errors import SpecError


def task(**options: Any) -> TaskDefinition:
    return TaskDefinition("p", "d", "t", "v1", TaskSpec("logging"), **options)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: task(description="a\0b"), "description"),
        (lambda: task(long_description="\ud800"), "long_description"),
        (lambda: Environment("e" * 256), "environment.name"),
        (lambda: Environment("e", "\0"), "environment.description"),
        (lambda: TaskSpec("logging", max_concurrent_runs=2**31), "max_concurrent_runs"),
        (lambda: TaskSpec("logging", max_concurrent_runs=0), "max_concurrent_runs"),
        (lambda: TaskSpec("logging", timeout=timedelta.max), "timeout"),
        (lambda: TaskSpec("logging", deadline=timedelta(0)), "deadline"),
        (lambda: TaskSpec("logging", cancel_give_up=timedelta(seconds=-1)), "cancel_give_up"),
        (lambda: TaskSpec("logging", inputs={"a": {"b": [10**400]}}), "inputs.a.b[0]"),
        (lambda: CatchUp(window=timedelta.max), "catchup.window"),
        (lambda: CatchUp(max_runs=2**31), "catchup.max_runs"),
        (lambda: RetryPolicy(maximum=timedelta.max), "retries.maximum"),
        (lambda: RetryPolicy(initial=timedelta(seconds=-1)), "retries.initial"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_its_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        make()
    assert refused.value.field == field


def test_json_may_be_deep_but_not_so_deep_that_nobody_reads_it_back() -> None:
    check_json(nested(100), "inputs")
    with pytest.raises(SpecError, match="is nested more than 100 levels deep"):
        check_json(nested(100_000), "inputs")
