"""Triggers and the due-queue. Whoever plans a trigger holds its row in `trigger_due`; that row is the trigger's lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, RowMapping, Select, Update, and_, bindparam, func, literal, or_, select, update

from scheduler.domain.instants import Micros
from scheduler.store import retries
from scheduler.store.dialect import BIGINT, BOOLEAN, INTEGER, TEXT, Batch, Dialect, asked_now
from scheduler.store.prepared import prepared
from scheduler.store.schema import task_versions, tasks, trigger_due, trigger_revisions, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


class DueRow(NamedTuple):
    """A trigger's place in the due-queue, locked."""

    trigger_id: int
    due_at: Micros | None
    next_slot: Micros | None
    last_slot: Micros | None
    decided_to: Micros | None
    fires: int
    fingerprint: str


class Advance(NamedTuple):
    """What a decision writes back to the due-queue."""

    trigger_id: int
    due_at: Micros | None
    next_slot: Micros | None
    last_slot: Micros | None
    decided_to: Micros | None
    fired_at: Micros | None
    fires: int
    fingerprint: str


class PlanChange(NamedTuple):
    """The columns of a trigger that planning it may change."""

    trigger_id: int
    activated_at: Micros | None
    anchor_at: Micros | None
    anchor_interval: int | None
    version: str | None
    spec_digest: str | None
    executor: str | None
    deadline: Micros | None
    gated: bool
    error: str | None
    error_fingerprint: str | None


_DUE = [
    trigger_due.c.trigger_id,
    trigger_due.c.due_at,
    trigger_due.c.next_slot,
    trigger_due.c.last_slot,
    trigger_due.c.decided_to,
    trigger_due.c.fires,
    trigger_due.c.fingerprint,
]


# Everything but what decides nothing, much of it long; whether the plan is of what stands there now is compared there.
_LEFT_OUT = {
    "plan_source",
    "planned_from",
    "deployed",
    "description",
    "note",
    "source",
    "updated_at",
    "updated_by",
    "inputs",
    "kickoff_arg",
    "pause_on_failure",
    "revision",
}
_TO_FIRE = [
    *(column for column in triggers.c if column.name not in _LEFT_OUT),
    triggers.c.planned_from.is_distinct_from(triggers.c.plan_source).label("unplanned"),
]


class TriggerTable:
    """Triggers, their revisions and their due rows through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    # --- the due-queue -----------------------------------------------------------------------------------------------

    def claim_due(
        self, limit: int, *, within: Micros | None = None, floor: Micros | None = None, source: str | None = None
    ) -> list[DueRow]:
        """Locks at most `limit` due triggers, longest due first; triggers somebody else holds are left out.

        `within` leaves out what has been due for longer. `floor` is an instant below which nothing is looked for: it spares
        the index entries that a forgotten long transaction keeps from being cleaned away. `source` leaves out what others
        deployed.
        """
        given: dict[str, Any] = self._tx.given_now()
        statement = _claim_due(self._tx.dialect, not given, within is not None, floor is not None, source is not None)
        given |= {"most": limit, "within": within, "floor": floor, "source": source}
        return [DueRow(*row) for row in self._tx.connection.execute(statement, given).all()]

    def claim_unplanned(self, limit: int) -> list[DueRow]:
        """Locks triggers whose plan was made from something else than what stands there now, whoever wrote it."""
        found = list(self._tx.connection.execute(_UNPLANNED, {"most": limit}).scalars())
        if not found:
            return []
        self.ensure_due(found)
        return self._claim(select(*_DUE).where(trigger_due.c.trigger_id.in_(found)).order_by(trigger_due.c.trigger_id))

    def claim_ahead(self, limit: int, beyond: Micros) -> list[DueRow]:
        """Locks triggers whose position, or activation, lies after `beyond`: the clock was set back under them."""
        young = select(triggers.c.id).where(triggers.c.activated_at > beyond)
        ahead = or_(
            trigger_due.c.last_slot > beyond,
            and_(trigger_due.c.last_slot.is_(None), trigger_due.c.trigger_id.in_(young)),
        )
        # What is snoozed lies ahead on purpose. One that is finished may owe something again. One that was switched on since
        # it was planned is the next look's. Whatever is claimed is planned, so that no full batch is claimed again and again.
        living = select(triggers.c.id).where(
            triggers.c.active,
            triggers.c.activated_at.is_not(None),
            triggers.c.deleted_at.is_(None),
            triggers.c.error.is_(None),
            func.coalesce(triggers.c.snoozed_until, 0) <= self._tx.now(),
        )
        statement = select(*_DUE).where(ahead, trigger_due.c.trigger_id.in_(living))
        return self._claim(statement.order_by(trigger_due.c.trigger_id).limit(limit))

    def claim_quarantined(self, fingerprint: str, limit: int) -> list[DueRow]:
        """Locks set-aside triggers that a worker with another version or other zone data gave up on, or whose time has come."""
        given = {"fingerprint": fingerprint, "most": limit, "at": self._tx.now()}
        return [DueRow(*row) for row in self._tx.connection.execute(_claim_quarantined(self._tx.dialect), given)]

    def claim_after(self, trigger_id: int, limit: int) -> list[DueRow]:
        """Locks the planned triggers that follow `trigger_id`, for a walk over all of them in batches."""
        statement = select(*_DUE).where(trigger_due.c.trigger_id > trigger_id, trigger_due.c.due_at.is_not(None))
        return self._claim(statement.order_by(trigger_due.c.trigger_id).limit(limit))

    def lock_due(self, trigger_ids: Iterable[int]) -> dict[int, DueRow]:
        """Locks these triggers' due rows, waiting for whoever holds them; makes the missing ones."""
        wanted = sorted(trigger_ids)
        if not wanted:
            return {}
        self.ensure_due(wanted)
        locked, batch = _lock_due(self._tx.dialect)
        rows = self._tx.connection.execute(locked, batch.send([(trigger_id,) for trigger_id in wanted]))
        return {row.trigger_id: DueRow(*row) for row in rows}

    def ensure_due(self, trigger_ids: Sequence[int]) -> None:
        """Gives every trigger its row in the due-queue."""
        insert = _ensure_due(self._tx.dialect)
        self._tx.connection.execute(insert, [{"trigger_id": trigger_id} for trigger_id in trigger_ids])

    def advance(self, rows: Sequence[Advance]) -> None:
        """Writes decisions back; the caller holds the rows."""
        if not rows:
            return
        statement, batch = _advance(self._tx.dialect)
        self._tx.connection.execute(statement, batch.send(rows))

    def reset_fires(self, trigger_ids: Sequence[int]) -> None:
        """Counts the fires of these triggers from 0 again; the caller holds their due rows."""
        chosen = self._tx.dialect.among(trigger_due.c.trigger_id, BIGINT, sorted(trigger_ids))
        self._tx.connection.execute(update(trigger_due).where(chosen).values(fires=0))

    def next_due_at(self) -> Micros | None:
        """When the next trigger is due, locked or not; None where nothing is planned."""
        value: Micros | None = self._tx.connection.execute(_NEXT_DUE).scalar()
        return value

    def _claim(self, statement: Select[Any]) -> list[DueRow]:
        claiming = _claiming(self._tx.dialect, statement)
        return [DueRow(*row) for row in self._tx.connection.execute(claiming).all()]

    # --- definitions -------------------------------------------------------------------------------------------------

    def load(self, trigger_ids: Iterable[int]) -> dict[int, RowMapping]:
        """What these triggers are, with their task's name; read after their due rows are locked."""
        return self._load(trigger_ids, whole=True)

    def load_to_fire(self, trigger_ids: Iterable[int]) -> dict[int, RowMapping]:
        """What deciding these triggers needs to know, and no more: a fire reads a thousand of them at once."""
        return self._load(trigger_ids, whole=False)

    def _load(self, trigger_ids: Iterable[int], *, whole: bool) -> dict[int, RowMapping]:
        statement, batch = _load(self._tx.dialect, whole)
        given = batch.send([(trigger_id,) for trigger_id in sorted(trigger_ids)])
        return {row["id"]: row for row in self._tx.connection.execute(statement, given).mappings().all()}

    def names(self, trigger_ids: Iterable[int]) -> dict[int, str]:
        """The names of these triggers within their tasks."""
        chosen = self._tx.dialect.among(triggers.c.id, BIGINT, sorted(trigger_ids))
        statement = select(triggers.c.id, triggers.c.name).where(chosen)
        return {row.id: row.name for row in self._tx.connection.execute(statement)}

    def of_task(self, task_id: int) -> list[RowMapping]:
        """Every trigger the task ever had, deleted ones included."""
        return list(self._tx.connection.execute(_OF_TASK, {"of_task": task_id}).mappings())

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """New triggers of one task; returns their ids by name."""
        if not rows:
            return {}
        self._tx.connection.execute(_INSERT, list(rows))
        names = {row["name"] for row in rows}
        found = self._tx.connection.execute(_NAMES_OF_TASK, {"of_task": rows[0]["task_id"]})
        return {row.name: row.id for row in found if row.name in names}

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Changes triggers; every row names its `id` and the same columns."""
        if not rows:
            return
        columns = [name for name in rows[0] if name != "id"]
        statement = (
            update(triggers)
            .where(triggers.c.id == bindparam("b_id"))
            .values({name: bindparam(f"b_{name}") for name in columns})
        )
        self._tx.connection.execute(statement, [{f"b_{name}": row[name] for name in row} for row in rows])

    def record_planning(self, changes: Sequence[PlanChange]) -> None:
        """Writes what planning these triggers changed about them."""
        if not changes:
            return
        statement, batch = _record_planning(self._tx.dialect)
        self._tx.connection.execute(statement, batch.send(changes))

    def mark_planned(self, trigger_ids: Sequence[int]) -> None:
        """Records that these triggers' plans were made from what stands there now."""
        statement, batch = _mark_planned(self._tx.dialect)
        self._tx.connection.execute(statement, batch.send([(trigger_id,) for trigger_id in trigger_ids]))

    def append_revisions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds to the history of changes; nothing there is ever rewritten."""
        if rows:
            self._tx.connection.execute(_APPEND_REVISIONS, list(rows))

    def that_may_pause(self, trigger_ids: Sequence[int]) -> Sequence[RowMapping]:
        """Those of these triggers that are active and have `pause_on_failure`: their ids and tasks."""
        statement = select(triggers.c.id, triggers.c.task_id).where(
            triggers.c.id.in_(trigger_ids),
            triggers.c.pause_on_failure.is_not(None),
            triggers.c.active,
            triggers.c.deleted_at.is_(None),
        )
        return self._tx.connection.execute(statement).mappings().all()

    # --- looking things up -------------------------------------------------------------------------------------------

    def find(self, project: str, domain: str, task: str, name: str) -> RowMapping | None:
        """One live trigger by its key."""
        statement = _listing().where(
            tasks.c.project == project, tasks.c.domain == domain, tasks.c.name == task, triggers.c.name == name
        )
        return self._tx.connection.execute(statement).mappings().one_or_none()

    def live_keys(self, limit: int) -> list[tuple[str, str, str, str]]:
        """Project, domain, task and name of live triggers."""
        statement = (
            select(tasks.c.project, tasks.c.domain, tasks.c.name, triggers.c.name)
            .join(tasks, tasks.c.id == triggers.c.task_id)
            .where(triggers.c.deleted_at.is_(None))
        )
        return [tuple(row) for row in self._tx.connection.execute(statement.limit(limit))]

    def ids_of(self, keys: Iterable[tuple[str, str, str, str]]) -> dict[tuple[str, str, str, str], int]:
        """The ids of those live triggers that exist, by project, domain, task and name."""
        names = {"project": TEXT, "domain": TEXT, "task": TEXT, "name": TEXT}
        batch = self._tx.dialect.rows("k", names, sorted(set(keys)))
        statement = (
            select(triggers.c.id, tasks.c.project, tasks.c.domain, tasks.c.name.label("task"), triggers.c.name)
            .join(tasks, tasks.c.id == triggers.c.task_id)
            .join(
                batch,
                and_(
                    tasks.c.project == batch.c.project,
                    tasks.c.domain == batch.c.domain,
                    tasks.c.name == batch.c.task,
                    triggers.c.name == batch.c.name,
                ),
            )
            .where(triggers.c.deleted_at.is_(None))
        )
        found = self._tx.connection.execute(statement)
        return {(row.project, row.domain, row.task, row.name): row.id for row in found}

    def id_of(self, project: str, domain: str, task: str, name: str) -> int | None:
        """The trigger of this key, deleted or not."""
        statement = (
            select(triggers.c.id)
            .join(tasks, tasks.c.id == triggers.c.task_id)
            .where(tasks.c.project == project, tasks.c.domain == domain, tasks.c.name == task, triggers.c.name == name)
        )
        found: int | None = self._tx.connection.execute(statement).scalar()
        return found

    def list_live(self, *conditions: ColumnElement[bool], limit: int) -> Sequence[RowMapping]:
        """Live triggers by key, with their plan."""
        statement = _listing().where(*conditions)
        ordered = statement.order_by(tasks.c.project, tasks.c.domain, tasks.c.name, triggers.c.name)
        return self._tx.connection.execute(ordered.limit(limit)).mappings().all()

    def walk_live(self, after: int, *conditions: ColumnElement[bool], limit: int) -> Sequence[RowMapping]:
        """Live triggers in the order of their ids, for a walk over all of them in batches."""
        statement = _listing().where(triggers.c.id > after, *conditions).order_by(triggers.c.id).limit(limit)
        return self._tx.connection.execute(statement).mappings().all()

    def next_fires(self, limit: int) -> Sequence[RowMapping]:
        """The live triggers that fire next, soonest first."""
        statement = _listing().where(trigger_due.c.due_at.is_not(None)).order_by(trigger_due.c.due_at).limit(limit)
        return self._tx.connection.execute(statement).mappings().all()

    def versions_of(self, trigger_ids: Sequence[int]) -> dict[int, RowMapping]:
        """For triggers, the version they point at (the task's latest where they name none)."""
        statement = (
            select(
                triggers.c.id.label("trigger_id"),
                task_versions.c.version,
                task_versions.c.spec_digest,
                tasks.c.max_concurrent_runs,
            )
            .join(tasks, tasks.c.id == triggers.c.task_id)
            .join(
                task_versions,
                and_(
                    task_versions.c.task_id == triggers.c.task_id,
                    task_versions.c.version == func.coalesce(triggers.c.version, tasks.c.latest_version),
                ),
            )
            .where(triggers.c.id.in_(trigger_ids))
        )
        return {row["trigger_id"]: row for row in self._tx.connection.execute(statement).mappings()}

    def any_planned(self) -> bool:
        """Whether any trigger has a place in the due-queue."""
        return self._tx.connection.execute(select(trigger_due.c.trigger_id).limit(1)).first() is not None

    def count_live(self) -> int:
        """How many triggers are neither deleted nor inactive."""
        statement = select(func.count()).where(triggers.c.deleted_at.is_(None), triggers.c.active)
        return int(self._tx.connection.execute(statement).scalar_one())

    def due_count(self) -> int:
        """How many triggers are due and undecided."""
        statement = select(func.count()).where(trigger_due.c.due_at <= self._tx.sql_now())
        return int(self._tx.connection.execute(statement).scalar_one())


_ADVANCE_TYPES = (BIGINT, BIGINT, BIGINT, BIGINT, BIGINT, BIGINT, BIGINT, TEXT)
_PLAN_CHANGE_TYPES = (BIGINT, BIGINT, BIGINT, BIGINT, TEXT, TEXT, TEXT, BIGINT, BOOLEAN, TEXT, TEXT)
_NEXT_DUE = select(func.min(trigger_due.c.due_at)).where(trigger_due.c.due_at.is_not(None))
_UNPLANNED = (
    select(triggers.c.id)
    .where(triggers.c.planned_from.is_distinct_from(triggers.c.plan_source))
    .order_by(triggers.c.id)
    .limit(bindparam("most", type_=INTEGER))
)
_INSERT = triggers.insert()
_APPEND_REVISIONS = trigger_revisions.insert()
_NAMES_OF_TASK = select(triggers.c.id, triggers.c.name).where(triggers.c.task_id == bindparam("of_task"))
_OF_TASK = (
    select(triggers, tasks.c.project, tasks.c.domain, tasks.c.name.label("task"))
    .join(tasks, tasks.c.id == triggers.c.task_id)
    .where(triggers.c.task_id == bindparam("of_task"))
    .order_by(triggers.c.id)
)


def _claiming(dialect: Dialect, statement: Select[Any]) -> Select[Any]:
    # A LIMIT with SKIP LOCKED is only safe inside a materialised CTE: outside, a plan may run it twice.
    claimed = dialect.locked(statement, of=trigger_due, skip=True).cte("due")
    return select(claimed.prefix_with("MATERIALIZED", dialect="postgresql"))


@prepared
def _claim_due(dialect: Dialect, asks_server: bool, within: bool, floor: bool, source: bool) -> Select[Any]:
    now = asked_now(asks_server)
    statement = select(*_DUE).where(trigger_due.c.due_at <= now)
    if within:
        statement = statement.where(trigger_due.c.due_at >= now - bindparam("within", type_=BIGINT))
    if floor:
        statement = statement.where(trigger_due.c.due_at >= bindparam("floor", type_=BIGINT))
    if source:
        ours = select(triggers.c.id).where(triggers.c.source == bindparam("source", type_=TEXT))
        statement = statement.where(trigger_due.c.trigger_id.in_(ours))
    return _claiming(dialect, statement.order_by(trigger_due.c.due_at).limit(bindparam("most", type_=INTEGER)))


@prepared
def _claim_quarantined(dialect: Dialect) -> Select[Any]:
    elsewhere = triggers.c.error_fingerprint != bindparam("fingerprint")
    again = triggers.c.id.in_(retries.due(bindparam("at", type_=BIGINT)))
    ids = select(triggers.c.id).where(
        triggers.c.error.is_not(None), or_(elsewhere, again), triggers.c.deleted_at.is_(None)
    )
    statement = select(*_DUE).where(trigger_due.c.trigger_id.in_(ids)).order_by(trigger_due.c.trigger_id)
    return _claiming(dialect, statement.limit(bindparam("most", type_=INTEGER)))


@prepared
def _ensure_due(dialect: Dialect) -> Any:
    return dialect.insert(trigger_due).on_conflict_do_nothing(index_elements=["trigger_id"])


@prepared
def _lock_due(dialect: Dialect) -> tuple[Select[Any], Batch]:
    batch = dialect.batch("d", {"id": BIGINT})
    chosen = trigger_due.c.trigger_id.in_(select(batch.rows.c.id))
    statement = select(*_DUE).where(chosen).order_by(trigger_due.c.trigger_id)
    return dialect.locked(statement, of=trigger_due, skip=False), batch


@prepared
def _load(dialect: Dialect, whole: bool) -> tuple[Select[Any], Batch]:
    batch = dialect.batch("t", {"id": BIGINT})
    columns: Sequence[Any] = [triggers] if whole else _TO_FIRE
    statement = (
        select(*columns, tasks.c.project, tasks.c.domain, tasks.c.name.label("task"))
        .join(tasks, tasks.c.id == triggers.c.task_id)
        .where(triggers.c.id.in_(select(batch.rows.c.id)))
    )
    return statement, batch


@prepared
def _advance(dialect: Dialect) -> tuple[Update, Batch]:
    batch = dialect.batch("a", dict(zip(Advance._fields, _ADVANCE_TYPES, strict=True)))
    values: dict[str, Any] = {name: batch.rows.c[name] for name in Advance._fields if name != "trigger_id"}
    values["fired_at"] = func.coalesce(batch.rows.c.fired_at, trigger_due.c.fired_at)
    return update(trigger_due).where(trigger_due.c.trigger_id == batch.rows.c.trigger_id).values(values), batch


@prepared
def _record_planning(dialect: Dialect) -> tuple[Update, Batch]:
    batch = dialect.batch("c", dict(zip(PlanChange._fields, _PLAN_CHANGE_TYPES, strict=True)))
    values = {name: batch.rows.c[name] for name in PlanChange._fields if name != "trigger_id"}
    return update(triggers).where(triggers.c.id == batch.rows.c.trigger_id).values(values), batch


@prepared
def _mark_planned(dialect: Dialect) -> tuple[Update, Batch]:
    batch = dialect.batch("m", {"id": BIGINT})
    chosen = triggers.c.id.in_(select(batch.rows.c.id))
    return update(triggers).where(chosen).values(planned_from=triggers.c.plan_source), batch


def _listing() -> Select[Any]:
    return (
        select(
            triggers,
            tasks.c.project,
            tasks.c.domain,
            tasks.c.name.label("task"),
            func.coalesce(triggers.c.version, tasks.c.latest_version).label("task_version"),
            trigger_due.c.due_at,
            trigger_due.c.next_slot,
            trigger_due.c.last_slot,
            trigger_due.c.fired_at,
            trigger_due.c.fires,
        )
        .join(tasks, tasks.c.id == triggers.c.task_id)
        .join(trigger_due, trigger_due.c.trigger_id == triggers.c.id, isouter=True)
        .where(triggers.c.deleted_at.is_(None))
    )


def trigger_filters(
    project: str | None, domain: str | None, task: str | None, name: str | None, active: bool | None
) -> list[ColumnElement[bool]]:
    """Conditions for `list_live`; None leaves a part open."""
    wanted = ((tasks.c.project, project), (tasks.c.domain, domain), (tasks.c.name, task), (triggers.c.name, name))
    conditions: list[ColumnElement[bool]] = [column == value for column, value in wanted if value is not None]
    if active is not None:
        conditions.append(triggers.c.active if active else or_(triggers.c.active.is_(False), literal(False)))
    return conditions
