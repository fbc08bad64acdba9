"""What runs return and say, as far as it can be kept: results are whole or refused, texts for people keep their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from executors import Deferred, Executor, Failed, Outcome, RunContext, Succeeded, Until
from scheduler.domain.retry import RetryPolicy
from scheduler.schedules import Trigger
from scheduler.testing import Harness, Run

MIB = 1024 * 1024


class Table(Mapping[str, int]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> int:
        return {"rows": 3}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["rows"])

    def __len__(self) -> int:
        return 1


class Returns(Executor):
    """Ends as the test says."""

    def __init__(self, outcome: Callable[[], Any]) -> None:
        super().__init__()
        self.outcome = outcome

    async def execute(self, run: RunContext) -> Outcome:
        """Prints something, too."""
        run.output.write("printed\0\ud800")
        answer: Outcome = self.outcome()
        return answer


def ended(outcome: Callable[[], Any], **retries: Any) -> Run:
    with Harness(Returns(outcome)) as harness:
        trigger = Trigger(
            project="flytesnacks", domain="development", task="report", name="t", retries=RetryPolicy(**retries)
        )
        harness.deploy(trigger)
        harness.fire(trigger)
        (run,) = harness.tick("2h")
        assert harness.client.run_output(run.name)[0]["output"] == "printed\ufffd?"
        return run


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (lambda: Succeeded({"x": "a" * 50 * MIB}), "its result has 52,428,808 bytes, 1,048,576 are kept: "),
        (lambda: Succeeded({"x": "ü" * MIB}), "its result has 2,097,160 bytes, 1,048,576 are kept: "),
        (lambda: Deferred(Until(datetime(2026, 12, 1, tzinfo=UTC)), "a" * 2 * MIB), "its state has 2,097,154 bytes"),
        (lambda: Succeeded({"x": float("nan")}), "outputs.x is nan"),
        (lambda: Succeeded({"x": float("inf")}), "outputs.x is inf"),
        (lambda: Succeeded({"x": 10**5000}), "outputs.x is a number of more than 300 digits: make it a text"),
        (lambda: Succeeded({"x": nested(5000)}), "is nested more than 100 levels deep, or contains itself"),
        (lambda: Succeeded({"x": "\ud800"}), "outputs.x holds half a surrogate pair"),
        (lambda: Succeeded({"\ud800": 1}), "outputs has a key with half a surrogate pair"),
        (lambda: Succeeded({"x": b"bytes"}), "outputs.x is a bytes"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_its_run_for_good(outcome: Callable[[], Any], said: str) -> None:
    run = ended(outcome, max_attempts=3)
    assert (run.phase, run.attempt, run.outputs) == ("FAILED", 1, None)
    assert said in str(run.error)


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        (Table(), {"rows": 3}),
        (MappingProxyType({}), {}),
        (MappingProxyType({"a": MappingProxyType({"b": (1, 2)})}), {"a": {"b": [1, 2]}}),
        ({"nul": "a\0b", "wide": 2**64, "deep": nested(90)}, {"nul": "a\0b", "wide": 2**64, "deep": nested(90)}),
        ({"x": "a" * (MIB - 8)}, {"x": "a" * (MIB - 8)}),
    ],
)
def test_what_json_carries_is_kept_as_it_is(outputs: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    run = ended(lambda: Succeeded(outputs))
    assert (run.phase, run.outputs) == ("SUCCEEDED", kept)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (lambda: Failed("x" * 50 * MIB + " the cause"), " the cause"),
        (lambda: Failed("\0\ud800 the cause"), " the cause"),
        (lambda: Failed(ValueError("the cause")), "ValueError: the cause"),  # type: ignore[arg-type]
        (lambda: Failed(None), "None"),  # type: ignore[arg-type]
        (lambda: Failed("the cause", retry_after=3), "the cause"),  # type: ignore[arg-type]
        (lambda: Failed("the cause", retry_after="soon"), "the cause"),  # type: ignore[arg-type]
        (lambda: Failed("the cause", retry_after=timedelta.max), "the cause"),
    ],
)
def test_a_failure_keeps_its_cause_whatever_stands_in_its_fields(outcome: Callable[[], Any], said: str) -> None:
    run = ended(outcome, max_attempts=2)
    assert (run.phase, [attempt.phase for attempt in run.attempts]) == ("FAILED", ["FAILED", "FAILED"])
    assert str(run.error).strip().endswith(said.strip())
    assert len(str(run.error)) < 20_000
