"""Taking queued runs: they become this worker's, under its incarnation and a fence."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.domain.instants import Micros, to_rfc3339
from scheduler.domain.run import idempotency_key
from scheduler.domain.task import TaskSpec, merge_inputs
from scheduler.store.runs import TakenRun
from scheduler.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Execution:
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
    def inputs(self) -> dict[str, Any]:
        """Task defaults, overridden by what the run pinned; the kickoff input is the slot."""
        merged = merge_inputs(self.spec.inputs, json.loads(self.run.inputs))
        if self.run.kickoff_arg and self.run.scheduled_at is not None:
            merged[self.run.kickoff_arg] = to_rfc3339(self.run.scheduled_at)
        return merged


def take_runs(
    tx: Transaction, owner: str, room: Mapping[str, int], *, on_time: int, late: int
) -> tuple[list[TakenRun], list[TakenRun]]:
    """At most `on_time` on-time and `late` late runs of executors with room, now RUNNING under `owner`."""
    now = tx.now()
    left = dict(room)
    taken = tx.runs.take(owner, left, late=False, limit=on_time, now=now)
    for run in taken:
        left[run.executor] -= 1
    return taken, tx.runs.take(owner, left, late=True, limit=late, now=now)


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
    """When the next queued run of these executors may start."""
    return tx.runs.next_ready_at(executors)
