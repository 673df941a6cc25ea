"""Quality from the model's calibrated confidence alone: an estimate to be withdrawn, not a measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit

from detectors.harm import Harm
from detectors.quality.ratio import Estimate, Floats, RatioSample, quotient, sums_by


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """How far expectations were off on labelled records that the calibration was not fitted to.

    Sums and counts alone. A record's error is its true residual less the expected one,
    ``(I - ratio U) - (I_hat - ratio U_hat)``; errors are summed over sequences.
    """

    numerator: float
    """Sum of I less sum of I_hat."""
    denominator: float
    """Sum of U less sum of U_hat."""
    expected_denominator: float
    squared_errors: float
    """Of sequences."""
    records: int
    sequences: int

    @classmethod
    def of(cls, sample: RatioSample, expected_numerator: Floats, expected_denominator: Floats) -> CalibrationError:
        """From labelled records and what was expected of them (n,).

        Raises:
            ValueError: lengths differ.
        """
        if not len(sample) == len(expected_numerator) == len(expected_denominator):
            lengths = f"{len(expected_numerator)} and {len(expected_denominator)}"
            raise ValueError(f"{len(sample)} labels, but {lengths} expectations")
        numerator = sample.numerator - expected_numerator
        denominator = sample.denominator - expected_denominator
        ratio = sample.ratio() or 0.0
        (errors,) = sums_by(sample.clusters, numerator - ratio * denominator)
        return cls(
            float(numerator.sum()), float(denominator.sum()), float(expected_denominator.sum()),
            float(errors @ errors), len(sample), len(errors),
        )  # fmt: skip


def labelfree(
    expected_numerator: float,
    expected_denominator: float,
    records: int,
    error: CalibrationError,
    *,
    level: float = 0.95,
    drifted: bool = False,
    harm: Harm = "unknown",
    last_spotcheck: Estimate | None = None,
) -> Estimate:
    """The ratio of the expected sums over a window's ``records``, with what the calibration's own errors allow.

    The variance per record comes from sequences' errors on calibration records, and counts twice: once for
    the calibration's fit (its m records), once for the window's own (N records). On top of it the bias
    that the calibration records themselves showed is taken as a shift either way. Bounds are on the logit scale.

    All this holds while pixels of one confidence are as often right as they were: under a concept shift confidence
    stays high and the estimate is wrong beyond its interval. Hence it is withdrawn

    - where drift was found and its ``harm`` is not "unlikely", and
    - where the last spot check's interval does not meet this one.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> area = rng.lognormal(7, 1, 300)
    >>> sample = RatioSample.uniform(area * rng.beta(8, 2, 300), area)
    >>> error = CalibrationError.of(sample, 0.8 * area, area)
    >>> estimate = labelfree(800.0, 1000.0, 5000, error)
    >>> estimate.status, estimate.point, 0.75 < estimate.lower < 0.8 < estimate.upper < 0.85
    ('ok', 0.8, True)
    >>> labelfree(800.0, 1000.0, 5000, error, drifted=True).reason
    'drift whose harm is unknown'

    Raises:
        ValueError: no records, or expected sums that are negative or not in order.
    """
    if records < 1:
        raise ValueError(f"a window of {records} records")
    if not 0 <= expected_numerator <= expected_denominator:
        raise ValueError(f"{expected_numerator} of {expected_denominator} expected")
    point = quotient(expected_numerator, expected_denominator)
    if point is None:
        return _none("absent", 0, level)
    if error.sequences < 2 or error.expected_denominator <= 0:
        return _none("too few labels", max(1, 2 - error.sequences), level)
    lower, upper = _bounds(point, expected_denominator / records, records, error, level)
    reason = _contradiction(lower, upper, drifted, harm, last_spotcheck)
    if reason:
        return _none("withdrawn", 0, level, reason)
    return Estimate(point, lower, upper, 0, 0.0, 0, "ok", 0, "labelfree", 1.0, "window", level)


def _bounds(point: float, size: float, records: int, error: CalibrationError, level: float) -> tuple[float, float]:
    per_record = error.squared_errors / error.records * error.sequences / (error.sequences - 1)
    # Areas of calibration and window may differ as a whole: errors are taken relative to the mean denominator.
    calibration_size = error.expected_denominator / error.records
    variance = per_record / calibration_size**2 * (1 / error.records + 1 / records)
    bias = abs(error.numerator - point * error.denominator) / error.expected_denominator
    step = float(stdtrit(error.sequences - 1, (1 + level) / 2)) * math.sqrt(variance) + bias
    inner = min(max(point, 1 / (records * max(size, 1.0) + 1)), 1 - 1 / (records * max(size, 1.0) + 1))
    logit, step = math.log(inner / (1 - inner)), min(step / (inner * (1 - inner)), 700.0)
    lower, upper = (1 / (1 + math.exp(-min(max(value, -700.0), 700.0))) for value in (logit - step, logit + step))
    return min(lower, point), max(upper, point)


def _contradiction(lower: float, upper: float, drifted: bool, harm: Harm, spot: Estimate | None) -> str:
    if drifted and harm != "unlikely":
        return f"drift whose harm is {harm}"
    if spot is None or spot.lower is None or spot.upper is None:
        return ""
    if spot.lower > upper or spot.upper < lower:
        return f"spot checks say {spot.lower:.3f} to {spot.upper:.3f}, confidence alone {lower:.3f} to {upper:.3f}"
    return ""


def _none(status: str, needed: int, level: float, reason: str = "") -> Estimate:
    if status == "absent":
        return Estimate(None, None, None, 0, 0.0, 0, "absent", 0, "labelfree", 1.0, "window", level)
    if status == "withdrawn":
        return Estimate(None, None, None, 0, 0.0, 0, "withdrawn", 0, "labelfree", 1.0, "window", level, reason=reason)
    return Estimate(
        None, None, None, 0, 0.0, 0, "too few labels", needed, "labelfree", 1.0, "window", level, "sequences"
    )
