"""A record that could not be counted, as a message for the dead letters: its value untouched, its reason in headers."""

from __future__ import annotations

import uuid

from monitor.errors import BadRecord
from monitor.sources.protocol import RawRecord
from monitor.store.values import OutboxMessage

NAMESPACE = uuid.UUID("5e9c1f0a-6a2b-5c0e-9d55-7365677761aa")
"""Namespace of the project's own name-based ids (RFC 9562, version 5)."""


def dead_letter(raw: RawRecord, bad: BadRecord, topic: str) -> OutboxMessage:
    """The message; the same record at the same offset always has the same id."""
    partition = raw.partition
    place = f"{partition.cluster}/{partition.topic_id}/{partition.number}/{raw.offset}"
    own = (
        ("segwatch_reason", bad.reason.encode()),
        ("segwatch_detail", bad.detail[:1000].encode("utf-8", "replace")),
        ("segwatch_topic", partition.topic.encode()),
        ("segwatch_partition", str(partition.number).encode()),
        ("segwatch_offset", str(raw.offset).encode()),
    )
    return OutboxMessage(
        id=str(uuid.uuid5(NAMESPACE, f"dead-letter:{place}")),
        topic=topic,
        key=raw.key,
        value=raw.value,
        headers=(*((name, value) for name, value in raw.headers if not name.startswith("segwatch_")), *own),
        keep_sent=False,
    )
