"""Signal `embedding_mmd`: features of the Gaussian kernel, equal everywhere, that see what no component shows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from detectors.fourier import FEATURES, fourier_features, weights
from detectors.layout import Layout
from detectors.score import BaselineStatistic, score_window
from detectors.statistic import PaneStatistic

RADIANS = 2 * np.pi / 2**20


def correlated(rng: np.random.Generator, records: int, correlation: float) -> np.ndarray:
    """32 components, neighbours correlated in pairs, each one standard normal by itself."""
    rows = rng.normal(size=(records, 32))
    rows[:, 1::2] = correlation * rows[:, ::2] + np.sqrt(1 - correlation**2) * rows[:, 1::2]
    return rows


def test_a_feature_is_the_cosine_of_its_direction() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 32)) * 3
    exact = np.cos(rows @ weights(32).T * RADIANS)
    np.testing.assert_allclose(fourier_features(rows), exact, atol=0.005)  # a step of the table, and of the components


def test_directions_are_those_of_the_kernel() -> None:
    """Entries normal with deviation 1 / sqrt(2 K): Kolmogorov and Smirnov see no difference."""
    for components in (32, 64, 256):
        entries = weights(components).ravel() * RADIANS * np.sqrt(2 * components)
        assert stats.kstest(entries, "norm").pvalue > 0.01


def test_products_of_features_are_the_symmetric_gaussian_kernel_on_average() -> None:
    components = 256
    rows = np.random.default_rng(1).normal(size=(40, components)) * 0.7
    features = fourier_features(rows)
    bandwidth = 2 * components
    kernel = (
        np.exp(-(cdist(rows, rows) ** 2) / (2 * bandwidth)) + np.exp(-(cdist(rows, -rows) ** 2) / (2 * bandwidth))
    ) / 2
    error = (features @ features.T / FEATURES - kernel)[np.triu_indices(40, 1)]
    assert abs(error.mean()) < 0.05
    assert error.std() < 1 / np.sqrt(FEATURES)


@pytest.mark.parametrize(
    ("components", "digest"),
    [(1, "db31b9b10acf79b1"), (5, "a3a9287231c2d57d"), (32, "ed085a3aa8333c2c"), (256, "d57407b4e41b6285")],
)
def test_weights_are_the_same_on_every_machine_and_release(components: int, digest: str) -> None:
    table = weights(components)
    assert table.shape == (FEATURES, components)
    assert hashlib.blake2b(table.astype("<i4").tobytes(), digest_size=8).hexdigest() == digest


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 7, 32, 256]))
def test_batches_order_and_memory_layout_change_no_bit(seed: int, components: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(100, components)) * 10.0 ** rng.integers(-3, 6)
    rows[rng.random(100) < 0.1, rng.integers(components)] = rng.choice([np.nan, np.inf, -np.inf])
    whole = fourier_features(rows)
    order = rng.permutation(100)
    np.testing.assert_array_equal(fourier_features(rows[order]), whole[order])
    np.testing.assert_array_equal(fourier_features(np.asfortranarray(rows)), whole)
    np.testing.assert_array_equal(np.concatenate([fourier_features(rows[i : i + 1]) for i in range(100)]), whole)
    np.testing.assert_array_equal(np.isnan(whole), np.tile(~np.isfinite(rows).all(axis=1, keepdims=True), FEATURES))
    assert (np.abs(whole[~np.isnan(whole)]) <= 1).all()


def test_the_sum_of_components_in_another_order_is_the_same_to_the_last_bit() -> None:
    """Exact whole numbers: Python's own integers give the phase that the kernel used."""
    rows = np.random.default_rng(3).normal(size=(20, 32)) * 20
    features = fourier_features(rows)
    whole = [[int(step) for step in row] for row in np.rint(np.clip(rows, -64, 64) * 1024)]
    table = [[int(weight) for weight in row] for row in weights(32)]
    for row, found in zip(whole, features, strict=True):
        phases = [sum(w * x for w, x in zip(reversed(direction), reversed(row), strict=True)) for direction in table]
        cosines = [np.rint(np.cos(2 * np.pi * ((phase >> 18) % 4096 + 0.5) / 4096) * 65536) / 65536 for phase in phases]
        assert found.tolist() == cosines


def test_without_components_there_are_no_values() -> None:
    assert np.isnan(fourier_features(np.empty((3, 0)))).all()


def test_correlation_that_no_component_shows_is_found_here_and_not_by_the_components() -> None:
    rng = np.random.default_rng(11)
    layout = Layout.stacked(
        [
            ("embedding", [f"component_{i}" for i in range(32)]),
            ("embedding_mmd", [f"feature_{i}" for i in range(FEATURES)]),
        ]
    )

    def values(rows: np.ndarray) -> np.ndarray:
        return np.hstack([rows, fourier_features(rows)])

    baseline = BaselineStatistic.fit(layout, values(correlated(rng, 10_000, 0.0)), [""] * 10_000)

    def found(correlation: float, windows: int) -> list[int]:
        hits = [0, 0]
        for _ in range(windows):
            pane = PaneStatistic(layout.width, 16)
            pane.add(baseline.binning.codes(values(correlated(rng, 300, correlation))), [""] * 300)
            scores = score_window(baseline, pane, alpha=0.01).scores
            hits = [
                hit + (score.p_value is not None and score.p_value <= 0.01)
                for hit, score in zip(hits, scores, strict=True)
            ]
        return hits

    embedding, mmd = found(0.5, 60)
    assert embedding <= 5
    assert mmd >= 42
    assert max(found(0.0, 200)) <= 8  # P(more) = 0.0002 at a true rate of 1 %
