"""The mean of a metric over classes: its bounds are put together from those of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detectors.quality.intervals import Units
from detectors.quality.ratio import Estimate, Floats

LESS_BELOW = 0.4
"""By how much the lower bound draws nearer as many classes share its distance: the classes' own lower bounds are
stretched for skewness, which averages out. Chosen on ``lognormal``, ``counts``, ``misses`` and ``video`` of
``bench/quality`` with 3 to 10 classes; the upper bound has no such surplus."""


def mean_over(estimates: Sequence[Estimate], together: Floats, less_below: float = LESS_BELOW) -> Estimate:
    """The mean over C >= 1 classes; ``together`` (C, C) are the correlations of their errors, see `correlations`.

    The bounds come from "variance estimates recovery" (Zou and Donner 2008): with ``l`` the distances (C,) of the
    classes' lower bounds from their points and ``R`` the correlations, the lower bound is
    ``mean - sqrt(l' R l) / C``; the upper one alike. So a rare class keeps the few degrees of freedom and the lopsided
    interval that it has, where a single variance of the mean would be that of many records which know nothing of it.

    ``k = (l' l)^2 / (max(l)^2 l' R l)`` says how many classes share the distance below, each with errors of its own; it
    is drawn in by the factor ``1 - less_below (1 - 1/k)``. A correlation below 0 counts as 0: it would narrow the
    interval, and few labels tell it badly.

    A class without a point leaves the mean without one, since a mean of the others would flatter (or slander): the
    estimate is then that of the class which needs most.

    `effective_labels` are the fewest of any class.

    Raises:
        ValueError: no class, or correlations of another number of them.
    """
    if not estimates or together.shape != (len(estimates), len(estimates)):
        raise ValueError(f"{len(estimates)} estimates, correlations of shape {together.shape}")
    missing = [one for one in estimates if one.point is None]
    if missing:
        return max(missing, key=lambda one: one.needed)
    points = np.array([one.point for one in estimates], np.float64)
    below = points - np.array([one.lower for one in estimates], np.float64)
    above = np.array([one.upper for one in estimates], np.float64) - points
    mean = float(points.mean())
    square = float(below @ together @ below)
    most = square * float(below.max()) ** 2
    shared = max(float(below @ below) ** 2 / most, 1.0) if most > 0 else 1.0
    lower = mean - square**0.5 * (1 - less_below * (1 - 1 / shared)) / len(points)
    return replace(
        min(estimates, key=lambda one: one.effective_labels),
        point=mean,
        lower=max(0.0, lower),
        upper=min(1.0, mean + float(above @ together @ above) ** 0.5 / len(points)),
    )


def correlations(units: Sequence[Units]) -> Floats:
    """(C, C) in 0..1, between the classes' residuals over units that are the same for all of them.

    Of the process, `assisted_units` gives k units where expectations were of no use and else 2 k, the variance in two
    parts: the former have the same residuals in both.
    """
    longest = max((one.unseen for one in units), key=len)
    return between(np.stack([_errors(one, longest) for one in units]))


def _errors(units: Units, longest: Floats) -> Floats:
    residuals = units.numerator - units.ratio * units.denominator
    parts = len(longest) // max(len(residuals), 1)
    errors: Floats = (units.unseen if parts < 2 else longest) ** 0.5 * np.tile(residuals, max(parts, 1))
    return errors


def between(errors: Floats) -> Floats:
    """(C, C) cosines in 0..1 between rows (C, n), 0 with a row that is 0 throughout."""
    products = errors @ errors.T
    spread = np.sqrt(np.diag(products))
    scale = np.outer(spread, spread)
    found = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    np.fill_diagonal(found, 1.0)
    clipped: Floats = np.clip(found, 0.0, 1.0)
    return clipped
