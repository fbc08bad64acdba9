"""Recording how attempts ended, and what follows: the end of the run, or another attempt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple

from executors.jsonvalue import as_json
from scheduler.domain.instants import Micros
from scheduler.domain.run import Kind, Phase
from scheduler.services.defer import Deferral, as_text, storable
from scheduler.services.pause import lock_pausing, pause_failing
from scheduler.services.plan import Planning
from scheduler.services.take import Execution
from scheduler.store.run_results import FinishedAttempt
from scheduler.store.transaction import Transaction

_BAD: Final = frozenset((Phase.FAILED, Phase.TIMED_OUT))
_SCHEDULED: Final = Kind.SCHEDULED.value


class Ended(NamedTuple):
    """One attempt's outcome as the worker saw it.

    `retryable` False ends the run whatever attempts are left. `known` False means nobody can tell whether the target did
    the work: the next attempt then keeps the idempotency key.

    `waited`: the run was DEFERRED, and its wait is over with this. `event` is how its external job ended, and `links` are
    pages about that job; a run that is tried again keeps no event. An outcome with a `deferral` is no end: the run waits.
    """

    execution: Execution
    phase: Phase
    error: str | None = None
    outputs: Mapping[str, Any] | None = None
    output: str | None = None
    retryable: bool = True
    known: bool = True
    retry_after: timedelta | None = None
    waited: bool = False
    event: Mapping[str, Any] | None = None
    links: Sequence[Mapping[str, str]] | None = None
    deferral: Deferral | None = None
    outputs_text: str | None = None
    """The outputs as they are stored, where that was made already."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a batch of ended attempts, by the names of their runs."""

    counted: frozenset[str]
    refused: tuple[str, ...]
    retried: tuple[str, ...]
    fences: frozenset[tuple[str, int]]
    paused: tuple[str, ...] = ()
    """Triggers that were deactivated because their runs kept failing."""

    def counts(self, item: Ended) -> bool:
        """Whether this end is what was recorded: a batch may hold another one of the same run."""
        return _key(item) in self.fences


def finish_runs(tx: Transaction, ended: Sequence[Ended], worker: str, planning: Planning | None = None) -> Finished:
    """Records the outcomes in one statement; results whose run somebody took since are dropped and named.

    A trigger whose runs have failed as often in a row as its `pause_on_failure` allows is deactivated.
    """
    now = tx.now()
    rows = [_attempt(item, now) for item in ended]
    # Before any run is touched: locks are taken in one order everywhere, tasks and triggers first.
    failed = {item.execution.run.trigger_id for item, row in zip(ended, rows, strict=True) if _failed(item, row)}
    pausing = lock_pausing(tx, failed)
    counted = tx.runs.finish(rows, worker, now)
    tx.waits.remove(item.execution.run.name for item in ended if item.waited and _key(item) in counted)
    tx.waits.record_events([_told(item) for item in ended if item.event is not None and _key(item) in counted])
    if any(item.execution.run.gated for item in ended):
        tx.notify()  # Somebody's turn may have come, and this worker may have no place for it.
    return Finished(
        counted=frozenset(name for name, _ in counted),
        refused=tuple(row.name for row in rows if (row.name, row.fence) not in counted),
        retried=tuple(row.name for row in rows if counted.get((row.name, row.fence)) == Phase.QUEUED),
        fences=frozenset(counted),
        paused=pause_failing(tx, pausing, planning or Planning()),
    )


def _key(item: Ended) -> tuple[str, int]:
    return item.execution.run.name, item.execution.run.fence


def _told(item: Ended) -> tuple[str, str | None, str | None]:
    links = None if item.links is None else as_text(list(item.links))
    # What an executor names its job with may be anything; a run must not stay open for it.
    event = json.dumps(item.event, separators=(",", ":"), ensure_ascii=False, default=str)
    return item.execution.run.name, storable(event), storable(links)


def _ended_badly(item: Ended) -> bool:
    # Code that was cut short may have acted; a job that was is over.
    return item.phase is Phase.FAILED or (item.phase is not Phase.SUCCEEDED and item.event is not None)


def _failed(item: Ended, row: FinishedAttempt) -> bool:
    return row.phase in _BAD and item.execution.run.kind == _SCHEDULED


def next_attempt_at(item: Ended, now: Micros) -> Micros | None:
    """When the run may be tried again; None where this was its last attempt."""
    run, policy = item.execution.run, item.execution.spec.retries
    if item.phase in (Phase.SUCCEEDED, Phase.ABORTED) or not item.retryable or run.attempt >= policy.max_attempts:
        return None
    at = now + policy.delay(run.attempt, run.name, item.retry_after)
    # A retry that could not start before the deadline ends the run now, with the error it has.
    return at if run.deadline_at is None or at < run.deadline_at else None


def _outputs_text(outputs: Mapping[str, Any] | None) -> str | None:
    if not outputs:
        return None if outputs is None else "{}"  # Most runs: no encoder is needed for them.
    return storable(as_json(outputs))


def _attempt(item: Ended, now: Micros) -> FinishedAttempt:
    run = item.execution.run
    again = next_attempt_at(item, now)
    return FinishedAttempt(
        name=run.name,
        fence=run.fence,
        owner=run.owner,
        phase=Phase.QUEUED if again is not None else item.phase,
        not_before=again,
        known_end=item.known and _ended_badly(item),
        error=storable(item.error),
        outputs=_outputs_text(item.outputs) if item.outputs_text is None else item.outputs_text,
        attempt_phase=item.phase,
        started_at=run.started_at,
        output=storable(item.output),
    )
