"""Signal `embedding_clusters`: frozen centres, assignment that nothing moves, and counts that see a mixture change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from detectors.clusters import CLUSTERS, LEADING, LIMIT, SAMPLE_ROWS, STEPS, ClusterCentres, sample_rows
from detectors.features import Features
from detectors.layout import Layout
from detectors.score import BaselineStatistic, score_window
from detectors.signals.embedding_clusters import Clusters
from detectors.statistic import PaneStatistic

SHARES = [0.35, 0.25, 0.2, 0.1, 0.07, 0.03]
CENTRES = np.random.default_rng(5).normal(size=(len(SHARES), 12)) * 3


def made(shares: list[float], records: int, seed: int) -> np.ndarray:
    """Records of six groups in twelve components."""
    rng = np.random.default_rng(seed)
    return CENTRES[rng.choice(len(shares), size=records, p=shares)] + rng.normal(size=(records, 12))


def features(cluster: np.ndarray | None, records: int) -> Features:
    return Features(
        components=np.zeros((records, 2)),
        instance_offsets=np.zeros(records + 1, dtype=np.int64),
        instance_class=np.empty(0, dtype=np.int64),
        instance_score=np.empty(0),
        has_instances=np.ones(records, dtype=bool),
        class_shares=np.full((records, 2), np.nan),
        semantic_confidence=np.full(records, np.nan),
        cluster=cluster,
    )


def test_the_nearest_centre_is_scipys() -> None:
    rows = made(SHARES, 3000, seed=0)
    centres = ClusterCentres.fit(rows)
    rounded = np.rint(np.clip(rows[:, :LEADING], -LIMIT, LIMIT) * STEPS)
    np.testing.assert_array_equal(centres.nearest(rows), cdist(rounded, centres.steps).argmin(axis=1))


def test_groups_far_apart_get_a_centre_each_and_the_largest_comes_first() -> None:
    shares = [0.1, 0.2, 0.7]
    rng = np.random.default_rng(0)
    group = rng.choice(3, size=2000, p=shares)
    rows = np.eye(3)[group] * 20 + rng.normal(size=(2000, 3))
    centres = ClusterCentres.fit(rows, clusters=3)
    np.testing.assert_array_equal(centres.nearest(rows), 2 - group)
    np.testing.assert_allclose(centres.steps / STEPS, np.eye(3)[::-1] * 20, atol=0.3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_batches_order_and_memory_layout_move_no_record(seed: int, components: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, components)) * 10.0 ** rng.integers(-3, 6)
    rows[rng.random(200) < 0.1, rng.integers(components)] = rng.choice([np.nan, np.inf, -np.inf])
    centres = ClusterCentres.fit(rng.normal(size=(500, components)))
    whole = centres.nearest(rows)
    order = rng.permutation(200)
    np.testing.assert_array_equal(centres.nearest(rows[order]), whole[order])
    np.testing.assert_array_equal(centres.nearest(np.asfortranarray(rows)), whole)
    np.testing.assert_array_equal(np.concatenate([centres.nearest(rows[i : i + 1]) for i in range(200)]), whole)
    np.testing.assert_array_equal(np.isnan(whole), ~np.isfinite(rows[:, :LEADING]).all(axis=1))


def test_of_two_centres_at_one_distance_the_first_is_taken() -> None:
    centres = ClusterCentres(np.array([[1024.0], [-1024.0], [1024.0]]))
    assert centres.nearest(np.array([[0.0], [0.0001], [-0.001], [5.0]])).tolist() == [0, 0, 1, 0]


def test_equal_rows_give_equal_bytes_that_read_back() -> None:
    rows = made(SHARES, 1000, seed=0)
    centres = ClusterCentres.fit(rows)
    assert ClusterCentres.fit(rows.copy()).to_bytes() == centres.to_bytes()
    read = ClusterCentres.from_bytes(centres.to_bytes())
    np.testing.assert_array_equal(read.steps, centres.steps)
    assert read.to_bytes() == centres.to_bytes()


def test_damage_and_newer_formats_are_refused() -> None:
    data = ClusterCentres.fit(made(SHARES, 100, seed=0)).to_bytes()
    with pytest.raises(ValueError, match="not a set of cluster centres"):
        ClusterCentres.from_bytes(b"SWPS" + data[4:])
    with pytest.raises(ValueError, match="has format 2"):
        ClusterCentres.from_bytes(data[:4] + b"\x02" + data[5:])
    for end in range(len(data)):
        with pytest.raises(ValueError, match="cluster centres"):
            ClusterCentres.from_bytes(data[:end])


@pytest.mark.parametrize(
    ("records", "clusters"), [(1, 1), (24, 1), (49, 1), (50, 2), (399, 15), (400, CLUSTERS), (5000, CLUSTERS)]
)
def test_a_small_baseline_has_fewer_clusters(records: int, clusters: int) -> None:
    rows = np.random.default_rng(0).normal(size=(records, 4))
    assert len(ClusterCentres.fit(rows).steps) == clusters


def test_equal_records_are_one_cluster_and_broken_ones_none() -> None:
    rows = np.repeat([[1.0, 2.0], [3.0, 4.0], [np.nan, 0.0]], 200, axis=0)
    centres = ClusterCentres.fit(rows)
    assert sorted(centres.steps.tolist()) == [[1024, 2048], [3072, 4096]]
    with pytest.raises(ValueError, match="at least one record"):
        ClusterCentres.fit(rows[-10:])


def test_the_sample_is_the_same_each_time_and_no_every_third_row() -> None:
    rows = sample_rows(3 * SAMPLE_ROWS)
    np.testing.assert_array_equal(rows, sample_rows(3 * SAMPLE_ROWS))
    assert len(set(rows.tolist())) == SAMPLE_ROWS
    assert np.bincount(rows % 3).min() > 0.3 * SAMPLE_ROWS


def test_other_components_than_the_centres_are_refused() -> None:
    centres = ClusterCentres.fit(np.random.default_rng(0).normal(size=(100, 4)))
    with pytest.raises(ValueError, match="centres have 4 components, got values of shape"):
        centres.nearest(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="expected"):
        ClusterCentres(np.zeros((CLUSTERS + 1, 2)))
    with pytest.raises(ValueError, match="whole numbers"):
        ClusterCentres(np.array([[0.5]]))


def test_a_record_is_in_one_cluster_or_has_no_value() -> None:
    values = Clusters().values(features(np.array([3.0, np.nan, 15.0]), 3))
    assert values[0].tolist() == [0] * 3 + [1] + [0] * 12
    assert np.isnan(values[1]).all()
    assert values[2].argmax() == 15
    assert np.nansum(values) == 2
    assert np.isnan(Clusters().values(features(None, 2))).all()


def test_every_cluster_has_a_bin_of_its_own_however_rare() -> None:
    cluster = np.repeat(np.arange(16.0), [9000, 3, 500, *[1] * 12, 0])
    layout = Layout.stacked([("embedding_clusters", Clusters().dimensions([], 2))])
    values = Clusters().values(features(cluster, len(cluster)))
    binning = BaselineStatistic.fit(layout, values, [""] * len(values)).binning
    codes = binning.codes(Clusters().values(features(np.arange(16.0), 16)))
    for column in codes.T:  # its own cluster has another code than the others, which have one in common
        assert len(set(column.tolist())) == 2
        assert np.bincount(np.unique(column, return_inverse=True)[1]).min() == 1


def test_a_rare_group_that_grows_alarms_and_is_named_and_an_equal_mixture_hardly_ever_does() -> None:
    rows = made(SHARES, 8000, seed=1)
    centres = ClusterCentres.fit(rows)
    layout = Layout.stacked([("embedding_clusters", Clusters().dimensions([], 12))])

    def values(of: np.ndarray) -> np.ndarray:
        return Clusters().values(features(centres.nearest(of), len(of)))

    baseline = BaselineStatistic.fit(layout, values(rows), [""] * len(rows))

    def window(shares: list[float], seed: int) -> PaneStatistic:
        pane = PaneStatistic(layout.width, 16)
        pane.add(baseline.binning.codes(values(made(shares, 200, seed))), [""] * 200)
        return pane

    grown = [0.3, 0.2, 0.15, 0.1, 0.07, 0.18]
    found = [score_window(baseline, window(grown, seed), alpha=0.01).scores[0] for seed in range(50)]
    alike = [score_window(baseline, window(SHARES, 100 + seed), alpha=0.01).scores[0] for seed in range(200)]
    assert sum(score.p_value is not None and score.p_value <= 0.01 for score in found) == 50
    assert sum(score.p_value is not None and score.p_value <= 0.01 for score in alike) <= 7  # P(more) = 0.001
    rare = int(np.bincount(centres.nearest(made([0, 0, 0, 0, 0, 1.0], 500, 2)).astype(int)).argmax())
    best = min(found[0].dimensions, key=lambda dimension: dimension.p_value)
    assert best.dimension == f"cluster_{rare}"
