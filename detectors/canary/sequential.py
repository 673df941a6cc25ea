"""Has the canary become worse than the stable version? Evidence that may be looked at after every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality.ratio import Floats

LOSSES = ((0.02, 0.1), (0.05, 0.75), (0.15, 0.15))
"""Losses that the bets are best against, and how much is staked on each: mostly on 5 points of IoU."""
PRIOR_IMAGES, PRIOR_UNITS = 120.0, 10.0
"""So much is taken as seen before the first unit: images of the spread below, or units of it. The larger second moment
of the two guesses counts. Fewer images let a canary be rolled back whose rare images that it saves are not among the
first; fewer units do nothing against that; more units are slow to notice that the spread is larger."""
PRIOR_SPREAD = 0.2
"""Standard deviation of an image's difference in IoU."""
PRIOR_ALIKE = 0.2
"""Correlation within a sequence, by which the spread of a sequence's mean is guessed."""
LARGEST = 0.1
"""Of the size of the unit that a pixel is in, on average: what is larger counts as this. At 1 a loss takes many more
images to find where areas differ widely; lower, large and small objects count ever more alike."""
LEVELS = np.linspace(-0.3, 0.3, 121)
"""Differences that a confidence sequence is looked for among: half a point of IoU apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """K units in the order of time: sequences, or records without one.

    ``difference`` is IoU (or another ratio in 0..1) of the canary less the stable version's, pooled within the unit;
    ``size`` says how much the unit counts, the same whichever of the two versions is called the canary.

    Raises:
        ValueError: lengths differ, a difference outside -1..1, a size that is not positive, or fewer than one image.
    """

    difference: Floats
    """(K,)"""
    size: Floats
    """(K,)"""
    images: NDArray[np.int64]
    """(K,) records in the unit."""

    def __post_init__(self) -> None:
        if not self.difference.shape == self.size.shape == self.images.shape == (len(self.difference),):
            raise ValueError(
                f"differences, sizes and images have shapes {self.difference.shape}, {self.size.shape} and"
                f" {self.images.shape}"
            )
        if not (np.abs(self.difference) <= 1 + 1e-9).all():
            raise ValueError("a difference of two ratios lies in -1..1")
        if not (np.isfinite(self.size) & (self.size > 0)).all():
            raise ValueError("a unit without size counts for nothing: leave it out")
        if (self.images < 1).any():
            raise ValueError("a unit has at least one image")

    @classmethod
    def of_records(cls, difference: Floats) -> Differences:
        """Records of equal size, each a sequence of its own."""
        count = len(difference)
        return cls(np.asarray(difference, np.float64), np.ones(count), np.ones(count, np.int64))

    def __len__(self) -> int:
        return len(self.difference)

    @property
    def capped(self) -> Floats:
        """(K,) 0..1: sizes, but at most a tenth of how large the unit was that a pixel before was in, on average.

        Capped, since in many data sets the few largest images outweigh all others, and one of them alone could decide.
        What a unit's own size is compared with was known before it; that of the first is its own.
        """
        if not len(self):
            return self.size
        return np.asarray(np.minimum(1.0, self.size * _mean_before(self.size) / _mean_before(self.size**2) / LARGEST))

    @property
    def shares(self) -> Floats:
        """(K,) how much each unit counts: `capped`, over the mean of those before it."""
        return np.asarray(self.capped / _mean_before(self.capped)) if len(self) else self.size


def _mean_before(values: Floats) -> Floats:
    """(K,) mean of the values before each; before the first one there is only itself."""
    return np.concatenate([values[:1], np.cumsum(values)[:-1] / np.arange(1, len(values))])


def log_evidence(
    units: Differences,
    tolerance: Floats | float = 0.0,
    *,
    better: bool = False,
    targets: Sequence[tuple[float, float]] = LOSSES,
) -> Floats:
    """Logarithm (..., K) of the evidence after each unit that the canary is worse by more than ``tolerance`` (...).

    With x_k = share_k (- difference_k - tolerance), the wealth of bettors on x being positive

        ``W = sum_j stake_j prod_k exp(phi(l_jk x_k)) / (1 + l_jk^2 v_k / 2)``,  ``l_jk = target_j / v_k``

    where phi(y) = log(1 + y + y^2/2) for y >= 0 and -phi(-y) below (Catoni 2012), which no single unit can drive far,
    and v_k is the second moment of x as the units before k and a careful first guess have it. As exp(phi(y)) <=
    1 + y + y^2/2, W is a supermartingale while the mean of x is 0 or less and its second moment at most v; so the
    chance that it *ever* reaches 1 / alpha is at most alpha (Ville 1939; Wang and Ramdas 2023, "Catoni-style
    confidence sequences for heavy-tailed mean estimation"). It may be looked at at any time, and nothing need be known
    of the distribution's shape. The mean is that of units weighed by `Differences.shares`.

    It misleads where the second moment has not been seen yet, because one unit in a hundred makes all of it. The first
    guess is there for that, and ``docs/canary.md`` says what is left. Units must be independent of each other; one that
    still grows counts as far as it is known.

    ``better``: the evidence that the difference is *above* -tolerance instead, for showing that nothing was lost.

    >>> rng = np.random.default_rng(0)
    >>> worse = Differences.of_records(np.clip(rng.normal(-0.05, 0.2, 300), -1, 1))
    >>> bool(log_evidence(worse).max() > np.log(200)), bool(log_evidence(worse, better=True).max() > 0)
    (True, False)
    """
    levels = np.asarray(tolerance, np.float64)[..., None]
    x = units.shares * (-units.difference - levels) * (-1 if better else 1)
    moment = _moments(x, units)
    wealth = []
    for target, share in targets:
        stake = target / moment
        wealth.append(np.cumsum(_influence(stake * x) - np.log1p(stake * target / 2), axis=-1) + np.log(share))
    return np.asarray(np.logaddexp.reduce(wealth, axis=0))


def targets_for(margin: float) -> tuple[tuple[float, float], ...]:
    """Bets on a canary that loses nothing, or is better, against one that loses ``margin``."""
    return (margin, 0.7), (2.5 * margin, 0.3)


def confidence_sequence(units: Differences, alpha: float) -> tuple[float | None, float | None]:
    """Bounds of the difference, each of which is wrong at any moment ever with a chance of at most ``alpha``.

    Levels of `LEVELS` that were refuted on the way stay refuted. None where none of them is: too little is known.

    >>> rng = np.random.default_rng(0)
    >>> confidence_sequence(Differences.of_records(rng.normal(-0.05, 0.1, 500)), alpha=0.025)
    (-0.075, -0.03)
    """
    if not len(units):
        return None, None
    limit = -np.log(alpha)
    above = log_evidence(units, -LEVELS, better=True).max(axis=-1) >= limit
    below = log_evidence(units, -LEVELS).max(axis=-1) >= limit
    # From the ends inwards: what lies beyond a level that is refuted is refuted, too.
    lower = float(LEVELS[above][-1]) if above.any() else None
    upper = float(LEVELS[below][0]) if below.any() else None
    return (None if lower is None else round(lower, 6)), (None if upper is None else round(upper, 6))


def _influence(y: Floats) -> Floats:
    size = np.abs(y)
    return np.asarray(np.sign(y) * np.log1p(size + size**2 / 2))


def _moments(x: Floats, units: Differences) -> Floats:
    """Second moment (..., K) of each unit as it is guessed before the unit's own value is known."""
    count = np.arange(len(units))
    # How many images a unit has, and how large they are, says nothing of which version is better.
    usual = np.cumsum(units.images) / (count + 1)
    uneven = np.cumsum(units.shares**2) / (count + 1)
    guess = PRIOR_SPREAD**2 * (PRIOR_ALIKE + (1 - PRIOR_ALIKE) / usual) * np.maximum(uneven, 1.0)
    before = np.concatenate([np.zeros((*x.shape[:-1], 1)), np.cumsum(x**2, axis=-1)[..., :-1]], axis=-1)
    slow, quick = ((weight * guess + before) / (weight + count) for weight in (PRIOR_IMAGES / usual, PRIOR_UNITS))
    return np.asarray(np.maximum(slow, quick))
