"""The contract of every signal in the table, and what each of the first ones says."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence

import numpy as np
import pytest

import detectors.signals
from detectors.features import Features
from detectors.layout import Layout
from detectors.signals import SIGNALS
from detectors.signals.input import COLUMNS as IMAGE_COLUMNS
from detectors.signals.mask_geometry import SHAPES

CLASSES = ("car", "person", "tree")


def make_features(
    instances: Sequence[Sequence[tuple[int, float]] | None], *, components: int = 4, seed: int = 0
) -> Features:
    """Records with (class, score) instances; None stands for a record with a semantic map alone."""
    rng = np.random.default_rng(seed)
    listed = [record or [] for record in instances]
    shares = rng.dirichlet(np.ones(len(CLASSES) + 1), size=len(instances))
    semantic = np.array([record is None for record in instances], dtype=bool)
    return Features(
        components=rng.normal(size=(len(instances), components)),
        instance_offsets=np.cumsum([0, *(len(record) for record in listed)]),
        instance_class=np.array([c for record in listed for c, _ in record], dtype=np.int64),
        instance_score=np.array([s for record in listed for _, s in record], dtype=np.float64),
        has_instances=~semantic,
        class_shares=np.where(semantic[:, None], shares, np.nan),
        semantic_confidence=np.where(semantic, rng.random(len(instances)), np.nan),
        image_statistics=rng.normal(size=(len(instances), len(IMAGE_COLUMNS))),
        cluster=rng.integers(0, 16, size=len(instances)).astype(np.float64),
        instance_shapes=rng.random((sum(len(record) for record in listed), len(SHAPES))),
        mask_overlap=rng.random(len(instances)),
    )


RECORDS: list[list[tuple[int, float]] | None] = [
    [(0, 0.9), (0, 0.5), (1, 0.7)], [], None, [(3, 0.2)], None, [(2, 1.0), (2, 1.0)],
]  # fmt: skip


def select(features: Features, rows: Sequence[int]) -> Features:
    """The same records in another order or number."""
    parts = [slice(features.instance_offsets[row], features.instance_offsets[row + 1]) for row in rows]
    empty, shapes = np.empty(0), features.instance_shapes
    return Features(
        components=features.components[list(rows)],
        instance_offsets=np.cumsum([0, *(part.stop - part.start for part in parts)]),
        instance_class=np.concatenate([empty.astype(np.int64), *(features.instance_class[part] for part in parts)]),
        instance_score=np.concatenate([empty, *(features.instance_score[part] for part in parts)]),
        instance_shapes=None if shapes is None else np.concatenate([shapes[:0], *(shapes[part] for part in parts)]),
        mask_overlap=None if features.mask_overlap is None else features.mask_overlap[list(rows)],
        has_instances=features.has_instances[list(rows)],
        class_shares=features.class_shares[list(rows)],
        semantic_confidence=features.semantic_confidence[list(rows)],
        image_statistics=None if features.image_statistics is None else features.image_statistics[list(rows)],
        cluster=None if features.cluster is None else features.cluster[list(rows)],
    )


def test_every_file_in_the_folder_is_in_the_table_under_its_name() -> None:
    files = {module.name for module in pkgutil.iter_modules(detectors.signals.__path__)}
    assert files == set(SIGNALS)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_knows_its_name_and_names_its_columns_apart(name: str) -> None:
    signal = SIGNALS[name]
    assert signal.name == name
    dimensions = signal.dimensions(CLASSES, 4)
    assert len(set(dimensions)) == len(dimensions) > 0
    assert all(dimensions)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_gives_one_row_of_floats_a_record(name: str) -> None:
    values = SIGNALS[name].values(make_features(RECORDS))
    assert values.dtype == np.float64
    assert values.shape == (len(RECORDS), len(SIGNALS[name].dimensions(CLASSES, 4)))
    assert not np.isinf(values).any()


@pytest.mark.parametrize("name", SIGNALS)
def test_a_row_depends_on_its_record_alone(name: str) -> None:
    features = make_features(RECORDS)
    whole = SIGNALS[name].values(features)
    for rows in ([5, 0, 3, 3, 1, 2, 4], [1], [2], []):
        np.testing.assert_array_equal(SIGNALS[name].values(select(features, rows)), whole[rows])


def test_class_mix_counts_instances_and_takes_pixel_shares_of_maps() -> None:
    features = make_features(RECORDS)
    values = SIGNALS["class_mix"].values(features)
    assert SIGNALS["class_mix"].dimensions(CLASSES, 4) == ("car", "person", "tree", "<other>")
    assert values[[0, 1, 3, 5]].tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 0]]
    np.testing.assert_array_equal(values[[2, 4]], features.class_shares[[2, 4]])


def test_confidence_is_mean_and_lowest_score_or_the_maps_mean() -> None:
    features = make_features(RECORDS)
    values = SIGNALS["confidence"].values(features)
    np.testing.assert_allclose(values[[0, 3, 5], :2], [[0.7, 0.5], [0.2, 0.2], [1.0, 1.0]])
    assert np.isnan(values[[1, 2, 4], :2]).all()
    np.testing.assert_array_equal(values[:, 2], features.semantic_confidence)


def test_an_empty_list_is_no_instances_and_no_list_is_no_value() -> None:
    np.testing.assert_array_equal(
        SIGNALS["instances"].values(make_features(RECORDS))[:, 0], [3, 0, np.nan, 1, np.nan, 2]
    )


def test_a_layout_lays_the_signals_side_by_side() -> None:
    features = make_features(RECORDS)
    layout = Layout.of(CLASSES, 4)
    values = layout.values(features)
    assert values.shape == (len(RECORDS), layout.width)
    for columns in layout.signals:
        np.testing.assert_array_equal(values[:, columns.start : columns.stop], SIGNALS[columns.signal].values(features))


def test_a_version_without_a_baseline_has_no_columns() -> None:
    assert Layout(()).values(make_features(RECORDS)).shape == (len(RECORDS), 0)


def test_a_layout_refuses_what_the_baseline_was_not_built_with() -> None:
    features = make_features(RECORDS)
    with pytest.raises(ValueError, match="'embedding' has 4 columns, its baseline 5"):
        Layout.of(CLASSES, 5).values(features)
    with pytest.raises(ValueError, match="signal 'smell', which this release does not know"):
        Layout.stacked([("smell", ["rose"])]).values(features)
