"""What open runs wait for, in words: queued ones for their turn, deferred ones for whatever they were deferred to."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.domain.instants import to_rfc3339
from scheduler.domain.run import Phase
from scheduler.services.waiting import waiting_words
from scheduler.store.hindrances import full_tasks, runs_behind, waits_of
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction


def waiting_for(tx: Transaction, rows: Sequence[Row]) -> dict[str, str]:
    """What each queued or deferred one of these runs waits for, by name; in a few statements however many they are."""
    deferred = waits_of(tx, [row["name"] for row in rows if row["phase"] == Phase.DEFERRED])
    declared = tx.workers.declared_executors()
    found = {name: waiting_words(wait, declared) for name, wait in deferred.items()}
    queued = [row for row in rows if row["phase"] == Phase.QUEUED]
    if not queued:
        return found
    now = tx.now()
    behind = runs_behind(tx, [row["name"] for row in queued if row["serial"]])
    full = full_tasks(tx, [row["task_id"] for row in queued if row["gated"]])
    for row in queued:
        if row["executor"] not in declared:
            words = f"no worker for executor {row['executor']}"
        elif row["not_before"] > now:
            words = f"its time: {to_rfc3339(row['not_before'])}"
        elif row["name"] in behind:
            words = "an earlier run of its trigger"
        elif row["gated"] and row["task_id"] in full:
            started, most = full[row["task_id"]]
            words = f"its task, of which {started} of {most} runs are under way"
        else:
            words = "a free place in a worker"
        found[row["name"]] = words
    return found
