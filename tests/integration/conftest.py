"""The world of a test: one store, once on each database, and a clock that stands still."""

from __future__ import annotations

import pytest

from scheduler.store.transaction import Store
from tests.conftest import ManualClock
from tests.integration.worlds import World


@pytest.fixture
def world(store: Store, clock: ManualClock) -> World:
    """An empty database at noon of 2026-11-21, once on each kind."""
    return World(store, clock)
