"""The topics: make them, put records on them, and check that a record of the largest size gets through.

A record passes four limits on its way: the producer's, the topic's (``max.message.bytes``, which applies to a batch
after compression), the replicas' and the consumer's. They are set in different places, and a record that meets the
tightest of them is simply not there; so ``create_topics`` sets them, ``check_kafka`` compares them, and ``publish``
names every record that does not fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    CoordinatorNotAvailableError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from monitor.cloudevents import binary_headers
from monitor.errors import InputError
from monitor.kafka_client import (
    RECORD_OVERHEAD_BYTES,
    TOPIC_LIMIT,
    KafkaUnreachable,
    close_producer,
    fits,
    missing_packages,
    open_admin,
    open_producer,
    topic_limits,
    unreachable,
)
from monitor.settings import KafkaSettings, Settings
from monitor.sources.files import FileSource
from monitor.sources.protocol import RawRecord

TOPIC_OF_TYPE: Final = {
    "segwatch.prediction.v1": "predictions_topic",
    "segwatch.label.v1": "labels_topic",
}
SOURCE: Final = "/segwatch/publish"

# Records on their way at a time. The client itself takes any number, and a file may be larger than the memory.
OUTSTANDING_BYTES: Final = 32 * 1024 * 1024
READ_RECORDS: Final = 256

Say = Callable[[str], None]


def topic_configs(kafka: KafkaSettings) -> dict[str, dict[str, str]]:
    """Every topic of segwatch with its settings on the broker.

    A value of ``kafka.max_message_bytes`` fits with its key and headers, and a dead letter with its own ones as well.
    """
    compression = "producer" if kafka.compression == "none" else kafka.compression
    room = kafka.max_message_bytes // 1000 + RECORD_OVERHEAD_BYTES
    more = {kafka.dead_letter_topic: RECORD_OVERHEAD_BYTES}
    return {
        topic: {
            TOPIC_LIMIT: str(kafka.max_message_bytes + room + more.get(topic, 0)),
            "compression.type": compression,
        }
        for topic in (kafka.predictions_topic, kafka.labels_topic, kafka.actions_topic, kafka.dead_letter_topic)
    }


def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; one line for each, with a warning where one differs from the settings.

    Raises KafkaUnreachable, and InputError where the broker refuses a topic.
    """
    kafka = settings.kafka
    wanted = topic_configs(kafka)
    lines = []
    with open_admin(kafka) as admin:
        try:
            there = _partitions(admin, list(wanted))
            missing = [topic for topic in wanted if topic not in there]
            created = _create(admin, kafka, {topic: wanted[topic] for topic in missing}) if missing else set()
            # The broker says yes before it answers for the topic.
            admin.wait_for_topics(sorted(created))
            there = _partitions(admin, list(wanted)) if len(created) < len(missing) else there
            limits = topic_limits(admin, [topic for topic in wanted if topic not in created])
        except KafkaError as error:
            raise unreachable(kafka, error) from None
    for topic, configs in wanted.items():
        if topic in created:
            lines.append(f"{topic}: created with {kafka.partitions} partitions, {TOPIC_LIMIT} {configs[TOPIC_LIMIT]}")
            continue
        lines.append(f"{topic}: is there already, {there.get(topic)} partitions, {TOPIC_LIMIT} {limits.get(topic)}")
        if there.get(topic) != kafka.partitions:
            lines.append(f"warning: {topic}: has {there.get(topic)} partitions, kafka.partitions is {kafka.partitions}")
        limit, asked = limits.get(topic, 0), int(configs[TOPIC_LIMIT])
        if limit < asked:
            lines.append(f"warning: {topic}: {TOPIC_LIMIT} is {limit}, kafka.max_message_bytes asks for {asked}")
    return lines


def _create(admin: Any, kafka: KafkaSettings, wanted: Mapping[str, Mapping[str, str]]) -> set[str]:
    answer = admin.create_topics(
        {
            topic: {
                "num_partitions": kafka.partitions,
                "replication_factor": kafka.replication_factor,
                "configs": dict(configs),
            }
            for topic, configs in wanted.items()
        },
        raise_errors=False,
        wait_for_metadata=False,
    )
    created = set()
    for topic in answer["topics"]:
        error = for_code(topic["error_code"])
        if topic["error_code"] == 0:
            created.add(topic["name"])
        elif error is not TopicAlreadyExistsError:
            raise InputError(f"topic {topic['name']}: {topic['error_message'] or error.__name__}")
    return created


def _partitions(admin: Any, topics: Sequence[str]) -> dict[str, int]:
    """Number of partitions of each topic that is there."""
    return {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics(list(topics))
        if topic["error_code"] == 0
    }


# -- publishing --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Published:
    """What ``publish`` did. ``refused`` lines were named: broken, of an unknown type, or too large."""

    published: int = 0
    refused: int = 0
    bytes: int = 0


class _Head(msgspec.Struct):
    """As much of a record as its key and headers need; anything else in it is the reader's business."""

    type: str
    input_id: str
    sequence: Any = None
    event_time: Any = None
    label_time: Any = None


_head = msgspec.json.Decoder(_Head)


def publish(
    settings: Settings,
    files: Sequence[str | Path],
    topic: str | None = None,
    say: Say = lambda _line: None,
    progress: Callable[[float | None, Published], None] = lambda _fraction, _done: None,
) -> Published:
    """Put the records of JSON Lines files on Kafka, each on the topic of its type unless ``topic`` is given.

    Returns when every record was acknowledged by all replicas in sync. ``say`` is told ``file:line: reason`` of each
    line that is not published; the rest goes on. ``progress`` is told the fraction read and the counts so far.

    Raises InputError (a file, a topic that is not there) and KafkaUnreachable.
    """
    kafka = settings.kafka
    source = FileSource(files, kafka.max_message_bytes)
    limits = _limits_of(kafka, [topic] if topic else [kafka.predictions_topic, kafka.labels_topic])
    producer = open_producer(kafka)
    try:
        return _Publishing(kafka, topic, limits, say, producer).run(source, progress)
    finally:
        source.close()
        close_producer(producer)


def _limits_of(kafka: KafkaSettings, topics: Sequence[str]) -> dict[str, int]:
    """The topics' size limits. Raises InputError for one that is not there."""
    with open_admin(kafka) as admin:
        try:
            there = _partitions(admin, topics)
            limits = topic_limits(admin, list(there))
        except KafkaError as error:
            raise unreachable(kafka, error) from None
    for topic in topics:
        if topic not in there:
            raise InputError(f"topic {topic} is not there: segwatch topics create makes segwatch's own")
    return limits


class _Publishing:
    """One run of ``publish``: what is on its way, and what became of the rest."""

    def __init__(
        self, kafka: KafkaSettings, topic: str | None, limits: Mapping[str, int], say: Say, producer: Any
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._limits = limits
        self._say = say
        self._producer = producer
        self._on_its_way: deque[tuple[int, Any]] = deque()
        self._outstanding = 0
        self._done = Published()

    def run(self, source: FileSource, progress: Callable[[float | None, Published], None]) -> Published:
        while not source.exhausted:
            for record in source.poll(0.0, READ_RECORDS).records:
                self._send(record)
            self._settle(OUTSTANDING_BYTES)
            progress(source.fraction, self._done)
        self._settle(0)
        progress(source.fraction, self._done)
        return self._done

    def _send(self, record: RawRecord) -> None:
        value = record.value
        if value is None:
            self._refuse(record, f"is larger than kafka.max_message_bytes ({self._kafka.max_message_bytes:,} bytes)")
            return
        try:
            head = _head.decode(value)
        except (ValueError, RecursionError) as error:
            self._refuse(record, f"not a record: {error}")
            return
        topic = self._topic or getattr(self._kafka, TOPIC_OF_TYPE.get(head.type, ""), None)
        if topic is None:
            self._refuse(record, f"type {head.type[:80]!r} has no topic of its own (--topic T sends it anyway)")
            return
        time = head.event_time or head.label_time
        if not isinstance(time, str):
            time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        headers = binary_headers(id=head.input_id, type=head.type, source=SOURCE, time=time)
        key = head.sequence if isinstance(head.sequence, str) and head.sequence else head.input_id
        limit = self._limits[topic]
        if not fits(limit, key.encode(), value, headers):
            self._refuse(record, f"{len(value):,} bytes with key and headers are more than {TOPIC_LIMIT} {limit:,}")
            return
        try:
            future = self._producer.send(topic, key=key.encode(), value=value, headers=list(headers))
        except KafkaError as error:
            raise self._broken_off(error) from None
        else:
            self._on_its_way.append((len(value), future))
            self._outstanding += len(value)

    def _settle(self, most_bytes: int) -> None:
        """Wait until at most so many bytes are on their way."""
        while self._on_its_way and (self._outstanding > most_bytes or self._on_its_way[0][1].is_done):
            size, future = self._on_its_way.popleft()
            self._outstanding -= size
            try:
                future.get()
            except KafkaError as error:
                raise self._broken_off(error) from None
            else:
                self._done.published += 1
                self._done.bytes += size

    def _refuse(self, record: RawRecord, why: str) -> None:
        self._done.refused += 1
        self._say(f"{record.partition.topic}:{record.offset}: {why}")

    def _broken_off(self, error: KafkaError) -> KafkaUnreachable:
        return KafkaUnreachable(f"{unreachable(self._kafka, error)}; {self._done.published} records were published")


# -- checking ----------------------------------------------------------------------------------------------------


class KafkaCheck(NamedTuple):
    """One line of ``segwatch doctor``."""

    name: str
    ok: bool
    text: str


def check_kafka(kafka: KafkaSettings) -> Iterator[KafkaCheck]:
    """Everything about Kafka that can be wrong before the first record is read."""
    missing = missing_packages()
    yield KafkaCheck(
        "packages", not missing, f"missing: {', '.join(missing)}" if missing else "crc32c, lz4 and zstandard are there"
    )
    try:
        with open_admin(kafka) as admin:
            cluster = admin.describe_cluster()
            brokers = [broker["broker_id"] for broker in cluster["brokers"]]
            yield KafkaCheck("cluster", True, f"{len(brokers)} brokers, id {cluster['cluster_id']}")
            yield from _check_topics(admin, kafka)
            yield from _check_brokers(admin, kafka, brokers)
            yield _check_group(admin, kafka)
    except KafkaUnreachable as error:
        yield KafkaCheck("cluster", False, str(error))
    except KafkaError as error:
        yield KafkaCheck("cluster", False, str(unreachable(kafka, error)))


def _check_topics(admin: Any, kafka: KafkaSettings) -> Iterator[KafkaCheck]:
    wanted = topic_configs(kafka)
    there = _partitions(admin, list(wanted))
    limits = topic_limits(admin, list(there))
    for topic in wanted:
        if topic not in there:
            yield KafkaCheck(f"topic {topic}", False, "is not there: segwatch topics create")
            continue
        limit = limits.get(topic, 0)
        enough = limit >= kafka.max_message_bytes
        text = f"{there[topic]} partitions, {TOPIC_LIMIT} {limit:,}"
        if not enough:
            text += f" is below kafka.max_message_bytes {kafka.max_message_bytes:,}: larger records are refused there"
        yield KafkaCheck(f"topic {topic}", enough, text)


def _check_brokers(admin: Any, kafka: KafkaSettings, brokers: Sequence[int]) -> Iterator[KafkaCheck]:
    """Limits that no topic's setting overrides. (Replicas fetch a batch of any size since Kafka 0.10.1.)"""
    request, low, high = "socket.request.max.bytes", "group.min.session.timeout.ms", "group.max.session.timeout.ms"
    keys = {request: "", low: "", high: ""}
    asked = [ConfigResource(ConfigResourceType.BROKER, str(broker), keys) for broker in brokers]
    found = admin.describe_configs(asked, config_filter="all").get("broker", {})
    values = [{key: int(config["value"]) for key, config in configs.items()} for configs in found.values()]
    if not values:
        return
    session_ms = kafka.session_timeout_seconds * 1000
    least, most = max(each[low] for each in values), min(each[high] for each in values)
    allowed = f"brokers allow {least / 1000:g} to {most / 1000:g}"
    yield KafkaCheck(
        "session", least <= session_ms <= most, f"kafka.session_timeout_seconds {session_ms / 1000:g}, {allowed}"
    )
    largest = min(each[request] for each in values)
    yield KafkaCheck(
        "requests",
        largest >= kafka.max_message_bytes + RECORD_OVERHEAD_BYTES,
        f"{request} {largest:,}, kafka.max_message_bytes {kafka.max_message_bytes:,}",
    )


def _check_group(admin: Any, kafka: KafkaSettings) -> KafkaCheck:
    """A group whose members share partitions out in another way lets no segwatch worker in."""
    name = f"group {kafka.group_id}"
    try:
        group = admin.describe_groups([kafka.group_id]).get(kafka.group_id, {})
    except CoordinatorNotAvailableError:
        return KafkaCheck(name, True, "has no members; the cluster has never had a group")
    members = len(group.get("members", ()))
    protocol = group.get("protocol_data", "")
    if members and protocol not in ("", "cooperative-sticky"):
        return KafkaCheck(
            name, False, f"{members} members share partitions out by {protocol!r}: choose another group_id"
        )
    return KafkaCheck(name, True, f"{members} members" if members else "has no members")
