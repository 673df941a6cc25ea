"""Early detection: how far each sequential test has come, and its alarms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql")
OF = ("model", "version", "baseline_id")


def upgrade() -> None:
    op.create_table(
        "early_state",
        *(sa.Column(name, NAME, nullable=False) for name in OF),
        sa.Column("fed_until_us", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.Double, nullable=False),
        sa.Column("run_length", sa.Double, nullable=False),
        sa.Column("alarm", sa.Boolean, nullable=False),
        sa.Column("alarm_at_us", sa.BigInteger),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint(*OF, name="pk_early_state"),
    )
    op.create_table(
        "early_alarm",
        *(sa.Column(name, NAME, nullable=False) for name in OF),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint(*OF, "at_us", name="pk_early_alarm"),
    )


def downgrade() -> None:
    op.drop_table("early_alarm")
    op.drop_table("early_state")
