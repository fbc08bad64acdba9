"""What a deferred run waits for: values that are stored, so they say *what*, never *how*."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Until:
    """Resume at an instant: `at` is an aware datetime of any zone; one that is past resumes at once."""

    at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"Until({self.at.isoformat()}) has no zone: give an aware datetime")


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask `Executor.poll` every `interval` until it answers with something other than another `Poll`.

    Errors of `poll` are tried again at the next turn; after `error_budget` of nothing but errors the attempt fails.
    """

    interval: timedelta = timedelta(seconds=10)
    error_budget: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        if self.interval <= timedelta(0):
            raise ValueError(f"Poll(interval={self.interval}) is not a positive duration")
        if self.error_budget < timedelta(0):
            raise ValueError(f"Poll(error_budget={self.error_budget}) is negative")


Wait: TypeAlias = Until | Poll
