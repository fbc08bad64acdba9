"""The history of triggers: one row a change, deleted triggers' too; nothing there is ever rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import RowMapping, select

from scheduler.store.schema import tasks, trigger_revisions, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


class RevisionTable:
    """Revisions through one transaction; whoever changes triggers adds to them with `tx.triggers.append_revisions`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def trigger_id(self, project: str, domain: str, task: str, name: str) -> int | None:
        """The trigger of this key, deleted or not."""
        statement = (
            select(triggers.c.id)
            .join(tasks, tasks.c.id == triggers.c.task_id)
            .where(tasks.c.project == project, tasks.c.domain == domain, tasks.c.name == task, triggers.c.name == name)
        )
        found: int | None = self._tx.connection.execute(statement).scalar()
        return found

    def find(self, trigger_id: int, revision: int) -> RowMapping | None:
        """One revision in full."""
        statement = select(trigger_revisions).where(
            trigger_revisions.c.trigger_id == trigger_id, trigger_revisions.c.revision == revision
        )
        return self._tx.connection.execute(statement).mappings().one_or_none()
