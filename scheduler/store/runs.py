"""Runs: inserted by name, taken under a fence, finished by name and fence. Verbs are named by the transition they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)

from scheduler.domain.instants import Micros
from scheduler.domain.run import Kind, Phase
from scheduler.store.dialect import BIGINT, INTEGER, TEXT, Batch, Dialect
from scheduler.store.gates import Gates, Turns
from scheduler.store.prepared import prepared
from scheduler.store.run_endings import RunEndings
from scheduler.store.run_lookups import OPEN_TEXT, READY, may_start
from scheduler.store.run_results import RunResults
from scheduler.store.schema import runs, triggers
from scheduler.store.tally import Start


class NewRun(NamedTuple):
    """A slot that becomes a run; everything else is copied from its trigger. `owner` None leaves it queued."""

    name: str
    trigger_id: int
    scheduled_at: Micros
    covers_from: Micros | None
    covers_to: Micros | None
    priority: int
    not_before: Micros
    owner: str | None


class TakenRun(NamedTuple):
    """A run handed to a worker, with all it pinned."""

    name: str
    kind: str
    trigger_id: int | None
    task_id: int
    scheduled_at: Micros | None
    covers_from: Micros | None
    covers_to: Micros | None
    version: str
    spec_digest: str
    inputs: str
    kickoff_arg: str | None
    executor: str
    deadline_at: Micros | None
    attempt: int
    known_ends: int
    lost: int
    fence: int
    created_at: Micros
    started_at: Micros
    state: str | None
    priority: int
    serial: bool
    gated: bool
    owner: str
    not_before: Micros


_SCHEDULED: Final = Kind.SCHEDULED.value
_COPIED = (
    "name",
    "task_id",
    "version",
    "spec_digest",
    "inputs",
    "kickoff_arg",
    "executor",
    "deadline_at",
    "serial",
    "gated",
)


def _inserted(row: Any, new: NewRun, now: Micros) -> TakenRun:
    name, task_id, version, spec_digest, inputs, kickoff_arg, executor, deadline_at, serial, gated = row
    # By position, in the order of the fields: a thousand times a transaction, names cost as much as all the rest of this.
    return TakenRun(
        name,
        _SCHEDULED,
        new.trigger_id,
        task_id,
        new.scheduled_at,
        new.covers_from,
        new.covers_to,
        version,
        spec_digest,
        inputs,
        kickoff_arg,
        executor,
        deadline_at,
        1,  # attempt
        0,  # known_ends
        0,  # lost
        0 if new.owner is None else 1,  # fence
        now,  # created_at
        now,  # started_at
        None,  # state
        new.priority,
        serial,
        gated,
        new.owner or "",
        new.not_before,
    )


class RunTable(RunResults, RunEndings):
    """Runs and their attempts through one transaction."""

    # --- queued ------------------------------------------------------------------------------------------------------

    def insert_new(self, new: Sequence[NewRun], now: Micros) -> list[tuple[TakenRun, bool]]:
        """Inserts scheduled runs that are not there yet; returns the inserted ones and whether each is RUNNING already.

        Where fewer come back than were given, ask `mismatched`: a name that exists for another slot is an error.
        Only what is copied from triggers is read back: it may differ from what the caller saw of them.
        """
        if not new:
            return []
        # Sorted by name, so that two workers' batches cannot wait for each other in a circle.
        ordered = sorted(new)
        statement, batch = _insert_new(self._tx.dialect)
        given = {item.name: item for item in ordered}
        rows = self._tx.connection.execute(statement, {**batch.send(ordered), "now": now}).all()
        inserted = [(_inserted(row, given[row[0]], now), given[row[0]].owner is not None) for row in rows]
        self._tx.tally.inserted[Kind.SCHEDULED] += len(inserted)
        self._count_starts(run for run, running in inserted if running)
        return inserted

    def mismatched(self, new: Sequence[NewRun]) -> list[str]:
        """Names of this batch under which a run for another trigger or slot is stored."""
        wanted = {item.name: item for item in new}
        statement = select(runs.c.name, runs.c.trigger_id, runs.c.scheduled_at).where(runs.c.name.in_(sorted(wanted)))
        return [
            row.name
            for row in self._tx.connection.execute(statement)
            if (row.trigger_id, row.scheduled_at) != (wanted[row.name].trigger_id, wanted[row.name].scheduled_at)
        ]

    def limit(self, trigger_ids: Sequence[int], limited: bool) -> None:
        """The open runs of these triggers, all those of a task, have to obey a limit from now on, or need not any more."""
        self._tx.connection.execute(
            update(runs)
            .where(runs.c.trigger_id.in_(trigger_ids), text(OPEN_TEXT))
            .values(gated=or_(runs.c.serial, literal(limited)))
        )

    def insert_manual(self, values: Mapping[str, Any]) -> bool:
        """Inserts one run fired by hand; False where its name exists already."""
        statement = self._tx.dialect.insert(runs).values(values).on_conflict_do_nothing(index_elements=["name"])
        # Asked what it inserted: on PostgreSQL the row count of an INSERT is not to be had here.
        inserted = self._tx.connection.execute(statement.returning(runs.c.name)).first() is not None
        self._tx.tally.inserted[values["kind"]] += inserted
        return inserted

    # --- running -----------------------------------------------------------------------------------------------------

    def take(self, owner: str, room: Mapping[str, int], *, late: bool, limit: int, now: Micros) -> list[TakenRun]:
        """Queued runs become RUNNING under `owner`, at most `limit`, and of each executor no more than its room.

        On-time runs come oldest first; late ones round-robin over their triggers, each trigger's oldest first. Rows that
        another worker is taking are left out, and so are runs whose end is already intended.
        """
        with_room = sorted((name, places) for name, places in room.items() if places > 0)
        if not with_room or limit <= 0:
            return []
        given: dict[str, Any] = {"now": now, "owner": owner, "most": limit}
        for index, (executor, places) in enumerate(with_room):
            given |= {f"executor_{index}": executor, f"places_{index}": min(places, limit)}
        return self._taken(_take(self._tx.dialect, len(with_room), late), given)

    def take_gated(
        self, owner: str, room: Mapping[str, int], *, late: bool, limit: int, now: Micros, after: int
    ) -> tuple[list[TakenRun], Turns]:
        """Queued runs that had to wait for their turn become RUNNING, where their task's limit and their trigger allow it.

        Looks at some hundred tasks that follow `after`, and tells where to go on. The tasks' rows are locked until the
        transaction ends: nobody else counts and takes at the same time.
        """
        turns = Gates(self._tx).startable(room, late=late, limit=limit, now=now, after=after)
        if not turns.names:
            return [], turns
        return self._taken(_take_turns(self._tx.dialect), {"names": turns.names, "now": now, "owner": owner}), turns

    def _taken(self, taking: Executable, given: Mapping[str, Any]) -> list[TakenRun]:
        taken = [TakenRun(*row) for row in self._tx.connection.execute(taking, given).all()]
        self._count_starts(taken)
        return sorted(taken, key=lambda run: (run.priority, run.scheduled_at or run.created_at, run.name))

    def _count_starts(self, taken: Iterable[TakenRun]) -> None:
        alike = Counter(
            [
                (run.executor, run.kind, run.priority > 0, run.fence == 1, run.started_at - run.not_before)
                for run in taken
            ]
        )
        for (executor, kind, late, first, lateness), number in alike.items():
            scheduled = kind == _SCHEDULED
            # Until it is first taken, a slot's run may start from the slot's due instant on.
            start = Start(executor, kind, scheduled and late, max(0, lateness) if scheduled and first else None)
            self._tx.tally.started[start] += number

    def still_held(self, owner: str) -> dict[str, int]:
        """Names and fences of the runs this incarnation holds."""
        statement = select(runs.c.name, runs.c.fence).where(runs.c.owner == owner)
        return {row.name: row.fence for row in self._tx.connection.execute(statement)}

    def release_future(self, now: Micros, beyond: Micros) -> int:
        """After the clock was set back: queued runs made after `beyond` wait for no instant that lies ahead."""
        result = self._tx.connection.execute(
            update(runs)
            .where(runs.c.phase == Phase.QUEUED.value, runs.c.not_before > now, runs.c.created_at > beyond)
            .values(not_before=now)
        )
        return int(result.rowcount)


# --- statements ------------------------------------------------------------------------------------------------------

_NOW: Final = bindparam("now", type_=BIGINT)
_TAKEN: Final = [runs.c[name] for name in TakenRun._fields]
_NEW: Final = dict(
    zip(NewRun._fields, (TEXT, BIGINT, BIGINT, BIGINT, BIGINT, INTEGER, BIGINT, TEXT), strict=True),
)


@prepared
def _insert_new(dialect: Dialect) -> tuple[Executable, Batch]:
    batch = dialect.batch("n", _NEW)
    new = batch.rows.c
    running = new.owner.is_not(None)
    serial = triggers.c.overlap != "allow_all"
    values: dict[str, Any] = {
        "name": new.name,
        "kind": literal(Kind.SCHEDULED.value, TEXT),
        "trigger_id": triggers.c.id,
        "task_id": triggers.c.task_id,
        "scheduled_at": new.scheduled_at,
        "covers_from": new.covers_from,
        "covers_to": new.covers_to,
        "version": triggers.c.version,
        "spec_digest": triggers.c.spec_digest,
        "revision": triggers.c.revision,
        "inputs": triggers.c.inputs,
        "kickoff_arg": triggers.c.kickoff_arg,
        "executor": triggers.c.executor,
        "serial": serial,
        "gated": or_(triggers.c.gated, serial),
        # One that its jitter holds back has the whole of it: the deadline counts from when the run may start.
        "deadline_at": case((new.not_before > _NOW, new.not_before), else_=_NOW) + triggers.c.deadline,
        "phase": case((running, Phase.RUNNING.value), else_=Phase.QUEUED.value),
        "priority": new.priority,
        "not_before": new.not_before,
        "owner": new.owner,
        "fence": case((running, 1), else_=0),
        "created_at": _NOW,
        "started_at": case((running, _NOW), else_=null()),
    }
    source = (
        select(*(value.label(f"v_{name}") for name, value in values.items()))
        .select_from(batch.rows.join(triggers, triggers.c.id == new.trigger_id))
        .where(true())
        .order_by(new.name)
    )
    statement = (
        dialect.insert(runs)
        .from_select(list(values), source, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(*(runs.c[name] for name in _COPIED))
    )
    return statement, batch


def _taking(chosen: ColumnElement[bool]) -> Executable:
    return (
        update(runs)
        .where(chosen)
        .values(
            phase=Phase.RUNNING.value,
            owner=bindparam("owner", type_=TEXT),
            fence=runs.c.fence + 1,
            # A run that goes on after it waited is still in the attempt that began then.
            started_at=case((runs.c.state.is_not(None), func.coalesce(runs.c.started_at, _NOW)), else_=_NOW),
        )
        .returning(*_TAKEN)
    )


@prepared
def _take(dialect: Dialect, executors: int, late: bool) -> Executable:
    """Takes runs of so many executors, from each no more than it has places, and no more than `most` in all."""
    arms: list[Select[Any]] = []
    for index in range(executors):
        statement = select(runs.c.name, runs.c.priority, runs.c.not_before).where(
            READY,
            runs.c.executor == bindparam(f"executor_{index}", type_=TEXT),
            runs.c.priority > 0 if late else runs.c.priority == 0,
            runs.c.not_before <= _NOW,
            runs.c.intent.is_(None),
            may_start(_NOW),
        )
        statement = statement.order_by(runs.c.priority, runs.c.not_before)
        statement = statement.limit(bindparam(f"places_{index}", type_=INTEGER))
        claimed = dialect.locked(statement, of=runs, skip=True).cte(f"arm_{index}")
        arms.append(select(claimed.prefix_with("MATERIALIZED", dialect="postgresql")))
    ready = union_all(*arms).subquery("ready") if len(arms) > 1 else arms[0].subquery("ready")
    chosen = select(ready.c.name).order_by(ready.c.priority, ready.c.not_before)
    return _taking(runs.c.name.in_(chosen.limit(bindparam("most", type_=INTEGER))))


@prepared
def _take_turns(_dialect: Dialect) -> Executable:
    return _taking(
        and_(
            runs.c.name.in_(bindparam("names", expanding=True)),
            runs.c.phase == Phase.QUEUED.value,
            runs.c.intent.is_(None),
        )
    )
