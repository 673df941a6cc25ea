"""What every source of records offers, and the values that travel through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Partition(NamedTuple):
    """An ordered log of records. A recreated topic has a new ``topic_id``, so old offsets never fit it.

    For files: cluster "file", topic_id = topic = the path as given, number 0, offset = line number.

    A named tuple, because it is looked up for every record, and tuples are hashed in C.
    """

    cluster: str
    topic_id: str
    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class RawRecord(NamedTuple):
    """A record as it was read, before anything was believed. A named tuple, because those are quickly made."""

    partition: Partition
    offset: int
    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_us: int | None
    """Broker timestamp, microseconds since the epoch; None in files, where nothing is ever late."""
    problem: str | None = None
    """Why the record could not even be read (``too_large``): it is bad for this reason, and ``value`` is None."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets ``start`` to ``stop`` (exclusive) that the broker no longer has: counted as dropped."""

    partition: Partition
    start: int
    stop: int
    reason: str = "retention"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a partition stands. ``caught_up_at_us``: wall clock when its end was last reached, else None."""

    partition: Partition
    position: int
    end_offset: int
    caught_up_at_us: int | None


@dataclass(frozen=True, slots=True)
class Polled:
    records: Sequence[RawRecord]
    gaps: Sequence[Gap] = ()


StartOffset = Callable[[Partition], int | None]
"""The store's next offset of a partition, or None where it has never been read."""


class Source(Protocol):
    """Reads records in partition order. Used by one thread only."""

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """The next records, at most ``max_records``; empty after ``timeout_s`` without any."""

    def assigned(self) -> Sequence[Partition]:
        """Partitions that this worker owns now."""

    def progress(self) -> Sequence[Progress]:
        """Where each owned partition stands."""

    def rewind(self, partition: Partition) -> None:
        """Seek to the store's offset again, after a commit was refused (no effect if no longer owned)."""

    def pause(self) -> None:
        """Stop fetching, keep the group membership alive: poll() then returns nothing."""

    def resume(self) -> None:
        """Fetch again."""

    @property
    def exhausted(self) -> bool:
        """True when a finite source (a file) has nothing left."""

    def close(self) -> None:
        """Leave the group, close connections."""
