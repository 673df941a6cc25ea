"""Outbox messages to Kafka topics: idempotent producer, acknowledged by all replicas in sync."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

from kafka.errors import KafkaError

from monitor.kafka_client import KafkaUnreachable, close_producer, fits, open_admin, open_producer, reason, topic_limits
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
        self._default_limit = settings.max_message_bytes
        try:
            with open_admin(settings) as admin:
                self._limits = topic_limits(admin, [settings.actions_topic, settings.dead_letter_topic])
            self._producer: Any = open_producer(settings)
        except (KafkaUnreachable, KafkaError) as error:
            raise SinkError(str(error)) from None
        self._sent: list[tuple[str, Any]] = []

    def add(self, message: OutboxMessage) -> None:
        """Hand the message to the producer, which sends in the background."""
        key, value, headers = message.key, message.value, [*message.headers, (ID_HEADER, message.id.encode())]
        if value is not None and not fits(self._limits.get(message.topic, self._default_limit), key, value, headers):
            log.warning("topic %s: a value of %d bytes is too large: hash sent", message.topic, len(value))
            headers.append(("segwatch_value_bytes", str(len(value)).encode()))
            headers.append(("segwatch_value_sha256", hashlib.sha256(value).hexdigest().encode()))
            value = None
        if key is None and value is None:
            # The client refuses a message without key and value.
            key = message.id.encode()
        try:
            self._sent.append(
                (message.topic, self._producer.send(message.topic, key=key, value=value, headers=headers))
            )
        except KafkaError as error:
            raise SinkError(f"topic {message.topic}: {reason(error)}") from None

    def flush(self) -> None:
        """Wait for every acknowledgement."""
        sent, self._sent = self._sent, []
        for topic, future in sent:
            try:
                future.get(timeout=FLUSH_TIMEOUT_S)
            except KafkaError as error:
                raise SinkError(f"topic {topic}: {reason(error)}") from None

    def close(self) -> None:
        """Close the producer; what was not flushed has a second left."""
        self._sent.clear()
        close_producer(self._producer)
