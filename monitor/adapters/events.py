"""One line of a file to one event: a structured CloudEvent, or a Kafka message as ``kcat -J`` writes it.

Sources: CloudEvents 1.0.2, "JSON Event Format" and "Kafka Protocol Binding" (headers ``ce_...``); kcat, ``json.c``
(``headers`` is a list of names and values in turn, or with ``-X`` options a map to lists; ``payload`` is text).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from monitor.adapters.protocol import EntryError
from monitor.errors import InputError
from monitor.windows import parse_time


@dataclass(frozen=True, slots=True)
class Event:
    """``attributes``: of the CloudEvent, lower case, without prefix; ``headers``: others, lower case."""

    attributes: dict[str, Any]
    headers: dict[str, str]
    key: str | None
    body: bytes
    content_type: str
    time_us: int | None


def read_object(line: bytes) -> dict[str, Any]:
    """A JSON object. Raises EntryError."""
    try:
        tree = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise EntryError(f"not JSON: {ascii(str(error))[1:-1][:200]}") from None
    if not isinstance(tree, dict):
        raise EntryError("not a JSON object")
    return tree


def read_event(line: bytes) -> Event:
    """The event that a line holds. Raises EntryError."""
    tree = read_object(line)
    if "specversion" in tree:
        return _structured(tree)
    if "payload" in tree:
        return _kafka(tree)
    raise EntryError("neither a CloudEvent (specversion) nor a Kafka message as kcat -J writes it (payload)")


def from_headers(headers: dict[str, str], body: bytes, key: str | None, time_us: int | None) -> Event:
    """An event in binary mode; header names in lower case, CloudEvents' with ``ce_`` (Kafka) or ``ce-`` (HTTP)."""
    attributes: dict[str, Any] = {}
    others: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(("ce_", "ce-")):
            attributes[name[3:]] = value
        else:
            others[name] = value
    content_type = others.get("content-type", "")
    if content_type.lower().startswith("application/cloudevents"):
        return _structured(read_object(body))
    return _finished(attributes, others, key, body, content_type, time_us)


def _structured(tree: dict[str, Any]) -> Event:
    data, encoded = tree.pop("data", None), tree.pop("data_base64", None)
    attributes = {name.lower(): value for name, value in tree.items()}
    if encoded is not None:
        try:
            body = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise EntryError("data_base64: not base64") from None
    else:
        body = b"" if data is None else data.encode() if isinstance(data, str) else msgspec.json.encode(data)
    return _finished(attributes, {}, None, body, str(attributes.get("datacontenttype", "")), None)


def _kafka(tree: dict[str, Any]) -> Event:
    payload, key, ts = tree["payload"], tree.get("key"), tree.get("ts")
    if payload is not None and not isinstance(payload, str):
        raise EntryError("payload: not a text")
    headers = _headers(tree.get("headers") or [])
    time_us = ts * 1000 if isinstance(ts, int) and ts > 0 else None
    return from_headers(headers, (payload or "").encode(), key if isinstance(key, str) else None, time_us)


def _headers(headers: Any) -> dict[str, str]:
    if isinstance(headers, list) and len(headers) % 2 == 0:
        pairs = list(zip(headers[::2], headers[1::2], strict=True))
    elif isinstance(headers, dict):
        pairs = [(name, value[0] if isinstance(value, list) and value else value) for name, value in headers.items()]
    else:
        raise EntryError("headers: neither a list of names and values nor a map")
    return {str(name).lower(): value for name, value in pairs if isinstance(value, str)}


def _finished(
    attributes: dict[str, Any], headers: dict[str, str], key: str | None, body: bytes, content: str, time_us: int | None
) -> Event:
    if "time" in attributes:
        try:
            time_us = parse_time(str(attributes["time"]))
        except InputError as error:
            raise EntryError(f"time: {error}") from None
    metadata = attributes.get("metadata")
    if isinstance(metadata, str):  # KServe: the request's headers as JSON, each with a list of values
        try:
            attributes["metadata"] = _metadata(msgspec.json.decode(metadata))
        except (ValueError, RecursionError):
            raise EntryError("metadata: not JSON") from None
    return Event(attributes, headers, key, body, content, time_us)


def _metadata(tree: Any) -> dict[str, str]:
    if not isinstance(tree, dict):
        return {}
    return {name.lower(): value[0] if isinstance(value, list) and value else value for name, value in tree.items()}
