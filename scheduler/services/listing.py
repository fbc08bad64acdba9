"""Looking through definitions and runs: filtered, sorted, a page at a time, with how many there are.

    query = Query([Filter("project", "equal", "acme"), Filter("name", "contains", "report")], sort="-deployed_at")
    page = find_tasks(tx, query)
    page = find_tasks(tx, replace(query, token=page.next_token))

| listing   | sorted by, unless asked | fields                                                                          |
|-----------|-------------------------|---------------------------------------------------------------------------------|
| tasks     | project (domain, name)  | project domain name version environment function_name description digest        |
|           |                         | deployed_at deployed_by active total_triggers active_triggers                   |
| versions  | -deployed_at            | project domain name version environment function_name description digest        |
|           |                         | deployed_at deployed_by                                                         |
| triggers  | project (domain, task…) | project domain task name version active source revision updated_at updated_by   |
|           |                         | next_fire_at environment deployed_at deployed_by                                |
| revisions | -revision               | revision action at by version active                                            |
| runs      | -created_at             | created_at scheduled_at finished_at name phase kind executor version attempt    |
|           |                         | lost error project domain task trigger                                          |

A sort by any field; `-` before it turns it round. Rows that a field leaves equal go by the listing's key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scheduler.errors import NotFound, SpecError
from scheduler.services.documents import (
    revision_document,
    run_document,
    task_document,
    trigger_document,
    version_document,
)
from scheduler.services.hindrances import waiting_for
from scheduler.services.operate import TriggerKey
from scheduler.store.listings import (
    REVISIONS,
    RUNS,
    TASKS,
    TRIGGERS,
    VERSIONS,
    VERSIONS_OF_TASK,
    Condition,
    Kind,
    Listing,
    Operation,
)
from scheduler.store.rows import Row
from scheduler.store.transaction import Transaction

_LARGEST: Final = 2**63 - 1
_MOST_VALUES: Final = 1_000
_OPERATIONS: Final[dict[Kind, tuple[Operation, ...]]] = {
    "text": ("equal", "contains", "in"),
    "number": ("equal", "in", "since"),
    "instant": ("since",),
    "flag": ("equal",),
}
_TYPES: Final[dict[Kind, tuple[type, str]]] = {
    "text": (str, "a text"),
    "number": (int, "a whole number"),
    "instant": (int, "an instant in epoch microseconds"),
    "flag": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition: `field` is `equal` to the value, `contains` it (A to Z in either case), is one `in` a list of them,
    or is not before it (`since`).
    """

    field: str
    operation: Operation
    value: Any


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the token of the page after them; None on the last.

    `total` counts the rows of all pages, `total_all` those there would be without filters; None where not asked for.
    """

    rows: list[dict[str, Any]]
    next_token: str | None
    total: int | None = None
    total_all: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a listing: which rows, in which order, how many, from where on, and whether they are counted."""

    filters: Sequence[Filter] = ()
    sort: str | None = None
    limit: int = 50
    token: str | None = None
    totals: bool = True


def find_tasks(tx: Transaction, query: Query) -> Page:
    """The latest version of every task. Raises `SpecError` for a filter, sort or token that this listing does not know."""
    return _page(tx, TASKS, "tasks", query, task_document)


def find_versions(tx: Transaction, query: Query) -> Page:
    """Versions of all tasks, or of the one whose project, domain and name the filters give; a deleted task's only so."""
    named = {item.field: item.value for item in query.filters if item.operation == "equal"}
    if not named.keys() >= {"project", "domain", "name"}:
        return _page(tx, VERSIONS, "versions", query, version_document)
    task = tx.tasks.find(named["project"], named["domain"], named["name"])
    of_task = Condition("task_id", "equal", -1 if task is None else task["id"])
    return _page(tx, VERSIONS_OF_TASK, "versions", query, version_document, of_task)


def find_triggers(tx: Transaction, query: Query) -> Page:
    """Live triggers with what they fire next. A snoozed one counts as active; by `next_fire_at`, what has none is last."""
    now = tx.now()
    return _page(tx, TRIGGERS, "triggers", query, lambda row: trigger_document(row, now))


def find_revisions(tx: Transaction, key: TriggerKey, query: Query) -> Page:
    """The changes of one trigger, a deleted one's too; raises `NotFound`."""
    of_trigger = Condition("trigger_id", "equal", _trigger_id(tx, key))
    return _page(tx, REVISIONS, f"revisions of {key}", query, revision_document, of_trigger)


def find_runs(tx: Transaction, query: Query) -> Page:
    """Runs with what the open ones wait for; one that has no slot, or is not over, has 1970 for it where that is asked."""
    found: list[Row] = []

    def document(row: Row) -> dict[str, Any]:
        found.append(row)
        return run_document(row)

    page = _page(tx, RUNS, "runs", query, document)
    hindrances = waiting_for(tx, found)
    for row in page.rows:
        row["waiting_for"] = hindrances.get(row["name"])
    return page


def list_versions(tx: Transaction, project: str, domain: str, name: str, *, limit: int = 50) -> list[dict[str, Any]]:
    """The versions of a task, newest first, a deleted one's too; raises `NotFound`."""
    task = tx.tasks.find(project, domain, name)
    if task is None:
        raise NotFound("task", f"{project}/{domain}/{name}")
    fixed = [Condition("task_id", "equal", task["id"])]
    return [version_document(row) for row in tx.listings.page(VERSIONS_OF_TASK, fixed, "-deployed_at", limit)]


def list_revisions(tx: Transaction, key: TriggerKey, *, limit: int = 50) -> list[dict[str, Any]]:
    """The changes of a trigger, newest first, a deleted one's too; raises `NotFound`."""
    fixed = [Condition("trigger_id", "equal", _trigger_id(tx, key))]
    return [revision_document(row) for row in tx.listings.page(REVISIONS, fixed, "-revision", limit)]


def show_revision(tx: Transaction, key: TriggerKey, revision: int) -> dict[str, Any]:
    """One revision with all that the trigger said then, in the words of a deploy; raises `NotFound`."""
    fixed = [Condition("trigger_id", "equal", _trigger_id(tx, key)), Condition("revision", "equal", revision)]
    rows = tx.listings.page(REVISIONS, fixed, "-revision", 1)
    if not rows:
        raise NotFound("revision", f"{key}@{revision}")
    return revision_document(rows[0]) | {"spec": json.loads(rows[0]["spec"])}


def _trigger_id(tx: Transaction, key: TriggerKey) -> int:
    found = tx.triggers.id_of(*key)
    if found is None:
        raise NotFound("trigger", str(key))
    return found


# --- a page ----------------------------------------------------------------------------------------------------------


def _page(
    tx: Transaction,
    listing: Listing,
    name: str,
    query: Query,
    document: Callable[[Row], dict[str, Any]],
    *fixed: Condition,
) -> Page:
    if query.limit < 1:
        raise SpecError("limit", f"{query.limit} is less than 1")
    sort = listing.sort if query.sort is None else query.sort
    _known_field(listing, sort.removeprefix("-"), "sort")
    conditions = [*fixed, *(_condition(listing, item) for item in query.filters)]
    mark = _mark(name, query.filters, sort)
    kinds = [listing.fields[each].kind for each in listing.order(sort)]
    after = None if query.token is None else _read_token(query.token, mark, kinds)
    rows = tx.listings.page(listing, conditions, sort, query.limit + 1, after)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    total = total_all = None
    if query.totals:
        total = tx.listings.count(listing, conditions)
        total_all = tx.listings.count(listing, fixed) if query.filters else total
    next_token = _write_token(mark, tx.listings.values(listing, sort, rows[-1])) if more else None
    return Page([document(row) for row in rows], next_token, total, total_all)


def _condition(listing: Listing, item: Filter) -> Condition:
    kind = _known_field(listing, item.field, "filter")
    if item.operation not in _OPERATIONS[kind]:
        allowed = ", ".join(_OPERATIONS[kind])
        raise SpecError(item.field, f"cannot be filtered by {item.operation!r}: only by {allowed}")
    several = item.operation == "in"
    if several and (isinstance(item.value, str) or not isinstance(item.value, Sequence)):
        raise SpecError(item.field, "is filtered by a list with 'in'")
    if several and len(item.value) > _MOST_VALUES:
        raise SpecError(item.field, f"is filtered by {len(item.value)} values: at most {_MOST_VALUES} are allowed")
    for value in item.value if several else [item.value]:
        _check_value(item.field, kind, value)
    return Condition(item.field, item.operation, list(item.value) if several else item.value)


def _known_field(listing: Listing, name: str, what: str) -> Kind:
    known = {field: item.kind for field, item in listing.fields.items() if not item.internal}
    if name not in known:
        raise SpecError(what, f"{name!r} is no field of this listing: {', '.join(known)}")
    return known[name]


def _check_value(field: str, kind: Kind, value: Any) -> None:
    kept, called = _TYPES[kind]
    fits = isinstance(value, kept) and (kept is bool or not isinstance(value, bool))
    if not fits or (kept is int and not -_LARGEST <= value <= _LARGEST):
        raise SpecError(field, f"{value!r} is not {called}")
    if kept is str and ("\0" in value or _unwritable(value)):
        raise SpecError(field, f"{value!r} holds a character that no stored text has")


def _unwritable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


# --- tokens ----------------------------------------------------------------------------------------------------------


def _mark(name: str, filters: Sequence[Filter], sort: str) -> str:
    # A token goes on where the same question stopped; under another one it would answer nonsense.
    question = json.dumps([name, sort, [[item.field, item.operation, item.value] for item in filters]], default=list)
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def _write_token(mark: str, values: Sequence[Any]) -> str:
    text = json.dumps([mark, *values])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str, mark: str, kinds: Sequence[Kind]) -> list[Any]:
    values: list[Any]
    try:
        found, *values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        for kind, value in zip(kinds, values, strict=True):
            _check_value("token", kind, value)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise SpecError("token", "is not one that a listing gave: ask without a token for the first page") from None
    if found != mark:
        raise SpecError("token", "comes from another listing, filter or sort: ask without a token for the first page")
    return values
