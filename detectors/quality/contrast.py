"""Has a class become worse than its baseline, or than its target? Once per window, or label by label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtri

from detectors.quality.intervals import bounds_by_level
from detectors.quality.ratio import LEAST_UNITS, Estimate, Floats, RatioSample, Status
from detectors.quality.spotcheck import alone, check, conclude, design

LEAST_P_VALUE = 1e-6
BISECTIONS = 24


@dataclass(frozen=True, slots=True)
class Contrast:
    """By how much a metric lies below its reference, with a two-sided interval; None where no number is honest."""

    drop: float | None
    """Reference less window: above 0 where it became worse."""
    lower: float | None
    upper: float | None
    p_value: float | None
    """One-sided, against "no lower than the reference less the tolerance"; never below `LEAST_P_VALUE`."""
    found: bool
    status: Status
    needed: int


def dropped(
    sample: RatioSample,
    reference: Estimate | float,
    population: int | None = None,
    *,
    alpha: float = 0.01,
    tolerance: float = 0.0,
    level: float = 0.95,
) -> Contrast:
    """Whether the metric of labelled records lies below a target, or below a baseline that is itself an estimate.

    A drop is found where the window's upper bound, at one-sided ``alpha``, is below the reference less the
    ``tolerance``. A reference with an interval of its own widens the difference by "variance estimates recovery"
    (Zou and Donner 2008): ``drop - sqrt((reference - its lower)^2 + (upper - point)^2) > tolerance``, so that both
    intervals keep their asymmetry. One look a window: who looks at every label uses `drop_evidence`.

    >>> rng = np.random.default_rng(0)
    >>> area = rng.lognormal(7, 0.3, 200)
    >>> sample = RatioSample.uniform(area * rng.beta(8, 2.6, 200), area)
    >>> contrast = dropped(sample, 0.8)
    >>> contrast.found, 0.02 < contrast.lower < contrast.drop < contrast.upper < 0.08
    (True, True)
    >>> dropped(sample, 0.75).found
    False

    Raises:
        ValueError: as `spotcheck`; alpha outside 0..1/2; a negative tolerance; a reference outside 0..1.
    """
    check(sample, level, bounded=True)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha lies between 0 and 1/2, got {alpha}")
    if tolerance < 0:
        raise ValueError(f"a tolerance cannot be negative, got {tolerance}")
    if not isinstance(reference, Estimate) and not 0 <= reference <= 1:
        raise ValueError(f"a target lies in 0..1, got {reference}")
    units = design(sample, sample.numerator, sample.denominator, population)
    estimate = conclude(sample, units, "spotcheck", population, level, bounded=True)
    known = reference.point if isinstance(reference, Estimate) else reference
    if estimate.point is None or known is None:
        status = estimate.status if estimate.point is None or not isinstance(reference, Estimate) else reference.status
        return Contrast(None, None, None, None, False, status, estimate.needed)
    point, drop = estimate.point, known - estimate.point
    # A single sequence with the class has no residual of its own that a variance could be taken from.
    several = np.count_nonzero(units.size) >= LEAST_UNITS or len(sample) == population
    bounds = bounds_by_level(units) if several else partial(alone, point)

    def margin(one_sided: float) -> tuple[float, float]:
        lower, upper = bounds(1 - 2 * one_sided)
        below, above = _uncertainty(reference, one_sided)
        return drop - math.hypot(below, upper - point), drop + math.hypot(above, point - lower)

    interval = margin((1 - level) / 2)
    found = margin(alpha)[0] > tolerance
    return Contrast(drop, *interval, _p_value(lambda a: margin(a)[0] > tolerance), found, "ok", 0)


def _uncertainty(reference: Estimate | float, one_sided: float) -> tuple[float, float]:
    """How far the reference may lie below and above its point, at another level than its own by normal quantiles."""
    if not isinstance(reference, Estimate):
        return 0.0, 0.0
    if reference.point is None or reference.lower is None or reference.upper is None:
        return 0.0, 0.0
    scale = float(ndtri(1 - one_sided) / ndtri((1 + reference.level) / 2))
    return scale * (reference.point - reference.lower), scale * (reference.upper - reference.point)


def _p_value(found_at: Callable[[float], bool]) -> float:
    """The least alpha at which a drop is found, by bisection on its logarithm; 1 where there is none below 1/2."""
    low, high = math.log(LEAST_P_VALUE), math.log(0.4999)
    if not found_at(math.exp(high)):
        return 1.0
    if found_at(LEAST_P_VALUE):
        return LEAST_P_VALUE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if found_at(math.exp(middle)) else (middle, high)
    return math.exp(high)


def drop_evidence(
    sample: RatioSample, reference: float, largest: float, *, smallest_drop: float = 0.05, spread: float = 0.18
) -> Floats:
    """Evidence (n,) after each label, in the order given, that the ratio lies below ``reference``.

    Wealth of a bettor who stakes on each record's ``x = w (reference U - I)`` being positive (Waudby-Smith and Ramdas
    2024, "Estimating means of bounded random variables by betting"): ``prod (1 + stake x)``. While the ratio is
    ``reference`` or more, x has a mean of 0 or less, and the chance that the wealth *ever* reaches ``1 / alpha`` is at
    most ``alpha``, whatever the distribution, so it may be looked at after every label. Needed for that: independent
    records, and ``largest``, a bound on ``w U`` (the pixels of an image times the largest weight), which keeps the
    wealth positive. The stake is the best one against a drop of ``smallest_drop`` with an influence of ``spread``, in
    units of the mean denominator so far, and is fixed before the record is seen.

    Large bounds make it slow: where ``largest`` is far above a usual record, gains are staked on little.

    >>> rng = np.random.default_rng(0)
    >>> quality = rng.beta(8, 2.7, 200)
    >>> evidence = drop_evidence(RatioSample.uniform(quality, np.ones(200)), 0.8, largest=1.0)
    >>> bool(evidence.max() >= 100)
    True

    Raises:
        ValueError: a record is larger than ``largest``, or the reference is not between 0 and 1.
    """
    if not 0 < reference < 1:
        raise ValueError(f"a reference lies between 0 and 1, got {reference}")
    sizes = sample.weights * sample.denominator
    if len(sizes) and sizes.max() > largest:
        raise ValueError(f"a record of {sizes.max():g}, but the largest was said to be {largest:g}")
    gains = reference * sizes - sample.weights * sample.numerator
    # Before the first record its size is not known: the bound stands in, and the first stake is a careful one.
    before = np.concatenate([[largest], np.cumsum(sizes)[:-1] / np.arange(1, len(sizes))]) if len(sizes) else sizes
    wanted = smallest_drop / (spread**2 + smallest_drop**2) / np.maximum(before, 1e-12 * largest)
    stakes = np.minimum(wanted, 0.9 / ((1 - reference) * largest))
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(np.cumsum(np.log1p(stakes * gains))))
