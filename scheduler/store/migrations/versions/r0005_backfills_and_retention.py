"""Backfills; runs that do a slot again; how old runs are found; a view of skips without what was merely forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OWN_SLOT = "kind NOT IN ('manual', 'reprocess')"
_INDEXES = (
    ("runs_again", ["trigger_id", "scheduled_at"], "kind = 'reprocess'"),
    ("runs_manual", ["trigger_id", "created_at"], "kind = 'manual'"),
    ("runs_backfill", ["backfill_id", "phase"], "backfill_id IS NOT NULL"),
)


def upgrade() -> None:
    op.create_table(
        "backfills",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("trigger_id", _ID, nullable=False),
        sa.Column("task_id", _ID, nullable=False),
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("anchor_at", sa.BigInteger(), nullable=True),
        sa.Column("start_at", sa.BigInteger(), nullable=True),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("calendars", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("kickoff_arg", sa.String(length=255), nullable=True),
        sa.Column("executor", sa.String(length=255), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("from_slot", sa.BigInteger(), nullable=False),
        sa.Column("to_slot", sa.BigInteger(), nullable=False),
        sa.Column("reprocess", sa.String(length=16), nullable=False),
        sa.Column("max_active", sa.Integer(), nullable=False),
        sa.Column("reverse", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=True),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("considered", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queued", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("phases", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("backfills_trigger", "backfills", ["trigger_id"])
    under_way = sa.text("state IN ('running', 'cancelling')")
    op.create_index("backfills_open", "backfills", ["id"], postgresql_where=under_way, sqlite_where=under_way)
    op.add_column("runs", sa.Column("backfill_id", sa.BigInteger(), nullable=True))
    _slots_are_unique(_OWN_SLOT)
    for name, columns, where in _INDEXES:
        op.create_index(name, "runs", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
    _view_of_skips("WHERE s.reason <> 'pruned'")


def downgrade() -> None:
    _view_of_skips("")
    for name, _, _ in _INDEXES:
        op.drop_index(name, "runs")
    op.execute("DELETE FROM attempts WHERE run_name IN (SELECT name FROM runs WHERE kind = 'reprocess')")
    op.execute("DELETE FROM runs WHERE kind = 'reprocess'")
    op.execute("DELETE FROM skips WHERE reason = 'pruned'")
    _slots_are_unique("kind <> 'manual'")
    op.drop_column("runs", "backfill_id")
    op.drop_table("backfills")


def _slots_are_unique(where: str) -> None:
    op.drop_index("runs_slot", "runs")
    op.create_index(
        "runs_slot",
        "runs",
        ["trigger_id", "scheduled_at"],
        unique=True,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def _view_of_skips(where: str) -> None:
    postgres = op.get_bind().dialect.name == "postgresql"

    def instant(column: str) -> str:
        if postgres:
            return f"to_timestamp(s.{column} / 1000000.0) AS {column}"
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', s.{column} / 1000000.0, 'unixepoch') AS {column}"

    op.execute("DROP VIEW v_skips")
    op.execute(
        "CREATE VIEW v_skips AS SELECT k.project, k.domain, k.name AS task, t.name AS trigger_name, "
        f"{instant('from_slot')}, {instant('to_slot')}, s.count, s.reason "
        f"FROM skips s JOIN triggers t ON t.id = s.trigger_id JOIN tasks k ON k.id = t.task_id {where}"
    )
