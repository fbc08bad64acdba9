"""Triggers that the database failed on are tried again: when, and how often they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "trigger_retries",
        sa.Column("trigger_id", _ID, nullable=False),
        sa.Column("retry_at", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trigger_id"),
    )
    # A release before set triggers aside for good where the database refused for a while: all are tried once.
    op.execute(
        "INSERT INTO trigger_retries (trigger_id, retry_at, retries) "
        "SELECT id, 0, 0 FROM triggers WHERE error IS NOT NULL AND deleted_at IS NULL"
    )


def downgrade() -> None:
    op.drop_table("trigger_retries")
