"""Which partitions the group gave to this worker, and where each is read: held, placed, looked after, given up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError

from monitor.errors import StoreError
from monitor.kafka_client import Outage, raise_if_hopeless, reason
from monitor.sources.kafka_link import ANSWER_S, RETRY_FIRST_S, Link
from monitor.sources.placing import place
from monitor.sources.protocol import Gap, Partition, StartOffset
from monitor.sources.unreadable import first_readable

log = logging.getLogger(__name__)

OnRevoke = Callable[[Sequence[Partition]], None]

END_CHECK_S: Final = 1.0
TELL_KAFKA_S: Final = 5.0


@dataclass(slots=True)
class Owned:
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


class Places:
    """The partitions that are owned, with what happens to them between polls.

    ``start_offset`` and ``on_revoke`` are those of the source.
    """

    def __init__(self, link: Link, start_offset: StartOffset, on_revoke: OnRevoke, wall_us: Callable[[], int]) -> None:
        self.owned: dict[TopicPartition, Owned] = {}
        self.gaps: list[Gap] = []
        self.paused = False
        self._link = link
        self._start_offset = start_offset
        self._on_revoke = on_revoke
        self._wall_us = wall_us
        self._given_up: list[Partition] = []
        self._unreadable: dict[tuple[Partition, int], int] = {}
        self._told_kafka: Any = None
        self._tell_kafka_at_s = 0.0
        self._check_ends_at_s = 0.0
        self._store_outage = Outage(log, "store")

    # -- what the group says -------------------------------------------------------------------------------------

    def note_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by the client's thread: hold the partitions until ``look_around`` has placed them."""
        for where in assigned:
            self.owned[where] = Owned()
            # Without a position the client would ask Kafka for committed offsets, and fail for want of any.
            self._link.consumer.seek(where, 0)
            self._link.consumer.pause(where)

    def note_revoked(self, revoked: Iterable[TopicPartition]) -> bool:
        """Called by the client's thread: remember what to hand over. False when closing: that is done already."""
        for where in revoked:
            owned = self.owned.pop(where, None)
            if owned is not None and owned.partition is not None:
                self._given_up.append(owned.partition)
        return self._link.consumer is not None

    def hand_over(self) -> None:
        """Let the pipeline commit what it has of partitions that are no longer ours."""
        if self._given_up:
            given_up, self._given_up = self._given_up, []
            self.gaps = [gap for gap in self.gaps if gap.partition not in given_up]
            log.info("given up: %s", ", ".join(map(str, sorted(given_up))))
            self._on_revoke(given_up)

    def give_all_up(self) -> None:
        """Hand over everything: the client is about to go."""
        self._given_up += [owned.partition for owned in self.owned.values() if owned.partition is not None]
        self.hand_over()
        self.owned.clear()

    # -- between polls -------------------------------------------------------------------------------------------

    def look_around(self) -> None:
        """Everything that is done between polls: missing topics, topics made again, new partitions, ends."""
        self._link.mention_missing_topics()
        for where, owned in list(self.owned.items()):
            if owned.placed:
                current = self._link.identity(where)
                if current is not None and current != owned.partition:
                    self.displace(where)
        now_s = time.monotonic()
        if now_s >= self._link.try_at_s and not all(owned.placed for owned in self.owned.values()):
            self._place()
        if now_s >= self._check_ends_at_s:
            self._check_ends()
        if now_s >= self._tell_kafka_at_s:
            self._tell_kafka_at_s = now_s + TELL_KAFKA_S
            self._tell_kafka()

    def displace(
        self,
        where: TopicPartition,
        *,
        resume_at: int | None = None,
        diverged_at: int | None = None,
        keep: bool = False,
    ) -> None:
        """Hold a partition until it has been placed anew; ``keep``: from where it stands."""
        owned = self.owned.get(where)
        if owned is not None:
            self._link.consumer.pause(where)
            self.owned[where] = Owned(
                owned.partition,
                resume_at=owned.position if keep else resume_at,
                diverged_at=diverged_at,
            )

    def _place(self) -> None:
        """Find out where each partition that is held goes on, and let it go."""
        link = self._link
        try:
            link.refresh_metadata()
            waiting = {where: link.identity(where) for where, owned in self.owned.items() if not owned.placed}
            there = [where for where, partition in waiting.items() if partition is not None]
            if not there:
                link.try_at_s = time.monotonic() + RETRY_FIRST_S
                return
            beginnings = link.consumer.beginning_offsets(there, timeout_ms=round(ANSWER_S * 1000))
            ends = link.consumer.end_offsets(there, timeout_ms=round(ANSWER_S * 1000))
        except KafkaError as error:
            link.note(error)
            link.try_at_s = time.monotonic() + link.back_off()
            return
        link.answered()
        for where in there:
            partition = waiting[where]
            if where in self.owned and partition is not None:
                try:
                    self._place_one(where, partition, beginnings[where], ends[where])
                except StoreError as error:
                    if not getattr(error, "retriable", False):
                        raise
                    self._store_outage.begin(str(error))
                    link.try_at_s = time.monotonic() + RETRY_FIRST_S
                    return
        self._store_outage.end()
        self._check_ends_at_s = 0.0

    def _place_one(self, where: TopicPartition, partition: Partition, beginning: int, end: int) -> None:
        owned = self.owned[where]
        known = owned.partition == partition
        if owned.partition is not None and not known:
            log.warning("topic %s was deleted and made again: %s is read from its beginning", where.topic, partition)
            self._on_revoke([owned.partition])
        wanted = owned.resume_at if known and owned.resume_at is not None else self._start_offset(partition)
        # What appears while the worker runs is read whole: with "latest", its first records would be lost.
        from_beginning = self._link.born_later(partition) or self._link.settings.start == "earliest"
        found = place(
            partition,
            wanted,
            beginning,
            end,
            from_beginning=from_beginning,
            diverged_at=owned.diverged_at if known else None,
        )
        if found.remark is not None:
            log.warning("%s: %s", partition, found.remark)
        if found.gap is not None:
            self.gaps.append(found.gap)
        start = found.start
        if (partition, start) in self._unreadable:
            start = self._unreadable.pop((partition, start))
            self.gaps.append(Gap(partition, found.start, start, "unreadable"))
        self._link.consumer.seek(where, start)
        if not self.paused:
            self._link.consumer.resume(where)
        self.owned[where] = Owned(partition, placed=True, position=start, end=end)
        log.info("%s: reading from offset %d", partition, start)

    def find_unreadable(self) -> None:
        """Find the batches that cannot be read, to skip them when their partitions are placed with a new client."""
        try:
            for where, owned in self.owned.items():
                if owned.placed and owned.partition is not None:
                    (end,) = self._link.consumer.end_offsets([where], timeout_ms=round(ANSWER_S * 1000)).values()
                    good = first_readable(self._link.config, where, owned.position, end)
                    if good is not None:
                        log.error("%s: offsets %d to %d cannot be read", owned.partition, owned.position, good - 1)
                        self._unreadable[owned.partition, owned.position] = good
        except KafkaError as trouble:
            log.warning("Kafka: %s", reason(trouble))

    def _check_ends(self) -> None:
        """Ask where the logs end, and see how far the client is: past the control records that no record shows."""
        placed = [where for where, owned in self.owned.items() if owned.placed]
        self._check_ends_at_s = time.monotonic() + END_CHECK_S
        if not placed:
            return
        asked_us = self._wall_us()
        try:
            ends = self._link.consumer.end_offsets(placed, timeout_ms=round(END_CHECK_S * 1000))
        except KafkaError as error:
            self._link.note(error)
            self._check_ends_at_s = time.monotonic() + self._link.back_off()
            return
        self._link.answered()
        for where in placed:
            owned = self.owned[where]
            owned.end, owned.end_asked_us = ends[where], asked_us
            # May raise LogTruncationError, which poll handles.
            position = self._link.consumer.position(where, timeout_ms=0)
            if position is not None:
                owned.position = max(owned.position, position)

    def _tell_kafka(self) -> None:
        """Commit positions to Kafka, for its tools; what became of the last time matters in one case only."""
        told = self._told_kafka
        if told is not None and told.is_done and isinstance(told.exception, KafkaError):
            raise_if_hopeless(told.exception, self._link.settings)
        positions = {
            where: OffsetAndMetadata(owned.position, "", -1) for where, owned in self.owned.items() if owned.placed
        }
        if positions:
            self._told_kafka = self._link.consumer.commit_async(positions)


class Interrupted(Exception):
    """Raised in the client's thread to make its poll return."""


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on what the group says."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._places.note_assigned(assigned)
        raise Interrupted

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if self._places.note_revoked(revoked):
            raise Interrupted

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """The group went on without us. The store's compare-and-set decides whether what we have still counts."""
        self.on_partitions_revoked(lost)
