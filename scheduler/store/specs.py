"""Task specifications as bytes, and those that nobody names any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, RowMapping, delete, func, select, union, update

from scheduler.domain.instants import Micros
from scheduler.store.schema import backfills, runs, task_specs, task_versions, triggers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


class SpecTable:
    """Specifications through one transaction; `tx.tasks.save_spec` keeps one for a deploy."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def find(self, digest: str) -> RowMapping | None:
        """One specification with its bytes and format."""
        statement = select(task_specs).where(task_specs.c.digest == digest)
        return self._tx.connection.execute(statement).mappings().one_or_none()

    def need(self, digests: Sequence[str], now: Micros, seen_before: Micros) -> None:
        """Records that these are needed now, where they were last seen to be before an instant."""
        self._tx.connection.execute(
            update(task_specs).where(task_specs.c.digest.in_(digests), _needed_at() < seen_before).values(needed_at=now)
        )

    def unnamed(self, needed_before: Micros, limit: int) -> list[str]:
        """Digests that no version names and that were last needed before an instant."""
        statement = select(task_specs.c.digest).where(_needed_at() < needed_before, _unnamed())
        return list(self._tx.connection.execute(statement.limit(limit)).scalars())

    def pinned(self, digests: Sequence[str]) -> set[str]:
        """Those of these digests that a run, a trigger or a backfill names: no index helps, so this reads every run."""
        if not digests:
            return set()
        by_runs = select(runs.c.spec_digest).where(runs.c.spec_digest.in_(digests))
        by_triggers = select(triggers.c.spec_digest).where(triggers.c.spec_digest.in_(digests))
        by_backfills = select(backfills.c.spec_digest).where(backfills.c.spec_digest.in_(digests))
        return set(self._tx.connection.execute(union(by_runs, by_triggers, by_backfills)).scalars())

    def remove_unnamed(self, digests: Sequence[str], needed_before: Micros) -> int:
        """Removes those of these that still no version names; what a deploy holds at this moment stays."""
        chosen = select(task_specs.c.digest).where(task_specs.c.digest.in_(digests))
        locked = chosen.order_by(task_specs.c.digest).with_for_update(skip_locked=True)  # SQLite leaves the lock out.
        held = list(self._tx.connection.execute(locked).scalars())
        # A statement of its own: only now does it see the versions of deploys that have just let go.
        result = self._tx.connection.execute(
            delete(task_specs).where(task_specs.c.digest.in_(held), _needed_at() < needed_before, _unnamed())
        )
        return int(result.rowcount)


def _needed_at() -> ColumnElement[int]:
    return func.coalesce(task_specs.c.needed_at, task_specs.c.created_at)


def _unnamed() -> ColumnElement[bool]:
    return ~select(task_versions.c.task_id).where(task_versions.c.spec_digest == task_specs.c.digest).exists()
