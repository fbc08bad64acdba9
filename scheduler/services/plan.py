"""Planning triggers anew, whoever changed them: a deploy, a command, plain SQL, new zone data.

Every function here is handed rows of the due-queue that the caller has locked, and settles what the old plan still owed
before it makes the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import SECOND, Micros, to_micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.overlap import Fire
from scheduler.domain.planning import Plan, first_plan
from scheduler.domain.settling import cut_off, settle, skip_owed
from scheduler.domain.task import TaskSpec
from scheduler.errors import Conflict, SpecError
from scheduler.services.jobs import anchored_at, is_live, job_of, row_when_planned, wakes_at
from scheduler.store.rows import Row
from scheduler.store.runs import NewRun, TakenRun
from scheduler.store.transaction import Transaction
from scheduler.store.triggers import Advance, DueRow, PlanChange


@dataclass(frozen=True, slots=True)
class Planning:
    """What every planner is told: the grace in microseconds, and what this worker is (version and zone data)."""

    misfire_grace: Micros = 60_000_000
    fingerprint: str = ""


class Pointed(NamedTuple):
    """What a trigger copies from the task version it points at."""

    version: str
    spec_digest: str
    executor: str
    deadline: Micros | None
    gated: bool


@dataclass(slots=True)
class Batch:
    """Decisions about many triggers, written together at the end of a transaction."""

    runs: list[NewRun] = field(default_factory=list)
    skips: dict[int, Sequence[SkippedRange]] = field(default_factory=dict)
    positions: dict[int, Micros | None] = field(default_factory=dict)
    advances: list[Advance] = field(default_factory=list)
    changes: list[PlanChange] = field(default_factory=list)
    planned: list[int] = field(default_factory=list)
    silenced: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    """Triggers whose open runs are cancelled, because a newer one is to run in their place."""
    rewound: dict[int, tuple[Job, Micros]] = field(default_factory=dict)
    """Triggers planned again from an instant before their position, which is theirs with the schedule to count by."""

    def skipped_by_reason(self) -> dict[str, int]:
        """How many slots these decisions skip, by reason."""
        totals: dict[str, int] = {}
        for ranges in self.skips.values():
            for item in ranges:
                totals[item.reason] = totals.get(item.reason, 0) + item.count
        return totals


def plan_anew(
    tx: Transaction,
    dues: Iterable[DueRow],
    rows: Mapping[int, Row],
    planning: Planning,
    batch: Batch,
    *,
    old_jobs: Mapping[int, Job] | None = None,
    activated: Container[int] = (),
    known: Mapping[int, Pointed] = MappingProxyType({}),
) -> None:
    """Adds to `batch` what becomes of each trigger now; a trigger that cannot be planned is set aside with its error.

    `old_jobs` are the schedules of the rows as they stood until now; else what the plan was made from is read from the row
    itself. It accounts for every slot the plan owed; where nobody knows it any more (a trigger that was set aside since), only
    the slot that was planned is. Of the triggers `activated` those that are live are so from now
    on, whatever they were. `known` says what triggers point at, as far as the caller knows it.
    """
    # A trigger without a row was deleted by hand in this very moment; its due row goes with it.
    found = {due: rows[due.trigger_id] for due in dues if due.trigger_id in rows}
    if not found:
        return
    # A trigger that owes nothing needs no version to be planned.
    unknown = [row for row in found.values() if row["id"] not in known and row["active"] and row["deleted_at"] is None]
    pointed = {**pointed_versions(tx, unknown), **known}
    open_runs = open_runs_of(tx, found.values())
    now = tx.now()
    for due, row in found.items():
        try:
            before = _Before(
                (old_jobs or {}).get(due.trigger_id),
                open_runs.get(due.trigger_id, 0),
                entries_before(tx, due, position_of(due, now)),
                due.trigger_id in activated,
            )
            _plan_one(due, row, pointed.get(due.trigger_id), now, planning, batch, before)
        except SpecError as error:
            set_aside(due, row, error, planning, batch)


def set_aside(due: DueRow, row: Row, error: Exception, planning: Planning, batch: Batch) -> None:
    """Quarantines a trigger: nothing is planned, nothing is forgotten, and the error says why."""
    change = _unchanged(row)._replace(error=f"{type(error).__name__}: {error}", error_fingerprint=planning.fingerprint)
    batch.changes.append(change)
    fingerprint = due.fingerprint
    if "plan_source" in row and row["planned_from"] != row["plan_source"] and not fingerprint.startswith(_REWRITTEN):
        fingerprint = _REWRITTEN + fingerprint
    batch.advances.append(
        Advance(due.trigger_id, None, due.next_slot, due.last_slot, due.decided_to, None, due.fires, fingerprint)
    )


def decide(
    batch: Batch,
    due: DueRow,
    row: Row,
    job: Job,
    plan: Plan,
    now: Micros,
    *,
    fingerprint: str | None = None,
    due_of: Callable[[Micros], Micros] | None = None,
    open_runs: int = 0,
) -> None:
    """Adds a plan to the batch: runs by name, skips, and the advance by slot.

    `due_of` tells when a slot of the plan that ends here was due, where `job` is the one that follows it.
    """
    for fire in plan.fires:
        batch.runs.append(_new_run(row, fire, (due_of or job.due_at)(fire.slot)))
    if plan.fires and open_runs and row["overlap"] == "cancel_other":
        batch.overtaken.append(due.trigger_id)
    if plan.skips:
        batch.skips[due.trigger_id] = plan.skips
        # A range is extended by the very next slot only: not over a pause, a change, or slots that had their entry.
        following = None if due.last_slot is None else job.next_after(due.last_slot)
        adjoins = following == due.next_slot == plan.skips[0].from_slot
        batch.positions[due.trigger_id] = due.last_slot if adjoins else None
    decided_to = due.decided_to
    if plan.position is not None and plan.next_slot is not None and plan.next_slot <= plan.position:
        # The clock was set back while nothing was planned: what lies behind the position may have its run.
        decided_to = max(plan.position, decided_to or 0)
        batch.rewound[due.trigger_id] = (job, now)
    elif decided_to is not None and plan.position is not None and plan.position >= decided_to:
        decided_to = None
    batch.advances.append(
        Advance(
            due.trigger_id,
            plan.due_at,
            plan.next_slot,
            plan.position,
            decided_to,
            now if plan.fires else None,
            due.fires + len(plan.fires),
            job.fingerprint if fingerprint is None else fingerprint,
        )
    )


def entries_before(tx: Transaction, due: DueRow, position: Micros) -> Callable[[Micros], bool] | None:
    """Which slots after the position have a run already, or had one whose history is gone; None where no slot can.

    Some can after the clock was set back. Slots that were skipped ahead of that are decided anew.
    """
    if due.decided_to is None:
        return None
    slots = tx.runs.slots_with_run(due.trigger_id, position, due.decided_to)
    ranges = tx.ledger.overlapping(due.trigger_id, position, due.decided_to)
    pruned = [item for item in ranges if item.reason is Reason.PRUNED]
    return lambda slot: slot in slots or any(item.from_slot <= slot <= item.to_slot for item in pruned)


def open_runs_of(tx: Transaction, rows: Iterable[Row]) -> dict[int, int]:
    """How many scheduled runs are open of each trigger whose overlap asks; read while the triggers are locked."""
    asking = [row["id"] for row in rows if row["overlap"] != "allow_all"]
    return tx.runs.count_open_scheduled(asking) if asking else {}


def position_of(due: DueRow, now: Micros) -> Micros:
    """The instant after which a planned trigger owes every slot: just before the planned one.

    Not the last decided slot: what lies between them under a schedule that came later, or in a pause, is not owed.
    """
    if due.next_slot is not None:
        return due.next_slot - SECOND
    return now if due.last_slot is None else due.last_slot


def write_plans(tx: Transaction, batch: Batch) -> None:
    """Writes everything of a batch; its runs are queued for any worker."""
    write_changes(tx, batch)
    insert_runs(tx, batch.runs, tx.now())


def insert_runs(tx: Transaction, new: Sequence[NewRun], now: Micros) -> list[tuple[TakenRun, bool]]:
    """Inserts runs by name and returns the new ones; they copy what their triggers say once the changes are written.

    A run that is there already for its slot stays as it is; a name that another slot has raises `Conflict`.
    """
    inserted = tx.runs.insert_new(new, now)
    if len(inserted) < len(new) and (wrong := tx.runs.mismatched(new)):
        raise Conflict(f"run {wrong[0]!r} exists for another slot")
    return inserted


def write_changes(tx: Transaction, batch: Batch) -> None:
    """Writes everything of a batch but its runs."""
    tx.triggers.record_planning(batch.changes)
    if batch.rewound:
        _cut_ranges(tx, batch.rewound)
    tx.ledger.append(batch.skips, batch.positions)
    tx.triggers.advance(batch.advances)
    if batch.overtaken:
        tx.runs.cancel_open(batch.overtaken, tx.now(), "cancelled: its trigger fired again (overlap: cancel_other)")
        tx.notify()
    if batch.silenced:
        tx.runs.abort_unstarted(batch.silenced, tx.now(), "its trigger was paused or deleted before it started")
    if batch.planned:
        tx.triggers.mark_planned(batch.planned)


def _cut_ranges(tx: Transaction, rewound: Mapping[int, tuple[Job, Micros]]) -> None:
    """Cuts off what lies ahead of an instant to which the clock was set back: those slots are decided again."""
    ahead = tx.ledger.lock_ahead([(trigger_id, now) for trigger_id, (_, now) in rewound.items()])
    left = {key: [cut for item in items if (cut := cut_off(item, *rewound[key]))] for key, items in ahead.items()}
    tx.ledger.replace(ahead, left)


class _Before(NamedTuple):
    """What there is of a trigger before it is planned anew: its old schedule, its open runs, its entries."""

    job: Job | None
    open_runs: int
    decided: Callable[[Micros], bool] | None
    activated: bool


def _plan_one(
    due: DueRow,
    row: Row,
    pointed: Pointed | None,
    now: Micros,
    planning: Planning,
    batch: Batch,
    before: _Before,
) -> None:
    open_runs, decided = before.open_runs, before.decided
    batch.planned.append(due.trigger_id)
    planned = due.due_at is not None
    old_job = _old_job(row, due, before.job)
    # A trigger that was set aside has no due instant and still owes its slot, though not before its jitter is over.
    owed_at = due.due_at if planned else due.next_slot
    if not planned and old_job is not None and due.next_slot is not None:
        owed_at = old_job.due_at(due.next_slot)
    wakes = wakes_at(row, now)
    if wakes is None and not is_live(row, now):
        if due.next_slot is not None or row["activated_at"] is not None or row["error"] is not None:
            reason = Reason.DELETED if row["deleted_at"] is not None else Reason.PAUSED
            plan = skip_owed(old_job, due.next_slot, now, reason, decided=decided)
            decide(batch, due, row, _NO_JOB, _kept_position(plan, due), now, fingerprint="")
            batch.changes.append(_unchanged(row)._replace(activated_at=None, error=None, error_fingerprint=None))
            batch.silenced.append(due.trigger_id)
        return
    anchor_at, interval = anchored_at(row, now)
    # A snooze is a pause with a known end: what comes after it is planned already. One that was cut short ends now.
    activated = wakes if wakes is not None else None if before.activated else row["activated_at"]
    if activated is None or (wakes is None and activated > now + planning.misfire_grace):
        activated = now
    job = job_of(row, activated_at=activated, anchor_at=anchor_at)
    if pointed is None:
        raise SpecError("version", f"task {row['task']!r} has no deployed version {row['version'] or ''}".rstrip())
    planned_anew = PlanChange(due.trigger_id, activated, anchor_at, interval, *pointed, None, None)
    if planned_anew != _unchanged(row):
        batch.changes.append(planned_anew)
    same_schedule = due.fingerprint.removeprefix(_REWRITTEN) == job.fingerprint
    if same_schedule and not planned and row["error"] is not None:
        # Released from quarantine under the schedule it had: it owes everything since, and catch-up decides.
        slot = due.next_slot
        if due.last_slot is not None and due.last_slot > now + planning.misfire_grace:
            slot = job.next_after(now)  # The clock was set back since.
        plan = Plan((), (), due.last_slot, slot, None if slot is None else job.due_at(slot))
        decide(batch, due, row, job, plan, now)
        return
    left = None if job.max_fires is None else max(0, job.max_fires - due.fires)
    new = first_plan(job, activated if wakes is not None else now)
    if same_schedule and (planned or left == 0 or new.next_slot is None):
        return  # Planned already, or finished and still so.
    # What the old plan still fires was due by the old schedule, whose jitter may be another.
    due_of = _due_of(old_job, due.next_slot, owed_at)
    if wakes is not None:
        batch.silenced.append(due.trigger_id)
        old = skip_owed(old_job, due.next_slot, now, Reason.PAUSED, decided=decided)
    else:
        old = settle(
            old_job,
            job,
            due.next_slot,
            owed_at,
            now,
            planning.misfire_grace,
            fires=due.fires,
            open_runs=open_runs,
            skip_next=row["skip_next_at"],
            decided=decided,
        )
    if left is not None and len(old.fires) >= left:
        new = Plan((), (), None, None, None)  # All it may ever fire is fired.
    plan = Plan(old.fires, old.skips, _kept_position(old, due).position, new.next_slot, new.due_at)
    decide(batch, due, row, job, plan, now, due_of=due_of, open_runs=open_runs)


def _old_job(row: Row, due: DueRow, stood: Job | None) -> Job | None:
    """The job that the plan was made of; None where nobody knows it any more.

    `stood` is that of the row as it stood until now. What gives the plan's own fingerprint speaks for the slots that were
    owed. With other zone data, or other code, nothing does: then the text that was planned does, as it reads now.
    """
    fingerprint = due.fingerprint.removeprefix(_REWRITTEN)
    if stood is not None and stood.fingerprint == fingerprint:
        return stood
    before = _job_or_none(row_when_planned(row))
    for job in (_job_or_none(row), before):
        if job is not None and job.fingerprint == fingerprint:
            return job
    return before if fingerprint and fingerprint == due.fingerprint else None


def _due_of(job: Job | None, planned: Micros | None, planned_due: Micros | None) -> Callable[[Micros], Micros]:
    def due_of(slot: Micros) -> Micros:
        if job is None or slot == planned:
            return slot if planned_due is None else planned_due
        return job.due_at(slot)

    return due_of


def _kept_position(plan: Plan, due: DueRow) -> Plan:
    # A settled plan without a due slot has decided nothing: the position stays what it was, even "none yet".
    decided = plan.fires or plan.skips
    return Plan(plan.fires, plan.skips, plan.position if decided else due.last_slot, None, None)


def _job_or_none(row: Row | None) -> Job | None:
    try:
        return None if row is None else job_of(row)
    except SpecError:
        return None


def _new_run(row: Row, fire: Fire, due_at: Micros) -> NewRun:
    name = slot_run_name(row["project"], row["domain"], row["task"], row["name"], fire.slot)
    covers = fire.covers or (None, None)
    return NewRun(name, row["id"], fire.slot, covers[0], covers[1], fire.turn, due_at, None)


def pointed_versions(tx: Transaction, rows: Iterable[Row]) -> dict[int, Pointed]:
    """What these triggers' versions say, the task's latest where a trigger names none."""
    wanted = [row["id"] for row in rows]
    found = tx.triggers.versions_of(wanted) if wanted else {}
    specs = tx.tasks.specs(version["spec_digest"] for version in found.values())
    return {
        # The limit is the task's, whichever version a trigger points at.
        trigger_id: pointed_at(version["version"], specs[version["spec_digest"]], version["spec_digest"])._replace(
            gated=version["max_concurrent_runs"] is not None
        )
        for trigger_id, version in found.items()
    }


def pointed_at(version: str, spec: TaskSpec, digest: str) -> Pointed:
    """The columns of a trigger that repeat what its version says, so that a fire reads one table."""
    deadline = None if spec.deadline is None else to_micros(spec.deadline)
    return Pointed(version, digest, spec.executor, deadline, spec.max_concurrent_runs is not None)


def _unchanged(row: Row) -> PlanChange:
    return PlanChange(row["id"], *(row[name] for name in PlanChange._fields if name != "trigger_id"))


# Before the fingerprint of one that was set aside once somebody had written to it: its text is not the one that was planned.
_REWRITTEN = "~"
_NO_JOB = Job(identity="", schedule=None, activated_at=0)
