"""The phases of a run and the transitions between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from scheduler.errors import IllegalTransition


class Phase(StrEnum):
    """QUEUED → RUNNING → (DEFERRED → QUEUED → RUNNING)* → SUCCEEDED | FAILED | TIMED_OUT | ABORTED."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DEFERRED = "DEFERRED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"

    @property
    def open(self) -> bool:
        """True from insertion until the final phase."""
        return self in OPEN


OPEN: Final = frozenset({Phase.QUEUED, Phase.RUNNING, Phase.DEFERRED})
FINAL: Final = frozenset(Phase) - OPEN

_NEXT: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.QUEUED: frozenset({Phase.RUNNING, Phase.ABORTED, Phase.FAILED, Phase.TIMED_OUT}),
    # Back to QUEUED: a retry, a lost worker or a hand-back.
    Phase.RUNNING: frozenset(
        {Phase.QUEUED, Phase.DEFERRED, Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED}
    ),
    Phase.DEFERRED: frozenset({Phase.QUEUED, Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED}),
}


class Kind(StrEnum):
    """Why a run exists: its trigger's slot came, someone fired it, or a backfill asked for it.

    A slot has at most one SCHEDULED or BACKFILL run, under the slot's own name; a backfill that does such a slot again
    makes REPROCESS runs, any number of them.
    """

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    BACKFILL = "backfill"
    REPROCESS = "reprocess"


BACKFILLED: Final = frozenset({Kind.BACKFILL, Kind.REPROCESS})


def check_transition(run: str, current: Phase, target: Phase) -> None:
    """Raises `IllegalTransition` unless a run may go from `current` to `target`."""
    if target not in _NEXT.get(current, frozenset()):
        raise IllegalTransition(run, current, target)


def idempotency_key(run_name: str, known_ends: int) -> str:
    """The key a target sees: the run's name, with `-2`, `-3`… once earlier attempts are *known* to be over.

    While an outcome is unknown (worker lost, timeout, broken connection) the count, and so the key, stays the same.
    """
    return run_name if known_ends == 0 else f"{run_name}-{known_ends + 1}"
