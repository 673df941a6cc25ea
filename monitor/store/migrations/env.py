"""Alembic runs this file for every upgrade: on the connection, and in the transaction, that ``schema`` hands over."""

from __future__ import annotations

from alembic import context

from monitor.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place: batch mode copies it.
    render_as_batch=True,
    # Both databases can roll a schema change back; alembic assumes that SQLite cannot.
    transactional_ddl=True,
)
context.run_migrations()
