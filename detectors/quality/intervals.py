"""Confidence bounds of a ratio of sums from few units, chosen by measured coverage (``bench/quality``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from scipy.special import gammaincinv, ndtri, stdtrit

from detectors.quality.ratio import Floats

PSEUDO_WEIGHT, PSEUDO_WEIGHT_MIDWAY = 0.03, 0.05
"""Of a record that has not been seen and is wholly wrong (or right): the first, and as much more of the second as the
ratio is near 1/2. None covers 80 % where large objects are missed now and then; 1 is the exact binomial bound, and far
too wide for classes whose records resemble each other. Chosen on the benchmark's tuning families, from 0 to 0.4."""
WEIGHT_TIMES_UNITS, WITHOUT_MISS = 8.0, 1 / 12
"""The lower bound's record weighs as much less as there are more than 8 effective units, and 12 times less where no
labelled record is mostly wrong: what large samples do not show is rare, and good classes rarely have it at all."""
FADING_UNITS = 20.0
"""Effective units up to which bounds are stretched in full; beyond it in proportion to 1 / sqrt(units), as skewness."""
STRETCH_BELOW, STRETCH_ABOVE, STRETCH_BY_RATIO, STRETCH_BY_TILT = 0.35, 0.0, 0.2, 0.65
"""Logarithms by which the distance of a bound from the centre is stretched: the lower one's, the upper one's, what the
ratio takes from both, and what a correlation of 1 between residuals and sizes adds to the upper one. Those of the
pseudo-record and these were chosen together on the tuning families, after the others."""
LARGEST_SHRINK, LARGEST_STRETCH = -0.25, 0.5
WHOLE = 1.0
"""No bound need go beyond that with this weight: where nothing spreads, a small one alone would exclude nothing."""
LEAST_DEGREES = 0.5
LEAST_DEGREES_OF_COUNTS = 3.0
"""A single event would leave hardly a degree of freedom to bounds that know of Poisson's law already."""

ALIKE = 1e-6
"""Deviation, in parts of what one more record would add, below which records differ by rounding alone."""

Scale = Literal["share", "count", "signed"]
"""Of a ratio: in 0..1, as no numerator is above its denominator; 0 or more; of either sign."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What a variance is taken over: labelled records, or whole sequences.

    The ratio is ``sum(numerator) / sum(denominator)`` over the first ``counted`` units; each unit's residual is
    ``numerator - ratio * denominator``, and ``unseen * residual^2`` its part of the variance.
    """

    numerator: Floats
    """(k,) weighted."""
    denominator: Floats
    """(k,) weighted; an assisted one may be negative."""
    size: Floats
    """(k,) weighted denominators as labelled, by which a unit pulls the ratio towards itself."""
    unseen: Floats
    """(k,) 0..1: 1 less the probability of being chosen; 1 throughout where the process is estimated."""
    record_size: float
    """Weighted denominator of a record that has not been seen, by `unseen_size`."""
    leverage_power: float
    """Residuals are divided by ``(1 - leverage)`` to this power: 1 (jackknife) for records, 0.5 for sequences."""
    counted: int
    residual_scale: float = 1.0
    """Spread of these residuals over those without assistance; an unseen record's is taken to shrink alike."""
    missed: bool = True
    """Whether a labelled record with the class is mostly wrong."""

    @property
    def totals(self) -> tuple[float, float]:
        """Numerator and denominator of the ratio."""
        return float(self.numerator[: self.counted].sum()), float(self.denominator[: self.counted].sum())

    @property
    def ratio(self) -> float:
        """The point estimate; not a number where nothing has the class."""
        numerator, denominator = self.totals
        return numerator / denominator if denominator > 0 else math.nan

    @property
    def effective(self) -> float:
        """Units of equal size that would pull the ratio as much: ``(sum size)^2 / sum size^2``."""
        sizes = self.size[: self.counted]
        return float(sizes.sum() ** 2 / (sizes @ sizes))

    @property
    def tilt(self) -> float:
        """Correlation of residuals and sizes: above 0 where large units are better than small ones."""
        residuals = self.numerator - self.ratio * self.denominator
        spread = float(self.unseen @ residuals**2) * float(self.unseen @ self.size**2)
        return float(self.unseen @ (residuals * self.size)) / math.sqrt(spread) if spread > 0 else 0.0

    def variance(self, ratio: float) -> float:
        """Of the ratio, linearised, without any correction for small samples."""
        residuals = self.numerator - ratio * self.denominator
        return float(self.unseen @ residuals**2) / self.totals[1] ** 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells the bounds of an interval from each other; as it stands, nothing."""

    weight_below: float = 1.0
    """Factor of the lower bound's pseudo-record."""
    below: float = 1.0
    """Factor of the lower bound's distance from its centre, on the logit scale."""
    above: float = 1.0

    @classmethod
    def of(cls, units: Units, growth: float) -> Shape:
        """From the ratio, how many units there are, and what they show."""
        ratio, effective = min(max(units.ratio, 0.0), 1.0), units.effective * growth
        fading = min(1.0, math.sqrt(FADING_UNITS / effective))
        above = fading * (STRETCH_ABOVE - STRETCH_BY_RATIO * ratio + STRETCH_BY_TILT * max(units.tilt, 0.0))
        return cls(
            WEIGHT_TIMES_UNITS / effective * (1.0 if units.missed else WITHOUT_MISS),
            math.exp(fading * (STRETCH_BELOW - STRETCH_BY_RATIO * ratio)),
            math.exp(min(max(above, LARGEST_SHRINK), LARGEST_STRETCH)),
        )


def bounds(units: Units, level: float, *, scale: Scale = "share", growth: float = 1.0) -> tuple[float, float]:
    """Lower and upper bound of the ratio.

    The plain linearised interval is too narrow for three reasons, and each has its remedy here:

    - A unit pulls the ratio towards itself: residuals are divided by ``1 - leverage`` (MacKinnon and White 1985, HC3;
      its square root for sequences, HC2), and quantiles are Student's. Degrees of freedom: ``m - 1`` with
      ``m = (sum size)^2 / sum size^2``, as many units of equal size would pull as much; less where the squared
      residuals themselves are uneven, ``2 (sum e^2)^2 / sum e^4`` (Satterthwaite 1946, without assuming normality).
    - A ratio near 0 or 1 is skewed: bounds are taken on the logit scale.
    - What is rare is not in a small sample: each bound counts, with a small weight, one more record of the
      size of those that matter, wholly wrong for the lower bound and wholly right for the upper one (as the exact
      binomial bounds of Clopper and Pearson 1934 count a whole one). On the logit scale this makes the bound move
      most where the ratio is near 1 and nothing else spreads.

    The two sides are not alike: a sample without the rare large miss looks too good and too certain at once, and one
    without its largest records, where these are the better ones, too bad. The lower bound is stretched, and more where
    the ratio is low; the upper one is drawn in where the ratio is high, since little is lost there and the lower one
    gives more than its share, and stretched where large units are better than small ones. All of it fades with the
    number of units. So the chance of an error is 5 % together, more of it above than below.

    Counts that may exceed their denominator (``scale="count"``) have the bounds of weighted Poisson sums, see
    `_counted`; differences with a sign (``"signed"``) those of a plain mean, see `_signed`.

    It misleads where sizes are so uneven that even the sample's largest is far from the population's largest (Pareto
    areas: 88 to 91 % of a window's intervals hold the truth instead of 95 % in the worst cases), and where sequences
    are few and alike (92 %). It is too wide, 97 to 99 %, where uncertainty chose the labels of classes that are missed
    whole now and then, and where fewer than 20 labels have the class.

    ``growth`` gives the bounds to be expected with so many times the labels, for planning.
    """
    if scale == "share" and units.unseen.any():
        return _logit_bounds(units, growth, Shape.of(units, growth))(level)
    return bounds_by_level(units, scale=scale, growth=growth)(level)


def bounds_by_level(
    units: Units, *, scale: Scale = "share", growth: float = 1.0
) -> Callable[[float], tuple[float, float]]:
    """Bounds as a function of the level, each of which errs alike, for who wants one of them or many levels."""
    if not units.unseen.any():
        return lambda level: (units.ratio, units.ratio)
    if scale == "share":
        return _logit_bounds(units, growth, Shape())
    return partial(_signed if scale == "signed" else _counted, units, growth)


def unseen_size(weights: Floats, denominator: Floats) -> float:
    """Weighted denominator of the record that a sample is most likely to lack: large, and with a small chance.

    Its denominator is the mean over pixels rather than records, ``sum(w U^2) / sum(w U)``; its weight
    ``sum(w^3) / sum(w^2)``, which is ``w`` where all are equal and near the largest where they are not.
    """
    total = float(weights @ denominator)
    if total <= 0:
        return 0.0
    squares = weights**2
    return float(weights @ denominator**2) / total * float(squares @ weights) / float(squares.sum())


def degrees(units: Units, residuals: Floats) -> float:
    """Degrees of freedom of the variance that squared residuals (k,) estimate."""
    by_size = units.effective - 1
    parts = units.unseen * residuals**2
    spread = float(parts @ parts)
    by_residuals = 2 * float(parts.sum()) ** 2 / spread if spread > 0 else math.inf
    return max(LEAST_DEGREES, min(by_size, max(by_residuals, 1.0)))


def _spread(units: Units, ratio: float, total: float, growth: float) -> tuple[Floats, float]:
    """Residuals (k,) corrected for leverage, and the variance of the numerator."""
    leverage = np.minimum(units.size / (total * growth), 1 - 1e-3)
    residuals = (units.numerator - ratio * units.denominator) / (1 - leverage) ** units.leverage_power
    return residuals, float(units.unseen @ residuals**2) / growth


def _logit_bounds(units: Units, growth: float, shape: Shape) -> Callable[[float], tuple[float, float]]:
    point = min(max(units.ratio, 0.0), 1.0)
    weight = PSEUDO_WEIGHT + PSEUDO_WEIGHT_MIDWAY * 4 * point * (1 - point)
    below = (
        _reach(units, growth, min(weight * shape.weight_below, WHOLE), shape.below, upper=False),
        _reach(units, growth, WHOLE, upper=False),
    )
    above = _reach(units, growth, weight, shape.above, upper=True), _reach(units, growth, WHOLE, upper=True)

    def at(level: float) -> tuple[float, float]:
        lower = max(_expit(centre - _quantile(freedom, level) * deviation) for centre, deviation, freedom in below)
        upper = min(_expit(centre + _quantile(freedom, level) * deviation) for centre, deviation, freedom in above)
        return min(lower, point), max(upper, point)

    return at


def _reach(
    units: Units, growth: float, weight: float, stretch: float = 1.0, *, upper: bool
) -> tuple[float, float, float]:
    """Logit of the ratio with a pseudo-record of such a weight, its deviation stretched, and degrees of freedom."""
    numerator, denominator = units.totals
    size = units.record_size / growth
    weight *= float(units.unseen @ units.size / units.size[: units.counted].sum())
    total = denominator + weight * size
    ratio = min(max((numerator + (weight * size if upper else 0.0)) / total, 1e-12), 1 - 1e-12)
    residuals, variance = _spread(units, ratio, total, growth)
    pseudo = ((1 - ratio) if upper else ratio) * size * units.residual_scale
    deviation = stretch * math.sqrt(variance + weight * pseudo**2) / (total * ratio * (1 - ratio))
    return math.log(ratio / (1 - ratio)), deviation, degrees(units, residuals) * growth


def _quantile(freedom: float, level: float) -> float:
    return float(stdtrit(freedom, (1 + level) / 2))


def _counted(units: Units, growth: float, level: float) -> tuple[float, float]:
    """Of a count over a denominator: gamma bounds for a weighted sum of Poisson counts (Fay and Feuer 1997).

    With ``r`` the ratio, ``v`` its variance and ``m`` what one more unseen record, wholly wrong, would add to it:
    ``gamma(r^2 / v, v / r)`` below and ``gamma((r + m)^2 / (v + m^2), (v + m^2) / (r + m))`` above. Of one event they
    are the exact bounds of a Poisson count of 1, and of none that of a count of 0, where bounds on the log scale with
    half a degree of freedom span fifty powers of ten. ``v`` is widened by Student's quantile over the normal one.
    Where all of k records have the same rate, ``v`` says nothing: a share of ``-ln(tail) / k`` of the others may have
    none, and the lower bound leaves room for them.
    """
    ratio, more, variance = _moments(units, growth, level)
    tail = (1 - level) / 2
    if variance > (ALIKE * more) ** 2:
        lower = variance / ratio * float(gammaincinv(ratio**2 / variance, tail)) if ratio > 0 else ratio
    else:
        lower = ratio * max(0.0, 1 + math.log(tail) * more)
    spread, total = variance + more**2, ratio + more
    return min(lower, ratio), max(spread / total * float(gammaincinv(total**2 / spread, 1 - tail)), ratio)


def _signed(units: Units, growth: float, level: float) -> tuple[float, float]:
    """Of a mean difference, which may lie on either side of 0 whatever the labels have shown: Student's, with a small
    part of one more unseen record, wholly wrong in either direction; where all records are alike, as many of them as in
    `_counted`."""
    ratio, more, variance = _moments(units, growth, level)
    if variance > (ALIKE * more) ** 2:
        step = float(ndtri((1 + level) / 2)) * math.sqrt(variance + PSEUDO_WEIGHT * more**2)
    else:
        step = -math.log((1 - level) / 2) * more
    return ratio - step, ratio + step


def _moments(units: Units, growth: float, level: float) -> tuple[float, float, float]:
    """Ratio, what an unseen record would add, and the variance in normal quantiles."""
    denominator = units.totals[1]
    residuals, variance = _spread(units, units.ratio, denominator, growth)
    freedom = max(degrees(units, residuals) * growth, LEAST_DEGREES_OF_COUNTS)
    widened = (_quantile(freedom, level) / float(ndtri((1 + level) / 2))) ** 2
    more = units.record_size * float(units.unseen.mean()) / (denominator * growth)
    return units.ratio, more, variance * widened / denominator**2


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
