"""Taking queued runs: they become this worker's, under its incarnation and a fence."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from scheduler.domain.instants import Micros, to_rfc3339
from scheduler.domain.run import idempotency_key
from scheduler.domain.task import TaskSpec, merge_inputs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction

# Without a time of its own an attempt that others wait for must still end some day.
SERIAL_TIMEOUT: Final = timedelta(hours=24)


class Execution(NamedTuple):
    """A run in a worker's hands: what it pinned and whose it is."""

    run: TakenRun
    spec: TaskSpec
    project: str
    domain: str
    task: str
    trigger: str | None

    @property
    def key(self) -> str:
        """The idempotency key of this attempt."""
        return idempotency_key(self.run.name, self.run.known_ends)

    @property
    def timeout(self) -> timedelta | None:
        """How long this attempt may take: what the task says, else a day where later runs of the trigger wait for it."""
        return self.spec.timeout or (SERIAL_TIMEOUT if self.run.serial else None)

    @property
    def inputs(self) -> dict[str, Any]:
        """Task defaults, overridden by what the run pinned; the kickoff input is the slot."""
        merged = merge_inputs(self.spec.inputs, json.loads(self.run.inputs) if self.run.inputs != "{}" else {})
        if self.run.kickoff_arg and self.run.scheduled_at is not None:
            merged[self.run.kickoff_arg] = to_rfc3339(self.run.scheduled_at)
        return merged


class Taken(NamedTuple):
    """Runs that are this worker's now. `after` is the task behind which the next look at gated runs goes on.

    `missed`: somebody else held some of the tasks, so that their runs were not looked at. `now`: the database's instant.
    """

    on_time: list[TakenRun]
    late: list[TakenRun]
    after: int = 0
    missed: bool = False
    now: Micros = 0


def take_runs(
    tx: Transaction, owner: str, room: Mapping[str, int], *, on_time: int, late: int, after: int = 0
) -> Taken:
    """At most `on_time` on-time and `late` late runs of executors with room, now RUNNING under `owner`.

    Runs that wait for a turn of their task or trigger have the first half of the places and what the others leave. An owner
    that was declared dead takes nothing: others would have to take it back at once.
    """
    dead, now = tx.workers.is_dead_now(owner)
    if dead:
        return Taken([], [], now=now)
    left = dict(room)
    taken: dict[bool, list[TakenRun]] = {False: [], True: []}

    def note(runs: list[TakenRun], is_late: bool) -> None:
        taken[is_late] += runs
        for run in runs:
            left[run.executor] -= 1

    following, missed = 0, False
    for is_late, places in ((False, on_time), (True, late)):
        half = -(-places // 2)
        gated, turns = tx.runs.take_gated(owner, left, late=is_late, limit=half, now=now, after=after)
        note(gated, is_late)
        note(tx.runs.take(owner, left, late=is_late, limit=places - len(gated), now=now), is_late)
        rest = places - len(taken[is_late])
        if half and len(gated) == half and rest > 0:
            gated, turns = tx.runs.take_gated(owner, left, late=is_late, limit=rest, now=now, after=turns.after)
            note(gated, is_late)
        following, missed = max(following, turns.after), missed or turns.missed
    return Taken(taken[False], taken[True], following, missed, now)


def describe_runs(
    tx: Transaction, runs: Iterable[TakenRun], known: Container[str]
) -> tuple[dict[str, TaskSpec], dict[int, tuple[str, str, str]], dict[int, str]]:
    """What executing these runs needs besides their rows, in three reads: specs not `known`, task keys, trigger names."""
    taken = list(runs)
    specs = tx.tasks.specs(run.spec_digest for run in taken if run.spec_digest not in known)
    keys = tx.tasks.keys({run.task_id for run in taken})
    names = tx.triggers.names({run.trigger_id for run in taken if run.trigger_id is not None})
    return specs, keys, names


def next_ready_at(tx: Transaction, executors: Iterable[str]) -> Micros | None:
    """When the next queued run of these executors may start, or ask for its turn."""
    names = list(executors)
    found = (tx.runs.next_ready_at(names), tx.runs.next_gated_at(tx.now(), names))
    return min((at for at in found if at is not None), default=None)
