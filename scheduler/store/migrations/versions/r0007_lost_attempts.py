"""Numbers of attempts and losses that do not end at 32,767; a row for each execution whose worker was lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_RUN_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBERS = {"runs": ("attempt", "known_ends", "lost"), "attempts": ("attempt",)}
# As the first migration made it: PostgreSQL changes no column that a view shows.
_VIEW_OF_RUNS = (
    "CREATE VIEW v_runs AS SELECT r.name, k.project, k.domain, k.name AS task, t.name AS trigger_name, r.kind, "
    "to_timestamp(r.scheduled_at / 1000000.0) AS scheduled_at, r.version, r.phase, r.attempt, r.lost, w.name AS worker, "
    "to_timestamp(r.created_at / 1000000.0) AS created_at, to_timestamp(r.started_at / 1000000.0) AS started_at, "
    "to_timestamp(r.finished_at / 1000000.0) AS finished_at, r.error "
    "FROM runs r LEFT JOIN tasks k ON k.id = r.task_id LEFT JOIN triggers t ON t.id = r.trigger_id "
    "LEFT JOIN workers w ON w.incarnation = r.owner"
)
# A session keeps the plans of what it asked before, and its next question would fail: "cached plan must not change result
# type". Workers of the release before take an ended session for a server that was away, and connect anew.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND usename = current_user AND application_name LIKE 'trigger-scheduler%'"
)


def upgrade() -> None:
    op.create_table(
        "lost_attempts",
        sa.Column("run_name", _RUN_NAME, nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_name", "lost"),
    )
    _change("integer", "{}")


def downgrade() -> None:
    _change("smallint", "least({}, 32767)::smallint")
    op.drop_table("lost_attempts")


def _change(kind: str, using: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return  # SQLite keeps 64 bits whatever a column was declared as.
    op.execute("DROP VIEW v_runs")
    for table, columns in _NUMBERS.items():
        changes = (f"ALTER {name} TYPE {kind} USING {using.format(name)}" for name in columns)
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
    op.execute(_VIEW_OF_RUNS)
    op.execute(_END_SESSIONS)
