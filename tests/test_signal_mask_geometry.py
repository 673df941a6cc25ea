"""What the signal `mask_geometry` says of a record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.binning import Binning
from detectors.features import Features
from detectors.signals.mask_geometry import SHAPES, MaskGeometry

CLASSES = ("car", "person")
EMPTY = {"area": 0.0, "share": 0.0, "boundary": 0.0, "components": 0.0, "holes": 0.0}
SQUARE = {
    "area": 1024.0,
    "share": 1 / 64,
    "aspect": 1.0,
    "boundary": 128.0,
    "compactness": np.pi / 4,
    "border": 0.0,
    "components": 1.0,
    "holes": 0.0,
}


def features(
    records: Sequence[Sequence[tuple[int, dict[str, float]]]], overlap: Sequence[float] | None = None
) -> Features:
    """Records of (class, measures); what is left out of the measures is NaN."""
    instances = [each for record in records for each in record]
    total = len(records)
    shapes = np.array([[measures.get(name, np.nan) for name in SHAPES] for _, measures in instances])
    return Features(
        components=np.zeros((total, 1)),
        instance_offsets=np.cumsum([0, *(len(record) for record in records)]),
        instance_class=np.array([kind for kind, _ in instances], dtype=np.int64),
        instance_score=np.ones(len(instances)),
        has_instances=np.ones(total, dtype=np.bool_),
        class_shares=np.full((total, len(CLASSES) + 1), np.nan),
        semantic_confidence=np.full(total, np.nan),
        instance_shapes=shapes.reshape(-1, len(SHAPES)),
        mask_overlap=None if overlap is None else np.array(overlap),
    )


def named(values: NDArray[np.float64]) -> list[dict[str, float]]:
    """Each row's columns by name, without those that are NaN."""
    names = MaskGeometry().dimensions(CLASSES, 1)
    return [{name: value for name, value in zip(names, row, strict=True) if not np.isnan(value)} for row in values]


def test_a_record_has_the_means_of_its_instances() -> None:
    large = {**SQUARE, "area": 96.0**2, "share": 1 / 4, "aspect": 4.0, "border": 1.0, "components": 3.0, "holes": 2.0}
    small = {**SQUARE, "area": 1023.0, "share": 1 / 256, "boundary": 32.0}
    [row] = named(MaskGeometry().values(features([[(0, SQUARE), (0, large), (1, small)]], [0.25])))
    assert row == {
        "log_area": pytest.approx(-16 / 3, abs=1e-6),
        "small": pytest.approx(1 / 3),
        "large": pytest.approx(1 / 3),
        "log_aspect": pytest.approx(2 / 3),
        "compactness": pytest.approx(np.pi / 4, abs=1e-6),
        "log_boundary": pytest.approx(19 / 3),
        "border": pytest.approx(1 / 3),
        "components": pytest.approx(5 / 3),
        "holes": pytest.approx(2 / 3),
        "overlap": 0.25,
        "log_area[car]": -4.0,
        "log_area[person]": -8.0,
    }


def test_what_was_not_measured_has_no_value() -> None:
    half = {name: value for name, value in SQUARE.items() if name not in ("components", "holes", "share", "border")}
    rows = named(MaskGeometry().values(features([[(0, half)], [], [(0, SQUARE)]], [np.nan, np.nan, 0.0])))
    assert set(rows[0]) == {"small", "large", "log_aspect", "compactness", "log_boundary"}
    assert rows[1] == {}
    assert set(rows[2]) == set(MaskGeometry().dimensions(CLASSES, 1)) - {"log_area[person]"}


def test_a_measure_that_some_instances_lack_is_the_mean_of_the_others() -> None:
    [row] = named(MaskGeometry().values(features([[(0, EMPTY), (1, SQUARE)]])))
    assert row["log_area"] == row["log_area[person]"] == -6.0
    assert "log_area[car]" not in row
    assert (row["small"], row["components"]) == (0.5, 0.5), "an empty mask is a small one with no part"


def test_classes_that_the_baseline_does_not_know_count_in_the_whole_alone() -> None:
    [row] = named(MaskGeometry().values(features([[(len(CLASSES), SQUARE)]])))
    assert row["log_area"] == -6.0
    assert not any("[" in name for name in row)


def test_without_any_measures_there_are_columns_and_no_values() -> None:
    bare = features([[(0, SQUARE)], []])
    without = Features(
        bare.components, bare.instance_offsets, bare.instance_class, bare.instance_score, bare.has_instances,
        bare.class_shares, bare.semantic_confidence,
    )  # fmt: skip
    values = MaskGeometry().values(without)
    assert values.shape == (2, 10 + len(CLASSES)) == (2, len(MaskGeometry().dimensions(CLASSES, 1)))
    assert np.isnan(values).all()


def test_measures_without_end_have_no_value_and_no_warning() -> None:
    odd = {**SQUARE, "aspect": np.inf, "compactness": np.inf, "share": 0.0, "boundary": 1e-320}
    [row] = MaskGeometry().values(features([[(0, odd)]]))
    assert not np.isinf(row).any()


def test_the_order_of_instances_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    instances = [
        (int(rng.integers(3)), {**SQUARE, "share": float(rng.random()), "compactness": float(rng.random())})
        for _ in range(40)
    ]
    shuffled = [instances[i] for i in rng.permutation(40)]
    values = MaskGeometry().values(features([instances, shuffled]))
    np.testing.assert_array_equal(values[0], values[1])


def test_a_logarithm_that_differs_in_its_last_bit_falls_into_the_same_bin() -> None:
    record = [(0, {**SQUARE, "share": 0.3, "aspect": 0.7, "compactness": 0.611})]
    nearly = [(0, {**SQUARE, "share": 0.3 + 1e-15, "aspect": 0.7 - 1e-15, "compactness": 0.611 + 1e-15})]
    values = MaskGeometry().values(features([record, nearly], [0.0, 0.0]))
    binning = Binning.fit(np.repeat(values[:1], 50, axis=0))
    np.testing.assert_array_equal(binning.codes(values[:1]), binning.codes(values[1:]))
