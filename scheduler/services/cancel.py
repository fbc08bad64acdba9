"""Cancelling runs: what waits ends at once; of what is under way the wish is stored, and every transition reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.run import Phase
from scheduler.errors import Conflict, NotFound
from scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a cancel: runs that are over now, and runs whose code has yet to end."""

    ended: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()


def cancel_run(tx: Transaction, name: str, *, by: str) -> Cancelled:
    """Cancels one run. Raises `NotFound`, and `Conflict` where it is over already."""
    cancelled = cancel_runs(tx, [name], by=by)
    if not cancelled.ended and not cancelled.ending:
        row = tx.runs.find(name)
        if row is None:
            raise NotFound("run", name)
        raise Conflict(f"run {name!r} is {row['phase']} already")
    return cancelled


def cancel_runs(tx: Transaction, names: Sequence[str], *, by: str) -> Cancelled:
    """Cancels those of these runs that are open.

    A queued run is ABORTED now. Of one under way the worker that executes it is told; the run is ABORTED once its code has
    ended, unless the code's own answer comes first.
    """
    phases = tx.runs.cancel(names, tx.now(), f"cancelled by {by}")
    ending = tuple(sorted(name for name, phase in phases.items() if phase != Phase.ABORTED))
    if ending:
        tx.notify()
    return Cancelled(tuple(sorted(phases.keys() - set(ending))), ending)
