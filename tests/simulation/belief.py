"""What a worker should believe of the database's clock, by a rule of its own beside the guard's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler.domain.instants import SECOND, Micros

if TYPE_CHECKING:
    from tests.simulation.workers import SimulatedWorker
    from tests.simulation.world import World

A_MINUTE = 60 * SECOND


@dataclass
class Belief:
    """One worker's: by how much the clock was off true time when it was last believed, and since when it is doubted.

    `alone`: the worker runs on the database's machine. Else its own clock may confirm what that one says.
    """

    world: World
    worker: SimulatedWorker
    bound: Micros
    alone: bool
    error: Micros = 0
    own_error: Micros = 0
    doubts: list[tuple[Micros, Micros]] = field(default_factory=list)

    def begins(self, last_seen: Micros | None) -> None:
        """It starts; an instant long after the last one of the database may be an outage, or a clock that is wrong."""
        self.error, self.own_error = self._error(), self.worker.wall.offset
        if last_seen is not None and self.world.now - last_seen > self.bound:
            self.error -= self.world.now - last_seen

    def should_believe(self) -> bool:
        """Whether what the clock says now is to be believed; it is asked at each look."""
        error, own = self._error(), self.worker.wall.offset
        close = abs(own - error) <= self.bound
        agreed = not self.alone and close and abs(own - self.own_error) <= self.bound
        if error - self.error > self.bound and not agreed:
            if self.doubts and abs(error - self.doubts[0][1]) > self.bound:
                self.doubts.clear()
            self.doubts.append((self.world.elapsed, error))
            if self.world.elapsed - self.doubts[0][0] < A_MINUTE:
                return False
        self.error, self.own_error = error, own
        self.doubts.clear()
        return True

    def _error(self) -> Micros:
        return self.world.now - self.world.began_at - self.world.elapsed
