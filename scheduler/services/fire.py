"""The fire transaction: due triggers are locked, decided purely, their runs inserted by name, and advanced by slot.

There is no instant in which a slot is decided and its run absent: either the whole transaction happened or nothing did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scheduler.domain.instants import Micros
from scheduler.domain.planning import plan_fires
from scheduler.errors import SpecError
from scheduler.services.jobs import is_live, job_of
from scheduler.services.plan import (
    Batch,
    Planning,
    decide,
    entries_before,
    insert_runs,
    open_runs_of,
    plan_anew,
    position_of,
    set_aside,
    write_changes,
)
from scheduler.store.rows import Row
from scheduler.store.runs import NewRun, TakenRun
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import DueRow


@dataclass(frozen=True, slots=True)
class Fired:
    """What one fire transaction did. `taken` are runs this worker holds already; the others wait in the queue."""

    claimed: int = 0
    runs: tuple[NewRun, ...] = ()
    taken: tuple[TakenRun, ...] = ()
    triggers: Mapping[int, Row] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    quarantined: tuple[str, ...] = ()
    lateness: tuple[Micros, ...] = ()
    newest_due: Micros | None = None
    replanned: tuple[int, ...] = ()
    """Tasks whose triggers somebody had written to: their summaries are the caller's to refresh, in another transaction."""


def fire_due(
    tx: Transaction,
    planning: Planning,
    *,
    limit: int,
    owner: str | None = None,
    room: Mapping[str, int] | None = None,
    places: int = 0,
    within: Micros | None = None,
    floor: Micros | None = None,
    only: int | None = None,
    source: str | None = None,
    max_runs: int | None = None,
) -> Fired:
    """Decides every due slot of at most `limit` due triggers.

    On-time runs of executors with `room` are taken by `owner` in the same transaction, at most `places`; all others are
    left queued for any worker. `within` leaves out triggers that have been due for longer than that. `only` narrows it to
    one trigger, to find the one that spoils a batch; `source` to those that a source deployed. `max_runs` stands in for the
    triggers' own cap on late runs, this once.
    """
    if only is None:
        dues = tx.triggers.claim_due(limit, within=within, floor=floor, source=source)
    else:
        # It may have been set aside, or have had its last fire, since it was seen to be due.
        dues = [due for due in tx.triggers.lock_due([only]).values() if due.due_at is not None]
    if not dues:
        return Fired()
    rows = tx.triggers.load_to_fire(due.trigger_id for due in dues)
    open_runs = open_runs_of(tx, rows.values())
    # Read after the locks are held: a slot is decided by the instant at which it is decided.
    if owner is None:
        now = tx.now()
    else:
        dead, now = tx.workers.is_dead_now(owner)
        if dead:
            owner = None  # It does not know yet; what it took, others would have to take back at once.
    batch, changed = Batch(), []
    for due in dues:
        row = rows.get(due.trigger_id)
        open_now = open_runs.get(due.trigger_id, 0)
        if row is not None and not _decide_one(tx, due, row, planning, now, batch, max_runs, open_now):
            changed.append(due)
    if changed:
        plan_anew(tx, changed, tx.triggers.load(due.trigger_id for due in changed), planning, batch)
    # What its row was copied from is being written anew: such a trigger's runs are taken by what stands there then.
    queued = {due.trigger_id for due in changed}
    new = _with_owner(batch.runs, rows, open_runs, queued, owner, dict(room or {}), places)
    write_changes(tx, batch)
    # What was planned anew was decided later: no run is older than its slot.
    inserted = insert_runs(tx, new, tx.now() if changed else now)
    if any(run.owner is None for run in new):
        tx.notify()  # Left behind by a full worker, or late: another one may have places free.
    return Fired(
        claimed=len(dues),
        runs=tuple(new),
        taken=tuple(run for run, running in inserted if running),
        triggers=rows,
        skipped=batch.skipped_by_reason(),
        quarantined=tuple(str(change.error) for change in batch.changes if change.error is not None),
        lateness=tuple(max(0, now - run.not_before) for run in new),
        newest_due=max((due.due_at for due in dues if due.due_at is not None), default=None),
        replanned=tuple(sorted({rows[due.trigger_id]["task_id"] for due in changed})),
    )


def quarantine(tx: Transaction, planning: Planning, trigger_id: int, error: Exception) -> None:
    """Sets one trigger aside whose fire fails in the database itself; it is tried again at growing intervals."""
    due = tx.triggers.lock_due([trigger_id])[trigger_id]
    row = tx.triggers.load([trigger_id]).get(trigger_id)
    if row is not None:
        batch = Batch()
        set_aside(due, row, error, planning, batch)
        batch.planned.append(trigger_id)  # Until somebody writes to it again, another version tries, or its time comes.
        write_changes(tx, batch)
        tx.retries.set_aside(trigger_id, tx.now())


def due_triggers(tx: Transaction, limit: int) -> list[int]:
    """The ids of due triggers, longest due first."""
    return [due.trigger_id for due in tx.triggers.claim_due(limit)]


def _decide_one(
    tx: Transaction,
    due: DueRow,
    row: Row,
    planning: Planning,
    now: Micros,
    batch: Batch,
    max_runs: int | None,
    open_runs: int,
) -> bool:
    """True if the trigger was decided (or set aside); False where its schedule is another than the planned one."""
    if not is_live(row, now) or row["spec_digest"] is None or row["unplanned"]:
        return False  # Written to since it was planned: a run pins nothing that was not looked at.
    try:
        job = job_of(row)
    except SpecError as error:
        set_aside(due, row, error, planning, batch)
        return True
    fingerprint = job.fingerprint
    if fingerprint != due.fingerprint:
        return False
    if max_runs is not None:
        job = replace(job, catchup=replace(job.catchup, max_runs=max_runs))
    position = position_of(due, now)
    decided = entries_before(tx, due, position)
    plan = plan_fires(
        job,
        position,
        now,
        planning.misfire_grace,
        fires=due.fires,
        open_runs=open_runs,
        skip_next=row["skip_next_at"],
        planned=due.next_slot,
        decided=decided,
    )
    if plan.position == position:
        plan = plan._replace(position=due.last_slot)  # Not due after all: another clock reading claimed it.
    decide(batch, due, row, job, plan, now, fingerprint=fingerprint, open_runs=open_runs)
    return True


def _with_owner(
    runs: list[NewRun],
    rows: Mapping[int, Row],
    open_runs: Mapping[int, int],
    queued: set[int],
    owner: str | None,
    room: dict[str, int],
    places: int,
) -> list[NewRun]:
    """Gives on-time runs to `owner` while there is room; late ones always queue, for their round-robin."""
    if owner is None:
        return runs
    result = []
    for run in runs:
        row = rows[run.trigger_id]
        executor = row["executor"]
        # Where nothing else of a serial trigger is open its one run may start at once: the trigger's lock is held.
        serial = row["overlap"] != "allow_all"
        waits = row["gated"] or run.trigger_id in queued or (serial and open_runs.get(run.trigger_id, 0) > 0)
        if places > 0 and run.priority == 0 and not waits and room.get(executor, 0) > 0:
            places -= 1
            room[executor] -= 1
            result.append(NewRun(*run[:-1], owner))  # Its last field; by name it takes twice as long.
        else:
            result.append(run)
        if serial:
            queued.add(run.trigger_id)
    return result
