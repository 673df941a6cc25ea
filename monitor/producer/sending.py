"""A record on its way: how it is encoded, and what takes it there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

SOURCE = "/segwatch/producer"


class Refused(Exception):
    """Raised by what sends: this record can never be delivered, and is dropped. Any other error means: later."""


class Message(NamedTuple):
    """A record as it travels; headers are those of a CloudEvent in binary mode."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class Delivery(NamedTuple):
    """What became of a batch: ``sent`` arrived, ``refused`` never will, ``left`` are to be tried again."""

    sent: int
    refused: int
    left: Sequence[Message]
    why: str | None = None


class Sender(Protocol):
    """Where messages go. Used by one thread, but for ``close`` and ``forget``."""

    def deliver(self, batch: Sequence[Message]) -> Delivery:
        """Send and wait until it is known what arrived."""

    def close(self, timeout_s: float) -> None:
        """Let go of connections; ``deliver`` in another thread comes back soon."""

    def forget(self) -> None:
        """After a fork, in the child: connections are the parent's."""


class CallSender:
    """Sends by calling a function, one message after the other."""

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send

    def deliver(self, batch: Sequence[Message]) -> Delivery:
        """Implements Sender."""
        sent = refused = 0
        for i, message in enumerate(batch):
            try:
                self._send(message)
                sent += 1
            except Refused:
                refused += 1
            except Exception as error:
                return Delivery(sent, refused, batch[i:], f"{type(error).__name__}: {error}")
        return Delivery(sent, refused, ())

    def close(self, timeout_s: float) -> None:
        """Implements Sender."""

    def forget(self) -> None:
        """Implements Sender."""


def encode(record: Mapping[str, Any]) -> Message:
    """JSON; bytes become base64, arrays lists, times RFC 3339. Raises TypeError, ValueError, KeyError."""
    value = json.dumps(record, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    input_id, model, time = str(record["input_id"]), record["model"], record["event_time"]
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{model['name']}/{model['version']}/{input_id}",
        "ce_type": str(record["type"]),
        "ce_source": SOURCE,
        "ce_time": _plain(time) if isinstance(time, datetime) else str(time),
        "content-type": "application/json",
    }
    key = str(record.get("sequence") or input_id).encode()
    return Message(key, value, [(name, text.encode()) for name, text in headers.items()])


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.isoformat()
    if hasattr(value, "tolist"):  # arrays and scalars of numpy, without loading it
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent")
