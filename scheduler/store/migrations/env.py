"""Runs migrations over the connection that `scheduler.store.upgrade` opened, inside its one transaction."""

from __future__ import annotations

from alembic import context

from scheduler.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place; a batch copies it.
    render_as_batch=True,
    # Both databases undo DDL: a migration that fails leaves the schema as it was.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
