"""The mean over classes keeps what each class's own interval knows, and its bounds cover."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.quality import scenarios
from bench.quality.scenarios import Setting
from detectors.quality.assisted import Expectation, assisted, assisted_units
from detectors.quality.mean import LESS_BELOW, between, correlations, mean_over
from detectors.quality.ratio import Estimate, RatioSample
from detectors.quality.spotcheck import design, spotcheck

APART, ALIKE = np.eye(2), np.ones((2, 2))


def known(lower: float, point: float, upper: float, effective: float = 50.0) -> Estimate:
    return Estimate(point, lower, upper, 50, effective, 10, "ok", 0, "spotcheck", 1.0)


def test_of_one_class_it_is_that_class() -> None:
    only = known(0.4, 0.7, 0.9)
    assert mean_over([only], np.eye(1)) == only


def test_independent_errors_add_as_squares_and_common_ones_as_they_are() -> None:
    both = [known(0.7, 0.8, 0.9), known(0.2, 0.5, 0.9)]
    apart, alike = mean_over(both, APART), mean_over(both, ALIKE)
    assert apart.point == alike.point == pytest.approx(0.65)
    assert apart.upper == pytest.approx(0.65 + math.hypot(0.1, 0.4) / 2)
    assert alike.upper == pytest.approx(0.9)
    shared = (0.1**2 + 0.3**2) / 0.3**2
    assert apart.lower == pytest.approx(0.65 - math.hypot(0.1, 0.3) / 2 * (1 - LESS_BELOW * (1 - 1 / shared)))
    assert alike.lower == mean_over(both, ALIKE, less_below=0.0).lower == pytest.approx(0.45)


def test_a_class_of_which_little_is_known_leaves_the_mean_as_wide_as_it_must() -> None:
    sure = [known(0.79, 0.8, 0.81, 200.0)] * 3
    mean = mean_over([*sure, known(0.05, 0.5, 0.95, 3.0)], np.eye(4))
    assert mean.upper is not None and mean.upper - (mean.point or 0) >= 0.45 / 4
    assert mean.effective_labels == 3


def test_bounds_stay_within_0_and_1() -> None:
    mean = mean_over([known(0.0, 0.02, 0.3), known(-0.1, 0.02, 0.3)], ALIKE)
    assert mean.lower == 0
    mean = mean_over([known(0.5, 0.98, 1.0), known(0.5, 0.98, 1.0)], ALIKE)
    assert mean.upper == pytest.approx(1)


def test_without_one_of_the_classes_there_is_none() -> None:
    unknown = spotcheck(RatioSample.uniform([1, 0, 0, 0, 0], [2, 0, 0, 0, 0]), 100)
    rarer = replace(unknown, needed=unknown.needed + 7)
    mean = mean_over([known(0.7, 0.8, 0.9), unknown, rarer], np.eye(3))
    assert (mean.status, mean.point, mean.needed) == ("too few labels", None, rarer.needed)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="0 estimates"):
        mean_over([], np.zeros((0, 0)))
    with pytest.raises(ValueError, match="1 estimates, correlations of shape"):
        mean_over([known(0.1, 0.2, 0.3)], APART)


def test_correlations_are_those_of_residuals_and_never_negative() -> None:
    union, ups = np.full(6, 100.0), np.array([20.0, -20, 10, -10, 5, -5])
    first, same, against, flat = (RatioSample.uniform(50 + part, union) for part in (ups, 2 * ups, -ups, 0 * ups))
    units = [design(one, one.numerator, one.denominator, 60) for one in (first, same, against, flat)]
    found = correlations(units)
    assert found[0] == pytest.approx([1, 1, 0, 0])
    assert np.diag(found) == pytest.approx(1)
    assert between(np.array([[1.0, 0], [1, 1]]))[0, 1] == pytest.approx(0.5**0.5)


def test_of_the_process_classes_that_confidence_helps_stand_beside_those_that_it_does_not() -> None:
    rng = np.random.default_rng(2)
    union = rng.lognormal(5, 0.5, 30)
    sample = RatioSample.uniform(union * rng.beta(6, 2, 30), union, weight=10.0)
    far = 10 * union  # all of it where the labels are, so that nothing is left to divide by
    ratio = sample.numerator.sum() / union.sum()
    useless = Expectation(sample.numerator + ratio * far, union + far, 0.0, 0.0)
    nothing = Expectation(0 * union, 0 * union, 0.0, 0.0)
    given = [(sample, one, 300) for one in (useless, nothing)]
    units = [assisted_units(*one, process=True) for one in given]
    assert [len(one.numerator) for one in units] == [30, 60]
    assert correlations(units) == pytest.approx(ALIKE)
    mean = mean_over([assisted(*one, process=True) for one in given], correlations(units))
    assert mean.point == pytest.approx(ratio)


@pytest.mark.parametrize(("family", "help_too"), [("lognormal", False), ("misses", False), ("counts", True)])
def test_intervals_of_the_mean_cover(family: str, help_too: bool) -> None:
    """50 labels of 1,000 records, one of three classes in a fifth of them."""
    rng, records, labels = np.random.default_rng(31), 1000, 50
    sequences = np.arange(records) // scenarios.WINDOW_FRAMES
    hits = []
    for _ in range(20):
        made = [
            tuple(side[0] for side in scenarios.draw(Setting(family, *one), rng, 1, sequences))
            for one in ((1.0, 0.9), (0.5, 0.7), (0.2, 0.6))
        ]
        truth = np.mean([shared.sum() / union.sum() for shared, union in made])
        for _ in range(15):
            chosen = rng.choice(records, labels, replace=False)
            estimates, units = [], []
            for shared, union in made:
                sample = RatioSample.uniform(shared[chosen], union[chosen], sequences[chosen], records / labels)
                if help_too:
                    guess = shared * np.exp(0.2 * rng.standard_normal(records))
                    expected = Expectation(guess[chosen], union[chosen], guess.sum(), union.sum())
                    estimates.append(assisted(sample, expected, records))
                    units.append(assisted_units(sample, expected, records))
                else:
                    estimates.append(spotcheck(sample, records))
                    units.append(design(sample, sample.numerator, sample.denominator, records))
            mean = mean_over(estimates, correlations(units))
            if mean.lower is not None and mean.upper is not None:
                hits.append(mean.lower <= truth <= mean.upper)
    assert len(hits) > 270
    assert 0.93 < np.mean(hits) <= 0.997
