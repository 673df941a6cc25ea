"""Ingest: records in, one transaction a chunk out; counted once, nothing lost, in whatever order they come."""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.signals.class_mix import OTHER
from monitor.baseline_book import RETRY_UNKNOWN_S, Route
from monitor.classes import Classes
from monitor.codes import Coded
from monitor.errors import BadRecord, StoreError
from monitor.offline import make_baseline
from monitor.pane_state import PaneState
from monitor.settings import Settings
from monitor.sources.files import FileSource
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import Gap, Partition, Polled, RawRecord
from monitor.store.database import DatabaseError
from monitor.store.store import Store
from monitor.store.transaction import Transaction
from monitor.store.values import Advance, PaneKey
from monitor.tallies import CONFIDENCE_BUCKET, DEAD_LETTER, DROPPED, LAST_EVENT_US, RECORDS, TallyKey
from monitor.windows import SECOND_US, pane_start, to_text
from tests.embedded import (
    HOUR_US,
    NOW_US,
    add_baseline,
    baseline_of,
    encode,
    eventually,
    feed,
    image_record,
    ingest_of,
    log_of,
    open_store,
    outcomes_of,
    partition,
    picture,
    records_in,
    run,
    running,
    settings_of,
    state_of,
)
from tests.made_png import assembled, header, png
from tests.made_records import DIMENSIONS, MASK, lines, prediction, predictions

State = tuple[dict[PaneKey, bytes], dict[TallyKey, int]]
PANE_US = 300 * SECOND_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, ingest={"chunk_records": 16})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """A store with the baselines of both models."""
    with open_store(settings, ("street", "yard")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """However a run ends, its threads end with it."""
    yield
    left = {thread.name for thread in threading.enumerate()}
    assert not {name for name in left if name in ("embed", "commit") or name.startswith("prepare")}


def good(count: int, first: int = 0, **more: Any) -> list[bytes]:
    """Records of the last hour."""
    return [encode(record) for record in predictions(count, NOW_US - HOUR_US, 0.9, first=first, **more)]


def letters(store: Store) -> list[tuple[str, bytes | None]]:
    """(reason, value) of the dead letters that wait in the outbox."""
    with store.claim_outbox(10_000) as claimed:
        for message in claimed:
            claimed.keep(message.id)
        return [(dict(message.headers)["segwatch_reason"].decode(), message.value) for message in claimed]


def mixture() -> list[bytes]:
    """Every outcome but late: given embeddings, images, failures, repeats, a version without baseline, bad ones."""
    base = NOW_US - HOUR_US
    values = good(24)
    values += [encode(image_record(i, base + i * 90 * SECOND_US)) for i in range(8)]
    values += [encode(prediction(100 + i, base, status="oom", embedding=None, instances=None)) for i in range(3)]
    values += [encode(prediction(i, base, version="9")) for i in range(4)]
    values += [values[0], values[0], values[25], values[33]]
    return [*values, b"{", encode(prediction(1, base, model={"name": "nobody", "version": "1"}))]


def counted(values: Sequence[bytes], chunk: int, partitions: int, workers: int) -> State:
    """What a new store holds when so many workers have read their shares of the values at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(Path(folder), ingest={"chunk_records": chunk})
        with open_store(settings, ("street", "yard")) as store, ThreadPoolExecutor(workers) as pool:
            done = [
                pool.submit(
                    feed, store, settings, values[number::workers], partitions=partitions, topic_id=f"log-{number}"
                )
                for number in range(workers)
            ]
            for one in done:
                one.result()
            return state_of(store)


class TestOrderDoesNotMatter:
    EXPECTED: ClassVar[list[State]] = []

    @classmethod
    def setup_class(cls) -> None:
        cls.EXPECTED.append(counted(mixture(), chunk=256, partitions=1, workers=1))

    @given(order=st.permutations(range(45)), chunk=st.integers(1, 50), split=st.sampled_from([(1, 1), (3, 1), (2, 2)]))
    @hypothesis_settings(max_examples=12)
    def test_any_permutation_chunk_size_and_split_over_workers_gives_the_same_bytes(
        self, order: list[int], chunk: int, split: tuple[int, int]
    ) -> None:
        values = mixture()
        assert len(values) == len(order)
        panes, tallies = counted([values[i] for i in order], chunk, *split)
        assert panes == self.EXPECTED[0][0]
        assert tallies == self.EXPECTED[0][1]

    def test_every_outcome_is_among_them(self) -> None:
        panes, tallies = self.EXPECTED[0]
        outcomes = Counter[str]()
        for key, value in tallies.items():
            if key.series == RECORDS:
                outcomes[key.label] += value
        assert outcomes == {"ok": 36, "failed": 3, "duplicate": 4, "dead_letter": 2}
        assert {(key.model, key.version) for key in panes} == {("street", "1"), ("street", "9"), ("yard", "1")}


class TestDuplicates:
    def test_a_repeat_in_the_same_chunk_counts_once(self, store: Store, settings: Settings) -> None:
        values = good(5)
        feed(store, settings, [*values, *values])
        assert outcomes_of(store) == {"ok": 5, "duplicate": 5}
        assert records_in(store) == 5

    def test_a_repeat_in_another_chunk_and_another_partition_counts_once(
        self, store: Store, settings: Settings
    ) -> None:
        values = good(40)
        feed(store, settings, [*values, *values], partitions=3)
        assert outcomes_of(store) == {"ok": 40, "duplicate": 40}

    def test_a_repeat_after_a_restart_counts_once(self, tmp_path: Path, settings: Settings) -> None:
        values = good(20)
        with open_store(settings) as first:
            feed(first, settings, values)
        with open_store(settings) as second:
            feed(second, settings, values)  # the same log: its offsets are known, nothing is read
            assert outcomes_of(second) == {"ok": 20}
            feed(second, settings, values, topic_id="another")
            assert outcomes_of(second) == {"ok": 20, "duplicate": 20}
            assert records_in(second) == 20

    def test_a_repeat_is_one_whatever_its_content(self, store: Store, settings: Settings) -> None:
        changed = prediction(3, NOW_US - HOUR_US, status="error", embedding=None)
        feed(store, settings, [*good(5), encode(changed)])
        assert outcomes_of(store) == {"ok": 5, "duplicate": 1}

    def test_a_failed_inference_is_counted_once_and_not_among_the_statistics(
        self, store: Store, settings: Settings
    ) -> None:
        failed = encode(prediction(7, NOW_US - HOUR_US, status="timeout", embedding=None, instances=None))
        feed(store, settings, [failed, failed])
        assert outcomes_of(store) == {"failed": 1, "duplicate": 1}
        assert records_in(store) == 0

    def test_two_versions_and_two_models_may_see_the_same_input(self, store: Store, settings: Settings) -> None:
        add_baseline(store, "street", "2")
        add_baseline(store, "yard", "2")
        same = image_record(1, NOW_US - HOUR_US)
        values = [
            encode(prediction(1, NOW_US - HOUR_US, version=version, input_id=same["input_id"]))
            for version in ("1", "2", "3")
        ]
        values += [encode({**same, "model": {"name": "yard", "version": version}}) for version in ("1", "2")]
        feed(store, settings, values)
        assert outcomes_of(store) == {"ok": 5}


class TestLateness:
    WEEK_US = 7 * 24 * HOUR_US

    def test_the_records_own_timestamp_decides_not_the_clock(self, store: Store, settings: Settings) -> None:
        old = NOW_US - 30 * 24 * HOUR_US
        value = encode(prediction(1, old))
        feed(store, settings, [value], timestamp_us=old + self.WEEK_US)
        assert outcomes_of(store) == {"ok": 1}
        value = encode(prediction(2, old))
        feed(store, settings, [value], timestamp_us=old + self.WEEK_US + 1, topic_id="other")
        assert outcomes_of(store) == {"ok": 1, "late": 1}
        assert records_in(store) == 1

    def test_a_late_record_leaves_no_identity(self, store: Store, settings: Settings) -> None:
        value = encode(prediction(1, NOW_US - 30 * 24 * HOUR_US))
        feed(store, settings, [value], timestamp_us=NOW_US, topic_id="late")
        feed(store, settings, [value], timestamp_us=NOW_US - 29 * 24 * HOUR_US, topic_id="in-time")
        assert outcomes_of(store) == {"late": 1, "ok": 1}
        assert records_in(store) == 1

    def test_a_late_record_whose_identity_is_stored_is_a_duplicate(self, store: Store, settings: Settings) -> None:
        value = encode(prediction(1, NOW_US - 30 * 24 * HOUR_US))
        feed(store, settings, [value], timestamp_us=NOW_US - 29 * 24 * HOUR_US, topic_id="in-time")
        feed(store, settings, [value], timestamp_us=NOW_US, topic_id="late")
        assert outcomes_of(store) == {"ok": 1, "duplicate": 1}

    def test_a_late_record_that_failed_or_has_no_baseline_is_late_too(self, store: Store, settings: Settings) -> None:
        old = NOW_US - 30 * 24 * HOUR_US
        values = [encode(prediction(1, old, status="oom", embedding=None)), encode(prediction(2, old, version="8"))]
        feed(store, settings, values, timestamp_us=NOW_US)
        assert outcomes_of(store) == {"late": 2}
        assert not store.pane_extent()

    def test_nothing_in_a_file_is_late(self, store: Store, settings: Settings) -> None:
        feed(store, settings, [encode(prediction(1, NOW_US - 20 * 365 * 24 * HOUR_US))], timestamp_us=None)
        assert outcomes_of(store) == {"ok": 1}


class Wrapped:
    """A store that behaves otherwise in its transactions; everything else is the store's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.transactions += 1
        self.before(self.transactions)
        with self._store.transaction() as tx:
            yield tx
            self.inside(self.transactions)
        self.after(self.transactions)

    def before(self, number: int) -> None: ...

    def inside(self, number: int) -> None: ...

    def after(self, number: int) -> None: ...


class Meddler(Wrapped):
    """Before the ``at``-th transaction another worker moves a partition's offset."""

    def __init__(self, store: Store, where: Partition, at: int, next_offset: int) -> None:
        super().__init__(store)
        self._where, self._at, self._next = where, at, next_offset

    def before(self, number: int) -> None:
        if number == self._at:
            move(self._store, self._where, self._next)


def move(store: Store, where: Partition, next_offset: int) -> None:
    """Another worker says that it has counted everything below ``next_offset``."""
    with store.transaction() as tx:
        tx.advance(Advance(where, store.load_offset(where), next_offset, 100, None, None))


class TestPartitions:
    def test_records_of_a_partition_that_another_worker_advanced_are_left_to_it(
        self, store: Store, settings: Settings
    ) -> None:
        # Partition 0 holds the even records, and the source gives it first, 16 at a time. Before the second commit
        # another worker has counted up to 20: this one must count neither 16 to 19 of partition 0, nor lose the rest.
        ingest = ingest_of(Meddler(store, partition(0), at=2, next_offset=20), settings)
        counts = run(ingest, log_of(good(80), ingest, partitions=2))
        assert store.load_offset(partition(0)) == store.load_offset(partition(1)) == 40
        assert counts.outcomes == {"ok": 40 + 16 + 20}
        assert outcomes_of(store) == counts.outcomes
        assert records_in(store) == 76

    @pytest.mark.parametrize("at", [1, 2, 3, 4])
    def test_a_partition_that_another_worker_finished_is_left_alone(
        self, store: Store, settings: Settings, at: int
    ) -> None:
        ingest = ingest_of(Meddler(store, partition(1), at=at, next_offset=40), settings)
        counts = run(ingest, log_of(good(80), ingest, partitions=2))
        own = {1: 0, 2: 0, 3: 0, 4: 8}[at]  # partition 1 comes with the third chunk of 16
        assert counts.outcomes == {"ok": 40 + own}
        assert outcomes_of(store) == counts.outcomes

    def test_two_workers_that_believe_to_own_the_same_partition_count_each_record_once(
        self, store: Store, settings: Settings
    ) -> None:
        values = [*good(150), b"{"]
        first, second = ingest_of(store, settings), ingest_of(store, settings)
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(run, ingest, log_of(values, ingest)) for ingest in (first, second)]
            for one in done:
                one.result()
        assert outcomes_of(store) == {"ok": 150, "dead_letter": 1}
        assert first.counts.read + second.counts.read == 151
        assert len(letters(store)) == 1

    def test_bad_records_and_gaps_of_a_lost_partition_are_the_other_workers_too(
        self, store: Store, settings: Settings
    ) -> None:
        feed(store, settings, good(4))
        ingest = ingest_of(Meddler(store, partition(0), at=1, next_offset=13), settings)
        source = log_of([*good(10), b"{", b"}", b"["], ingest)
        source.retain(partition(0), 10)
        run(ingest, source)
        assert outcomes_of(store) == {"ok": 4}
        assert letters(store) == []

    def test_what_was_polled_of_a_partition_that_was_then_given_up_is_not_counted(
        self, store: Store, settings: Settings
    ) -> None:
        # While the queues are full, the source is polled to keep its membership. A partition that is assigned in such
        # a poll may give records, and be taken away again by the next one.
        blocked = threading.Event()

        class Slow(Wrapped):
            def before(self, number: int) -> None:
                blocked.wait(20)

        class Rebalancing(MemorySource):
            polls_when_paused = 0

            def poll(self, timeout_s: float, max_records: int) -> Polled:
                if self._paused:
                    self.polls_when_paused += 1
                    if self.polls_when_paused == 1:
                        self.append(partition(1), good(1, first=900)[0])
                        ingest.start_offset(partition(1))
                        return Polled([self._logs[partition(1)].records[0]])
                    if self.polls_when_paused == 2:
                        self.revoke(partition(1))
                        move(store, partition(1), 1)  # its new owner has counted the record
                        blocked.set()
                return super().poll(timeout_s, max_records)

        ingest = ingest_of(Slow(store), settings)
        source = Rebalancing(ingest.start_offset, lambda _gone: None)
        for value in good(160):
            source.append(partition(0), value)
        run(ingest, source)
        assert source.polls_when_paused >= 2
        assert outcomes_of(store) == {"ok": 160}
        assert store.load_offset(partition(1)) == 1

    def test_records_that_come_in_spite_of_a_pause_are_counted_too(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monitor.ingest.PATIENCE_S", 0.01)
        polled = threading.Semaphore(0)

        class Slow(Wrapped):
            def before(self, number: int) -> None:
                if number == 1:
                    for _ in range(4):
                        assert polled.acquire(timeout=20)

        class Deaf(MemorySource):
            """Goes on giving records when it is paused, one at a time, and so comes to the end of its log."""

            def pause(self) -> None: ...

            def poll(self, timeout_s: float, max_records: int) -> Polled:
                if max_records == 1:
                    polled.release()
                return super().poll(timeout_s, max_records)

        ingest = ingest_of(Slow(store), settings)
        source = Deaf(ingest.start_offset, ingest.settle)
        # Seven chunks of 16 are on their way at most; three records are left for the polls while everything waits.
        for value in good(7 * 16 + 3):
            source.append(partition(), value)
        run(ingest, source)
        assert outcomes_of(store) == {"ok": 7 * 16 + 3}

    def test_settle_commits_what_was_read_before_a_partition_is_given_up(
        self, store: Store, settings: Settings
    ) -> None:
        at_revoke: list[int | None] = []

        class Taken(MemorySource):
            def poll(self, timeout_s: float, max_records: int) -> Polled:
                if self._logs and self.progress() and self.progress()[0].position == 64:
                    self.revoke(partition(0))
                    at_revoke.append(store.load_offset(partition(0)))
                return super().poll(timeout_s, max_records)

        class Slow(Wrapped):
            def before(self, number: int) -> None:
                time.sleep(0.05)

        ingest = ingest_of(Slow(store), settings)
        source = Taken(ingest.start_offset, ingest.settle)
        for value in good(100):
            source.append(partition(0), value)
        run(ingest, source)
        assert at_revoke == [64]
        assert outcomes_of(store) == {"ok": 64}

    def test_offsets_that_retention_took_away_are_counted_as_dropped(self, store: Store, settings: Settings) -> None:
        values = good(50)
        feed(store, settings, values[:10])
        ingest = ingest_of(store, settings)
        source = log_of(values, ingest)
        source.retain(partition(0), 33)
        counts = run(ingest, source)
        assert counts.outcomes == {"dropped": 23, "ok": 17}
        assert outcomes_of(store) == {"ok": 27, "dropped": 23}
        assert store.read_tallies()[TallyKey(DROPPED, "", "", "retention", 0)] == 23
        assert store.load_offset(partition(0)) == 50

    def test_a_log_that_lost_everything_to_retention_is_counted_as_dropped_too(
        self, store: Store, settings: Settings
    ) -> None:
        values = good(30)
        feed(store, settings, values[:10])
        ingest = ingest_of(store, settings)
        source = log_of(values, ingest)
        source.retain(partition(0), 30)
        run(ingest, source)
        assert outcomes_of(store) == {"ok": 10, "dropped": 20}
        assert store.load_offset(partition(0)) == 30

    def test_a_log_that_was_cut_back_goes_on_at_its_end(self, store: Store, settings: Settings) -> None:
        feed(store, settings, good(50))

        class CutBack(MemorySource):
            """The log ends at 20, although 50 were read: offsets from 20 on are new records."""

            told = False

            def poll(self, timeout_s: float, max_records: int) -> Polled:
                if not self.told:
                    self.told = True
                    ingest.start_offset(partition(0))
                    self._logs[partition(0)].position = 20
                    return Polled([], [Gap(partition(0), 20, 20, "truncated")])
                return super().poll(timeout_s, max_records)

        ingest = ingest_of(store, settings)
        source = CutBack(ingest.start_offset, ingest.settle, wall_us=lambda: NOW_US)
        for value in [*good(20), *good(25, first=1000)]:
            source.append(partition(0), value)
        run(ingest, source)
        assert outcomes_of(store) == {"ok": 75}
        assert store.load_offset(partition(0)) == 45

    def test_an_idle_partition_keeps_saying_that_it_has_caught_up(self, store: Store, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, ingest={"heartbeat_seconds": 0.02})
        clock = [NOW_US]
        ingest = ingest_of(store, settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=False, wall_us=lambda: clock[0])
        source.append(partition(0), good(1)[0])

        def caught_up_at() -> int | None:
            progress = store.partition_progress()
            return progress[0].caught_up_at_us if progress else None

        with running(ingest, source):
            eventually("caught up", lambda: caught_up_at() == NOW_US)
            clock[0] += 12345
            eventually("heartbeat", lambda: caught_up_at() == NOW_US + 12345)
        [progress] = store.partition_progress()
        assert progress.next_offset == progress.end_offset == 1
        assert progress.max_event_time_us == NOW_US - HOUR_US

    def test_a_lagging_partition_says_how_far_it_is(self, store: Store, settings: Settings) -> None:
        seen: list[tuple[int, int, int | None]] = []

        class Watching(Wrapped):
            def after(self, number: int) -> None:
                [progress] = self._store.partition_progress()
                seen.append((progress.next_offset, progress.end_offset, progress.caught_up_at_us))

        ingest = ingest_of(Watching(store), settings)
        run(ingest, log_of(good(40), ingest))
        assert seen == [(16, 40, None), (32, 40, None), (40, 40, NOW_US)]

    def test_a_topic_that_was_made_again_starts_anew_and_no_longer_holds_the_watermark(
        self, store: Store, settings: Settings
    ) -> None:
        feed(store, settings, good(5), topic_id="old")
        feed(store, settings, good(5, first=50), topic_id="new")
        assert outcomes_of(store) == {"ok": 10}
        assert [one.partition.topic_id for one in store.partition_progress()] == ["new"]


class Failing(Wrapped):
    """Raises ``error`` from one method of its transactions (or just before the commit), ``times`` times."""

    def __init__(self, store: Store, method: str, error: Exception, times: int) -> None:
        super().__init__(store)
        self._method, self._error, self.left = method, error, times

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._store.transaction() as tx:
            yield _FailingTransaction(tx, self)  # type: ignore[misc]
            self.fail_in("commit")

    def fail_in(self, method: str) -> None:
        if method == self._method and self.left:
            self.left -= 1
            raise self._error


class _FailingTransaction:
    def __init__(self, tx: Transaction, owner: Failing) -> None:
        self._tx, self._owner = tx, owner

    def __getattr__(self, name: str) -> Any:
        self._owner.fail_in(name)
        return getattr(self._tx, name)


STEPS = ("advance", "insert_samples", "known_samples", "add_panes", "add_tallies", "add_outbox", "commit")


class TestFaults:
    @pytest.mark.parametrize("step", STEPS)
    def test_a_transaction_that_fails_anywhere_leaves_nothing(
        self, store: Store, settings: Settings, step: str
    ) -> None:
        ingest = ingest_of(Failing(store, step, StoreError("the disk burns"), 1), settings)
        with pytest.raises(StoreError, match="the disk burns"):
            run(ingest, log_of([*good(20), b"{"], ingest))
        assert state_of(store) == ({}, {})
        assert store.partition_progress() == []
        assert store.outbox_pending() == 0
        feed(store, settings, [*good(20), b"{"])
        assert outcomes_of(store) == {"ok": 20, "dead_letter": 1}

    @pytest.mark.parametrize("step", STEPS)
    def test_a_database_that_is_away_is_waited_for(self, store: Store, settings: Settings, step: str) -> None:
        away = Failing(store, step, DatabaseError("away", retriable=True), 2)
        ingest = ingest_of(away, settings)
        counts = run(ingest, log_of([*good(20), b"{"], ingest))
        assert away.left == 0
        assert counts.outcomes == {"ok": 20, "dead_letter": 1}
        assert outcomes_of(store) == counts.outcomes
        assert records_in(store) == 20

    def test_a_commit_that_took_place_although_the_connection_broke_counts_once(
        self, store: Store, settings: Settings
    ) -> None:
        class Unsure(Wrapped):
            def after(self, number: int) -> None:
                if number == 1:
                    raise DatabaseError("connection lost in the commit", retriable=True)

        ingest = ingest_of(Unsure(store), settings)
        run(ingest, log_of([*good(40), b"{"], ingest))
        assert outcomes_of(store) == {"ok": 40, "dead_letter": 1}
        assert records_in(store) == 40

    def test_a_baseline_that_cannot_be_looked_up_for_a_while_is_waited_for(
        self, store: Store, settings: Settings
    ) -> None:
        class Away(Wrapped):
            left = 2

            def active_baselines(self) -> Any:
                if self.left:
                    self.left -= 1
                    raise DatabaseError("away", retriable=True)
                return self._store.active_baselines()

        ingest = ingest_of(Away(store), settings)
        run(ingest, log_of(good(3), ingest))
        assert outcomes_of(store) == {"ok": 3}

    @pytest.mark.parametrize("finite", [True, False])
    def test_a_fatal_error_in_a_commit_ends_the_run_with_that_error(
        self, store: Store, settings: Settings, finite: bool
    ) -> None:
        ingest = ingest_of(Failing(store, "add_panes", StoreError("no such table"), 99), settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=finite)
        for value in good(500):  # more than the queues hold
            source.append(partition(), value)
        with pytest.raises(StoreError, match="no such table"):
            run(ingest, source)

    @pytest.mark.parametrize("at", [1, 60, 400])
    def test_a_crash_of_the_embedding_stage_ends_the_run_with_that_error(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        seen = 0

        def crash(route: Route, prepared: Sequence[Any], *_: Any) -> Any:
            nonlocal seen
            seen += len(prepared)
            if seen >= at:
                raise ZeroDivisionError("in the backbone")
            width = route.baseline.statistic.layout.width  # type: ignore[union-attr]
            return Coded(np.zeros((len(prepared), width), np.uint8), np.zeros((len(prepared), 0)))

        monkeypatch.setattr("monitor.ingest.codes_of", crash)
        ingest = ingest_of(store, settings)
        with pytest.raises(ZeroDivisionError, match="in the backbone"):
            run(ingest, log_of(good(500), ingest))
        stored = store.load_offset(partition()) or 0
        assert outcomes_of(store)["ok"] == stored < at + 16
        monkeypatch.undo()
        feed(store, settings, good(500))
        assert outcomes_of(store) == {"ok": 500}

    def test_a_source_that_fails_ends_the_run_with_its_error(self, store: Store, settings: Settings) -> None:
        class Broken(MemorySource):
            def poll(self, timeout_s: float, max_records: int) -> Polled:
                raise OSError("cable cut")

        ingest = ingest_of(store, settings)
        source = Broken(ingest.start_offset, ingest.settle)
        source.append(partition(), good(1)[0])
        with pytest.raises(OSError, match="cable cut"):
            run(ingest, source)

    def test_the_callback_for_bad_records_may_fail(self, store: Store, settings: Settings) -> None:
        def refuse(_raw: RawRecord, _bad: BadRecord) -> None:
            raise BrokenPipeError

        ingest = ingest_of(store, settings, on_bad=refuse)
        with pytest.raises(BrokenPipeError):
            run(ingest, log_of([b"{"], ingest))

    def test_when_told_to_stop_everything_that_was_read_is_committed(self, store: Store, settings: Settings) -> None:
        ingest = ingest_of(store, settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=False)
        for value in good(100):
            source.append(partition(), value)
        with running(ingest, source):
            eventually("first commit", lambda: store.load_offset(partition()))
        position = source.progress()[0].position
        assert store.load_offset(partition()) == position == outcomes_of(store)["ok"]
        feed(store, settings, good(100))
        assert outcomes_of(store) == {"ok": 100}


class TestStopping:
    def test_a_database_that_stays_away_does_not_keep_the_service_from_stopping(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monitor.ingest.RETRY_MOST_S", 0.2)

        class Gone(Wrapped):
            def before(self, number: int) -> None:
                raise DatabaseError("away", retriable=True)

        gone = Gone(store)
        ingest = ingest_of(gone, settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=False)
        for value in good(300):
            source.append(partition(), value)
        with pytest.raises(DatabaseError, match="away"), running(ingest, source):
            eventually("several attempts", lambda: gone.transactions >= 4)
        assert state_of(store) == ({}, {})
        feed(store, settings, good(300))
        assert outcomes_of(store) == {"ok": 300}

    def test_one_that_comes_back_at_the_stop_gets_everything(self, store: Store, settings: Settings) -> None:
        class Away(Wrapped):
            def before(self, number: int) -> None:
                if number in (2, 3):
                    raise DatabaseError("away", retriable=True)

        away = Away(store)
        ingest = ingest_of(away, settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=False)
        for value in good(64):
            source.append(partition(), value)
        with running(ingest, source):
            eventually("the second attempt", lambda: away.transactions >= 2)
        assert outcomes_of(store)["ok"] == source.progress()[0].position == store.load_offset(partition())


class Crashing(Wrapped):
    """Dies at its ``at``-th transaction: before it begins, just before its commit, or just after."""

    def __init__(self, store: Store, at: int, where: str) -> None:
        super().__init__(store)
        self._at, self._where = at, where

    def _die(self, number: int, where: str) -> None:
        if number == self._at and where == self._where:
            raise StoreError("kill -9")

    def before(self, number: int) -> None:
        self._die(number, "before")

    def inside(self, number: int) -> None:
        self._die(number, "inside")

    def after(self, number: int) -> None:
        self._die(number, "after")


class TestCrashes:
    DEATHS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["before", "inside", "after"])), max_size=5)

    @given(deaths=DEATHS, chunk=st.integers(3, 12), partitions=st.integers(1, 3))
    @hypothesis_settings(max_examples=10)
    def test_workers_that_die_anywhere_count_what_one_counts_that_lives(
        self, deaths: list[tuple[int, str]], chunk: int, partitions: int
    ) -> None:
        values = [*good(20), b"{", *good(5, version="3"), *good(20)[:10]]
        expected = counted(values, chunk=256, partitions=1, workers=1)
        with tempfile.TemporaryDirectory() as folder:
            settings = settings_of(Path(folder), ingest={"chunk_records": chunk})
            with open_store(settings, ("street", "yard")) as store:
                for at, where in deaths:
                    ingest = ingest_of(Crashing(store, at, where), settings)
                    with suppress(StoreError):
                        run(ingest, log_of(values, ingest, partitions=partitions))
                feed(store, settings, values, partitions=partitions)
                assert state_of(store) == expected
                assert [reason for reason, _ in letters(store)] == ["not_json"]


class TestBadRecords:
    @staticmethod
    def every_kind() -> dict[str, list[bytes | None]]:
        """Bad values by the reason that they must be given."""
        at = NOW_US - HOUR_US
        image = image_record(1, at)
        data = base64.b64encode
        jpeg = picture(1)
        huge = assembled(header(100_000, 100_000), b"")

        def with_image(content: bytes) -> bytes:
            return encode({**image, "image": {"data": data(content).decode()}})

        def with_mask(mask: Mapping[str, Any]) -> bytes:
            return encode(prediction(1, at, instances=[{"class": "car", "score": 0.5, "mask": mask}]))

        def without(field: str) -> bytes:
            return encode({key: value for key, value in prediction(1, at).items() if key != field})

        return {
            "empty": [None, b""],
            "not_json": [b"{", b"\xff", b'{"type": NaN}'],
            "unknown_type": [encode(prediction(1, at, type="segwatch.prediction.v9"))],
            "missing_field": [without("input_id"), without("event_time"), without("model"), without("embedding")],
            "wrong_type": [encode(prediction(1, at, input_id=7)), b"[]", encode(prediction(1, at, model="street"))],
            "out_of_bounds": [
                encode(prediction(1, at, sampling_probability=0)),
                encode(prediction(1, at, latency_seconds=-1)),
                encode(prediction(1, at, input_id="x" * 257)),
                encode(prediction(1, at, slices={str(i): "a" for i in range(17)})),
                encode(
                    prediction(
                        1, at, instances=[{"class": "car", "score": 1.5, "mask": {"size": [1, 1], "counts": [1]}}]
                    )
                ),
            ],
            "bad_time": [encode(prediction(1, at, event_time="yesterday")), encode(prediction(1, 0))],
            "future_time": [encode(prediction(1, NOW_US + HOUR_US))],
            "bad_text": [encode(prediction(1, at, input_id="a\0b"))],
            "bad_mask": [with_mask({"size": [4, 4], "counts": [3, 4, 8]}), with_mask({"size": [4, 4], "counts": "!!"})],
            "mask_too_large": [with_mask({"size": [10**6, 10**6], "counts": [10**12]})],
            "image_undecodable": [with_image(jpeg[:20] + b"\0" * 400 + jpeg[-2:])],
            "image_truncated": [with_image(jpeg[: len(jpeg) // 2]), with_image(b"")],
            "image_too_large": [with_image(huge)],
            "image_format": [with_image(b"GIF89a" + b"\0" * 50)],
            "bad_base64": [encode({**image, "image": {"data": "***"}})],
            "uri_refused": [encode({**image, "image": {"uri": "file:///etc/passwd"}})],
            "bad_semantic": [encode(prediction(1, at, semantic={"classes_png": data(jpeg).decode()}))],
            "unknown_model": [
                encode(prediction(1, at, model={"name": "Street", "version": "1"})),
                encode({**label(), "model": {"name": "Street", "version": "1"}}),
            ],
            "embedding_mismatch": [
                encode(prediction(1, at, embedding=[1.0] * (DIMENSIONS + 1))),
                encode(image_record(1, at, model={"name": "street", "version": "1"})),
            ],
        }

    def test_every_kind_goes_to_the_dead_letters_with_its_reason_and_the_next_record_is_read(
        self, store: Store, settings: Settings
    ) -> None:
        bad = [(reason, value) for reason, values in self.every_kind().items() for value in values]
        fine = good(len(bad))
        mixed = [value for pair in zip([value for _, value in bad], fine, strict=True) for value in pair]
        told: list[str] = []
        ingest = ingest_of(store, settings, on_bad=lambda _raw, error: told.append(error.reason))
        counts = run(ingest, log_of(mixed, ingest))
        assert told == [reason for reason, _ in bad]
        assert counts.outcomes == {"ok": len(bad), "dead_letter": len(bad)}
        assert counts.reasons == Counter(reason for reason, _ in bad)
        assert Counter(letters(store)) == Counter(bad)
        tallies = store.read_tallies()
        assert {key.label: value for key, value in tallies.items() if key.series == DEAD_LETTER} == counts.reasons
        assert sum(value for key, value in tallies.items() if key.series == RECORDS) == len(mixed)

    def test_a_dead_letter_says_where_the_record_came_from_and_keeps_its_headers_and_key(
        self, store: Store, settings: Settings
    ) -> None:
        ingest = ingest_of(store, settings)
        source = MemorySource(ingest.start_offset, ingest.settle)
        source.append(partition(3), good(1)[0])
        headers = [("ce_id", b"7"), ("own", b"\xff\x00"), ("own", b"twice"), ("segwatch_reason", b"forged")]
        source.append(partition(3), b"\xff\xfe", key=b"key", headers=headers)
        run(ingest, source)
        with store.claim_outbox(10) as [message]:
            assert (message.topic, message.key, message.value) == ("segwatch.dead-letter", b"key", b"\xff\xfe")
            kept = [(name, value) for name, value in message.headers if not name.startswith("segwatch_")]
            assert kept == headers[:3]
            own = {name: value for name, value in message.headers if name.startswith("segwatch_")}
        assert own["segwatch_reason"] == b"not_json"
        assert own["segwatch_topic"] == b"segwatch.predictions"
        assert (own["segwatch_partition"], own["segwatch_offset"]) == (b"3", b"1")

    def test_a_bad_record_leaves_no_identity(self, store: Store, settings: Settings) -> None:
        whole = image_record(1, NOW_US - HOUR_US)
        broken = {**whole, "image": {"data": base64.b64encode(picture(1)[:100]).decode()}}
        feed(store, settings, [encode(broken), encode(whole), encode(broken)])
        assert outcomes_of(store) == {"ok": 1, "dead_letter": 2}

    def test_a_line_that_is_too_long_for_a_record_is_named_so(self, store: Store, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, kafka={"max_message_bytes": 5000})
        file = tmp_path / "records.jsonl"
        lines = [*good(1), b" " * 6000 + good(1, first=1)[0], *good(1, first=2)]
        file.write_bytes(b"\n".join(lines))
        run(ingest_of(store, settings), FileSource([file], settings.kafka.max_message_bytes))
        assert outcomes_of(store) == {"ok": 2, "dead_letter": 1}
        assert letters(store) == [("too_large", None)]


def label() -> dict[str, Any]:
    return {
        "type": "segwatch.label.v1",
        "input_id": "input-1",
        "annotator": "ann",
        "annotation_version": 1,
        "label_time": to_text(NOW_US - HOUR_US),
        "instances": [],
    }


class TestWhatIsCounted:
    def test_of_a_failed_inference_only_the_operational_fields_count(self, store: Store, settings: Settings) -> None:
        at = NOW_US - HOUR_US
        junk = base64.b64encode(b"junk").decode()
        values = [
            encode(image_record(1, at, status="error", image={"data": junk}, latency_seconds=0.5)),
            encode(prediction(2, at, status="timeout", embedding=[1.0], latency_seconds=0.5)),
            encode(prediction(3, at, status="oom", semantic={"classes_png": junk}, latency_seconds=0.5)),
            encode(
                prediction(
                    4,
                    at,
                    status="oom",
                    latency_seconds=0.5,
                    instances=[{"class": "car", "score": 0.5, "mask": {"size": [2, 2], "counts": [99]}}],
                )
            ),
        ]
        feed(store, settings, values)
        assert outcomes_of(store) == {"failed": 4}
        tallies = store.read_tallies()
        assert sum(value for key, value in tallies.items() if key.series == "latency_sum_us") == 2_000_000
        assert not [key for key in tallies if key.series == CONFIDENCE_BUCKET]

    def test_semantic_maps_are_counted_by_the_names_of_their_values(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        pixels = np.zeros((8, 8), dtype=np.uint8)
        pixels[:2] = 1  # a quarter

        def mapped(number: int, drawn: NDArray[np.uint8], confidence: int) -> dict[str, Any]:
            semantic = {
                "classes_png": base64.b64encode(png(drawn)).decode(),
                "confidence_png": base64.b64encode(png(np.full((2, 2), confidence, np.uint8))).decode(),
            }
            record = prediction(number, NOW_US - HOUR_US, semantic=semantic)
            del record["instances"]
            return record

        rng = np.random.default_rng(5)
        random_maps = [rng.integers(0, 2, (8, 8), dtype=np.uint8) for _ in range(60)]
        train = tmp_path / "train.jsonl"
        train.write_bytes(lines(iter([mapped(1000 + i, drawn, 128 + i) for i, drawn in enumerate(random_maps)])))
        with Store.open(settings, write=True) as store:
            classes = Classes(("sky", "road"), (0, 1), ignore=(255,))
            _, baseline, _ = make_baseline(
                settings, store, [train], model="street", version="1", classes=classes, activate=True
            )
            void = pixels.copy()
            void[4:] = 255  # of what counts, half is road
            feed(store, settings, [encode(mapped(1, pixels, 255)), encode(mapped(2, void, 0))])
            [part] = store.read_panes("street", "1")
        statistic = baseline.statistic
        counts = PaneState.from_bytes(part.state).statistic.counts()
        expected = np.full((2, statistic.layout.width), np.nan)
        column = {
            (one.signal, name): one.start + i
            for one in statistic.layout.signals
            for i, name in enumerate(one.dimensions)
        }
        expected[:, column["class_mix", "sky"]] = [0.75, 0.5]
        expected[:, column["class_mix", "road"]] = [0.25, 0.5]
        expected[:, column["class_mix", OTHER]] = [0.0, 0.0]
        expected[:, column["confidence", "semantic_mean"]] = [1.0, 0.0]
        codes = statistic.binning.codes(expected)
        for (signal, _), index in column.items():
            if signal in ("class_mix", "confidence"):
                wanted = np.bincount(codes[:, index], minlength=counts.shape[1])
                assert counts[index].tolist() == wanted.tolist(), index

    def test_values_that_are_not_finite_fall_into_their_own_bin(self, store: Store, settings: Settings) -> None:
        at = NOW_US - HOUR_US
        values = [
            msgspec.msgpack.encode(prediction(1, at, embedding=[float("nan")] * DIMENSIONS)),
            msgspec.msgpack.encode(prediction(2, at, embedding=[0.0] * (DIMENSIONS - 1) + [float("inf")])),
            msgspec.msgpack.encode(prediction(3, at, embedding=[1e300] + [0.0] * (DIMENSIONS - 1))),
            msgspec.msgpack.encode(prediction(4, at)),
        ]
        feed(store, settings, values, headers=[("content-type", b"application/msgpack")])
        assert outcomes_of(store) == {"ok": 4}
        [part] = store.read_panes("street", "1")
        counts = PaneState.from_bytes(part.state).statistic.counts()
        layout = baseline_of("street").statistic.layout
        columns = next(one for one in layout.signals if one.signal == "embedding")
        assert (counts[columns.start : columns.stop, -1] == 3).all()
        assert (counts[columns.start : columns.stop].sum(axis=1) == 4).all()

    def test_the_same_record_in_json_and_in_messagepack_is_a_duplicate_with_the_same_statistics(
        self, tmp_path: Path
    ) -> None:
        states = []
        for encoder, kind in (
            (msgspec.json.encode, b"application/json"),
            (msgspec.msgpack.encode, b"application/msgpack"),
        ):
            settings = settings_of(tmp_path / kind.decode().replace("/", "-"))
            with open_store(settings, ["street", "yard"]) as store:
                images = [image_record(i, NOW_US - HOUR_US) for i in range(4)]
                if encoder is msgspec.msgpack.encode:
                    images = [{**one, "image": {"data": base64.b64decode(one["image"]["data"])}} for one in images]
                records = [*predictions(10, NOW_US - HOUR_US, 0.5), *images]
                feed(store, settings, [encoder(one) for one in records], headers=[("content-type", kind)])
                states.append(state_of(store))
        assert states[0] == states[1]

    def test_a_version_without_a_baseline_is_counted_and_has_no_bins(self, store: Store, settings: Settings) -> None:
        values = [encode(prediction(i, NOW_US - HOUR_US, version="7")) for i in range(10)]
        values.append(encode(image_record(1, NOW_US - HOUR_US, model={"name": "street", "version": "7"})))
        feed(store, settings, values)
        assert outcomes_of(store) == {"ok": 11}
        assert {pane.key.baseline_id for pane in store.read_panes("street", "7")} == {""}
        assert records_in(store, version="7") == 11
        [pane] = store.read_panes("street", "7")
        assert PaneState.from_bytes(pane.state).statistic.dimensions == 0

    def test_images_of_a_version_without_a_baseline_are_checked_all_the_same(
        self, store: Store, settings: Settings
    ) -> None:
        broken = image_record(1, NOW_US - HOUR_US, model={"name": "street", "version": "7"})
        broken["image"] = {"data": base64.b64encode(picture(1)[:100]).decode()}
        feed(store, settings, [encode(broken)])
        assert outcomes_of(store) == {"dead_letter": 1}

    def test_an_unknown_model_that_becomes_known_is_counted_from_then_on(self, settings: Settings) -> None:
        with Store.open(settings, write=True) as store:
            ingest = ingest_of(store, settings)
            source = MemorySource(ingest.start_offset, ingest.settle, finite=False)
            values = good(2)
            with running(ingest, source):
                source.append(partition(), values[0])
                eventually("dead letter", lambda: outcomes_of(store)["dead_letter"])
                add_baseline(store, "street")
                time.sleep(RETRY_UNKNOWN_S + 0.1)
                source.append(partition(), values[1])
                eventually("counted", lambda: outcomes_of(store)["ok"])
            assert letters(store) == [("unknown_model", values[0])]

    def test_a_baseline_that_is_activated_meanwhile_takes_over(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monitor.baseline_book.REFRESH_S", 0.05)
        ingest = ingest_of(store, settings)
        source = MemorySource(ingest.start_offset, ingest.settle, finite=False)
        values = [encode(prediction(i, NOW_US - HOUR_US, version="2")) for i in range(2)]
        with running(ingest, source):
            source.append(partition(), values[0])
            eventually("counted", lambda: outcomes_of(store)["ok"] == 1)
            identity = add_baseline(store, "street", "2")
            time.sleep(0.1)
            source.append(partition(), values[1])
            eventually("counted", lambda: outcomes_of(store)["ok"] == 2)
        assert sorted(part.key.baseline_id for part in store.read_panes("street", "2")) == ["", identity]

    def test_classes_that_the_baseline_does_not_know_are_counted_as_other(
        self, store: Store, settings: Settings
    ) -> None:
        strange = prediction(1, NOW_US - HOUR_US)
        strange["instances"] = [{"class": name, "score": 0.5, "mask": MASK} for name in ("unicorn", "dragon", "car")]
        feed(store, settings, [encode(strange)])
        names = {key.label for key in store.read_tallies() if key.series == CONFIDENCE_BUCKET}
        assert names == {OTHER, "car"}

    def test_slices_have_statistics_of_their_own(self, store: Store, tmp_path: Path) -> None:
        values = [
            encode(prediction(i, NOW_US - HOUR_US, slices={"camera": str(i % 2), "site": "a=b"})) for i in range(10)
        ]
        settings = settings_of(tmp_path)
        feed(store, settings, values)
        assert records_in(store) == records_in(store, slice_key="site=a=b") == 10
        assert records_in(store, slice_key="camera=0") == records_in(store, slice_key="camera=1") == 5
        chosen = settings_of(tmp_path, windows={"slice_keys": ["site"]})
        feed(
            store,
            chosen,
            [
                encode(prediction(i, NOW_US - HOUR_US, version="2", slices={"camera": "0", "site": "x"}))
                for i in range(3)
            ],
            topic_id="b",
        )
        assert records_in(store, version="2", slice_key="site=x") == 3
        assert records_in(store, version="2", slice_key="camera=0") == 0

    def test_only_records_of_the_slice_that_is_asked_for_are_taken(self, store: Store, settings: Settings) -> None:
        values = [encode(prediction(i, NOW_US - HOUR_US, slices={"camera": str(i % 3)})) for i in range(30)]
        ingest = ingest_of(store, settings, slice_key="camera=1")
        counts = run(ingest, log_of([*values, b"{"], ingest))
        assert counts.outcomes == {"ok": 10, "dead_letter": 1}
        assert counts.skipped == 20
        assert counts.read + counts.skipped == 31

    def test_panes_are_cut_by_event_time(self, store: Store, settings: Settings) -> None:
        times = [NOW_US - HOUR_US - 1, NOW_US - HOUR_US, NOW_US - HOUR_US + PANE_US - 1, NOW_US - HOUR_US + PANE_US]
        feed(store, settings, [encode(prediction(i, at)) for i, at in enumerate(times)])
        found = Counter(part.key.start_us for part in store.read_panes("street", "1") for _ in range(part.records))
        assert found == Counter(pane_start(at, PANE_US) for at in times)

    def test_operational_totals_are_exact(self, store: Store, settings: Settings) -> None:
        records = list(predictions(50, NOW_US - HOUR_US, 0.5))
        feed(store, settings, [encode(record) for record in records])
        tallies = store.read_tallies()

        def total(series: str) -> int:
            return sum(value for key, value in tallies.items() if key.series == series)

        assert total("latency_sum_us") == sum(round(record["latency_seconds"] * 1e6) for record in records)
        assert total("latency_bucket") == 50
        assert total("cost_nano_usd") == 50 * 200_000
        assert total("confidence_bucket") == sum(len(record["instances"]) for record in records)
        assert tallies[TallyKey(LAST_EVENT_US, "street", "1", "", 0)] == NOW_US - HOUR_US + 49 * 36 * SECOND_US


def test_polygons_made_to_hurt_do_not_break_what_is_expected_of_a_pane(store: Store, settings: Settings) -> None:
    far = 9_999_999.0
    huge = [[[-far, -far, far, -far, far, far, -far, far]] for _ in range(50)]
    instances = [{"class": "car", "score": 0.5, "mask": mask} for mask in huge]
    records = [prediction(i, NOW_US - HOUR_US, instances=instances) for i in range(20)]
    feed(store, settings, [encode(record) for record in records])
    states = [PaneState.merged([pane.state]) for pane in store.read_panes("street", "1")]
    assert sum(state.expected.instance_records for state in states if state.expected is not None) == 20
