"""Signals `class_score` and `cooccurrence`, against counts made record by record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.features import Features
from detectors.layout import Layout
from detectors.score import BaselineStatistic, score_window
from detectors.signals import Signal
from detectors.signals.class_score import ClassScore
from detectors.signals.cooccurrence import BUCKETS, PRESENT_SHARE, Cooccurrence, pairs_of
from detectors.statistic import PaneStatistic

Record = Sequence[tuple[int, float]] | dict[int, float] | None
"""Instances (class, score), or the shares of a semantic map, or neither."""


def features(records: Sequence[Record], classes: int) -> Features:
    """Class index ``classes`` is one that the baseline does not know."""
    shares = np.full((len(records), classes + 1), np.nan)
    for row, record in enumerate(records):
        if isinstance(record, dict):
            shares[row] = 0
            shares[row, list(record)] = list(record.values())
    listed = [record if isinstance(record, list) else [] for record in records]
    return Features(
        components=np.zeros((len(records), 2)),
        instance_offsets=np.cumsum([0, *(len(record) for record in listed)]),
        instance_class=np.array([c for record in listed for c, _ in record], dtype=np.int64),
        instance_score=np.array([s for record in listed for _, s in record], dtype=np.float64),
        has_instances=np.array([isinstance(record, list) for record in records], dtype=bool),
        class_shares=shares,
        semantic_confidence=np.full(len(records), np.nan),
    )


@st.composite
def drawn(draw: st.DrawFn) -> tuple[list[Record], int]:
    """Records of all kinds, over few or many classes."""
    classes = draw(st.sampled_from([1, 2, 3, 8, 9, 19, 40]))
    kind = st.integers(0, classes)
    instances = st.lists(st.tuples(kind, st.floats(0, 1)), max_size=12)
    shares = st.dictionaries(kind, st.sampled_from([0.0, PRESENT_SHARE, 0.0011, 0.2]), max_size=classes)
    return draw(st.lists(st.one_of(instances, shares, st.none()), max_size=8)), classes


def present(record: Record, classes: int) -> set[int] | None:
    if record is None:
        return None
    if isinstance(record, dict):
        return {c for c, share in record.items() if share > PRESENT_SHARE and c < classes}
    return {c for c, _ in record if c < classes}


@given(drawn())
def test_class_score_is_the_mean_over_each_classs_instances(case: tuple[list[Record], int]) -> None:
    records, classes = case
    values = ClassScore().values(features(records, classes))
    assert values.shape == (len(records), classes)
    for record, row in zip(records, values, strict=True):
        for kind in range(classes):
            scores = [s for c, s in record if c == kind] if isinstance(record, list) else []
            assert row[kind] == pytest.approx(np.mean(scores) if scores else np.nan, nan_ok=True)


@given(drawn())
def test_pairs_are_counted_as_itertools_finds_them(case: tuple[list[Record], int]) -> None:
    records, classes = case
    names = [f"class {index}" for index in range(classes)]
    columns = Cooccurrence().dimensions(names, 2)
    values = Cooccurrence().values(features(records, classes))
    assert values.shape == (len(records), len(columns))
    assert len(columns) <= 32
    for record, row in zip(records, values, strict=True):
        found = present(record, classes)
        if found is None:
            assert np.isnan(row).all()
        elif classes <= 8:
            pairs = {f"class {i}+class {j}" for i, j in combinations(sorted(found), 2)}
            assert {column for column, value in zip(columns, row, strict=True) if value} == pairs
            assert set(row.tolist()) <= {0.0, 1.0}
        else:
            expected = np.zeros(len(columns))
            for i, j in combinations(sorted(found), 2):
                expected[columns.index(f"pairs_{(3 ** (i % 30) + 3 ** (j % 30)) % BUCKETS:02}")] += 1
            expected[columns.index("distinct")] = len(found)
            assert row.tolist() == expected.tolist()


@pytest.mark.parametrize(("classes", "most"), [(9, 3), (19, 7), (30, 15), (31, 16), (150, 375)])
def test_every_pair_has_one_column_and_no_class_twice_in_it_up_to_30(classes: int, most: int) -> None:
    names = [f"class {index}" for index in range(classes)]
    by_column = [pairs_of(bucket, names) for bucket in range(BUCKETS)]
    assert sorted(pair for pairs in by_column for pair in pairs) == sorted(combinations(names, 2))
    assert max(len(pairs) for pairs in by_column) == most
    if classes <= 30:
        assert all(len(set(sum(pairs, ()))) == 2 * len(pairs) for pairs in by_column)


def test_a_column_read_back_names_the_pairs_that_it_counts() -> None:
    names = [f"class {index}" for index in range(40)]
    for bucket in range(BUCKETS):
        for first, second in pairs_of(bucket, names):
            row = Cooccurrence().values(features([[(names.index(first), 1.0), (names.index(second), 1.0)]], 40))[0]
            assert row.nonzero()[0].tolist() == [bucket, BUCKETS]


def test_columns_follow_from_the_class_list_and_are_never_named_alike() -> None:
    assert Cooccurrence().dimensions(["car", "person", "tree"], 4) == ("car+person", "car+tree", "person+tree")
    assert Cooccurrence().dimensions(["car"], 4) == ()
    awkward = ["a+b", "c", "a", "b+c", "a\\", "+b"]
    columns = Cooccurrence().dimensions(awkward, 4)
    assert len(set(columns)) == len(columns) == 15


def test_a_list_counts_and_not_the_map_beside_it() -> None:
    both = features([[(0, 0.5)], {1: 0.5, 2: 0.5}], 3)
    both.class_shares[0] = [0.0, 0.5, 0.5, 0.0]
    assert Cooccurrence().values(both).tolist() == [[0, 0, 0], [0, 0, 1]]


def scene(rng: np.random.Generator, records: int, *, together: bool) -> list[Record]:
    """Cars in half of the records and riders in half, each scored alike; riders beside cars, or apart from them."""
    made: list[Record] = []
    for _ in range(records):
        car = rng.random() < 0.5
        rider = (car if rng.random() < 0.85 else not car) if together else rng.random() < 0.5
        made.append([(c, float(rng.beta(8, 2))) for c, there in ((0, car), (1, rider)) if there])
    return made


def columns_of(records: list[Record]) -> tuple[Layout, np.ndarray]:
    signals: list[Signal] = [Cooccurrence(), ClassScore()]
    layout = Layout.stacked([(signal.name, signal.dimensions(["car", "rider"], 2)) for signal in signals])
    return layout, np.hstack([signal.values(features(records, 2)) for signal in signals])


def test_classes_that_part_company_are_found_though_each_is_as_frequent_as_before() -> None:
    rng = np.random.default_rng(4)
    layout, values = columns_of(scene(rng, 4000, together=True))
    baseline = BaselineStatistic.fit(layout, values, [""] * 4000)

    def hits(*, together: bool, windows: int) -> list[int]:
        found = [0, 0]
        for _ in range(windows):
            pane = PaneStatistic(layout.width, 16)
            _, rows = columns_of(scene(rng, 200, together=together))
            pane.add(baseline.binning.codes(rows), [""] * 200)
            for index, score in enumerate(score_window(baseline, pane, alpha=0.01).scores):
                found[index] += score.p_value is not None and score.p_value <= 0.01
        return found

    cooccurrence, class_score = hits(together=False, windows=50)
    assert cooccurrence >= 45
    assert class_score <= 5
    assert max(hits(together=True, windows=200)) <= 8  # P(more) = 0.0002 at a true rate of 1 %
