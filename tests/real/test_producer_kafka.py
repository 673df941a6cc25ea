"""The producer on a real Kafka: a dead broker costs the service nothing, and what waits arrives when it is back."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer

from monitor.producer import Producer, Sampler
from tests.real.component import free_ports
from tests.real.kafka_server import KafkaServer
from tests.test_producer import record

pytestmark = pytest.mark.slow


def read(kafka: KafkaServer, topic: str, count: int) -> list[Any]:
    consumer = KafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None)
    try:
        found: list[Any] = []
        until_s = time.monotonic() + 30
        while len(found) < count and time.monotonic() < until_s:
            for batch in consumer.poll(timeout_ms=500).values():
                found += batch
        return found
    finally:
        consumer.close()


def took(producer: Producer, numbers: range) -> list[float]:
    """How long each call took, in seconds."""
    times = []
    for i in numbers:
        one = record(i)
        began_s = time.perf_counter()
        producer.publish(one)
        times.append(time.perf_counter() - began_s)
    return times


def test_nothing_waits_for_a_dead_broker_and_nothing_is_lost_while_there_is_room() -> None:
    with KafkaServer.start() as kafka:
        topic = kafka.create_topic("predictions")
        with Producer(kafka.bootstrap, topic=topic, sampler=Sampler(1.0), queue_size=5000) as producer:
            before = took(producer, range(1000))
            assert producer.flush(30)
            kafka.kill()
            during = took(producer, range(1000, 2000))
            time.sleep(3)
            during += took(producer, range(2000, 3000))
            assert not producer.flush(1) and producer.queued >= 2000
            kafka.restart()
            assert producer.flush(90), producer.dropped_by_reason
            assert producer.dropped == 0 and producer.sent == 3000
            found = read(kafka, topic, 3000)
        with_us, without_us = (1e6 * np.percentile(times, 99) for times in (before, during))
        print(f"99 of 100 calls within {with_us:.0f} us with the broker, {without_us:.0f} us without")
        assert without_us < 1000
        assert {json.loads(message.value)["input_id"] for message in found} == {f"input-{i}" for i in range(3000)}
        assert dict(found[0].headers)["ce_type"] == b"segwatch.prediction.v1"


def test_one_that_is_too_large_for_the_topic_is_dropped_alone(kafka: KafkaServer) -> None:
    topic = kafka.create_topic("small", configs={"max.message.bytes": "20000"})
    large = {"media_type": "image/jpeg", "data": np.random.default_rng(1).bytes(30_000)}
    with Producer(kafka.bootstrap, topic=topic) as producer:
        for i in range(20):
            producer.publish(record(i, image=large) if i == 7 else record(i))
        assert producer.flush(60)
        assert producer.dropped_by_reason == {"refused": 1} and producer.sent == 19
    assert {json.loads(message.value)["input_id"] for message in read(kafka, topic, 19)} == {
        f"input-{i}" for i in range(20) if i != 7
    }


def test_a_service_starts_and_ends_without_any_broker() -> None:
    (port,) = free_ports(1)
    began_s = time.monotonic()
    producer = Producer(f"127.0.0.1:{port}")
    assert producer.publish(record())
    time.sleep(0.5)
    assert not producer.close(2.0)
    assert time.monotonic() - began_s < 6
    assert producer.dropped_by_reason == {"closed": 1}
