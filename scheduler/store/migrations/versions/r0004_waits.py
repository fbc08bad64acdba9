"""Runs that wait outside the worker: their waits, and the outcome event and links that runs keep of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INDEXES = (
    ("waits_due", ["look_at"], "kind = 'until'", False),
    ("waits_free", ["executor", "look_at"], "owner IS NULL AND kind <> 'until'", False),
    ("waits_owned", ["owner"], "owner IS NOT NULL", False),
    ("waits_job", ["executor", "job_id"], "job_id IS NOT NULL AND NOT watched", True),
)
_INTENDED = sa.text("intent IS NOT NULL AND phase = 'DEFERRED'")


def upgrade() -> None:
    op.create_table(
        "waits",
        sa.Column("run_name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("executor", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=False),
        sa.Column("interval", sa.BigInteger(), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("watched", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("error_since", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("ending", sa.Text(), nullable=True),
        sa.Column("seen", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_name"),
    )
    for name, columns, where, unique in _INDEXES:
        condition = sa.text(where)
        op.create_index(name, "waits", columns, unique=unique, postgresql_where=condition, sqlite_where=condition)
    op.add_column("runs", sa.Column("event", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("links", sa.Text(), nullable=True))
    op.create_index("runs_intended", "runs", ["name"], postgresql_where=_INTENDED, sqlite_where=_INTENDED)
    _create_view()


def _create_view() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"

    def instant(column: str) -> str:
        label = column.rsplit(".", 1)[-1]
        if postgres:
            return f"to_timestamp({column} / 1000000.0) AS {label}"
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000000.0, 'unixepoch') AS {label}"

    op.execute(
        "CREATE VIEW v_waits AS SELECT s.run_name, k.project, k.domain, k.name AS task, s.executor, s.kind, s.stage, "
        f"s.job_id, w.name AS worker, {instant('s.created_at')}, {instant('s.look_at')}, {instant('s.ends_at')}, "
        f"{instant('s.error_since')}, s.last_error, s.seen, s.ending "
        "FROM waits s LEFT JOIN runs r ON r.name = s.run_name LEFT JOIN tasks k ON k.id = r.task_id "
        "LEFT JOIN workers w ON w.incarnation = s.owner"
    )


def downgrade() -> None:
    op.execute("DROP VIEW v_waits")
    op.drop_index("runs_intended", "runs")
    op.drop_column("runs", "links")
    op.drop_column("runs", "event")
    op.drop_table("waits")
