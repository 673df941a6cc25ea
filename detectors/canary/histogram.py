"""Latency of two versions from histograms: quantiles and means, as exact as buckets allow and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """``counts`` (B + 1,) of values up to each of ``bounds`` (B,), ascending, and above the last; their ``total``."""

    counts: NDArray[np.int64]
    bounds: tuple[float, ...]
    total: float

    @property
    def size(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of both versions; ``difference`` = canary - stable. None: not known."""

    stable: float | None
    canary: float | None
    difference: float | None
    lower: float | None
    upper: float | None


def compare_means(stable: Histogram, canary: Histogram, level: float = 0.95) -> Compared:
    """Means are exact; their spread is taken as large as the buckets allow, so that the interval is rather too wide.

    Without an interval where values lie above the last bound, for they may be as large as they like, and for fewer
    than two values. Records count as independent, as histograms know no sequences.

    >>> one = Histogram(np.array([0, 90, 10, 0]), (0.05, 0.1, 0.25), 8.5)
    >>> two = Histogram(np.array([0, 10, 90, 0]), (0.05, 0.1, 0.25), 18.0)
    >>> found = compare_means(one, two)
    >>> round(found.difference, 3), 0 < found.lower < 0.095 < found.upper
    (0.095, True)
    """
    means = [one.total / one.size if one.size else None for one in (stable, canary)]
    if means[0] is None or means[1] is None:
        return Compared(means[0], means[1], None, None, None)
    found = means[1] - means[0]
    variances = [_variance(one) for one in (stable, canary)]
    if variances[0] is None or variances[1] is None:
        return Compared(means[0], means[1], found, None, None)
    step = float(ndtri((1 + level) / 2)) * math.sqrt(variances[0] + variances[1])
    return Compared(means[0], means[1], found, found - step, found + step)


def _variance(one: Histogram) -> float | None:
    """Of the mean: no value is above its bucket's upper bound."""
    if one.size < 2 or one.counts[-1]:
        return None
    mean = one.total / one.size
    squares = float(one.counts[:-1] @ np.asarray(one.bounds) ** 2) / one.size
    return max(squares - mean**2, 0.0) / (one.size - 1)


def compare_quantile(stable: Histogram, canary: Histogram, share: float, level: float = 0.95) -> Compared:
    """A quantile by interpolation within its bucket, with bounds that hold wherever in the buckets the values lie.

    The ranks between which the quantile lies are binomial; the buckets of those ranks bound it (Conover 1999). Each
    version's at a level that makes the two together right with at least ``level``.

    >>> one = Histogram(np.array([0, 90, 10, 0]), (0.05, 0.1, 0.25), 8.5)
    >>> two = Histogram(np.array([0, 10, 90, 0]), (0.05, 0.1, 0.25), 18.0)
    >>> found = compare_quantile(one, two, 0.5)
    >>> [round(value, 3) for value in (found.stable, found.canary, found.lower, found.upper)]
    [0.078, 0.167, 0.0, 0.2]
    """
    points = [_quantile(one, share) for one in (stable, canary)]
    if points[0] is None or points[1] is None:
        return Compared(points[0], points[1], None, None, None)
    each = 1 - (1 - level) / 2
    (low, high), (canary_low, canary_high) = (_bounds(one, share, each) for one in (stable, canary))
    lower = None if high is None else canary_low - high
    upper = None if canary_high is None else canary_high - low
    return Compared(points[0], points[1], points[1] - points[0], lower, upper)


def _quantile(one: Histogram, share: float) -> float | None:
    """None where there is no value, and where the quantile lies above the last bound."""
    if not one.size:
        return None
    wanted, below = share * one.size, 0
    for count, low, high in zip(one.counts, (0.0, *one.bounds), one.bounds, strict=False):
        if count and below + count >= wanted:
            return float(low + (high - low) * (wanted - below) / count)
        below += int(count)
    return None


def _bounds(one: Histogram, share: float, level: float) -> tuple[float, float | None]:
    tail = (1 - level) / 2
    ranks = np.arange(one.size + 1) if one.size < 10_000 else None
    if ranks is not None:
        chances = bdtr(ranks.astype(np.float64), one.size, share)
        low, high = int(np.searchsorted(chances, tail)), int(np.searchsorted(chances, 1 - tail)) + 1
    else:
        step = float(ndtri(1 - tail)) * math.sqrt(one.size * share * (1 - share)) + 1
        low, high = math.floor(one.size * share - step), math.ceil(one.size * share + step) + 1
    cumulative = np.cumsum(one.counts)
    edges: Sequence[float] = (0.0, *one.bounds)
    at = int(np.searchsorted(cumulative, max(low, 1)))
    lower = edges[at]
    if high > one.size:
        return lower, None
    end = int(np.searchsorted(cumulative, high))
    return lower, None if end >= len(one.bounds) else one.bounds[end]


def compare_shares(stable: tuple[int, int], canary: tuple[int, int], level: float = 0.95) -> Compared:
    """Of ``(failed, all)`` records: Newcombe's interval of a difference of proportions, from two of Wilson's (1998).

    >>> found = compare_shares((5, 1000), (50, 1000))
    >>> round(found.difference, 3), 0.03 < found.lower < found.upper < 0.062
    (0.045, True)
    """
    if not stable[1] or not canary[1]:
        known = [failed / count if count else None for failed, count in (stable, canary)]
        return Compared(known[0], known[1], None, None, None)
    first, second = stable[0] / stable[1], canary[0] / canary[1]
    (low, high), (canary_low, canary_high) = _wilson(*stable, level), _wilson(*canary, level)
    found = second - first
    lower = found - math.hypot(second - canary_low, high - first)
    return Compared(first, second, found, lower, found + math.hypot(canary_high - second, first - low))


def _wilson(failed: int, count: int, level: float) -> tuple[float, float]:
    square = float(ndtri((1 + level) / 2)) ** 2
    share = failed / count
    centre = (share + square / (2 * count)) / (1 + square / count)
    reach = math.sqrt(square * (share * (1 - share) / count + square / (4 * count**2))) / (1 + square / count)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)
