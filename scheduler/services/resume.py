"""Deferred runs that go on: DEFERRED → QUEUED. Taken again, such a run is given why it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.protocol import Resumed
from scheduler.domain.instants import Micros
from scheduler.domain.run import Phase
from scheduler.services.defer import as_text, ends_at, printed_of
from scheduler.services.finish import Ended, Finished, finish_runs
from scheduler.services.plan import Planning
from scheduler.services.take import Execution
from scheduler.services.watch import Claimed, described
from scheduler.store.transaction import Transaction
from scheduler.store.waits import ResumedRun, WaitKey

_RESUMED = "resumed"
_SUBMITTING = "submitting"


@dataclass(frozen=True, slots=True)
class Tries:
    """How submitting an attempt's job went so far: errors in a row, since when, and the last one."""

    errors: int = 0
    since: Micros | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PutBack:
    """A deferred run that shall be executed again, not before an instant; `state` is what it is given, as it is stored."""

    execution: Execution
    not_before: Micros
    state: str | None

    @property
    def key(self) -> WaitKey:
        """The run and the fence under which it waits."""
        return self.execution.run.name, self.execution.run.fence


@dataclass(frozen=True, slots=True)
class Due:
    """What became of waits whose instant had come: runs that go on, and attempts that ended instead."""

    resumed: tuple[str, ...]
    ended: tuple[Ended, ...]
    finished: Finished | None
    more: bool


def resumed_state(state: Any, event: Mapping[str, Any] | None = None, printed: str | None = None) -> str:
    """What a run is stored with that goes on: the state its executor left, the event that ended the wait, its output."""
    return as_text({_RESUMED: {"state": state, "event": event, "printed": printed}}) or ""


def submitting_state(tries: Tries) -> str:
    """What a run is stored with whose job is to be submitted again."""
    return as_text({_SUBMITTING: {"errors": tries.errors, "since": tries.since, "error": tries.error}}) or ""


def resumed_of(execution: Execution) -> Resumed | None:
    """What an execution goes on with; None for one that begins."""
    found = _stored(execution, _RESUMED)
    return None if found is None else Resumed(found["state"], found["event"])


def printed_before(execution: Execution) -> str | None:
    """What the attempt had printed before it waited."""
    found = _stored(execution, _RESUMED)
    return None if found is None else found["printed"]


def tries_of(execution: Execution) -> Tries:
    """How submitting this attempt's job went so far."""
    found = _stored(execution, _SUBMITTING)
    return Tries() if found is None else Tries(**found)


def put_back(tx: Transaction, items: Sequence[PutBack], by: str) -> frozenset[WaitKey]:
    """Deferred runs that `by` holds are queued again, their waits gone; returns those that were still held."""
    rows = [ResumedRun(*item.key, item.not_before, item.state) for item in items]
    queued = tx.waits.resume(rows, by)
    if queued:
        tx.notify()
    return frozenset(queued)


def resume_due(tx: Transaction, limit: int, by: str, worker: str, planning: Planning | None = None) -> Due:
    """Runs whose instant has come go on; those whose attempt's time is over instead, or whose end somebody wants, end.

    Whoever looks may do this, whatever executors it declares. Rows in use are left to the next look.
    """
    now = tx.now()
    wanted = described(tx, tx.waits.intended_untils(limit), {})
    due = described(tx, tx.waits.due_untils(now, limit), {})
    if not wanted and not due:
        return Due((), (), None, False)
    ended = [_cancelled(item, by) for item in wanted]
    over = {item.wait.run_name for item in wanted}
    going = []
    for item in due:
        if item.wait.run_name in over:
            continue
        ends = ends_at(item.execution)
        if ends is not None and ends <= now:
            ended.append(_timed_out(item, by, now))
        else:
            going.append(item)
    # Ends first: they may lock tasks and triggers, which come before runs everywhere.
    finished = finish_runs(tx, ended, worker, planning) if ended else None
    locked = tx.waits.lock_runs(item.wait.run_name for item in going)
    resumed = tx.waits.resume(
        [
            # Begun before what is queued since, it comes before that wherever runs wait for a turn.
            ResumedRun(item.wait.run_name, item.wait.fence, item.execution.run.created_at, _going_on(item))
            for item in going
            if locked.get(item.wait.run_name) == item.wait.fence
        ],
        by,
    )
    if resumed:
        tx.notify()
    counted = tuple(item for item in ended if finished is not None and finished.counts(item))
    more = bool(resumed or counted) and len(wanted) + len(due) >= limit
    return Due(tuple(sorted(name for name, _ in resumed)), counted, finished, more)


def next_until_at(tx: Transaction) -> Micros | None:
    """When the next run that waits for an instant goes on."""
    return tx.waits.next_until_at()


def timed_out(execution: Execution, now: Micros) -> tuple[str, bool]:
    """What is said of an attempt whose time is over, and whether another attempt may still be made."""
    deadline_at, deadline = execution.run.deadline_at, execution.spec.deadline
    over = deadline_at is not None and now >= deadline_at
    limit = deadline if over else execution.timeout
    seconds = limit.total_seconds() if limit is not None else 0
    return f"{'deadline' if over else 'timeout'} of {seconds:g} s was over", not over


def _going_on(item: Claimed) -> str:
    state = None if item.wait.state is None else json.loads(item.wait.state)
    return resumed_state(state, printed=printed_of(item.wait.seen))


def _cancelled(item: Claimed, by: str) -> Ended:
    return Ended(
        _held_by(item.execution, by),
        Phase.ABORTED,
        error=item.intent or "cancelled",
        output=printed_of(item.wait.seen),
        retryable=False,
        waited=True,
    )


def _timed_out(item: Claimed, by: str, now: Micros) -> Ended:
    error, retryable = timed_out(item.execution, now)
    return Ended(
        _held_by(item.execution, by),
        Phase.TIMED_OUT,
        error=error,
        output=printed_of(item.wait.seen),
        retryable=retryable,
        known=False,
        waited=True,
    )


def _held_by(execution: Execution, by: str) -> Execution:
    # Nobody holds a run that waits for an instant: whoever ends it answers for that.
    return Execution(
        execution.run._replace(owner=by),
        execution.spec,
        execution.project,
        execution.domain,
        execution.task,
        execution.trigger,
    )


def _stored(execution: Execution, kind: str) -> Any:
    return None if execution.run.state is None else json.loads(execution.run.state).get(kind)
