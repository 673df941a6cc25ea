"""Does a shift hurt the model, or only look different? What confidence and what the model finds say about it.

A street at dusk is far from the training images and may be segmented as well as ever; waking somebody for it teaches
them to ignore the pager. So beside *whether* the input has shifted stands *harm*: ``likely`` where the model has become
less sure or finds less than it did, ``unlikely`` where it demonstrably has not, ``unknown`` otherwise.

The measure for one column is the *fall* ``P(window < baseline) - P(window > baseline)`` over bins, -1..1 (Cliff's
delta; 0.15 is about a quarter of a standard deviation). Its standard error is that of the Mann-Whitney statistic,
``sqrt((1/n + 1/m) / 3)``, with n and m divided by the signal's design effect, so that frames of one video do
not count as independent. A rise in images without any instance is a fall too. Fewer objects may be what is there to be
seen, so that these count as harm only where they collapse; they keep ``unlikely`` away earlier.

It misleads where a model is wrong and sure of itself: confidence then stays (concept shift, new classes that look like
old ones). Labels overrule it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.statistic import PaneStatistic

Harm = Literal["likely", "unlikely", "unknown"]

WATCHED = {"confidence": None, "instances": ("count",)}
"""Signals, and which of their columns (None: all), in which a fall means that the model suffers."""
MARGIN = 0.15
"""A fall above this hurts."""
CERTAIN = 0.05
"""A fall of confidence is harm when even its lower bound is above this."""
COLLAPSE = 0.4
"""A fall in the number of instances, or a rise in images without any, when its lower bound is above this."""
Z_LIKELY, Z_UNLIKELY = 2.576, 1.645
FEWEST = 20
"""Effective records with a value, below which a column says nothing."""


def harm_of(baseline: BaselineStatistic, window: PaneStatistic, design_effects: dict[str, float]) -> Harm:
    """Judge a window; ``design_effects`` by signal, as in `detectors.score.SignalScore`."""
    counts = window.counts()
    likely, upper = False, []
    for part in baseline.layout.signals:
        columns = WATCHED.get(part.signal, ())
        for at, name in enumerate(part.dimensions, part.start):
            if columns is None or name in columns:
                effect = max(1.0, design_effects.get(part.signal, 1.0))
                certain = CERTAIN if part.signal == "confidence" else COLLAPSE
                for fall, error, least in _falls(counts[at], baseline.counts[at], effect, certain):
                    likely |= fall - Z_LIKELY * error > least
                    upper.append(fall + Z_UNLIKELY * error)
    if likely:
        return "likely"
    return "unlikely" if upper and max(upper) < MARGIN else "unknown"


def _falls(
    window: NDArray[np.int64], baseline: NDArray[np.int64], effect: float, certain: float
) -> list[tuple[float, float, float]]:
    """(fall, standard error, where harm begins) of a column's finite values, and of the share of records with one."""
    found = []
    p, q = window[:-1].astype(np.float64), baseline[:-1].astype(np.float64)
    n, m = p.sum() / effect, q.sum() / effect
    if n >= FEWEST and m >= FEWEST:
        p, q = p / p.sum(), q / q.sum()
        above = 1 - np.cumsum(q)
        below = np.cumsum(q) - q
        found.append((float(p @ above - p @ below), float(np.sqrt((1 / n + 1 / m) / 3)), certain))
    n, m = window.sum() / effect, baseline.sum() / effect
    if baseline[:-1].any() and n >= FEWEST and m >= FEWEST:
        gone, before = window[-1] / window.sum(), baseline[-1] / baseline.sum()
        pooled = (window[-1] + baseline[-1] + 1) / (window.sum() + baseline.sum() + 2)
        found.append((float(gone - before), float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))), COLLAPSE))
    return found
