"""The in-memory twin of the sinks, for tests."""

from __future__ import annotations

from monitor.store.values import OutboxMessage


class MemorySink:
    """Implements ``monitor.sinks.protocol.Sink``: what was flushed is in ``delivered``."""

    def __init__(self) -> None:
        self.delivered: list[OutboxMessage] = []
        self._waiting: list[OutboxMessage] = []

    def add(self, message: OutboxMessage) -> None:
        """Keep the message until ``flush``."""
        self._waiting.append(message)

    def flush(self) -> None:
        """Deliver."""
        self.delivered += self._waiting
        self._waiting.clear()

    def close(self) -> None:
        """Forget what was not flushed."""
        self._waiting.clear()
