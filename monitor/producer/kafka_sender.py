"""Messages to a Kafka topic, by kafka-python, which is loaded when the first one is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from monitor.producer.sending import Delivery, Message

ROUND_S: Final = 30.0
"""How long a batch may take before it is tried again."""

OPTIONS: Final[dict[str, Any]] = {
    "client_id": "segwatch-producer",
    "acks": "all",
    # An idempotent producer gives itself up at its first fatal error; segwatch counts a repeat as a duplicate anyway.
    "enable_idempotence": False,
    "linger_ms": 5,
    "max_block_ms": 5_000,
    "request_timeout_ms": 10_000,
    "delivery_timeout_ms": 20_000,
    "bootstrap_timeout_ms": 5_000,
    "reconnect_backoff_max_ms": 5_000,
    "metrics_enabled": False,
}

_inherited: list[Any] = []
"""Clients of a parent process: collecting them here could talk on its connections."""


class KafkaSender:
    """Implements ``Sender``. ``options``: further options of ``kafka.KafkaProducer`` (security, compression).

    ``max_record_bytes``: what is larger is refused before it is sent; segwatch's own ``kafka.max_message_bytes``.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, max_record_bytes: int, options: Mapping[str, Any] | None = None
    ) -> None:
        self._topic = topic
        self._limit = max_record_bytes
        servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
        # The client's own limit would refuse what fits, for it adds headers.
        own = {"bootstrap_servers": servers, "max_request_size": 2 * max_record_bytes + 1_000_000}
        self._options = {**OPTIONS, **own, **(options or {})}
        self._producer: Any = None
        self._closed = threading.Event()

    def deliver(self, batch: Sequence[Message]) -> Delivery:
        """Implements ``Sender``: returns when every message is acknowledged, or it has taken long enough."""
        from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

        try:
            producer = self._open()
        except Exception as error:
            return Delivery(0, 0, batch, f"{type(error).__name__}: {error}")
        waiting: list[tuple[Message, Any]] = []
        left: list[Message] = []
        sent = refused = 0
        why = None
        for i, message in enumerate(batch):
            if len(message.value) > self._limit:
                refused += 1
                continue
            try:
                future = producer.send(
                    self._topic, key=message.key, value=message.value, headers=list(message.headers)
                )
            except MessageSizeTooLargeError:
                refused += 1
            except Exception as error:  # no metadata, no room: the next ones would only wait as long
                left, why = [*batch[i:]], f"{type(error).__name__}: {error}"
                break
            else:
                waiting.append((message, future))
        until_s = time.monotonic() + ROUND_S
        for message, future in waiting:
            try:
                future.get(timeout=max(0.0, until_s - time.monotonic()))
                sent += 1
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                refused += 1
            except Exception as error:
                left.append(message)
                why = f"{type(error).__name__}: {error}"
        return Delivery(sent, refused, left, why)

    def _open(self) -> Any:
        if self._closed.is_set():
            raise RuntimeError("closed")
        if self._producer is None:
            import kafka
            from kafka.net.compat import KafkaNetClient

            made: list[Any] = []

            def client(**configs: Any) -> Any:
                made.append(KafkaNetClient(**configs))
                return made[-1]

            try:
                self._producer = kafka.KafkaProducer(kafka_client=client, **self._options)
            except Exception:
                # The library leaves the thread of a failed start at work: it would gather one a try.
                for each in made:
                    each.close()
                raise
            # At exit it would close before the queue is empty, and in a forked child close its parent's connections.
            with suppress(AttributeError):
                self._producer._unregister_cleanup()
            if self._closed.is_set():  # meanwhile
                self.close(0.0)
                raise RuntimeError("closed")
        return self._producer

    def close(self, timeout_s: float) -> None:
        """Implements ``Sender``."""
        self._closed.set()
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=max(0.0, timeout_s))
        except Exception:
            with suppress(Exception):
                producer._sender.force_close()

    def forget(self) -> None:
        """Implements ``Sender``."""
        if self._producer is not None:
            _inherited.append(self._producer)
            self._producer = None
