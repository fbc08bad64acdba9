"""Waits in a worker's hands: taken over, written down as they change, let go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.domain.instants import Micros
from scheduler.domain.task import TaskSpec
from scheduler.services.take import Execution, describe_runs
from scheduler.store.transaction import Transaction
from scheduler.store.waits import FoundWait, StoredWait, WaitKey, WaitState


@dataclass(frozen=True, slots=True)
class Claimed:
    """A wait, its run, and why somebody wants the run to end, if anybody does."""

    wait: StoredWait
    execution: Execution
    intent: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """Which of a batch of waits were still held, and which runs' jobs turned out to be another open wait's.

    `intents` are the reasons why somebody wants runs to end that have just got a job.
    """

    held: frozenset[WaitKey]
    conflicts: frozenset[str]
    intents: Mapping[str, str]


def claim_waits(
    tx: Transaction, owner: str, executors: Iterable[str], limit: int, known: Mapping[str, TaskSpec]
) -> tuple[list[Claimed], Micros]:
    """At most `limit` waits of these executors that nobody holds, now `owner`'s, and the present instant."""
    return described(tx, tx.waits.claim(owner, executors, limit), known), tx.now()


def compare_waits(
    tx: Transaction, owner: str, present: Collection[WaitKey], known: Mapping[str, TaskSpec]
) -> tuple[list[Claimed], set[WaitKey], Micros]:
    """What `owner` holds beside what it knows to be `present`, and what of that it holds no more; the present instant."""
    held = tx.waits.held(owner)
    unknown = held - set(present)
    found = tx.waits.load([name for name, _ in unknown], owner) if unknown else []
    return described(tx, found, known), set(present) - held, tx.now()


def wanted_ends(tx: Transaction, owner: str) -> dict[str, str]:
    """Runs that `owner` waits for and somebody wants to end, and the reasons."""
    return tx.waits.intended(owner)


def write_waits(tx: Transaction, states: Sequence[WaitState], jobs: Mapping[str, str], by: str) -> Written:
    """Stores how waits stand that `by` holds; `jobs` names the executors of runs that have just got a job.

    A job that another open wait holds is not stored a second time.
    """
    new = sorted((state.run_name, jobs[state.run_name], state.job_id) for state in states if state.run_name in jobs)
    named = [(name, executor, job_id) for name, executor, job_id in new if job_id]
    conflicts = tx.waits.taken_jobs(named)
    seen: set[tuple[str, str]] = set()
    for name, executor, job_id in named:
        if (executor, job_id) in seen:  # Two runs of one batch with one job: the first keeps it.
            conflicts.add(name)
        seen.add((executor, job_id))
    held = tx.waits.write([state for state in states if state.run_name not in conflicts], by)
    return Written(frozenset(held), frozenset(conflicts), tx.waits.intents_of(jobs) if jobs else {})


def release_waits(tx: Transaction, owner: str, keep: Collection[str] = ()) -> int:
    """`owner` lets its waits go, but those of the runs to `keep`; whoever declares their executors may take them over."""
    count = tx.waits.release(owner, keep)
    if count:
        tx.notify()
    return count


def release_lost_waits(tx: Transaction, limit: int) -> int:
    """Waits of workers that are gone are free; nothing is counted, and their runs go on waiting."""
    return tx.waits.release_lost(limit)


def described(tx: Transaction, found: Sequence[FoundWait], known: Mapping[str, TaskSpec]) -> list[Claimed]:
    """Waits with all that looking at them needs, in three reads however many they are."""
    if not found:
        return []
    specs, keys, names = describe_runs(tx, [item.run for item in found], known)
    specs = {**known, **specs}
    return [
        Claimed(
            item.wait,
            Execution(
                item.run,
                specs[item.run.spec_digest],
                *keys[item.run.task_id],
                names.get(item.run.trigger_id) if item.run.trigger_id is not None else None,
            ),
            item.intent,
        )
        for item in found
    ]
