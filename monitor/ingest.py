"""Records in, one transaction a chunk out. Three stages on threads of their own, with small queues between them.

    read     poll, decode, sort out bad and late records, start preparing images          (the thread of ``run``)
    embed    wait for the images, run the backbone, project, bin                          (threads "embed")
    commit   one transaction: offsets, identities, panes, tallies, dead letters           (thread "commit")

When a queue is full the source is paused and polled on, so that the group membership lives and nothing piles up. A
commit that finds its partition advanced by somebody else drops that partition's records and commits the rest.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress
from typing import TypeVar

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from embeddings.allocator import share_heaps
from embeddings.engines import usable_cores
from monitor.baseline_book import BaselineBook, Embedders, Route
from monitor.codes import codes_of
from monitor.contributions import Counted, pane_deltas, tally_counted, tally_outcome
from monitor.dead_letters import dead_letter
from monitor.errors import BadRecord, PartitionLost, StoreError
from monitor.extract import UNUSED_SIZE, Prepared, images_at_once, instances_in
from monitor.images import open_images
from monitor.images.keeping import ImageKeeper
from monitor.kept_masks import keep
from monitor.label_rows import label_row
from monitor.records import Label, Limits, Model, Prediction, decode_chunk
from monitor.redact import KEY, Redaction
from monitor.settings import Settings
from monitor.sources.protocol import Gap, Partition, Polled, Progress, RawRecord, Source
from monitor.store.store import Store
from monitor.store.transaction import Transaction
from monitor.store.values import Advance, LabelRow, OutboxMessage
from monitor.sureness import Sureness, mask_areas
from monitor.tallies import DEAD_LETTER, DROPPED, LABELS, RECORDS, TallyKey
from monitor.telemetry import consume_span, span
from monitor.windows import SECOND_US, is_late

log = logging.getLogger(__name__)

T = TypeVar("T")

Totals = tuple[Counter[str], Counter[str], Counter[str]]
"""Outcomes of records, reasons of dead letters, outcomes of labels."""

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 5.0
PATIENCE_S = 1.0
"""How long a chunk waits for a place in the queue before the source is paused."""
FIRST_POLL = 64
NOTHING = Prepared(None, None, None, (), None, None)
"""What a failed inference leaves: no instances."""
FILE_CLUSTER = "file"


class Item(msgspec.Struct, eq=False):
    """One record on its way through the stages. A struct, because it is made in a third of a dataclass's time."""

    raw: RawRecord
    prediction: Prediction | None = None
    label: Label | None = None
    route: Route | None = None
    pending: Future[Prepared | BadRecord] | Prepared | BadRecord | None = None
    bad: BadRecord | None = None
    late: bool = False


@dataclass(slots=True)
class Chunk:
    """What one transaction takes: records, the offsets that they move, and gaps. Sentinel: ``last``."""

    items: list[Item] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)
    advances: list[Advance] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    embedded: Future[None] | None = None
    """Done when ``counted`` is complete."""
    last: bool = False


@dataclass(slots=True)
class IngestCounts:
    """What this process has committed since it started; the lasting totals are in the store."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    """What became of the labels read; bad ones are among the outcomes too, as ``dead_letter``."""
    skipped: int = 0
    """Outside the slice that was asked for."""
    refused: int = 0
    """Labels that fitted no record when they were judged, in a replay: among the outcomes as ``dead_letter``, and as
    what they were taken for among the labels."""

    @property
    def read(self) -> int:
        taken = sum(count for name, count in self.labels.items() if name != "dead_letter")
        return sum(self.outcomes.values()) + taken - self.refused

    def add_refused(self, reasons: Counter[str]) -> None:
        """By reason."""
        self.refused += reasons.total()
        self.outcomes += Counter(dead_letter=reasons.total())  # which keeps no name with a count of 0
        self.reasons += reasons


OnBad = Callable[[RawRecord, BadRecord], None]


class Ingest:
    """Feeds one source into the store.

    The source takes two of its methods: ``start_offset``, and ``settle`` for before partitions are given up.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        embedders: Embedders,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_bad: OnBad | None = None,
        slice_key: str = "",
    ) -> None:
        share_heaps(usable_cores())  # before the stages' threads start
        self._store = store
        self._settings = settings
        self._wall_us = wall_us
        self._on_bad = on_bad
        self._keeps = settings.quality.keep_masks_days > 0
        self._slice = tuple(slice_key.split("=", 1)) if slice_key else None
        self._pool = ThreadPoolExecutor(settings.embedding.decode_threads, thread_name_prefix="prepare")
        self._redaction = Redaction(settings.redact, store.key(KEY) if settings.redact.drop_fields else b"")
        self._keeper: ImageKeeper | None = None
        if settings.samples.keep_images_days and settings.samples.share:
            self._keeper = ImageKeeper(open_images(settings), settings, self._is_purged)
        self._book = BaselineBook(store, settings, embedders, self._pool, keeper=self._keeper)
        self._limits = Limits.from_settings(settings)
        self._expected: dict[Partition, int | None] = {}
        self._max_event_us: dict[Partition, int] = {}
        self._lost: set[Partition] = set()
        self._stash: list[Polled] = []
        self._to_embed: queue.Queue[Chunk] = queue.Queue(settings.ingest.queue_chunks)
        self._to_commit: queue.Queue[Chunk] = queue.Queue(settings.ingest.queue_chunks)
        self._in_flight = 0
        self._at_once = min(settings.ingest.chunk_records, FIRST_POLL)
        self._idle = threading.Condition()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._embedders = embedders
        self._work_told = embedders.work()  # what others did with them is not this one's to tell
        self.counts = IngestCounts()

    # -- what the source asks ------------------------------------------------------------------------------------

    def start_offset(self, partition: Partition) -> int | None:
        """The store's next offset; remembered as what the next commit expects. Older topics of its name retire."""
        # What was polled before the partition was placed anew may lie beyond its new place: reading goes on there.
        self._stash = [_without(polled, partition) for polled in self._stash]
        self._store.register_topic(partition.cluster, partition.topic, partition.topic_id)
        stored = self._store.load_offset(partition)
        self._expected[partition] = stored
        return stored

    def settle(self, _partitions: Sequence[Partition] = (), timeout_s: float = 20.0) -> None:
        """Wait until everything read so far is committed. Giving up early is safe: commits compare offsets."""
        deadline = time.monotonic() + timeout_s
        with self._idle:
            while self._in_flight and self._failure is None and time.monotonic() < deadline:
                self._idle.wait(0.1)

    # -- the read stage ------------------------------------------------------------------------------------------

    def run(self, source: Source, stop: threading.Event) -> IngestCounts:
        """Read until ``stop`` is set or the source is exhausted; everything read is committed before it returns.

        Raises what a stage failed with, after the other stages have ended.
        """
        self._stop = stop
        embed = threading.Thread(target=self._guard, args=(self._embed_loop,), name="embed", daemon=True)
        commit = threading.Thread(target=self._guard, args=(self._commit_loop,), name="commit", daemon=True)
        embed.start()
        commit.start()
        try:
            # Products here are small, and a second thread of BLAS waits for the next one by turning in a circle: on
            # two cores that took a third of all CPU time.
            with threadpool_limits(1, "blas"):
                self._read_loop(source, stop)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._put(self._to_embed, Chunk(last=True))
            embed.join()
            commit.join()
            self._pool.shutdown(cancel_futures=True)
        if self._failure is not None:
            raise self._failure
        return self.counts

    def _guard(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            self._failure = self._failure or error
            with self._idle:
                self._idle.notify_all()

    def _put(self, target: queue.Queue[Chunk], chunk: Chunk) -> bool:
        while self._failure is None:
            try:
                target.put(chunk, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _read_loop(self, source: Source, stop: threading.Event) -> None:
        heartbeat_at = 0.0
        while not stop.is_set() and self._failure is None:
            if self._lost or (source.exhausted and not self._stash):
                # What is under way ends first: a refused commit takes those behind it along, and gives records back.
                self.settle()
                if not self._lost:
                    return
                while self._lost:
                    source.rewind(self._lost.pop())
            polled = self._stash.pop(0) if self._stash else source.poll(0.2, self._at_once)
            beat = time.monotonic() - heartbeat_at > self._settings.ingest.heartbeat_seconds
            if not (polled.records or polled.gaps or beat):
                continue
            heartbeat_at = time.monotonic()
            chunk = self._read_chunk(source, polled.records, polled.gaps)
            if chunk.items:
                self._at_once = self._how_many(chunk)
            if chunk.items or chunk.advances or chunk.gaps:
                self._hand_over(source, chunk)

    def _how_many(self, chunk: Chunk) -> int:
        """Records of the next poll. Where this one brought images, no more than memory should hold of them."""
        plans = [item.route.extractor.plan for item in chunk.items if item.route and isinstance(item.pending, Future)]
        if not plans:
            return self._settings.ingest.chunk_records
        size = max([plan.input_size if plan and plan.input_size else UNUSED_SIZE for plan in plans])
        return images_at_once(size, self._settings.embedding.batch_size, self._settings.ingest.chunk_records)

    def _hand_over(self, source: Source, chunk: Chunk) -> None:
        # Most chunks wait a little here; a pause would throw away what is just being fetched.
        if self._queue(chunk, PATIENCE_S):
            return
        source.pause()
        while self._failure is None and not self._queue(chunk, 0.2):
            # The poll keeps the membership alive; a partition assigned just now may give something all the same.
            polled = source.poll(0.0, 1)
            if polled.records or polled.gaps:
                self._stash.append(polled)
        source.resume()

    def _queue(self, chunk: Chunk, timeout_s: float) -> bool:
        """A chunk that still waits here is not in flight: ``settle``, called from a poll, would wait for itself."""
        with self._idle:
            self._in_flight += 1
        try:
            self._to_embed.put(chunk, block=timeout_s > 0, timeout=timeout_s or None)
        except queue.Full:
            with self._idle:
                self._in_flight -= 1
            return False
        return True

    def _read_chunk(self, source: Source, records: Sequence[RawRecord], gaps: Sequence[Gap]) -> Chunk:
        standing = source.progress()
        # Without an offset to advance nothing would keep a record from being counted here and by its new owner.
        owned = {progress.partition for progress in standing}
        gaps = [gap for gap in gaps if gap.partition in owned]
        # After a rewind, what was fetched before it may still come: it is committed already.
        first = {partition: expected or 0 for partition, expected in self._expected.items()}
        first.update({gap.partition: min(first.get(gap.partition, 0), gap.stop) for gap in gaps})
        records = [raw for raw in records if raw.partition in owned and raw.offset >= first.get(raw.partition, 0)]
        chunk = Chunk(gaps=gaps)
        decoded = decode_chunk(records, self._limits, self._wall_us())
        lateness_us = round(self._settings.windows.allowed_lateness_seconds * SECOND_US)
        reached: dict[Partition, int] = {gap.partition: gap.stop for gap in gaps}
        routes: dict[Model, Route | None] = {}
        for raw, value in zip(records, decoded, strict=True):
            partition = raw.partition
            if raw.offset >= reached.get(partition, 0):
                reached[partition] = raw.offset + 1
            item = Item(raw)
            chunk.items.append(item)
            if isinstance(value, BadRecord):
                item.bad = value
                continue
            if isinstance(value, Label):
                item.label = value
                if value.model is not None and self._route_once(routes, value.model) is None:
                    item.bad = _unknown(value.model)
                continue
            item.prediction = value
            if self._slice is not None and value.slices.get(self._slice[0]) != self._slice[1]:
                chunk.items.pop()
                self.counts.skipped += 1
                continue
            if self._redaction.active:
                item.prediction = value = self._redaction.prediction(value)
            event_us = value.event_time_us
            if event_us > self._max_event_us.get(partition, -1):
                self._max_event_us[partition] = event_us
            item.late = is_late(event_us, raw.timestamp_us, lateness_us)
            with consume_span(raw, self._settings.kafka.group_id):
                item.route = self._route_once(routes, value.model)
                if item.route is None:
                    item.bad = _unknown(value.model)
                elif value.status == "ok" and not item.late:
                    item.pending = item.route.extractor.submit(value)
        chunk.advances = self._advances(standing, reached)
        return chunk

    def _route_once(self, routes: dict[Model, Route | None], model: Model) -> Route | None:
        """The route of a model version; ``routes`` are those that this chunk has asked for."""
        try:
            return routes[model]
        except KeyError:
            routes[model] = route = self._retrying(lambda: self._book.route(model.name, model.version))
            return route

    def _advances(self, standing: Sequence[Progress], reached: dict[Partition, int]) -> list[Advance]:
        """Offsets that the chunk moves, and heartbeats of partitions in which nothing came."""
        advances = []
        stashed = {raw.partition for polled in self._stash for raw in polled.records}
        stashed |= {gap.partition for polled in self._stash for gap in polled.gaps}
        for progress in standing:
            partition = progress.partition
            if partition.cluster == FILE_CLUSTER:
                continue
            if partition not in self._expected or (partition in stashed and partition not in reached):
                continue
            expected = self._expected[partition]
            # Only a log that was cut back (a gap that ends before what is expected) makes an offset go down.
            next_offset = reached.get(partition, expected or 0)
            at_end = progress.caught_up_at_us is not None and progress.position >= progress.end_offset
            # The source's position is beyond what it gave and what waits here.
            at_end = at_end and partition not in stashed
            if at_end:
                # Control records of transactions end a log without a record to show for it.
                next_offset = max(next_offset, progress.position)
            elif expected is None and not next_offset:
                next_offset = progress.position
            advances.append(
                Advance(
                    partition,
                    expected,
                    next_offset,
                    max(progress.end_offset, next_offset),
                    self._max_event_us.get(partition),
                    progress.caught_up_at_us if at_end else None,
                )
            )
            self._expected[partition] = next_offset
        return advances

    # -- the embed stage -----------------------------------------------------------------------------------------

    def _embed_loop(self) -> None:
        """Two chunks at a time, so that the backbone's threads have work while one chunk ends and the next begins."""
        with ThreadPoolExecutor(2, thread_name_prefix="embed") as pool:
            while self._failure is None:
                try:
                    chunk = self._to_embed.get(timeout=0.2)
                except queue.Empty:
                    continue
                if not chunk.last:
                    chunk.embedded = pool.submit(self._embed, chunk)
                if not self._put(self._to_commit, chunk) or chunk.last:
                    return

    def _embed(self, chunk: Chunk) -> None:
        by_route: dict[int, list[tuple[Item, Prepared | None]]] = {}
        for item in chunk.items:
            pending = item.pending
            item.pending = None
            outcome = pending.result() if isinstance(pending, Future) else pending
            if isinstance(outcome, BadRecord):
                item.bad = outcome
            elif item.bad is None and not item.late and item.prediction is not None:
                by_route.setdefault(id(item.route), []).append((item, outcome))
        for members in by_route.values():
            chunk.counted.append(self._counted(members))

    def _counted(self, members: Sequence[tuple[Item, Prepared | None]]) -> Counted:
        """Records of one route; those of failed inferences come without anything prepared."""
        route = members[0][0].route
        assert route is not None
        prepared = [each for _, each in members if each is not None]
        succeeded = np.array([each is not None for _, each in members], dtype=np.bool_)
        instances = instances_in([each or NOTHING for _, each in members], route.classes)
        with span("embed", records=len(prepared)):
            good = [item.prediction for item, each in members if each is not None and item.prediction is not None]
            coded = codes_of(route, prepared, good, instances if succeeded.all() else instances.where(succeeded))
        coded = coded.among(succeeded)
        bins = route.baseline.statistic.binning.bins if route.baseline is not None else 1
        predictions = [item.prediction for item, _ in members if item.prediction is not None]
        raws = [item.raw for item, _ in members]
        masks: list[bytes | None] = [None] * len(members)
        sureness = None
        if self._keeps:
            masks = [each and keep(one, each.size) for one, (_, each) in zip(predictions, members, strict=True)]
            areas = coded.areas
            if areas is None:
                areas = mask_areas([instance.mask for one in good for instance in one.instances or ()])
            sureness = Sureness(areas, [each and each.sureness for _, each in members])
        return Counted(
            raws,
            predictions,
            succeeded,
            coded.codes,
            instances,
            route.baseline_id,
            bins,
            route.classes,
            masks,
            coded.components,
            sureness,
        )

    # -- the commit stage ----------------------------------------------------------------------------------------

    def _commit_loop(self) -> None:
        while self._failure is None:
            try:
                chunk = self._to_commit.get(timeout=0.2)
            except queue.Empty:
                continue
            if chunk.last:
                return
            if chunk.embedded is not None:
                chunk.embedded.result()
            self._commit(chunk)
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()

    def _commit(self, chunk: Chunk) -> None:
        """Commit, dropping the partitions that were lost, waiting out a database that is away."""
        work = self._embedders.work() - self._work_told
        while self._failure is None:
            try:
                outcomes, reasons, labels = self._retrying(lambda: self._transact(chunk, work))
            except PartitionLost as lost:
                log.info("%s: somebody else went on with it; its records are left to them", lost)
                partition = lost.partition
                chunk.items = [item for item in chunk.items if item.raw.partition != partition]
                chunk.counted = [
                    records.where(np.array([raw.partition != partition for raw in records.raws], dtype=np.bool_))
                    for records in chunk.counted
                ]
                chunk.gaps = [gap for gap in chunk.gaps if gap.partition != partition]
                chunk.advances = [advance for advance in chunk.advances if advance.partition != partition]
                if isinstance(partition, Partition):
                    self._lost.add(partition)
            else:
                self._work_told += work
                self.counts.outcomes.update(outcomes)
                self.counts.reasons.update(reasons)
                self.counts.labels.update(labels)
                self._report_bad(chunk)
                return

    def _label_row(self, raw: RawRecord, label: Label) -> LabelRow:
        row = label_row(raw, label)
        return row._replace(value=self._redaction.label(row.value)) if self._redaction.active else row

    def _is_purged(self, model: str, input_id: str) -> bool:
        """As of now; what is purged in the meantime is noticed by its transaction."""
        try:
            return bool(self._store.purged([(model, input_id)]))
        except StoreError:
            return True  # nobody knows: rather no image

    def _transact(self, chunk: Chunk, work: Counter[TallyKey]) -> Totals:
        with span("commit", records=len(chunk.items)), self._store.transaction() as tx:
            totals = self._write(tx, chunk, work)
        if self._keeper is not None:
            for row in tx.purged:
                self._keeper.forget(row.model, row.version, row.input_id, row.event_time_us)
        return totals

    def _retrying(self, call: Callable[[], T]) -> T:
        """Call again while the database is away; once told to stop, only for a moment: it may stay away for long.

        What was not committed then is read again by the next worker.
        """
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return call()
            except StoreError as error:
                is_over = self._failure is not None or (self._stop.is_set() and delay_s >= RETRY_MOST_S)
                if not error.retriable or is_over:
                    raise
                log.warning("store: %s; again in %.1f s", error, delay_s)
                time.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MOST_S)

    def _report_bad(self, chunk: Chunk) -> None:
        if self._on_bad is not None:
            for item in chunk.items:
                if item.bad is not None:
                    self._on_bad(item.raw, item.bad)

    def _write(self, tx: Transaction, chunk: Chunk, work: Counter[TallyKey]) -> Totals:
        # Offsets, identities, labels, panes, tallies: the same order in every worker, so that no two can deadlock.
        tx.advance(*chunk.advances)
        tallies: Counter[TallyKey] = Counter()
        outbox: list[OutboxMessage] = []
        is_new = tx.insert_samples([row for records in chunk.counted for row in records.samples()])
        new = []
        for records in chunk.counted:
            fresh, is_new = is_new[: len(records)], is_new[len(records) :]
            new.append(records.where(fresh))
            tally_counted(tallies, new[-1])
            for prediction in compress(records.predictions, ~fresh):
                _tally_item(tallies, prediction, "duplicate")
        told = [item for item in chunk.items if item.label is not None and item.bad is None]
        for outcome in tx.insert_labels([self._label_row(item.raw, item.label) for item in told if item.label]):
            tallies[TallyKey(LABELS, "", "", outcome, 0)] += 1
        late = [item for item in chunk.items if item.late and item.bad is None and item.prediction is not None]
        known = tx.known_samples([_identity(item) for item in late])
        for item, seen in zip(late, known, strict=True):
            _tally_item(tallies, item.prediction, "duplicate" if seen else "late")
        for item in chunk.items:
            if item.bad is not None:
                if item.label is not None:
                    tallies[TallyKey(LABELS, "", "", "dead_letter", 0)] += 1
                model = item.prediction.model if item.prediction is not None and item.route is not None else None
                tally_outcome(tallies, model.name if model else "", model.version if model else "", "dead_letter")
                tallies[TallyKey(DEAD_LETTER, "", "", item.bad.reason, 0)] += 1
                topic = self._settings.kafka.dead_letter_topic
                outbox.append(dead_letter(item.raw, item.bad, topic, redacted=self._redaction.active))
        for gap in chunk.gaps:
            tally_outcome(tallies, "", "", "dropped", gap.stop - gap.start)
            tallies[TallyKey(DROPPED, "", "", gap.reason, 0)] += gap.stop - gap.start
        pane_us = self._settings.windows.pane_seconds * SECOND_US
        tx.add_panes(pane_deltas(new, pane_us, self._settings.windows.slice_keys))
        tallies.update(work)
        tx.add_tallies(tallies)
        tx.add_outbox(outbox)
        return _summary(tallies)


def _without(polled: Polled, partition: Partition) -> Polled:
    return Polled(
        [raw for raw in polled.records if raw.partition != partition],
        [gap for gap in polled.gaps if gap.partition != partition],
    )


def _identity(item: Item) -> tuple[str, str, str]:
    assert item.prediction is not None
    return item.prediction.model.name, item.prediction.model.version, item.prediction.input_id


def _tally_item(tallies: Counter[TallyKey], prediction: Prediction | None, outcome: str) -> None:
    assert prediction is not None
    tally_outcome(tallies, prediction.model.name, prediction.model.version, outcome)


def _unknown(model: Model) -> BadRecord:
    return BadRecord("unknown_model", f"no baseline has the model name {model.name!r}")


def _summary(tallies: Counter[TallyKey]) -> Totals:
    by_series: dict[str, Counter[str]] = {RECORDS: Counter(), DEAD_LETTER: Counter(), LABELS: Counter()}
    for key, count in tallies.items():
        if key.series in by_series:
            by_series[key.series][key.label] += count
    return by_series[RECORDS], by_series[DEAD_LETTER], by_series[LABELS]
