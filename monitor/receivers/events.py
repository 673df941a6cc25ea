"""Actions as receivers get them: CloudEvents, cut to what a receiver can take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from monitor.receivers.protocol import Event
from monitor.store.values import OutboxMessage

CE_PREFIX = "ce_"
TAKES = {
    "segwatch.relabel_requested.v1": "relabel",
    "segwatch.retrain_requested.v1": "retrain",
    "segwatch.rollback_requested.v1": "rollback",
    "segwatch.promote_requested.v1": "promote",
    "segwatch.alert.v1": "alert",
}
"""Type of an action -> how the receivers' file calls it."""


def cloud_event(message: OutboxMessage) -> dict[str, Any]:
    """A CloudEvent in the JSON format (CloudEvents 1.0, "JSON Event Format"), from its binary form in the outbox."""
    attributes = {
        name.removeprefix(CE_PREFIX): value.decode("utf-8", "replace")
        for name, value in message.headers
        if name.startswith(CE_PREFIX)
    }
    return {
        "specversion": "1.0",
        **attributes,
        "id": message.id,
        "datacontenttype": "application/json",
        "data": json.loads(message.value or b"{}"),
    }


def cut(event: Event, most_bytes: int) -> dict[str, Any]:
    """The same event in at most so many bytes of JSON: samples go first, the last ones before the others, and then the
    rest of the evidence. What is missing is said, and the link leads to all of it.

    >>> event = {"id": "1", "data": {"samples": [{"input_id": str(n)} for n in range(100)], "link": "/"}}
    >>> small = cut(event, 400)["data"]
    >>> len(small["samples"]), small["samples_omitted"]
    (12, 88)
    """
    left: dict[str, Any] = json.loads(msgspec.json.encode(event))
    while len(msgspec.json.encode(left)) > most_bytes:
        holders = [holder for holder in _holders(left) if holder["samples"]]
        if not holders:
            break
        for holder in holders:
            kept = len(holder["samples"]) // 2
            holder["samples_omitted"] = holder.get("samples_omitted", 0) + len(holder["samples"]) - kept
            del holder["samples"][kept:]
    data = left.get("data")
    if isinstance(data, dict) and len(msgspec.json.encode(left)) > most_bytes:
        brief = ("type", "id", "time", "kind", "model", "version", "stable", "link")
        left["data"] = {name: data[name] for name in brief if name in data} | {"evidence_omitted": True}
    return left


def _holders(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, Mapping):
        if isinstance(tree, dict) and isinstance(tree.get("samples"), list):
            yield tree
        for one in tree.values():
            yield from _holders(one)
    elif isinstance(tree, list):
        for one in tree:
            yield from _holders(one)
