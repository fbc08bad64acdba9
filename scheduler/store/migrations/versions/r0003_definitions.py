"""What listings of definitions show and read by: the one trigger of a task, deleted tasks, versions by date and digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("trigger_name", sa.String(length=255), nullable=True))
    op.add_column("tasks", sa.Column("trigger_automation", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("task_specs", sa.Column("needed_at", sa.BigInteger(), nullable=True))
    op.create_index("task_versions_deployed", "task_versions", ["deployed_at"])
    op.create_index("task_versions_digest", "task_versions", ["spec_digest"])
    op.execute(
        "UPDATE tasks SET "
        "trigger_name = (SELECT t.name FROM triggers t WHERE t.task_id = tasks.id AND t.deleted_at IS NULL), "
        "trigger_automation = (SELECT t.automation FROM triggers t WHERE t.task_id = tasks.id AND t.deleted_at IS NULL) "
        "WHERE (SELECT count(*) FROM triggers t WHERE t.task_id = tasks.id AND t.deleted_at IS NULL) = 1"
    )


def downgrade() -> None:
    op.drop_index("task_versions_digest", "task_versions")
    op.drop_index("task_versions_deployed", "task_versions")
    op.drop_column("task_specs", "needed_at")
    op.drop_column("tasks", "deleted_at")
    op.drop_column("tasks", "trigger_automation")
    op.drop_column("tasks", "trigger_name")
