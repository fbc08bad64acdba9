"""What was deployed, read back: every task's latest version with its specification and its triggers."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, and_, select

from scheduler.store.schema import task_specs, task_versions, tasks, triggers
from scheduler.store.transaction import Transaction


def deployed_tasks(
    tx: Transaction, after: int, *, project: str | None, domain: str | None, task: str | None, limit: int
) -> Sequence[RowMapping]:
    """At most `limit` tasks with an id above `after`: a row for each live trigger, or one for a task without any.

    Columns are named `task_…`, `version_…`, `spec_…` and `trigger_…`. It is one statement, so that what it tells of a
    task stood there at one moment.
    """
    wanted = select(tasks.c.id).where(tasks.c.id > after, tasks.c.latest_version.is_not(None))
    wanted = wanted.where(tasks.c.deleted_at.is_(None))
    for column, value in ((tasks.c.project, project), (tasks.c.domain, domain), (tasks.c.name, task)):
        if value is not None:
            wanted = wanted.where(column == value)
    page = wanted.order_by(tasks.c.id).limit(limit).subquery("page")
    tables = (("task", tasks), ("version", task_versions), ("spec", task_specs), ("trigger", triggers))
    columns = [column.label(f"{prefix}_{column.name}") for prefix, table in tables for column in table.c]
    statement = (
        select(*columns)
        .join_from(page, tasks, tasks.c.id == page.c.id)
        .join(
            task_versions,
            and_(task_versions.c.task_id == tasks.c.id, task_versions.c.version == tasks.c.latest_version),
        )
        .join(task_specs, task_specs.c.digest == task_versions.c.spec_digest)
        .join(triggers, and_(triggers.c.task_id == tasks.c.id, triggers.c.deleted_at.is_(None)), isouter=True)
        .order_by(tasks.c.id, triggers.c.id)
    )
    return tx.connection.execute(statement).mappings().all()
