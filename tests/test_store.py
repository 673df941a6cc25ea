"""What the store promises, whatever the database. ``tests/real/test_store_postgres.py`` runs all this on PostgreSQL."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from monitor.errors import BaselineError, PartitionLost, StoreError
from monitor.settings import Settings
from monitor.sources.protocol import Partition
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.tables import sample
from monitor.store.values import (
    Advance,
    DueWindow,
    EarlyAlarm,
    EarlyReading,
    EarlyState,
    OutboxMessage,
    PaneDelta,
    PaneKey,
    PartitionProgress,
    SampleRow,
    ScoreRow,
)
from monitor.tallies import LAST_EVENT_US, TallyKey

HOUR = 3_600_000_000
PANE = 300_000_000
FRONT = Partition("cluster", "id-1", "segwatch.predictions", 0)
BACK = Partition("cluster", "id-1", "segwatch.predictions", 1)
COUNTED = TallyKey("records", "street", "3", "ok", 0)

# The database outlives the examples of one test, so every example takes names of its own.
EXAMPLES = (f"example-{number}-" for number in itertools.count())
FEW = hypothesis_settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    # The same tests run once on each database: Hypothesis calls that differing executors. Nothing is replayed.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(settings: Settings, clock: Clock) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def second_store(store: Store) -> Store:
    """What a second worker uses: in SQLite's one process the same store, in PostgreSQL one of its own."""
    return store


def advance(partition: Partition = FRONT, expected: int | None = None, to: int = 1, **others: Any) -> Advance:
    step = Advance(partition, expected, to, end_offset=100, max_event_time_us=None, caught_up_at_us=None)
    return replace(step, **others)


def row(input_id: str, model: str = "street", version: str = "3", **others: Any) -> SampleRow:
    blank = SampleRow(model, version, input_id, HOUR, HOUR + 5, None, "{}", "ok", None, None, "topic", 0, 7)
    return blank._replace(**others)


def pane(start_us: int = 0, version: str = "3", slice: str = "", baseline_id: str = "b1") -> PaneKey:
    return PaneKey("street", version, slice, start_us, baseline_id)


def concatenate(states: Sequence[bytes]) -> bytes:
    """A merge whose result tells which states went in; sorted, since the order of merging means nothing."""
    return bytes(sorted(b"".join(states)))


def stored_samples(store: Store) -> list[tuple[Any, ...]]:
    columns = [sample.c[name] for name in SampleRow._fields]
    with store._database.read() as connection:
        return [tuple(found) for found in connection.execute(sqlalchemy.select(*columns).order_by(sample.c.input_id))]


def fold_all(leader: Leader, lengths_us: Sequence[int] = (HOUR,)) -> None:
    while leader.fold(concatenate, lengths_us, limit=3):
        pass


@pytest.fixture
def leader(store: Store) -> Iterator[Leader]:
    led = store.try_lead()
    assert led is not None
    with led:
        yield led


class TestOffsets:
    def test_a_new_partition_has_no_offset(self, store: Store) -> None:
        assert store.load_offset(FRONT) is None

    def test_the_offset_is_where_the_last_transaction_left_it(self, store: Store, clock: Clock) -> None:
        with store.transaction() as tx:
            tx.advance(advance(to=7, max_event_time_us=HOUR, caught_up_at_us=None), advance(BACK, to=3))
        clock.now_us += 5
        with store.transaction() as tx:
            tx.advance(advance(expected=7, to=9, end_offset=9, max_event_time_us=HOUR + 1, caught_up_at_us=5))
        assert (store.load_offset(FRONT), store.load_offset(BACK)) == (9, 3)
        assert store.partition_progress() == [
            PartitionProgress(FRONT, 9, 9, HOUR + 1, 5, 1_000_005),
            PartitionProgress(BACK, 3, 100, None, None, 1_000_000),
        ]

    def test_a_worker_that_lost_its_partition_leaves_nothing_behind(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.advance(advance(to=5))
        with pytest.raises(PartitionLost) as lost, store.transaction() as tx:
            tx.add_tallies({COUNTED: 1})
            tx.advance(advance(BACK, to=1), advance(expected=4, to=6))
        assert (lost.value.partition, lost.value.expected, lost.value.stored) == (FRONT, 4, 5)
        assert store.load_offset(FRONT) == 5
        assert store.load_offset(BACK) is None
        assert store.read_tallies() == {}

    def test_a_partition_that_is_there_cannot_be_started_again(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.advance(advance(to=5))
        with pytest.raises(PartitionLost), store.transaction() as tx:
            tx.advance(advance(expected=None, to=1))
        with pytest.raises(PartitionLost), store.transaction() as tx:
            tx.advance(advance(BACK, expected=0, to=1))

    def test_of_workers_that_advance_at_once_one_wins_each_time(self, store: Store, second_store: Store) -> None:
        wins: Counter[int] = Counter()
        start = threading.Barrier(2)

        def work(who: int, own: Store) -> None:
            for step in range(20):
                start.wait()
                try:
                    with own.transaction() as tx:
                        tx.advance(advance(expected=step or None, to=step + 1))
                        tx.add_tallies({COUNTED: 1})
                        wins[who] += 1
                except PartitionLost:
                    pass
                start.wait()

        run_together(lambda: work(0, store), lambda: work(1, second_store))
        assert sum(wins.values()) == 20
        assert store.read_tallies() == {COUNTED: 20}

    def test_event_time_never_goes_back(self, store: Store) -> None:
        seen = [None, 50, 20, None, 70]
        for step, event_time in enumerate(seen):
            with store.transaction() as tx:
                tx.advance(advance(expected=step or None, to=step + 1, max_event_time_us=event_time))
            known = [one for one in seen[: step + 1] if one is not None]
            assert store.partition_progress()[0].max_event_time_us == max(known, default=None)

    def test_a_heartbeat_moves_no_offset(self, store: Store, clock: Clock) -> None:
        with store.transaction() as tx:
            tx.advance(advance(to=5))
        clock.now_us = 9_000_000
        with store.transaction() as tx:
            tx.advance(advance(expected=5, to=5, end_offset=5, caught_up_at_us=8_999_999))
        (progress,) = store.partition_progress()
        assert (progress.next_offset, progress.caught_up_at_us, progress.updated_at_us) == (5, 8_999_999, 9_000_000)

    def test_a_recreated_topic_starts_anew_and_no_longer_holds_the_watermark(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.advance(advance(to=500))
        store.register_topic("cluster", FRONT.topic, "id-2")
        again = FRONT._replace(topic_id="id-2")
        assert store.load_offset(again) is None
        with store.transaction() as tx:
            tx.advance(advance(again, to=1))
        assert [progress.partition for progress in store.partition_progress()] == [again]
        store.register_topic("another cluster", FRONT.topic, "id-3")
        assert [progress.partition for progress in store.partition_progress()] == [again]

    def test_steps_out_of_order_are_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="advance comes first"), store.transaction() as tx:
            tx.insert_samples([])
            tx.advance(advance())
        with pytest.raises(ValueError, match="insert_samples is called once"), store.transaction() as tx:
            tx.insert_samples([])
            tx.insert_samples([])


class TestIdentities:
    def test_a_record_is_new_once(self, store: Store) -> None:
        with store.transaction() as tx:
            assert tx.insert_samples([row("b"), row("a"), row("b"), row("c")]).tolist() == [True, True, False, True]
        for _ in range(3):  # the way into the database changes with what the last batch was like
            with store.transaction() as tx:
                assert tx.insert_samples([row("c"), row("a")]).tolist() == [False, False]
        with store.transaction() as tx:
            assert tx.insert_samples([row("d"), row("c"), row("e")]).tolist() == [True, False, True]
        with store.transaction() as tx:
            assert tx.insert_samples([row("f")]).tolist() == [True]
        assert [found[2] for found in stored_samples(store)] == ["a", "b", "c", "d", "e", "f"]

    def test_what_is_known_can_be_asked_without_inserting(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.insert_samples([row(f"{number:04d}") for number in range(450)])
        asked = [("street", "3", f"{number:04d}") for number in range(500)] + [("street", "4", "0001")]
        with store.transaction() as tx:
            assert tx.known_samples(asked).tolist() == [True] * 450 + [False] * 51
            assert tx.known_samples([]).tolist() == []
            assert tx.insert_samples([row("0499")]).all()

    def test_two_versions_may_see_the_same_input(self, store: Store) -> None:
        rows = [row("a", version="3"), row("a", version="4"), row("a", model="sea"), row("a", version="4")]
        with store.transaction() as tx:
            assert tx.insert_samples(rows).tolist() == [True, True, True, False]

    def test_of_a_record_that_repeats_in_a_batch_the_first_is_kept(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.insert_samples([row("a", status="ok"), row("a", status="timeout")])
        (found,) = stored_samples(store)
        assert found[SampleRow._fields.index("status")] == "ok"

    def test_no_records_are_no_work(self, store: Store) -> None:
        with store.transaction() as tx:
            assert tx.insert_samples([]).tolist() == []
            tx.add_panes({})
            tx.add_tallies({})
            tx.add_outbox([])

    def test_what_was_rolled_back_is_new_again(self, store: Store) -> None:
        with pytest.raises(RuntimeError, match="on purpose"), store.transaction() as tx:
            tx.advance(advance(to=5))
            assert tx.insert_samples([row("a")]).all()
            tx.add_panes({pane(): PaneDelta(1, b"x")})
            tx.add_tallies({COUNTED: 1})
            tx.add_outbox([OutboxMessage("m1", "topic", None, b"v")])
            raise RuntimeError("on purpose")
        assert store.load_offset(FRONT) is None
        assert store.read_panes("street", "3") == []
        assert store.read_tallies() == {}
        assert store.outbox_pending() == 0
        with store.transaction() as tx:
            assert tx.insert_samples([row("a")]).all()

    @FEW
    @given(
        st.lists(
            st.builds(
                row,
                names,
                sequence=st.none() | names,
                slices=names,
                status=names,
                event_time_us=st.integers(-(2**63), 2**63 - 1),
                confidence=st.none() | st.floats(0, 1) | st.floats(0, 1).map(np.float64),
                sampling_probability=st.none() | st.floats(0, 1, exclude_min=True),
            ),
            max_size=8,
        ),
    )
    def test_rows_survive_any_text_and_number(self, store: Store, rows: list[SampleRow]) -> None:
        example = next(EXAMPLES)
        own = [one._replace(input_id=f"{example}{one.input_id}") for one in rows]
        with store.transaction() as tx:
            new = tx.insert_samples(own)
        kept = sorted(one for one, is_new in zip(own, new, strict=True) if is_new)
        assert len({one.input_id for one in own}) == len(kept)
        found = [one for one in stored_samples(store) if one[2].startswith(example)]
        by_id = sorted(kept, key=lambda one: one.input_id)
        assert sorted(found, key=lambda one: str(one[2])) == [tuple(one) for one in by_id]

    @FEW
    @given(st.lists(st.lists(st.integers(0, 12), max_size=10), max_size=5))
    def test_new_is_what_a_set_would_call_new(self, store: Store, batches: list[list[int]]) -> None:
        example = next(EXAMPLES)
        seen: set[int] = set()
        for batch in batches:
            expected = []
            for number in batch:
                expected.append(number not in seen)
                seen.add(number)
            with store.transaction() as tx:
                assert tx.insert_samples([row(f"{example}{number}") for number in batch]).tolist() == expected

    def test_workers_with_the_same_records_in_reverse_order_count_each_once(
        self, store: Store, second_store: Store
    ) -> None:
        ids = [f"{number:04d}" for number in range(400)]
        seed = random.Random(5)
        batches = [seed.sample(ids, 120) for _ in range(20)]

        def work(own: Store, partition: Partition, mine: list[list[str]]) -> None:
            for step, batch in enumerate(mine):
                with own.transaction() as tx:
                    tx.advance(advance(partition, expected=step or None, to=step + 1))
                    new = tx.insert_samples([row(one) for one in batch])
                    tx.add_tallies({COUNTED: int(new.sum()), COUNTED._replace(label="duplicate"): int((~new).sum())})

        backwards = [batch[::-1] for batch in batches]
        run_together(lambda: work(store, FRONT, batches), lambda: work(second_store, BACK, backwards))
        distinct = len({one for batch in batches for one in batch})
        assert store.read_tallies() == {COUNTED: distinct, COUNTED._replace(label="duplicate"): 2 * 2400 - distinct}
        assert len(stored_samples(store)) == distinct

    def test_two_long_batches_that_run_towards_each_other_do_not_block(self, store: Store, second_store: Store) -> None:
        """In the order given, each would come to hold what the other waits for."""
        rows = [row(f"{number:05d}") for number in range(5000)]
        start = threading.Barrier(2)
        new: list[int] = []

        def work(own: Store, mine: list[SampleRow]) -> None:
            start.wait()
            with own.transaction() as tx:
                new.append(int(tx.insert_samples(mine).sum()))

        run_together(lambda: work(store, rows), lambda: work(second_store, rows[::-1]))
        assert sorted(new) == [0, 5000]


class TestPanes:
    def test_parts_are_read_before_and_after_folding(self, store: Store, leader: Leader) -> None:
        for state in (b"c", b"a", b"b"):
            with store.transaction() as tx:
                tx.add_panes({pane(): PaneDelta(2, state), pane(PANE): PaneDelta(1, state)})
        assert sorted(part.state for part in store.read_panes("street", "3", until_us=PANE)) == [b"a", b"b", b"c"]
        fold_all(leader)
        assert store.read_panes("street", "3") == [(pane(), 6, b"abc"), (pane(PANE), 3, b"abc")]
        with store.transaction() as tx:
            tx.add_panes({pane(): PaneDelta(1, b"d")})
        assert sorted(part.state for part in store.read_panes("street", "3", until_us=PANE)) == [b"abc", b"d"]
        fold_all(leader)
        assert store.read_panes("street", "3")[0] == (pane(), 7, b"abcd")

    def test_panes_are_chosen_by_start_slice_version_and_baseline(self, store: Store, leader: Leader) -> None:
        keys = [
            pane(),
            pane(PANE),
            pane(PANE, slice="camera=7"),
            pane(PANE, version="4"),
            pane(PANE, baseline_id="b2"),
            pane(2 * PANE),
        ]
        with store.transaction() as tx:
            tx.add_panes({key: PaneDelta(1, b"\x00\xff\\") for key in keys})
        for _ in ("before folding", "after folding"):
            found = [part.key for part in store.read_panes("street", "3", since_us=PANE, until_us=2 * PANE)]
            assert found == [pane(PANE), pane(PANE, baseline_id="b2")]
            assert [part.key for part in store.read_panes("street", "3", baseline_id="b2")] == [keys[4]]
            assert [part.key for part in store.read_panes("street", "3", slice="camera=7")] == [keys[2]]
            assert [part.state for part in store.read_panes("street", "4")] == [b"\x00\xff\\"]
            fold_all(leader)

    def test_extent_says_what_there_is(self, store: Store, leader: Leader) -> None:
        assert store.pane_extent() == []
        with store.transaction() as tx:
            tx.add_panes({pane(): PaneDelta(2, b""), pane(version="4"): PaneDelta(1, b"")})
        fold_all(leader)
        with store.transaction() as tx:
            tx.add_panes({pane(PANE): PaneDelta(3, b"")})
        first, second = store.pane_extent("street")
        assert (first.version, first.first_start_us, first.last_start_us, first.records) == ("3", 0, PANE, 5)
        assert (second.version, second.records) == ("4", 1)
        assert store.pane_extent("sea") == []

    @FEW
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.binary(max_size=3)) | st.integers(1, 4),  # a delta, or a fold of so many
            max_size=20,
        ),
    )
    def test_folding_never_changes_the_sum(
        self, store: Store, leader: Leader, steps: list[tuple[int, bytes] | int]
    ) -> None:
        example = next(EXAMPLES)
        series = TallyKey(example, "street", "3", "", 0)
        model: dict[int, list[bytes]] = {}
        for step in steps:
            if isinstance(step, int):
                leader.fold(concatenate, (HOUR,), limit=step)
                continue
            number, state = step
            key = PaneKey(example, "3", "", number * PANE, "b1")
            with store.transaction() as tx:
                tx.add_panes({key: PaneDelta(len(state), state)})
                tx.add_tallies({series: len(state)})
            model.setdefault(number, []).append(state)
        parts = store.read_panes(example, "3")
        for number, states in model.items():
            mine = [part for part in parts if part.key.start_us == number * PANE]
            assert concatenate([part.state for part in mine]) == concatenate(states)
            assert sum(part.records for part in mine) == len(b"".join(states))
        everything = [state for states in model.values() for state in states]
        assert store.read_tallies().get(series, 0) == len(b"".join(everything))

    def test_a_fold_neither_hides_nor_doubles_anything_from_readers(
        self, store: Store, second_store: Store, leader: Leader
    ) -> None:
        """Every transaction adds one record to a pane and to the total; so a reader may never see either shrink."""
        done = threading.Event()
        transactions = 120

        def write() -> None:
            for _ in range(transactions):
                with second_store.transaction() as tx:
                    tx.add_panes({pane(): PaneDelta(1, b"x")})
                    tx.add_tallies({COUNTED: 1})
            done.set()

        def fold() -> None:
            while not done.is_set():
                leader.fold(concatenate, (HOUR,), limit=7)

        def read() -> None:
            records = total = 0
            while not done.is_set():
                parts = store.read_panes("street", "3")
                now = sum(part.records for part in parts)
                assert now >= records
                assert now == len(b"".join(part.state for part in parts))
                records, (before, total) = now, (total, store.read_tallies().get(COUNTED, 0))
                assert total >= before
                assert total >= records  # read later

        run_together(write, fold, read)
        fold_all(leader)
        assert store.read_panes("street", "3") == [(pane(), transactions, b"x" * transactions)]
        assert store.read_tallies() == {COUNTED: transactions}


class TestTallies:
    def test_totals_are_exact_up_to_63_bits(self, store: Store, leader: Leader) -> None:
        large = 2**62
        for value in (large, -5, large - 1):
            with store.transaction() as tx:
                tx.add_tallies({COUNTED: value, COUNTED._replace(bucket=3): 1})
            fold_all(leader)
        assert store.read_tallies() == {COUNTED: 2**63 - 6, COUNTED._replace(bucket=3): 3}

    def test_a_total_beyond_63_bits_stays_at_the_largest(self, store: Store, leader: Leader) -> None:
        for _ in range(3):
            with store.transaction() as tx:
                tx.add_tallies({COUNTED: 2**80})
            assert store.read_tallies() == {COUNTED: 2**63 - 1}
            fold_all(leader)
        assert store.read_tallies() == {COUNTED: 2**63 - 1}

    def test_adding_zero_makes_a_series_exist(self, store: Store, leader: Leader) -> None:
        with store.transaction() as tx:
            tx.add_tallies({COUNTED: 0})
        assert store.read_tallies() == {COUNTED: 0}
        fold_all(leader)
        assert store.read_tallies() == {COUNTED: 0}

    def test_of_the_last_event_time_the_greatest_stays(self, store: Store, leader: Leader) -> None:
        last = TallyKey(LAST_EVENT_US, "street", "3", "", 0)
        for value, greatest in ((50, 50), (20, 50), (70, 70)):
            with store.transaction() as tx:
                tx.add_tallies({last: value, COUNTED: 1})
            assert store.read_tallies()[last] == greatest
            fold_all(leader)
            assert store.read_tallies()[last] == greatest
        for value in (90, 80):
            with store.transaction() as tx:
                tx.add_tallies({last: value, COUNTED: 1})
        fold_all(leader)
        assert store.read_tallies() == {last: 90, COUNTED: 5}

    @FEW
    @given(names, names)
    def test_labels_survive_any_text(self, store: Store, leader: Leader, series: str, label: str) -> None:
        key = TallyKey(series, "street", "3", label, 1)
        before = store.read_tallies().get(key, 0)
        with store.transaction() as tx:
            tx.add_tallies({key: 2})
        fold_all(leader)
        assert store.read_tallies()[key] == before + 2


class TestWindows:
    def test_a_window_is_due_when_the_watermark_passes_its_end(self, store: Store, leader: Leader) -> None:
        with store.transaction() as tx:
            tx.add_panes({pane(HOUR + PANE): PaneDelta(1, b""), pane(-PANE): PaneDelta(1, b"")})
        assert leader.due(10 * HOUR) == []
        fold_all(leader, (HOUR, 2 * HOUR))
        due = [(window.start_us, window.end_us) for window in leader.due(2 * HOUR)]
        assert due == [(-HOUR, 0), (-2 * HOUR, 0), (HOUR, 2 * HOUR), (0, 2 * HOUR)]  # of one end the shorter first
        assert [(window.start_us, window.end_us) for window in leader.due(2 * HOUR - 1)] == due[:2]
        assert len(leader.due(2 * HOUR, limit=1)) == 1

    def test_a_verdict_clears_the_mark_and_a_late_record_makes_a_revision(self, store: Store, leader: Leader) -> None:
        window = make_due(store, leader)
        assert leader.record_score(window, ScoreRow(1, False, b"{}", 5)) == 0
        assert leader.due(HOUR) == []
        assert make_due(store, leader) == window
        assert leader.record_score(window, ScoreRow(2, True, b'{"js": 1}', 9)) == 1
        assert leader.due(HOUR) == []
        (score,) = store.scores("street")
        assert (score.revision, score.records, score.alarm, score.payload, score.end_us) == (
            1,
            2,
            True,
            b'{"js": 1}',
            HOUR,
        )

    def test_the_same_records_are_not_a_revision(self, store: Store, leader: Leader) -> None:
        window = make_due(store, leader)
        message = OutboxMessage("alert-1", "actions", None, b"{}")
        assert leader.record_score(window, ScoreRow(1, True, b"{}", 5), [message]) == 0
        assert make_due(store, leader) == window
        assert leader.record_score(window, ScoreRow(1, True, b"{}", 9), [replace(message, id="alert-2")]) is None
        assert leader.due(HOUR) == []
        assert store.outbox_pending() == 1
        assert store.scores("street")[0].revision == 0

    def test_what_is_folded_while_a_window_is_scored_keeps_it_due(self, store: Store, leader: Leader) -> None:
        window = make_due(store, leader)
        make_due(store, leader)
        leader.record_score(window, ScoreRow(1, False, b"{}", 5))
        (again,) = leader.due(HOUR)
        assert again.mark > window.mark
        assert leader.due(HOUR) == [again]
        leader.record_score(again, ScoreRow(2, False, b"{}", 6))
        assert leader.due(HOUR) == []

    def test_scores_are_read_by_time_length_and_slice_in_their_last_revision(
        self, store: Store, leader: Leader
    ) -> None:
        for start in (0, HOUR, 2 * HOUR):
            window = DueWindow("street", "3", "", HOUR, start, "b1", 1)
            for records in (1, 2):
                leader.record_score(window, ScoreRow(records, None, b"", 5))
        leader.record_score(DueWindow("street", "3", "camera=7", HOUR, 0, "b1", 1), ScoreRow(1, None, b"", 5))
        leader.record_score(DueWindow("street", "4", "", HOUR, 0, "b1", 1), ScoreRow(1, None, b"", 5))
        leader.record_score(DueWindow("street", "3", "", 2 * HOUR, 0, "b1", 1), ScoreRow(4, None, b"", 5))
        found = [(score.start_us, score.revision) for score in store.scores("street", "3", length_us=HOUR)]
        assert found == [(0, 1), (HOUR, 1), (2 * HOUR, 1)]
        middle = store.scores("street", "3", length_us=HOUR, since_us=HOUR, until_us=2 * HOUR)
        assert [score.start_us for score in middle] == [HOUR]
        assert [score.version for score in store.scores("street", since_us=0, until_us=1)] == ["3", "4", "3"]
        assert [score.slice for score in store.scores("street", slice="camera=7")] == ["camera=7"]
        latest = [(one.version, one.slice, one.length_us, one.start_us, one.revision) for one in store.latest_scores()]
        assert latest == [
            ("3", "", HOUR, 2 * HOUR, 1),
            ("3", "", 2 * HOUR, 0, 0),
            ("3", "camera=7", HOUR, 0, 0),
            ("4", "", HOUR, 0, 0),
        ]

    def test_of_each_slice_key_so_many_slices_are_read_as_asked_for(self, store: Store, leader: Leader) -> None:
        names = ["", "camera=", "camera=1", "camera=10", "camera=2", "site=berlin", "site=lyon", "site=x=y"]
        for version, some in (("3", names), ("4", ["", "camera=2"])):
            for name in some:
                for start in (0, HOUR):
                    window = DueWindow("street", version, name, HOUR, start, "b1", 1)
                    leader.record_score(window, ScoreRow(1, None, b"", 5))
            leader.record_score(DueWindow("street", version, "", 2 * HOUR, 0, "b1", 1), ScoreRow(4, None, b"", 5))
        found = store.latest_scores(length_us=HOUR, slices=2)
        assert {one.start_us for one in found} == {HOUR}
        first = ["", "camera=", "camera=1", "site=berlin", "site=lyon"]
        assert [one.slice for one in found if one.version == "3"] == first
        assert [one.slice for one in found if one.version == "4"] == ["", "camera=2"]
        assert store.slice_counts(HOUR) == {("street", "3"): 7, ("street", "4"): 1}
        assert len(store.latest_scores(length_us=HOUR)) == 10
        assert len(store.latest_scores(slices=2)) == 9

    def test_the_latest_score_is_that_of_the_baseline_scored_last(self, store: Store, leader: Leader) -> None:
        for baseline_id, scored_at in (("b2", 5), ("b1", 6)):
            window = DueWindow("street", "3", "", HOUR, 0, baseline_id, 1)
            leader.record_score(window, ScoreRow(3, True, b"", scored_at))
        (latest,) = store.latest_scores()
        assert latest.baseline_id == "b1"


def early_state(version: str = "3", baseline_id: str = "b1", **others: Any) -> EarlyState:
    blank = EarlyState("street", version, baseline_id, PANE, 20, 1.5, 1e6, False, None, b"\x00state")
    return replace(blank, **others)


class TestEarly:
    def test_a_state_is_replaced_with_its_alarms_and_kept_apart_by_version_and_baseline(
        self, store: Store, leader: Leader
    ) -> None:
        assert leader.early_state("street", "3", "b1") is None
        leader.record_early(early_state())
        leader.record_early(early_state(version="4"))
        leader.record_early(early_state(baseline_id="b2", records=9))
        assert leader.early_state("street", "3", "b1") == early_state()
        later = early_state(
            fed_until_us=2 * PANE, records=40, evidence=1e300, alarm=True, alarm_at_us=2 * PANE, state=b"later"
        )
        leader.record_early(later, [EarlyAlarm(PANE, b"first"), EarlyAlarm(2 * PANE, b"second")])
        assert leader.early_state("street", "3", "b1") == later
        first, second, third = store.early_readings()
        assert first == EarlyReading("street", "3", "b1", 2 * PANE, 40, 1e300, 1e6, True, 2 * PANE, b"second")
        assert (second.baseline_id, second.records, second.last_alarm) == ("b2", 9, None)
        assert third.version == "4"

    def test_alarms_are_read_by_their_time(self, store: Store, leader: Leader) -> None:
        alarms = [EarlyAlarm(number * PANE, b"%d" % number) for number in range(1, 5)]
        leader.record_early(early_state(), alarms)
        leader.record_early(early_state(), [EarlyAlarm(PANE, b"again"), EarlyAlarm(PANE, b"and again")])
        leader.record_early(early_state(baseline_id="b2"), [EarlyAlarm(2 * PANE, b"other")])
        assert store.early_alarms("street", "3", "b1", after_us=0, until_us=9 * PANE) == alarms
        assert store.early_alarms("street", "3", "b1", after_us=PANE, until_us=3 * PANE) == alarms[1:3]
        assert store.early_alarms("street", "4", "b1", after_us=0, until_us=9 * PANE) == []

    def test_panes_to_feed_are_the_folded_ones_of_all_records_in_order_of_time(
        self, store: Store, leader: Leader
    ) -> None:
        def starts(since_us: int, until_us: int, limit: int = 9) -> list[int]:
            found = store.closed_panes("street", "3", "b1", since_us=since_us, until_us=until_us, limit=limit)
            assert {one.key[:3] + one.key[4:] for one in found} <= {("street", "3", "", "b1")}
            return [one.key.start_us // PANE for one in found]

        keys = [*(pane(number * PANE) for number in (3, -1, 0, 1)), pane(slice="a=b"), pane(baseline_id="b2")]
        with store.transaction() as tx:
            tx.add_panes({key: PaneDelta(1, b"") for key in keys})
        assert starts(-HOUR, HOUR) == []
        fold_all(leader)
        assert starts(-HOUR, HOUR) == [-1, 0, 1, 3]
        assert starts(-HOUR, HOUR, limit=2) == [-1, 0]
        assert starts(0, 3 * PANE) == [0, 1]

    def test_retention_takes_old_alarms_and_tests_that_have_seen_nothing_newer(
        self, store: Store, leader: Leader
    ) -> None:
        leader.record_early(early_state(), [EarlyAlarm(PANE, b"")])
        leader.record_early(
            early_state(version="4", fed_until_us=9 * PANE), [EarlyAlarm(PANE, b""), EarlyAlarm(8 * PANE, b"")]
        )
        assert leader.expire(8 * PANE).early == 3
        assert [one.version for one in store.early_readings()] == ["4"]
        assert store.early_alarms("street", "4", "b1", after_us=0, until_us=HOUR) == [EarlyAlarm(8 * PANE, b"")]


class TestLeadership:
    def test_there_is_one_leader(self, store: Store, second_store: Store) -> None:
        first = store.try_lead()
        assert first is not None
        assert store.try_lead() is None
        assert second_store.try_lead() is None
        first.release()
        second = second_store.try_lead()
        assert second is not None
        second.release()

    def test_who_has_released_no_longer_writes(self, store: Store) -> None:
        led = store.try_lead()
        assert led is not None
        led.release()
        with pytest.raises(StoreError, match="no longer leads"):
            led.due(0)

    def test_retention_takes_what_is_old_in_portions(self, store: Store, leader: Leader, clock: Clock) -> None:
        for number in range(5):
            with store.transaction() as tx:
                tx.insert_samples([row(f"id{number}", event_time_us=number * HOUR)])
                tx.add_panes({pane(number * HOUR): PaneDelta(1, b"")})
                tx.add_outbox([OutboxMessage(f"m{number}", "topic", None, b"")])
            fold_all(leader)
            with store.claim_outbox(10):
                clock.now_us = (number + 1) * HOUR
        leader.record_score(leader.due(HOUR)[0], ScoreRow(1, None, b"", 0))
        with store.transaction() as tx:
            tx.add_outbox([OutboxMessage("waiting", "topic", None, b"")])
        expired = leader.expire(3 * HOUR, portion=2)
        assert (expired.panes, expired.scores, expired.samples, expired.messages) == (3, 1, 3, 3)
        assert [part.key.start_us for part in store.read_panes("street", "3")] == [3 * HOUR, 4 * HOUR]
        assert [found[2] for found in stored_samples(store)] == ["id3", "id4"]
        assert [window.start_us for window in leader.due(100 * HOUR)] == [3 * HOUR, 4 * HOUR]
        assert store.outbox_pending() == 1
        assert store.scores("street") == []
        again = leader.expire(3 * HOUR)
        assert (again.panes, again.scores, again.samples, again.messages) == (0, 0, 0, 0)


class TestOutbox:
    def queue(self, store: Store, *messages: OutboxMessage) -> None:
        with store.transaction() as tx:
            tx.add_outbox(messages)

    def test_a_message_is_delivered_as_it_was_queued(self, store: Store, clock: Clock) -> None:
        first = OutboxMessage("m1", "segwatch.actions", b"\x00key", b"\xff", (("ce_id", b"m1"), ("ce_id", b"2")))
        second = OutboxMessage("m2", "segwatch.dead-letter", None, None, keep_sent=False)
        self.queue(store, first)
        clock.now_us += 1
        self.queue(store, second)
        with store.claim_outbox(10) as claimed:
            assert list(claimed) == [replace(first, created_us=1_000_000), replace(second, created_us=1_000_001)]
        assert store.outbox_pending() == 0
        with store.claim_outbox(10) as claimed:
            assert len(claimed) == 0

    def test_a_failed_delivery_comes_again_with_the_same_id(self, store: Store) -> None:
        self.queue(store, OutboxMessage("m1", "topic", None, b"v"))
        with pytest.raises(RuntimeError, match="broker"), store.claim_outbox(10) as claimed:
            raise RuntimeError("broker is gone after taking the message")
        assert store.outbox_pending() == 1
        with store.claim_outbox(10) as claimed:
            assert [message.id for message in claimed] == ["m1"]
        assert store.outbox_pending() == 0

    def test_a_kept_message_does_not_hold_up_the_others(self, store: Store, clock: Clock) -> None:
        for number in range(3):
            clock.now_us += 1
            self.queue(store, OutboxMessage(f"m{number}", "topic", None, b"v"))
        with store.claim_outbox(1) as claimed:
            claimed.keep("m0")
        delivered = []
        while store.outbox_pending():
            with store.claim_outbox(1) as claimed:
                delivered += [message.id for message in claimed]
        assert delivered == ["m1", "m2", "m0"]

    def test_the_same_cause_is_queued_once_even_after_delivery(self, store: Store) -> None:
        message = OutboxMessage("m1", "topic", None, b"first")
        self.queue(store, message, replace(message, value=b"second"))
        self.queue(store, replace(message, value=b"third"))
        with store.claim_outbox(10) as claimed:
            assert [one.value for one in claimed] == [b"first"]
        self.queue(store, message)
        assert store.outbox_pending() == 0

    def test_a_delivered_dead_letter_leaves_the_database(self, store: Store) -> None:
        letter = OutboxMessage("m1", "topic", None, b"image", keep_sent=False)
        self.queue(store, letter)
        with store.claim_outbox(10):
            pass
        self.queue(store, letter)
        assert store.outbox_pending() == 1


class TestBaselines:
    def add(self, store: Store, payload: bytes = b"bins", version: str = "3", model: str = "street") -> str:
        return store.add_baseline(model, version, format_version=1, meta={"name": "straße"}, payload=payload)

    def test_a_baseline_comes_back_by_its_id_or_the_beginning_of_it(self, store: Store) -> None:
        identity = self.add(store, b"\x00bins\xff")
        for name in (identity, identity[:8]):
            found = store.baseline(name)
            assert found.payload == b"\x00bins\xff"
            assert (found.meta.id, found.meta.model, found.meta.version) == (identity, "street", "3")
            assert (found.meta.format_version, found.meta.meta) == (1, {"name": "straße"})

    def test_the_same_content_is_stored_once(self, store: Store, clock: Clock) -> None:
        identity = self.add(store)
        clock.now_us += 1
        assert self.add(store) == identity
        (only,) = store.baselines()
        assert only.created_us == 1_000_000
        others = {self.add(store, b"other"), self.add(store, version="4"), self.add(store, model="sea")}
        assert len({identity, *others}) == 4
        assert len(store.baselines()) == 4
        assert len(store.baselines("sea")) == 1

    def test_an_unknown_or_ambiguous_id_is_named(self, store: Store) -> None:
        with pytest.raises(BaselineError, match="'feed'"):
            store.baseline("feed")
        with pytest.raises(BaselineError, match="''"):
            store.baseline("")
        with pytest.raises(BaselineError, match="'%'"):
            store.baseline("%")
        identities = [self.add(store, bytes([number])) for number in range(17)]  # 16 hex digits: two begin alike
        first_digits = Counter(identity[0] for identity in identities)
        shared = first_digits.most_common(1)[0][0]
        with pytest.raises(BaselineError, match="several"):
            store.activate(shared)

    def test_a_damaged_payload_is_not_used(self, store: Store) -> None:
        identity = self.add(store)
        with store._database.write() as connection:
            connection.execute(sqlalchemy.text("UPDATE baseline SET created_us = 5, version = '4'"))
        with pytest.raises(BaselineError, match="damaged"):
            store.baseline(identity)

    def test_each_version_has_one_active_baseline(self, store: Store, clock: Clock) -> None:
        assert store.active_baselines() == {}
        first, second, other = self.add(store, b"1"), self.add(store, b"2"), self.add(store, version="4")
        for identity in (other, first, second):
            clock.now_us += 1
            assert store.activate(identity).id == identity
        active = store.active_baselines()
        assert {key: one.meta.id for key, one in active.items()} == {("street", "4"): other, ("street", "3"): second}
        assert active["street", "3"].activated_us == 1_000_003


def test_a_reader_sees_what_is_committed_and_changes_nothing(store: Store, settings: Settings) -> None:
    with Store.open(settings, write=False) as reader:
        with store.transaction() as tx:
            tx.add_tallies({COUNTED: 1})
            assert reader.read_tallies() == {}
        assert reader.read_tallies() == {COUNTED: 1}
        with pytest.raises(StoreError, match="for reading only"), reader.transaction():
            pass
        with pytest.raises(StoreError, match="for reading only"):
            reader.try_lead()
        with pytest.raises(StoreError), reader._database.read() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM tally_delta"))
    assert store.read_tallies() == {COUNTED: 1}


def test_what_was_stored_is_there_after_reopening(settings: Settings) -> None:
    with Store.open(settings, write=True) as store, store.transaction() as tx:
        tx.advance(advance(to=5))
        tx.insert_samples([row("a")])
    with Store.open(settings, write=True) as store, store.transaction() as tx:
        tx.advance(advance(expected=5, to=6))
        assert not tx.insert_samples([row("a")]).any()


def make_due(store: Store, leader: Leader) -> DueWindow:
    with store.transaction() as tx:
        tx.add_panes({pane(PANE): PaneDelta(1, b"")})
    fold_all(leader)
    (window,) = leader.due(HOUR)
    return window


def run_together(*work: Callable[[], None]) -> None:
    """Run in threads; the first failure is raised here, and nobody waits for ever."""
    with ThreadPoolExecutor(len(work)) as pool:
        for future in [pool.submit(one) for one in work]:
            future.result(timeout=60)
