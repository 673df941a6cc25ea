"""The first release's tables.

A migration is never edited once it is released: it spells its columns out rather than importing ``tables``, which
goes on changing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")

WINDOW = ("model", "version", "slice", "length_us", "start_us", "baseline_id")


def upgrade() -> None:
    op.create_table(
        "source_offset",
        sa.Column("cluster", NAME, nullable=False),
        sa.Column("topic_id", NAME, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("topic", NAME, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("end_offset", sa.BigInteger, nullable=False),
        sa.Column("max_event_time_us", sa.BigInteger),
        sa.Column("caught_up_at_us", sa.BigInteger),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("retired", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("cluster", "topic_id", "number", name="pk_source_offset"),
    )
    op.create_table(
        "sample",
        sa.Column("input_id", NAME, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("event_time_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger),
        sa.Column("sequence", NAME),
        sa.Column("slices", sa.Text, nullable=False),
        sa.Column("status", NAME, nullable=False),
        sa.Column("sampling_probability", sa.Double),
        sa.Column("confidence", sa.Double),
        sa.Column("topic", NAME, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("input_id", "model", "version", name="pk_sample"),
    )
    op.create_index("ix_sample_event_time_us", "sample", ["event_time_us"], postgresql_using="brin")
    op.create_table(
        "pane_delta",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("slice", NAME, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("baseline_id", NAME, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pane_delta"),
    )
    op.create_table(
        "pane",
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("slice", NAME, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("baseline_id", NAME, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "slice", "start_us", "baseline_id", name="pk_pane"),
    )
    op.create_index("ix_pane_start_us", "pane", ["start_us"])
    op.create_table(
        "tally_delta",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally_delta"),
    )
    op.create_table(
        "tally",
        sa.Column("series", NAME, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("label", NAME, nullable=False),
        sa.Column("bucket", sa.BigInteger, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("series", "model", "version", "label", "bucket", name="pk_tally"),
    )
    op.create_table(
        "window_due",
        *_window_columns(),
        sa.Column("mark", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(*WINDOW, name="pk_window_due"),
    )
    op.create_table(
        "window_score",
        *_window_columns(),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("alarm", sa.Boolean),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("scored_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(*WINDOW, "revision", name="pk_window_score"),
    )
    op.create_index("ix_window_score_start_us", "window_score", ["start_us"])
    op.create_table(
        "baseline",
        sa.Column("id", NAME, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("format_version", sa.BigInteger, nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baseline"),
    )
    op.create_table(
        "baseline_active",
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("baseline_id", NAME, nullable=False),
        sa.Column("activated_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_baseline_active"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", NAME, nullable=False),
        sa.Column("topic", NAME, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("keep_sent", sa.Boolean, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("sent_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["attempts", "created_us", "id"],
        sqlite_where=sa.text("sent_us IS NULL"),
        postgresql_where=sa.text("sent_us IS NULL"),
    )


def downgrade() -> None:
    for table in (
        "outbox",
        "baseline_active",
        "baseline",
        "window_score",
        "window_due",
        "tally",
        "tally_delta",
        "pane",
        "pane_delta",
        "sample",
        "source_offset",
    ):
        op.drop_table(table)


def _window_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("model", NAME, nullable=False),
        sa.Column("version", NAME, nullable=False),
        sa.Column("slice", NAME, nullable=False),
        sa.Column("length_us", sa.BigInteger, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("baseline_id", NAME, nullable=False),
    ]
