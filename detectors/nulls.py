"""From statistics to p-values: how large G and A get without drift, for one dimension, for many, for both together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr, ndtri

from detectors.baseline import BaselineStatistic
from detectors.resampling import NullStatistics, WindowShape, draw

TAIL = 0.05
"""The part of the drawn windows that shapes the tail beyond them."""
SMALLEST = 5e-324
"""A p-value is never 0."""
PRIOR_WINDOWS = 10
"""How many windows the belief that the tail is the standard exponential is worth, against the drawn ones."""


@dataclass(frozen=True, eq=False)
class Standard:
    """Turns a statistic into a z-score by its mean and variance without drift.

    Wilson and Hilferty (1931): the cube root of a chi-square (or gamma) variable is nearly normal. Where a dimension
    hardly varies without drift (a class that is almost never there) the law of one degree of freedom is taken, so
    that a single rare record is no 100-sigma event.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    """Variance of the cube root, ``variance / (9 mean^2)``."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Standard:
        """From drawn values (R, D) or (R,)."""
        mean = np.maximum(values.mean(0), 1.0)
        variance = np.maximum(values.var(0), 2 * mean * np.minimum(mean, 1.0))
        return cls(mean, np.minimum(variance / (9 * mean**2), 1.0))

    def z(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = (np.cbrt(values / self.mean) - (1 - self.spread)) / np.sqrt(self.spread)
        return scores

    def value(self, z: float) -> NDArray[np.float64]:
        """The statistic whose z-score is ``z``."""
        root: NDArray[np.float64] = np.maximum(1 - self.spread + z * np.sqrt(self.spread), 0.0)
        return self.mean * root**3


@dataclass(frozen=True, eq=False)
class Tail:
    """The law of an evidence T in windows without drift: counted within the drawn windows, exponential beyond.

    T is minus the logarithm of a rough p-value, so its tail is about exp(-T) whatever the signal is; rate and place
    of the exponential come from the largest twentieth of the drawn windows. The rate is taken one standard error lower
    than they say: a tail too heavy costs little power, one too light gives false alarms, 1.4 times as many as asked
    for at one in 10,000.
    """

    drawn: NDArray[np.float64]
    """Ascending."""
    start: float
    rate: float

    @classmethod
    def of(cls, drawn: NDArray[np.float64], *, counted: bool = False) -> Tail:
        """From the drawn windows; ``counted``: without a tail, for exact tests."""
        ordered = np.sort(drawn)
        if counted:
            return cls(ordered, math.inf, 1.0)
        start = float(ordered[int(len(ordered) * (1 - TAIL))])
        beyond = ordered[ordered > start] - start
        weight = len(beyond) + PRIOR_WINDOWS
        rate = weight / (float(beyond.sum()) + PRIOR_WINDOWS) * (1 - 1 / math.sqrt(weight))
        return cls(ordered, start, rate)

    def p_value(self, evidence: float) -> float:
        """``(1 + k) / (1 + R)`` with k of R drawn windows at or above, or the exponential beyond them: never 0."""
        if evidence > self.start:
            return max(TAIL * math.exp(-self.rate * (evidence - self.start)), SMALLEST)
        reached = len(self.drawn) - int(np.searchsorted(self.drawn, evidence, side="left"))
        return (1 + reached) / (1 + len(self.drawn))

    def evidence(self, p_value: float) -> float:
        """The smallest evidence with at most this p-value."""
        if p_value < TAIL and math.isfinite(self.start):
            return self.start + math.log(TAIL / p_value) / self.rate
        allowed = math.floor(p_value * (1 + len(self.drawn))) - 1
        return math.inf if allowed < 0 else float(self.drawn[len(self.drawn) - 1 - min(allowed, len(self.drawn) - 1)])


@dataclass(frozen=True, eq=False)
class SignalLaw:
    """What a signal's statistics do in windows of one shape without drift.

    Evidence is the best of four tests, each seeing what the others miss:

    * the largest G over dimensions: any change of one dimension;
    * the sum of G over dimensions: small changes of many;
    * the largest A, and the sum of A: the same for shifts to one side.

    Each is brought to minus the logarithm of a p-value (the largest of D as if dimensions were independent), and the
    largest of the four is T. That T is the best of several, and that dimensions depend on each other, is paid for
    once, exactly: the drawn windows went through the same steps.
    """

    g: Standard
    a: Standard
    g_sum: Standard
    a_sum: Standard
    tail: Tail

    @classmethod
    def of(cls, drawn: NullStatistics, start: int, stop: int) -> SignalLaw:
        g, a = drawn.g[:, start:stop], drawn.a[:, start:stop]
        standards = Standard.of(g), Standard.of(a), Standard.of(g.sum(1)), Standard.of(a.sum(1))
        return cls(*standards, tail=Tail.of(_evidence(*standards, g, a)))

    @classmethod
    def exact(cls, exchanged: NullStatistics, start: int, stop: int, *, counted: bool = True) -> SignalLaw:
        """From exchanges of sequences, of which row 0 is the window: its p-value is its rank among them.

        Unless ``counted``, one beyond them all is that of the tail.
        """
        g, a = exchanged.g[:, start:stop], exchanged.a[:, start:stop]
        standards = Standard.of(g), Standard.of(a), Standard.of(g.sum(1)), Standard.of(a.sum(1))
        return cls(*standards, tail=Tail.of(_evidence(*standards, g, a)[1:], counted=counted))

    def p_value(self, g: NDArray[np.float64], a: NDArray[np.float64]) -> float:
        """p-value of a window's statistics (D,) over all of the signal's dimensions."""
        return self.tail.p_value(float(_evidence(self.g, self.a, self.g_sum, self.a_sum, g, a)))

    def dimension_p_values(self, g: NDArray[np.float64], a: NDArray[np.float64]) -> NDArray[np.float64]:
        """Approximate p-value of each dimension on its own, as if nobody had looked at the others."""
        best = np.maximum(self.g.z(g), self.a.z(a))
        p_values: NDArray[np.float64] = np.minimum(2 * np.exp(log_ndtr(-best)), 1.0)
        return p_values

    def critical_g(self, p_value: float) -> NDArray[np.float64]:
        """The G of each dimension that, alone, would bring the signal to this p-value."""
        alone = -math.expm1(math.log1p(-math.exp(-self.tail.evidence(p_value))) / len(self.g.mean))
        return self.g.value(-float(ndtri(max(alone, 1e-300))))


@lru_cache(maxsize=256)
def laws(baseline: BaselineStatistic, shape: WindowShape) -> tuple[SignalLaw, ...]:
    """The law of each signal that the baseline watches, for windows of this shape.

    Drawn once in some 0.1 s and kept: it depends on the baseline and on the window's shape, not on its content.
    """
    drawn = draw(baseline, shape)
    return tuple(SignalLaw.of(drawn, columns.start, columns.stop) for columns in baseline.watched)


def missing_p_value(window: int, window_units: int, baseline_units: int) -> float:
    """p-value of ``window`` of ``window_units`` records without a finite value, where the baseline had none at all.

    The baseline's share of such records is not known to be 0, only to be small: Beta(1/2, units + 1/2) after
    Jeffreys. The p-value is the beta-binomial probability of as many or more.

    >>> round(missing_p_value(1, 1000, 10_000), 3), round(missing_p_value(3, 1000, 10_000), 5)
    (0.047, 0.00024)
    """
    seen = np.arange(window, window_units + 1, dtype=np.float64)
    log_p = (
        gammaln(window_units + 1)
        - gammaln(seen + 1)
        - gammaln(window_units - seen + 1)
        + gammaln(seen + 0.5)
        + gammaln(window_units - seen + baseline_units + 0.5)
        - gammaln(window_units + baseline_units + 1)
        + gammaln(baseline_units + 1)
        - gammaln(0.5)
        - gammaln(baseline_units + 0.5)
    )
    return float(min(1.0, np.exp(log_p).sum()))


def lowest_p_value(window_units: int, baseline_units: int) -> float:
    """The lowest p-value of an exact permutation test over units: ``1 / C(n + m, n)``.

    >>> round(lowest_p_value(1, 49), 6)
    0.02
    """
    total = window_units + baseline_units
    if min(window_units, baseline_units) <= 64:
        return max(1 / math.comb(total, window_units), SMALLEST)
    log_ways = math.lgamma(total + 1) - math.lgamma(window_units + 1) - math.lgamma(baseline_units + 1)
    return max(math.exp(-log_ways), SMALLEST)


def _evidence(
    g_law: Standard,
    a_law: Standard,
    g_sum_law: Standard,
    a_sum_law: Standard,
    g: NDArray[np.float64],
    a: NDArray[np.float64],
) -> NDArray[np.float64]:
    """T of windows (R, D) to (R,), or of one (D,) to a number."""
    largest = np.maximum(g_law.z(g).max(-1), a_law.z(a).max(-1))
    total = np.maximum(g_sum_law.z(g.sum(-1)), a_sum_law.z(a.sum(-1)))
    one = log_ndtr(-largest)
    # 1 - (1 - p)^D without losing p near 0; beyond exp(-700) it is D p.
    tiny = one < -30
    many = np.where(
        tiny,
        one + math.log(g.shape[-1]),
        np.log(-np.expm1(g.shape[-1] * np.log1p(-np.exp(np.maximum(one, -30.0) - 1e-12)))),
    )
    evidence: NDArray[np.float64] = np.maximum(-many, -log_ndtr(-total))
    return evidence
