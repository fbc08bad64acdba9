"""Runs that wait outside the worker: what for, how far they are, when to look again, how long errors are borne."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.run import Phase

_LONGEST_PAUSE: Final = 60 * SECOND
# 2**7 halves are more than a minute: beyond that the exponent only makes numbers that nothing holds.
_MOST_DOUBLINGS: Final = 7


class WaitKind(StrEnum):
    """An instant that the database watches; or something that a worker looks at: a poll, or a job of a service."""

    UNTIL = "until"
    POLL = "poll"
    JOB = "job"


class Stage(StrEnum):
    """How far a wait is.

    SUBMITTING: a job may have been made, and nobody knows yet. WAITING: it is watched. CANCELLING: how the run ends is
    decided, and the run stays open until its job is known to be over.
    """

    SUBMITTING = "submitting"
    WAITING = "waiting"
    CANCELLING = "cancelling"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt will end, decided before its job is over.

    `event` is the outcome event {status, message, job_id}, if there is one; `since` is when it was decided: the cancel is
    owed from then on. `retryable` False ends the run whatever attempts are left.
    """

    phase: Phase
    error: str
    since: Micros
    event: Mapping[str, Any] | None = field(default=None, hash=False)
    retryable: bool = True

    def encode(self) -> str:
        """The text that a wait stores."""
        return json.dumps(
            {
                "phase": self.phase.value,
                "error": self.error,
                "since": self.since,
                "event": self.event,
                "retryable": self.retryable,
            },
            separators=(",", ":"),
            ensure_ascii=False,
            default=str,
        )

    @classmethod
    def decode(cls, text: str) -> Ending:
        """What `encode` wrote."""
        document = json.loads(text)
        return cls(**document | {"phase": Phase(document["phase"])})


def outcome_event(status: str, message: str, job_id: str | int | None) -> dict[str, Any]:
    """The one event that says how a run's job ended: status is success, error, cancelled or timeout."""
    return {"status": status, "message": message, "job_id": job_id}


def pause_between(interval: Micros, spread: float) -> Micros:
    """Microseconds from one look to the next while all is well: the interval ±10 %; `spread` is a number in [0, 1)."""
    return int(interval * (0.9 + 0.2 * spread))


def pause_after_takeover(interval: Micros, spread: float) -> Micros:
    """Microseconds until a new holder's first look: anywhere within the interval, so that thousands do not come at once."""
    return int(interval * spread)


def pause_after_error(interval: Micros, errors: int, spread: float, asked: Micros | None = None) -> Micros:
    """Microseconds until the next try after so many errors in a row: min(60 s, 4·interval, 0.5 s·2ⁿ) ± 50 %.

    What the service `asked` for (its Retry-After) wins.
    """
    if asked is not None:
        return max(asked, 0)
    longest = min(_LONGEST_PAUSE, 4 * interval, SECOND // 2 * 2 ** min(errors, _MOST_DOUBLINGS))
    return int(longest * (0.5 + spread))


def budget_left(error_since: Micros | None, budget: Micros, now: Micros) -> Micros:
    """How much longer errors are borne that have followed each other since an instant; 0: the budget is spent.

    A clock that was set back meanwhile lengthens no budget.
    """
    if error_since is None:
        return budget
    return max(0, min(budget, error_since + budget - now))
