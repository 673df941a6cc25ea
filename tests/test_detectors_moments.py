"""Sums of integers that merge in any order, NumPy's mean and covariance, SciPy's matrix root."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from detectors import moments as module
from detectors.moments import (
    LIMIT,
    MOST_COMPONENTS,
    MOST_RECORDS,
    STEPS,
    Moments,
    displacements,
    farthest,
    frechet_distance,
)


def of(*parts: np.ndarray, components: int = 3) -> Moments:
    moments = Moments(components)
    for part in parts:
        moments.add(part)
    return moments


def rows(seed: int, records: int, components: int = 3, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(records, components)) * spread


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray]:
    """Batches with outliers and broken records."""
    made = []
    for _ in range(draw(st.integers(1, 5))):
        part = rows(draw(st.integers(0, 2**31)), draw(st.integers(0, 20)), spread=draw(st.sampled_from([1.0, 1e6])))
        part[draw(st.lists(st.integers(0, len(part) - 1), max_size=3)) if len(part) else [], 1] = draw(
            st.sampled_from([np.nan, np.inf, 1e300])
        )
        made.append(part)
    return made


@given(batches(), st.randoms(use_true_random=False))
def test_any_batching_and_any_order_of_merging_gives_the_same_bytes(parts: list[np.ndarray], random: object) -> None:
    whole = of(*parts)
    records = [part[i : i + 1] for part in parts for i in range(len(part))]
    random.shuffle(records)  # type: ignore[attr-defined]
    assert of(*records).to_bytes() == whole.to_bytes()
    panes = [of(part) for part in parts]
    random.shuffle(panes)  # type: ignore[attr-defined]
    merged = Moments(3)
    for pane in panes:
        merged.merge(pane)
    assert merged == whole
    for pane in panes[1:]:
        merged.subtract(pane)
    assert merged == panes[0]
    read = Moments.from_bytes(whole.to_bytes())
    assert read == whole
    assert read.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("components", [1, 5, 32])
def test_mean_and_covariance_are_numpys(components: int) -> None:
    data = rows(0, 500, components) @ rows(1, components, components)
    data *= 0.3 / data.std()  # so that none lies far out
    moments = of(data, components=components)
    clipped = np.rint(data * STEPS) / STEPS
    np.testing.assert_allclose(moments.mean(), clipped.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        moments.covariance(), np.cov(clipped.T).reshape(components, components), rtol=1e-9, atol=1e-12
    )


def test_the_covariance_of_many_records_off_centre_is_exact_to_rounding() -> None:
    moments = of(rows(3, 1000, 2) + np.array([2.0, -1.0]), components=2)
    for _ in range(20):
        moments.merge(Moments.from_bytes(moments.to_bytes()))
    n, sums, products = moments.records, moments._sums.tolist(), moments._products.tolist()
    assert n == 1000 << 20
    for i in range(2):
        for j in range(2):
            exact = Fraction(n * products[i][j] - sums[i] * sums[j], n * (n - 1)) / int(STEPS) ** 2
            assert moments.covariance()[i, j] == pytest.approx(float(exact), rel=1e-14)


def test_only_the_first_32_components_count() -> None:
    data = rows(0, 50, 40)
    assert of(data, components=40) == of(data[:, :32], components=32)
    assert of(data, components=40).components == MOST_COMPONENTS


def test_records_that_are_not_finite_are_left_out() -> None:
    data = rows(0, 10)
    data[[2, 5], [0, 2]] = [np.nan, -np.inf]
    moments = of(data)
    assert moments.records == 8
    assert moments == of(np.delete(data, [2, 5], axis=0))


@pytest.mark.parametrize("components", [1, 2, 32])
def test_a_record_far_out_counts_as_one_at_the_most_that_any_may_be(components: int) -> None:
    most = farthest(components)
    direction = rows(7, 1, components)[0]
    near = direction * (0.9 * most / np.linalg.norm(direction))
    for factor, length in ((1.0, 0.9 * most), (1.2, most), (1e9, most)):
        moments = of(near[None] * factor, components=components)
        assert np.linalg.norm(moments.mean()) == pytest.approx(length, abs=1e-3)
        assert (np.sign(moments.mean()) == np.sign(near)).all()
    assert farthest(32) == LIMIT


def test_one_outlier_moves_the_distance_little() -> None:
    usual, window = rows(0, 20_000, 32), rows(1, 1000, 32)
    broken = window.copy()
    broken[0] = 1e6
    before, after = (frechet_distance(of(usual, components=32), of(each, components=32)) for each in (window, broken))
    assert after == pytest.approx(before, rel=0.01)


def test_a_thousand_million_records_do_not_overflow() -> None:
    moments = of(np.full((1000, 2), [2.0, -2.0]), components=2)
    for _ in range(6):
        ten = Moments(2)
        for _ in range(10):
            ten.merge(moments)
        moments = ten
    assert moments.records == 10**9
    assert moments.mean().tolist() == [2.0, -2.0]
    assert not moments.covariance().any()
    moments.merge(moments)
    assert moments.mean().tolist() == [2.0, -2.0]
    with pytest.raises(ValueError, match=f"{MOST_RECORDS} records at most, these would be 4000000000"):
        moments.merge(moments)
    assert moments.records == 2 * 10**9
    assert Moments.from_bytes(moments.to_bytes()) == moments


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(0, 100)
    whole = of(data)
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    assert of(data) == whole


@pytest.mark.parametrize("components", [1, 4, 32])
def test_the_distance_is_scipys(components: int) -> None:
    first = rows(0, 400, components)
    second = rows(1, 300, components) @ (np.eye(components) + 0.3 * rows(2, components, components)) + 0.5
    one, other = of(first, components=components), of(second, components=components)
    root = sqrtm(one.covariance() @ other.covariance())
    expected = ((one.mean() - other.mean()) ** 2).sum() + np.trace(
        one.covariance() + other.covariance() - 2 * np.real(root)
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_equal_moments_are_at_no_distance_even_of_few_records(seed: int, records: int) -> None:
    moments = of(rows(seed, records, 8), components=8)
    assert 0 <= frechet_distance(moments, moments) < 1e-6


def test_a_shift_and_a_scale_give_what_the_formula_gives() -> None:
    data = rows(0, 2000, spread=0.5)  # so that none lies far out
    assert frechet_distance(of(data), of(data + np.array([0.5, 0, 0]))) == pytest.approx(0.25, abs=1e-3)
    # In one dimension (s - s')^2; here in each of three, of standard deviations 1 and 1.5.
    deviations = data.std(axis=0, ddof=1)
    wide = data.mean(axis=0) + 1.5 * (data - data.mean(axis=0))
    assert frechet_distance(of(data), of(wide)) == pytest.approx(0.25 * (deviations**2).sum(), rel=1e-3)


def test_displacements_add_up_to_the_distance_and_name_the_component_that_moved() -> None:
    first = of(rows(0, 500, 6), components=6)
    mixed = rows(1, 400, 6) @ (np.eye(6) + 0.3 * rows(2, 6, 6)) + 0.2
    second = of(mixed, components=6)
    assert displacements(first, second).sum() == pytest.approx(frechet_distance(first, second), rel=1e-9)
    shifted = rows(0, 500, 6)
    shifted[:, 3] += 0.7
    assert displacements(first, of(shifted, components=6)) == pytest.approx([0, 0, 0, 0.49, 0, 0], abs=0.02)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="at least one component"):
        Moments(0)
    with pytest.raises(ValueError, match="moments have 3 components, got values of shape"):
        of(rows(0, 5, 4))
    with pytest.raises(ValueError, match="one side has 3 components, the other 4"):
        Moments(3).merge(Moments(4))
    with pytest.raises(ValueError, match="one side has 3 components, the other 4"):
        frechet_distance(of(rows(0, 5)), of(rows(0, 5, 4), components=4))
    with pytest.raises(ValueError, match="at least two records, got 1"):
        frechet_distance(of(rows(0, 1)), of(rows(0, 5)))
    with pytest.raises(ValueError, match="at least one record"):
        Moments(3).mean()


def test_what_is_not_there_cannot_be_taken_away() -> None:
    moments = of(rows(0, 10))
    before = moments.to_bytes()
    for other in (of(rows(1, 11)), of(rows(1, 10)), of(np.full((2, 3), 7.0))):
        with pytest.raises(ValueError, match="cannot subtract"):
            moments.subtract(other)
    assert moments.to_bytes() == before


def test_damage_and_newer_formats_are_refused() -> None:
    data = of(rows(0, 10)).to_bytes()
    with pytest.raises(ValueError, match="not a moment statistic"):
        Moments.from_bytes(b"SWPS" + data[4:])
    with pytest.raises(ValueError, match="moment statistic has format 2"):
        Moments.from_bytes(data[:4] + b"\x02" + data[5:])
    for end in range(len(data)):
        with pytest.raises(ValueError, match="moment statistic"):
            Moments.from_bytes(data[:end])
