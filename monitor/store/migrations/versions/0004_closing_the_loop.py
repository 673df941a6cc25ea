"""Closing the loop: what is to be labelled and why, images that are kept, actions, who did what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")

# What was asked for before there was a queue waits in it now, unless it has a label.
QUEUE_SPOT_CHECKS = """
INSERT INTO relabel (
    input_id, model, version, cause, kind, stream, priority, reason, probability, event_time_us, created_us, state
)
SELECT input_id, model, version, CASE stream WHEN 'training' THEN 'training' ELSE 'spot_check' END,
    CASE stream WHEN 'training' THEN 'training' ELSE 'spot_check' END, stream,
    CASE stream WHEN 'training' THEN 300 ELSE 800 END, reason, probability, event_time_us, chosen_at_us, 'open'
FROM spot_check
WHERE NOT EXISTS (SELECT 1 FROM label WHERE label.input_id = spot_check.input_id)
"""

# What was judged well before is not new any more.
JUDGED_BEFORE = """
UPDATE judged SET first_judged_at_us = judged_at_us
WHERE EXISTS (SELECT 1 FROM label WHERE label.input_id = judged.input_id AND label.state = 'judged')
"""


def upgrade() -> None:
    _create_privacy()
    _create_relabel()
    _create_canary()
    _create_judged_classes()
    _create_actions()
    _create_annotation_job()
    op.create_table(
        "leader_beat",
        sa.Column("holder", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("beat_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("holder", name="pk_leader_beat"),
    )


def downgrade() -> None:
    for table in ("retrain", "requested", "action_delivery", "action_receiver"):
        op.drop_table(table)
    op.drop_column("judged", "first_judged_at_us")
    op.drop_table("annotation_job")
    op.drop_index("ix_outbox_kept", "outbox")
    op.drop_table("judged_classes")
    op.drop_table("canary")
    for table in ("store_key", "purged", "audit"):
        op.drop_table(table)
    op.drop_table("relabel")
    op.drop_column("sample", "sketch")
    op.drop_table("leader_beat")


def _create_relabel() -> None:
    op.add_column("sample", sa.Column("sketch", sa.LargeBinary))
    names = ("input_id", "model", "version", "cause", "kind", "stream")
    op.create_table(
        "relabel",
        *(sa.Column(name, NAME, nullable=False) for name in names),
        sa.Column("priority", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("probability", sa.Double),
        sa.Column("event_time_us", sa.BigInteger, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("claimed_by", NAME),
        sa.Column("token", NAME),
        sa.Column("lease_until_us", sa.BigInteger),
        sa.Column("closed_us", sa.BigInteger),
        sa.Column("closed_by", NAME),
        sa.PrimaryKeyConstraint("input_id", "model", "version", "cause", name="pk_relabel"),
    )
    op.create_index("ix_relabel_event_time_us", "relabel", ["event_time_us"])
    op.create_index("ix_relabel_created_us", "relabel", ["created_us"])
    waiting = sa.text("state IN ('open', 'claimed')")
    columns = ["priority", "created_us"]
    op.create_index("ix_relabel_waiting", "relabel", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.execute(QUEUE_SPOT_CHECKS)


def _create_canary() -> None:
    op.create_table(
        "canary",
        *(sa.Column(name, NAME, nullable=False) for name in ("model", "stable", "canary")),
        sa.Column("compared_at_us", sa.BigInteger, nullable=False),
        sa.Column("requested_at_us", sa.BigInteger),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "stable", "canary", name="pk_canary"),
    )


def _create_judged_classes() -> None:
    op.create_table(
        "judged_classes",
        *(sa.Column(name, NAME, nullable=False) for name in ("model", "version")),
        sa.Column("classes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_judged_classes"),
    )


def _create_actions() -> None:
    op.add_column("judged", sa.Column("first_judged_at_us", sa.BigInteger))
    op.execute(JUDGED_BEFORE)
    op.create_index(
        "ix_outbox_kept",
        "outbox",
        ["topic", "created_us"],
        # In the words in which SQLite is asked: else no query finds the index.
        sqlite_where=sa.text("keep_sent = 1"),
        postgresql_where=sa.text("keep_sent"),
    )
    op.create_table(
        "action_receiver",
        sa.Column("name", NAME, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("spread_us", "seen_us", "missed_us")),
        sa.PrimaryKeyConstraint("name", name="pk_action_receiver"),
    )
    op.create_table(
        "action_delivery",
        *(sa.Column(name, NAME, nullable=False) for name in ("id", "receiver")),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("next_us", sa.BigInteger, nullable=False),
        sa.Column("done_us", sa.BigInteger),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("told", "error")),
        sa.PrimaryKeyConstraint("id", "receiver", name="pk_action_delivery"),
    )
    op.create_index("ix_action_delivery_created_us", "action_delivery", ["created_us"])
    waiting = sa.text("state = 'waiting'")
    columns = ["receiver", "next_us"]
    op.create_index(
        "ix_action_delivery_waiting", "action_delivery", columns, sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_table(
        "requested",
        *(sa.Column(name, NAME, nullable=False) for name in ("kind", "model", "version")),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.PrimaryKeyConstraint("kind", "model", "version", name="pk_requested"),
    )
    op.create_table(
        "retrain",
        sa.Column("model", NAME, nullable=False),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_retrain"),
    )


def _create_annotation_job() -> None:
    op.create_table(
        "annotation_job",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("state", NAME, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("asked_us", "attempts", "next_us")),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_annotation_job"),
    )


def _create_privacy() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        *(sa.Column(name, NAME, nullable=False) for name in ("who", "what", "subject")),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at_us", "audit", ["at_us"])
    op.create_table(
        "purged",
        *(sa.Column(name, NAME, nullable=False) for name in ("reference", "model")),
        sa.Column("purged_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("reference", "model", name="pk_purged"),
    )
    op.create_table(
        "store_key",
        sa.Column("name", NAME, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_store_key"),
    )
