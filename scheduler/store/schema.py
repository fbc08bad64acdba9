"""The tables. Every instant is epoch microseconds in UTC (BIGINT); every JSON document is text.

Two tables are read at every fire and stay narrow: `trigger_due`, the due-queue, and `runs`. What a trigger is stands in
`triggers`, which a fire only reads.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    collate,
    false,
    text,
    true,
)

metadata: Final = MetaData()

# SQLite numbers rows itself only in a column declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
# SQLite keeps 64 bits in any integer column: what was declared small there needs no wider one.
_Number = Integer().with_variant(SmallInteger, "sqlite")
# Names of runs sort byte by byte on both databases: batches are inserted sorted by name so that they cannot deadlock.
_RunName = Text().with_variant(Text(collation="C"), "postgresql")

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("project", String(255), primary_key=True),
    Column("domain", String(255), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(255), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("latest_version", String(255)),
    # What the last deploy said, as one digest: an identical one changes nothing.
    Column("deploy_digest", String(64)),
    Column("max_concurrent_runs", Integer),
    # The summary of its live triggers; name and automation where there is exactly one.
    Column("total_triggers", Integer, nullable=False, server_default="0"),
    Column("active_triggers", Integer, nullable=False, server_default="0"),
    Column("trigger_name", String(255)),
    Column("trigger_automation", Text),
    Column("deployed_at", BigInteger),
    Column("deployed_by", String(255)),
    Column("deleted_at", BigInteger),
    UniqueConstraint("project", "domain", "name", name="tasks_key"),
)

# As listings sort, byte by byte. SQLite does so anyway, by the key above; PostgreSQL's key speaks the database's language.
Index(
    "tasks_listed",
    *(collate(tasks.c[name], "C") for name in ("project", "domain", "name")),
    info={"only": "postgresql"},
)
Index("tasks_deployed", tasks.c.deployed_at)
Index(
    "tasks_deleted",
    tasks.c.deleted_at,
    postgresql_where=text("deleted_at IS NOT NULL"),
    sqlite_where=text("deleted_at IS NOT NULL"),
)

task_specs = Table(
    "task_specs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("format", String(32), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # When it was last seen to be needed though no version names it: handed in again, or found pinned by a run.
    Column("needed_at", BigInteger),
)

task_versions = Table(
    "task_versions",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("version", String(255), primary_key=True),
    Column("spec_digest", String(64), ForeignKey("task_specs.digest"), nullable=False),
    Column("environment", String(255), nullable=False, server_default=""),
    Column("environment_description", Text, nullable=False, server_default=""),
    Column("function_name", String(255), nullable=False),
    Column("description", String(255), nullable=False, server_default=""),
    Column("long_description", String(2048), nullable=False, server_default=""),
    Column("deployed_at", BigInteger, nullable=False),
    Column("deployed_by", String(255), nullable=False, server_default=""),
    Index("task_versions_newest", "task_id", "deployed_at"),
    Index("task_versions_deployed", "deployed_at"),
    Index("task_versions_digest", "spec_digest"),
)

# Every content ever deployed: a manifest that was deployed once is not applied again by a mere restart.
task_deploys = Table(
    "task_deploys",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("deploy_digest", String(64), primary_key=True),
    Column("first_at", BigInteger, nullable=False),
)

# What a plan is made of, as one text. `planned_from` repeats the text a plan was made from, so any writer's change, a
# plain UPDATE in psql too, shows as a difference, and a partial index holds just the rows that differ.
_PLAN_PARTS: Final = (
    "coalesce(automation, '') || '|' || coalesce(CAST(start_at AS TEXT), '') || '|' || "
    "coalesce(CAST(end_at AS TEXT), '') || '|' || calendars || '|' || CAST(jitter AS TEXT) || '|' || "
    "CASE WHEN active THEN '1' ELSE '0' END || '|' || coalesce(CAST(snoozed_until AS TEXT), '') || '|' || "
    "coalesce(CAST(deleted_at AS TEXT), '') || '|' || coalesce(version, '') || '|' || "
    "coalesce(CAST(max_fires AS TEXT), '')"
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("task_id", _Id, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("active", Boolean, nullable=False, server_default=true()),
    Column("automation", Text),
    Column("version", String(255)),
    Column("inputs", Text, nullable=False, server_default="{}"),
    Column("kickoff_arg", String(255)),
    Column("catchup_policy", String(16), nullable=False, server_default="all"),
    Column("catchup_window", BigInteger, nullable=False, server_default=str(7 * 86_400 * 1_000_000)),
    Column("catchup_max_runs", Integer, nullable=False, server_default="10"),
    Column("overlap", String(16), nullable=False, server_default="allow_all"),
    Column("pause_on_failure", Integer),
    Column("jitter", BigInteger, nullable=False, server_default="0"),
    Column("start_at", BigInteger),
    Column("end_at", BigInteger),
    Column("max_fires", Integer),
    Column("calendars", Text, nullable=False, server_default="[]"),
    Column("description", Text, nullable=False, server_default=""),
    Column("snoozed_until", BigInteger),
    Column("skip_next_at", BigInteger),
    # The anchor of a fixed rate without a start time: set when the interval is, never moved by a fire or a restart.
    Column("anchor_at", BigInteger),
    Column("anchor_interval", BigInteger),
    Column("activated_at", BigInteger),
    Column("revision", Integer, nullable=False, server_default="0"),
    # The document of the last deploy; `source` says who deploys it: manifest, api, library or sql.
    Column("deployed", Text),
    Column("source", String(16), nullable=False, server_default="sql"),
    Column("note", Text),
    Column("error", Text),
    Column("error_fingerprint", Text),
    Column("deleted_at", BigInteger),
    Column("updated_at", BigInteger),
    Column("updated_by", String(255)),
    # Copied from the version the trigger points at, so that a fire reads one table.
    Column("spec_digest", String(64)),
    Column("executor", String(255)),
    Column("gated", Boolean, nullable=False, server_default=false()),
    Column("deadline", BigInteger),
    Column("planned_from", Text),
    Column("plan_source", Text, Computed(_PLAN_PARTS, persisted=True)),
    UniqueConstraint("task_id", "name", name="triggers_key"),
)
Index(
    "triggers_unplanned",
    triggers.c.id,
    postgresql_where=text("planned_from IS DISTINCT FROM plan_source"),
    sqlite_where=text("planned_from IS NOT plan_source"),
)
Index(
    "triggers_quarantined",
    triggers.c.error_fingerprint,
    postgresql_where=text("error IS NOT NULL"),
    sqlite_where=text("error IS NOT NULL"),
)
Index(
    "triggers_snoozed",
    triggers.c.snoozed_until,
    postgresql_where=text("snoozed_until IS NOT NULL"),
    sqlite_where=text("snoozed_until IS NOT NULL"),
)

trigger_due = Table(
    "trigger_due",
    metadata,
    Column("trigger_id", _Id, ForeignKey("triggers.id", ondelete="CASCADE"), primary_key=True),
    # NULL while nothing is planned (manual, inactive, finished, quarantined): the position outlives the plan.
    Column("due_at", BigInteger),
    Column("next_slot", BigInteger),
    Column("last_slot", BigInteger),
    # The position before the clock was set back: slots up to here may have an entry already.
    Column("decided_to", BigInteger),
    Column("fired_at", BigInteger),
    Column("fires", BigInteger, nullable=False, server_default="0"),
    Column("fingerprint", String(32), nullable=False, server_default=""),
)
Index(
    "trigger_due_at",
    trigger_due.c.due_at,
    postgresql_where=text("due_at IS NOT NULL"),
    sqlite_where=text("due_at IS NOT NULL"),
)

# Triggers that were set aside because the database did not take what they fire: when they are tried again.
trigger_retries = Table(
    "trigger_retries",
    metadata,
    Column("trigger_id", _Id, ForeignKey("triggers.id", ondelete="CASCADE"), primary_key=True),
    Column("retry_at", BigInteger, nullable=False),
    Column("retries", Integer, nullable=False),
)

trigger_revisions = Table(
    "trigger_revisions",
    metadata,
    Column("trigger_id", _Id, ForeignKey("triggers.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("action", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", String(255), nullable=False, server_default=""),
    Column("version", String(255)),
    Column("active", Boolean, nullable=False),
    Column("spec", Text, nullable=False),
    Column("note", Text),
)

workers = Table(
    "workers",
    metadata,
    # Random, never reused, never revived.
    Column("incarnation", String(32), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("version", String(64), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("executors", Text, nullable=False, server_default="[]"),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("started_at", BigInteger, nullable=False),
    Column("renewed_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("alive", Boolean, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("name", _RunName, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("trigger_id", _Id),
    Column("task_id", _Id, nullable=False),
    Column("scheduled_at", BigInteger),
    Column("covers_from", BigInteger),
    Column("covers_to", BigInteger),
    # What the run pinned when it fired.
    Column("version", String(255), nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("kickoff_arg", String(255)),
    Column("executor", String(255), nullable=False),
    # `serial`: starts only when no earlier scheduled run of its trigger is open. `gated`: serial, or its task is limited.
    Column("serial", Boolean, nullable=False, server_default=false()),
    Column("gated", Boolean, nullable=False),
    Column("deadline_at", BigInteger),
    # Where it stands. Priority 0 is on time; a late run's is its turn in the round-robin over triggers.
    Column("phase", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("attempt", _Number, nullable=False, server_default="1"),
    Column("known_ends", _Number, nullable=False, server_default="0"),
    Column("lost", _Number, nullable=False, server_default="0"),
    Column("owner", String(32)),
    Column("fence", BigInteger, nullable=False),
    # An end that somebody wants and nobody has reached yet: every transition reads it.
    Column("intent", String(16)),
    Column("intent_note", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("error", Text),
    Column("outputs", Text),
    # What a deferred run is given when it goes on.
    Column("state", Text),
    # How the job of an external service ended: {status, message, job_id}; and pages about it.
    Column("event", Text),
    Column("links", Text),
    Column("backfill_id", BigInteger),
)
# The kinds that have no claim to their slot: what somebody fired by hand, and what is done again.
_OWN_SLOT: Final = "kind NOT IN ('manual', 'reprocess')"
_QUEUED: Final = "phase = 'QUEUED' AND NOT gated"
_OPEN: Final = "phase IN ('QUEUED', 'RUNNING', 'DEFERRED')"
Index(
    "runs_slot",
    runs.c.trigger_id,
    runs.c.scheduled_at,
    unique=True,
    postgresql_where=text(_OWN_SLOT),
    sqlite_where=text(_OWN_SLOT),
)
_AGAIN: Final = "kind = 'reprocess'"
Index("runs_again", runs.c.trigger_id, runs.c.scheduled_at, postgresql_where=text(_AGAIN), sqlite_where=text(_AGAIN))
_MANUAL: Final = "kind = 'manual'"
Index("runs_manual", runs.c.trigger_id, runs.c.created_at, postgresql_where=text(_MANUAL), sqlite_where=text(_MANUAL))
Index(
    "runs_backfill",
    runs.c.backfill_id,
    runs.c.phase,
    postgresql_where=text("backfill_id IS NOT NULL"),
    sqlite_where=text("backfill_id IS NOT NULL"),
)
Index(
    "runs_ready",
    runs.c.executor,
    runs.c.priority,
    runs.c.not_before,
    postgresql_where=text(_QUEUED),
    sqlite_where=text(_QUEUED),
)
Index(
    "runs_owned",
    runs.c.owner,
    postgresql_where=text("owner IS NOT NULL"),
    sqlite_where=text("owner IS NOT NULL"),
)
_GATED_OPEN: Final = f"gated AND {_OPEN}"
Index(
    "runs_gated",
    runs.c.phase,
    runs.c.task_id,
    runs.c.priority,
    runs.c.not_before,
    postgresql_where=text(_GATED_OPEN),
    sqlite_where=text(_GATED_OPEN),
)
_GATED_QUEUED: Final = "gated AND phase = 'QUEUED'"
Index("runs_gated_later", runs.c.not_before, postgresql_where=text(_GATED_QUEUED), sqlite_where=text(_GATED_QUEUED))
_MAY_EXPIRE: Final = "phase = 'QUEUED' AND deadline_at IS NOT NULL"
Index("runs_deadline", runs.c.deadline_at, postgresql_where=text(_MAY_EXPIRE), sqlite_where=text(_MAY_EXPIRE))
Index("runs_open", runs.c.trigger_id, postgresql_where=text(_OPEN), sqlite_where=text(_OPEN))
Index("runs_created", runs.c.created_at)
_INTENDED: Final = "intent IS NOT NULL AND phase = 'DEFERRED'"
Index("runs_intended", runs.c.name, postgresql_where=text(_INTENDED), sqlite_where=text(_INTENDED))

# A row while a run waits outside the worker. Owned by a worker's incarnation, as runs are: an owner that is gone leaves
# the run DEFERRED, and the next one takes the wait over under a new fence.
waits = Table(
    "waits",
    metadata,
    Column("run_name", _RunName, primary_key=True),
    Column("executor", String(255), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("owner", String(32)),
    # Always the run's: both grow when somebody takes the wait over.
    Column("fence", BigInteger, nullable=False),
    # The instant that is waited for; of what is looked at, the instant before which nobody looks again.
    Column("look_at", BigInteger, nullable=False),
    Column("interval", BigInteger, nullable=False),
    Column("budget", BigInteger, nullable=False),
    # When the attempt's time is over: its timeout or the run's deadline, whichever is first.
    Column("ends_at", BigInteger),
    Column("state", Text),
    Column("job_id", Text),
    # The job was there before the run, and others may watch it too.
    Column("watched", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("error_since", BigInteger),
    Column("last_error", Text),
    # How the attempt will end, once its job is known to be over.
    Column("ending", Text),
    # What was seen last: phase, message, links.
    Column("seen", Text),
)
_UNTIL: Final = "kind = 'until'"
_FREE: Final = "owner IS NULL AND kind <> 'until'"
_OWN_JOB: Final = "job_id IS NOT NULL AND NOT watched"
Index("waits_due", waits.c.look_at, postgresql_where=text(_UNTIL), sqlite_where=text(_UNTIL))
Index("waits_free", waits.c.executor, waits.c.look_at, postgresql_where=text(_FREE), sqlite_where=text(_FREE))
Index(
    "waits_owned",
    waits.c.owner,
    postgresql_where=text("owner IS NOT NULL"),
    sqlite_where=text("owner IS NOT NULL"),
)
Index(
    "waits_job",
    waits.c.executor,
    waits.c.job_id,
    unique=True,
    postgresql_where=text(_OWN_JOB),
    sqlite_where=text(_OWN_JOB),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_name", _RunName, primary_key=True),
    Column("attempt", _Number, primary_key=True),
    Column("phase", String(16), nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger, nullable=False),
    Column("worker", String(255)),
    Column("error", Text),
    Column("output", Text),
)

# Executions whose worker was lost. They are no attempts: those count recorded outcomes. `lost` is which loss of the run.
lost_attempts = Table(
    "lost_attempts",
    metadata,
    Column("run_name", _RunName, primary_key=True),
    Column("lost", Integer, primary_key=True),
    # The attempt that was under way.
    Column("attempt", Integer, nullable=False),
    Column("started_at", BigInteger),
    # When it was seen that the worker is gone.
    Column("finished_at", BigInteger, nullable=False),
    Column("worker", String(255)),
    Column("error", Text),
)

skips = Table(
    "skips",
    metadata,
    Column("trigger_id", _Id, ForeignKey("triggers.id", ondelete="CASCADE"), primary_key=True),
    Column("from_slot", BigInteger, primary_key=True),
    Column("to_slot", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("reason", String(24), nullable=False),
    Index("skips_newest", "trigger_id", "to_slot"),
)

backfills = Table(
    "backfills",
    metadata,
    # A number is never used twice: runs are named by it.
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("trigger_id", _Id, ForeignKey("triggers.id", ondelete="CASCADE"), nullable=False),
    Column("task_id", _Id, ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    # What the trigger said when the backfill was ordered; its runs pin this, whatever becomes of the trigger.
    Column("automation", Text, nullable=False),
    Column("anchor_at", BigInteger),
    Column("start_at", BigInteger),
    Column("end_at", BigInteger),
    Column("calendars", Text, nullable=False),
    Column("version", String(255), nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("kickoff_arg", String(255)),
    Column("executor", String(255), nullable=False),
    Column("deadline", BigInteger),
    # What was ordered.
    Column("from_slot", BigInteger, nullable=False),
    Column("to_slot", BigInteger, nullable=False),
    Column("reprocess", String(16), nullable=False),
    Column("max_active", Integer, nullable=False),
    Column("reverse", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(255), nullable=False, server_default=""),
    # How far it has come: the slot looked at last, how many there are, were looked at, and got a run.
    Column("state", String(16), nullable=False),
    Column("cursor", BigInteger),
    Column("slots", BigInteger, nullable=False),
    Column("considered", BigInteger, nullable=False, server_default="0"),
    Column("queued", BigInteger, nullable=False, server_default="0"),
    Column("finished_at", BigInteger),
    Column("note", Text),
    # How its runs ended, counted when the last one had: they are forgotten before it is.
    Column("phases", Text),
    Index("backfills_trigger", "trigger_id"),
    sqlite_autoincrement=True,
)
_UNDER_WAY: Final = "state IN ('running', 'cancelling')"
Index("backfills_open", backfills.c.id, postgresql_where=text(_UNDER_WAY), sqlite_where=text(_UNDER_WAY))
