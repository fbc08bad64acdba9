"""A pytest plugin: while mutmut finds out which tests call which function, every test has its statements built anew.

A function that builds a statement once for all would else count as called by the first test alone.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.faults import forget_statements


@pytest.hookimpl
def pytest_runtest_setup() -> None:
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        forget_statements()
