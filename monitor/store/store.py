"""The store: everything that segwatch remembers, in SQLite (one writing process) or PostgreSQL (any number).

    with Store.open(settings, write=True) as store:
        with store.transaction() as tx:
            tx.advance(Advance(partition, expected=7, next_offset=9, ...))
            new = tx.insert_samples(rows)
            tx.add_panes(...)
            tx.add_tallies(...)

Errors are StoreErrors; a DatabaseError says in ``retriable`` whether the same transaction may succeed next time. When
the connection breaks during a commit nobody can know whether it took place; the offset that ``load_offset`` then gives
tells, because it moved in the same transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL

from monitor.errors import SettingsError, StoreError
from monitor.settings import Settings
from monitor.sources.protocol import Partition
from monitor.store import (
    audit,
    baselines,
    early,
    heartbeats,
    keys,
    labels,
    leader,
    offsets,
    outbox,
    panes,
    purges,
    relabel_backlog,
    samples,
    schema,
    scores,
    tallies,
    traces,
)
from monitor.store.actions import Actions
from monitor.store.annotation_jobs import AnnotationJobs
from monitor.store.canary import Canaries
from monitor.store.candidates import Candidates
from monitor.store.database import Database, parse_url, wall_clock_us
from monitor.store.deliveries import Deliveries
from monitor.store.exports import Exports
from monitor.store.leader import Leader
from monitor.store.outbox import Claim
from monitor.store.relabel_backlog import Backlog
from monitor.store.relabel_queue import RelabelQueue
from monitor.store.samples import SampleWriter
from monitor.store.transaction import Transaction
from monitor.store.values import (
    ActiveBaseline,
    AuditLine,
    BaselineMeta,
    EarlyAlarm,
    EarlyReading,
    Heartbeat,
    JudgedRow,
    LabelledSample,
    LabelRow,
    OutboxBacklog,
    PaneExtent,
    PartitionProgress,
    PurgedInput,
    SpotCheckRow,
    StoredBaseline,
    StoredPane,
    StoredQuality,
    StoredScore,
)
from monitor.store.views import Views
from monitor.store.writer_lock import WriterLock
from monitor.tallies import TallyKey


class Store:
    """Open it with ``Store.open``. Its methods may be called from any thread."""

    def __init__(self, database: Database, lock: WriterLock | None, clock: Callable[[], int]) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self._samples = SampleWriter()
        self._delivering = threading.Lock()
        self._leading = threading.Lock()
        self._leader: Leader | None = None

    @classmethod
    def open(cls, settings: Settings, *, write: bool, clock: Callable[[], int] = wall_clock_us) -> Store:
        """Connect; for writing also make or migrate the schema.

        Raises WriterExists (SQLite: another process writes), SettingsError (a bad ``store.url``, or no file where a
        reader expects one), StoreError (a database that is away, empty, or of a newer release).
        """
        if settings.store.url:
            url = parse_url(settings.store.url, settings.store.password)
        else:
            url = URL.create("sqlite", database=str(Path(settings.data_dir) / "segwatch.db"))
        lock = None
        if url.get_backend_name() == "sqlite":
            file = Path(url.database or "")
            if write:
                lock = WriterLock(file.with_name("writer.lock"))
            elif not file.exists():
                raise SettingsError(f"{file}: there is no segwatch store here yet (data_dir, store.url)")
        database = Database(url, write=write)
        try:
            if write:
                schema.migrate(database)
            else:
                schema.check(database)
        except BaseException:
            database.close()
            if lock is not None:
                lock.release()
            raise
        return cls(database, lock, clock)

    @property
    def description(self) -> str:
        """Which database, without its password."""
        return self._database.name

    def close(self) -> None:
        """Close all connections, and let other processes lead and write."""
        if self._leader is not None:
            self._leader.release()
        self._database.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Ingest

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, rolled back on any exception."""
        with self._database.write() as connection:
            yield Transaction(connection, self._samples, self._clock())

    def load_offset(self, partition: Partition) -> int | None:
        """The first offset that has not been counted, None where the partition is new."""
        with self._database.read() as connection:
            return offsets.load(connection, partition)

    def register_topic(self, cluster: str, topic: str, topic_id: str) -> None:
        """Say which id the topic has now: partitions of its earlier ids no longer hold the watermark."""
        with self._database.write() as connection:
            offsets.register_topic(connection, cluster, topic, topic_id)

    def partition_progress(self) -> list[PartitionProgress]:
        """Where all partitions stand, but the retired ones."""
        with self._database.read() as connection:
            return offsets.progress(connection)

    # Statistics

    def read_panes(
        self,
        model: str,
        version: str,
        *,
        slice: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
        baseline_id: str | None = None,
    ) -> list[StoredPane]:
        """Panes that start in [since_us, until_us), by key; several parts of one pane are the caller's to merge."""
        with self._database.read() as connection:
            return panes.read(connection, model, version, slice, since_us, until_us, baseline_id)

    def pane_counts(
        self,
        model: str,
        version: str | None = None,
        *,
        slice: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> list[tuple[str, int, int]]:
        """``(version, start, successful records)`` of the panes that start in [since_us, until_us)."""
        with self._database.read() as connection:
            return panes.counts(connection, model, version, slice, since_us, until_us)

    def pane_extent(self, model: str | None = None) -> list[PaneExtent]:
        """Which models, versions, slices and times there are panes of."""
        with self._database.read() as connection:
            return panes.extent(connection, model)

    def closed_panes(
        self, model: str, version: str, baseline_id: str, *, since_us: int, until_us: int, limit: int
    ) -> list[StoredPane]:
        """The first ``limit`` folded panes of all records that start in [since_us, until_us), in order of time."""
        with self._database.read() as connection:
            return panes.folded(connection, model, version, baseline_id, since_us, until_us, limit)

    def read_tallies(self, pause: Callable[[], None] = lambda: None) -> dict[TallyKey, int]:
        """All totals as of one moment. ``pause`` is called between two pieces of work."""
        with self._database.read() as connection:
            return tallies.read(connection, pause)

    def scores(
        self,
        model: str,
        version: str | None = None,
        *,
        slice: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
        length_us: int | None = None,
    ) -> list[StoredScore]:
        """Last revisions of the windows that start in [since_us, until_us), in order of time; one per baseline."""
        with self._database.read() as connection:
            return scores.read(connection, model, version, slice, since_us, until_us, length_us)

    def latest_scores(self, *, length_us: int | None = None, slices: int | None = None) -> list[StoredScore]:
        """The newest scored window of every model, version, slice and length.

        ``slices``: at most so many of each slice key and model version, the first in their order.
        """
        with self._database.read() as connection:
            return scores.latest(connection, length_us, slices)

    def slice_counts(self, length_us: int) -> dict[tuple[str, str], int]:
        """How many slices of each (model, version) have a scored window of this length."""
        with self._database.read() as connection:
            return scores.slice_counts(connection, length_us)

    def early_readings(self) -> list[EarlyReading]:
        """Where every sequential test stands."""
        with self._database.read() as connection:
            return early.readings(connection)

    def early_alarms(
        self, model: str, version: str, baseline_id: str, *, after_us: int, until_us: int
    ) -> list[EarlyAlarm]:
        """Alarms of a sequential test in (after_us, until_us], in order of time."""
        with self._database.read() as connection:
            return early.alarms(connection, model, version, baseline_id, after_us, until_us)

    def relabel_backlog(self, now_us: int) -> dict[str, Backlog]:
        """By model: what of the relabel queue waits, and since when."""
        with self._database.read() as connection:
            return relabel_backlog.read(connection, now_us)

    # Labels

    def judged(
        self, model: str, version: str | None = None, *, since_us: int | None = None, until_us: int | None = None
    ) -> list[JudgedRow]:
        """What labels say of the records in [since_us, until_us), in order of version, event time and input."""
        with self._database.read() as connection:
            return labels.read_judged(connection, model, version, since_us, until_us)

    def labels_of(self, inputs: Sequence[str]) -> dict[str, list[LabelRow]]:
        """All annotations of each input."""
        with self._database.read() as connection:
            return labels.of_inputs(connection, inputs)

    def sampling_range(self, model: str, version: str, since_us: int, until_us: int) -> tuple[float, float] | None:
        """The lowest and the highest sampling probability of a time's successful records; None without any."""
        with self._database.read() as connection:
            return samples.sampling_range(connection, model, version, since_us, until_us)

    def inputs_between(self, model: str, version: str, since_us: int, until_us: int) -> list[tuple[str, str]]:
        """``(input, slices as JSON)`` of a time's successful records, in order of time."""
        with self._database.read() as connection:
            return samples.inputs_between(connection, model, version, since_us, until_us)

    def samples_of(self, inputs: Sequence[str]) -> dict[str, list[LabelledSample]]:
        """The successful records of each input, with what is kept of their masks."""
        with self._database.read() as connection:
            return labels.samples_of(connection, inputs)

    def open_spot_checks(self, model: str | None = None, limit: int = 1000) -> list[SpotCheckRow]:
        """What was asked to be labelled and has no label yet, the newest choice first."""
        with self._database.read() as connection:
            return labels.open_checks(connection, model, limit)

    @property
    def relabel(self) -> RelabelQueue:
        """What is to be labelled."""
        return RelabelQueue(self._database, self._clock)

    @property
    def candidates(self) -> Candidates:
        """What may be chosen to be labelled."""
        return Candidates(self._database)

    @property
    def annotation_jobs(self) -> AnnotationJobs:
        """Jobs of an annotation tool that are to be fetched."""
        return AnnotationJobs(self._database, self._clock)

    @property
    def canaries(self) -> Canaries:
        """What two versions have seen of the same inputs, and what was said of canaries."""
        return Canaries(self._database)

    @property
    def actions(self) -> Actions:
        """What was asked of others."""
        return Actions(self._database)

    @property
    def deliveries(self) -> Deliveries:
        """Actions on their way to receivers."""
        return Deliveries(self._database, self._clock)

    @property
    def exports(self) -> Exports:
        """What annotation tools are given, and whether what they send back was."""
        return Exports(self._database)

    @property
    def views(self) -> Views:
        """What pages show."""
        return Views(self._database)

    def quality(self) -> list[StoredQuality]:
        """What was estimated last of every version, by model and version."""
        with self._database.read() as connection:
            return labels.read_quality(connection)

    def try_lead(self) -> Leader | None:
        """Leadership of the evaluators, or None while another process (or thread of this one) has it."""
        if not self._database.writable:
            raise StoreError(f"{self._database.name} was opened for reading only")
        if not self._leading.acquire(blocking=False):
            return None
        try:
            led = leader.try_lead(self._database, self._clock, self._leading.release)
        except BaseException:
            self._leading.release()
            raise
        if led is None:
            self._leading.release()
        self._leader = led
        return led

    def heartbeats(self) -> list[Heartbeat]:
        """The last sign of life of each leadership of the last day, the newest first."""
        with self._database.read() as connection:
            return heartbeats.read(connection)

    # Baselines

    def add_baseline(
        self, model: str, version: str, *, format_version: int, meta: Mapping[str, object], payload: bytes
    ) -> str:
        """Store a baseline (the same content only once); returns its id. ``meta`` is for people, as JSON."""
        with self._database.write() as connection:
            return baselines.add(connection, model, version, format_version, meta, payload, self._clock())

    def baselines(self, model: str | None = None) -> list[BaselineMeta]:
        """All baselines, or a model's, the oldest first."""
        with self._database.read() as connection:
            return baselines.listing(connection, model)

    def baseline(self, identity: str) -> StoredBaseline:
        """A baseline by its id or an unambiguous beginning of it. Raises BaselineError."""
        with self._database.read() as connection:
            return baselines.load(connection, identity)

    def activate(self, identity: str, *, who: str = "") -> BaselineMeta:
        """Make a baseline the one that its model version is scored against. Raises BaselineError.

        ``who`` is written to the audit log; "" for nobody in particular (the demo).
        """
        with self._database.write() as connection:
            now_us = self._clock()
            meta = baselines.activate(connection, identity, now_us)
            if who:
                detail = {"version": meta.version, "baseline": meta.id}
                audit.append(connection, now_us, who, "baseline.activate", meta.model, detail)
            return meta

    def active_baselines(self) -> dict[tuple[str, str], ActiveBaseline]:
        """The active baseline of each (model, version) that has one."""
        with self._database.read() as connection:
            return baselines.active(connection)

    # Privacy

    def trace(self, input_id: str, actions_topic: str) -> traces.InputTrace:
        """All that is stored of an input."""
        with self._database.read() as connection:
            return traces.read(connection, input_id, actions_topic)

    @property
    def is_postgres(self) -> bool:
        """PostgreSQL rather than SQLite."""
        return self._database.is_postgres

    def now_us(self) -> int:
        """The store's clock, in microseconds since the epoch."""
        return self._clock()

    def key(self, name: str) -> bytes:
        """The store's secret key of this name, made where there is none yet."""
        if not self._database.writable:
            raise StoreError(f"{self._database.name} was opened for reading only")
        with self._database.write() as connection:
            return keys.get(connection, name)

    def purged(self, inputs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Of these (model, input) those that are purged, as of now: nothing is locked."""
        with self._database.read() as connection:
            return purges.Tombstones(connection, lock=False).of(inputs)

    def purge(
        self,
        inputs: Sequence[str],
        model: str | None,
        who: str,
        reason: str,
        without: Callable[[bytes, str], bytes],
    ) -> list[PurgedInput]:
        """Delete all that is stored of inputs, in one transaction with the lines of the audit log.

        ``without`` as in `monitor.store.purges.purge`.
        """
        with self._database.write() as connection:
            now_us = self._clock()
            done = []
            for input_id in inputs:
                one = purges.purge(connection, input_id, model, now_us, without)
                told = reason.replace(input_id, one.reference)
                detail = {"model": model, "reason": told, "removed": dict(one.removed), "again": not one.is_new}
                audit.append(connection, now_us, who, "purge", one.reference, detail)
                done.append(one)
        if not self._database.is_postgres:
            with self._database.read() as connection:  # the log of SQLite's writes holds the pages as they were
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return done

    # Audit

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._database.writable

    def audit(self, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
        """Add a line to the audit log; see `monitor.audit.record`."""
        with self._database.write() as connection:
            audit.append(connection, self._clock(), who, what, subject, detail)

    def read_audit(
        self,
        *,
        since_us: int | None = None,
        what: str | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> list[AuditLine]:
        """Lines of the audit log from ``since_us`` on, the oldest first; of more than ``limit`` the newest."""
        with self._database.read() as connection:
            return audit.read(connection, since_us, what, subject, limit)

    # Outbox

    @contextmanager
    def claim_outbox(self, limit: int) -> Iterator[Claim]:
        """Messages to deliver, the oldest first, for this caller alone.

        At the end of the block all count as sent, but those given to ``Claim.keep``; an exception leaves all queued.
        """
        with self._delivering, outbox.claim(self._database, limit, self._clock()) as claimed:
            yield claimed

    def outbox_pending(self) -> int:
        """How many messages wait for delivery."""
        with self._database.read() as connection:
            return outbox.pending(connection)

    def outbox_backlog(self) -> OutboxBacklog:
        """What waits for delivery, and since when."""
        with self._database.read() as connection:
            return outbox.backlog(connection)
