"""Kafka as a source, on a real broker: every record once, through rebalances, crashes, retention and restarts."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition

from monitor.errors import SettingsError
from monitor.settings import KafkaSettings
from monitor.sinks.kafka import KafkaSink
from monitor.sources.kafka import KafkaSource
from monitor.sources.protocol import Gap, Partition, RawRecord
from monitor.store.values import OutboxMessage
from tests.real.component import free_ports
from tests.real.kafka_server import KafkaServer

DEADLINE_S = 30.0


class Reader:
    """A worker in small: a source, and a store (shared by all workers of a test) that is committed with every poll."""

    def __init__(self, settings: KafkaSettings, topic: str, store: dict[Partition, int] | None = None) -> None:
        self.store: dict[Partition, int] = {} if store is None else store
        self.records: list[RawRecord] = []
        self.gaps: list[Gap] = []
        self.revoked: list[Partition] = []
        self.source = KafkaSource(settings, [topic], self.store.get, self.revoked.extend)

    def poll(self, timeout_s: float = 0.1, max_records: int = 500) -> None:
        polled = self.source.poll(timeout_s, max_records)
        self.gaps += polled.gaps
        self.records += polled.records
        for gap in polled.gaps:
            self.store[gap.partition] = gap.stop
        for record in polled.records:
            self.store[record.partition] = record.offset + 1

    def until(self, done: Callable[[], bool]) -> None:
        until(done, self)

    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]

    def at_end(self) -> bool:
        progress = self.source.progress()
        return bool(progress) and all(each.caught_up_at_us is not None for each in progress)


def until(done: Callable[[], bool], *readers: Reader) -> None:
    """Poll all readers, each in a thread of its own as in a service, until ``done``."""
    stop = threading.Event()

    def keep_polling(reader: Reader) -> None:
        while not stop.is_set():
            reader.poll()

    with ThreadPoolExecutor(len(readers)) as pool:
        polling = [pool.submit(keep_polling, reader) for reader in readers]
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not done():
                assert time.monotonic() < deadline, "did not come about"
                for each in polling:
                    if each.done():
                        each.result()
                time.sleep(0.02)
        finally:
            stop.set()
    for each in polling:
        each.result()


def spend(seconds: float, *readers: Reader) -> None:
    """Poll for a while."""
    deadline = time.monotonic() + seconds
    until(lambda: time.monotonic() > deadline, *readers)


def settings_for(kafka: KafkaServer, **changes: Any) -> KafkaSettings:
    base = KafkaSettings(
        bootstrap_servers=kafka.bootstrap, group_id=f"g-{uuid.uuid4().hex[:12]}", session_timeout_seconds=3.0
    )
    return msgspec.structs.replace(base, **changes)


@contextmanager
def reading(settings: KafkaSettings, topic: str, store: dict[Partition, int] | None = None) -> Iterator[Reader]:
    reader = Reader(settings, topic, store)
    try:
        yield reader
    finally:
        reader.source.close()


def send(kafka: KafkaServer, topic: str, values: Sequence[bytes], **options: Any) -> None:
    """Publish values; ``partition`` and ``headers`` go to every record, the rest to the producer."""
    per_record = {name: options.pop(name) for name in ("partition", "headers") if name in options}
    producer = KafkaProducer(**{"bootstrap_servers": kafka.bootstrap, "linger_ms": 5, **options})
    try:
        sent = [producer.send(topic, value=value, key=str(i).encode(), **per_record) for i, value in enumerate(values)]
        producer.flush()
        for future in sent:
            future.get(timeout=10)
    finally:
        producer.close()


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [f"{number:08d}".encode() for number in range(start, start + count)]


def delete_before(kafka: KafkaServer, topic: str, offset: int) -> None:
    admin = kafka.admin()
    try:
        admin.delete_records({TopicPartition(topic, 0): offset})
    finally:
        admin.close()


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_every_record_comes_once_with_key_headers_and_broker_time(kafka: KafkaServer, compression: str | None) -> None:
    topic = kafka.fresh_topic(partitions=4)
    before_us = time.time_ns() // 1000
    send(kafka, topic, numbered(1000), headers=[("ce_type", b"x")], compression_type=compression)
    with reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: len(reader.records) >= 1000 and reader.at_end())
        assert sorted(record.value or b"" for record in reader.records) == numbered(1000)
        assert len({record.partition for record in reader.records}) == 4
        for partition in reader.source.assigned():
            mine = [record.offset for record in reader.records if record.partition == partition]
            assert mine == list(range(len(mine)))
        for record in reader.records:
            assert record.key == str(int(record.value or b"")).encode()
            assert list(record.headers) == [("ce_type", b"x")]
            assert record.timestamp_us is not None and record.timestamp_us % 1000 == 0
            assert before_us - 1000 <= record.timestamp_us <= time.time_ns() // 1000
        assert not reader.gaps


def test_a_partition_goes_on_at_the_stores_offset(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(20))
    settings = settings_for(kafka)
    with reading(settings, topic) as first:
        first.until(lambda: len(first.records) >= 20)
        (partition,) = first.source.assigned()
    with reading(settings, topic, {partition: 13}) as second:
        second.until(second.at_end)
        assert second.offsets() == list(range(13, 20))


def test_a_partition_never_stored_starts_where_the_setting_says(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(10))
    with reading(settings_for(kafka, start="latest"), topic) as reader:
        reader.until(reader.at_end)
        assert reader.records == [] and reader.source.progress()[0].position == 10
        send(kafka, topic, numbered(5))
        reader.until(lambda: len(reader.records) >= 5)
        assert reader.offsets() == list(range(10, 15))


def test_partitions_move_to_a_new_worker_and_back_and_every_record_is_read_once(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic(partitions=4)
    settings, store = settings_for(kafka), dict[Partition, int]()
    send(kafka, topic, numbered(400))
    with reading(settings, topic, store) as one:
        one.until(lambda: len(one.records) >= 400)
        with reading(settings, topic, store) as two:
            until(lambda: len(one.source.assigned()) == len(two.source.assigned()) == 2, one, two)
            assert set(one.revoked) == set(two.source.assigned())
            send(kafka, topic, numbered(400, start=400))
            until(lambda: len(one.records) + len(two.records) >= 800, one, two)
            assert {record.partition for record in two.records} <= set(two.source.assigned())
        # The second one left the group with close(): the first has all four again.
        one.until(lambda: len(one.source.assigned()) == 4)
        assert len(two.revoked) == 2
        send(kafka, topic, numbered(400, start=800))
        until(lambda: len(one.records) + len(two.records) >= 1200, one)
        spend(0.5, one)
        read = sorted(record.value or b"" for record in one.records + two.records)
        assert read == numbered(1200)
        assert not one.gaps and not two.gaps


def test_on_revoke_runs_before_the_next_owner_asks_for_the_offset(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic(partitions=2)
    settings = settings_for(kafka)
    send(kafka, topic, numbered(100))
    events: list[tuple[str, Partition]] = []

    with reading(settings, topic) as one:
        one.until(lambda: len(one.records) >= 100)
        one.source._places._on_revoke = lambda given_up: events.extend(("revoked", each) for each in given_up)
        with reading(settings, topic) as two:
            two.source._places._start_offset = lambda partition: events.append(("asked", partition))
            until(lambda: bool(two.source.assigned()), one, two)
            (moved,) = two.source.assigned()
    assert events.index(("revoked", moved)) < events.index(("asked", moved))


WORKER = """
import sys
from monitor.settings import KafkaSettings
from monitor.sinks.kafka import KafkaSink
from monitor.sources.kafka import KafkaSource
bootstrap, group, topic = sys.argv[1:]
settings = KafkaSettings(bootstrap_servers=bootstrap, group_id=group, session_timeout_seconds=3.0)
source = KafkaSource(settings, [topic], lambda partition: None, lambda partitions: None)
while True:
    source.poll(0.1, 100)
    print(len(source.assigned()), flush=True)
"""


def test_the_partitions_of_a_killed_worker_come_to_the_others(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic(partitions=4)
    settings = settings_for(kafka)
    with reading(settings, topic) as reader:
        reader.until(lambda: len(reader.source.assigned()) == 4)
        command = [sys.executable, "-c", WORKER, kafka.bootstrap, settings.group_id, topic]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as worker:
            try:
                reader.until(lambda: len(reader.source.assigned()) == 2)
            finally:
                worker.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        reader.until(lambda: len(reader.source.assigned()) == 4)
        # The session of 3 s, and the rebalance.
        assert time.monotonic() - killed_s < 10
        send(kafka, topic, numbered(200))
        reader.until(lambda: len(reader.records) >= 200)


def test_offsets_that_retention_took_before_the_start_are_one_gap(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(50))
    settings = settings_for(kafka)
    with reading(settings, topic) as first:
        first.until(lambda: bool(first.source.assigned()))
        (partition,) = first.source.assigned()
    delete_before(kafka, topic, 30)
    with reading(settings, topic, {partition: 12}) as reader:
        reader.until(lambda: len(reader.records) >= 20)
        spend(1.0, reader)
        assert reader.gaps == [Gap(partition, 12, 30)]
        assert reader.offsets() == list(range(30, 50))


def test_offsets_that_retention_takes_while_running_are_one_gap(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(50))
    with reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: len(reader.records) >= 50)
        (partition,) = reader.source.assigned()
        reader.source.pause()
        spend(1.0, reader)  # the fetch that was on its way comes back empty
        send(kafka, topic, numbered(100, start=50))
        delete_before(kafka, topic, 120)
        reader.source.resume()
        reader.until(lambda: len(reader.records) >= 80)
        spend(1.0, reader)
        assert reader.gaps == [Gap(partition, 50, 120)]
        assert reader.offsets() == [*range(50), *range(120, 150)]


def test_a_log_that_was_cut_back_goes_on_at_its_end(kafka: KafkaServer, caplog: pytest.LogCaptureFixture) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(10))
    settings = settings_for(kafka)
    with reading(settings, topic) as first:
        first.until(lambda: bool(first.source.assigned()))
        (partition,) = first.source.assigned()
    with caplog.at_level(logging.WARNING), reading(settings, topic, {partition: 1000}) as reader:
        reader.until(reader.at_end)
        send(kafka, topic, numbered(5, start=10))
        reader.until(lambda: len(reader.records) >= 5)
        assert reader.gaps == [Gap(partition, 10, 10, "truncated")]
        assert reader.offsets() == list(range(10, 15))
    assert sum("cut back" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_made_again_while_running_is_another_partition_read_from_its_beginning(
    kafka: KafkaServer, start: str
) -> None:
    topic = kafka.fresh_topic()
    with reading(settings_for(kafka, start=start), topic) as reader:
        reader.until(reader.at_end)
        send(kafka, topic, numbered(30))
        reader.until(lambda: len(reader.records) >= 30)
        (old,) = reader.source.assigned()
        admin = kafka.admin()
        admin.delete_topics([topic])
        admin.close()
        remade(kafka, topic)
        send(kafka, topic, numbered(10, start=100))
        reader.until(lambda: len(reader.records) >= 40)
        spend(1.0, reader)
        (new,) = reader.source.assigned()
        assert new.topic_id != old.topic_id and (new.topic, new.number) == (old.topic, old.number)
        assert old in reader.revoked
        again = [record for record in reader.records if record.partition == new]
        assert [record.value for record in again] == numbered(10, start=100)
        assert [record.offset for record in again] == list(range(10))
        assert not reader.gaps


def remade(kafka: KafkaServer, topic: str) -> None:
    """Create a topic that has just been deleted: the broker needs a moment to forget it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            kafka.create_topic(topic)
            return
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_aborted_transactions_are_not_seen_and_the_position_reaches_the_end_past_control_records(
    kafka: KafkaServer,
) -> None:
    topic = kafka.fresh_topic()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"tx-{topic}")
    producer.init_transactions()

    def transaction(values: list[bytes]) -> None:
        producer.begin_transaction()
        for value in values:
            producer.send(topic, value=value)
        producer.flush()

    transaction([b"a", b"b"])
    producer.commit_transaction()
    transaction([b"no"] * 3)
    producer.abort_transaction()
    with reading(settings_for(kafka), topic) as reader:
        reader.until(reader.at_end)
        assert [record.value for record in reader.records] == [b"a", b"b"]
        # Two records, a commit marker, three aborted records, an abort marker.
        (progress,) = reader.source.progress()
        assert (progress.position, progress.end_offset) == (7, 7)
        transaction([b"c"])
        spend(1.5, reader)
        assert [record.value for record in reader.records] == [b"a", b"b"]
        # Nothing more can be read until the transaction ends: that counts as caught up.
        (progress,) = reader.source.progress()
        assert (progress.position, progress.end_offset) == (7, 7) and progress.caught_up_at_us is not None
        producer.commit_transaction()
        reader.until(lambda: len(reader.records) == 3)
        assert reader.records[-1].offset == 7
        reader.until(lambda: reader.source.progress()[0].position == 9)
    producer.close()


def test_progress_tells_how_far_behind_and_when_the_end_was_last_known(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(1000))
    clock = iter(range(1_000_000, 2_000_000, 1000))
    source = KafkaSource(settings_for(kafka), [topic], lambda _: None, lambda _: None, wall_us=lambda: next(clock))
    assert source.progress() == [] and source.assigned() == []
    got = 0
    while not got:
        got += len(source.poll(0.2, 100).records)
    (progress,) = source.progress()
    assert progress.position == got and progress.end_offset == 1000 and progress.caught_up_at_us is None
    while got < 1000:
        got += len(source.poll(0.2, 100).records)
    (progress,) = source.progress()
    assert progress.position == 1000 and progress.caught_up_at_us == 1_000_000
    spent = time.monotonic() + 2.5
    while time.monotonic() < spent:
        source.poll(0.2, 100)
    (progress,) = source.progress()
    assert progress.caught_up_at_us is not None and progress.caught_up_at_us >= 1_002_000
    source.close()


def test_records_of_eight_megabytes_come_through(kafka: KafkaServer) -> None:
    limit = 8 * 1024 * 1024
    topic = kafka.fresh_topic(configs={"max.message.bytes": str(limit + 1024)})
    send(kafka, topic, [bytes([i]) * (limit - 1000) for i in range(3)], max_request_size=limit)
    with reading(settings_for(kafka, max_message_bytes=limit), topic) as reader:
        reader.until(lambda: len(reader.records) >= 3)
        assert [len(record.value or b"") for record in reader.records] == [limit - 1000] * 3


def test_a_paused_source_gives_nothing_and_keeps_its_partitions_past_the_session(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    settings = settings_for(kafka, session_timeout_seconds=1.5)
    with reading(settings, topic) as reader:
        reader.until(reader.at_end)
        reader.source.pause()
        send(kafka, topic, numbered(100))
        time.sleep(2.5)  # not even polled: the client's own thread keeps the membership
        spend(1.0, reader)
        assert reader.records == [] and len(reader.source.assigned()) == 1 and reader.revoked == []
        reader.source.resume()
        reader.until(lambda: len(reader.records) >= 100)
        assert reader.offsets() == list(range(100))


def test_rewind_asks_the_store_again(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(100))
    with reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: len(reader.records) >= 100)
        (partition,) = reader.source.assigned()
        reader.records.clear()
        reader.store[partition] = 60
        reader.source.rewind(partition)
        reader.until(lambda: len(reader.records) >= 40)
        assert reader.offsets() == list(range(60, 100))


def test_a_missing_topic_is_waited_for_and_read_from_its_beginning(
    kafka: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"late-{uuid.uuid4().hex[:8]}"
    with caplog.at_level(logging.INFO), reading(settings_for(kafka, start="latest"), topic) as reader:
        spend(2.0, reader)
        assert reader.source.assigned() == []
        kafka.create_topic(topic, partitions=2)
        send(kafka, topic, numbered(50))
        reader.until(lambda: len(reader.records) >= 50)
    assert sum("is not there" in message for message in caplog.messages) == 1
    # pytest sees the client's own messages in spite of that, an operator does not.
    assert logging.getLogger("kafka").propagate is False


def test_a_static_member_that_restarts_finds_its_partitions_without_a_rebalance(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic(partitions=2)
    settings, store = settings_for(kafka, session_timeout_seconds=10.0), dict[Partition, int]()
    with reading(settings, topic, store) as other:
        with reading(msgspec.structs.replace(settings, group_instance_id="w1"), topic, store) as first:
            until(lambda: len(first.source.assigned()) == len(other.source.assigned()) == 1, first, other)
            mine = first.source.assigned()
        other.revoked.clear()
        with reading(msgspec.structs.replace(settings, group_instance_id="w1"), topic, store) as second:
            until(lambda: second.source.assigned() == mine, second, other)
            assert other.revoked == []


def test_a_closed_source_leaves_no_thread_behind(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    before = set(threading.enumerate())
    with reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: bool(reader.source.assigned()))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before


def test_two_workers_with_one_instance_id_are_told_so(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic()
    settings = settings_for(kafka, group_instance_id="w1")
    with reading(settings, topic) as first:
        first.until(lambda: bool(first.source.assigned()))
        with reading(settings, topic) as second, pytest.raises(SettingsError, match=r"kafka\.group_instance_id.*'w1'"):
            until(lambda: False, second, first)


class NotUtf8(str):
    """A header name as a producer in another language may write it."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def test_a_batch_that_cannot_be_read_is_skipped_and_counted_as_a_gap(kafka: KafkaServer) -> None:
    topic = kafka.fresh_topic(partitions=2)
    send(kafka, topic, numbered(10), partition=0)
    send(kafka, topic, numbered(7), partition=0, headers=[(NotUtf8("bad"), b"x")], batch_size=100_000, linger_ms=200)
    send(kafka, topic, numbered(10, start=10), partition=0)
    send(kafka, topic, numbered(20, start=100), partition=1)
    with reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: len({(record.partition, record.offset) for record in reader.records}) >= 40)
        spend(1.0, reader)
        bad = [partition for partition in reader.source.assigned() if partition.number == 0]
        assert reader.gaps == [Gap(bad[0], 10, 17, "unreadable")]
        assert sorted(reader.offsets()) == sorted([*range(10), *range(17, 27), *range(20)])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaServer, str, Path]]:
    """A broker that may be killed, with a listener of TLS and SASL/PLAIN too: (server, its ``host:port``, CA file)."""
    folder = tmp_path_factory.mktemp("tls")
    store, ca = folder / "broker.p12", folder / "ca.pem"
    tool = ["keytool", "-keystore", str(store), "-storetype", "PKCS12", "-storepass", "changeit", "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true"]
    subprocess.run([*tool, *make], check=True, capture_output=True)
    subprocess.run([*tool, "-exportcert", "-rfc", "-file", str(ca)], check=True, capture_output=True)
    (port,) = free_ports(1)
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_watch="right";'
    listener = "listener.name.sasl_ssl"
    with KafkaServer.start(
        {
            "extra.listeners": f"SASL_SSL://127.0.0.1:{port}",
            "sasl.enabled.mechanisms": "PLAIN",
            f"{listener}.plain.sasl.jaas.config": login,
            f"{listener}.ssl.keystore.location": str(store),
            f"{listener}.ssl.keystore.password": "changeit",
            f"{listener}.ssl.keystore.type": "PKCS12",
        }
    ) as kafka:
        yield kafka, f"127.0.0.1:{port}", ca


def test_a_broker_killed_and_started_again_loses_nothing_and_is_mentioned_once(
    guarded: tuple[KafkaServer, str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = guarded[0]
    topic = kafka.fresh_topic(partitions=2)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", linger_ms=5, delivery_timeout_ms=60_000)
    sent = [producer.send(topic, value=value) for value in numbered(500)]
    producer.flush()
    with caplog.at_level(logging.INFO), closing(producer), reading(settings_for(kafka), topic) as reader:
        reader.until(lambda: len(reader.records) >= 200)
        kafka.kill()
        sent += [producer.send(topic, value=value) for value in numbered(500, start=500)]
        spend(4.0, reader)
        kafka.restart()
        reader.until(lambda: len(reader.records) >= 1000)
        spend(1.0, reader)
        assert all(future.get(timeout=10) for future in sent)
        assert sorted(record.value or b"" for record in reader.records) == numbered(1000)
        assert not reader.gaps
    away = [message for message in caplog.messages if "trying again" in message]
    back = [message for message in caplog.messages if "answers again" in message]
    # On a slow machine the broker may go silent once more while it comes back: an outage of its own.
    assert len(away) == len(back) and 1 <= len(away) <= 2
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("monitor"))


def test_a_broker_that_is_not_there_yet_is_waited_for(
    guarded: tuple[KafkaServer, str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    kafka = guarded[0]
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(10))
    sink = KafkaSink(settings_for(kafka))
    sink.add(OutboxMessage("0", topic, b"key", b"value"))
    sink.flush()
    kafka.kill()
    # A sink that has something on its way gives it up when it is closed, at once and with its thread.
    sink.add(OutboxMessage("1", topic, b"key", b"value"))
    sink.close()
    for thread in threading.enumerate():
        if thread.name == "segwatch-network-thread":
            thread.join(5.0)
            assert not thread.is_alive()
    with caplog.at_level(logging.INFO), reading(settings_for(kafka), topic) as reader:
        spend(5.0, reader)
        assert reader.records == []
        kafka.restart()
        reader.until(lambda: len(reader.records) >= 10)
    away = [message for message in caplog.messages if "trying again" in message]
    assert 1 <= len(away) <= 2 and "no broker answers" in away[0]  # two on a slow machine, see above


def test_sasl_over_tls_reads_and_a_wrong_password_is_said_once(
    guarded: tuple[KafkaServer, str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    kafka, address, ca = guarded
    topic = kafka.fresh_topic()
    send(kafka, topic, numbered(10))
    settings = settings_for(
        kafka,
        bootstrap_servers=address,
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="watch",
        sasl_password="right",
        ssl_cafile=str(ca),
    )
    with reading(settings, topic) as reader:
        reader.until(lambda: len(reader.records) >= 10)
    with (
        caplog.at_level(logging.INFO),
        reading(msgspec.structs.replace(settings, sasl_password="wrong"), topic) as reader,
    ):
        reader.until(lambda: any("trying again" in message for message in caplog.messages))
        spend(3.0, reader)
        assert reader.records == []
    said = [message.lower() for message in caplog.messages if "trying again" in message]
    assert len(said) == 1 and "wrong" not in said[0]
    # A busy machine may not get as far as the refusal before the client gives up connecting.
    assert "authentication" in said[0] or "no broker answers" in said[0]
