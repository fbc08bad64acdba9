"""Listings of definitions and runs, a page at a time: which fields may be filtered and sorted by, and where a page begins.

A page begins after the last row of the one before it, by value and not by number: what is inserted or deleted meanwhile
moves nothing. Texts sort byte by byte, so a listing has one order on both databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import BigInteger, Boolean, ColumnElement, RowMapping, Select, Text, and_, func, literal, select, tuple_
from sqlalchemy.types import TypeEngine

from scheduler.store.schema import runs, task_versions, tasks, trigger_due, trigger_revisions, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

Kind = Literal["text", "number", "instant", "flag"]
Operation = Literal["equal", "contains", "in", "since"]

_NEVER: Final = 2**62
_TYPES: Final[Mapping[Kind, TypeEngine[Any]]] = {
    "text": Text(),
    "number": BigInteger(),
    "instant": BigInteger(),
    "flag": Boolean(),
}


class Condition(NamedTuple):
    """One filter: a field of the listing, and a value of its kind."""

    field: str
    operation: Operation
    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """Something to filter or sort by. Its column is never NULL; a `joined` one is not of the listing's own table.

    An `internal` one is no word of users'.
    """

    column: ColumnElement[Any]
    kind: Kind = "text"
    joined: bool = False
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of one sort: what a page and what a count reads, the fields, those that together name one row, and the order
    they come in unless asked for another.
    """

    rows: Select[Any]
    counted: Select[Any]
    fields: Mapping[str, Field]
    key: tuple[str, ...]
    sort: str

    def order(self, sort: str) -> tuple[str, ...]:
        """The fields that a sort goes by: the named one, then the key, which leaves no two rows equal."""
        named = sort.removeprefix("-")
        return self.key if named == self.key[0] else (named, *(name for name in self.key if name != named))


class ListingTable:
    """Pages of listings through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def page(
        self,
        listing: Listing,
        conditions: Sequence[Condition],
        sort: str,
        limit: int,
        after: Sequence[Any] | None = None,
    ) -> Sequence[RowMapping]:
        """At most `limit` rows; `after` are the values of the sort's fields in the row before the first."""
        fields = [listing.fields[name] for name in listing.order(sort)]
        columns = [self._sorted_by(item) for item in fields]
        statement = self._filtered(listing.rows, listing, conditions)
        backwards = sort.startswith("-")
        if after is not None:
            begin = [literal(value, _TYPES[item.kind]) for item, value in zip(fields, after, strict=True)]
            # Said twice, for planners: of a row of columns they do not see that an index leads to its first one.
            statement = statement.where(columns[0] <= begin[0] if backwards else columns[0] >= begin[0])
            rows, row = tuple_(*columns), tuple_(*begin)
            statement = statement.where(rows < row if backwards else rows > row)
        order = [column.desc() if backwards else column.asc() for column in columns]
        return self._tx.connection.execute(statement.order_by(*order).limit(limit)).mappings().all()

    def count(self, listing: Listing, conditions: Sequence[Condition]) -> int:
        """How many rows all pages have together."""
        joined = any(listing.fields[condition.field].joined for condition in conditions)
        rows = listing.rows if joined else listing.counted
        counted = rows.with_only_columns(func.count(), maintain_column_froms=True)
        return int(self._tx.connection.execute(self._filtered(counted, listing, conditions)).scalar_one())

    def values(self, listing: Listing, sort: str, row: RowMapping) -> tuple[Any, ...]:
        """What a row has in the sort's fields: where the page after it begins."""
        return tuple(row[f"sort_{name}"] for name in listing.order(sort))

    def _filtered(self, statement: Select[Any], listing: Listing, conditions: Sequence[Condition]) -> Select[Any]:
        for condition in conditions:
            column, value = listing.fields[condition.field].column, condition.value
            match condition.operation:
                case "equal":
                    statement = statement.where(column.is_(value) if isinstance(value, bool) else column == value)
                case "contains":
                    statement = statement.where(self._tx.dialect.contains(column, value))
                case "in":
                    statement = statement.where(column.in_(value))
                case "since":
                    statement = statement.where(column >= value)
        return statement

    def _sorted_by(self, item: Field) -> ColumnElement[Any]:
        return self._tx.dialect.bytewise(item.column) if item.kind == "text" else item.column


def _named(fields: Mapping[str, Field]) -> list[ColumnElement[Any]]:
    return [item.column.label(f"sort_{name}") for name, item in fields.items()]


# --- tasks: the latest version of each, found through the pointer that a deploy sets ----------------------------------

_TASK_FIELDS: Final = {
    "project": Field(tasks.c.project),
    "domain": Field(tasks.c.domain),
    "name": Field(tasks.c.name),
    "version": Field(tasks.c.latest_version),
    "deployed_at": Field(tasks.c.deployed_at, "instant"),
    "deployed_by": Field(tasks.c.deployed_by),
    "active": Field(tasks.c.active_triggers > 0, "flag"),
    "total_triggers": Field(tasks.c.total_triggers, "number"),
    "active_triggers": Field(tasks.c.active_triggers, "number"),
    "environment": Field(task_versions.c.environment, joined=True),
    "function_name": Field(task_versions.c.function_name, joined=True),
    "description": Field(task_versions.c.description, joined=True),
    "digest": Field(task_versions.c.spec_digest, joined=True),
}
_latest = and_(task_versions.c.task_id == tasks.c.id, task_versions.c.version == tasks.c.latest_version)
TASKS: Final = Listing(
    rows=select(
        tasks.c.project,
        tasks.c.domain,
        tasks.c.name,
        task_versions.c.version,
        task_versions.c.environment,
        task_versions.c.function_name,
        task_versions.c.description,
        tasks.c.total_triggers,
        tasks.c.active_triggers,
        tasks.c.trigger_name,
        tasks.c.trigger_automation,
        task_versions.c.deployed_at,
        task_versions.c.deployed_by,
        task_versions.c.spec_digest,
        *_named(_TASK_FIELDS),
    )
    .join(task_versions, _latest)
    .where(tasks.c.deleted_at.is_(None)),
    # A task that plain SQL made has no version until it is deployed, and no row above.
    counted=select(tasks.c.id).where(tasks.c.deleted_at.is_(None), tasks.c.latest_version.is_not(None)),
    fields=_TASK_FIELDS,
    key=("project", "domain", "name"),
    sort="project",
)

# --- versions of tasks ------------------------------------------------------------------------------------------------

_VERSION_FIELDS: Final = {
    "project": Field(tasks.c.project, joined=True),
    "domain": Field(tasks.c.domain, joined=True),
    "name": Field(tasks.c.name, joined=True),
    "version": Field(task_versions.c.version),
    "digest": Field(task_versions.c.spec_digest),
    "environment": Field(task_versions.c.environment),
    "function_name": Field(task_versions.c.function_name),
    "description": Field(task_versions.c.description),
    "deployed_at": Field(task_versions.c.deployed_at, "instant"),
    "deployed_by": Field(task_versions.c.deployed_by),
    "task_id": Field(task_versions.c.task_id, "number", internal=True),
}
_deleted_tasks = select(tasks.c.id).where(tasks.c.deleted_at.is_not(None))
# Every version has its task; an outer join says that versions come first, else SQLite may go through all of each task's.
_versions = select(tasks.c.project, tasks.c.domain, tasks.c.name, task_versions, *_named(_VERSION_FIELDS)).select_from(
    task_versions.outerjoin(tasks, tasks.c.id == task_versions.c.task_id)
)
VERSIONS: Final = Listing(
    rows=_versions.where(task_versions.c.task_id.not_in(_deleted_tasks)),
    counted=select(task_versions.c.task_id).where(task_versions.c.task_id.not_in(_deleted_tasks)),
    fields=_VERSION_FIELDS,
    key=("task_id", "version"),
    sort="-deployed_at",
)
# Of one task, named by `task_id`, a deleted one's too.
VERSIONS_OF_TASK: Final = Listing(
    rows=_versions,
    counted=select(task_versions.c.task_id),
    fields=_VERSION_FIELDS,
    key=("task_id", "version"),
    sort="-deployed_at",
)

# --- live triggers ----------------------------------------------------------------------------------------------------

_version = func.coalesce(triggers.c.version, tasks.c.latest_version)
_TRIGGER_FIELDS: Final = {
    "project": Field(tasks.c.project, joined=True),
    "domain": Field(tasks.c.domain, joined=True),
    "task": Field(tasks.c.name, joined=True),
    "name": Field(triggers.c.name),
    "version": Field(func.coalesce(_version, ""), joined=True),
    "active": Field(triggers.c.active, "flag"),
    "source": Field(triggers.c.source),
    "revision": Field(triggers.c.revision, "number"),
    "updated_at": Field(func.coalesce(triggers.c.updated_at, 0), "instant"),
    "updated_by": Field(func.coalesce(triggers.c.updated_by, "")),
    "next_fire_at": Field(func.coalesce(trigger_due.c.next_slot, _NEVER), "instant", joined=True),
    "environment": Field(func.coalesce(task_versions.c.environment, ""), joined=True),
    "deployed_at": Field(func.coalesce(task_versions.c.deployed_at, 0), "instant", joined=True),
    "deployed_by": Field(func.coalesce(task_versions.c.deployed_by, ""), joined=True),
}
TRIGGERS: Final = Listing(
    rows=select(
        triggers,
        tasks.c.project,
        tasks.c.domain,
        tasks.c.name.label("task"),
        _version.label("task_version"),
        trigger_due.c.due_at,
        trigger_due.c.next_slot,
        trigger_due.c.last_slot,
        trigger_due.c.fired_at,
        trigger_due.c.fires,
        *_named(_TRIGGER_FIELDS),
    )
    .join(tasks, tasks.c.id == triggers.c.task_id)
    .join(trigger_due, trigger_due.c.trigger_id == triggers.c.id, isouter=True)
    .join(
        task_versions,
        and_(task_versions.c.task_id == triggers.c.task_id, task_versions.c.version == _version),
        isouter=True,
    )
    .where(triggers.c.deleted_at.is_(None)),
    counted=select(triggers.c.id).where(triggers.c.deleted_at.is_(None)),
    fields=_TRIGGER_FIELDS,
    key=("project", "domain", "task", "name"),
    sort="project",
)

# --- revisions of triggers --------------------------------------------------------------------------------------------

_REVISION_FIELDS: Final = {
    "revision": Field(trigger_revisions.c.revision, "number"),
    "action": Field(trigger_revisions.c.action),
    "at": Field(trigger_revisions.c.at, "instant"),
    "by": Field(trigger_revisions.c.by),
    "version": Field(func.coalesce(trigger_revisions.c.version, "")),
    "active": Field(trigger_revisions.c.active, "flag"),
    "trigger_id": Field(trigger_revisions.c.trigger_id, "number", internal=True),
}
REVISIONS: Final = Listing(
    rows=select(trigger_revisions, *_named(_REVISION_FIELDS)),
    counted=select(trigger_revisions.c.trigger_id),
    fields=_REVISION_FIELDS,
    key=("revision", "trigger_id"),
    sort="-revision",
)

# --- runs -------------------------------------------------------------------------------------------------------------

_RUN_FIELDS: Final = {
    "created_at": Field(runs.c.created_at, "instant"),
    # A run fired by hand has no slot.
    "scheduled_at": Field(func.coalesce(runs.c.scheduled_at, 0), "instant"),
    "finished_at": Field(func.coalesce(runs.c.finished_at, 0), "instant"),
    "name": Field(runs.c.name),
    "phase": Field(runs.c.phase),
    "kind": Field(runs.c.kind),
    "executor": Field(runs.c.executor),
    "version": Field(runs.c.version),
    "attempt": Field(runs.c.attempt, "number"),
    "lost": Field(runs.c.lost, "number"),
    "error": Field(func.coalesce(runs.c.error, "")),
    "project": Field(func.coalesce(tasks.c.project, ""), joined=True),
    "domain": Field(func.coalesce(tasks.c.domain, ""), joined=True),
    "task": Field(func.coalesce(tasks.c.name, ""), joined=True),
    "trigger": Field(func.coalesce(triggers.c.name, ""), joined=True),
}
RUNS: Final = Listing(
    rows=select(
        runs,
        tasks.c.project,
        tasks.c.domain,
        tasks.c.name.label("task"),
        triggers.c.name.label("trigger"),
        *_named(_RUN_FIELDS),
    )
    .join(tasks, tasks.c.id == runs.c.task_id, isouter=True)
    .join(triggers, triggers.c.id == runs.c.trigger_id, isouter=True),
    counted=select(runs.c.name),
    fields=_RUN_FIELDS,
    key=("created_at", "scheduled_at", "name"),
    sort="-created_at",
)
