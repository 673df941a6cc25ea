"""Brings a database to this release's schema, or says why it cannot be used."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from monitor.errors import StoreError
from monitor.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"

LOCK_SPACE = 0x5E6A7C4
"""First key of all our advisory locks; the second is the schema, so that two segwatch may share one database."""


def migrate(database: Database, migrations: Path = MIGRATIONS) -> None:
    """Bring an empty or older database to this release's schema, keeping its data; all or nothing.

    Workers that start together wait for each other: PostgreSQL on an advisory lock, SQLite on its write lock.
    Raises StoreError when the database was made by a newer release.
    """
    script = _scripts(migrations)
    with database.write() as connection:
        if database.is_postgres:
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_xact_lock(:space, hashtext(current_schema()))"),
                {"space": LOCK_SPACE},
            )
        present = _revision(connection)
        _refuse_newer(present, script, database)
        if present != script.get_current_head():
            change_revision(connection, "head", migrations)


def check(database: Database, migrations: Path = MIGRATIONS) -> None:
    """What a reader needs: a database of just this release. Raises StoreError that says what to do otherwise."""
    script = _scripts(migrations)
    with database.read() as connection:
        present = _revision(connection)
    if present is None:
        raise StoreError(f"{database.name}: there is no segwatch store here yet")
    _refuse_newer(present, script, database)
    if present != script.get_current_head():
        raise StoreError(
            f"{database.name}: its schema is {present}, this release needs {script.get_current_head()};"
            " start `segwatch run` to migrate it"
        )


def change_revision(connection: Connection, revision: str, migrations: Path = MIGRATIONS) -> None:
    """Upgrade or downgrade to ``revision`` ("head" and "base" too) within the connection's transaction."""
    config = _config(migrations)
    config.attributes["connection"] = connection
    present = _revision(connection)
    if revision == "base" or (present is not None and revision != "head" and revision < present):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts(migrations: Path) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(migrations))


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(present: str | None, script: ScriptDirectory, database: Database) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if present is not None and present not in known:
        raise StoreError(
            f"{database.name}: its schema {present} is newer than this release's ({script.get_current_head()});"
            " upgrade segwatch"
        )
