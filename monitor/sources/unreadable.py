"""How far a Kafka log cannot be read: a batch that is damaged, or that this client cannot take apart.

A broker does not look into headers, so a producer in another language can write a header name that is no UTF-8; disks
fail. The client raises the same error for the same batch for ever, and hangs when it is polled again. One such record
must not stop a partition: its batch is skipped, and its offsets are counted as dropped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import kafka
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaTimeoutError

from monitor.kafka_client import Connecting

ANSWER_S: Final = 10.0
GROUP_OPTIONS: Final = frozenset(
    {
        "group_id",
        "group_instance_id",
        "partition_assignment_strategy",
        "session_timeout_ms",
        "heartbeat_interval_ms",
    }
)


def first_readable(config: Mapping[str, Any], where: TopicPartition, offset: int, end: int) -> int | None:
    """The first offset after ``offset`` from which the log can be read, at most ``end``; None when ``offset`` is one.

    ``config``: the consumer's options; those of the group are left out. A seek into a batch reads the whole batch, so
    the offsets from ``offset`` on are bad up to a border and good after it. It is found by doubling the step and then
    halving it: some 2 log2(n) seeks for a batch of n records, each with a client of its own.

    Raises KafkaError where the broker does not answer.
    """
    plain = {name: value for name, value in config.items() if name not in GROUP_OPTIONS}
    if _can_read(plain, where, offset, end):
        return None
    bad, step = offset, 1
    while bad + step < end and not _can_read(plain, where, bad + step, end):
        bad, step = bad + step, 2 * step
    good = min(bad + step, end)
    while good - bad > 1:
        middle = (bad + good) // 2
        if _can_read(plain, where, middle, end):
            good = middle
        else:
            bad = middle
    return good


def _can_read(config: Mapping[str, Any], where: TopicPartition, offset: int, end: int) -> bool:
    if offset >= end:
        return True
    connecting = Connecting()
    consumer = kafka.KafkaConsumer(kafka_client=connecting, bootstrap_timeout_ms=round(ANSWER_S * 1000), **config)
    try:
        consumer.assign([where])
        consumer.seek(where, offset)
        until_s = time.monotonic() + ANSWER_S
        while time.monotonic() < until_s:
            # Control records and aborted transactions move the position without giving a record.
            if consumer.poll(timeout_ms=200, max_records=1) or consumer.position(where, timeout_ms=0) > offset:
                return True
        raise KafkaTimeoutError(f"no answer about offset {offset}")
    except CorruptRecordError:
        return False
    finally:
        consumer.close(autocommit=False, timeout_ms=0)
