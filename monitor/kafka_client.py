"""From the settings to kafka-python: one place that knows its options, its habits and its errors.

kafka-python reports every failed attempt on every connection through its own loggers, and only there says why a
connection failed. segwatch says once that an outage began, with that reason, and once that it ended (``Outage``); so
the library's messages are kept back, unless the log level is ``debug``.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kafka
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
)
from kafka.net.compat import KafkaNetClient

from monitor.errors import SegwatchError, SettingsError
from monitor.settings import KafkaSettings

SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
CONNECT_TIMEOUT_S = 10.0

# A recreated topic and new partitions are noticed within this time; one small request for the topics in use.
METADATA_MAX_AGE_MS: Final = 5_000

# 20 kB records: a batch of 256 kB takes a dozen, where kafka-python's 16 kB would send every record alone.
PRODUCER_BATCH_BYTES: Final = 256 * 1024
PRODUCER_LINGER_MS: Final = 20

# Room for a record's key and headers beside its value, in the limits of topics and of the producer.
RECORD_OVERHEAD_BYTES: Final = 64 * 1024
TOPIC_LIMIT: Final = "max.message.bytes"

MIN_FETCH_BYTES: Final = 1024 * 1024


class _LastFailure(logging.Handler):
    """Keeps the library's messages back, and remembers why a connection failed last."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"(?:failed|lost): (.+?)(?: \(backoff .*)?$", record.getMessage())
        # A refused password or certificate is followed by complaints about the connection that closed for it.
        if found and not ("uthentication" in self.text and "uthentication" not in found.group(1)):
            self.text = " ".join(found.group(1).split())[:200]


_last_failure = _LastFailure()


def _keep_back_messages() -> None:
    library = logging.getLogger("kafka")
    if logging.getLogger().getEffectiveLevel() <= logging.DEBUG:
        library.propagate = True
        return
    library.propagate = False
    library.setLevel(logging.WARNING)
    if _last_failure not in library.handlers:
        library.addHandler(_last_failure)


class KafkaUnreachable(SegwatchError):
    """No broker answers, or it turns the connection away; the message says which setting leads there."""


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """Options that consumers, producers and admin clients share.

    Raises SettingsError that names the setting: no servers, SASL without a mechanism or user, a file that is not there.
    """
    if not settings.bootstrap_servers.strip():
        raise SettingsError("kafka.bootstrap_servers is empty: name at least one host:port")
    _keep_back_messages()
    config: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",") if server.strip()],
        "client_id": "segwatch",
        "security_protocol": settings.security_protocol,
        "reconnect_backoff_max_ms": 5_000,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    if settings.security_protocol.startswith("SASL"):
        config |= _sasl(settings)
    if settings.security_protocol.endswith("SSL"):
        config |= _ssl(settings)
    return config


def _sasl(settings: KafkaSettings) -> dict[str, Any]:
    if settings.sasl_mechanism not in SASL_MECHANISMS:
        raise SettingsError(
            f"kafka.sasl_mechanism: {settings.sasl_mechanism!r} is none of {', '.join(SASL_MECHANISMS)}"
            f" (kafka.security_protocol is {settings.security_protocol})"
        )
    for name in ("sasl_username", "sasl_password"):
        if not getattr(settings, name):
            raise SettingsError(f"kafka.{name} is empty, and kafka.security_protocol is {settings.security_protocol}")
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password,
    }


def _ssl(settings: KafkaSettings) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, name)
        if path:
            if not Path(path).is_file():
                raise SettingsError(f"kafka.{name}: {path}: no such file")
            config[name] = path
    if settings.ssl_password:
        config["ssl_password"] = settings.ssl_password
    return config


def consumer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Options of the group's consumers: offsets live in the store, so Kafka neither commits nor resets any."""
    config = connection_config(settings)
    # A partition's share of a fetch must hold the largest record; the whole response is bounded at a few of them.
    partition_bytes = max(MIN_FETCH_BYTES, settings.max_message_bytes)
    session_ms = round(settings.session_timeout_seconds * 1000)
    config |= {
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id or None,
        "partition_assignment_strategy": (CooperativeStickyAssignor,),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "session_timeout_ms": session_ms,
        # A third of the session, as Kafka recommends, and 3 s as its default at most.
        "heartbeat_interval_ms": min(3000, session_ms // 3),
        "max_partition_fetch_bytes": partition_bytes,
        "fetch_max_bytes": 2 * max(partition_bytes, 8 * MIN_FETCH_BYTES),
        # segwatch exports its own metrics, from the store.
        "metrics_enabled": False,
    }
    return config


def producer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Options of producers: idempotent, acknowledged by all replicas in sync, compressed as the settings say."""
    return connection_config(settings) | {
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": None if settings.compression == "none" else settings.compression,
        "batch_size": min(PRODUCER_BATCH_BYTES, settings.max_message_bytes),
        "linger_ms": PRODUCER_LINGER_MS,
        # ``fits`` is asked before a record is sent; the client's own limit is out of its way.
        "max_request_size": 2**31 - 1,
        "max_block_ms": 10_000,
        "delivery_timeout_ms": 60_000,
        "bootstrap_timeout_ms": round(CONNECT_TIMEOUT_S * 1000),
        "metrics_enabled": False,
    }


class Connecting:
    """Makes kafka-python's network client, and closes it when the consumer or producer around it fails to start.

    The library leaves the input/output thread of a failed start running; a service that waits for its broker would
    gather one a try. Topics are never created by asking for them, whatever the broker allows.
    """

    def __init__(self) -> None:
        self._made: list[Any] = []

    def __call__(self, **configs: Any) -> Any:
        client = KafkaNetClient(**configs)
        client.cluster.config["allow_auto_create_topics"] = False
        self._made.append(client)
        return client

    @property
    def cluster(self) -> Any:
        """Metadata of the cluster: ids of cluster and topics, partitions."""
        return self._made[-1].cluster

    def abandon(self) -> None:
        """Close what a failed start left behind."""
        for client in self._made:
            client.close()
        self._made.clear()


def open_producer(settings: KafkaSettings) -> Any:
    """A ``KafkaProducer``; raises KafkaUnreachable where no broker answers within some seconds."""
    config = producer_config(settings)
    connecting = Connecting()
    try:
        return kafka.KafkaProducer(kafka_client=connecting, **config)
    except KafkaError as error:
        connecting.abandon()
        raise unreachable(settings, error) from None


def close_producer(producer: Any, timeout_s: float = 1.0) -> None:
    """Close a producer, with a second for what is on its way; the rest is given up.

    With a broker away, the client's own ``close`` waits for the rest first, raises, and leaves its thread at work.
    """
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        producer._sender.force_close()


@contextmanager
def open_admin(settings: KafkaSettings, timeout_s: float | None = None) -> Iterator[Any]:
    """A ``KafkaAdminClient``, closed at the end; raises KafkaUnreachable where no broker answers in time."""
    config = connection_config(settings)
    connecting = Connecting()
    try:
        admin = kafka.KafkaAdminClient(
            kafka_client=connecting, bootstrap_timeout_ms=round((timeout_s or CONNECT_TIMEOUT_S) * 1000), **config
        )
    except KafkaError as error:
        connecting.abandon()
        raise unreachable(settings, error) from None
    try:
        yield admin
    finally:
        admin.close()


def topic_limits(admin: Any, topics: Sequence[str]) -> dict[str, int]:
    """``max.message.bytes`` of each topic that is there."""
    if not topics:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {TOPIC_LIMIT: ""}) for topic in topics]
    found = admin.describe_configs(asked, config_filter="all").get("topic", {})
    return {topic: int(configs[TOPIC_LIMIT]["value"]) for topic, configs in found.items() if TOPIC_LIMIT in configs}


def fits(limit: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether a record surely passes a topic's limit, however badly it compresses.

    It must be known before it is sent: when the broker refuses a record for its size, kafka-python's idempotent
    producer gives itself up, and with it every other record on its way.
    """
    value_bytes = len(value or b"")
    around = 100 + len(key or b"") + sum(len(name) * 4 + len(content) + 10 for name, content in headers)
    # What cannot be compressed grows by less than a thousandth (gzip: 5 bytes in 16 kB).
    return value_bytes + around + value_bytes // 1000 <= limit


def unreachable(settings: KafkaSettings, error: KafkaError) -> KafkaUnreachable:
    """What to tell a person about a connection that failed."""
    return KafkaUnreachable(
        f"Kafka at {settings.bootstrap_servers} (kafka.bootstrap_servers, {settings.security_protocol}):"
        f" {reason(error)}"
    )


def raise_if_hopeless(error: KafkaError, settings: KafkaSettings) -> None:
    """Raise SettingsError for what only a change of the settings can end; everything else may be waited out."""
    if isinstance(error, FencedInstanceIdError):
        raise SettingsError(
            f"kafka.group_instance_id: another worker of group {settings.group_id!r} has the same one,"
            f" {settings.group_instance_id!r}"
        ) from None
    if isinstance(error, InconsistentGroupProtocolError):
        raise SettingsError(
            f"kafka.group_id: the members of group {settings.group_id!r} share partitions out in another way than"
            " segwatch (cooperative-sticky): give segwatch a group of its own"
        ) from None
    if isinstance(error, InvalidSessionTimeoutError):
        raise SettingsError(
            f"kafka.session_timeout_seconds: the broker does not allow {settings.session_timeout_seconds:g}"
            " (group.min.session.timeout.ms, group.max.session.timeout.ms)"
        ) from None


def reason(error: BaseException) -> str:
    """An error as one line; kafka-python's repeat their own name or say nothing at all."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    if name == "KafkaTimeoutError" and "bootstrap" in text:
        return f"no broker answers ({_last_failure.text})" if _last_failure.text else "no broker answers"
    return text if name in text or text.startswith("[Error") else f"{name}: {text}" if text else name


def missing_packages() -> list[str]:
    """Packages that kafka-python does without, badly: checksums in pure Python, records that cannot be unpacked."""
    return [name for name in ("crc32c", "lz4", "zstandard") if importlib.util.find_spec(name) is None]


class Outage:
    """One log line when something is away and one when it is back, however often it was tried in between."""

    def __init__(self, log: logging.Logger, what: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._what = what
        self._clock_s = clock_s
        self._since_s: float | None = None

    def begin(self, why: str) -> None:
        """Something failed; only the first time since it last worked is logged."""
        if self._since_s is None:
            self._since_s = self._clock_s()
            self._log.warning("%s: %s; trying again until it answers", self._what, why)

    def end(self) -> None:
        """It worked."""
        _last_failure.text = ""
        if self._since_s is not None:
            self._log.info("%s: answers again after %.1f s", self._what, self._clock_s() - self._since_s)
            self._since_s = None
