"""Average precision from judgements equals pycocotools' own, whatever the images hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.quality.average_precision import AveragePrecision, average_precision
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_instances import judge_instances
from tests.made_instances import (
    Image,
    coco_evaluation,
    images,
    labels,
    predictions,
    random_image,
    rectangle,
)

CLASSES = 3
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "ar_small", "ar_medium", "ar_large")


def judged(scenes: Sequence[Image], classes: int = CLASSES) -> list[InstanceJudgement]:
    """Through bytes, since that is how judgements are kept."""
    made = [judge_instances(image.predicted, image.labelled, classes) for image in scenes]
    return [InstanceJudgement.from_bytes(judgement.to_bytes()) for judgement in made]


def of_pycocotools(scenes: Sequence[Image], classes: int = CLASSES) -> dict[str, NDArray[np.float64]]:
    """Each (C,), with NaN where pycocotools says -1."""
    evaluation = coco_evaluation(scenes, classes).eval
    precision = np.where(evaluation["precision"] < 0, np.nan, evaluation["precision"])[..., -1]
    recall = np.where(evaluation["recall"] < 0, np.nan, evaluation["recall"])[..., -1]
    areas = precision.mean(axis=(0, 1)), recall.mean(axis=0)
    first, sixth = precision[0, :, :, 0].mean(axis=0), precision[5, :, :, 0].mean(axis=0)
    columns = [areas[0][:, 0], first, sixth, *areas[0].T[1:], *areas[1].T]
    return dict(zip(NAMES, columns, strict=True))


def assert_equal(ours: AveragePrecision, theirs: dict[str, NDArray[np.float64]]) -> None:
    for name in NAMES:
        np.testing.assert_allclose(getattr(ours, name), theirs[name], rtol=0, atol=1e-12, err_msg=name)


@given(st.lists(images(CLASSES), max_size=4))
@settings(max_examples=120, deadline=None)
def test_crowds_ties_equal_ious_empty_masks_and_images_score_as_pycocotools_has_them(scenes: list[Image]) -> None:
    assert_equal(average_precision(judged(scenes), CLASSES), of_pycocotools(scenes))


@pytest.mark.parametrize("seed", range(4))
def test_many_images_with_many_instances_score_as_pycocotools_has_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_image(rng, CLASSES, int(rng.integers(0, 25)), int(rng.integers(0, 12))) for _ in range(40)]
    ours, theirs = average_precision(judged(scenes), CLASSES), of_pycocotools(scenes)
    assert_equal(ours, theirs)
    assert 0.02 < ours.mean("ap") < 0.98, "a score at its bounds would compare nothing"
    assert ours.mean("ap") == pytest.approx(np.nanmean(theirs["ap"]), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_of_more_than_100_detections_of_an_image_and_class_the_rest_is_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_image(rng, 2, found, 15) for found in (260, 130, 90)]
    assert_equal(average_precision(judged(scenes, 2), 2), of_pycocotools(scenes, 2))


def square(side: int) -> dict[str, object]:
    return rectangle(0, 0, side, side)


@pytest.mark.parametrize(
    ("name", "scenes"),
    [
        ("no image", []),
        ("an image with nothing", [Image(predictions([], [], []), labels([], []))]),
        ("no label", [Image(predictions([0, 1], [0.9, 0.8], [square(9), square(40)]), labels([], []))]),
        ("no prediction", [Image(predictions([], [], []), labels([0, 1], [square(9), square(40)]))]),
        ("all labels small", [Image(predictions([0], [0.9], [square(40)]), labels([0, 0], [square(9), square(31)]))]),
        ("all labels crowds", [Image(predictions([0], [0.9], [square(9)]), labels([0], [square(40)], [True]))]),
        (
            "one crowd for two predictions",
            [
                Image(
                    predictions([0, 0, 0], [0.9, 0.8, 0.7], [square(16), square(32), rectangle(99, 99, 9, 9)]),
                    labels([0, 0], [square(40), rectangle(99, 99, 9, 9)], [True, False]),
                )
            ],
        ),
        (
            "a false one at the bound of small",
            [
                Image(
                    predictions([0, 0], [0.9, 0.8], [square(32), rectangle(99, 99, 9, 9)]),
                    labels([0], [rectangle(99, 99, 9, 9)]),
                )
            ],
        ),
        ("at the bounds of sizes", [Image(predictions([0], [0.9], [square(32)]), labels([0], [square(32)]))]),
        ("at the upper bound", [Image(predictions([0], [0.9], [square(96)]), labels([0], [square(96)]))]),
    ],
)
def test_corner_cases_score_as_pycocotools_has_them(name: str, scenes: list[Image]) -> None:
    theirs = of_pycocotools(scenes) if scenes else {each: np.full(CLASSES, np.nan) for each in NAMES}
    assert_equal(average_precision(judged(scenes), CLASSES), theirs)


@given(st.lists(st.tuples(images(2, ties=False), st.integers(0, 3)), max_size=4))
@settings(max_examples=80, deadline=None)
def test_a_whole_weight_is_the_same_as_repeating_the_image(weighted: list[tuple[Image, int]]) -> None:
    scenes = judged([image for image, _ in weighted], 2)
    weights = [weight for _, weight in weighted]
    repeated = [judgement for judgement, weight in zip(scenes, weights, strict=True) for _ in range(weight)]
    ours, theirs = average_precision(scenes, 2, weights), average_precision(repeated, 2)
    for name in NAMES:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-12, err_msg=name)


def test_the_scale_of_the_weights_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    scenes = judged([random_image(rng, 2, 8, 6) for _ in range(10)], 2)
    weights = rng.uniform(1, 30, 10)
    ours, scaled = average_precision(scenes, 2, weights), average_precision(scenes, 2, weights / 7)
    plain = average_precision(scenes, 2)
    np.testing.assert_allclose(ours.ap, scaled.ap, atol=1e-12)
    assert np.abs(ours.ap - plain.ap).max() > 1e-3, "these weights should matter"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    scenes = judged([Image(predictions([], [], []), labels([], []))] * 2)
    with pytest.raises(ValueError, match="weights"):
        average_precision(scenes, CLASSES, weights)


def test_judgements_of_another_number_of_classes_are_refused() -> None:
    scenes = judged([Image(predictions([], [], []), labels([], []))])
    with pytest.raises(ValueError, match="3 classes, expected 4"):
        average_precision(scenes, 4)
