"""The projection: whitened principal components, to the last bit the same however the rows come."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from embeddings.projection import Projection, ProjectionFit, bit_budget


def correlated(rows: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """Embeddings with a falling spectrum and a common offset, as backbones give them."""
    rng = np.random.default_rng(seed)
    scales = 1.0 / np.sqrt(1 + np.arange(dimensions))
    mixing = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    return ((rng.normal(size=(rows, dimensions)) * scales) @ mixing + 3.0).astype(np.float32)


def fitted(embeddings: NDArray[np.float32], components: int = 32) -> Projection:
    fit = ProjectionFit()
    fit.update(embeddings)
    return fit.finish(components)


EMBEDDINGS = correlated(2000, 96)
PROJECTION = fitted(EMBEDDINGS, 16)


@pytest.mark.parametrize(("rows", "dimensions", "components"), [(2000, 96, 16), (300, 5, 5), (40, 200, 20)])
def test_components_are_those_of_scikit_learn_up_to_their_sign(rows: int, dimensions: int, components: int) -> None:
    embeddings = correlated(rows, dimensions)
    ours = fitted(embeddings, components).project(embeddings)
    theirs = PCA(components, whiten=True, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    signs = np.sign((ours * theirs).sum(axis=0))
    assert np.abs(ours - theirs * signs).max() < 1e-3
    assert np.allclose(ours.mean(axis=0), 0, atol=1e-3) and np.allclose(ours.std(axis=0, ddof=1), 1, atol=1e-3)


def test_explained_shares_are_those_of_scikit_learn() -> None:
    theirs = PCA(16, svd_solver="full").fit(EMBEDDINGS.astype(np.float64)).explained_variance_ratio_
    assert np.allclose(PROJECTION.explained, theirs, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_neither_order_nor_batches_change_a_bit(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    whole = PROJECTION.project(EMBEDDINGS[:200])
    order = rng.permutation(200)
    edges = np.cumsum([0, *sizes])
    parts = [PROJECTION.project(EMBEDDINGS[:200][order[a:b]]) for a, b in pairwise(edges)]
    together = np.concatenate(parts)
    assert np.array_equal(together, whole[order][: len(together)])


def test_the_product_is_exact_in_the_order_of_any_machine() -> None:
    quantised = np.clip(np.rint((EMBEDDINGS - PROJECTION.centre) * PROJECTION.steps_per_unit), -(2.0**23), 2.0**23)
    exact = [[sum(int(q) * int(m) for q, m in zip(row, col, strict=True)) for col in PROJECTION.matrix.T]
             for row in quantised[:20]]  # fmt: skip
    assert np.array_equal(PROJECTION.project(EMBEDDINGS[:20]), np.array(exact, dtype=np.float64) * PROJECTION.unit)


@given(st.integers(1, 100_000))
def test_the_largest_possible_sum_fits_into_53_bits(dimensions: int) -> None:
    embedding_bits, matrix_bits = bit_budget(dimensions)
    assert dimensions * 2**embedding_bits * 2**matrix_bits <= 2**53 and matrix_bits <= 30


def test_matrix_entries_stay_within_their_bits() -> None:
    assert np.abs(PROJECTION.matrix.astype(np.int64)).max() <= 2 ** bit_budget(PROJECTION.dimensions)[1]


@settings(max_examples=100, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(0, 95))
def test_a_wild_value_gives_a_finite_row_or_a_row_of_nan_and_leaves_the_others_alone(value: float, at: int) -> None:
    rows = EMBEDDINGS[:4].copy()
    rows[2, at] = value
    projected = PROJECTION.project(rows)
    assert np.array_equal(projected[[0, 1, 3]], PROJECTION.project(EMBEDDINGS[:4])[[0, 1, 3]])
    assert np.isfinite(projected[2]).all() if np.isfinite(value) else np.isnan(projected[2]).all()


def test_an_outlier_is_clipped_at_64_standard_deviations_of_its_dimension() -> None:
    rows = np.repeat(EMBEDDINGS[:1], 2, axis=0)
    deviation = EMBEDDINGS[:, 7].std(ddof=1)
    rows[:, 7] = PROJECTION.centre[7] + np.array([70.0, 1e6]) * deviation
    first, second = PROJECTION.project(rows)
    assert np.array_equal(first, second)


def test_no_rows_project_to_no_rows() -> None:
    assert PROJECTION.project(np.zeros((0, 96), np.float32)).shape == (0, 16)


def test_a_wrong_number_of_dimensions_is_named() -> None:
    with pytest.raises(ValueError, match=r"takes \(N, 96\) embeddings, got \(3, 95\)"):
        PROJECTION.project(np.zeros((3, 95), np.float32))


def test_half_fits_merge_to_the_whole() -> None:
    halves = [ProjectionFit(), ProjectionFit()]
    for index, start in enumerate(range(0, 2000, 100)):
        halves[index % 2].update(EMBEDDINGS[start : start + 100])
    halves[0].merge(halves[1])
    assert halves[0].count == 2000
    merged = halves[0].finish(16)
    assert np.allclose(merged.project(EMBEDDINGS), PROJECTION.project(EMBEDDINGS), atol=1e-3)


def test_merging_an_empty_fit_changes_nothing_and_an_empty_one_takes_everything() -> None:
    full, empty = ProjectionFit(), ProjectionFit()
    full.update(EMBEDDINGS)
    full.merge(ProjectionFit())
    empty.merge(full)
    assert np.array_equal(empty.finish(16).matrix, PROJECTION.matrix)


def test_the_same_embeddings_give_the_same_bytes() -> None:
    assert fitted(EMBEDDINGS, 16).to_dict() == PROJECTION.to_dict()


def test_a_projection_survives_its_dictionary() -> None:
    values = PROJECTION.to_dict()
    assert all(isinstance(v, (int, bytes)) for v in values.values())
    again = Projection.from_dict(values)
    assert np.array_equal(again.project(EMBEDDINGS), PROJECTION.project(EMBEDDINGS))
    assert again.to_dict() == values


def test_a_damaged_dictionary_is_named() -> None:
    values = PROJECTION.to_dict()
    with pytest.raises(ValueError, match="projection has format 9"):
        Projection.from_dict(values | {"format": 9})
    with pytest.raises(ValueError, match="matrix has 1535 values"):
        Projection.from_dict(values | {"matrix": values["matrix"][:-4]})


def test_each_component_has_its_largest_weight_positive() -> None:
    weights = PROJECTION.matrix * PROJECTION.unit * PROJECTION.steps_per_unit[:, None]
    assert (weights[np.abs(weights).argmax(axis=0), np.arange(16)] > 0).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-20, 7.3e8])
def test_constant_embeddings_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="embeddings are constant"):
        fitted(np.full((50, 8), value, np.float32))


def test_too_few_embeddings_are_refused_and_non_finite_ones_counted() -> None:
    fit = ProjectionFit()
    fit.update(np.array([[1.0, 2.0], [np.nan, 0.0], [np.inf, 0.0]], np.float32))
    with pytest.raises(ValueError, match="at least 2 finite embeddings, got 1"):
        fit.finish()
    assert (fit.count, fit.skipped) == (1, 2)


def test_no_more_components_are_kept_than_there_are_directions() -> None:
    rng = np.random.default_rng(1)
    plane = (rng.normal(size=(100, 3)) @ rng.normal(size=(3, 40))).astype(np.float32)
    assert fitted(plane).components in (3, 4)  # float32's rounding may leave a fourth above 1e-9
    assert fitted(correlated(6, 40)).components == 5
    assert fitted(correlated(500, 4)).components == 4


def test_a_large_common_offset_does_not_spoil_the_components() -> None:
    shifted = (EMBEDDINGS.astype(np.float64) + 4096.0).astype(np.float32)
    ours = fitted(shifted, 8).project(shifted)
    assert np.allclose(np.cov(ours.T), np.eye(8), atol=1e-3)
