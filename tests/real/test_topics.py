"""Topics, publishing, checks and the Kafka sink, on a real broker."""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from monitor import kafka_client
from monitor.errors import InputError
from monitor.kafka_client import KafkaUnreachable
from monitor.settings import KafkaSettings, Settings
from monitor.sinks.kafka import KafkaSink
from monitor.sinks.protocol import SinkError
from monitor.sources.kafka import KafkaSource
from monitor.store.values import OutboxMessage
from monitor.topics import Published, check_kafka, create_topics, publish
from tests.real.component import free_ports
from tests.real.kafka_server import KafkaServer

LIMIT = 200_000


@pytest.fixture
def settings(kafka: KafkaServer) -> Settings:
    """Topics of the test's own."""
    own = uuid.uuid4().hex[:8]
    names: dict[str, Any] = {
        f"{name}_topic": f"{own}.{name}" for name in ("predictions", "labels", "actions", "dead_letter")
    }
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=kafka.bootstrap,
            group_id=f"g-{own}",
            partitions=2,
            max_message_bytes=LIMIT,
            compression="none",  # a topic's limit is on what comes compressed
            **names,
        )
    )


def changed(settings: Settings, **values: Any) -> Settings:
    return msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, **values))


def read(kafka: KafkaServer, topic: str, partitions: int = 2) -> list[Any]:
    """Everything in a topic, by a client of the test's own."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, max_partition_fetch_bytes=LIMIT * 4)
    where = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(where)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(where)
    found: list[Any] = []
    while sum(ends.values()) > len(found):
        for records in consumer.poll(timeout_ms=500).values():
            found += records
    consumer.close()
    return found


def prediction(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "segwatch.prediction.v1",
        "input_id": f"cam-{number}",
        "event_time": "2026-11-23T02:45:33.120Z",
        **fields,
    }


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def test_topics_are_created_with_their_limits_and_then_reported_as_there(settings: Settings) -> None:
    kafka = settings.kafka
    created = create_topics(settings)
    asked = LIMIT + 200 + 64 * 1024
    assert created[0] == f"{kafka.predictions_topic}: created with 2 partitions, max.message.bytes {asked}"
    assert len(created) == 4
    again = create_topics(settings)
    assert len(again) == 4 and all("is there already, 2 partitions" in line for line in again)
    differing = create_topics(changed(settings, partitions=3, max_message_bytes=LIMIT + 1))
    warnings = [line for line in differing if line.startswith("warning: ")]
    assert f"warning: {kafka.labels_topic}: has 2 partitions, kafka.partitions is 3" in warnings
    assert f"max.message.bytes is {asked}, kafka.max_message_bytes asks for {asked + 1}" in warnings[1]


def test_a_topic_that_the_broker_refuses_is_an_input_error(settings: Settings) -> None:
    with pytest.raises(InputError, match=f"^topic {settings.kafka.predictions_topic}: .*replication"):
        create_topics(changed(settings, replication_factor=3))


def test_records_are_published_by_type_with_key_and_cloud_event_headers(
    kafka: KafkaServer, settings: Settings, tmp_path: Path
) -> None:
    create_topics(settings)
    label = {"type": "segwatch.label.v1", "input_id": "cam-1", "label_time": "2026-11-24T00:00:00Z"}
    plain = write(tmp_path / "a.jsonl", [prediction(1), prediction(2, sequence="night"), b"", label])
    zipped = tmp_path / "b.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps(prediction(3)).encode()))
    seen: list[tuple[float | None, int]] = []
    done = publish(settings, [plain, zipped], progress=lambda part, so_far: seen.append((part, so_far.published)))
    assert (done.published, done.refused) == (4, 0) and seen[-1] == (1.0, 4)
    predictions = {record.value: record for record in read(kafka, settings.kafka.predictions_topic)}
    assert {json.loads(value)["input_id"] for value in predictions} == {"cam-1", "cam-2", "cam-3"}
    second = predictions[json.dumps(prediction(2, sequence="night")).encode()]
    assert second.key == b"night"
    assert dict(second.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"cam-2",
        "ce_type": b"segwatch.prediction.v1",
        "ce_source": b"/segwatch/publish",
        "ce_time": b"2026-11-23T02:45:33.120Z",
        "content-type": b"application/json",
    }
    (labelled,) = read(kafka, settings.kafka.labels_topic)
    assert labelled.key == b"cam-1" and dict(labelled.headers)["ce_time"] == b"2026-11-24T00:00:00Z"


def test_lines_that_cannot_be_published_are_named_and_the_rest_goes_on(
    kafka: KafkaServer, settings: Settings, tmp_path: Path
) -> None:
    create_topics(settings)
    path = write(
        tmp_path / "a.jsonl",
        [
            prediction(1),
            b"{broken",
            {"type": "segwatch.prediction.v1"},
            {"type": "other", "input_id": "x"},
            prediction(2, pad="x" * LIMIT),
            prediction(3, pad="x" * (LIMIT - 150)),
            prediction(4),
        ],
    )
    said: list[str] = []
    done = publish(settings, [path], say=said.append)
    assert (done.published, done.refused) == (3, 4)
    assert {json.loads(record.value)["input_id"] for record in read(kafka, settings.kafka.predictions_topic)} == {
        "cam-1",
        "cam-3",
        "cam-4",
    }
    by_line = dict(sorted((line.removeprefix(f"{path}:").split(": ", 1)) for line in said))
    assert sorted(by_line) == ["2", "3", "4", "5"]
    assert by_line["2"].startswith("not a record: ") and "input_id" in by_line["3"]
    assert "'other' has no topic" in by_line["4"]
    assert by_line["5"] == "is larger than kafka.max_message_bytes (200,000 bytes)"


def test_a_record_that_a_topic_of_somebody_elses_does_not_take_is_named_before_it_is_sent(
    kafka: KafkaServer, settings: Settings, tmp_path: Path
) -> None:
    topic = kafka.fresh_topic(partitions=2, configs={"max.message.bytes": "50000"})
    path = write(
        tmp_path / "a.jsonl", [prediction(i, pad="x" * (60_000 if i % 10 == 3 else 48_000)) for i in range(50)]
    )
    said: list[str] = []
    done = publish(settings, [path], topic, said.append)
    assert (done.published, done.refused) == (45, 5) and len(read(kafka, topic)) == 45
    assert said[0].startswith(f"{path}:4: 60,") and said[0].endswith("more than max.message.bytes 50,000")


def test_a_given_topic_takes_records_of_any_type(kafka: KafkaServer, settings: Settings, tmp_path: Path) -> None:
    topic = kafka.fresh_topic(partitions=2)
    path = write(tmp_path / "a.jsonl", [{"type": "other", "input_id": "x"}, prediction(1)])
    assert publish(settings, [path], topic).published == 2
    assert len(read(kafka, topic)) == 2


def test_a_topic_that_is_not_there_is_named(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [prediction(1)])
    with pytest.raises(InputError, match=f"^topic {settings.kafka.predictions_topic} is not there"):
        publish(settings, [path])
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        publish(settings, [tmp_path / "none.jsonl"])


def test_without_a_broker_publishing_and_checking_say_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_client, "CONNECT_TIMEOUT_S", 1.0)
    (port,) = free_ports(1)
    nowhere = changed(settings, bootstrap_servers=f"127.0.0.1:{port}")
    path = write(tmp_path / "a.jsonl", [prediction(1)])
    with pytest.raises(KafkaUnreachable, match=rf"Kafka at 127\.0\.0\.1:{port} .*no broker answers"):
        publish(nowhere, [path])
    with pytest.raises(SinkError, match="no broker answers"):
        KafkaSink(nowhere.kafka)
    checks = {check.name: check for check in check_kafka(nowhere.kafka)}
    assert checks["packages"].ok and not checks["cluster"].ok


def test_the_checks_say_what_is_missing_and_then_that_all_is_well(settings: Settings) -> None:
    before = {check.name: check for check in check_kafka(settings.kafka)}
    topic = settings.kafka.predictions_topic
    assert not before[f"topic {topic}"].ok and "segwatch topics create" in before[f"topic {topic}"].text
    create_topics(settings)
    after = list(check_kafka(settings.kafka))
    assert all(check.ok for check in after), after
    assert [check.name for check in after][-1] == f"group {settings.kafka.group_id}"


def test_the_checks_compare_every_limit(settings: Settings) -> None:
    create_topics(settings)
    large = changed(settings, max_message_bytes=200_000_000, session_timeout_seconds=86_400.0)
    failed = {check.name: check.text for check in check_kafka(large.kafka) if not check.ok}
    assert "is below kafka.max_message_bytes 200,000,000" in failed[f"topic {settings.kafka.predictions_topic}"]
    assert failed["requests"].startswith("socket.request.max.bytes 104,857,600")
    assert failed["session"].startswith("kafka.session_timeout_seconds 86400, brokers allow 1 to 1800")


def test_a_group_of_other_consumers_is_noticed_and_refuses_to_work(kafka: KafkaServer, settings: Settings) -> None:
    create_topics(settings)
    topic = settings.kafka.predictions_topic
    stranger = KafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=settings.kafka.group_id)
    deadline = time.monotonic() + 30
    while not stranger.assignment():
        assert time.monotonic() < deadline
        stranger.poll(timeout_ms=5000)
    found = {check.name: check for check in check_kafka(settings.kafka)}[f"group {settings.kafka.group_id}"]
    assert not found.ok and "'range'" in found.text
    source = KafkaSource(settings.kafka, [topic], lambda _: None, lambda _: None)
    with pytest.raises(InputError, match=r"^kafka\.group_id: .*cooperative-sticky"):
        for _ in range(100):
            source.poll(0.2, 10)
    source.close()
    stranger.close()


def test_the_sink_delivers_messages_with_their_id_and_headers(kafka: KafkaServer, settings: Settings) -> None:
    create_topics(settings)
    before = set(threading.enumerate())
    sink = KafkaSink(settings.kafka)
    messages = [
        OutboxMessage(f"id-{i}", settings.kafka.actions_topic, b"k", str(i).encode(), (("ce_id", b"x"),))
        for i in range(50)
    ]
    for message in messages:
        sink.add(message)
    sink.flush()
    sink.close()
    assert set(threading.enumerate()) <= before
    found = {record.value: dict(record.headers) for record in read(kafka, settings.kafka.actions_topic)}
    assert found == {message.value: {"ce_id": b"x", "segwatch_id": message.id.encode()} for message in messages}


def test_a_dead_letter_that_does_not_fit_is_delivered_as_its_hash(kafka: KafkaServer, settings: Settings) -> None:
    create_topics(settings)
    topic = settings.kafka.dead_letter_topic
    sink = KafkaSink(settings.kafka)
    sink.add(OutboxMessage("largest", topic, b"k", b"x" * LIMIT, (("segwatch_reason", b"too_large"),)))
    sink.add(OutboxMessage("client", topic, None, b"x" * (LIMIT * 3)))
    sink.add(OutboxMessage("tombstone", topic, None, None))
    sink.flush()
    smaller = KafkaSink(changed(settings, max_message_bytes=LIMIT * 4).kafka)
    smaller.add(OutboxMessage("broker", topic, b"k", b"x" * (LIMIT * 3)))
    smaller.flush()
    for each in (sink, smaller):
        each.close()
    found = {dict(record.headers)["segwatch_id"]: record for record in read(kafka, topic)}
    assert len(found[b"largest"].value) == LIMIT
    assert found[b"tombstone"].value is None
    for id in (b"client", b"broker"):
        headers = dict(found[id].headers)
        assert found[id].value is None and headers["segwatch_value_bytes"] == str(LIMIT * 3).encode()
        assert len(headers["segwatch_value_sha256"]) == 64


def test_a_sink_whose_topic_is_missing_raises(settings: Settings) -> None:
    sink = KafkaSink(settings.kafka)
    with pytest.raises(SinkError, match=f"^topic {settings.kafka.actions_topic}: "):
        sink.add(OutboxMessage("1", settings.kafka.actions_topic, b"k", b"v"))
        sink.flush()
    sink.close()


def test_more_than_the_client_may_hold_is_published_in_order_of_the_keys(
    kafka: KafkaServer, settings: Settings, tmp_path: Path
) -> None:
    create_topics(settings)
    path = write(tmp_path / "a.jsonl", [prediction(i, sequence="one", pad="x" * 20_000) for i in range(3000)])
    done: Published = publish(settings, [path])
    assert done.published == 3000 and done.bytes > 32 * 1024 * 1024
    found = [json.loads(record.value)["input_id"] for record in read(kafka, settings.kafka.predictions_topic)]
    assert found == [f"cam-{i}" for i in range(3000)]
