"""Schemas: an empty database, one of an earlier release, one of a later. On PostgreSQL too, from ``tests/real``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from monitor.errors import StoreError
from monitor.settings import Settings
from monitor.sources.protocol import Partition
from monitor.store import schema
from monitor.store.database import Database, parse_url
from monitor.store.store import Store
from monitor.store.tables import metadata, outbox
from monitor.store.values import ActiveBaseline, BaselineMeta, OutboxMessage, PaneKey, StoredBaseline
from monitor.tallies import TallyKey
from tests.embedded import open_store, settings_of

BASELINE = "1e4c91f27c0071c2234548816cd22e1ea508c760089317c07d5be83a65df0d54"

# What the first release wrote, as it wrote it. Never edit these lines: add those of later releases below them.
FIRST_RELEASE = [
    "INSERT INTO source_offset (cluster, topic_id, number, topic, next_offset, end_offset, max_event_time_us,"
    " caught_up_at_us, updated_at_us, retired)"
    " VALUES ('c', 'id-1', 0, 'segwatch.predictions', 42, 50, 7, NULL, 9, FALSE)",
    "INSERT INTO sample (input_id, model, version, event_time_us, received_us, sequence, slices, status,"
    ' sampling_probability, confidence, topic, number, "offset")'
    " VALUES ('cam7-1', 'street', '3', 5, 6, NULL, '{{}}', 'ok', 0.05, NULL, 'segwatch.predictions', 0, 41)",
    "INSERT INTO pane (model, version, slice, start_us, baseline_id, records, state)"
    " VALUES ('street', '3', '', 0, 'b1', 5, {folded})",
    "INSERT INTO pane_delta (model, version, slice, start_us, baseline_id, records, state)"
    " VALUES ('street', '3', '', 0, 'b1', 2, {waiting})",
    "INSERT INTO tally (series, model, version, label, bucket, value) VALUES ('records', 'street', '3', 'ok', 0, 5)",
    "INSERT INTO tally_delta (entries) VALUES ({entries})",
    "INSERT INTO window_score (model, version, slice, length_us, start_us, baseline_id, revision, records, alarm,"
    " payload, scored_at_us) VALUES ('street', '3', '', 3600000000, 0, 'b1', 0, 5, TRUE, {payload}, 8)",
    "INSERT INTO window_due (model, version, slice, length_us, start_us, baseline_id, mark)"
    " VALUES ('street', '3', '', 3600000000, 0, 'b1', 2)",
    "INSERT INTO baseline (id, model, version, created_us, format_version, meta, payload)"
    " VALUES ('{baseline}', 'street', '3', 1, 1, '{{\"name\": \"spring\"}}', {bins})",
    "INSERT INTO baseline_active (model, version, baseline_id, activated_us) VALUES ('street', '3', '{baseline}', 2)",
    "INSERT INTO outbox (id, topic, key, value, headers, keep_sent, created_us, attempts, sent_us)"
    " VALUES ('m1', 'segwatch.actions', NULL, {payload}, {headers}, TRUE, 3, 0, NULL)",
]
BYTES = {
    "folded": b"\x01",
    "waiting": b"\x02",
    "entries": bytes.fromhex("9196a77265636f726473a6737472656574a133a26f6b0002"),  # [[records, street, 3, ok, 0, 2]]
    "payload": b"{}",
    "bins": b"bins",
    "headers": bytes.fromhex("9192a563655f6964c4026d31"),  # [["ce_id", b"m1"]]
}

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sample") as batch:
        batch.add_column(sa.Column("weather", sa.Text))
    op.execute("UPDATE sample SET weather = 'rain'")


def downgrade() -> None:
    with op.batch_alter_table("sample") as batch:
        batch.drop_column("weather")
"""

FAILING = LATER.replace("""op.execute("UPDATE sample SET weather = 'rain'")""", 'raise RuntimeError("half-way")')


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
def database(settings: Settings, tmp_path: Path) -> Iterator[Database]:
    """The database of ``settings``, before anything is in it."""
    opened = Database(parse_url(settings.store.url or f"sqlite:///{tmp_path}/segwatch.db", ""), write=True)
    yield opened
    opened.close()


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The migrations of a release to come."""
    return with_migration(tmp_path / "later", LATER)


def with_migration(folder: Path, text: str) -> Path:
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    heads = sorted(path.name.split("_")[0] for path in (folder / "versions").glob("[0-9]*.py"))
    (folder / "versions" / "9999_later.py").write_text(text.format(head=heads[-1]))
    return folder


def fill(database: Database) -> None:
    quote = "'\\x{}'" if database.is_postgres else "X'{}'"
    values = {name: quote.format(value.hex()) for name, value in BYTES.items()}
    with database.write() as connection:
        schema.change_revision(connection, "0001")
        for statement in FIRST_RELEASE:
            connection.exec_driver_sql(statement.format(**values, baseline=BASELINE))


def weather(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(sqlalchemy.text("SELECT weather FROM sample")))


def columns(database: Database) -> dict[str, set[str]]:
    inspector = sqlalchemy.inspect(database.engine)
    return {table: {one["name"] for one in inspector.get_columns(table)} for table in inspector.get_table_names()}


def test_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    schema.migrate(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    schema.migrate(database)
    before = columns(database)
    schema.migrate(database)
    assert columns(database) == before


def test_all_the_way_down_and_up_again(database: Database) -> None:
    schema.migrate(database)
    before = columns(database)
    assert set(before) == {*metadata.tables, "alembic_version"}
    with database.write() as connection:
        schema.change_revision(connection, "base")
    assert set(columns(database)) == {"alembic_version"}
    schema.migrate(database)
    assert columns(database) == before


def test_a_database_of_the_first_release_is_read_as_it_was_written(database: Database, settings: Settings) -> None:
    fill(database)
    meta = BaselineMeta(BASELINE, "street", "3", 1, 1, {"name": "spring"})
    with Store.open(settings, write=True) as store:
        assert store.load_offset(Partition("c", "id-1", "segwatch.predictions", 0)) == 42
        parts = [(part.key, part.records, part.state) for part in store.read_panes("street", "3")]
        key = PaneKey("street", "3", "", 0, "b1")
        assert sorted(parts) == [(key, 2, b"\x02"), (key, 5, b"\x01")]
        assert store.read_tallies() == {TallyKey("records", "street", "3", "ok", 0): 7}
        (score,) = store.latest_scores()
        assert (score.end_us, score.alarm, score.payload) == (3_600_000_000, True, b"{}")
        assert store.early_readings() == []
        assert store.active_baselines() == {("street", "3"): ActiveBaseline(meta, 2)}
        assert store.baseline(BASELINE) == StoredBaseline(meta, b"bins")
        with store.claim_outbox(10) as claimed:
            message = OutboxMessage("m1", "segwatch.actions", None, b"{}", (("ce_id", b"m1"),), created_us=3)
            assert list(claimed) == [message]
        leader = store.try_lead()
        assert leader is not None
        assert leader.fold(b"".join, (3_600_000_000,)) == 2
        (window,) = leader.due(2**62)
        assert window.mark == 3


def test_an_upgrade_keeps_the_data(database: Database, later: Path) -> None:
    fill(database)
    schema.migrate(database, later)
    assert weather(database) == ["rain"]
    with database.write() as connection:
        schema.change_revision(connection, "0001", later)
    assert "weather" not in columns(database)["sample"]
    with database.read() as connection:
        assert connection.scalars(sqlalchemy.text("SELECT input_id FROM sample")).all() == ["cam7-1"]


def test_what_was_judged_before_there_was_retraining_is_no_new_label(database: Database, settings: Settings) -> None:
    with database.write() as connection:
        schema.change_revision(connection, "0003")
        for name, state in (("good", "judged"), ("bad", "bad")):
            connection.exec_driver_sql(
                "INSERT INTO judged (input_id, model, version, event_time_us, slices, label_time_us, judged_at_us,"
                f" revision, payload) VALUES ('{name}', 'street', '3', 1, '{{}}', 2, 7, 0, ' ')"
            )
            connection.exec_driver_sql(
                "INSERT INTO label (input_id, annotator, model, version, annotation_version, label_time_us, purpose,"
                ' state, cluster, topic, number, "offset", value, headers)'
                f" VALUES ('{name}', 'ann', '', '', 1, 2, 'spot_check', '{state}', 'c', 't', 0, 0, ' ', ' ')"
            )
    with Store.open(settings, write=True) as store:
        assert {row.input_id: row.first_judged_at_us for row in store.judged("street")} == {"good": 7, "bad": None}
        assert [store.actions.labels_ready("street", since_us) for since_us in (6, 7)] == [1, 0]


def test_an_upgrade_that_fails_half_way_leaves_all_as_it_was(database: Database, tmp_path: Path) -> None:
    fill(database)
    before = columns(database)
    with pytest.raises(RuntimeError, match="half-way"):
        schema.migrate(database, with_migration(tmp_path / "failing", FAILING))
    assert columns(database) == before
    schema.migrate(database)
    schema.check(database)


def test_a_database_of_a_newer_release_is_left_alone(database: Database, later: Path, settings: Settings) -> None:
    schema.migrate(database, later)
    for write in (True, False):
        with pytest.raises(StoreError, match=r"schema 9999 is newer than this release's .* upgrade segwatch"):
            Store.open(settings, write=write)
    assert "weather" in columns(database)["sample"]


def test_a_reader_does_not_migrate_but_says_who_will(database: Database, later: Path) -> None:
    schema.migrate(database)
    with pytest.raises(StoreError, match=r"this release needs 9999; start `segwatch run`"):
        schema.check(database, later)


def test_actions_of_an_age_are_found_by_their_index(tmp_path: Path) -> None:
    """SQLite takes a partial index only where its condition stands in the query word for word."""
    with open_store(settings_of(tmp_path)) as store:
        query = select(outbox).where(outbox.c.topic == "t", outbox.c.keep_sent, outbox.c.created_us >= 1)
        text = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
        with store._database.read() as connection:
            plan = " ".join(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "ix_outbox_kept" in plan, plan
