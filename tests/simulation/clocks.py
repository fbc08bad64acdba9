"""The clocks of a world: true time, which only passes; the database's clock; and that of every process.

All of them may be set, at any time and apart from each other. The product is to read the database's clock alone: the
process's own is what `SystemClock` tells while a world is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from scheduler.clock import SystemClock
from scheduler.domain.instants import Micros

if TYPE_CHECKING:
    from tests.simulation.world import World


class Wall:
    """One process's wall clock, off by so much."""

    def __init__(self, world: World, offset: Micros = 0, check: Callable[[Micros], None] | None = None) -> None:
        self._world = world
        self.offset = offset
        # Looks at each instant that the process is told by the database.
        self.check = check

    def now(self) -> Micros:
        return self._world.began_at + self._world.elapsed + self.offset


@contextmanager
def process_clocks(world: World) -> Iterator[None]:
    """The machine's clock is that of whichever process acts in the world."""
    with patch.object(SystemClock, "now", lambda _: world.here.now()):
        yield
