"""Small wrong versions of the product, each planted where the right one stands. Worlds have to notice every one of them.

A fault is told in the words of a mistake that somebody could make. It replaces one function, or a few lines of one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from secrets import token_hex
from types import ModuleType
from typing import Any, Final, TypeAlias

import pytest
from sqlalchemy import func, select, text, update

from scheduler.clock import SystemClock
from scheduler.domain import calendars, overlap, planning, settling, simple_schedules
from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.job import Job
from scheduler.domain.ledger import Reason, SkippedRange
from scheduler.domain.planning import Plan
from scheduler.loop.clock_guard import ClockGuard
from scheduler.loop.heartbeat import Heartbeat
from scheduler.services import deploy, fire, jobs, many, plan, sync
from scheduler.store import run_lookups
from scheduler.store.gates import Gates
from scheduler.store.ledger import LedgerTable
from scheduler.store.meta import MetaTable
from scheduler.store.prepared import prepared
from scheduler.store.run_endings import RunEndings
from scheduler.store.run_results import RunResults
from scheduler.store.runs import RunTable
from scheduler.store.schema import lost_attempts, runs, workers
from scheduler.store.triggers import TriggerTable
from scheduler.store.workers import WorkerTable


class Garden:
    """Where faults are planted; what grew there is gone when it is left."""

    def __enter__(self) -> Garden:
        self._monkeypatch = pytest.MonkeyPatch()
        return self

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()
        forget_statements()

    def plant(self, owner: Any, name: str, wrong: Callable[..., Any]) -> None:
        """Puts `wrong` in the place of a class's method, or of a module's function wherever that was imported."""
        right = getattr(owner, name)
        self._monkeypatch.setattr(owner, name, wrong)
        if not isinstance(owner, type):
            for module in _modules("scheduler.", "tests.simulation."):
                for attribute, value in list(vars(module).items()):
                    if value is right:
                        self._monkeypatch.setattr(module, attribute, wrong)
        forget_statements()


def forget_statements() -> None:
    """What was put together from the right parts is put together from the planted ones, and the other way round."""
    for module in _modules("scheduler.store."):
        for value in vars(module).values():
            if isinstance(value, prepared):
                value.forget()


def _modules(*prefixes: str) -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith(prefixes)]


Fault: TypeAlias = Callable[[Garden], None]

# --- slots -----------------------------------------------------------------------------------------------------------


def advance_by_clock(garden: Garden) -> None:
    """The next slot is looked for after now, not after the last one decided."""
    right = planning.plan_fires

    def wrong(job: Job, position: Micros, now: Micros, *rest: Any, **options: Any) -> Plan:
        made = right(job, position, now, *rest, **options)
        following = None if made.next_slot is None else job.next_after(now)
        return made._replace(next_slot=following, due_at=None if following is None else job.due_at(following))

    garden.plant(planning, "plan_fires", wrong)


def skip_uncounted(garden: Garden) -> None:
    """Slots that are skipped are written nowhere."""
    garden.plant(LedgerTable, "append", lambda *_: None)


def random_run_name(garden: Garden) -> None:
    """A run's name is drawn, so that a slot may have two."""
    garden.plant(plan, "slot_run_name", lambda *_: f"run-{token_hex(8)}")


def first_slot_only(garden: Garden) -> None:
    """Of several due slots only the first is decided, the others at the next look."""
    right = planning.plan_fires

    def wrong(job: Job, position: Micros, now: Micros, *rest: Any, **options: Any) -> Plan:
        first = job.next_after(position)
        return right(job, position, now if first is None else min(now, job.due_at(first)), *rest, **options)

    garden.plant(planning, "plan_fires", wrong)


def advance_lost(garden: Garden) -> None:
    """One of the triggers that were decided together does not advance."""
    right = TriggerTable.advance
    garden.plant(TriggerTable, "advance", lambda table, rows: right(table, rows[:-1] if len(rows) > 1 else rows))


def cap_applied_each_pass(garden: Garden) -> None:
    """The cap on late runs holds for a pass, not for an outage: what it cuts is owed again at the next look."""
    right = planning.plan_fires

    def wrong(job: Job, position: Micros, now: Micros, grace: Micros, **options: Any) -> Plan:
        late = [slot for slot in job.between(position, now) if job.due_at(slot) < now - grace]
        if job.catchup.policy == "all" and 0 < job.catchup.max_runs < len(late):
            now = job.due_at(late[job.catchup.max_runs - 1])
        return right(job, position, now, grace, **options)

    garden.plant(planning, "plan_fires", wrong)


def fingerprint_ignored(garden: Garden) -> None:
    """A fire takes every row for the one that its plan was made from."""
    right = fire._decide_one

    def wrong(tx: Any, due: Any, row: Any, *rest: Any) -> bool:
        row = {**row, "unplanned": False}
        try:
            due = due._replace(fingerprint=jobs.job_of(row).fingerprint)
        except ValueError:
            return right(tx, due, row, *rest)
        return right(tx, due, row, *rest)

    garden.plant(fire, "_decide_one", wrong)


def planned_anew_by_the_callers_clock(garden: Garden) -> None:
    """Whoever plans anew asks the clock of the machine it happens to run on."""
    right = plan.plan_anew

    class Here:
        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        def now(self) -> Micros:
            return SystemClock().now()

    garden.plant(plan, "plan_anew", lambda tx, *rest, **options: right(Here(tx), *rest, **options))


def restart_activates(garden: Garden) -> None:
    """A worker that starts deploys its files as if nobody had changed anything since."""
    right = deploy.deploy_task

    def wrong(tx: Any, *rest: Any, at_start: bool = False, **options: Any) -> Any:
        return right(tx, *rest, **options, active_as_sent=at_start)

    garden.plant(deploy, "deploy_task", wrong)


def quiet_days_forgotten(garden: Garden) -> None:
    """Late slots are caught up from all there are, those of blackout days too."""
    garden.plant(
        Job, "newest", lambda job, after, until, most: list(job.every(after, until))[-most:] if most > 0 else []
    )


def end_left_out(garden: Garden) -> None:
    """The slot that lies on the end of a schedule no longer belongs to it."""
    right = simple_schedules.bounded
    garden.plant(
        simple_schedules,
        "bounded",
        lambda schedule, start, end: right(schedule, start, None if end is None else end - 1),
    )


def moved_out_of_bounds(garden: Garden) -> None:
    """Start and end bind slots where they were, not where a calendar moves them."""
    right = calendars.with_calendars

    def wrong(schedule: Any, named: Any, timezone: str, *, start: int | None = None, end: int | None = None) -> Any:
        return right(simple_schedules.bounded(schedule, start, end), named, timezone)

    garden.plant(calendars, "with_calendars", wrong)


def one_fire_too_many(garden: Garden) -> None:
    """`max_fires` is compared after the fire, not before it."""
    right = planning.plan_fires
    garden.plant(
        planning, "plan_fires", lambda job, *rest, fires=0, **options: right(job, *rest, fires=fires - 1, **options)
    )


def reset_and_never_planned(garden: Garden) -> None:
    """A trigger whose fires are counted from 0 again is looked at by nobody."""
    garden.plant(many, "reset_fires", _only_counted_anew)


def _only_counted_anew(tx: Any, keys: Any, *rest: Any, **options: Any) -> Any:
    held = many._hold(tx, keys, {})
    changed = {key: row["id"] for key, row in held.rows.items() if held.dues[row["id"]].fires}
    tx.triggers.reset_fires(list(changed.values()))
    return list(changed)


def comes_back_spent(garden: Garden) -> None:
    """A trigger that is deployed again after it was deleted goes on counting its fires."""
    garden.plant(TriggerTable, "reset_fires", lambda *_: None)


def skip_next_after_the_jitter(garden: Garden) -> None:
    """A slot that waits out its jitter counts as over: skip-next leaves out the one after it."""
    garden.plant(jobs, "to_come_after", lambda row, job, next_slot, now: max(now, row["activated_at"] or now))


def policy_before_skip_next(garden: Garden) -> None:
    """The policy picks first: if its pick is the slot to be skipped, nothing fires, and any other slot is as others are."""
    right = planning.plan_fires

    def wrong(*rest: Any, skip_next: Micros | None = None, **options: Any) -> Plan:
        made = right(*rest, **options)
        left_out = [fire.slot for fire in made.fires if fire.slot == skip_next]
        skips = [*made.skips, *(SkippedRange(slot, slot, 1, Reason.SKIP_NEXT) for slot in left_out)]
        skips.sort(key=lambda item: item.from_slot)
        return made._replace(fires=tuple(f for f in made.fires if f.slot not in left_out), skips=tuple(skips))

    garden.plant(planning, "plan_fires", wrong)


def policy_before_overlap(garden: Garden) -> None:
    """The policy picks first: where open runs then refuse its pick, the others say that it stands for them."""
    right = planning.plan_fires

    def wrong(job: Job, *rest: Any, open_runs: int = 0, **options: Any) -> Plan:
        reason = overlap.refusal_of(job.overlap, open_runs)
        made = right(job, *rest, open_runs=0 if reason else open_runs, **options)
        if reason is None:
            return made
        skips = [*made.skips, *(SkippedRange(fire.slot, fire.slot, 1, reason) for fire in made.fires)]
        return made._replace(fires=(), skips=tuple(sorted(skips, key=lambda item: item.from_slot)))

    garden.plant(planning, "plan_fires", wrong)


def policy_picks_what_is_decided(garden: Garden) -> None:
    """The policy picks among all slots, those that have their entry included: then its pick does not fire."""
    right = planning.plan_fires

    def wrong(job: Job, *rest: Any, decided: Any = None, **options: Any) -> Plan:
        made = right(job, *rest, **options)
        if decided is None:
            return made
        fires = tuple(fire for fire in made.fires if not decided(fire.slot))
        slots = ((slot, item) for item in made.skips for slot in job.every(item.from_slot - SECOND, item.to_slot))
        skips = tuple(SkippedRange(slot, slot, 1, item.reason) for slot, item in slots if not decided(slot))
        return made._replace(fires=fires, skips=skips)

    garden.plant(planning, "plan_fires", wrong)


def clock_set_back_forgotten(garden: Garden) -> None:
    """After the clock was set back nobody remembers which slots have their entry."""
    garden.plant(plan, "entries_before", lambda *_: None)


def skipped_ahead_for_good(garden: Garden) -> None:
    """A range that was skipped while the clock was ahead stands for all that lies in it, once the clock is right."""

    def wrong(tx: Any, due: Any, position: Micros) -> Any:
        if due.decided_to is None:
            return None
        slots = tx.runs.slots_with_run(due.trigger_id, position, due.decided_to)
        ranges = tx.ledger.overlapping(due.trigger_id, position, due.decided_to)
        return lambda slot: slot in slots or any(item.from_slot <= slot <= item.to_slot for item in ranges)

    garden.plant(plan, "entries_before", wrong)
    garden.plant(plan, "_cut_ranges", lambda *_: None)


def skipped_ahead_and_again(garden: Garden) -> None:
    """What was skipped while the clock was ahead keeps its entry, and gets another one."""
    garden.plant(plan, "_cut_ranges", lambda *_: None)


def finished_ahead_of_time(garden: Garden) -> None:
    """A trigger that was finished while the clock was ahead stays so."""
    right = TriggerTable.claim_ahead
    garden.plant(
        TriggerTable,
        "claim_ahead",
        lambda table, *rest: [due for due in right(table, *rest) if due.due_at is not None],
    )


def every_clock_is_believed(garden: Garden) -> None:
    """Whatever the clock says is decided by."""
    garden.plant(ClockGuard, "check", lambda *_: None)


def a_jump_is_never_believed(garden: Garden) -> None:
    """A clock that jumped ahead is doubted for as long as it stays there."""
    right = ClockGuard._judge

    def wrong(guard: Any, now: Micros) -> Any:
        guard._first_doubted = None
        return right(guard, now)

    garden.plant(ClockGuard, "_judge", wrong)


def two_clocks_of_one_machine_agree(garden: Garden) -> None:
    """A clock that jumped is confirmed by one that jumped with it."""
    garden.plant(ClockGuard, "_is_confirmed", lambda _guard, _last, seen: seen.wall is not None)


def set_aside_forgets(garden: Garden) -> None:
    """A trigger that could not be planned begins anew when it can be."""
    right = TriggerTable.advance

    def wrong(table: TriggerTable, rows: Sequence[Any]) -> None:
        right(table, [row._replace(next_slot=None, fingerprint="") if row.due_at is None else row for row in rows])

    garden.plant(TriggerTable, "advance", wrong)


def jitter_over_or_lost(garden: Garden) -> None:
    """A slot that still waits out its jitter is nobody's when its schedule changes."""
    right = settling.settle

    def wrong(job: Any, following: Any, planned: Any, due_at: Any, now: Micros, *rest: Any, **options: Any) -> Plan:
        waits = due_at is not None and due_at > now
        return right(job, following, None if waits else planned, due_at, now, *rest, **options)

    garden.plant(settling, "settle", wrong)


def paused_in_its_jitter(garden: Garden) -> None:
    """A trigger that falls silent has no entry for the slot that waits out its jitter."""
    right = settling.skip_owed
    garden.plant(settling, "skip_owed", lambda *rest, **options: right(*rest, **{**options, "due_only": True}))


def every_change_drops_what_was_missed(garden: Garden) -> None:
    """Missed slots count as changed also where the new schedule has them."""
    right = settling.settle
    garden.plant(
        settling,
        "settle",
        lambda job, following, *rest, **options: right(
            job, replace(following, schedule=None, calendars=None), *rest, **options
        ),
    )


def snooze_owed_afterwards(garden: Garden) -> None:
    """What a trigger slept through is owed when it wakes."""
    garden.plant(jobs, "wakes_at", lambda *_: None)
    garden.plant(jobs, "is_live", lambda row, _: bool(row["active"]) and row["deleted_at"] is None)


# --- runs ------------------------------------------------------------------------------------------------------------


def fence_ignored(garden: Garden) -> None:
    """A result counts whoever took the run since."""
    right = RunResults.finish

    def wrong(table: Any, ended: Sequence[Any], worker: str, now: Micros) -> dict[tuple[str, int], str]:
        names = [item.name for item in ended]
        statement = select(runs.c.name, runs.c.fence).where(runs.c.name.in_(names))
        present = {row.name: row.fence for row in table._tx.connection.execute(statement)}
        sent = {item.name: item._replace(fence=present.get(item.name, item.fence)) for item in ended}
        given = {item.name: item.fence for item in ended}
        counted = right(table, list(sent.values()), worker, now)
        return {(name, given[name]): phase for (name, _), phase in counted.items()}

    garden.plant(RunResults, "finish", wrong)


def key_kept_after_a_known_failure(garden: Garden) -> None:
    """The next attempt calls its target under the same key, though the last one is known to be over."""
    right = RunResults.finish
    garden.plant(
        RunResults,
        "finish",
        lambda table, ended, *rest: right(table, [item._replace(known_end=False) for item in ended], *rest),
    )


def answer_lost_to_a_cancel(garden: Garden) -> None:
    """Whatever the code of a cancelled run answers, it was cancelled."""
    right = RunResults.finish

    def wrong(table: Any, ended: Sequence[Any], *rest: Any) -> dict[tuple[str, int], str]:
        statement = select(runs.c.name).where(runs.c.intent.is_not(None))
        unwanted = set(table._tx.connection.execute(statement).scalars())
        return right(
            table, [item._replace(phase="ABORTED") if item.name in unwanted else item for item in ended], *rest
        )

    garden.plant(RunResults, "finish", wrong)


def overlap_by_lease_only(garden: Garden) -> None:
    """A run counts as open only while a worker with a living lease executes it."""

    def wrong(table: Any, trigger_ids: Sequence[int]) -> dict[int, int]:
        alive = select(workers.c.incarnation).where(workers.c.alive, workers.c.lease_until >= table._tx.now())
        statement = (
            select(runs.c.trigger_id, func.count())
            .where(runs.c.trigger_id.in_(trigger_ids), runs.c.kind == "scheduled", runs.c.phase == "RUNNING")
            .where(runs.c.owner.in_(alive))
            .group_by(runs.c.trigger_id)
        )
        return {row[0]: row[1] for row in table._tx.connection.execute(statement)}

    garden.plant(RunTable, "count_open_scheduled", wrong)


def limit_of_each_look(garden: Garden) -> None:
    """A task's limit holds for the runs that are taken together, not for those under way."""
    garden.plant(
        Gates,
        "_with_room",
        lambda gates, locked, limit: [
            type("Task", (tuple,), {})((number, limit if most is None else min(limit, most)))
            for number, most in gates._tx.connection.execute(
                text(f"SELECT id, max_concurrent_runs FROM tasks WHERE id IN ({', '.join(map(str, locked))})")
            )
        ],
    )


def no_turns(garden: Garden) -> None:
    """A run that has to wait for an earlier one of its trigger looks only at those under way."""
    for module in (run_lookups, sys.modules[Gates.__module__]):
        garden.plant(module, "is_behind_another", _only_under_way)


def _only_under_way(run: Any, other: Any) -> Any:
    busy = select(other.c.name).where(other.c.trigger_id == run.c.trigger_id, other.c.kind == "scheduled")
    return busy.where(other.c.name != run.c.name, other.c.phase.in_(["RUNNING", "DEFERRED"])).exists()


def late_runs_in_a_row(garden: Garden) -> None:
    """Late runs of one trigger come one after the other, whoever else waits."""
    right = plan._new_run
    garden.plant(plan, "_new_run", lambda *rest: (run := right(*rest))._replace(priority=min(run.priority, 1)))


def cancelled_while_it_waits(garden: Garden) -> None:
    """A cancel only stores the wish, also where nobody executes the run."""

    def wrong(table: Any, condition: Any, now: Micros, note: str) -> dict[str, str]:
        statement = (
            update(runs).where(condition, runs.c.finished_at.is_(None)).values(intent="cancel", intent_note=note)
        )
        return {
            row.name: row.phase for row in table._tx.connection.execute(statement.returning(runs.c.name, runs.c.phase))
        }

    garden.plant(RunEndings, "_cancel", wrong)


def started_after_its_deadline(garden: Garden) -> None:
    """A run whose deadline is over is started all the same."""
    for module in (run_lookups, sys.modules[RunTable.__module__], sys.modules[Gates.__module__]):
        garden.plant(module, "may_start", lambda *_: text("1 = 1"))


def paused_runs_start(garden: Garden) -> None:
    """Runs that wait when their trigger is paused start later all the same."""
    garden.plant(RunEndings, "abort_unstarted", lambda *_: 0)


def lost_without_a_row(garden: Garden) -> None:
    """Nothing tells of an execution whose worker was lost."""
    right = RunEndings.requeue_lost

    def wrong(table: Any, rows: Sequence[Any], now: Micros) -> None:
        right(table, rows, now)
        table._tx.connection.execute(lost_attempts.delete())

    garden.plant(RunEndings, "requeue_lost", wrong)


def lost_once_though_many_times(garden: Garden) -> None:
    """Each loss of a run is taken for its first."""
    right = RunEndings.requeue_lost
    garden.plant(
        RunEndings, "requeue_lost", lambda table, rows, now: right(table, [row._replace(lost=1) for row in rows], now)
    )


def handed_back_as_lost(garden: Garden) -> None:
    """A run that its worker gives back counts as lost."""
    right = RunEndings.hand_back

    def wrong(table: Any, owner: str, held: Sequence[tuple[str, int]], now: Micros) -> int:
        names = [name for name, _ in held]
        mine = update(runs).where(runs.c.name.in_(names), runs.c.owner == owner)
        table._tx.connection.execute(mine.values(lost=runs.c.lost + 1))
        return right(table, owner, held, now)

    garden.plant(RunEndings, "hand_back", wrong)


# --- workers ---------------------------------------------------------------------------------------------------------


def no_reaper(garden: Garden) -> None:
    """Nobody takes runs back from workers that are gone."""
    garden.plant(RunEndings, "orphans", lambda *_, **__: [])


def lease_on_the_local_clock(garden: Garden) -> None:
    """A worker's lease ends by its own clock, and others compare it with theirs."""
    right = WorkerTable.renew

    def wrong(table: Any, incarnation: str, lease: Micros) -> Micros | None:
        renewed, here = right(table, incarnation, lease), SystemClock().now()
        mine = update(workers).where(workers.c.incarnation == incarnation, workers.c.alive)
        table._tx.connection.execute(mine.values(renewed_at=here, lease_until=here + lease))
        return renewed

    garden.plant(WorkerTable, "renew", wrong)


def judged_right_after_an_outage(garden: Garden) -> None:
    """Whoever comes back first declares all the others dead."""
    garden.plant(Heartbeat, "may_judge", property(lambda _: True))  # type: ignore[arg-type]


def judged_by_a_clock_that_jumped(garden: Garden) -> None:
    """That the database's clock jumped is nothing to a worker's heartbeat."""
    garden.plant(Heartbeat, "_watch_database", lambda *_: None)


def restored_without_an_epoch(garden: Garden) -> None:
    """After a restore nothing tells the workers of before from those of now."""
    garden.plant(MetaTable, "begin_epoch", lambda table: table.epoch())


def set_back_and_never_noticed(garden: Garden) -> None:
    """A clock that was set back is waited for."""
    garden.plant(sync, "plan_after_clock_set_back", lambda *_: 0)


LISTED: Final[tuple[Fault, ...]] = (
    advance_by_clock,
    skip_uncounted,
    random_run_name,
    no_reaper,
    fence_ignored,
    first_slot_only,
    advance_lost,
    lease_on_the_local_clock,
    judged_right_after_an_outage,
    planned_anew_by_the_callers_clock,
    cap_applied_each_pass,
    key_kept_after_a_known_failure,
    overlap_by_lease_only,
    answer_lost_to_a_cancel,
    fingerprint_ignored,
    restart_activates,
)
OTHERS: Final[tuple[Fault, ...]] = (
    quiet_days_forgotten,
    end_left_out,
    moved_out_of_bounds,
    one_fire_too_many,
    reset_and_never_planned,
    comes_back_spent,
    skip_next_after_the_jitter,
    policy_before_skip_next,
    policy_before_overlap,
    policy_picks_what_is_decided,
    clock_set_back_forgotten,
    set_aside_forgets,
    snooze_owed_afterwards,
    skipped_ahead_for_good,
    skipped_ahead_and_again,
    finished_ahead_of_time,
    every_clock_is_believed,
    a_jump_is_never_believed,
    two_clocks_of_one_machine_agree,
    jitter_over_or_lost,
    paused_in_its_jitter,
    every_change_drops_what_was_missed,
    limit_of_each_look,
    no_turns,
    late_runs_in_a_row,
    cancelled_while_it_waits,
    started_after_its_deadline,
    paused_runs_start,
    lost_without_a_row,
    lost_once_though_many_times,
    handed_back_as_lost,
    judged_by_a_clock_that_jumped,
    restored_without_an_epoch,
    set_back_and_never_noticed,
)
