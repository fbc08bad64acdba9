"""Whose turn it is: queued runs that a task's limit or an earlier run of their trigger may hold back.

They stay out of the ready queue, where a saturated task's thousands would stand at its head and hide everyone else's.
Here the work is bounded by tasks: some hundred of them a call, of each no more runs than it has room for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Select, and_, bindparam, func, not_, select, text

from scheduler.domain.instants import Micros
from scheduler.store.dialect import BIGINT, INTEGER, Dialect, Each
from scheduler.store.prepared import prepared
from scheduler.store.run_lookups import is_behind_another, may_start
from scheduler.store.schema import runs, tasks

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

TASKS_AT_ONCE: Final = 200
# Word for word what the index `runs_gated` says, and its first column: a bound phase would read the whole table.
_WAITING: Final = "{0}.gated AND {0}.phase = 'QUEUED'"
_STARTED: Final = "runs.gated AND runs.phase IN ('RUNNING', 'DEFERRED')"
# One step in the index a task, however many runs each has.
_TASKS: Final = text(
    "WITH RECURSIVE waiting(task_id) AS ("
    "SELECT min(task_id) FROM runs WHERE gated AND phase = 'QUEUED' AND task_id > :after "
    "UNION ALL SELECT (SELECT min(r.task_id) FROM runs r WHERE r.gated AND r.phase = 'QUEUED' "
    "AND r.task_id > waiting.task_id) FROM waiting WHERE waiting.task_id IS NOT NULL) "
    "SELECT task_id FROM waiting WHERE task_id IS NOT NULL LIMIT :most"
)


class _Task(NamedTuple):
    """A task whose row is locked, and how many more of its runs may start."""

    id: int
    room: int


class Turns(NamedTuple):
    """Runs whose turn it is, the task to go on after (0: all were looked at), and whether somebody held some of them."""

    names: list[str]
    after: int
    missed: bool = False


class Gates:
    """Finds, through one transaction, the gated runs that may start."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def startable(self, room: Mapping[str, int], *, late: bool, limit: int, now: Micros, after: int) -> Turns:
        """Names of runs that may start, no more than the executors' room."""
        executors = {name: places for name, places in room.items() if places > 0}
        if not executors or limit <= 0:
            return Turns([], 0)
        found = list(self._tx.connection.execute(_TASKS, {"after": after, "most": TASKS_AT_ONCE}).scalars())
        following = found[-1] if len(found) == TASKS_AT_ONCE else 0
        locked = self._locked(found) if found else []
        # Whoever holds the others counts them, and may have no places for all it finds.
        missed = len(locked) < len(found)
        with_room = self._with_room(locked, limit) if locked else []
        if not with_room:
            return Turns([], following, missed)
        names: list[str] = []
        for name, executor in self._candidates(with_room, sorted(executors), late=late, limit=limit, now=now):
            if executors[executor] > 0 and len(names) < limit:
                executors[executor] -= 1
                names.append(name)
        # What found no place here is looked at again first.
        return Turns(names, after if len(names) == limit else following, missed)

    def _locked(self, task_ids: Sequence[int]) -> list[int]:
        """Locks these tasks; those that somebody else holds are left out."""
        return list(self._tx.connection.execute(_lock(self._tx.dialect), {"task_ids": task_ids}).scalars())

    def _with_room(self, locked: Sequence[int], limit: int) -> list[_Task]:
        """Those of the locked tasks that have room, and how much."""
        # Counted in a statement of its own: what the lock was waited behind is seen here.
        rooms = (
            _Task(task_id, limit if most is None else min(limit, most - count))
            for task_id, most, count in self._tx.connection.execute(_room(self._tx.dialect), {"task_ids": locked})
        )
        return [task for task in rooms if task.room > 0]

    def _candidates(
        self, locked: Sequence[_Task], executors: Sequence[str], *, late: bool, limit: int, now: Micros
    ) -> list[tuple[str, str]]:
        """Names and executors of the runs that may start, longest waiting first."""
        next_of = _next_of(self._tx.dialect, late)
        found = list(next_of(self._tx.connection, locked, executors=executors, now=now))
        found.sort(key=lambda row: (row.priority, row.not_before, row.name))
        return [(row.name, row.executor) for row in found]


@prepared
def _next_of(dialect: Dialect, late: bool) -> Each:
    """The runs of each task that wait longest and may start, as many as it has room for."""
    run = runs.alias("r")
    now = bindparam("now", type_=BIGINT)

    def of_one(task_id: Any, room: Any) -> Select[Any]:
        return (
            select(run.c.name, run.c.executor, run.c.priority, run.c.not_before)
            .where(
                text(_WAITING.format("r")),
                run.c.task_id == task_id,
                run.c.executor.in_(bindparam("executors", expanding=True)),
                run.c.priority > 0 if late else run.c.priority == 0,
                run.c.not_before <= now,
                run.c.intent.is_(None),
                may_start(now, run),
                not_(and_(run.c.serial, is_behind_another(run, runs.alias("o")))),
            )
            .order_by(run.c.priority, run.c.not_before, run.c.name)
            .limit(room)
        )

    return dialect.each({"task_id": BIGINT, "room": INTEGER}, of_one)


@prepared
def _lock(dialect: Dialect) -> Select[Any]:
    chosen = tasks.c.id.in_(bindparam("task_ids", expanding=True))
    return dialect.locked(select(tasks.c.id).where(chosen).order_by(tasks.c.id), of=tasks, skip=True)


@prepared
def _room(_dialect: Dialect) -> Select[Any]:
    started = select(func.count()).where(runs.c.task_id == tasks.c.id, text(_STARTED)).scalar_subquery()
    chosen = tasks.c.id.in_(bindparam("task_ids", expanding=True))
    return select(tasks.c.id, tasks.c.max_concurrent_runs, started).where(chosen)
