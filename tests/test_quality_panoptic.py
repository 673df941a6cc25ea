"""Panoptic quality follows its definition, which is written out here in sets of pixels and fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.quality.panoptic import METRICS, PanopticJudgement, Segments, judge_panoptic

CLASSES = 3


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Segments, Segments]:
    """Predicted and labelled; the prediction is often the label with some pixels changed."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
    counts = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    found, given = (draw(hnp.arrays(np.int64, shape, elements=st.integers(0, count))) for count in counts)
    if draw(st.booleans()):
        found = np.where(draw(hnp.arrays(np.bool_, shape)), np.minimum(given, counts[0]), found)
    kinds = draw(st.lists(st.integers(0, CLASSES), min_size=counts[0], max_size=counts[0]))
    label_kinds = draw(st.lists(st.integers(0, CLASSES - 1), min_size=counts[1], max_size=counts[1]))
    crowd = draw(st.lists(st.booleans(), min_size=counts[1], max_size=counts[1]))
    return Segments(found, np.array(kinds, np.int64)), Segments(
        given, np.array(label_kinds, np.int64), np.array(crowd, np.bool_)
    )


def pixels(segments: Segments) -> list[set[int]]:
    return [set(np.flatnonzero(segments.map == place + 1).tolist()) for place in range(len(segments.kinds))]


def by_definition(predicted: Segments, labelled: Segments) -> list[tuple[int, int, int, Fraction]]:
    """TP, FP, FN and the sum of IoUs of each class (Kirillov et al. 2019, sections 4.1 and 4.2)."""
    found, given = pixels(predicted), pixels(labelled)
    void = set(np.flatnonzero(labelled.map == 0).tolist())
    assert labelled.crowd is not None
    result = []
    for kind in range(CLASSES):
        ours = [each for each, of in zip(found, predicted.kinds, strict=True) if of == kind and each]
        theirs = [
            each
            for each, of, crowd in zip(given, labelled.kinds, labelled.crowd, strict=True)
            if of == kind and each and not crowd
        ]
        crowds = [
            each for each, of, crowd in zip(given, labelled.kinds, labelled.crowd, strict=True) if of == kind and crowd
        ]
        undecided = void.union(*crowds)
        total, used, seen = Fraction(0), [], []
        for a, first in enumerate(ours):
            for b, second in enumerate(theirs):
                iou = Fraction(len(first & second), len((first - void) | second))
                if iou > Fraction(1, 2):
                    total += iou
                    used.append(a)
                    seen.append(b)
        assert len(set(used)) == len(used) and len(set(seen)) == len(seen), "the paper's theorem"
        false = [
            a
            for a, each in enumerate(ours)
            if a not in used and Fraction(len(each & undecided), len(each)) <= Fraction(1, 2)
        ]
        result.append((len(used), len(false), len(theirs) - len(used), total))
    return result


@given(pairs())
@settings(max_examples=250, deadline=None)
def test_counts_and_ious_are_those_of_the_definition(pair: tuple[Segments, Segments]) -> None:
    judgement = judge_panoptic(*pair, CLASSES)
    for kind, (true, false, missed, total) in enumerate(by_definition(*pair)):
        assert judgement.true_positives[kind] == true
        assert judgement.false_positives[kind] == false
        assert judgement.false_negatives[kind] == missed
        assert abs(Fraction(int(judgement.iou_billionths[kind]), 10**9) - total) <= Fraction(true, 2 * 10**9)


def segments(rows: Sequence[Sequence[int]], kinds: Sequence[int], crowd: Sequence[bool] | None = None) -> Segments:
    flags = None if crowd is None else np.array(crowd)
    return Segments(np.array(rows), np.array(kinds, np.int64), flags)


@pytest.mark.parametrize(
    ("name", "predicted", "labelled", "expected"),
    [
        ("an exact match", segments([[1, 1]], [0]), segments([[1, 1]], [0]), (1, 0, 0, 1.0)),
        ("an IoU of one half is none", segments([[1, 0]], [0]), segments([[1, 1]], [0]), (0, 1, 1, 0.0)),
        ("another class", segments([[1, 1]], [1]), segments([[1, 1]], [0]), (0, 0, 1, 0.0)),
        ("void does not count in the union", segments([[1, 1, 1]], [0]), segments([[1, 0, 0]], [0]), (1, 0, 0, 1.0)),
        ("half in void is false", segments([[1, 1]], [0]), segments([[0, 1]], [1]), (0, 1, 0, 0.0)),
        ("more than half in void is forgotten", segments([[1, 1, 1]], [0]), segments([[0, 0, 1]], [1]), (0, 0, 0, 0.0)),
        ("in a crowd of its class", segments([[1, 1]], [0]), segments([[1, 1]], [0], [True]), (0, 0, 0, 0.0)),
        ("in a crowd of another class", segments([[1, 1]], [0]), segments([[1, 1]], [1], [True]), (0, 1, 0, 0.0)),
        ("an unknown class", segments([[1, 1]], [2]), segments([[1, 1]], [0]), (0, 0, 1, 0.0)),
        ("a segment without pixels", segments([[0, 0]], [0]), segments([[0, 0]], [0]), (0, 0, 0, 0.0)),
    ],
)
def test_rules(name: str, predicted: Segments, labelled: Segments, expected: tuple[int, int, int, float]) -> None:
    judgement = judge_panoptic(predicted, labelled, 2)
    counts = judgement.true_positives[0], judgement.false_positives[0], judgement.false_negatives[0]
    assert (*counts, judgement.iou_billionths[0] / 1e9) == expected


def test_narrow_unsigned_maps_and_views_are_read_as_they_are() -> None:
    rng = np.random.default_rng(1)
    found, given = rng.integers(0, 256, (2, 40, 30))
    kinds = rng.integers(0, 2, 255)
    wide = judge_panoptic(Segments(found, kinds), Segments(given, kinds), 2)
    narrow = judge_panoptic(Segments(found.astype(np.uint8).T, kinds), Segments(given.astype(np.uint16).T, kinds), 2)
    assert wide.to_bytes() == narrow.to_bytes()


def test_quality_is_the_product_of_the_other_two_over_all_images() -> None:
    rng = np.random.default_rng(2)
    judgements, rows = [], []
    for _ in range(12):
        given = np.repeat(np.repeat(rng.integers(0, 6, (4, 4)), 5, axis=0), 5, axis=1)
        found = np.where(rng.random(given.shape) < 0.2, 0, given)
        kinds = rng.integers(0, CLASSES, 5)
        predicted, labelled = Segments(found, kinds), Segments(given, kinds, rng.random(5) < 0.2)
        judgements.append(judge_panoptic(predicted, labelled, CLASSES))
        rows.append(by_definition(predicted, labelled))

    def value(name: str) -> np.ndarray:
        metric = METRICS[name]
        return metric.numerator(judgements).sum(axis=0) / metric.denominator(judgements).sum(axis=0)

    quality = value("panoptic_quality")
    np.testing.assert_allclose(quality, value("segmentation_quality") * value("recognition_quality"), rtol=1e-12)
    for kind in range(CLASSES):
        true, false, missed, total = (sum(row[kind][place] for row in rows) for place in range(4))
        assert quality[kind] == pytest.approx(float(total) / (true + false / 2 + missed / 2), abs=1e-8)
        assert 0.1 < quality[kind] < 1


def test_metrics_of_no_judgement_are_empty() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.numerator([]).shape == metric.denominator([]).shape == (0, 0)


@given(pairs())
@settings(max_examples=50, deadline=None)
def test_a_judgement_reads_back_as_it_was_written(pair: tuple[Segments, Segments]) -> None:
    made = judge_panoptic(*pair, CLASSES)
    read = PanopticJudgement.from_bytes(made.to_bytes())
    for name in PanopticJudgement.__slots__:
        assert getattr(read, name).tolist() == getattr(made, name).tolist()
        assert getattr(read, name).dtype == np.int64


def test_damaged_bytes_are_refused() -> None:
    data = judge_panoptic(segments([[1, 1]], [0]), segments([[1, 1]], [0]), 2).to_bytes()
    faults = [data[:end] for end in range(len(data))] + [data + b"\0", b"SWIJ" + data[4:], data[:5] + b"\0" + data[6:]]
    faults += [data[:6] + b"\0" + data[7:], data[:4] + b"\x09" + data[5:], data[:6] + b"\xff" * 9 + b"\x01" + data[7:]]
    for broken in faults:
        with pytest.raises(ValueError, match="panoptic judgement"):
            PanopticJudgement.from_bytes(broken)


@pytest.mark.parametrize(
    ("predicted", "labelled", "message"),
    [
        (segments([[1, 1]], [0]), segments([[1]], [0]), r"predicted \(1, 2\), labelled \(1, 1\)"),
        (segments([[2, 1]], [0]), segments([[1, 1]], [0]), "outside 0..1"),
        (segments([[1, 1]], [0]), segments([[-1, 1]], [0]), "outside 0..1"),
        (segments([[1, 1]], [3]), segments([[1, 1]], [0]), "predicted classes must be 0..2"),
        (segments([[1, 1]], [0]), segments([[1, 1]], [2]), "labelled classes must be 0..1"),
        (segments([[1, 1]], [0]), segments([[1, 1]], [0], [True, False]), "1 labelled segments with 2 crowd flags"),
        (Segments(np.ones((1, 2)), np.array([0])), segments([[1, 1]], [0]), "float64, expected integers"),
    ],
)
def test_maps_that_do_not_fit_are_refused(predicted: Segments, labelled: Segments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_panoptic(predicted, labelled, 2)
