"""How far windows without drift are from the baseline by Frechet's distance: drawn from the baseline's own records."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp

from detectors.moments import distances
from detectors.moments_baseline import SAMPLE_STEPS, MomentsBaseline
from detectors.nulls import Tail
from detectors.resampling import FEWEST_UNITS, MOST_SEQUENCES, WindowShape, coarse

REPLICATES = 2000
MOST_RECORDS = 1024
"""A larger window's law is drawn at this size, with the baseline shrunk alike: from there on the distance goes with
1/n to within some 0.3 %, a twentieth of its standard deviation."""
MOST_POOLED = 512
"""Sequences of the baseline from which runs are drawn."""
STARTS = 4
"""Runs of one length that each of them gives."""


@dataclass(frozen=True, eq=False)
class FrechetLaw:
    """The law of the distance in windows of one shape; of near ones by scale.

    The distance without drift goes with 1/n + 1/m. Its cube root is nearly normal (Wilson and Hilferty 1931), as that
    of any sum of many squares; what is left is counted in the drawn windows, and exponential beyond (`nulls.Tail`).
    """

    tail: Tail
    centre: float
    deviation: float
    """Mean and standard deviation of the cube root."""
    mean: float
    """Of the distance itself."""
    variances: tuple[float, float]
    """See `_variances`, of the drawn windows."""

    @classmethod
    def of(cls, drawn: NDArray[np.float64], variances: tuple[float, float]) -> FrechetLaw:
        """From drawn distances (R,)."""
        roots = np.cbrt(drawn)
        centre, deviation = float(roots.mean()), max(float(roots.std()), 1e-12)
        tail = Tail.of(-log_ndtr(-(roots - centre) / deviation))
        return cls(tail, centre, deviation, float(drawn.mean()), variances)

    def scaled(self, variances: tuple[float, float]) -> FrechetLaw:
        """The law of windows of another size: of the two ways to scale it, the one with larger distances."""
        scale = max(now / drawn for now, drawn in zip(variances, self.variances, strict=True))
        root = float(np.cbrt(scale))
        return FrechetLaw(self.tail, self.centre * root, self.deviation * root, self.mean * scale, variances)

    def p_value(self, distance: float) -> float:
        """The share of windows without drift that are as far."""
        return self.tail.p_value(-float(log_ndtr(-(np.cbrt(distance) - self.centre) / self.deviation)))

    def critical(self, p_value: float) -> float:
        """The distance with this p-value."""
        z = -float(ndtri_exp(-self.tail.evidence(p_value)))
        return max(self.centre + z * self.deviation, 0.0) ** 3


def frechet_law(baseline: MomentsBaseline, shape: WindowShape) -> FrechetLaw:
    """The law for windows of this shape, whose sequences the baseline must have some to set against.

    Drawn in 0.3 to 0.7 s and kept for windows of about this shape. Raises ValueError as `draw` does.
    """
    return _law(baseline, coarse(shape)).scaled(_variances(baseline, shape, 1.0))


@lru_cache(maxsize=64)
def _law(baseline: MomentsBaseline, shape: WindowShape) -> FrechetLaw:
    drawn, variances = draw(baseline, shape)
    return FrechetLaw.of(drawn, variances)


def draw(
    baseline: MomentsBaseline, shape: WindowShape, replicates: int = REPLICATES
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Distances (R,) of windows of this shape, had the baseline gone on, and `_variances` at the size they were drawn.

    As in `detectors.resampling.draw`: single records one by one, sequences as runs of one of the baseline's, sources
    by a Polya urn for the baseline's own uncertainty, large windows and their baseline shrunk alike. The random numbers
    start from the baseline's digest and the shape.

    Raises:
        ValueError: the shape has sequences and the baseline's sample has none.
    """
    if shape.sequences and not len(baseline.lengths):
        raise ValueError("the window has sequences, the baseline has none to draw from")
    shrink = max(1.0, shape.independent / MOST_RECORDS, len(shape.sequences) / MOST_SEQUENCES)
    singles = math.ceil(shape.independent / shrink)
    ordered = np.array(sorted(shape.sequences), dtype=np.int64)
    sizes = ordered[np.linspace(0, len(ordered) - 1, math.ceil(len(ordered) / shrink)).round().astype(np.int64)]
    shrink = max(1.0, min(shrink, (baseline.independent_records + baseline.sequences) / FEWEST_UNITS))
    key = f"{baseline.digest} {singles} {sizes.tolist()} {shrink}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"))
    components = baseline.rows.shape[1]
    sums = np.zeros((replicates, components * (components + 1)))
    if singles:
        _add_singles(sums, baseline, singles, shrink, rng)
    if len(sizes):
        _add_sequences(sums, baseline, sizes, shrink, rng)
    drawn = WindowShape(singles, tuple(sizes.tolist()))
    means, covariances = _moments(sums, drawn.records, components)
    rows = baseline.rows.astype(np.float64)
    own = np.concatenate([rows.sum(0), (rows.T @ rows).ravel()])[None]
    mean, covariance = _moments(own, len(rows), components)
    found = distances(mean[0], covariance[0], means, covariances)
    return found, _variances(baseline, drawn, shrink)


def _variances(baseline: MomentsBaseline, shape: WindowShape, shrink: float) -> tuple[float, float]:
    """What the distance goes with, 1/n + 1/m: were all records independent, and were those of a sequence all alike."""
    n = shape.records
    units = baseline.independent_records + baseline.sequences
    together = (shape.independent + sum(size * size for size in shape.sequences)) / n**2
    return 1 / n + shrink / baseline.moments.records, together + shrink / units


def _moments(
    sums: NDArray[np.float64], records: int, components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (R, K) and covariances (R, K, K) from sums in steps, (R, K + K K)."""
    means = sums[:, :components] / (records * SAMPLE_STEPS)
    products = sums[:, components:].reshape(-1, components, components) / SAMPLE_STEPS**2
    centred = products - records * means[:, :, None] * means[:, None, :]
    return means, centred / max(records - 1, 1)


def _add_singles(
    sums: NDArray[np.float64], baseline: MomentsBaseline, singles: int, shrink: float, rng: np.random.Generator
) -> None:
    pool = (baseline.rows[: baseline.independent] if baseline.independent else baseline.rows).astype(np.float64)
    units = (baseline.independent_records or baseline.sequences) / shrink
    components = pool.shape[1]
    for row in sums:
        some = pool[_urn(rng, len(pool), singles, units)]
        row[:components] += some.sum(0)
        row[components:] += (some.T @ some).ravel()


def _add_sequences(
    sums: NDArray[np.float64],
    baseline: MomentsBaseline,
    sizes: NDArray[np.int64],
    shrink: float,
    rng: np.random.Generator,
) -> None:
    """Each window's sequences, as sums of runs that are summed up once for all windows."""
    pooled, replicates = min(len(baseline.lengths), MOST_POOLED), len(sums)
    picked = np.stack([_urn(rng, pooled, len(sizes), baseline.sequences / shrink) for _ in range(replicates)])
    for size in np.unique(sizes).tolist():
        of_size = picked[:, sizes == size]
        runs = of_size * STARTS + rng.integers(0, STARTS, of_size.shape)
        times = np.zeros((replicates, pooled * STARTS))
        np.add.at(times, (np.arange(replicates)[:, None], runs), 1.0)
        sums += times @ _run_sums(baseline, pooled, size)


def _run_sums(baseline: MomentsBaseline, pooled: int, size: int) -> NDArray[np.float64]:
    """(pooled * STARTS, K + K K) sums over runs of ``size`` records; shorter sequences are repeated to that length."""
    components = baseline.rows.shape[1]
    found = np.empty((pooled * STARTS, components * (components + 1)))
    ends = baseline.independent + np.cumsum(baseline.lengths)
    for number, (end, length) in enumerate(zip(ends[:pooled].tolist(), baseline.lengths.tolist(), strict=False)):
        take = min(size, length)
        for start in range(STARTS):
            first = end - length + (length - take) * start // (STARTS - 1)
            run = baseline.rows[first : first + take].astype(np.float64)
            found[number * STARTS + start, :components] = run.sum(0) * (size / take)
            found[number * STARTS + start, components:] = (run.T @ run).ravel() * (size / take)
    return found


def _urn(rng: np.random.Generator, sources: int, draws: int, units: float) -> NDArray[np.int64]:
    """Draws from a Polya urn: the i-th is a new source with probability ``units / (units + i)``, else one again."""
    found = rng.integers(0, sources, draws)
    at = np.arange(draws)
    again = rng.random(draws) * (units + at) >= units
    parent = np.where(again, (rng.random(draws) * at).astype(np.int64), at)
    while True:
        further = parent[parent]
        if (further == parent).all():
            return found[parent]
        parent = further
