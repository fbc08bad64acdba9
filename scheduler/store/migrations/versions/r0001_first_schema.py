"""The first schema: tasks, triggers, the due-queue, runs, the ledger, workers, and views with readable instants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("run_name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_name", "attempt"),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "projects",
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain"),
    )
    op.create_table(
        "runs",
        sa.Column("name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("trigger_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("scheduled_at", sa.BigInteger(), nullable=True),
        sa.Column("covers_from", sa.BigInteger(), nullable=True),
        sa.Column("covers_to", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("kickoff_arg", sa.String(length=255), nullable=True),
        sa.Column("executor", sa.String(length=255), nullable=False),
        sa.Column("gated", sa.Boolean(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=True),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("known_ends", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("lost", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("intent", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("outputs", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("runs_created", "runs", ["created_at"], unique=False)
    op.create_index(
        "runs_open",
        "runs",
        ["trigger_id"],
        unique=False,
        postgresql_where=sa.text("phase IN ('QUEUED', 'RUNNING', 'DEFERRED')"),
        sqlite_where=sa.text("phase IN ('QUEUED', 'RUNNING', 'DEFERRED')"),
    )
    op.create_index(
        "runs_owned",
        "runs",
        ["owner"],
        unique=False,
        postgresql_where=sa.text("owner IS NOT NULL"),
        sqlite_where=sa.text("owner IS NOT NULL"),
    )
    op.create_index(
        "runs_ready",
        "runs",
        ["executor", "priority", "not_before"],
        unique=False,
        postgresql_where=sa.text("phase = 'QUEUED' AND NOT gated"),
        sqlite_where=sa.text("phase = 'QUEUED' AND NOT gated"),
    )
    op.create_index(
        "runs_slot",
        "runs",
        ["trigger_id", "scheduled_at"],
        unique=True,
        postgresql_where=sa.text("kind <> 'manual'"),
        sqlite_where=sa.text("kind <> 'manual'"),
    )
    op.create_table(
        "task_specs",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("latest_version", sa.String(length=255), nullable=True),
        sa.Column("deploy_digest", sa.String(length=64), nullable=True),
        sa.Column("max_concurrent_runs", sa.Integer(), nullable=True),
        sa.Column("total_triggers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("active_triggers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deployed_at", sa.BigInteger(), nullable=True),
        sa.Column("deployed_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project", "domain", "name", name="tasks_key"),
    )
    op.create_table(
        "workers",
        sa.Column("incarnation", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("executors", sa.Text(), server_default="[]", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("alive", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("incarnation"),
    )
    op.create_table(
        "task_deploys",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("deploy_digest", sa.String(length=64), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "deploy_digest"),
    )
    op.create_table(
        "task_versions",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.String(length=255), server_default="", nullable=False),
        sa.Column("environment_description", sa.Text(), server_default="", nullable=False),
        sa.Column("function_name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), server_default="", nullable=False),
        sa.Column("long_description", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("deployed_at", sa.BigInteger(), nullable=False),
        sa.Column("deployed_by", sa.String(length=255), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["spec_digest"],
            ["task_specs.digest"],
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "version"),
    )
    op.create_index("task_versions_newest", "task_versions", ["task_id", "deployed_at"], unique=False)
    op.create_table(
        "triggers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("automation", sa.Text(), nullable=True),
        sa.Column("version", sa.String(length=255), nullable=True),
        sa.Column("inputs", sa.Text(), server_default="{}", nullable=False),
        sa.Column("kickoff_arg", sa.String(length=255), nullable=True),
        sa.Column("catchup_policy", sa.String(length=16), server_default="all", nullable=False),
        sa.Column("catchup_window", sa.BigInteger(), server_default="604800000000", nullable=False),
        sa.Column("catchup_max_runs", sa.Integer(), server_default="10", nullable=False),
        sa.Column("overlap", sa.String(length=16), server_default="allow_all", nullable=False),
        sa.Column("pause_on_failure", sa.Integer(), nullable=True),
        sa.Column("jitter", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=True),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("max_fires", sa.Integer(), nullable=True),
        sa.Column("calendars", sa.Text(), server_default="[]", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("snoozed_until", sa.BigInteger(), nullable=True),
        sa.Column("skip_next_at", sa.BigInteger(), nullable=True),
        sa.Column("anchor_at", sa.BigInteger(), nullable=True),
        sa.Column("anchor_interval", sa.BigInteger(), nullable=True),
        sa.Column("activated_at", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deployed", sa.Text(), nullable=True),
        sa.Column("source", sa.String(length=16), server_default="sql", nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_fingerprint", sa.Text(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_by", sa.String(length=255), nullable=True),
        sa.Column("spec_digest", sa.String(length=64), nullable=True),
        sa.Column("executor", sa.String(length=255), nullable=True),
        sa.Column("gated", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("planned_from", sa.Text(), nullable=True),
        sa.Column(
            "plan_source",
            sa.Text(),
            sa.Computed(
                "coalesce(automation, '') || '|' || coalesce(CAST(start_at AS TEXT), '') || '|' || coalesce(CAST(end_at AS TEXT), '') || '|' || calendars || '|' || CAST(jitter AS TEXT) || '|' || CASE WHEN active THEN '1' ELSE '0' END || '|' || coalesce(CAST(snoozed_until AS TEXT), '') || '|' || coalesce(CAST(deleted_at AS TEXT), '') || '|' || coalesce(version, '') || '|' || coalesce(CAST(max_fires AS TEXT), '')",
                persisted=True,
            ),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("task_id", "name", name="triggers_key"),
    )
    op.create_index(
        "triggers_quarantined",
        "triggers",
        ["error_fingerprint"],
        unique=False,
        postgresql_where=sa.text("error IS NOT NULL"),
        sqlite_where=sa.text("error IS NOT NULL"),
    )
    op.create_index(
        "triggers_snoozed",
        "triggers",
        ["snoozed_until"],
        unique=False,
        postgresql_where=sa.text("snoozed_until IS NOT NULL"),
        sqlite_where=sa.text("snoozed_until IS NOT NULL"),
    )
    op.create_index(
        "triggers_unplanned",
        "triggers",
        ["id"],
        unique=False,
        postgresql_where=sa.text("planned_from IS DISTINCT FROM plan_source"),
        sqlite_where=sa.text("planned_from IS NOT plan_source"),
    )
    op.create_table(
        "skips",
        sa.Column("trigger_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("from_slot", sa.BigInteger(), nullable=False),
        sa.Column("to_slot", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trigger_id", "from_slot"),
    )
    op.create_index("skips_newest", "skips", ["trigger_id", "to_slot"], unique=False)
    op.create_table(
        "trigger_due",
        sa.Column("trigger_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("next_slot", sa.BigInteger(), nullable=True),
        sa.Column("last_slot", sa.BigInteger(), nullable=True),
        sa.Column("decided_to", sa.BigInteger(), nullable=True),
        sa.Column("fired_at", sa.BigInteger(), nullable=True),
        sa.Column("fires", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("fingerprint", sa.String(length=32), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trigger_id"),
    )
    op.create_index(
        "trigger_due_at",
        "trigger_due",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "trigger_revisions",
        sa.Column("trigger_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("version", sa.String(length=255), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trigger_id", "revision"),
    )
    _create_views()


def _create_views() -> None:
    """Instants are stored as epoch microseconds; people who look with psql or sqlite3 read these views instead."""
    postgres = op.get_bind().dialect.name == "postgresql"

    def instant(column: str, name: str | None = None) -> str:
        label = name or column.rsplit(".", 1)[-1]
        if postgres:
            return f"to_timestamp({column} / 1000000.0) AS {label}"
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000000.0, 'unixepoch') AS {label}"

    op.execute(
        "CREATE VIEW v_triggers AS SELECT t.id, k.project, k.domain, k.name AS task, t.name AS trigger_name, t.active, "
        f"t.automation, t.version, t.revision, {instant('d.next_slot')}, {instant('d.last_slot')}, "
        f"{instant('d.fired_at', 'triggered_at')}, {instant('t.activated_at')}, {instant('t.deleted_at')}, t.error "
        "FROM triggers t JOIN tasks k ON k.id = t.task_id LEFT JOIN trigger_due d ON d.trigger_id = t.id"
    )
    op.execute(
        "CREATE VIEW v_runs AS SELECT r.name, k.project, k.domain, k.name AS task, t.name AS trigger_name, r.kind, "
        f"{instant('r.scheduled_at')}, r.version, r.phase, r.attempt, r.lost, w.name AS worker, "
        f"{instant('r.created_at')}, {instant('r.started_at')}, {instant('r.finished_at')}, r.error "
        "FROM runs r LEFT JOIN tasks k ON k.id = r.task_id LEFT JOIN triggers t ON t.id = r.trigger_id "
        "LEFT JOIN workers w ON w.incarnation = r.owner"
    )
    op.execute(
        "CREATE VIEW v_skips AS SELECT k.project, k.domain, k.name AS task, t.name AS trigger_name, "
        f"{instant('s.from_slot')}, {instant('s.to_slot')}, s.count, s.reason "
        "FROM skips s JOIN triggers t ON t.id = s.trigger_id JOIN tasks k ON k.id = t.task_id"
    )


def downgrade() -> None:
    for view in ("v_skips", "v_runs", "v_triggers"):
        op.execute(f"DROP VIEW {view}")
    for table in (
        "skips",
        "attempts",
        "runs",
        "workers",
        "trigger_revisions",
        "trigger_due",
        "triggers",
        "task_deploys",
        "task_versions",
        "task_specs",
        "tasks",
        "projects",
        "meta",
    ):
        op.drop_table(table)
