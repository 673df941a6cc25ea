"""Instance masks are judged without decoding them, and as pycocotools, OpenCV and plain painting judge them."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from detectors.quality.boundary import boundary_pixels, boundary_width
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.instance_metrics import METRICS, instance_metrics
from detectors.quality.judge_instances import InstanceMasks, judge_instances
from detectors.quality.mask_runs import mask_iou, read_runs
from monitor.quality_window import UNBOUNDED
from tests.made_instances import (
    SIDE,
    Image,
    coco_evaluation,
    decode,
    images,
    labels,
    predictions,
    random_image,
    rectangle,
    rle_of,
)

CLASSES = 3
LEFT, RIGHT, BOTH = rectangle(0, 0, 30, 40), rectangle(30, 0, 30, 40), rectangle(0, 0, 60, 40)
some_size = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
some_masks = some_size.flatmap(lambda shape: st.lists(hnp.arrays(np.bool_, shape), min_size=1, max_size=6))


def judge(image: Image, classes: int = CLASSES) -> InstanceJudgement:
    """Through bytes, since that is how judgements are kept."""
    return InstanceJudgement.from_bytes(judge_instances(image.predicted, image.labelled, classes).to_bytes())


def blobs(seed: int, count: int, height: int = 96, width: int = 128) -> list[NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, height, width)).astype(np.float32)
    return [cv2.GaussianBlur(layer, (0, 0), 1.0 + place) > 0.05 for place, layer in enumerate(noise)]


# Runs


@given(some_masks, st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_iou_area_and_box_are_those_of_pycocotools(masks: list[NDArray[np.bool_]], split: int) -> None:
    rles = [rle_of(mask) for mask in masks]
    runs = read_runs(rles)
    assert runs.area.tolist() == coco.area(rles).tolist()
    left, top, right, bottom = runs.box.T
    boxes = np.stack([left, top, right - left, bottom - top], axis=1)
    assert boxes.tolist() == coco.toBbox(rles).astype(int).tolist()
    found, given = rles[:split], rles[split:]
    if found and given:
        assert (mask_iou(found, given) == coco.iou(found, given, [0] * len(given))).all()


def test_iou_of_large_blobs_is_that_of_pycocotools() -> None:
    rles = [rle_of(mask) for mask in blobs(1, 12, 240, 320)]
    assert (mask_iou(rles[:5], rles[5:]) == coco.iou(rles[:5], rles[5:], [0] * 7)).all()


def test_runs_of_no_length_and_runs_cut_in_two_mean_what_they_say() -> None:
    # 2 zeros, 1 one, 0 zeros, 2 ones, 1 zero, 0 ones; from the fourth number on, differences to the number two before.
    odd = {"size": [2, 3], "counts": bytes(48 + (number & 31) for number in (2, 1, 0, 1, 1, -2))}
    mask = np.array([0, 0, 1, 1, 1, 0], np.bool_).reshape(3, 2).T
    assert read_runs([odd]).starts.tolist() == [2]
    assert mask_iou([odd], [rle_of(mask)]).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("fault", "rle"),
    [
        ("too few pixels", {"size": [2, 3], "counts": b"13"}),
        ("too many pixels", {"size": [2, 3], "counts": b"08"}),
        ("a negative count", {"size": [2, 3], "counts": b"1O6"}),
        ("a character that is none", {"size": [2, 3], "counts": b"1 5"}),
        ("cut within a number", {"size": [2, 3], "counts": b"33o"}),
        ("a number without end", {"size": [2, 3], "counts": b"P" * 100 + b"0"}),
        ("nothing", {"size": [2, 3], "counts": b""}),
    ],
)
def test_a_damaged_mask_is_refused_by_its_number(fault: str, rle: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mask 1: the counts are damaged, or do not add up to 2 x 3"):
        read_runs([{"size": [2, 3], "counts": b"6"}, rle])


@pytest.mark.parametrize("counts", [[6], "\u00e9", None])
def test_what_is_no_compressed_rle_is_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="compressed RLE"):
        read_runs([{"size": [2, 3], "counts": counts}])


@pytest.mark.parametrize("size", [[0, 4], [4, 0], [1 << 16, 1 << 16]])
def test_a_size_that_no_image_has_is_refused(size: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 1"):
        read_runs([{"size": size, "counts": b"0"}])


def test_too_many_overlapping_pairs_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.quality.mask_runs.MAX_PAIRS", 6)
    masks = [rectangle(0, 0, 9, 9)] * 3
    assert mask_iou(masks, masks[:2]).tolist() == [[1.0, 1.0]] * 3
    with pytest.raises(ValueError, match="more than 6 pairs"):
        mask_iou(masks, masks)


# Sums of pixels


@given(images(CLASSES))
@settings(max_examples=100, deadline=None)
def test_pixels_of_each_class_are_those_of_the_painted_masks(image: Image) -> None:
    judgement = judge(image)
    found, given = (decode(side.rles, (SIDE, SIDE)) for side in (image.predicted, image.labelled))
    crowd = image.labelled.crowd
    assert crowd is not None
    for kind in range(CLASSES):
        predicted = found[image.predicted.kinds == kind].sum(axis=0)
        labelled = given[(image.labelled.kinds == kind) & ~crowd].any(axis=0)
        void = given[(image.labelled.kinds == kind) & crowd].any(axis=0) & ~labelled
        predicted = np.where(void, 0, predicted)
        assert judgement.predicted_pixels[kind] == (predicted > 0).sum()
        assert judgement.labelled_pixels[kind] == labelled.sum()
        assert judgement.intersection[kind] == (labelled & (predicted > 0)).sum()
        assert judgement.union[kind] == (labelled | (predicted > 0)).sum()
        assert judgement.overlap[kind] == (predicted > 1).sum()


# Boundaries


def eroded(mask: NDArray[np.bool_], d: int) -> NDArray[np.bool_]:
    """By a 3 x 3 square, d times, with nothing around the image."""
    framed = np.pad(mask.astype(np.uint8), 1)
    return cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1].astype(np.bool_)


def edge(masks: list[NDArray[np.bool_]], d: int) -> NDArray[np.bool_]:
    return np.any([mask & ~eroded(mask, d) for mask in masks], axis=0)


@given(some_masks, st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_the_boundaries_of_small_masks_are_what_opencvs_erosion_leaves(
    masks: list[NDArray[np.bool_]], split: int, d: int
) -> None:
    found, given = masks[:split], masks[split:] or masks
    ratio = d / np.hypot(*masks[0].shape)
    assert boundary_width(*masks[0].shape, ratio) == d
    first, second = edge(found, d), edge(given, d)
    counted = boundary_pixels([rle_of(mask) for mask in found], [rle_of(mask) for mask in given], ratio)
    assert counted == ((first & second).sum(), (first | second).sum())


@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.05])
def test_the_boundaries_of_large_masks_are_what_opencvs_erosion_leaves(ratio: float) -> None:
    full = np.ones((240, 320), np.bool_)
    masks = [cv2.GaussianBlur(m.astype(np.float32), (0, 0), 9) > 0.45 for m in blobs(3, 5, 240, 320)] + [full]
    d = boundary_width(240, 320, ratio)
    first, second = edge(masks[:2], d), edge(masks[2:], d)
    counted = boundary_pixels([rle_of(mask) for mask in masks[:2]], [rle_of(mask) for mask in masks[2:]], ratio)
    assert counted == ((first & second).sum(), (first | second).sum())
    assert 0 < counted[0] < counted[1]


def test_a_judgement_unites_the_boundaries_of_a_classs_instances_and_leaves_crowds_out() -> None:
    rng = np.random.default_rng(11)
    d = boundary_width(SIDE, SIDE)
    for _ in range(10):
        image = random_image(rng, 2, 6, 6)
        judgement = judge(image, 2)
        found, given = (decode(side.rles, (SIDE, SIDE)) for side in (image.predicted, image.labelled))
        crowd = image.labelled.crowd
        assert crowd is not None
        for kind in range(2):
            ours = list(given[(image.labelled.kinds == kind) & ~crowd])
            void = given[(image.labelled.kinds == kind) & crowd].any(axis=0) & ~np.any(
                [np.zeros_like(given[0]), *ours], 0
            )
            first = edge([np.zeros_like(void), *found[image.predicted.kinds == kind]], d) & ~void
            second = edge([np.zeros_like(void), *ours], d)
            assert judgement.boundary_intersection[kind] == (first & second).sum()
            assert judgement.boundary_union[kind] == (first | second).sum()


# Matches


@given(images(CLASSES))
@settings(max_examples=150, deadline=None)
def test_matches_at_half_are_those_of_pycocotools(image: Image) -> None:
    judgement = judge(image)
    evaluated = [each for each in coco_evaluation([image], CLASSES).evalImgs if each and each["aRng"] == [0, 1e10]]
    true, false, missed = (np.zeros(CLASSES, np.int64) for _ in range(3))
    for each in evaluated:
        kind = each["category_id"] - 1
        matched, ignored = each["dtMatches"][0] > 0, each["dtIgnore"][0] > 0
        true[kind] = (matched & ~ignored).sum()
        false[kind] = (~matched & ~ignored).sum()
        missed[kind] = ((each["gtMatches"][0] == 0) & (each["gtIgnore"] == 0)).sum()
    assert judgement.true_positives.tolist() == true.tolist()
    assert judgement.false_positives.tolist() == false.tolist()
    assert judgement.false_negatives.tolist() == missed.tolist()


@given(images(CLASSES, ties=False))
@settings(max_examples=150, deadline=None)
def test_the_confusion_of_instances_is_that_of_pycocotools_without_classes(image: Image) -> None:
    crowd = image.labelled.crowd
    assert crowd is not None
    if image.predicted.rles and image.labelled.rles:
        for row in coco.iou(image.predicted.rles, image.labelled.rles, crowd.astype(int).tolist()):
            assume(len(set(row[row >= 0.5])) == (row >= 0.5).sum())  # pycocotools sorts labels by class
    table = judge(image).confusion
    expected = np.zeros((CLASSES + 1, CLASSES + 2), np.int64)
    evaluated = [
        each
        for each in coco_evaluation([image], CLASSES, use_classes=False).evalImgs
        if each and each["aRng"][1] == 1e10
    ]
    for each in evaluated[:1]:
        for prediction, label, ignored in zip(each["dtIds"], each["dtMatches"][0], each["dtIgnore"][0], strict=True):
            if not ignored:
                row = image.labelled.kinds[int(label) - 1] if label else CLASSES
                expected[row, image.predicted.kinds[prediction - 1]] += 1
        for label, match in zip(each["gtIds"], each["gtMatches"][0], strict=True):
            if not match and not crowd[label - 1]:
                expected[image.labelled.kinds[label - 1], CLASSES + 1] += 1
    assert table.tolist() == expected.tolist()


@pytest.mark.parametrize("kinds", [[0, 1], [1, 0]])
def test_of_labels_that_fit_equally_well_one_of_the_predictions_class_is_taken(kinds: list[int]) -> None:
    judgement = judge(Image(predictions([0], [0.9], [LEFT]), labels(kinds, [LEFT, LEFT])), 2)
    assert judgement.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_matched_pairs_hold_the_pixels_that_pycocotools_iou_is_made_of() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        image = random_image(rng, 2, 10, 8)
        judgement = judge(image, 2)
        scores = image.predicted.scores
        assert scores is not None
        order = np.argsort(-scores, kind="stable")
        ious = coco.iou([image.predicted.rles[i] for i in order], list(image.labelled.rles), [0] * 8)
        shared, union = judgement.matched_pixels
        for place in np.flatnonzero(judgement.is_true):
            assert shared[place] / union[place] == ious[place, judgement.label[place]]
        assert (union[~judgement.is_true] == 0).all()


def test_a_class_that_the_ontology_does_not_know_never_matches_and_is_nobodys_false_positive() -> None:
    image = Image(predictions([2], [0.9], [rectangle(0, 0, 40, 40)]), labels([0], [rectangle(0, 0, 40, 40)]))
    judgement = judge(image, 2)
    assert judgement.true_positives.tolist() == judgement.false_positives.tolist() == [0, 0]
    assert judgement.false_negatives.tolist() == [1, 0]
    assert judgement.predicted_pixels.tolist() == [0, 0]
    assert judgement.confusion.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert len(judgement.calibration[0]) == 0


def test_calibration_pairs_leave_out_what_a_crowd_has_swallowed() -> None:
    wide = rectangle(64, 0, 80, 80)
    image = Image(
        predictions(
            [0, 0, 0], [0.3, 0.9, 0.6], [rectangle(64, 0, 16, 16), rectangle(0, 0, 32, 32), rectangle(0, 90, 9, 9)]
        ),
        labels([0, 0], [rectangle(0, 0, 32, 30), wide], [False, True]),
    )
    kinds, scores, matched = judge(image).calibration
    assert (kinds.tolist(), scores.tolist(), matched.tolist()) == ([0, 0], [0.9, 0.6], [True, False])


# Merges and splits


@pytest.mark.parametrize(
    ("name", "found", "given", "merges", "splits"),
    [
        ("one over two", [BOTH], [LEFT, RIGHT], 1, 0),
        ("two over one", [LEFT, RIGHT], [BOTH], 0, 1),
        ("each on its own", [LEFT, RIGHT], [LEFT, RIGHT], 0, 0),
        ("the same part twice is no split", [LEFT, LEFT], [BOTH], 0, 0),
        ("the whole and a part of it is no split", [BOTH, LEFT], [BOTH], 0, 0),
        ("the same part twice and the other once", [LEFT, LEFT, RIGHT], [BOTH], 0, 1),
        ("parts that share half of one are one part", [LEFT, rectangle(15, 0, 30, 40)], [BOTH], 0, 0),
        ("parts that share less than half are two", [LEFT, rectangle(16, 0, 30, 40)], [BOTH], 0, 1),
        ("half of the second is enough", [rectangle(0, 0, 45, 40)], [LEFT, RIGHT], 1, 0),
        ("less than half of the second is not", [rectangle(0, 0, 44, 40)], [LEFT, RIGHT], 0, 0),
        ("a part that lies half outside counts", [LEFT, rectangle(45, 0, 30, 40)], [BOTH], 0, 1),
        ("one that lies more than half outside does not", [LEFT, rectangle(46, 0, 30, 40)], [BOTH], 0, 0),
        (
            "one prediction over three is one merge",
            [BOTH],
            [LEFT, rectangle(30, 0, 15, 40), rectangle(45, 0, 15, 40)],
            1,
            0,
        ),
        ("two masks over the same two are two merges", [BOTH, BOTH], [LEFT, RIGHT], 2, 0),
        ("nothing", [], [], 0, 0),
    ],
)
def test_merges_and_splits(name: str, found: list[Any], given: list[Any], merges: int, splits: int) -> None:
    scores = [0.9 - 0.1 * place for place in range(len(found))]
    judgement = judge(Image(predictions([1] * len(found), scores, found), labels([1] * len(given), given)))
    assert judgement.merges.tolist() == [0, merges, 0]
    assert judgement.splits.tolist() == [0, splits, 0]


def test_other_classes_and_crowds_are_neither_merged_nor_split() -> None:
    two = labels([0, 1], [LEFT, RIGHT])
    assert judge(Image(predictions([0], [0.9], [BOTH]), two)).merges.tolist() == [0, 0, 0]
    crowds = labels([0, 0, 0], [LEFT, RIGHT, BOTH], [True, True, True])
    judgement = judge(Image(predictions([0, 0, 0], [0.9, 0.8, 0.7], [BOTH, LEFT, RIGHT]), crowds))
    assert judgement.merges.tolist() == judgement.splits.tolist() == [0, 0, 0]


# The judgement itself


def test_the_order_of_predictions_does_not_change_the_judgement() -> None:
    rng = np.random.default_rng(2)
    image = random_image(rng, 2, 12, 8)
    found = image.predicted
    assert found.scores is not None
    scores = np.linspace(0.1, 0.9, 12)
    given = InstanceMasks(found.kinds, found.rles, scores)
    order = rng.permutation(12)
    mixed = InstanceMasks(found.kinds[order], [found.rles[i] for i in order], scores[order])
    assert judge_instances(given, image.labelled, 2).to_bytes() == judge_instances(mixed, image.labelled, 2).to_bytes()


def test_without_scores_every_prediction_counts_as_certain() -> None:
    rng = np.random.default_rng(4)
    image = random_image(rng, 2, 5, 5)
    bare = InstanceMasks(image.predicted.kinds, image.predicted.rles)
    certain = InstanceMasks(image.predicted.kinds, image.predicted.rles, np.ones(5))
    ours, theirs = (judge_instances(side, image.labelled, 2).to_bytes() for side in (bare, certain))
    assert ours == theirs


@given(images(CLASSES))
@settings(max_examples=100, deadline=None)
def test_a_judgement_reads_back_as_it_was_written(image: Image) -> None:
    made = judge_instances(image.predicted, image.labelled, CLASSES)
    read = InstanceJudgement.from_bytes(made.to_bytes())
    for name in InstanceJudgement.__slots__:
        first, second = getattr(made, name), getattr(read, name)
        assert first.dtype == second.dtype
        assert first.tolist() == second.tolist(), name
    assert read.to_bytes() == made.to_bytes()


def test_a_judgement_of_20_instances_takes_a_few_hundred_bytes() -> None:
    image = random_image(np.random.default_rng(6), 10, 20, 20)
    assert len(judge_instances(image.predicted, image.labelled, 10).to_bytes()) < 700


def test_damaged_bytes_are_refused_unless_they_unpack_to_the_same() -> None:
    image = random_image(np.random.default_rng(7), 2, 6, 6)
    data = judge(image, 2).to_bytes()
    accepted = 0
    for place in range(8 * len(data)):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        try:
            read = InstanceJudgement.from_bytes(bytes(broken))
        except ValueError:
            continue
        assert read.to_bytes() == data
        accepted += 1
    assert accepted < 16, "only bits that the compression does not use can change unnoticed"
    for end in range(len(data)):
        with pytest.raises(ValueError, match="instance judgement"):
            InstanceJudgement.from_bytes(data[:end])
    with pytest.raises(ValueError, match="format 9"):
        InstanceJudgement.from_bytes(data[:4] + b"\x09" + data[5:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", 4),
        ("label_kind", 3),
        ("label", 9),
        ("any_label", 9),
        ("shared", 1 << 40),
        ("score", -5.0),
        ("score", np.inf),
        ("intersection", 1 << 40),
        ("true_bits", (1 << 40) - 1),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(name: str, value: Any) -> None:
    image = Image(
        predictions([0, 1], [0.9, 0.8], [LEFT, RIGHT]),
        labels([0, 1], [rectangle(0, 0, 25, 40), rectangle(64, 64, 9, 9)]),
    )
    judgement = judge_instances(image.predicted, image.labelled, CLASSES)
    getattr(judgement, name)[0] = value
    if name == "true_bits":
        judgement.ignored_bits[0] = 1
    with pytest.raises(ValueError, match="contradict"):
        InstanceJudgement.from_bytes(judgement.to_bytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x01" + b"\xff" * 8 + b"\x7f", "ends early"),  # one class, then a column of 2^63 numbers
        (b"\x01\x01" + b"\xff" * 9 + b"\x7f", "too large"),  # a column of one number of 70 bits
        (b"\x00", "0 classes"),
        (b"\x01\x01\x05\x00", "not of 1 classes"),
    ],
)
def test_content_that_promises_too_much_is_refused_and_takes_no_memory(content: bytes, message: str) -> None:
    data = b"SWIJ\x01" + bytes([len(content)]) + zlib.compress(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        InstanceJudgement.from_bytes(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_masks_of_different_sizes_are_refused_by_name() -> None:
    small, large = rectangle(0, 0, 8, 8, side=64), rectangle(0, 0, 8, 8)
    with pytest.raises(ValueError, match="predicted 64 x 64, labelled 160 x 160"):
        judge_instances(predictions([0], [0.5], [small]), labels([0], [large]), 1)
    with pytest.raises(ValueError, match="predicted none, labelled 64 x 64, 160 x 160"):
        judge_instances(predictions([], [], []), labels([0, 0], [small, large]), 1)


@pytest.mark.parametrize(
    ("found", "given", "message"),
    [
        (predictions([0, 1], [0.5, 0.5], [LEFT]), labels([], []), "1 predicted masks with 2 classes and 2 scores"),
        (predictions([], [], []), labels([0], [LEFT], [True, False]), "1 labelled masks with 1 classes and 2 crowd"),
        (predictions([4], [0.5], [LEFT]), labels([], []), "predicted classes must be 0..3, got 4..4"),
        (predictions([], [], []), labels([3], [LEFT]), "labelled classes must be 0..2, got 3..3"),
        (predictions([-1], [0.5], [LEFT]), labels([], []), "predicted classes must be 0..3, got -1..-1"),
        (predictions([0], [np.nan], [LEFT]), labels([], []), "finite"),
    ],
)
def test_sides_that_do_not_fit_are_refused(found: InstanceMasks, given: InstanceMasks, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_instances(found, given, CLASSES)


# Metrics


def value(name: str, scenes: list[Image], weights: list[float] | None = None, score: float = 0.5) -> list[float]:
    metric = instance_metrics(score)[name]
    judgements = [judge(image) for image in scenes]
    factors = np.ones(len(scenes)) if weights is None else np.array(weights)
    numerator, denominator = metric.numerator(judgements), metric.denominator(judgements)
    assert numerator.shape == denominator.shape == (len(scenes), CLASSES)
    sums = factors @ denominator
    ratio: list[float] = np.where(sums > 0, factors @ numerator / np.maximum(sums, 1e-300), np.nan).tolist()
    return ratio


SMALL, MEDIUM, LARGE = rectangle(0, 0, 31, 33), rectangle(40, 0, 40, 40), rectangle(50, 50, 96, 96)
SCENES = [
    # Class 0: small missed, medium found with an IoU of 3/4, large found exactly, a false one of score 0.4 and of 0.6.
    Image(
        predictions(
            [0, 0, 0, 0],
            [0.9, 0.8, 0.6, 0.4],
            [rectangle(40, 0, 40, 30), LARGE, rectangle(0, 60, 10, 10), rectangle(20, 60, 10, 10)],
        ),
        labels([0, 0, 0], [SMALL, MEDIUM, LARGE]),
    ),
    # Class 0 missed altogether, class 1 with a crowd.
    Image(predictions([1, 1], [0.9, 0.9], [MEDIUM, MEDIUM]), labels([0, 1], [MEDIUM, LARGE], [False, True])),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iou", (1200 + 9216) / (1023 + 1600 + 9216 + 200 + 1600)),
        ("dice", 2 * (1200 + 9216) / (1200 + 9216 + 200 + 1023 + 1600 + 9216 + 1600)),
        ("instance_iou", (0.75 + 1) / 2),
        ("precision", 2 / 4),
        ("precision_small", 0 / 2),
        ("precision_medium", 1 / 1),
        ("precision_large", 1 / 1),
        ("recall", 2 / 4),
        ("recall_small", 0 / 1),
        ("recall_medium", 1 / 2),
        ("recall_large", 1 / 1),
        ("false_positives_per_image", 1 / 2),
        ("count_error", (1 + 1) / 4),
        ("count_bias", (1 - 1) / 4),
        ("merge_rate", 0 / 4),
        ("split_rate", 0 / 4),
        ("overlap", 0.0),
    ],
)
def test_metrics_are_ratios_of_sums_over_images(name: str, expected: float) -> None:
    assert value(name, SCENES)[0] == pytest.approx(expected, abs=1e-12)


def test_boundary_iou_is_the_ratio_of_the_sums_of_boundary_pixels() -> None:
    masks = [decode(side.rles, (SIDE, SIDE)) for side in (SCENES[0].predicted, SCENES[0].labelled)]
    d = boundary_width(SIDE, SIDE)
    first, second = (edge(list(side), d) for side in masks)
    missed = edge(list(decode([MEDIUM], (SIDE, SIDE))), d).sum()
    expected = (first & second).sum() / ((first | second).sum() + missed)
    assert value("boundary_iou", SCENES)[0] == pytest.approx(expected, abs=1e-12)


def test_counts_are_not_compared_where_a_crowd_is() -> None:
    assert np.isnan(value("count_error", SCENES)[1])
    with_crowd = Image(
        predictions([0] * 3, [0.9] * 3, [LEFT, MEDIUM, LARGE]), labels([0, 0], [LEFT, LARGE], [False, True])
    )
    without = Image(predictions([0], [0.9], [LEFT]), labels([0, 0], [LEFT, RIGHT]))
    assert value("count_error", [with_crowd, without])[0] == 1 / 2
    assert value("count_bias", [with_crowd, without])[0] == -1 / 2
    assert value("false_positives_per_image", SCENES)[1] == 1.0
    assert np.isnan(value("recall", SCENES)[1])


def test_overlap_merges_and_splits_are_rates() -> None:
    scene = Image(predictions([0, 0, 0], [0.9, 0.8, 0.7], [BOTH, LEFT, LEFT]), labels([0, 0], [LEFT, RIGHT]))
    assert value("overlap", [scene])[0] == 0.5
    assert value("merge_rate", [scene])[0] == 1 / 3
    scene = Image(predictions([0, 0], [0.9, 0.8], [LEFT, RIGHT]), labels([0, 0], [BOTH, rectangle(90, 90, 9, 9)]))
    assert value("split_rate", [scene])[0] == 1 / 2


def test_the_score_from_which_a_false_positive_counts_can_be_chosen() -> None:
    assert value("false_positives_per_image", SCENES, score=0.4)[0] == 2 / 2
    assert value("false_positives_per_image", SCENES, score=0.7)[0] == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_counts_an_image_that_often(name: str) -> None:
    rng = np.random.default_rng(8)
    scenes = [random_image(rng, CLASSES, 8, 6) for _ in range(4)]
    repeated = [scene for scene, weight in zip(scenes, (1, 3, 0, 2), strict=True) for _ in range(weight)]
    np.testing.assert_allclose(value(name, scenes, [1, 3, 0, 2]), value(name, repeated), rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_no_judgement_are_empty_and_of_mixed_ones_refused(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.numerator([]).shape == metric.denominator([]).shape == (0, 0)
    nothing = predictions([], [], []), labels([], [])
    with pytest.raises(ValueError, match=r"one number of classes, got \[2, 3\]"):
        metric.denominator([judge_instances(*nothing, 2), judge_instances(*nothing, 3)])


def test_the_table_of_metrics_names_each_of_them() -> None:
    import detectors.quality.instance_metrics as module

    assert module.__doc__ is not None
    for name in METRICS:
        stem, _, size = name.rpartition("_")
        shown = f"`{stem}_SIZE`" if size in ("small", "medium", "large") else f"`{name}`"
        assert shown in module.__doc__


@given(st.lists(images(CLASSES), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_a_share_has_no_record_above_1(scenes: list[Image]) -> None:
    judgements = [judge_instances(image.predicted, image.labelled, CLASSES) for image in scenes]
    for name, metric in METRICS.items():
        if name not in UNBOUNDED:
            assert (metric.numerator(judgements) <= metric.denominator(judgements)).all(), name
    assert not UNBOUNDED & {"overlap", "merge_rate", "split_rate"}
