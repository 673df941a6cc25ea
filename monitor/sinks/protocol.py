"""What every sink of outbox messages offers."""

from __future__ import annotations

from typing import Protocol

from monitor.errors import SegwatchError
from monitor.store.values import OutboxMessage


class SinkError(SegwatchError):
    """Messages could not be delivered: those added since the last ``flush`` are to be added again."""


class Sink(Protocol):
    """Takes messages and delivers them. Used by one thread only.

    Delivery is at least once: the same message may be added again after a crash, with the same id.
    """

    def add(self, message: OutboxMessage) -> None:
        """Take a message; it may wait in memory until ``flush``. Raises SinkError."""

    def flush(self) -> None:
        """Return when everything that was added is safe at the receiver. Raises SinkError."""

    def close(self) -> None:
        """Let go of connections and files; what was not flushed may be lost."""
