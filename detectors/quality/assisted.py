"""Quality from labels and from what the model itself expects of the unlabelled records."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.quality.intervals import Units
from detectors.quality.ratio import Estimate, Floats, RatioSample, sums_by
from detectors.quality.spotcheck import check, conclude, design, representing

FOLDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Numerators and denominators as calibrated confidence expects them, in the units of the labelled ones.

    They must come from the prediction alone, by a calibration that these labels had no part in.
    """

    numerator: Floats
    """(n,) of the labelled records."""
    denominator: Floats
    """(n,)"""
    total_numerator: float
    """Sum over all N records of the window, the labelled ones among them."""
    total_denominator: float


def assisted(
    sample: RatioSample,
    expectation: Expectation,
    population: int,
    level: float = 0.95,
    *,
    process: bool = False,
    population_clusters: int | None = None,
    bounded: bool = True,
) -> Estimate:
    """Prediction-powered: labels correct what the model expects, and its expectations calm what the labels vary.

    With ``I_hat``, ``U_hat`` the expectations and ``E`` their means over all N records, numerators become
    ``I - lambda (I_hat - E I_hat)`` and denominators likewise; then all is as in `spotcheck`. A wrong expectation
    shifts nothing, since over all records the added terms are 0. ``lambda`` is the slope of a label's residual
    on the expectation's, found in nine tenths of the sequences and used in the last (so that it does not flatter the
    variance), and clipped to 0..1, so that a useless expectation costs next to nothing.

    ``process`` estimates the process instead of the window: the part of the variance that lies in which
    ``population_clusters`` sequences the window has, ``K``, cannot be assisted, and of k labelled sequences
    ``(1 - k/K) var(assisted) + k/K var(plain)`` remains. Without K the labelled sequences are taken to
    be as large as the others.

    Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453, PPI++); as a difference estimator, Saerndal et al. 1992,
    chapter 6.

    Where it misleads: where the expectation is good except for rare large misses that few labels have shown yet (92 to
    94 % instead of 95 %).

    >>> rng = np.random.default_rng(0)
    >>> area, quality = rng.lognormal(7, 0.5, 2000), rng.beta(8, 2, 2000)
    >>> guess = area * np.clip(quality + rng.normal(0, 0.05, 2000), 0, 1)
    >>> sample = RatioSample.uniform((area * quality)[:50], area[:50])
    >>> expectation = Expectation(guess[:50], area[:50], guess.sum(), area.sum())
    >>> with_help = assisted(sample, expectation, 2000)
    >>> from detectors.quality.spotcheck import spotcheck
    >>> with_help.width < spotcheck(sample, 2000).width / 2
    True

    Raises:
        ValueError: as `spotcheck`; lengths differ; an expectation is not finite.
    """
    check(sample, level, bounded)
    units = assisted_units(sample, expectation, population, process=process, population_clusters=population_clusters)
    return conclude(sample, units, "assisted", None if process else population, level, bounded=bounded)


def assisted_units(
    sample: RatioSample,
    expectation: Expectation,
    population: int,
    *,
    process: bool = False,
    population_clusters: int | None = None,
) -> Units:
    """What `assisted` takes its estimate from; the plain units where the expectation leaves nothing to divide by.

    Raises:
        ValueError: as `assisted`.
    """
    count = len(sample)
    for values in (expectation.numerator, expectation.denominator):
        if values.shape != (count,):
            raise ValueError(f"{count} labels, but expectations of shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("an expectation is not finite")
    if not np.isfinite([expectation.total_numerator, expectation.total_denominator]).all():
        raise ValueError("an expected total is not finite")
    scope = None if process else population
    plain = design(sample, sample.numerator, sample.denominator, scope)
    if not count or plain.totals[1] <= 0:
        return plain
    weights = representing(sample, population)
    numerator = expectation.numerator - expectation.total_numerator / population
    denominator = expectation.denominator - expectation.total_denominator / population
    if process:
        weights = sample.weights
    slopes = cross_fitted(sample, numerator, denominator, weights, by_sequence=process)
    helped = design(sample, sample.numerator - slopes * numerator, sample.denominator - slopes * denominator, scope)
    if helped.totals[1] <= 0:
        return plain
    before, after = plain.variance(plain.ratio), helped.variance(helped.ratio)
    helped = replace(helped, residual_scale=min(1.0, (after / before) ** 0.5) if before > 0 else 1.0)
    if process:
        helped = _with_process(helped, plain, count / population, population_clusters)
    return helped


def cross_fitted(
    sample: RatioSample, numerator: Floats, denominator: Floats, weights: Floats, *, by_sequence: bool
) -> Floats:
    """For each record (n,) the slope in 0..1 that the sequences of the other folds suggest.

    ``numerator``, ``denominator`` (n,) are expectations less their means over the population.
    """
    ratio = float(weights @ sample.numerator / (weights @ sample.denominator))
    seen = weights * (sample.numerator - ratio * sample.denominator)
    guessed = weights * (numerator - ratio * denominator)
    numbers, inverse = np.unique(sample.clusters, return_inverse=True)
    folds = np.minimum(FOLDS, len(numbers))
    if by_sequence:
        seen, guessed = sums_by(sample.clusters, seen, guessed)
        return _slopes(seen, guessed, np.arange(len(numbers)) % folds, int(folds))[inverse]
    if folds < 2:
        return _slopes(seen, guessed, np.arange(len(sample)) % FOLDS, FOLDS)
    return _slopes(seen, guessed, inverse % folds, int(folds))


def _slopes(seen: Floats, guessed: Floats, fold: NDArray[np.int64], folds: int) -> Floats:
    slopes = np.zeros(len(seen))
    for number in range(folds):
        outside = fold != number
        squares = float(guessed[outside] @ guessed[outside])
        if squares > 0:
            slope = float(seen[outside] @ guessed[outside]) / squares
            slopes[fold == number] = min(max(slope, 0.0), 1.0)
    return slopes


def _with_process(helped: Units, plain: Units, share: float, clusters: int | None) -> Units:
    """Both sets of units, each with its part of the variance; the ratio is that of the first."""
    count = helped.counted
    known = share if clusters is None else min(1.0, count / clusters)
    return replace(
        helped,
        numerator=np.concatenate([helped.numerator, plain.numerator]),
        denominator=np.concatenate([helped.denominator, plain.denominator]),
        size=np.concatenate([helped.size, plain.size]),
        unseen=np.repeat([1 - known, known], count),
        residual_scale=((1 - known) * helped.residual_scale**2 + known) ** 0.5,
    )
