"""Records from Kafka: a consumer group shares the partitions out, the store says where each one goes on.

Kafka's own committed offsets are never used. A partition that is assigned is first *placed*: with fresh metadata its
identity is (cluster id, topic id, number), its next offset comes from the store, and both are compared with what the
broker still has (placing.py decides). The same happens when the broker says that an offset is out of range, when a
topic was deleted and made again (another topic id: another partition, with offsets of its own), and after ``rewind``.

Threads: kafka-python runs a thread of its own for heartbeats, metadata and rebalance callbacks. Those callbacks take
notes and raise ``_Interrupted``, which makes the client's poll return at once: so ``on_revoke`` is called by the thread
that polls, before the group is joined again and the partition can be given to somebody else. As long as ``poll`` is
called at all (every 5 minutes), a paused worker keeps its partitions.

Offsets are committed to Kafka too, now and then, for the eyes of Kafka's own tools alone (consumer lag); the answer
also tells a worker that another one took its static membership.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import kafka
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.base import MemberState
from kafka.errors import (
    BrokerResponseError,
    CorruptRecordError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from monitor.errors import StoreError
from monitor.kafka_client import Connecting, Outage, consumer_config, raise_if_hopeless, reason
from monitor.settings import KafkaSettings
from monitor.sources.placing import place
from monitor.sources.protocol import Gap, Partition, Polled, Progress, RawRecord, StartOffset
from monitor.sources.unreadable import first_readable

log = logging.getLogger(__name__)

OnRevoke = Callable[[Sequence[Partition]], None]

# The longest poll of the client: ends and topics are looked at in between. Data wakes a poll at once.
SLICE_S: Final = 0.5
# While the group is joined, a poll goes on until that is done, this long at most. kafka-python 3.0 forgets a join that
# is finished between two polls and starts over, and so do the others then: with short polls a group never settles.
JOIN_S: Final = 5.0
# The shortest poll, for the same reason: long enough for a join to be under way when it returns.
SHORTEST_S: Final = 0.05
CONNECT_S: Final = 3.0
ANSWER_S: Final = 5.0
END_CHECK_S: Final = 1.0
TELL_KAFKA_S: Final = 5.0
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
# Consecutive errors of the client after which it is thrown away and made anew.
PATIENCE: Final = 3


@dataclass(slots=True)
class _Owned:
    """A partition that the group gave to this worker. Not ``placed``: where to read is not known yet."""

    partition: Partition | None = None
    placed: bool = False
    position: int = 0
    """Next offset that ``poll`` will return."""
    resume_at: int | None = None
    """Place it here instead of asking the store: the offset that turned out to be out of range."""
    diverged_at: int | None = None
    """Where the broker says that the log was cut back to."""
    end: int = 0
    end_asked_us: int | None = None
    """Wall clock just before the broker was asked for ``end``."""


class KafkaSource:
    """Implements ``monitor.sources.protocol.Source``; nothing is connected before the first ``poll``.

    ``start_offset`` looks a partition up in the store and may be asked several times; ``on_revoke`` is called before
    partitions are given up, to commit what was read from them. ``wall_us`` is the clock of ``Progress``.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        start_offset: StartOffset,
        on_revoke: OnRevoke,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        if not topics:
            raise ValueError("no topics to read")
        self._settings = settings
        self._config = consumer_config(settings)
        self._topics = tuple(topics)
        self._start_offset = start_offset
        self._on_revoke = on_revoke
        self._wall_us = wall_us
        self._consumer: Any = None
        self._cluster: Any = None
        self._connecting = Connecting()
        self._owned: dict[TopicPartition, _Owned] = {}
        self._given_up: list[Partition] = []
        self._gaps: list[Gap] = []
        self._unreadable: dict[tuple[Partition, int], int] = {}
        self._paused = False
        self._present: frozenset[tuple[str, int]] | None = None
        self._missing: frozenset[str] = frozenset()
        self._told_kafka: Any = None
        self._tell_kafka_at_s = 0.0
        self._try_at_s = 0.0
        self._retry_s = RETRY_FIRST_S
        self._check_ends_at_s = 0.0
        self._failures = 0
        self._outage = Outage(log, f"Kafka at {settings.bootstrap_servers}")
        self._store_outage = Outage(log, "store")

    # -- the protocol --------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Never: more may always come."""
        return False

    def assigned(self) -> Sequence[Partition]:
        """Partitions owned now whose place is known."""
        return [owned.partition for owned in self._owned.values() if owned.placed and owned.partition is not None]

    def progress(self) -> Sequence[Progress]:
        """Where each placed partition stands. Asks nobody: the broker is asked once a second by ``poll``.

        ``end_offset`` is the last stable offset, beyond which nothing committed can be read. ``caught_up_at_us`` is the
        clock just before the broker was asked: everything that it had then has been returned by ``poll``.
        """
        found = []
        for owned in self._owned.values():
            if not owned.placed or owned.partition is None:
                continue
            at_end = owned.end_asked_us is not None and owned.position >= owned.end
            end = max(owned.end, owned.position)
            found.append(Progress(owned.partition, owned.position, end, owned.end_asked_us if at_end else None))
        return found

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """The next records. Waits out a broker that is away; raises SettingsError where waiting cannot help."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            records = self._poll_slice(max(SHORTEST_S, min(left_s, SLICE_S)), max_records)
            if not records and self._joining():
                records = self._poll_slice(JOIN_S, max_records)
            gaps: list[Gap] = []
            if self._gaps and not self._paused:
                gaps, self._gaps = self._gaps, []
            if records or gaps or time.monotonic() >= deadline_s:
                return Polled(records, gaps)

    def _joining(self) -> bool:
        return self._consumer is not None and self._consumer.group_metadata().state is MemberState.REBALANCING

    def rewind(self, partition: Partition) -> None:
        """Ask the store again where the partition goes on."""
        for where, owned in self._owned.items():
            if owned.partition == partition:
                self._gaps = [gap for gap in self._gaps if gap.partition != partition]
                self._displace(where)

    def pause(self) -> None:
        """Return nothing until ``resume``, and fetch no further than what is on its way."""
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause(*self._owned)

    def resume(self) -> None:
        """Return records again."""
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume(*(where for where, owned in self._owned.items() if owned.placed))

    def close(self) -> None:
        """Give the partitions up (``on_revoke``) and leave the group; a static member stays until its session ends."""
        self._abandon(leave_s=5.0)

    # -- what the group says -------------------------------------------------------------------------------------

    def note_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by the client's thread: hold the partitions until ``poll`` has placed them."""
        for where in assigned:
            self._owned[where] = _Owned()
            # Without a position the client would ask Kafka for committed offsets, and fail for want of any.
            self._consumer.seek(where, 0)
            self._consumer.pause(where)

    def note_revoked(self, revoked: Iterable[TopicPartition]) -> bool:
        """Called by the client's thread: remember what to hand over. False when closing: that is done already."""
        for where in revoked:
            owned = self._owned.pop(where, None)
            if owned is not None and owned.partition is not None:
                self._given_up.append(owned.partition)
        return self._consumer is not None

    # -- one slice of polling ------------------------------------------------------------------------------------

    def _poll_slice(self, timeout_s: float, max_records: int) -> list[RawRecord]:
        waiting_s = self._try_at_s - time.monotonic()
        if waiting_s > 0 and self._consumer is None:
            time.sleep(min(waiting_s, timeout_s))
            return []
        try:
            if self._consumer is None:
                self._connect()
            self._look_around()
            polled = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            for where, offset in error.args[0].items():
                self._displace(where, resume_at=offset)
            return []
        except LogTruncationError as error:
            for where, diverged in error.divergent_offsets.items():
                self._displace(where, diverged_at=None if diverged is None else diverged.offset, keep=True)
            return []
        except NoOffsetForPartitionError as error:
            for where in error.args[0]:
                self._displace(where)
            return []
        except CorruptRecordError as error:
            self._find_unreadable(error)
            return []
        except KafkaError as error:
            if not isinstance(error.__cause__, _Interrupted):
                self._failed(error, timeout_s)
            return []
        finally:
            self._hand_over()
        self._failures = 0
        if not self._owned:
            self._outage.end()
        return self._records(polled)

    def _records(self, polled: dict[TopicPartition, list[Any]]) -> list[RawRecord]:
        found: list[RawRecord] = []
        for where, records in polled.items():
            owned = self._owned.get(where)
            if owned is None or not owned.placed or owned.partition is None:
                continue
            if self._identity(where) != owned.partition:
                # Fetched around the time when the topic was made again: nobody can say from which of the two.
                self._displace(where)
                continue
            partition = owned.partition
            found += [
                RawRecord(
                    partition,
                    record.offset,
                    record.value,
                    record.key,
                    _headers(record.headers),
                    record.timestamp * 1000 if record.timestamp >= 0 else None,
                )
                for record in records
            ]
            owned.position = records[-1].offset + 1
        return found

    def _hand_over(self) -> None:
        """Let the pipeline commit what it has of partitions that are no longer ours."""
        if self._given_up:
            given_up, self._given_up = self._given_up, []
            self._gaps = [gap for gap in self._gaps if gap.partition not in given_up]
            log.info("given up: %s", ", ".join(map(str, sorted(given_up))))
            self._on_revoke(given_up)

    # -- connection ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connecting = connecting = Connecting()
        try:
            consumer = kafka.KafkaConsumer(
                kafka_client=connecting, bootstrap_timeout_ms=round(CONNECT_S * 1000), **self._config
            )
            self._cluster = connecting.cluster
            consumer.subscribe(self._topics, listener=_Listener(self))
            self._refresh_metadata()
        except KafkaError:
            connecting.abandon()
            raise
        self._consumer = consumer
        self._failures = 0
        if self._present is None:
            self._present = frozenset(
                (str(self._cluster.topic_id(topic)), number)
                for topic in self._topics
                for number in self._cluster.partitions_for_topic(topic) or ()
            )

    def _failed(self, error: KafkaError, timeout_s: float) -> None:
        """Note a failure; wait as long as this slice allows; give the client up when it fails again and again."""
        raise_if_hopeless(error, self._settings)
        self._outage.begin(reason(error))
        self._failures += 1
        if self._consumer is not None and self._failures < PATIENCE:
            time.sleep(min(timeout_s, RETRY_FIRST_S))
            return
        self._abandon(leave_s=0.0)
        self._try_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MOST_S)

    def _find_unreadable(self, error: CorruptRecordError) -> None:
        """Find the batch that cannot be read, to skip it when its partition is placed again with a new client."""
        log.warning("Kafka: %s; looking for the place", reason(error))
        try:
            for where, owned in self._owned.items():
                if owned.placed and owned.partition is not None:
                    (end,) = self._consumer.end_offsets([where], timeout_ms=round(ANSWER_S * 1000)).values()
                    good = first_readable(self._config, where, owned.position, end)
                    if good is not None:
                        log.error("%s: offsets %d to %d cannot be read", owned.partition, owned.position, good - 1)
                        self._unreadable[owned.partition, owned.position] = good
        except KafkaError as trouble:
            log.warning("Kafka: %s", reason(trouble))
        self._abandon(leave_s=ANSWER_S)

    def _abandon(self, leave_s: float) -> None:
        self._given_up += [owned.partition for owned in self._owned.values() if owned.partition is not None]
        self._hand_over()
        self._owned.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=round(leave_s * 1000))
            except KafkaError as error:
                log.debug("closing the consumer: %s", reason(error))
            finally:
                # A consumer that failed to close has not closed its client.
                self._connecting.abandon()

    def _refresh_metadata(self) -> None:
        """Wait for an answer about our topics that was asked for now; KafkaError when none comes."""
        update = self._cluster.request_update()
        until_s = time.monotonic() + ANSWER_S
        while not update.is_done:
            if time.monotonic() > until_s:
                raise KafkaTimeoutError("no answer about the topics")
            time.sleep(0.002)
        # A topic that is not there is an answer too.
        if update.failed() and not isinstance(update.exception, BrokerResponseError):
            raise update.exception

    # -- placing -------------------------------------------------------------------------------------------------

    def _identity(self, where: TopicPartition) -> Partition | None:
        """Who the partition is by the latest metadata; None while the topic is not there."""
        if where.partition not in (self._cluster.partitions_for_topic(where.topic) or ()):
            return None
        # Brokers before 2.8 give no ids; there a topic made again cannot be told from the old one.
        topic_id = self._cluster.topic_id(where.topic) or where.topic
        return Partition(str(self._cluster.cluster_id), str(topic_id), where.topic, where.partition)

    def _displace(
        self,
        where: TopicPartition,
        *,
        resume_at: int | None = None,
        diverged_at: int | None = None,
        keep: bool = False,
    ) -> None:
        """Hold a partition until it has been placed anew; ``keep``: from where it stands."""
        owned = self._owned.get(where)
        if owned is not None:
            self._consumer.pause(where)
            self._owned[where] = _Owned(
                owned.partition,
                resume_at=owned.position if keep else resume_at,
                diverged_at=diverged_at,
            )

    def _look_around(self) -> None:
        """Everything that is done between polls: missing topics, topics made again, new partitions, ends."""
        self._mention_missing_topics()
        for where, owned in list(self._owned.items()):
            if owned.placed:
                current = self._identity(where)
                if current is not None and current != owned.partition:
                    self._displace(where)
        now_s = time.monotonic()
        if now_s >= self._try_at_s and not all(owned.placed for owned in self._owned.values()):
            self._place()
        if now_s >= self._check_ends_at_s:
            self._check_ends()
        if now_s >= self._tell_kafka_at_s:
            self._tell_kafka_at_s = now_s + TELL_KAFKA_S
            self._tell_kafka()

    def _mention_missing_topics(self) -> None:
        missing = frozenset(topic for topic in self._topics if self._cluster.partitions_for_topic(topic) is None)
        for topic in sorted(missing - self._missing):
            if topic in self._cluster.unauthorized_topics:
                log.warning("topic %s: this user may not read it; waiting until it may", topic)
            else:
                log.warning("topic %s is not there: waiting for it (segwatch topics create makes it)", topic)
        for topic in sorted(self._missing - missing):
            log.info("topic %s is there now", topic)
        self._missing = missing

    def _place(self) -> None:
        """Find out where each partition that is held goes on, and let it go."""
        try:
            self._refresh_metadata()
            waiting = {where: self._identity(where) for where, owned in self._owned.items() if not owned.placed}
            there = [where for where, partition in waiting.items() if partition is not None]
            if not there:
                self._try_at_s = time.monotonic() + RETRY_FIRST_S
                return
            beginnings = self._consumer.beginning_offsets(there, timeout_ms=round(ANSWER_S * 1000))
            ends = self._consumer.end_offsets(there, timeout_ms=round(ANSWER_S * 1000))
        except KafkaError as error:
            raise_if_hopeless(error, self._settings)
            self._outage.begin(reason(error))
            self._try_at_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MOST_S)
            return
        self._retry_s = RETRY_FIRST_S
        self._outage.end()
        for where in there:
            partition = waiting[where]
            if where in self._owned and partition is not None:
                try:
                    self._place_one(where, partition, beginnings[where], ends[where])
                except StoreError as error:
                    if not getattr(error, "retriable", False):
                        raise
                    self._store_outage.begin(str(error))
                    self._try_at_s = time.monotonic() + RETRY_FIRST_S
                    return
        self._store_outage.end()
        self._check_ends_at_s = 0.0

    def _place_one(self, where: TopicPartition, partition: Partition, beginning: int, end: int) -> None:
        owned = self._owned[where]
        known = owned.partition == partition
        if owned.partition is not None and not known:
            log.warning("topic %s was deleted and made again: %s is read from its beginning", where.topic, partition)
            self._on_revoke([owned.partition])
        wanted = owned.resume_at if known and owned.resume_at is not None else self._start_offset(partition)
        # What appears while the worker runs is read whole: with "latest", its first records would be lost.
        born_later = (partition.topic_id, where.partition) not in (self._present or ())
        found = place(
            partition,
            wanted,
            beginning,
            end,
            from_beginning=born_later or self._settings.start == "earliest",
            diverged_at=owned.diverged_at if known else None,
        )
        if found.remark is not None:
            log.warning("%s: %s", partition, found.remark)
        if found.gap is not None:
            self._gaps.append(found.gap)
        start = found.start
        if (partition, start) in self._unreadable:
            start = self._unreadable.pop((partition, start))
            self._gaps.append(Gap(partition, found.start, start, "unreadable"))
        self._consumer.seek(where, start)
        if not self._paused:
            self._consumer.resume(where)
        self._owned[where] = _Owned(partition, placed=True, position=start, end=end)
        log.info("%s: reading from offset %d", partition, start)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _check_ends(self) -> None:
        """Ask where the logs end, and see how far the client is: past the control records that no record shows."""
        placed = [where for where, owned in self._owned.items() if owned.placed]
        self._check_ends_at_s = time.monotonic() + END_CHECK_S
        if not placed:
            return
        asked_us = self._wall_us()
        try:
            ends = self._consumer.end_offsets(placed, timeout_ms=round(END_CHECK_S * 1000))
        except KafkaError as error:
            raise_if_hopeless(error, self._settings)
            self._outage.begin(reason(error))
            self._check_ends_at_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MOST_S)
            return
        self._retry_s = RETRY_FIRST_S
        self._outage.end()
        for where in placed:
            owned = self._owned[where]
            owned.end, owned.end_asked_us = ends[where], asked_us
            # May raise LogTruncationError, which poll handles.
            position = self._consumer.position(where, timeout_ms=0)
            if position is not None:
                owned.position = max(owned.position, position)

    def _tell_kafka(self) -> None:
        """Commit positions to Kafka, for its tools; what became of the last time matters in one case only."""
        told = self._told_kafka
        if told is not None and told.is_done and isinstance(told.exception, KafkaError):
            raise_if_hopeless(told.exception, self._settings)
        positions = {
            where: OffsetAndMetadata(owned.position, "", -1) for where, owned in self._owned.items() if owned.placed
        }
        if positions:
            self._told_kafka = self._consumer.commit_async(positions)


class _Interrupted(Exception):
    """Raised in the client's thread to make its poll return."""


def _headers(pairs: list[tuple[str, bytes | None]]) -> Sequence[tuple[str, bytes]]:
    """Kafka allows a header without a value; next to nobody sends one, so the list is seldom copied."""
    for _, value in pairs:
        if value is None:
            return [(name, value or b"") for name, value in pairs]
    return cast(Sequence[tuple[str, bytes]], pairs)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on what the group says."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._source.note_assigned(assigned)
        raise _Interrupted

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if self._source.note_revoked(revoked):
            raise _Interrupted

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """The group went on without us. The store's compare-and-set decides whether what we have still counts."""
        self.on_partitions_revoked(lost)
