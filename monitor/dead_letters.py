"""A record that could not be counted, as a message for the dead letters: its value untouched, its reason in headers."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import msgspec

from monitor.errors import BadRecord
from monitor.sources.protocol import RawRecord
from monitor.store.values import OutboxMessage

NAMESPACE = uuid.UUID("5e9c1f0a-6a2b-5c0e-9d55-7365677761aa")
"""Namespace of the project's own name-based ids (RFC 9562, version 5)."""


def dead_letter(raw: RawRecord, bad: BadRecord, topic: str, *, redacted: bool = False) -> OutboxMessage:
    """The message; the same record at the same offset always has the same id.

    ``redacted``: nothing of the record but its headers, its length, and the SHA-256 of its value, by which whoever has
    the original can tell which one it was.
    """
    partition = raw.partition
    place = f"{partition.cluster}/{partition.topic_id}/{partition.number}/{raw.offset}"
    own: tuple[tuple[str, bytes], ...] = (
        ("segwatch_reason", bad.reason.encode()),
        ("segwatch_detail", bad.detail[:1000].encode("utf-8", "replace")),
        ("segwatch_topic", partition.topic.encode()),
        ("segwatch_partition", str(partition.number).encode()),
        ("segwatch_offset", str(raw.offset).encode()),
    )
    key, value = raw.key, raw.value
    if redacted:
        # The key is an input's id or a sequence's name, and the detail may quote the record.
        key, value = None, _fingerprint(raw.value)
        own = tuple(pair for pair in own if pair[0] != "segwatch_detail")
    return OutboxMessage(
        id=str(uuid.uuid5(NAMESPACE, f"dead-letter:{place}")),
        topic=topic,
        key=key,
        value=value,
        headers=(*_others(raw.headers), *own),
        keep_sent=False,
    )


def _others(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [(name, value) for name, value in headers if not name.startswith("segwatch_")]


def _fingerprint(value: bytes | None) -> bytes:
    data = value or b""
    return msgspec.json.encode({"redacted": True, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})
