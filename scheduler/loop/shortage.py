"""What a worker may be short of, as errors of its executors tell it: that is the worker's trouble, and no run's."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from executors.errors import WorkerExhausted

# Other numbers of the kind, EAGAIN and ENOMEM, have other meanings too: only who knows the call says `WorkerExhausted`.
_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_THREADS: Final = "can't start new thread"
_CHAIN: Final = 10
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0


def shortage_of(error: BaseException) -> str | None:
    """What the worker was short of, if that is what an error, or one behind it, says."""
    seen: BaseException | None = error
    for _ in range(_CHAIN):
        if seen is None:
            return None
        if isinstance(seen, WorkerExhausted):
            return str(seen)
        if isinstance(seen, OSError) and seen.errno in _DESCRIPTORS:
            return seen.strerror or str(seen)
        if isinstance(seen, RuntimeError) and str(seen) == _THREADS:
            return _THREADS
        seen = seen.__cause__ or seen.__context__
    return None


@dataclass(slots=True)
class Shortage:
    """What an executor's runs lack in this worker: since when, in how many turns, and until when none is tried."""

    why: str
    since: float
    turns: int = 0
    until: float = 0.0

    def lasts(self, now: float) -> bool:
        """Whether it is to be reckoned with: until no run has met it for as long as the longest pause."""
        return now < self.until + _LONGEST_PAUSE

    def again(self, why: str, now: float) -> float:
        """One more run could not be performed; returns the seconds for which no other is tried."""
        self.why = why
        if now >= self.until:  # Runs that failed together are one turn.
            self.turns += 1
            self.until = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.turns - 1, 10))
        return self.until - now
