"""The tables as they are now. How a database gets here from an older release is in ``migrations/``.

All numbers are BIGINT, all times microseconds. Text is collated by bytes ("C") in PostgreSQL: comparing is then
memcmp instead of the locale's rules, and the database sorts identities just as Python does, which is what keeps
concurrent inserts free of deadlocks (see ``samples``).

Two tables come in pairs, ``pane_delta``/``pane`` and ``tally_delta``/``tally``. Ingest only ever appends to the first,
so that workers never wait for each other on a hot row; the leader folds it into the second.
"""

from __future__ import annotations

from sqlalchemy import (
    TEXT,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

NAME = Text().with_variant(TEXT(collation="C"), "postgresql")
SERIAL = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER keys

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"})

source_offset = Table(
    "source_offset",
    metadata,
    Column("cluster", NAME, primary_key=True),
    Column("topic_id", NAME, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("topic", NAME, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("end_offset", BigInteger, nullable=False),
    Column("max_event_time_us", BigInteger),
    Column("caught_up_at_us", BigInteger),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("retired", Boolean, nullable=False),
)

# input_id stands first: it tells rows apart at the first comparison, and labels look inputs up by it alone.
sample = Table(
    "sample",
    metadata,
    Column("input_id", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("event_time_us", BigInteger, nullable=False),
    Column("received_us", BigInteger),
    Column("sequence", NAME),
    Column("slices", Text, nullable=False),
    Column("status", NAME, nullable=False),
    Column("sampling_probability", Double),
    Column("confidence", Double),
    Column("topic", NAME, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    # What labels are judged against: see monitor/kept_masks.py. Null once they are older than quality.keep_days.
    Column("masks", LargeBinary),
    # For retention and for windows. Records come nearly in order of time, so block ranges do in PostgreSQL,
    # at a hundredth of the cost of a tree for every insert.
    Index("ix_sample_event_time_us", "event_time_us", postgresql_using="brin"),
)

# One row for each annotator's newest annotation. model and version are "" for a label of every version.
label = Table(
    "label",
    metadata,
    Column("input_id", NAME, primary_key=True),
    Column("annotator", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("annotation_version", BigInteger, nullable=False),
    Column("label_time_us", BigInteger, nullable=False),
    Column("purpose", NAME, nullable=False),
    Column("selection_probability", Double),
    Column("state", NAME, nullable=False),
    Column("cluster", NAME, nullable=False),
    Column("topic", NAME, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Index("ix_label_label_time_us", "label_time_us"),
)

# Inputs whose labels have changed since they were judged last.
label_due = Table(
    "label_due",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("input_id", NAME, nullable=False),
)

judged = Table(
    "judged",
    metadata,
    Column("input_id", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("event_time_us", BigInteger, nullable=False),
    Column("sequence", NAME),
    Column("slices", Text, nullable=False),
    Column("sampling_probability", Double),
    Column("label_time_us", BigInteger, nullable=False),
    Column("judged_at_us", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("ix_judged_event_time_us", "event_time_us"),
)

# What was asked to be labelled, with the probability of its choice.
spot_check = Table(
    "spot_check",
    metadata,
    Column("input_id", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("event_time_us", BigInteger, nullable=False),
    Column("stream", NAME, nullable=False),
    Column("probability", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("chosen_at_us", BigInteger, nullable=False),
    Index("ix_spot_check_event_time_us", "event_time_us"),
)

# Up to which event time records of each version have been looked at for spot checks.
spot_check_progress = Table(
    "spot_check_progress",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("until_us", BigInteger, nullable=False),
)

# How good each version is now: what was estimated last.
quality = Table(
    "quality",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("estimated_at_us", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

pane_delta = Table(
    "pane_delta",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("model", NAME, nullable=False),
    Column("version", NAME, nullable=False),
    Column("slice", NAME, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("baseline_id", NAME, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

pane = Table(
    "pane",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("slice", NAME, primary_key=True),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("baseline_id", NAME, primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Index("ix_pane_start_us", "start_us"),
)

tally_delta = Table(
    "tally_delta", metadata, Column("id", SERIAL, primary_key=True), Column("entries", LargeBinary, nullable=False)
)

tally = Table(
    "tally",
    metadata,
    Column("series", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("label", NAME, primary_key=True),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

window_due = Table(
    "window_due",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("slice", NAME, primary_key=True),
    Column("length_us", BigInteger, primary_key=True, autoincrement=False),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("baseline_id", NAME, primary_key=True),
    Column("mark", BigInteger, nullable=False),
)

window_score = Table(
    "window_score",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("slice", NAME, primary_key=True),
    Column("length_us", BigInteger, primary_key=True, autoincrement=False),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("baseline_id", NAME, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("records", BigInteger, nullable=False),
    Column("alarm", Boolean),
    Column("payload", LargeBinary, nullable=False),
    Column("scored_at_us", BigInteger, nullable=False),
    Index("ix_window_score_start_us", "start_us"),
)

early_state = Table(
    "early_state",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("baseline_id", NAME, primary_key=True),
    Column("fed_until_us", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("evidence", Double, nullable=False),
    Column("run_length", Double, nullable=False),
    Column("alarm", Boolean, nullable=False),
    Column("alarm_at_us", BigInteger),
    Column("state", LargeBinary, nullable=False),
)

early_alarm = Table(
    "early_alarm",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("baseline_id", NAME, primary_key=True),
    Column("at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("payload", LargeBinary, nullable=False),
)

baseline = Table(
    "baseline",
    metadata,
    Column("id", NAME, primary_key=True),
    Column("model", NAME, nullable=False),
    Column("version", NAME, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("format_version", BigInteger, nullable=False),
    Column("meta", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

baseline_active = Table(
    "baseline_active",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("baseline_id", NAME, nullable=False),
    Column("activated_us", BigInteger, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", NAME, primary_key=True),
    Column("topic", NAME, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", LargeBinary, nullable=False),
    Column("keep_sent", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("sent_us", BigInteger),
    Index(
        "ix_outbox_pending",
        "attempts",
        "created_us",
        "id",
        sqlite_where=text("sent_us IS NULL"),
        postgresql_where=text("sent_us IS NULL"),
    ),
)
