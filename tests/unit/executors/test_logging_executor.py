"""The executor that only says what would run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from executors import LoggingExecutor, Succeeded
from executors.registry import check_config
from tests.unit.executors.worlds import make_run, perform


def test_it_logs_trigger_slot_and_inputs_and_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    executor = LoggingExecutor()
    run = make_run(
        executor,
        project="flytesnacks",
        domain="production",
        trigger="nightly",
        scheduled_at=datetime(2026, 11, 21, 2, tzinfo=UTC),
        inputs={"region": "eu"},
    )
    with caplog.at_level("INFO", logger="executors"):
        assert asyncio.run(perform(executor, run)) == Succeeded()
    assert caplog.messages == [
        "Firing trigger flytesnacks/production/nightly scheduled for 2026-11-21T02:00:00Z with inputs {'region': 'eu'}"
    ]


def test_a_manual_run_is_fired_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    executor = LoggingExecutor()
    with caplog.at_level("INFO", logger="executors"):
        asyncio.run(perform(executor, make_run(executor, trigger="now")))
    assert caplog.messages == ["Firing trigger flytesnacks/development/now by hand"]


def test_a_config_it_would_not_heed_is_refused() -> None:
    assert check_config(LoggingExecutor, {"level": "debug"}) == [("level", "unknown key")]
