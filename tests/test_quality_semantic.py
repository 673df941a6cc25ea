"""Semantic maps judged: as scikit-learn counts, as OpenCV erodes, and without the mistakes of other tools."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from detectors.quality.confidence_bins import BIN_OF_BYTE, BINS
from detectors.quality.confusion import ClassTable, confusion_counts, enlarge
from detectors.quality.judge_semantic import SemanticJudgement, judge_semantic
from detectors.quality.semantic_boundary import boundary_width
from detectors.quality.semantic_metrics import METRICS, pooled

VOID = 255
TABLE = ClassTable.of([0, 1, 2], ignore=[VOID])

sides = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
values = st.sampled_from([0, 1, 2, 9, VOID])
labels = st.sampled_from([0, 1, 2, VOID])


def maps(elements: st.SearchStrategy[int]) -> st.SearchStrategy[NDArray[np.uint8]]:
    return hnp.arrays(np.uint8, sides, elements=elements)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    shape = draw(sides)
    return draw(hnp.arrays(np.uint8, shape, elements=values)), draw(hnp.arrays(np.uint8, shape, elements=labels))


def blobs(seed: int, shape: tuple[int, int] = (60, 80), classes: int = 3) -> NDArray[np.uint8]:
    """Regions, as segmentation maps have them."""
    coarse = np.random.default_rng(seed).integers(0, classes, (6, 8)).astype(np.uint8)
    return enlarge(coarse, shape)


def reference_counts(predicted: NDArray[np.uint8], labelled: NDArray[np.uint8]) -> NDArray[np.int64]:
    kept = labelled != VOID
    if not kept.any():
        return np.zeros((4, 4), np.int64)
    first, second = TABLE.predicted[predicted[kept]], TABLE.labelled[labelled[kept]]
    return confusion_matrix(second, first, labels=range(4))


ADVERSARIAL = {
    "all void": (np.zeros((5, 7), np.uint8), np.full((5, 7), VOID, np.uint8)),
    "one class": (np.ones((5, 7), np.uint8), np.ones((5, 7), np.uint8)),
    "one pixel": (np.array([[2]], np.uint8), np.array([[1]], np.uint8)),
    "nothing known in the prediction": (np.full((3, 3), 77, np.uint8), np.zeros((3, 3), np.uint8)),
    "void predicted": (np.full((3, 3), VOID, np.uint8), np.ones((3, 3), np.uint8)),
    "a class in the prediction alone": (np.full((2, 9), 2, np.uint8), np.zeros((2, 9), np.uint8)),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_confusion_of_odd_maps_is_that_of_scikit_learn(case: str) -> None:
    predicted, labelled = ADVERSARIAL[case]
    assert (confusion_counts(predicted, labelled, TABLE) == reference_counts(predicted, labelled)).all()


@given(pairs())
def test_confusion_is_that_of_scikit_learn(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    assert (confusion_counts(*pair, TABLE) == reference_counts(*pair)).all()


def test_16_bit_maps_and_thousands_of_classes_are_counted_alike() -> None:
    rng = np.random.default_rng(1)
    table = ClassTable.of(range(10, 4106), ignore=[65_535])
    predicted = rng.choice(np.array([10, 500, 4105, 60_000], np.uint16), (50, 60))
    labelled = rng.choice(np.array([10, 500, 77, 65_535], np.uint16), (50, 60))
    counts = confusion_counts(predicted, labelled, table)
    kept = labelled != 65_535
    reference = confusion_matrix(
        labelled[kept].astype(int) - 10, table.predicted[predicted[kept]], labels=[0, 67, 490, 4095, 4096]
    )
    assert (counts[np.ix_([0, 67, 490, 4095, 4096], [0, 67, 490, 4095, 4096])] == reference).all()
    assert counts.sum() == kept.sum() == reference.sum()


def test_views_and_columns_first_arrays_are_read_right() -> None:
    predicted, labelled = blobs(1), blobs(2)
    expected = confusion_counts(predicted[::2, ::-3].copy(), labelled[::2, ::-3].copy(), TABLE)
    assert (confusion_counts(predicted[::2, ::-3], np.asfortranarray(labelled[::2, ::-3]), TABLE) == expected).all()


def test_a_smaller_map_is_enlarged_by_nearest_neighbour() -> None:
    small, large = blobs(3, (15, 20)), blobs(4, (60, 80))
    enlarged = cv2.resize(small, (80, 60), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (enlarge(small, (60, 80)) == enlarged).all()
    assert (confusion_counts(small, large, TABLE) == confusion_counts(enlarged, large, TABLE)).all()
    assert (confusion_counts(large, small, TABLE) == confusion_counts(large, enlarged, TABLE)).all()


@given(maps(values), maps(labels))
def test_maps_of_any_two_sizes_are_compared_at_the_larger_sides(
    predicted: NDArray[np.uint8], labelled: NDArray[np.uint8]
) -> None:
    height, width = (max(pair) for pair in zip(predicted.shape, labelled.shape, strict=True))
    judged = judge_semantic(predicted, labelled, TABLE)
    assert (judged.height, judged.width) == (height, width)
    enlarged = enlarge(predicted, (height, width)), enlarge(labelled, (height, width))
    assert (judged.confusion_counts() == reference_counts(*enlarged)).all()


@given(maps(values), st.integers(1, 4))
def test_enlarging_both_by_a_whole_number_multiplies_the_counts(predicted: NDArray[np.uint8], by: int) -> None:
    height, width = predicted.shape
    once = confusion_counts(predicted, predicted[::-1], TABLE)
    more = confusion_counts(predicted, predicted[::-1], TABLE, (by * height, by * width))
    assert (more == by * by * once).all()


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (np.zeros((0, 3), np.uint8), "shape (0, 3)"),
        (np.zeros(3, np.uint8), "shape (3,)"),
        (np.zeros((2, 2), np.int64), "type int64"),
    ],
)
def test_what_is_no_map_is_refused(predicted: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        confusion_counts(predicted, np.zeros((2, 2), np.uint8), TABLE)
    assert "the predicted map" in str(raised.value) and message in str(raised.value)


@pytest.mark.parametrize(
    ("indices", "ignore", "message"),
    [([], [], "0 classes"), ([1, 1], [], "two classes"), ([1], [1], "class and for void"), ([65_536], [], "0..65535")],
)
def test_impossible_classes_are_refused(indices: list[int], ignore: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassTable.of(indices, ignore)


def test_a_label_of_a_class_that_the_model_does_not_have_is_refused_by_its_value() -> None:
    with pytest.raises(ValueError, match="value 9, which is no class"):
        judge_semantic(np.zeros((2, 2), np.uint8), np.array([[0, 9], [255, 0]], np.uint8), TABLE)


# Boundary IoU


def reference_boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By erosion of one mask, as the paper describes it."""
    near = boundary_width(*mask.shape)
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[0.0])
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=near)[1:-1, 1:-1]
    return mask & (eroded == 0)


def check_boundary(predicted: NDArray[np.uint8], labelled: NDArray[np.uint8]) -> None:
    judged = judge_semantic(predicted, labelled, TABLE)
    predicted = np.where(labelled == VOID, VOID, predicted)
    for position in range(3):
        first, second = reference_boundary(predicted == position), reference_boundary(labelled == position)
        assert judged.boundary_intersection[position] == (first & second).sum()
        assert judged.boundary_union[position] == (first | second).sum()


@given(pairs())
def test_boundaries_are_those_of_erosion(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    check_boundary(*pair)


@pytest.mark.parametrize("shape", [(60, 80), (200, 300), (7, 400), (3, 3)])
def test_boundaries_of_regions_are_those_of_erosion(shape: tuple[int, int]) -> None:
    labelled = blobs(5, shape)
    labelled[: shape[0] // 4] = VOID
    check_boundary(np.roll(blobs(5, shape), 2, axis=1), labelled)
    check_boundary(blobs(5, shape), labelled)


def test_a_prediction_that_is_right_wherever_it_can_be_scores_1_beside_void() -> None:
    labelled = blobs(6)
    predicted = labelled.copy()
    labelled[10:30, 20:50] = VOID
    judged = judge_semantic(predicted, labelled, TABLE)
    for metric in METRICS.values():
        assert pooled(metric, [judged]).tolist() == [1.0] * (1 if metric.name == "pixel_accuracy" else 3)


def test_boundary_iou_sees_a_ragged_outline_that_iou_hardly_does() -> None:
    labelled = np.zeros((200, 200), np.uint8)
    labelled[20:180, 20:180] = 1
    predicted = cv2.erode(labelled, np.ones((3, 3), np.uint8), iterations=3)
    judged = judge_semantic(predicted, labelled, TABLE)
    assert pooled(METRICS["iou"], [judged])[1] > 0.92
    assert pooled(METRICS["boundary_iou"], [judged])[1] < 0.55


# Metrics


@given(pairs())
def test_metrics_are_those_of_scikit_learn(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    predicted, labelled = pair
    judged = judge_semantic(predicted, labelled, TABLE)
    kept = labelled != VOID
    first, second = TABLE.predicted[predicted[kept]], TABLE.labelled[labelled[kept]]
    references = {"iou": jaccard_score, "dice": f1_score, "precision": precision_score, "recall": recall_score}
    if not kept.any():
        assert all(np.isnan(pooled(METRICS[name], [judged])).all() for name in METRICS)
        return
    for name, reference in references.items():
        found = pooled(METRICS[name], [judged])
        assert np.isnan(found).tolist() == (METRICS[name].denominator([judged])[0] == 0).tolist()
        expected = reference(second, first, labels=range(3), average=None, zero_division=0)
        np.testing.assert_allclose(np.nan_to_num(found), expected, rtol=0, atol=1e-9)
    assert pooled(METRICS["pixel_accuracy"], [judged])[0] == pytest.approx((first == second).mean(), abs=1e-9)


def test_a_class_of_one_per_cent_of_the_pixels_that_is_missed_scores_0() -> None:
    """Where the background is a class among others, Dice over all pixels says 0.99."""
    labelled = np.zeros((100, 100), np.uint8)
    labelled[40:50, 40:50] = 1
    judged = judge_semantic(np.zeros_like(labelled), labelled, TABLE)
    for name in ("iou", "dice", "boundary_iou", "recall"):
        assert pooled(METRICS[name], [judged])[1] == 0
    assert np.isnan(pooled(METRICS["precision"], [judged])[1])
    assert pooled(METRICS["pixel_accuracy"], [judged])[0] == 0.99


def test_a_class_that_the_model_alone_sees_is_scored() -> None:
    """A tool that goes through the label's classes never finds it."""
    predicted = np.zeros((10, 10), np.uint8)
    predicted[:5] = 2
    judged = judge_semantic(predicted, np.zeros_like(predicted), TABLE)
    iou = pooled(METRICS["iou"], [judged])
    assert iou[0] == 0.5 and iou[2] == 0 and np.isnan(iou[1])
    assert pooled(METRICS["precision"], [judged])[2] == 0


def test_iou_is_pooled_over_pixels_and_not_a_mean_of_images() -> None:
    """One image full of the class and right, one with 5 wrong pixels of it: a mean of images says 0.50."""
    full = judge_semantic(np.ones((50, 50), np.uint8), np.ones((50, 50), np.uint8), TABLE)
    few = np.zeros((50, 50), np.uint8)
    few[0, :5] = 1
    missed = judge_semantic(np.zeros_like(few), few, TABLE)
    metric = METRICS["iou"]
    assert pooled(metric, [full, missed])[1] == 2500 / 2505
    assert np.mean([pooled(metric, [each])[1] for each in (full, missed)]) == 0.5


def test_sums_of_records_stand_in_rows() -> None:
    judged = [judge_semantic(blobs(seed), blobs(seed + 1), TABLE) for seed in range(4)]
    for metric in METRICS.values():
        numerator, denominator = metric.numerator(judged), metric.denominator(judged)
        assert numerator.shape == denominator.shape == (4, 1 if metric.name == "pixel_accuracy" else 3)
        assert (numerator <= denominator).all()
    assert METRICS["iou"].numerator(judged)[2].tolist() == judged[2].intersection.tolist()
    assert METRICS["iou"].denominator(judged)[2].tolist() == judged[2].union.tolist()
    assert METRICS["iou"].numerator([]).shape == (0, 0)


def test_judgements_of_different_classes_are_not_added() -> None:
    other = judge_semantic(blobs(1), blobs(1), ClassTable.of(range(5)))
    with pytest.raises(ValueError, match="of 3 and of 5 classes"):
        METRICS["iou"].numerator([judge_semantic(blobs(1), blobs(2), TABLE), other])


# The judgement


@given(pairs(), st.data())
@settings(max_examples=50)
def test_confidence_is_counted_as_numpy_counts_it(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], data: st.DataObject
) -> None:
    predicted, labelled = pair
    confidence = data.draw(hnp.arrays(np.uint8, predicted.shape))
    sums = judge_semantic(predicted, labelled, TABLE, confidence).confidence_sums()
    assert sums is not None
    first, second, code = TABLE.predicted[predicted], TABLE.labelled[labelled], BIN_OF_BYTE[confidence]
    for position in range(4):
        for bin_ in range(BINS):
            here = (first == position) & (code == bin_)
            kept = here & (second != 4)
            correct = kept & (first == second)
            expected = [kept.sum(), correct.sum(), confidence[kept].sum(dtype=int), (here & (second == 4)).sum()]
            assert sums[position, bin_].tolist() == expected


@given(pairs(), st.booleans())
def test_a_judgement_survives_its_bytes(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], confident: bool) -> None:
    predicted, labelled = pair
    judged = judge_semantic(predicted, labelled, TABLE, predicted if confident else None)
    again = SemanticJudgement.from_bytes(judged.to_bytes())
    assert (again.classes, again.height, again.width) == (3, *predicted.shape)
    assert (again.confusion == judged.confusion).all() and (again.boundary == judged.boundary).all()
    assert (again.confidence is None) == (judged.confidence is None)
    if again.confidence is not None and judged.confidence is not None:
        assert (again.confidence == judged.confidence).all()
    assert again.to_bytes() == judged.to_bytes()


def test_a_judgement_is_small() -> None:
    labelled, predicted = blobs(1, (512, 512), 21), blobs(2, (512, 512), 21)
    table = ClassTable.of(range(21), [VOID])
    confidence = np.random.default_rng(0).beta(8, 1, predicted.shape)
    with_confidence = judge_semantic(predicted, labelled, table, (255 * confidence).astype(np.uint8))
    assert len(judge_semantic(predicted, labelled, table).to_bytes()) < 700
    assert len(with_confidence.to_bytes()) < 4500


def test_damage_is_found() -> None:
    data = judge_semantic(blobs(1), blobs(2), TABLE, blobs(3)).to_bytes()
    for end in range(len(data)):
        with pytest.raises(ValueError):
            SemanticJudgement.from_bytes(data[:end])
    for place in range(len(data)):
        with pytest.raises(ValueError):
            SemanticJudgement.from_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])


def test_impossible_sums_are_found_behind_a_right_checksum() -> None:
    judged = judge_semantic(blobs(1), blobs(2), TABLE, blobs(3))
    assert judged.confidence is not None
    impossible = {
        "order": replace(judged, confusion=judged.confusion[::-1]),
        "more pixels": replace(judged, confusion=judged.confusion * [[1, 1, 5]]),
        "out of range": replace(judged, classes=2),
        "than its union": replace(judged, boundary=judged.boundary[:, [0, 2, 1]] + [[0, 1, 0]]),
        "than 60 x 80": replace(judged, confidence=judged.confidence * [[1, 1, 5, 1, 1, 1]]),
    }
    for message, each in impossible.items():
        with pytest.raises(ValueError, match=message):
            SemanticJudgement.from_bytes(each.to_bytes())
