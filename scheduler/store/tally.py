"""What a transaction did that people count, written down by the verbs that do it and told once it is committed.

A service may be asked by a worker's loop, the command line or a program: what it did is counted in this one place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from scheduler.domain.instants import Micros


class Start(NamedTuple):
    """A run that became RUNNING. `lateness` counts from its slot's due instant; None unless a slot's first start."""

    executor: str
    kind: str
    late: bool
    lateness: Micros | None


@dataclass(slots=True)
class Tally:
    """What one transaction did, by number."""

    inserted: Counter[str] = field(default_factory=Counter)
    """New runs, by kind."""
    started: Counter[Start] = field(default_factory=Counter)
    """Starts, those that are alike counted together: a batch of a burst has but one kind."""
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Runs that reached a final phase, by phase and executor."""
    retried: Counter[str] = field(default_factory=Counter)
    """Attempts that ended and are followed by another one, by executor."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Slots that got no run, by reason."""
    lost: Counter[str] = field(default_factory=Counter)
    """Runs taken back from workers that are gone, by the phase they have now."""
    refused: int = 0
    """Late results that no longer counted, by fence."""


class Watcher(Protocol):
    """Is told of every transaction, in the thread that ran it; it answers at once and raises nothing."""

    def committed(self, tally: Tally, seconds: float) -> None:
        """A transaction happened; `seconds` is all it took, from asking for a connection."""
        ...

    def undone(self, error: BaseException, seconds: float) -> None:
        """A transaction did not happen: the database was away, or the service raised."""
        ...
