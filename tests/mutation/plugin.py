"""A pytest plugin for the time in which mistakes are judged."""

from __future__ import annotations

import os

import pytest

from tests.simulation.faults import forget_statements

# What watches the clock would also fail where the machine is slow, at the lowest priority of all.
TIMED = {"test_finishing_stays_fast_after_an_analyze_at_an_idle_moment"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of tests that run on both databases those on SQLite judge: they are four times as fast.

    What PostgreSQL does otherwise, locks above all, has tests of its own, and those stay.
    """
    left_out = {item for item in items if item.name in TIMED or (isinstance(item, pytest.Function) and _repeats(item))}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _repeats(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("database_url") == "postgres"


def pytest_runtest_setup() -> None:
    """While mutmut finds out which tests call which function, every test has its statements built anew.

    A function that builds a statement once for all would else count as called by the first test alone.
    """
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        forget_statements()
