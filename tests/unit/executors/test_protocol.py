"""The contract: a context that tests can build, outcomes that are checked, errors that become outcomes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import executors
from executors import (
    Deferred,
    Executor,
    ExecutorConfigError,
    Failed,
    Outcome,
    PermanentError,
    Poll,
    RetryableError,
    RunContext,
    Succeeded,
    Until,
    as_failure,
    as_outcome,
)
from tests.unit.executors.worlds import ROOT

SLOT = datetime(2026, 11, 21, 2, tzinfo=UTC)


class Post(Executor):
    @dataclass(frozen=True)
    class Options:
        webhook_url: str
        timeout: float = 10.0

    async def execute(self, run: RunContext) -> Outcome:
        return Succeeded({"to": self.options.webhook_url})


def test_a_context_needs_nothing_but_a_name() -> None:
    run = RunContext("nightly-1")
    assert run.key == "nightly-1"
    assert (run.attempt, run.inputs, run.config, run.secrets, run.scheduled_at) == (1, {}, {}, {}, None)
    assert run.now() == run.now()
    assert run.now().tzinfo is not None
    assert not run.abandoned


def test_now_is_the_clock_that_was_given_else_the_slot() -> None:
    assert RunContext("n", scheduled_at=SLOT).now() == SLOT
    assert RunContext("n", scheduled_at=SLOT, clock=lambda: SLOT + timedelta(hours=1)).now().hour == 3


def test_a_context_does_not_print_its_secrets() -> None:
    assert "tok-123" not in repr(RunContext("n", secrets={"api": "tok-123"}))


def test_the_log_of_a_plain_context_is_a_stdlib_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="executors"):
        RunContext("nightly-1").log.info("hello %s", "you")
    assert caplog.messages == ["hello you"]
    assert caplog.records[0].run == "nightly-1"  # type: ignore[attr-defined]


def test_a_context_of_its_own_makes_one_session_and_closes_it() -> None:
    async def scene() -> bool:
        async with RunContext("n") as run:
            session = run.http
            assert run.http is session
            assert not session.closed
        return session.closed

    assert asyncio.run(scene())


def test_the_worker_supplies_the_shared_session() -> None:
    session: Any = object()
    assert RunContext("n", http_session=lambda: session).http is session


@pytest.mark.parametrize(
    "make",
    [
        lambda: Post(Post.Options("https://example.org")),
        lambda: Post({"webhook_url": "https://example.org"}),
        lambda: Post(webhook_url="https://example.org", timeout=10),
    ],
)
def test_options_come_as_an_instance_a_mapping_or_keywords(make: Any) -> None:
    assert make().options == Post.Options("https://example.org", 10.0)


def test_wrong_options_are_all_named_at_once_and_never_shown() -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        Post({"webhook_ulr": "https://tok-123.example.org", "timeout": "tok-456"})
    assert caught.value.problems == (
        ("options.webhook_ulr", "unknown key (did you mean webhook_url?)"),
        ("options.timeout", "must be a number, not a text"),
        ("options.webhook_url", "is missing"),
    )
    assert "tok-" not in str(caught.value)


def test_an_option_quoted_by_the_authors_own_check_is_not_shown() -> None:
    class Picky(Post):
        @dataclass(frozen=True)
        class Options:
            token: str

            def __post_init__(self) -> None:
                raise ValueError(f"{self.token} is too short")

    with pytest.raises(ExecutorConfigError, match="… is too short"):
        Picky(token="tok-123")


def test_an_executor_without_options_takes_none() -> None:
    class Plain(Executor):
        async def execute(self, run: RunContext) -> None:
            return None

    assert Plain().options is None
    with pytest.raises(ExecutorConfigError, match="colour: takes no options"):
        Plain({"colour": "red"})


@pytest.mark.parametrize(
    "value", [Succeeded({"a": [1, None, "x"]}), Failed("no"), Deferred(Until(SLOT), {"at": 3}), Deferred(Poll())]
)
def test_an_outcome_is_itself(value: Outcome) -> None:
    assert as_outcome(value) is value


def test_none_is_success_without_outputs() -> None:
    assert as_outcome(None) == Succeeded() == Succeeded({})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"status": 200}, r"returned a dict.*return Succeeded\(\{…\}\)"),
        (True, r"returned a bool, which is no outcome: return Succeeded\(\)"),
        (Succeeded, r"returned the class Succeeded"),
        (ValueError("x"), r"returned a ValueError: raise it"),
        (Succeeded({"when": SLOT}), r"outputs\.when is a datetime"),
        (Succeeded({"share": float("nan")}), r"outputs\.share is nan"),
        (Succeeded({"rows": [{1: 2}]}), r"outputs\.rows\[0\] has the key 1, which is a int"),
        (Succeeded([1]), r"takes a mapping, not a list"),  # type: ignore[arg-type]
        (Deferred("noon"), r"takes an Until or a Poll, not a str"),  # type: ignore[arg-type]
        (Deferred(Poll(), state={1}), r"state is a set"),
    ],
)
def test_what_is_no_outcome_is_refused_with_what_to_do(value: object, reason: str) -> None:
    with pytest.raises(PermanentError, match=reason):
        as_outcome(value)


def test_errors_of_ours_become_failures_by_their_own_words() -> None:
    assert as_failure(PermanentError("never")) == Failed("never", retryable=False)
    assert as_failure(RetryableError("later", retry_after=2)) == Failed("later", retry_after=timedelta(seconds=2))
    assert as_failure(RetryableError("cut off", outcome_known=False)) == Failed("cut off", outcome_known=False)


def test_any_other_exception_is_retryable_and_keeps_its_traceback() -> None:
    try:
        {}["region"]  # type: ignore[index]
    except KeyError as error:
        failure = as_failure(error)
    assert failure.retryable
    assert "test_protocol.py" in failure.error
    assert failure.error.rstrip().endswith("KeyError: 'region'")


def test_an_endless_error_keeps_its_end() -> None:
    failure = as_failure(ValueError("x" * 100_000 + "\0 the cause"))
    assert len(failure.error) < 20_000
    assert "the cause" in failure.error
    assert "\0" not in failure.error


def test_a_cancellation_is_not_a_failure() -> None:
    with pytest.raises(TypeError, match="only the worker knows"):
        as_failure(asyncio.CancelledError())


@pytest.mark.parametrize(
    "make",
    [lambda: Until(datetime(2026, 1, 1)), lambda: Poll(timedelta(0)), lambda: Poll(error_budget=timedelta(seconds=-1))],
)
def test_impossible_waits_cannot_be_made(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def test_polling_without_a_poll_method_says_so() -> None:
    with pytest.raises(PermanentError, match=r"Post deferred a run with Poll, but defines no poll\(\)"):
        asyncio.run(Post(webhook_url="x").poll(RunContext("n")))


def test_every_public_name_can_be_had() -> None:
    for name in executors.__all__:
        assert getattr(executors, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Executer'"):
        _ = executors.Executer


def test_importing_the_contract_loads_nothing_heavy() -> None:
    program = (
        "import sys; from executors import Executor, RunContext, Succeeded, ShellExecutor, LoggingExecutor\n"
        "print([m for m in ('aiohttp', 'tenacity', 'pydantic', 'importlib.metadata', 'scheduler') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_request_loads_nothing_while_other_runs_are_due() -> None:
    program = """
import asyncio, sys
from executors import HttpExecutor, RunContext
from executors.registry import parse_config

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    executor = HttpExecutor()
    await executor.start()
    before = set(sys.modules)
    async with RunContext("nightly-1", config=parse_config(HttpExecutor, {"url": url})) as run:
        print((await executor.execute(run)).outputs["status"])
    print(sorted(set(sys.modules) - before))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["204", "[]"]
