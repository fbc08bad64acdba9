"""What must hold in every world: each function yields one text per thing that is wrong. Add yours to `INVARIANTS`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from scheduler.domain.identity import slot_run_name
from scheduler.domain.instants import Micros, to_rfc3339
from scheduler.domain.run import Phase
from tests.simulation.rules import RUN
from tests.simulation.world import World

Invariant: TypeAlias = Callable[[World], Iterator[str]]


def rows(world: World, statement: str) -> list[Any]:
    with world.store.read() as tx:
        return list(tx.connection.exec_driver_sql(statement).all())


def one_run_per_slot(world: World) -> Iterator[str]:
    scheduled = rows(world, "SELECT trigger_id, scheduled_at FROM runs WHERE kind = 'scheduled'")
    seen = Counter((run.trigger_id, run.scheduled_at) for run in scheduled)
    yield from (f"slot {slot} has {count} runs" for slot, count in seen.items() if count > 1)


def every_owed_slot_has_its_one_entry(world: World) -> Iterator[str]:
    """Runs and skipped ranges together are exactly the slots owed, each with the outcome that the rules give it."""
    runs: dict[int, set[Micros]] = defaultdict(set)
    for run in rows(world, "SELECT trigger_id, scheduled_at FROM runs WHERE kind = 'scheduled'"):
        runs[run.trigger_id].add(run.scheduled_at)
    ranges = defaultdict(list)
    for skipped in rows(world, "SELECT * FROM skips ORDER BY trigger_id, from_slot"):
        ranges[skipped.trigger_id].append(skipped)
    for number, model in world.triggers.items():
        owed = {slot for slot, outcome in model.entries.items() if outcome == RUN}
        yield from _differences(f"{model.identity} run", owed, runs[number])
        left = {slot: outcome for slot, outcome in model.entries.items() if outcome != RUN}
        if not model.is_blurred:
            # A run that lies ahead of a clock that was set back need not be among the slots of a later schedule.
            alien = {slot for slot in runs[number] if model.is_alien(slot)} if world.was_set_back else set()
            yield from _ranges(model.identity, left, ranges[number], runs[number] - alien)


def _ranges(name: str, left: dict[Micros, str], ranges: list[Any], runs: set[Micros]) -> Iterator[str]:
    for item in ranges:
        shown = f"{name} range {to_rfc3339(item.from_slot)}–{to_rfc3339(item.to_slot)} {item.reason}"
        within = [s for s, why in left.items() if item.from_slot <= s <= item.to_slot and why == item.reason]
        if len(within) != item.count:
            yield f"{shown}: counts {item.count} slots, {len(within)} are owed there"
        if within and (min(within), max(within)) != (item.from_slot, item.to_slot):
            yield f"{shown}: its ends are not on the grid"
        if over := [slot for slot in runs if item.from_slot <= slot <= item.to_slot]:
            yield f"{shown}: lies over the run of {to_rfc3339(over[0])}"
        for slot in within:
            del left[slot]
    yield from (f"{name} owes {to_rfc3339(slot)} ({why}): no entry" for slot, why in sorted(left.items()))


def no_entry_speaks_of_a_run_that_is_not_there(world: World) -> Iterator[str]:
    """A slot that a gap's run covers lies in that gap, and one that a newer slot stands for has a newer run."""
    runs = defaultdict(list)
    for run in rows(
        world, "SELECT trigger_id, scheduled_at, covers_from, covers_to FROM runs WHERE kind = 'scheduled'"
    ):
        runs[run.trigger_id].append(run)
    for item in rows(world, "SELECT * FROM skips WHERE reason IN ('covered_by_gap', 'coalesced')"):
        first, last, mine = item.from_slot, item.to_slot, runs[item.trigger_id]
        if item.reason == "coalesced":
            there = any(run.scheduled_at > last for run in mine)
        else:
            there = any(
                run.covers_from is not None and run.covers_from <= first <= last <= run.covers_to for run in mine
            )
        if not there:
            yield f"{to_rfc3339(first)}–{to_rfc3339(last)} of trigger {item.trigger_id} are {item.reason} by no run"


def plans_are_what_the_rules_give(world: World) -> Iterator[str]:
    """The next slot and the position of every trigger."""
    for row in rows(world, "SELECT * FROM trigger_due"):
        model = world.triggers[row.trigger_id]
        slot = model.next_slot()
        if (row.due_at is None) != (slot is None) or (slot is not None and row.next_slot != slot):
            yield f"{model.identity} plans {row.next_slot} due {row.due_at}, not {slot}"
        elif slot is not None and row.due_at != model.due_at(slot):
            yield f"{model.identity} is due at {row.due_at}, not {model.due_at(slot)}"


def runs_stand_as_their_history_says(world: World) -> Iterator[str]:
    """Phase, owner, fence, attempt and losses: only the rightful worker's ends were recorded, each of them once."""
    stored = {run.name: run for run in rows(world, "SELECT * FROM runs")}
    yield from _differences("run name", set(world.runs.runs), set(stored))
    for name, model in world.runs.runs.items():
        if (run := stored.get(name)) is None:
            continue
        waits = model.phase is Phase.QUEUED
        is_so = (run.phase, run.owner, run.fence, run.attempt, run.known_ends, run.lost)
        should = (model.phase, model.owner, model.fence, model.attempt, model.known_ends, model.lost)
        if is_so != should:
            yield f"{name} is {is_so}, should be {should}"
        if waits and run.not_before != model.not_before:
            yield f"{name} waits until {to_rfc3339(run.not_before)}, should until {to_rfc3339(model.not_before)}"
        covers = model.covers or (None, None)
        pinned = (run.version, run.executor, run.deadline_at, run.scheduled_at, run.covers_from, run.covers_to)
        if pinned != (model.version, model.spec.executor, model.deadline_at, model.slot, *covers):
            yield f"{name} pinned {pinned}, should be {model}"
        gates = (bool(run.serial), bool(run.gated), run.intent is not None)
        if model.phase.open and gates != (model.serial, world.runs.is_gated(model), model.unwanted):
            yield f"{name} is (serial, gated, unwanted) {gates}, should be {model}"


def attempts_are_recorded_once(world: World) -> Iterator[str]:
    recorded = defaultdict(list)
    for attempt in rows(world, "SELECT * FROM attempts ORDER BY run_name, attempt"):
        recorded[attempt.run_name].append(attempt.phase)
    for name, model in world.runs.runs.items():
        if recorded[name] != [str(phase) for phase in model.recorded]:
            yield f"{name} has attempts {recorded[name]}, should have {model.recorded}"


def lost_executions_are_recorded_once(world: World) -> Iterator[str]:
    """A row for each loss that did not end its run, with the attempt that was under way."""
    recorded: dict[str, dict[int, int]] = defaultdict(dict)
    for lost in rows(world, "SELECT * FROM lost_attempts"):
        recorded[lost.run_name][lost.lost] = lost.attempt
    for name, model in world.runs.runs.items():
        if recorded[name] != model.losses:
            yield f"{name} has the losses {recorded[name]}, should have {model.losses}"


def runs_bear_the_names_of_their_slots(world: World) -> Iterator[str]:
    keys = {number: key for key, number in world.people.register.ids.items()}
    for run in rows(world, "SELECT name, trigger_id, scheduled_at FROM runs WHERE kind = 'scheduled'"):
        if run.name != slot_run_name(*keys[run.trigger_id], run.scheduled_at):
            yield f"{run.name} is not the name of {run.scheduled_at}"


def nothing_is_open_without_an_owner_or_a_reason(world: World) -> Iterator[str]:
    known = {worker.incarnation for worker in rows(world, "SELECT incarnation FROM workers")}
    for run in rows(world, "SELECT * FROM runs"):
        if (run.phase == "RUNNING") != (run.owner is not None):
            yield f"{run.name} is {run.phase}, and its owner is {run.owner}"
        if run.owner is not None and run.owner not in known | world.void:
            yield f"{run.name} belongs to {run.owner}, whom nobody could declare dead"
        if (run.phase in ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")) != (run.finished_at is not None):
            yield f"{run.name} is {run.phase} and finished at {run.finished_at}"


def nothing_fired_for_an_inactive_time(world: World) -> Iterator[str]:
    """Every slot that has a run lies within a time in which its trigger was active."""
    if world.was_set_back:
        return  # Then no time is before or after another.
    for run in rows(world, "SELECT name, trigger_id, scheduled_at FROM runs WHERE kind = 'scheduled'"):
        periods = world.triggers[run.trigger_id].periods
        if not any(begin < run.scheduled_at and (end is None or run.scheduled_at <= end) for begin, end in periods):
            yield f"{run.name} fired outside {periods}"


def what_cannot_be_planned_says_so(world: World) -> Iterator[str]:
    for row in rows(world, "SELECT id, error, error_fingerprint FROM triggers"):
        model = world.triggers[row.id]
        if (row.error is not None) != bool(model.aside) or (row.error_fingerprint or "") != model.aside:
            yield f"{model.identity} has the error {row.error} of {row.error_fingerprint}; it is set aside: {model.aside}"


def limits_and_turns_are_kept(world: World) -> Iterator[str]:
    """Of a serial trigger never two runs are under way; of a task no more than any of its deploys allowed."""
    statement = "SELECT r.trigger_id, r.serial, t.name AS task FROM runs r JOIN tasks t ON t.id = r.task_id"
    under_way = rows(world, f"{statement} WHERE r.phase IN ('RUNNING', 'DEFERRED')")
    serial = Counter(run.trigger_id for run in under_way if run.serial)
    yield from (f"{count} runs of trigger {number} are under way" for number, count in serial.items() if count > 1)
    for task, count in Counter(run.task for run in under_way).items():
        limits = [manifest.spec.limit for manifest in world.people.register.ever[task]]
        if None not in limits and count > max(limit for limit in limits if limit is not None):
            yield f"{count} runs of {task} are under way, and {limits} were allowed"


def lost_runs_are_given_up_at_the_limit(world: World) -> Iterator[str]:
    limit = world.runs.max_lost
    for run in rows(world, "SELECT * FROM runs"):
        model = world.runs.runs.get(run.name)
        if model is None or model.reopened:
            continue  # Somebody wanted it to begin again, however often it was lost.
        fails_at_once = model.spec.on_lost == "fail"
        if run.lost > limit or (run.lost >= (1 if fails_at_once else limit) and run.phase not in ("FAILED", "ABORTED")):
            yield f"{run.name} was lost {run.lost} times and is {run.phase}"


def summaries_count_the_triggers(world: World) -> Iterator[str]:
    if any(model.pending for model in world.triggers.values()):
        return
    for task in rows(world, "SELECT * FROM tasks"):
        if task.name in world.flickered:
            continue
        mine = [
            model
            for key, number in world.people.register.ids.items()
            if key.task == task.name and (model := world.triggers[number])
        ]
        counts = (
            sum(not model.written.deleted for model in mine),
            sum(model.written.active and not model.written.deleted for model in mine),
        )
        if (task.total_triggers, task.active_triggers) != counts:
            yield f"{task.name} counts {task.total_triggers} triggers, {task.active_triggers} active; not {counts}"


INVARIANTS: Final[tuple[Invariant, ...]] = (
    one_run_per_slot,
    every_owed_slot_has_its_one_entry,
    no_entry_speaks_of_a_run_that_is_not_there,
    plans_are_what_the_rules_give,
    runs_stand_as_their_history_says,
    attempts_are_recorded_once,
    lost_executions_are_recorded_once,
    runs_bear_the_names_of_their_slots,
    nothing_is_open_without_an_owner_or_a_reason,
    nothing_fired_for_an_inactive_time,
    limits_and_turns_are_kept,
    what_cannot_be_planned_says_so,
    lost_runs_are_given_up_at_the_limit,
    summaries_count_the_triggers,
)


def violations(world: World) -> list[str]:
    """Everything that is wrong in this world now."""
    return [f"{invariant.__name__}: {fault}" for invariant in INVARIANTS for fault in invariant(world)]


def _differences(what: str, should: set[Any], are: set[Any]) -> Iterator[str]:
    yield from (f"{what} {_shown(item)} is missing" for item in sorted(should - are))
    yield from (f"{what} {_shown(item)} should not be" for item in sorted(are - should))


def _shown(item: Any) -> str:
    return to_rfc3339(item) if isinstance(item, int) else str(item)
