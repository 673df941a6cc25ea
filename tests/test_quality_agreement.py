"""Agreement of two annotators is scikit-learn's, over all their records together."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, jaccard_score

from detectors.quality.agreement import Shared, agreement, disagreements, overall_kappa
from detectors.quality.confusion import ClassTable
from detectors.quality.judge_semantic import judge_semantic

VOID = 255
TABLE = ClassTable.of([0, 1, 2], ignore=[VOID])
Map = NDArray[np.uint8]

values = st.sampled_from([0, 1, 2, VOID])


@st.composite
def records(draw: st.DrawFn) -> list[tuple[Map, Map]]:
    shapes = draw(st.lists(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8), min_size=1, max_size=4))
    return [
        (draw(hnp.arrays(np.uint8, shape, elements=values)), draw(hnp.arrays(np.uint8, shape, elements=values)))
        for shape in shapes
    ]


def shared_of(pairs: list[tuple[Map, Map]]) -> Shared:
    return Shared.of_semantic([judge_semantic(first, second, TABLE) for first, second in pairs])


def pooled(pairs: list[tuple[Map, Map]]) -> tuple[Map, Map]:
    """All pixels on which both have a say."""
    first = np.concatenate([pair[0].ravel() for pair in pairs])
    second = np.concatenate([pair[1].ravel() for pair in pairs])
    kept = (first != VOID) & (second != VOID)
    return first[kept], second[kept]


def kappa_of_scikit_learn(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by zero where chance alone agrees
        return float(cohen_kappa_score(first, second)) if len(first) else float("nan")


@given(records())
def test_agreement_is_that_of_scikit_learn(pairs: list[tuple[Map, Map]]) -> None:
    shared = shared_of(pairs)
    found = agreement(shared)
    first, second = pooled(pairs)
    assert found.records == len(pairs)
    for position in range(3):
        one, other = first == position, second == position
        if (one | other).any():
            assert found.iou[position] == pytest.approx(jaccard_score(one, other, zero_division=0), abs=1e-9)
            expected = (one.sum() - other.sum()) / (one | other).sum()
            assert found.surplus[position] == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(found.iou[position]) and np.isnan(found.surplus[position])
        expected = kappa_of_scikit_learn(one, other)
        assert found.kappa[position] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    overall = overall_kappa(shared)
    expected = kappa_of_scikit_learn(first, second)
    assert (float("nan") if overall is None else overall) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(records())
def test_neither_annotator_is_the_truth(pairs: list[tuple[Map, Map]]) -> None:
    one, other = agreement(shared_of(pairs)), agreement(shared_of([(second, first) for first, second in pairs]))
    np.testing.assert_array_equal(one.iou, other.iou)
    np.testing.assert_allclose(one.kappa, other.kappa, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(one.surplus, -other.surplus)


@given(records())
def test_an_annotator_agrees_with_himself(pairs: list[tuple[Map, Map]]) -> None:
    same = [(first, first) for first, _ in pairs]
    found = agreement(shared_of(same))
    assert np.isin(found.iou[~np.isnan(found.iou)], 1.0).all()
    assert disagreements(shared_of(same), most=10) == []


def test_records_on_which_annotators_differ_most_come_first() -> None:
    base = np.zeros((10, 10), np.uint8)
    pairs = [(base, base.copy()) for _ in range(4)]
    pairs[1][1][0, :3] = 1
    pairs[3][1][:5] = 2
    pairs.append((np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)))
    pairs[4][1][:4] = 1
    found = disagreements(shared_of(pairs), most=10)
    assert [(each.record, each.disputed) for each in found] == [(3, 50), (4, 400), (1, 3)]
    assert [each.position for each in found] == [0, 0, 0]
    assert [each.iou for each in found] == [0.5, 0.96, 0.97]
    assert disagreements(shared_of(pairs), most=1) == found[:1]


def test_habit_is_told_from_noise() -> None:
    """One annotator draws a class one pixel wider all round; two others differ as much, in either direction."""
    narrow, wide = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    narrow[10:20, 10:20], wide[9:21, 9:21] = 1, 1
    shifted = np.roll(narrow, 2, axis=0)
    habit, noise = agreement(shared_of([(wide, narrow)])), agreement(shared_of([(shifted, narrow)]))
    assert habit.iou[1] == pytest.approx(noise.iou[1], abs=0.03)
    assert habit.surplus[1] == pytest.approx(44 / 144) and noise.surplus[1] == 0


def test_overlapping_instances_are_judged_class_by_class() -> None:
    shared = Shared(np.array([[50, 30]]), np.array([[60, 30]]), np.array([[50, 45]]), np.array([100]))
    found = agreement(shared)
    one, other = np.arange(100) < 60, np.arange(100) < 50
    assert found.kappa[0] == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
    assert found.iou.tolist() == [50 / 60, 30 / 45]


def test_sums_of_different_shape_are_refused() -> None:
    one = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="expected \\(records, classes\\)"):
        Shared(one, one, one[:1], np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="2 records, but pixels"):
        Shared(one, one, one, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="without a judgement"):
        Shared.of_semantic([])
