"""Worlds whose connections are closed at the end of a test, and servers that a test may take away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.e2e.servers import Server, running_server
from tests.e2e.targets import Target, serving
from tests.e2e.worlds import World, eventually

NewWorld: TypeAlias = Callable[..., World]


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    """Makes worlds; at the end, none of their processes may be left."""
    made: list[World] = []

    def make(database_url: str, *args: Any, **keywords: Any) -> World:
        folder = tmp_path / f"world-{len(made) + 1}"
        folder.mkdir()
        made.append(World(folder, database_url, *args, **keywords))
        return made[-1]

    yield make
    for world in made:
        world.close()
        eventually(lambda world=world: not world.children(), f"no process of {world.folder.name} is left", 15)


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL server of this test's own, running."""
    with running_server() as running:
        yield running


@pytest.fixture
def target() -> Iterator[Target]:
    """A loopback target of this test's own."""
    with serving() as served:
        yield served
