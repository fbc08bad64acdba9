"""Runs that begin to wait outside the worker: RUNNING → DEFERRED, and their places are free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from executors.jsonvalue import as_json
from executors.protocol import Deferred
from executors.waits import Poll
from scheduler.domain.instants import Micros, from_datetime, to_micros
from scheduler.domain.values import LONGEST
from scheduler.domain.wait import Stage, WaitKind
from scheduler.services.take import Execution
from scheduler.store.transaction import Transaction
from scheduler.store.waits import NewWait, WaitKey


@dataclass(frozen=True, slots=True)
class Deferral:
    """A run that shall wait.

    `look_at` is the instant to wait for, None for what is looked at `interval` from now; `budget` is how long errors may
    follow each other. `state` and a job are kept as JSON texts. `watched` is a job that was there before the run.
    `printed` is what the attempt has printed so far.
    """

    execution: Execution
    kind: WaitKind
    stage: Stage = Stage.WAITING
    look_at: Micros | None = None
    interval: Micros = 0
    budget: Micros = 0
    state: str | None = None
    job_id: str | None = None
    watched: bool = False
    printed: str | None = None

    @property
    def key(self) -> WaitKey:
        """The run and the fence it is deferred under."""
        return self.execution.run.name, self.execution.run.fence


def deferral_of(execution: Execution, outcome: Deferred, printed: str | None = None) -> Deferral:
    """What an executor asked for by returning `Deferred`."""
    state = as_text(outcome.state)
    if isinstance(outcome.wait, Poll):
        interval, budget = as_micros(outcome.wait.interval), as_micros(outcome.wait.error_budget)
        return Deferral(execution, WaitKind.POLL, interval=interval, budget=budget, state=state, printed=printed)
    at = from_datetime(outcome.wait.at)
    return Deferral(execution, WaitKind.UNTIL, look_at=at, state=state, printed=printed)


def as_micros(duration: timedelta) -> Micros:
    """A duration that an executor names, at most a hundred years: also the end of "for ever" is an instant that is stored."""
    return to_micros(min(duration, LONGEST))


def printed_text(printed: str | None) -> str | None:
    """What the attempt of a waiting run has printed so far, as its wait stores it."""
    return as_text({"printed": printed}) if printed else None


def printed_of(seen: str | None) -> str | None:
    """What `printed_text` stored."""
    return None if seen is None else json.loads(seen).get("printed")


def ends_at(execution: Execution) -> Micros | None:
    """When the attempt's time is over: its timeout, deferrals included, or the run's deadline; None: never."""
    ends = [] if execution.timeout is None else [execution.run.started_at + to_micros(execution.timeout)]
    if execution.run.deadline_at is not None:
        ends.append(execution.run.deadline_at)
    return min(ends, default=None)


def defer_runs(tx: Transaction, deferrals: Sequence[Deferral], by: str) -> dict[WaitKey, str | None]:
    """Runs that `by` executes begin to wait; returns those that do, and why somebody wants them to end, if anybody does.

    Waits that have to be looked at are `by`'s from the beginning. A run left out was taken by somebody else since.
    """
    now = tx.now()
    return tx.waits.begin([_new(item, by, now) for item in deferrals], by, now)


def as_text(state: Any) -> str | None:
    """A JSON value as the text that is stored; None is nothing."""
    return None if state is None else as_json(state)


def storable(text: str | None) -> str | None:
    """The text with what no database keeps replaced."""
    # Commands print anything; no database keeps half a surrogate pair, and PostgreSQL keeps no NUL.
    if text is None:
        return None
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _new(item: Deferral, by: str, now: Micros) -> NewWait:
    run, ends = item.execution.run, ends_at(item.execution)
    look_at = now + item.interval if item.look_at is None else item.look_at
    until = item.kind is WaitKind.UNTIL
    return NewWait(
        run_name=run.name,
        fence=run.fence,
        executor=run.executor,
        kind=item.kind.value,
        stage=item.stage.value,
        owner=None if until else by,
        # What the database watches it watches for both: the instant, and the end of the attempt's time.
        look_at=min(look_at, ends) if until and ends is not None else look_at,
        interval=item.interval,
        budget=item.budget,
        ends_at=ends,
        state=storable(item.state),
        job_id=item.job_id,
        watched=item.watched,
        seen=storable(printed_text(item.printed)),
    )
