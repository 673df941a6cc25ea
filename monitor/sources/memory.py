"""The in-memory twin of Kafka's source, for tests: logs that can be appended to, cut by retention, taken and given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from monitor.sources.protocol import Gap, Partition, Polled, Progress, RawRecord, StartOffset

OnRevoke = Callable[[Sequence[Partition]], None]


def no_offsets(_partition: Partition) -> int | None:
    """A store that has never seen any partition."""
    return None


def nothing_to_flush(_partitions: Sequence[Partition]) -> None:
    """A pipeline without anything in flight."""


@dataclass(slots=True)
class _Log:
    records: list[RawRecord] = field(default_factory=list)
    beginning: int = 0
    position: int | None = None


class MemorySource:
    """Implements ``monitor.sources.protocol.Source``.

    >>> camera = Partition("memory", "t1", "predictions", 0)
    >>> source = MemorySource()
    >>> source.append(camera, b"{}")
    0
    >>> [record.value for record in source.poll(0.0, 10).records]
    [b'{}']
    >>> source.exhausted
    True
    """

    def __init__(
        self,
        start_offset: StartOffset = no_offsets,
        on_revoke: OnRevoke = nothing_to_flush,
        *,
        finite: bool = True,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._start_offset = start_offset
        self._on_revoke = on_revoke
        self._finite = finite
        self._wall_us = wall_us
        self._logs: dict[Partition, _Log] = {}
        self._paused = False

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_us: int | None = None,
    ) -> int:
        """Add a record at the end of a log, which is assigned by its first record; returns the offset."""
        log = self._logs.setdefault(partition, _Log())
        offset = log.beginning + len(log.records)
        log.records.append(RawRecord(partition, offset, value, key, headers, timestamp_us))
        return offset

    def retain(self, partition: Partition, beginning: int) -> None:
        """Retention: drop what is before ``beginning``."""
        log = self._logs[partition]
        del log.records[: beginning - log.beginning]
        log.beginning = beginning

    def revoke(self, partition: Partition) -> None:
        """A rebalance takes the partition away, after what is in flight was flushed."""
        self._on_revoke([partition])
        del self._logs[partition]

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """The next records, partition by partition."""
        records: list[RawRecord] = []
        gaps: list[Gap] = []
        if self._paused:
            return Polled(())
        for partition, log in self._logs.items():
            position = self._placed(partition, log)
            if position < log.beginning:
                gaps.append(Gap(partition, position, log.beginning))
                position = log.beginning
            at = position - log.beginning
            taken = log.records[at : at + max_records - len(records)]
            records += taken
            log.position = position + len(taken)
        if not records and not gaps and not self.exhausted:
            time.sleep(timeout_s)
        return Polled(records, gaps)

    def _placed(self, partition: Partition, log: _Log) -> int:
        if log.position is None:
            stored = self._start_offset(partition)
            log.position = log.beginning if stored is None else stored
        return log.position

    def assigned(self) -> Sequence[Partition]:
        """All logs."""
        return list(self._logs)

    def progress(self) -> Sequence[Progress]:
        """Where each log stands; a log whose end was reached has been caught up just now."""
        found = []
        for partition, log in self._logs.items():
            if log.position is not None:
                end = log.beginning + len(log.records)
                found.append(Progress(partition, log.position, end, self._wall_us() if log.position >= end else None))
        return found

    def rewind(self, partition: Partition) -> None:
        """Ask the store again where the partition goes on."""
        if partition in self._logs:
            self._logs[partition].position = None

    def pause(self) -> None:
        """Return nothing until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Return records again."""
        self._paused = False

    @property
    def exhausted(self) -> bool:
        """Whether a finite source has given everything."""
        return self._finite and all(
            log.position is not None and log.position >= log.beginning + len(log.records) for log in self._logs.values()
        )

    def close(self) -> None:
        """Give every log up."""
        self._on_revoke(list(self._logs))
