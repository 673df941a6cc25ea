"""Quality from labels: masks kept with the sample index, labels, what they say of records, and what was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    op.add_column("sample", sa.Column("masks", sa.LargeBinary))
    op.create_table(
        "label",
        *(_name(name) for name in ("input_id", "annotator", "model", "version")),
        _number("annotation_version"),
        _number("label_time_us"),
        _name("purpose"),
        sa.Column("selection_probability", sa.Double),
        *(_name(name) for name in ("state", "cluster", "topic")),
        _number("number"),
        _number("offset"),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("input_id", "annotator", "model", "version", name="pk_label"),
    )
    op.create_index("ix_label_label_time_us", "label", ["label_time_us"])
    op.create_table(
        "label_due",
        sa.Column("id", SERIAL, nullable=False),
        _name("input_id"),
        sa.PrimaryKeyConstraint("id", name="pk_label_due"),
    )
    op.create_table(
        "judged",
        *(_name(name) for name in ("input_id", "model", "version")),
        _number("event_time_us"),
        sa.Column("sequence", NAME),
        sa.Column("slices", sa.Text, nullable=False),
        sa.Column("sampling_probability", sa.Double),
        *(_number(name) for name in ("label_time_us", "judged_at_us", "revision")),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("input_id", "model", "version", name="pk_judged"),
    )
    op.create_index("ix_judged_event_time_us", "judged", ["event_time_us"])
    op.create_table(
        "spot_check",
        *(_name(name) for name in ("input_id", "model", "version")),
        _number("event_time_us"),
        _name("stream"),
        sa.Column("probability", sa.Double, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        _number("chosen_at_us"),
        sa.PrimaryKeyConstraint("input_id", "model", "version", name="pk_spot_check"),
    )
    op.create_index("ix_spot_check_event_time_us", "spot_check", ["event_time_us"])
    op.create_table(
        "spot_check_progress",
        *(_name(name) for name in ("model", "version")),
        _number("until_us"),
        sa.PrimaryKeyConstraint("model", "version", name="pk_spot_check_progress"),
    )
    op.create_table(
        "quality",
        *(_name(name) for name in ("model", "version")),
        *(_number(name) for name in ("start_us", "end_us", "estimated_at_us")),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_quality"),
    )


def downgrade() -> None:
    for table in ("quality", "spot_check_progress", "spot_check", "judged", "label_due", "label"):
        op.drop_table(table)
    op.drop_column("sample", "masks")
