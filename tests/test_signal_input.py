"""Signal `input`: its columns are those of the image statistics, and each fault of a camera moves one of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from detectors.signals import SIGNALS
from detectors.signals.input import COLUMNS
from embeddings import image_statistics
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import PLAIN, SIZE_PX, Recipe, SceneSource
from tests.test_detectors_signals import CLASSES, RECORDS, make_features

SCENES = 80


def statistics(recipe: Recipe, seed: int) -> NDArray[np.float64]:
    source = SceneSource("traffic")
    scenes = (source.scene(np.random.default_rng([seed, i]), recipe) for i in range(SCENES))
    return np.array([image_statistics.image_statistics(scene.image, SIZE_PX, SIZE_PX) for scene in scenes])


@cache
def plain() -> NDArray[np.float64]:
    return statistics(PLAIN, 1)


def test_the_columns_are_those_of_the_image_statistics_in_their_order() -> None:
    assert COLUMNS == image_statistics.COLUMNS
    assert SIGNALS["input"].dimensions(CLASSES, 4) == COLUMNS
    assert len(image_statistics.image_statistics(np.zeros((32, 32, 3), np.uint8), 32, 32)) == len(COLUMNS)


def test_the_values_are_the_statistics_as_they_are() -> None:
    features = make_features(RECORDS)
    assert features.image_statistics is not None
    np.testing.assert_array_equal(SIGNALS["input"].values(features), features.image_statistics)


def test_records_without_images_have_no_value() -> None:
    values = SIGNALS["input"].values(replace(make_features(RECORDS), image_statistics=None))
    assert values.shape == (len(RECORDS), len(COLUMNS))
    assert np.isnan(values).all()


@pytest.mark.parametrize(
    ("corruption", "column", "direction"),
    [
        ("blur", "fine_detail", -1),
        ("blur", "sharpness", -1),
        ("noise", "noise", 1),
        ("jpeg", "colour_detail", -1),
        ("darkness", "contrast", -1),
        ("colour_cast", "blue_yellow", -1),
        ("new_background", "shadows", -1),
    ],
)
def test_the_weakest_fault_moves_the_column_that_names_it(corruption: str, column: str, direction: int) -> None:
    index = COLUMNS.index(column)
    before, after = plain()[:, index], statistics(CORRUPTIONS[corruption](1), 3)[:, index]
    assert np.sign(after.mean() - before.mean()) == direction
    # Some 0.3 to 1.0; at 80 scenes against 80 chance exceeds 0.26 once in 100 times.
    assert ks_2samp(before, after, method="asymp").pvalue < 0.001


def test_scenes_without_a_fault_do_not_differ() -> None:
    again = statistics(PLAIN, 4)
    p_values = [ks_2samp(a, b, method="asymp").pvalue for a, b in zip(plain().T, again.T, strict=True)]
    assert min(p_values) > 0.001
