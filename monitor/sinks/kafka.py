"""Outbox messages to Kafka topics: idempotent producer, acknowledged by all replicas in sync."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

from kafka.errors import KafkaError, MessageSizeTooLargeError

from monitor.kafka_client import KafkaUnreachable, open_producer, reason
from monitor.settings import KafkaSettings
from monitor.sinks.protocol import SinkError
from monitor.store.values import OutboxMessage

log = logging.getLogger(__name__)

FLUSH_TIMEOUT_S: Final = 60.0
ID_HEADER: Final = "segwatch_id"


class KafkaSink:
    """Implements ``monitor.sinks.protocol.Sink``. Every message carries its stable id in the header ``segwatch_id``.

    A value that its topic does not take is replaced by its size and SHA-256 in headers: a dead letter that can never be
    delivered would hold up everything behind it in the outbox.

    Raises SinkError where no broker answers at the start.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        try:
            self._producer: Any = open_producer(settings)
        except KafkaUnreachable as error:
            raise SinkError(str(error)) from None
        self._sent: list[tuple[OutboxMessage, Any]] = []

    def add(self, message: OutboxMessage) -> None:
        """Hand the message to the producer, which sends in the background."""
        self._sent.append((message, self._send(message, message.value)))

    def flush(self) -> None:
        """Wait for every acknowledgement."""
        sent, self._sent = self._sent, []
        again = []
        for message, future in sent:
            try:
                future.get(timeout=FLUSH_TIMEOUT_S)
            except MessageSizeTooLargeError:
                again.append((message, self._send(message, None)))
            except KafkaError as error:
                raise SinkError(f"topic {message.topic}: {reason(error)}") from None
        for message, future in again:
            try:
                future.get(timeout=FLUSH_TIMEOUT_S)
            except KafkaError as error:
                raise SinkError(f"topic {message.topic}: {reason(error)}") from None

    def close(self) -> None:
        """Close the producer without waiting for what was not flushed."""
        self._sent.clear()
        self._producer.close(timeout=0)

    def _send(self, message: OutboxMessage, value: bytes | None) -> Any:
        headers = [*message.headers, (ID_HEADER, message.id.encode())]
        if value is None and message.value is not None:
            log.warning(
                "topic %s: a value of %d bytes does not fit; its hash is sent", message.topic, len(message.value)
            )
            headers.append(("segwatch_value_bytes", str(len(message.value)).encode()))
            headers.append(("segwatch_value_sha256", hashlib.sha256(message.value).hexdigest().encode()))
        key = message.key
        if key is None and value is None:
            # The client refuses a message without key and value.
            key = message.id.encode()
        try:
            return self._producer.send(message.topic, key=key, value=value, headers=headers)
        except MessageSizeTooLargeError:
            if value is None:
                raise SinkError(f"topic {message.topic}: headers and key alone are too large") from None
            return self._send(message, None)
        except KafkaError as error:
            raise SinkError(f"topic {message.topic}: {reason(error)}") from None
