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
    # The embedding, small enough to keep for every record: see detectors/active_learning.py.
    Column("sketch", LargeBinary),
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
    # When a label that could be judged was there for the first time: it is new only once, however often it is judged.
    Column("first_judged_at_us", BigInteger),
    Index("ix_judged_event_time_us", "event_time_us"),
)

# By which classes (JSON) the labels of each version were judged last.
judged_classes = Table(
    "judged_classes",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("classes", Text, nullable=False),
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

# What is to be labelled: an item for each sample and cause. See monitor/store/relabel.py.
relabel = Table(
    "relabel",
    metadata,
    Column("input_id", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("cause", NAME, primary_key=True),
    Column("kind", NAME, nullable=False),
    Column("stream", NAME, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("probability", Double),
    Column("event_time_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("state", NAME, nullable=False),
    Column("claimed_by", NAME),
    Column("token", NAME),
    Column("lease_until_us", BigInteger),
    Column("closed_us", BigInteger),
    Column("closed_by", NAME),
    Index("ix_relabel_event_time_us", "event_time_us"),
    Index("ix_relabel_created_us", "created_us"),
    # What waits is little beside what was ever asked for.
    Index(
        "ix_relabel_waiting",
        "priority",
        "created_us",
        sqlite_where=text("state IN ('open', 'claimed')"),
        postgresql_where=text("state IN ('open', 'claimed')"),
    ),
)

# What was said of each watched canary last: see monitor/store/canary.py.
canary = Table(
    "canary",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("stable", NAME, primary_key=True),
    Column("canary", NAME, primary_key=True),
    Column("compared_at_us", BigInteger, nullable=False),
    Column("requested_at_us", BigInteger),
    Column("payload", LargeBinary, nullable=False),
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

# Who did what. Only ever added to.
audit = Table(
    "audit",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("who", NAME, nullable=False),
    Column("what", NAME, nullable=False),
    Column("subject", NAME, nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_audit_at_us", "at_us"),
)

# Inputs that were purged, by a keyed hash of their id: what comes of them again is neither counted nor stored.
purged = Table(
    "purged",
    metadata,
    Column("reference", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),  # "": of every model
    Column("purged_at_us", BigInteger, nullable=False),
)

# The key of those hashes: without it a list of likely ids would give the purged ones away.
store_key = Table(
    "store_key",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("value", LargeBinary, nullable=False),
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

# Who leads, as each that thinks so says itself: two at a time are a fault that the lock alone would not show.
leader_beat = Table(
    "leader_beat",
    metadata,
    Column("holder", NAME, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("beat_us", BigInteger, nullable=False),
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
    # Actions by their age: what is kept once it is sent is little beside the dead letters that pass through.
    Index(
        "ix_outbox_kept",
        "topic",
        "created_us",
        sqlite_where=text("keep_sent = 1"),
        postgresql_where=text("keep_sent"),
    ),
)

# Who actions are delivered to beside the outbox's own sink, and up to when all actions have a line in action_delivery.
action_receiver = Table(
    "action_receiver",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("spread_us", BigInteger, nullable=False),
    # When a process last ran that had it in its receivers' file, and one that had not.
    Column("seen_us", BigInteger, nullable=False),
    Column("missed_us", BigInteger, nullable=False),
)

# An action on its way to a receiver: see monitor/store/deliveries.py.
action_delivery = Table(
    "action_delivery",
    metadata,
    Column("id", NAME, primary_key=True),
    Column("receiver", NAME, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("state", NAME, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("next_us", BigInteger, nullable=False),
    Column("done_us", BigInteger),
    Column("told", Text, nullable=False),
    Column("error", Text, nullable=False),
    Index("ix_action_delivery_created_us", "created_us"),
    Index(
        "ix_action_delivery_waiting",
        "receiver",
        "next_us",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
)

# Jobs of an annotation tool whose annotations are to be fetched: see monitor/store/annotation_jobs.py.
annotation_job = Table(
    "annotation_job",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", NAME, nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("next_us", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
)

# The last request of each kind about a model; a rollback is about a version, which is "" otherwise.
requested = Table(
    "requested",
    metadata,
    Column("kind", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("version", NAME, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("id", NAME, nullable=False),
)

# Whether each model is to be trained anew: what was decided last.
retrain = Table(
    "retrain",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("decided_us", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
