"""Tasks, their versions and their specifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    ScalarSelect,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    select,
    update,
)

from scheduler.domain.instants import Micros
from scheduler.domain.task import SPEC_FORMAT, TaskDefinition, TaskSpec
from scheduler.errors import StoreError
from scheduler.store.dialect import BIGINT, TEXT, Batch, Dialect
from scheduler.store.prepared import prepared
from scheduler.store.schema import projects, task_deploys, task_specs, task_versions, tasks, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction

_SPEC_TRIES: Final = 10


class TaskTable:
    """Projects, tasks, versions and specs through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def ensure_projects(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Records the projects and domains that may be deployed into; known ones stay as they are."""
        now = self._tx.now()
        rows = [
            {"project": project, "domain": domain, "created_at": now}
            for project, domains in sorted(wanted.items())
            for domain in sorted(domains)
        ]
        if rows:
            self._tx.connection.execute(self._tx.dialect.insert(projects).on_conflict_do_nothing(), rows)

    def knows(self, project: str, domain: str) -> bool:
        """Whether this domain of this project is recorded."""
        return self._tx.connection.execute(_KNOWS, {"in_project": project, "in_domain": domain}).first() is not None

    def known_projects(self) -> dict[str, list[str]]:
        """The domains of every recorded project, both by name."""
        known: dict[str, list[str]] = {}
        for row in self._tx.connection.execute(select(projects.c.project, projects.c.domain)):
            known.setdefault(row.project, []).append(row.domain)
        return {project: sorted(known[project]) for project in sorted(known)}

    def lock(self, project: str, domain: str, name: str) -> RowMapping:
        """The task's row, made if absent, locked until the transaction ends: deploys of one task queue here."""
        insert, lock = _insert_and_lock(self._tx.dialect)
        key = {"of_project": project, "of_domain": domain, "of_name": name}
        found = self._tx.connection.execute(lock, key).mappings().one_or_none()
        if found is not None:
            return found
        # Whoever makes it in the same moment is waited for.
        self._tx.connection.execute(insert, {"project": project, "domain": domain, "name": name})
        return self._tx.connection.execute(lock, key).mappings().one()

    def lock_ids(self, task_ids: Iterable[int]) -> None:
        """Locks these tasks until the transaction ends."""
        statement = select(tasks.c.id).where(tasks.c.id.in_(sorted(task_ids))).order_by(tasks.c.id)
        self._tx.connection.execute(self._tx.dialect.locked(statement, of=tasks, skip=False)).all()

    def lock_present(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], RowMapping]:
        """The rows of those tasks that exist, by project, domain and name, locked in that order."""
        wanted = sorted(set(keys))
        batch = self._tx.dialect.rows("k", {"project": TEXT, "domain": TEXT, "name": TEXT}, wanted)
        same = and_(tasks.c.project == batch.c.project, tasks.c.domain == batch.c.domain, tasks.c.name == batch.c.name)
        # Byte by byte, as Python sorts: whoever locks several tasks does it in one order.
        order = [self._tx.dialect.bytewise(column) for column in (tasks.c.project, tasks.c.domain, tasks.c.name)]
        statement = select(tasks).join(batch, same).order_by(*order)
        locked = self._tx.connection.execute(self._tx.dialect.locked(statement, of=tasks, skip=False)).mappings()
        return {(row["project"], row["domain"], row["name"]): row for row in locked}

    def find(self, project: str, domain: str, name: str) -> RowMapping | None:
        """The task's row without a lock, a deleted one's too."""
        key = {"of_project": project, "of_domain": domain, "of_name": name}
        return self._tx.connection.execute(_FIND, key).mappings().one_or_none()

    def live_keys(self, limit: int) -> list[tuple[str, str, str]]:
        """Project, domain and name of tasks that are there."""
        statement = select(tasks.c.project, tasks.c.domain, tasks.c.name).where(tasks.c.deleted_at.is_(None))
        return [tuple(row) for row in self._tx.connection.execute(statement.limit(limit))]

    def save_spec(self, spec: TaskSpec) -> str:
        """Keeps the specification under its digest, once however many versions use it; returns the digest."""
        digest = spec.digest
        self.save_encoded_spec(digest, SPEC_FORMAT, spec.encode())
        return digest

    def save_encoded_spec(self, digest: str, spec_format: str, encoded: bytes) -> None:
        """Keeps the bytes as they are; a digest that is there already is left alone, and is there until we commit."""
        row = {"digest": digest, "format": spec_format, "spec": encoded, "created_at": self._tx.now()}
        insert = _insert_spec(self._tx.dialect)
        # Whoever collects orphans may have removed it between the two statements.
        for _ in range(_SPEC_TRIES):
            if self._tx.connection.execute(insert, row).first():
                return
            if self._tx.connection.execute(_KEEP_SPEC, {"of_digest": digest}).first():
                return
        raise StoreError(f"task spec {digest} is removed as often as it is saved")

    def specs(self, digests: Iterable[str]) -> dict[str, TaskSpec]:
        """The specifications of these digests."""
        rows = self._tx.connection.execute(_SPECS, {"digests": sorted(set(digests))})
        return {row.digest: TaskSpec.decode(row.spec) for row in rows}

    def keys(self, task_ids: Iterable[int]) -> dict[int, tuple[str, str, str]]:
        """Project, domain and name of these tasks."""
        rows = self._tx.connection.execute(_KEYS, {"task_ids": sorted(task_ids)})
        return {row.id: (row.project, row.domain, row.name) for row in rows}

    def save_version(self, task_id: int, definition: TaskDefinition, digest: str, now: Micros, by: str) -> None:
        """Inserts the version, or updates the one of that name."""
        values = {
            "task_id": task_id,
            "version": definition.version,
            "spec_digest": digest,
            "environment": definition.environment.name,
            "environment_description": definition.environment.description,
            "function_name": definition.function_name,
            "description": definition.short_description,
            "long_description": definition.full_description,
            "deployed_at": now,
            "deployed_by": by,
        }
        self._tx.connection.execute(_save_version(self._tx.dialect), values)

    def deployed_before(self, task_id: int, deploy_digest: str) -> bool:
        """Whether the task was ever deployed with exactly this content."""
        statement = select(task_deploys.c.task_id).where(
            task_deploys.c.task_id == task_id, task_deploys.c.deploy_digest == deploy_digest
        )
        return self._tx.connection.execute(statement).first() is not None

    def record_deploy(self, task_id: int, definition: TaskDefinition, digest: str, now: Micros, by: str) -> None:
        """Makes the version the task's latest and remembers what this deploy said, by its digest."""
        said = {
            "of_task": task_id,
            "set_version": definition.version,
            "set_digest": digest,
            "set_limit": definition.spec.max_concurrent_runs,
            "set_at": now,
            "set_by": by,
        }
        self._tx.connection.execute(_RECORD_DEPLOY, said)
        deploy = {"task_id": task_id, "deploy_digest": digest, "first_at": now}
        self._tx.connection.execute(_insert_deploy(self._tx.dialect), deploy)

    def forget_deploy(self, task_ids: Sequence[int]) -> None:
        """Somebody changed what the last deploy said: the same deploy once more is something new."""
        self._tx.connection.execute(update(tasks).where(tasks.c.id.in_(task_ids)).values(deploy_digest=None))

    def mark_deleted(self, task_id: int, now: Micros) -> None:
        """Takes the task out of every listing until it is deployed again."""
        statement = update(tasks).where(tasks.c.id == task_id).values(deleted_at=now, deploy_digest=None)
        self._tx.connection.execute(statement)

    def delete_version(self, task_id: int, version: str) -> None:
        """Removes one version's row; its specification stays until nobody names it."""
        chosen = and_(task_versions.c.task_id == task_id, task_versions.c.version == version)
        self._tx.connection.execute(delete(task_versions).where(chosen))

    def refresh_summary(self, task_ids: Sequence[int]) -> None:
        """Counts the live and the active triggers of these tasks anew, and names the one where there is just one."""
        statement, batch = _refresh_summary(self._tx.dialect)
        self._tx.connection.execute(statement, batch.send([(task_id,) for task_id in task_ids]))

    def version_of(self, task_id: int, version: str | None) -> RowMapping | None:
        """A version's row; without a name, the newest deployed one's."""
        statement = select(task_versions).where(task_versions.c.task_id == task_id)
        statement = (
            statement.where(task_versions.c.version == version)
            if version is not None
            else statement.order_by(task_versions.c.deployed_at.desc(), task_versions.c.version.desc()).limit(1)
        )
        return self._tx.connection.execute(statement).mappings().one_or_none()

    def with_triggers_of(self, source: str) -> list[tuple[str, str, str]]:
        """Project, domain and name of the tasks that have live triggers of a source, by key."""
        statement = (
            select(tasks.c.project, tasks.c.domain, tasks.c.name)
            .where(
                select(triggers.c.id)
                .where(triggers.c.task_id == tasks.c.id, triggers.c.source == source, triggers.c.deleted_at.is_(None))
                .exists()
            )
            .order_by(tasks.c.project, tasks.c.domain, tasks.c.name)
        )
        return [(row.project, row.domain, row.name) for row in self._tx.connection.execute(statement)]


# --- statements of every deploy, built once --------------------------------------------------------------------------

_KNOWS = select(projects.c.domain).where(
    projects.c.project == bindparam("in_project"), projects.c.domain == bindparam("in_domain")
)
_FIND = select(tasks).where(
    tasks.c.project == bindparam("of_project"),
    tasks.c.domain == bindparam("of_domain"),
    tasks.c.name == bindparam("of_name"),
)
_SPECS = select(task_specs.c.digest, task_specs.c.spec).where(
    task_specs.c.digest.in_(bindparam("digests", expanding=True))
)
_KEYS = select(tasks.c.id, tasks.c.project, tasks.c.domain, tasks.c.name).where(
    tasks.c.id.in_(bindparam("task_ids", expanding=True))
)
# A lock that only keeps it from being removed; SQLite has none and needs none.
_KEEP_SPEC = (
    select(task_specs.c.digest)
    .where(task_specs.c.digest == bindparam("of_digest"))
    .with_for_update(read=True, key_share=True)
)
_RECORD_DEPLOY = (
    update(tasks)
    .where(tasks.c.id == bindparam("of_task"))
    .values(
        latest_version=bindparam("set_version"),
        deploy_digest=bindparam("set_digest"),
        max_concurrent_runs=bindparam("set_limit"),
        deployed_at=bindparam("set_at"),
        deployed_by=bindparam("set_by"),
        deleted_at=None,
    )
)


@prepared
def _insert_and_lock(dialect: Dialect) -> tuple[Any, Select[Any]]:
    insert = dialect.insert(tasks).on_conflict_do_nothing(index_elements=["project", "domain", "name"])
    return insert, dialect.locked(_FIND, of=tasks, skip=False)


@prepared
def _insert_spec(dialect: Dialect) -> Any:
    # What it returns tells whether it was there: the count of rows of an insert is not to be had with every driver.
    return dialect.insert(task_specs).on_conflict_do_nothing().returning(task_specs.c.digest)


@prepared
def _insert_deploy(dialect: Dialect) -> Any:
    return dialect.insert(task_deploys).on_conflict_do_nothing()


@prepared
def _save_version(dialect: Dialect) -> Any:
    statement = dialect.insert(task_versions)
    changed = {item.name: item for item in statement.excluded if item.name not in ("task_id", "version")}
    return statement.on_conflict_do_update(index_elements=["task_id", "version"], set_=changed)


@prepared
def _refresh_summary(dialect: Dialect) -> tuple[Update, Batch]:
    batch = dialect.batch("s", {"id": BIGINT})
    live = and_(triggers.c.task_id == tasks.c.id, triggers.c.deleted_at.is_(None))
    alone = func.count() == 1

    def summary(value: ColumnElement[Any]) -> ScalarSelect[Any]:
        return select(value).where(live).scalar_subquery()

    statement = (
        update(tasks)
        .where(tasks.c.id.in_(select(batch.rows.c.id)))
        .values(
            total_triggers=summary(func.count()),
            active_triggers=summary(func.count(case((triggers.c.active, 1)))),
            trigger_name=summary(case((alone, func.min(triggers.c.name)))),
            trigger_automation=summary(case((alone, func.min(triggers.c.automation)))),
        )
    )
    return statement, batch
