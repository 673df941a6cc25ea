"""Records from Kafka: a consumer group shares the partitions out, the store says where each one goes on.

Kafka's own committed offsets are never used. A partition that is assigned is first *placed*: with fresh metadata its
identity is (cluster id, topic id, number), its next offset comes from the store, and both are compared with what the
broker still has (placing.py decides). The same happens when the broker says that an offset is out of range, when a
topic was deleted and made again (another topic id: another partition, with offsets of its own), and after ``rewind``.

kafka_link.py has the connection, kafka_places.py the partitions; here records are polled.

Threads: kafka-python runs a thread of its own for heartbeats, metadata and rebalance callbacks. Those callbacks take
notes and raise ``Interrupted``, which makes the client's poll return at once: so ``on_revoke`` is called by the thread
that polls, before the group is joined again and the partition can be given to somebody else. As long as ``poll`` is
called at all (every 5 minutes), a paused worker keeps its partitions.

Offsets are committed to Kafka too, now and then, for the eyes of Kafka's own tools alone (consumer lag); the answer
also tells a worker that another one took its static membership.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from kafka import TopicPartition
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from monitor.kafka_client import reason
from monitor.settings import KafkaSettings
from monitor.sources.kafka_link import ANSWER_S, RETRY_FIRST_S, Link
from monitor.sources.kafka_places import Interrupted, Listener, OnRevoke, Places
from monitor.sources.protocol import Gap, Partition, Polled, Progress, RawRecord, StartOffset

log = logging.getLogger(__name__)

# The longest poll of the client: ends and topics are looked at in between. Data wakes a poll at once.
SLICE_S: Final = 0.5
# While the group is joined, a poll goes on until that is done, this long at most. kafka-python 3.0 forgets a join that
# is finished between two polls and starts over, and so do the others then: with short polls a group never settles.
JOIN_S: Final = 5.0
# The shortest poll, for the same reason: long enough for a join to be under way when it returns.
SHORTEST_S: Final = 0.05
# Consecutive errors of the client after which it is thrown away and made anew.
PATIENCE: Final = 3


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
        self._link = Link(settings, topics)
        self._places = Places(self._link, start_offset, on_revoke, wall_us)
        self._owned = self._places.owned
        self._identity = self._link.identity
        self._displace = self._places.displace
        self._failures = 0

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
        places = self._places
        while True:
            left_s = deadline_s - time.monotonic()
            records = self._poll_slice(max(SHORTEST_S, min(left_s, SLICE_S)), max_records)
            if not records and self._link.joining:
                records = self._poll_slice(JOIN_S, max_records)
            gaps: list[Gap] = []
            if places.gaps and not places.paused:
                gaps, places.gaps = places.gaps, []
            if records or gaps or time.monotonic() >= deadline_s:
                return Polled(records, gaps)

    def rewind(self, partition: Partition) -> None:
        """Ask the store again where the partition goes on."""
        for where, owned in self._owned.items():
            if owned.partition == partition:
                self._places.gaps = [gap for gap in self._places.gaps if gap.partition != partition]
                self._displace(where)

    def pause(self) -> None:
        """Return nothing until ``resume``, and fetch no further than what is on its way."""
        self._places.paused = True
        if self._link.consumer is not None:
            self._link.consumer.pause(*self._owned)

    def resume(self) -> None:
        """Return records again."""
        self._places.paused = False
        if self._link.consumer is not None:
            self._link.consumer.resume(*(where for where, owned in self._owned.items() if owned.placed))

    def close(self) -> None:
        """Give the partitions up (``on_revoke``) and leave the group; a static member stays until its session ends."""
        self._abandon(leave_s=5.0)

    # -- one slice of polling ------------------------------------------------------------------------------------

    def _poll_slice(self, timeout_s: float, max_records: int) -> list[RawRecord]:
        link = self._link
        waiting_s = link.try_at_s - time.monotonic()
        if waiting_s > 0 and link.consumer is None:
            time.sleep(min(waiting_s, timeout_s))
            return []
        try:
            if link.consumer is None:
                link.connect(Listener(self._places))
                self._failures = 0
            self._places.look_around()
            polled = link.consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=max_records)
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
            log.warning("Kafka: %s; looking for the place", reason(error))
            self._places.find_unreadable()
            self._abandon(leave_s=ANSWER_S)
            return []
        except KafkaError as error:
            if not isinstance(error.__cause__, Interrupted):
                self._failed(error, timeout_s)
            return []
        finally:
            self._places.hand_over()
        self._failures = 0
        if not self._owned:
            link.outage.end()
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

    def _failed(self, error: KafkaError, timeout_s: float) -> None:
        """Note a failure; wait as long as this slice allows; give the client up when it fails again and again."""
        self._link.note(error)
        self._failures += 1
        if self._link.consumer is not None and self._failures < PATIENCE:
            time.sleep(min(timeout_s, RETRY_FIRST_S))
            return
        self._abandon(leave_s=0.0)
        self._link.try_at_s = time.monotonic() + self._link.back_off()

    def _abandon(self, leave_s: float) -> None:
        self._places.give_all_up()
        self._link.close(leave_s)


def _headers(pairs: list[tuple[str, bytes | None]]) -> Sequence[tuple[str, bytes]]:
    """Kafka allows a header without a value; next to nobody sends one, so the list is seldom copied."""
    for _, value in pairs:
        if value is None:
            return [(name, value or b"") for name, value in pairs]
    return cast(Sequence[tuple[str, bytes]], pairs)
