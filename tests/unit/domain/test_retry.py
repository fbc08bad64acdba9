"""When a failed attempt is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.instants import SECOND
from scheduler.domain.retry import RetryPolicy, delay_after_loss
from scheduler.errors import SpecError


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (10_000, 60)])
def test_waits_grow_up_to_the_maximum_within_a_fifth(attempt: int, seconds: int) -> None:
    policy = RetryPolicy(99, timedelta(seconds=10), 2.0, timedelta(seconds=60))
    for run in ("a", "b", "c"):
        assert seconds * 0.8 * SECOND <= policy.delay(attempt, run) <= seconds * 1.2 * SECOND


@given(st.text(max_size=59), st.integers(1, 2**31))
def test_every_worker_computes_the_same_instant(run: str, attempt: int) -> None:
    assert RetryPolicy().delay(attempt, run) == RetryPolicy().delay(attempt, run) >= 0


def test_runs_spread() -> None:
    assert len({RetryPolicy().delay(1, f"run-{number}") for number in range(100)}) > 90


def test_a_target_that_asks_for_more_gets_it_and_one_that_asks_for_less_does_not() -> None:
    policy = RetryPolicy()
    assert policy.delay(1, "a", timedelta(minutes=50)) == 3_000 * SECOND
    assert policy.delay(1, "a", timedelta(seconds=1)) == policy.delay(1, "a")


def test_no_target_makes_a_run_wait_longer_than_the_tasks_maximum() -> None:
    assert RetryPolicy().delay(1, "a", timedelta(days=11_574)) == 3_600 * SECOND
    assert RetryPolicy(maximum=timedelta(hours=3)).delay(1, "a", timedelta(hours=2)) == 7_200 * SECOND


def test_no_wait_is_a_wait_of_nought() -> None:
    assert RetryPolicy(3, timedelta(0)).delay(2, "a") == 0


def test_runs_lost_together_begin_again_apart_once_it_may_be_one_of_them() -> None:
    lease = 30 * SECOND
    waits = {lost: [delay_after_loss(f"run-{number}", lost, lease) for number in range(100)] for lost in range(1, 6)}
    assert set(waits[1]) == {0}
    for lost, least in ((2, lease), (3, 2 * lease), (4, 4 * lease), (5, 8 * lease)):
        assert all(least <= wait < least + lease for wait in waits[lost])
        assert max(waits[lost]) - min(waits[lost]) > lease / 2
    assert delay_after_loss("run", 1_000, lease) < 2**63


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_attempts": 0}, "retries.max_attempts"),
        ({"initial": timedelta(seconds=-1)}, "retries.initial"),
        ({"maximum": timedelta(seconds=-1)}, "retries.maximum"),
        ({"multiplier": 0.5}, "retries.multiplier"),
        ({"multiplier": 101}, "retries.multiplier"),
        ({"multiplier": float("nan")}, "retries.multiplier"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        RetryPolicy(**options)  # type: ignore[arg-type]
    assert caught.value.field == field
