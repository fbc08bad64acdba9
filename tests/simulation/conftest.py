"""One universe a process: opening a database costs more than playing a world in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.play import Universe, universe


@pytest.fixture(scope="session")
def here() -> Iterator[Universe]:
    """A universe on SQLite."""
    with universe() as found:
        yield found
