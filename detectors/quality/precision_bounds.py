"""Bounds of COCO's average precision, which is no ratio of sums, from its values on resampled labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from detectors.quality.average_precision import AveragePrecision, Ranked
from detectors.quality.matching import AREA_RANGES
from detectors.quality.mean import between
from detectors.quality.ratio import Floats

RESAMPLES = 200
"""Times that units are drawn with replacement."""
LEAST = 3
"""Units with a label of the class and size below which no interval is given: at 3 it still covers, and says little."""
PSEUDO_WEIGHT = 0.15
"""Of one more unit, wholly missed for the lower bound and wholly found for the upper one: where all labels are found
alike nothing spreads, and yet little is known. Chosen between 0.05 and 0.3 for coverage."""
WHOLE = 1.0
"""No bound need go beyond that with this weight: where nothing spreads, a small one alone would exclude nothing."""
SIZES = {"ap_small": 1, "ap_medium": 2, "ap_large": 3}
"""Metric to its place among the area ranges, 0 for any other."""


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Values of n judgements' AP on units drawn with replacement, and how much each class has to draw from."""

    ranked: Ranked
    weights: Floats
    """(n,) 1 / inclusion probability."""
    unit: NDArray[np.int64]
    """(n,) number 0..k-1 of the record or sequence that the judgement belongs to."""
    unseen: Floats
    """(n,) 1 less the probability of being chosen; 1 throughout where the process is estimated."""
    values: tuple[AveragePrecision, ...]

    @classmethod
    def of(
        cls, ranked: Ranked, weights: Floats, unit: NDArray[np.int64], unseen: Floats, count: int = RESAMPLES
    ) -> Resampled:
        """From a fixed seed, so that a window's figures never change by themselves."""
        rng, units = np.random.default_rng(0), int(unit.max(initial=-1)) + 1
        drawn = (np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(count))
        return cls(ranked, weights, unit, unseen, tuple(ranked.precision(weights * times[unit]) for times in drawn))

    def sizes(self, metric: str, column: int) -> Floats:
        """(k,) weighted labels of the class and the metric's size in each unit."""
        own = self._labels(metric, column)
        units = int(self.unit.max(initial=-1)) + 1
        sizes: Floats = np.bincount(self.unit[own], self.weights[own], units).astype(np.float64)
        return sizes

    def bounds(self, metric: str, column: int, point: float, level: float = 0.95) -> tuple[float, float]:
        """Of a class with labels in `LEAST` units or more, in 0..1.

        The spread of the resampled values, times ``sqrt(k / (k - 1))`` for resampling's own loss and ``sqrt(1 - n/N)``
        for what is labelled already, with Student's quantiles for ``k - 1`` degrees of freedom on the logit scale.
        ``k = (sum size)^2 / sum size^2`` counts the units with labels of this class and size, each by how many: those
        without tell nothing of it. Each bound counts a small part of one more unit, wholly wrong or wholly right.

        Quantiles of the resampled values themselves, which are often taken, are too narrow below some 50 units. It
        misleads a little where a window's labels lie in few sequences that are each alike, as the bounds of ratios do.
        """
        sizes = self.sizes(metric, column)
        count = float(sizes.sum() ** 2 / (sizes @ sizes))
        values = np.array([getattr(one, metric)[column] for one in self.values])
        own = self._labels(metric, column)
        unseen = float(np.average(self.unseen[own], weights=self.weights[own]))
        known = values[np.isfinite(values)]
        variance = float(known.var(ddof=1)) * unseen * count / max(count - 1, 0.5)
        quantile = float(stdtrit(max(count - 1, 1.0), (1 + level) / 2))
        # Where each label of the class was certain to be made, others may yet hold it.
        weights = [float(self.unseen.mean()) * weight for weight in (PSEUDO_WEIGHT, WHOLE)]
        lower = max(_below(point, variance, count, weight, quantile) for weight in weights)
        upper = 1 - max(_below(1 - point, variance, count, weight, quantile) for weight in weights)
        return min(lower, point), max(upper, point)

    def correlations(self, metric: str, columns: list[int]) -> Floats:
        """(C', C') in 0..1, between the classes' resampled values."""
        values = np.stack([getattr(one, metric)[columns] for one in self.values])
        values = np.where(np.isfinite(values), values, np.nanmean(values, axis=0))
        return between((values - values.mean(axis=0)).T)

    def _labels(self, metric: str, column: int) -> NDArray[np.int64]:
        """(L',) judgement of each label of the class and size."""
        low, high = AREA_RANGES[SIZES.get(metric, 0)]
        ranked = self.ranked
        chosen = (ranked.label_kind == column) & (ranked.label_area >= low) & (ranked.label_area <= high)
        images: NDArray[np.int64] = ranked.label_image[chosen]
        return images


def _below(point: float, variance: float, count: float, weight: float, quantile: float) -> float:
    """So many deviations below the point on the logit scale, with a further unit of such a weight, wholly wrong."""
    whole = count + weight
    share = min(max(point * count / whole, 1e-9), 1 - 1e-9)
    deviation = (variance * (count / whole) ** 2 + weight * (share / whole) ** 2) ** 0.5 / (share * (1 - share))
    return float(expit(logit(share) - quantile * deviation))
