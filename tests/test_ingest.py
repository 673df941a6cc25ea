"""Ingest: records in, one transaction a chunk out; counted once, nothing lost, in whatever order they come."""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from monitor.baseline_book import Route
from monitor.errors import BadRecord, StoreError
from monitor.ingest import Ingest
from monitor.settings import Settings
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import Gap, Partition, Polled, Progress, RawRecord
from monitor.store.database import DatabaseError
from monitor.store.store import Store
from monitor.store.transaction import Transaction
from monitor.store.values import Advance, PaneKey
from monitor.tallies import DEAD_LETTER, DROPPED, LAST_EVENT_US, RECORDS, TallyKey
from monitor.windows import SECOND_US, pane_start, to_text
from tests.embedded import (
    HOUR_US,
    NOW_US,
    add_baseline,
    encode,
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
    settings_of,
    state_of,
)
from tests.made_png import png
from tests.made_records import DIMENSIONS, prediction, predictions

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


class Meddler:
    """A store in which somebody else moves a partition's offset, just before the ``at``-th transaction."""

    def __init__(self, store: Store, partition: Partition, at: int, next_offset: int) -> None:
        self._store, self._partition, self._at, self._next = store, partition, at, next_offset
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.transactions += 1
        if self.transactions == self._at:
            stored = self._store.load_offset(self._partition)
            with self._store.transaction() as tx:
                tx.advance(Advance(self._partition, stored, self._next, 100, None, None))
        with self._store.transaction() as tx:
            yield tx


class TestPartitions:
    def test_records_of_a_partition_that_another_worker_advanced_are_left_to_it(
        self, store: Store, settings: Settings
    ) -> None:
        # Partition 0 holds even records, partition 1 odd ones. Before the second commit another worker has counted
        # the first 20 of partition 0 (here it only says so), and this worker must not count those among them that it
        # had not committed yet.
        meddler = Meddler(store, partition(0), at=2, next_offset=20)
        ingest = ingest_of(meddler, settings)
        counts = run(ingest, log_of(good(80), ingest, partitions=2))
        committed_before = store.load_offset(partition(0))
        assert committed_before == 40
        assert store.load_offset(partition(1)) == 40
        # 40 odd ones, of the even ones those of the first commit and those from offset 20 on.
        first_commit = 16
        assert counts.outcomes == {"ok": 40 + first_commit + 20}
        assert outcomes_of(store) == counts.outcomes
