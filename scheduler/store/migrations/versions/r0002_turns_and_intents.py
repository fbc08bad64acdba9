"""Runs that wait for their turn (overlap, task limits) or for their deadline, and who asked for a cancel."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_OPEN = sa.text("gated AND phase IN ('QUEUED', 'RUNNING', 'DEFERRED')")
_LATER = sa.text("gated AND phase = 'QUEUED'")
_DEADLINE = sa.text("phase = 'QUEUED' AND deadline_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("runs", sa.Column("serial", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("runs", sa.Column("intent_note", sa.Text(), nullable=True))
    op.add_column("trigger_revisions", sa.Column("note", sa.Text(), nullable=True))
    for name, columns, where in (
        ("runs_gated", ["phase", "task_id", "priority", "not_before"], _OPEN),
        ("runs_gated_later", ["not_before"], _LATER),
        ("runs_deadline", ["deadline_at"], _DEADLINE),
    ):
        op.create_index(name, "runs", columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    for name in ("runs_deadline", "runs_gated_later", "runs_gated"):
        op.drop_index(name, "runs")
    op.drop_column("trigger_revisions", "note")
    op.drop_column("runs", "intent_note")
    op.drop_column("runs", "serial")
