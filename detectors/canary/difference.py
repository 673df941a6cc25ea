"""By how much a metric differs between two versions, with the interval of the process that makes the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from detectors.quality.ratio import LEAST_UNITS, Floats, RatioSample, sums_by
from detectors.quality.spotcheck import spotcheck

UNSEEN_WEIGHT = 0.15
"""Of a record that has not been seen and on which one version is wholly right and the other wholly wrong: without it,
versions that never differed in a small sample would be said never to differ."""
LEAST_DEGREES = 0.5

Method = Literal["paired", "unpaired"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two versions. ``difference`` = canary - stable, None with its bounds where too little is known."""

    stable: float | None
    canary: float | None
    difference: float | None
    lower: float | None
    upper: float | None
    labels: int
    """Records with the class: pairs, or of both versions together."""
    sequences: int
    method: Method
    status: Literal["ok", "too few labels", "absent"]


def paired(stable: RatioSample, canary: RatioSample, level: float = 0.95, *, bounded: bool = True) -> Difference:
    """Of the same n records by both versions.

    A record's influence on the difference of two ratios is ``w (I_c - r_c U_c) / sum(w U_c)`` less the same of the
    stable version; its sums over sequences give the variance (linearisation; Saerndal, Swensson and Wretman 1992,
    chapter 5), so that what is hard for both versions cancels. Sums are divided by ``sqrt(1 - leverage)``, by
    ``1 - leverage`` where each sequence is one record, as in `detectors.quality.intervals`; quantiles are Student's
    with the degrees of freedom that sizes and residuals leave, and the side on which few records differ much is
    stretched by the skewness of what was seen.

    It misleads where hardly any record differs and those that do are large: coverage is in ``docs/canary.md``.

    >>> rng = np.random.default_rng(0)
    >>> area, quality = np.full(100, 1000.0), rng.beta(8, 2, 100)
    >>> stable = RatioSample.uniform(area * quality, area)
    >>> canary = RatioSample.uniform(area * quality * 0.95, area)
    >>> found = paired(stable, canary)
    >>> round(found.difference, 3), found.upper - found.lower < 0.02
    (-0.04, True)

    Raises:
        ValueError: other records, weights or sequences on one side than on the other.
    """
    if len(stable) != len(canary) or not np.array_equal(stable.clusters, canary.clusters):
        raise ValueError(f"{len(stable)} records of the stable version and {len(canary)} others of the canary")
    if not np.array_equal(stable.weights, canary.weights):
        raise ValueError("pairs have one weight each")
    seen = (stable.denominator > 0) | (canary.denominator > 0)
    first, second = stable.ratio(), canary.ratio()
    sequences = len(np.unique(stable.clusters[seen]))
    labels = int(seen.sum())
    if not labels:
        return Difference(None, None, None, None, None, 0, 0, "paired", "absent")
    if first is None or second is None or sequences < LEAST_UNITS:
        return Difference(None, None, None, None, None, labels, sequences, "paired", "too few labels")
    below, above = _steps([stable], [canary], level)
    found = second - first
    low, high = found - below, found + above
    if bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    return Difference(first, second, found, low, high, labels, sequences, "paired", "ok")


def paired_mean(stable: Sequence[RatioSample], canary: Sequence[RatioSample], level: float = 0.95) -> Difference:
    """Of the mean over classes; None where one of the classes has no value of its own."""
    each = [paired(*pair, level) for pair in zip(stable, canary, strict=True)]
    known = [index for index, one in enumerate(each) if one.status != "absent"]
    if not known:
        return Difference(None, None, None, None, None, 0, 0, "paired", "absent")
    seen = np.logical_or.reduce([stable[i].denominator + canary[i].denominator > 0 for i in known])
    labels, sequences = int(seen.sum()), len(np.unique(stable[0].clusters[seen]))
    if any(each[index].difference is None for index in known):
        return Difference(None, None, None, None, None, labels, sequences, "paired", "too few labels")
    first = float(np.mean([each[index].stable for index in known]))
    second = float(np.mean([each[index].canary for index in known]))
    below, above = _steps([stable[i] for i in known], [canary[i] for i in known], level)
    low, high = max(second - first - below, -1.0), min(second - first + above, 1.0)
    return Difference(first, second, second - first, low, high, labels, sequences, "paired", "ok")


def unpaired(stable: RatioSample, canary: RatioSample, level: float = 0.95, *, bounded: bool = True) -> Difference:
    """Of records that each version alone has seen, as when traffic is split between them.

    Both ratios have intervals of their own (`spotcheck`, of the process); those of the difference follow by "variance
    estimates recovery" (Zou and Donner 2008), ``lower = d - sqrt((c - c_lower)^2 + (s_upper - s)^2)``, which keeps
    their asymmetry. Records of one sequence that were dealt to both versions make it too wide, never too narrow.

    >>> stable = RatioSample.uniform([80, 90, 70, 95] * 5, [100] * 20)
    >>> canary = RatioSample.uniform([40, 50, 45] * 6, [100] * 18)
    >>> found = unpaired(stable, canary)
    >>> round(found.difference, 4), found.upper < -0.3
    (-0.3875, True)
    """
    first, second = (spotcheck(one, None, level, bounded=bounded) for one in (stable, canary))
    labels = int(np.count_nonzero(stable.denominator)) + int(np.count_nonzero(canary.denominator))
    sequences = len({*stable.clusters[stable.denominator > 0], *canary.clusters[canary.denominator > 0]})
    if not labels:
        return Difference(None, None, None, None, None, 0, 0, "unpaired", "absent")
    if first.point is None or first.lower is None or first.upper is None:
        return Difference(None, second.point, None, None, None, labels, sequences, "unpaired", "too few labels")
    if second.point is None or second.lower is None or second.upper is None:
        return Difference(first.point, None, None, None, None, labels, sequences, "unpaired", "too few labels")
    found = second.point - first.point
    low = found - math.hypot(second.point - second.lower, first.upper - first.point)
    high = found + math.hypot(second.upper - second.point, first.point - first.lower)
    return Difference(first.point, second.point, found, low, high, labels, sequences, "unpaired", "ok")


def _steps(stable: Sequence[RatioSample], canary: Sequence[RatioSample], level: float) -> tuple[float, float]:
    """How far the interval reaches below and above the mean over classes of the differences."""
    influence, leverage, unseen = np.zeros(len(stable[0])), np.zeros(len(stable[0])), 0.0
    for samples, sign in ((canary, 1.0), (stable, -1.0)):
        for one in samples:
            total = float(one.weights @ one.denominator)
            ratio = float(one.weights @ one.numerator) / total
            influence += sign * one.weights * (one.numerator - ratio * one.denominator) / (total * len(samples))
            leverage += one.weights * one.denominator / total / len(samples) / 2
            unseen += _largest_share(one) / len(samples) / 2
    sums, pulls = sums_by(stable[0].clusters, influence, leverage)
    sums, pulls = sums[pulls > 0], pulls[pulls > 0]
    alone = len(sums) == int(np.count_nonzero(leverage))
    residuals = sums / (1 - np.minimum(pulls, 1 - 1e-3)) ** (1.0 if alone else 0.5)
    variance = float(residuals @ residuals)
    quantile = float(stdtrit(_degrees(pulls, residuals), (1 + level) / 2))
    half = quantile * math.sqrt(variance + UNSEEN_WEIGHT * unseen**2)
    # The side on which few units differ much is longer (Hall 1992); the other one is left as it is, to be safe.
    skewness = float((sums**3).sum()) / float(sums @ sums) ** 1.5 if variance > 0 else 0.0
    longer = math.sqrt(variance) * abs(skewness) * (1 + 2 * quantile**2) / 6
    return half + (longer if skewness < 0 else 0.0), half + (longer if skewness > 0 else 0.0)


def _largest_share(sample: RatioSample) -> float:
    """Share of the total that a large record has: of all pixels, the mean share of the record that they are in."""
    size = sample.weights * sample.denominator
    return float(size @ size) / float(size.sum()) ** 2


def _degrees(pulls: Floats, residuals: Floats) -> float:
    """As many as equal sizes would give, or as the unevenness of squared residuals leaves (Satterthwaite)."""
    by_size = float(pulls.sum() ** 2 / (pulls @ pulls)) - 1
    parts = residuals**2
    spread = float(parts @ parts)
    by_residuals = 2 * float(parts.sum()) ** 2 / spread if spread > 0 else math.inf
    return max(LEAST_DEGREES, min(by_size, max(by_residuals, 1.0)))
