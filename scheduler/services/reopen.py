"""One more attempt for a run that ended without success: same name, same slot, same inputs."""

from __future__ import annotations

from scheduler.domain.instants import to_micros
from scheduler.errors import Conflict, NotFound
from scheduler.store.transaction import Transaction


def retry_run(tx: Transaction, name: str) -> None:
    """Queues a run that FAILED, TIMED_OUT or was ABORTED for one more attempt, whatever its `retries` say.

    It keeps what it pinned when it fired, and its key where nobody can tell whether an earlier attempt acted. A deadline
    counts anew from now. Raises `NotFound`, and `Conflict` for a run that is open or succeeded.
    """
    row = tx.runs.find(name)
    if row is None:
        raise NotFound("run", name)
    if row["trigger_id"] is not None:
        # A run that was over counts as open again: nobody may be firing a later slot on the strength of its end.
        tx.triggers.lock_due([row["trigger_id"]])
    now = tx.now()
    spec = tx.tasks.specs([row["spec_digest"]])[row["spec_digest"]]
    deadline_at = None if spec.deadline is None else now + to_micros(spec.deadline)
    if not tx.runs.reopen(name, now, deadline_at):
        row = tx.runs.find(name)
        phase = row["phase"] if row is not None else "gone"
        what = "fire its trigger for another run" if phase == "SUCCEEDED" else "it will end by itself, or be cancelled"
        raise Conflict(f"run {name!r} is {phase}: {what}")
    tx.notify()
