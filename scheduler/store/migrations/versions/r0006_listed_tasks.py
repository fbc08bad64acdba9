"""Indexes that listings of tasks read by: in the order they are shown in, newest deploys first, and the few that are deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # SQLite sorts byte by byte anyway, and has the unique key for it.
        columns = [sa.text(f'{name} COLLATE "C"') for name in ("project", "domain", "name")]
        op.create_index("tasks_listed", "tasks", columns)
    op.create_index("tasks_deployed", "tasks", ["deployed_at"])
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index("tasks_deleted", "tasks", ["deleted_at"], postgresql_where=deleted, sqlite_where=deleted)


def downgrade() -> None:
    op.drop_index("tasks_deleted", "tasks")
    op.drop_index("tasks_deployed", "tasks")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("tasks_listed", "tasks")
