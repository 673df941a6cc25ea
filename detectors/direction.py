"""Bets that records go on moving the way they have moved so far: many columns that each move a little, all together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

from detectors.betting import MOST

if TYPE_CHECKING:
    from detectors.units import BaselineUnits

MEMORIES = (32.0, 128.0)
"""Records over which what was seen fades: short ones turn soon to a new direction, long ones find a faint one."""
STRENGTHS = (1.0, 2.0, 4.0)
"""The c of the bets: small for shifts of a standard deviation or two along the direction, large for smaller ones."""
FEWEST_PER_COLUMN = 8
"""Baseline records a column below which covariances are too uncertain to bet on."""
MOST_COLUMNS = 256
"""A record costs the square of a signal's columns."""
SMALLEST_VARIANCE = 0.05
"""Directions of less variance are scaled as if they had this much: their bets then gain less than nothing."""
_DENSITY = 1 / np.sqrt(2 * np.pi)


def whitening(codes: NDArray[np.uint8], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What normal quantiles of ranks (N, D) are multiplied with to be uncorrelated, of variance 1: (D, D), symmetric.

    ``codes`` (M, D) are the baseline's single records, ``counts`` (D, cells) of them rank new ones. Ties are broken at
    random in each column, so that within a code nothing is correlated: covariances are those of the codes' means.
    """
    shares = counts / counts.sum(1, keepdims=True)
    borders = ndtri(np.concatenate([np.zeros((len(counts), 1)), np.cumsum(shares, axis=1)], axis=1).clip(0, 1))
    density = _DENSITY * np.exp(-borders * borders / 2)
    means = np.divide(-np.diff(density, axis=1), shares, out=np.zeros_like(shares), where=shares > 0)
    scores = means[np.arange(len(counts)), codes]
    covariance = scores.T @ scores / len(scores)
    np.fill_diagonal(covariance, 1.0)
    variances, axes = np.linalg.eigh(covariance)
    out: NDArray[np.float64] = (axes / np.sqrt(np.maximum(variances, SMALLEST_VARIANCE))) @ axes.T
    return out


class Directions:
    """Each signal's mean of the records so far, as a direction, and the evidence that the next ones lie along it.

    A unit's normal quantiles of ranks are whitened; t is their part along the direction, which units before it have
    set. Without drift t has mean 0 and variance 1, and ``(t + c)^2 / (1 + c^2)`` has mean 1 for every c, whatever the
    shape of t's distribution: no normal approximation, no tail to be wrong about. Sums of a pool of records have
    nearly the same covariances whatever the order of each column, while it is small beside what they are ranked among
    (`detectors.sequential` sees to that): a pool is as good a unit as a record. Bets restart with every unit and are
    summed as all others.

    The covariance is an estimate from M records. A direction that chance has set leans to where the variance is
    larger than estimated, and inverting an estimate adds as much again: ``1 / (1 - D / M)^2``, the mean over
    baselines, is taken for the variance of t. Signals with fewer than two columns gain nothing from it, and signals
    with few records a column (`FEWEST_PER_COLUMN`) or very many columns (`MOST_COLUMNS`) make no such bets: `learns`.
    """

    def __init__(self, units: BaselineUnits) -> None:
        records, widths = len(units.singles), units.widths
        self.learns: NDArray[np.bool_] = (widths >= 2) & (widths <= MOST_COLUMNS)
        self.learns &= records >= FEWEST_PER_COLUMN * widths
        self._units = units
        self._variance = 1 / (1 - np.where(self.learns, widths / max(records, 1), 0.0)) ** 2
        self.sums = np.zeros((len(MEMORIES), len(units.location)))
        self.evidence = np.zeros((units.signals, len(MEMORIES), len(STRENGTHS)))

    def observe(self, z: NDArray[np.float64], sizes: NDArray[np.int64], *, betting: bool = True) -> NDArray[np.float64]:
        """Bet on units and learn from them; the evidence of all signals after each (N,).

        ``z`` (N, D) are the units' sums of normal quantiles over the root of their ``sizes`` (N,), in records. Without
        ``betting`` nothing is won or lost.
        """
        after = np.zeros(len(z))
        strengths = np.array(STRENGTHS if betting else ())
        for signal in np.flatnonzero(self.learns).tolist():
            part = slice(int(self._units.starts[signal]), int(self._units.starts[signal] + self._units.widths[signal]))
            own, sums = self.evidence[signal], np.ascontiguousarray(self.sums[:, part])
            values, white = np.ascontiguousarray(z[:, part]), self._units.whitening(signal)
            variance, memories = float(self._variance[signal]), np.array(MEMORIES)
            after += _follow(values, sizes, white, variance, memories, strengths, sums, own) / self._units.signals
            self.sums[:, part] = sums
        return after

    def of_signals(self) -> NDArray[np.float64]:
        """(S,) what each signal adds to the evidence; 0 for those that do not bet."""
        return np.asarray(self.evidence.mean((1, 2)) / self._units.signals)


@njit(cache=True, nogil=True)
def _follow(  # pragma: no cover
    z: NDArray[np.float64],
    sizes: NDArray[np.int64],
    white: NDArray[np.float64],
    variance: float,
    memories: NDArray[np.float64],
    strengths: NDArray[np.float64],
    sums: NDArray[np.float64],
    evidence: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Bets on units (N, D) along ``sums`` (L, D), which then take them up; the mean of ``evidence`` (L, K) after each.

    Without strengths, or while there is no direction yet, e is 1. In loops of its own rather than as a product of
    matrices, whose last bits would depend on how many units come at once.
    """
    out = np.empty(len(z))
    width = z.shape[1]
    value = np.empty(width)
    for row in range(len(z)):
        value[:] = 0.0
        for i in range(width):
            for j in range(width):
                value[j] += z[row, i] * white[i, j]
        root = np.sqrt(sizes[row])
        for m in range(len(memories)):
            length = along = 0.0
            for i in range(width):
                length += sums[m, i] * sums[m, i]
                along += sums[m, i] * value[i]
            t = along / np.sqrt(length) if length > 0 else 0.0
            for k in range(evidence.shape[1]):
                e = 1.0
                if length > 0 and len(strengths):
                    e = (t + strengths[k]) ** 2 / (variance + strengths[k] ** 2)
                evidence[m, k] = min((evidence[m, k] + sizes[row]) * e, MOST)
            fade = np.exp(-sizes[row] / memories[m])
            for i in range(width):
                sums[m, i] = sums[m, i] * fade + value[i] * root
        out[row] = evidence.mean()
    return out
