"""Divergences against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import chi2_contingency

from detectors.divergence import (
    cumulative_statistic,
    g_statistic,
    jensen_shannon,
    kullback_leibler,
    used_bins,
)

PAIRS = hnp.arrays(np.int64, st.tuples(st.just(2), st.integers(2, 20)), elements=st.integers(0, 500)).filter(
    lambda pair: bool((pair.sum(1) > 0).all())
)


@given(PAIRS)
def test_js_is_the_square_of_scipys_distance(pair: np.ndarray) -> None:
    p, q = pair
    expected = jensenshannon(p, q, base=2) ** 2
    assert jensen_shannon(p, q, remove_bias=False) == pytest.approx(expected, abs=1e-9)
    bias = (used_bins(p, q) - 1) / 8 * (1 / p.sum() + 1 / q.sum()) / np.log(2)
    assert jensen_shannon(p, q) == pytest.approx(max(expected - bias, 0), abs=1e-9)


@given(PAIRS)
def test_kl_is_scipys_on_smoothed_shares(pair: np.ndarray) -> None:
    p, q = (row[pair.sum(0) > 0] for row in pair)
    smooth_p, smooth_q = (row + 0.5 for row in (p, q))
    expected = rel_entr(smooth_p / smooth_p.sum(), smooth_q / smooth_q.sum()).sum()
    assert kullback_leibler(*pair, remove_bias=False) == pytest.approx(expected, abs=1e-9)
    bias = (len(p) - 1) / 2 * (1 / p.sum() + 1 / q.sum())
    assert kullback_leibler(*pair) == pytest.approx(max(expected - bias, 0), abs=1e-9)


@given(PAIRS)
def test_g_is_scipys_likelihood_ratio(pair: np.ndarray) -> None:
    table = pair[:, pair.sum(0) > 0]
    expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert g_statistic(*pair) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_is_the_sum_of_scipys_likelihood_ratios_over_all_cuts() -> None:
    rng = np.random.default_rng(0)
    window, baseline = rng.multinomial(60, np.ones(9) / 9), rng.multinomial(900, np.ones(9) / 9)
    by_hand = sum(
        chi2_contingency(
            [[window[:cut].sum(), window[cut:].sum()], [baseline[:cut].sum(), baseline[cut:].sum()]],
            correction=False,
            lambda_="log-likelihood",
        ).statistic
        for cut in range(1, 9)
    )
    assert cumulative_statistic(window, baseline) == pytest.approx(by_hand, rel=1e-9)


def test_three_records_beyond_a_cut_that_expects_hardly_any_are_rare_and_not_impossible() -> None:
    # Without drift any three of 10,100 records lie there with 100 / 10,100 each.
    evidence = float(cumulative_statistic([97, 3], [10_000, 0])) / 2
    assert math.exp(-evidence) == pytest.approx((100 / 10_100) ** 3, rel=0.2)


@given(PAIRS)
def test_equal_shares_are_no_divergence_and_everything_stays_in_range(pair: np.ndarray) -> None:
    p, q = pair
    for measure in (jensen_shannon, kullback_leibler, g_statistic, cumulative_statistic):
        assert measure(p, 3 * p) == pytest.approx(0, abs=1e-6 if measure is not kullback_leibler else 1)
        assert measure(p, q) >= 0
    assert jensen_shannon(p, q) <= 1


def test_all_dimensions_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 9, (2, 5, 17))
    for measure in (jensen_shannon, kullback_leibler, g_statistic, cumulative_statistic):
        np.testing.assert_allclose(measure(p, q), [measure(*rows) for rows in zip(p, q, strict=True)], rtol=1e-12)


def test_bias_removal_centres_samples_of_one_distribution() -> None:
    rng = np.random.default_rng(0)
    p = rng.multinomial(200, np.full(16, 1 / 16), size=4000)
    q = rng.multinomial(10_000, np.full(16, 1 / 16), size=4000)
    plugin = jensen_shannon(p, q, remove_bias=False)
    bias = 15 / 8 * (1 / 200 + 1 / 10_000) / np.log(2)
    assert plugin.mean() == pytest.approx(bias, rel=0.05)


def test_empty_histograms_have_no_divergence_to_show() -> None:
    for measure in (jensen_shannon, kullback_leibler, g_statistic, cumulative_statistic):
        assert np.isnan(measure([0, 0], [3, 4]))


def test_histograms_of_different_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="baseline has 3 bins, window has 2"):
        jensen_shannon([1, 2], [1, 2, 3])
