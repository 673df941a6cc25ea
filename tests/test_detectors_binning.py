"""Bins follow the baseline's mass and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.binning import Binning

ANY = st.floats(width=64, allow_nan=True, allow_infinity=True, allow_subnormal=False)
COLUMNS = hnp.arrays(np.float64, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=ANY)


@pytest.mark.parametrize("bins", [2, 16, 255])
def test_continuous_values_fall_into_bins_of_equal_mass(bins: int) -> None:
    values = np.random.default_rng(0).normal(size=(10_000, 3))
    codes = Binning.fit(values, bins).codes(values)
    for column in codes.T:
        counts = np.bincount(column, minlength=bins + 1)
        assert counts[bins] == 0
        assert counts[:bins].max() - counts[:bins].min() <= 1


@given(COLUMNS, st.integers(2, 20))
def test_codes_count_the_edges_at_or_below_as_numpy_does(values: np.ndarray, bins: int) -> None:
    binning = Binning.fit(values, bins)
    codes = binning.codes(values)
    for dimension in range(values.shape[1]):
        column = values[:, dimension]
        expected = np.searchsorted(binning.edges[dimension], column, side="right")
        np.testing.assert_array_equal(codes[:, dimension], np.where(np.isfinite(column), expected, bins))


@given(COLUMNS, st.integers(2, 20), st.integers(0, 99))
def test_the_order_of_rows_never_matters(values: np.ndarray, bins: int, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values, axis=0)
    np.testing.assert_array_equal(Binning.fit(values, bins).edges, Binning.fit(shuffled, bins).edges)


@pytest.mark.parametrize("constant", [0.0, -0.0, 7.5, -3.0, 1e300])
def test_a_constant_that_moves_either_way_is_seen(constant: float) -> None:
    binning = Binning.fit(np.full((100, 1), constant))
    step = max(abs(constant) * 1e-15, 1e-300)
    down, same, up = binning.codes(np.array([[constant - step], [constant], [constant + step]])).ravel()
    assert down < same < up


def test_a_relu_that_stops_being_silent_is_seen() -> None:
    values = np.maximum(np.random.default_rng(0).normal(size=(5000, 1)), 0)
    binning = Binning.fit(values)
    zero, above = binning.codes(np.array([[0.0], [1e-9]])).ravel()
    assert zero != above
    assert (binning.codes(values) == zero).sum() == (values == 0).sum()


def test_small_counts_have_a_bin_each() -> None:
    values = np.random.default_rng(0).poisson(1.0, size=(5000, 1)).astype(float)
    codes = Binning.fit(values).codes(np.array([[0.0], [1.0], [2.0], [3.0]])).ravel()
    assert len(set(codes.tolist())) == 4


def test_as_many_heavy_values_as_bins_still_get_codes_of_their_own() -> None:
    values = np.tile(np.arange(14.0), 100)[:, None]
    assert len(np.unique(Binning.fit(values, 16).codes(values))) == 14


def test_more_heavy_values_than_bins_share_them_evenly() -> None:
    values = np.tile(np.arange(32.0), 100)[:, None]
    counts = np.bincount(Binning.fit(values, 16).codes(values).ravel())
    assert counts[counts > 0].max() <= 300


def test_an_outlier_and_what_is_not_finite_change_no_other_code() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 1))
    binning = Binning.fit(values)
    assert binning.codes(np.array([[1e6], [-1e6], [np.nan], [np.inf], [-np.inf]])).ravel().tolist() == [
        15,
        0,
        16,
        16,
        16,
    ]


def test_a_column_without_a_finite_value_has_two_bins() -> None:
    binning = Binning.fit(np.full((10, 1), np.nan))
    assert binning.codes(np.array([[np.nan], [0.0], [-1e300]])).ravel().tolist() == [16, 0, 0]


def test_a_memory_mapped_array_gives_the_same_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2000, 7)).astype(np.float32)
    values.tofile(tmp_path / "values")
    monkeypatch.setattr("detectors.binning.BLOCK_BYTES", 40_000)  # two columns at a time
    mapped = np.memmap(tmp_path / "values", dtype=np.float32, mode="r", shape=values.shape)
    np.testing.assert_array_equal(Binning.fit(mapped).edges, Binning.fit(values.astype(np.float64)).edges)


def test_bins_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        Binning.fit(np.empty((0, 3)))
    with pytest.raises(ValueError, match="got 256"):
        Binning.fit(np.zeros((5, 1)), 256)
    with pytest.raises(ValueError, match="baseline has 1 dimensions"):
        Binning.fit(np.zeros((5, 1))).codes(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="ascending"):
        Binning(np.array([[1.0, 0.0]]))
