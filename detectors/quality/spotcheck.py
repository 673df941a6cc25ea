"""Quality from labels that were asked for with known probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np

from detectors.quality.intervals import Units, bounds, unseen_size
from detectors.quality.ratio import (
    LEAST_UNITS,
    Estimate,
    Estimator,
    Floats,
    RatioSample,
    expansion,
    more_units,
    sums_by,
)

Drawn = Literal["records", "sequences"]

ALONE_LABELS, ALONE_SEQUENCES = 50, 10
"""So many labels in so many sequences are owed a number, even where the class is in one of the sequences alone."""


def spotcheck(
    sample: RatioSample,
    population: int | None = None,
    level: float = 0.95,
    *,
    bounded: bool = True,
    signed: bool = False,
    drawn: Drawn = "records",
) -> Estimate:
    """The metric of a window's own records, or of the process that made them, with its interval.

    The estimate is ``sum(w I) / sum(w U)`` (Hajek's form of the Horvitz-Thompson estimator; Saerndal, Swensson and
    Wretman 1992, chapter 5), its variance that of the residuals ``w (I - ratio U)``, its bounds those of `bounds`.

    - With ``population``, the number of records in the window: the value over just these, so that the interval has no
      width once all of them are labelled. Each record counts by the part of the population it was not certain to be
      taken from. Records are taken to have been chosen one by one, which is how segwatch asks; where whole sequences
      were, say ``drawn="sequences"``.
    - Without: the value of the process. Sequences are the units, whatever lies between their frames. Where 50
      labels in 10 sequences have the class in one sequence alone, the bounds are those of `alone`.

    ``bounded`` says that the metric lies in 0..1, ``signed`` that one which does not may go down to -1, even where no
    label has shown it. For a level of 0.95, coverage is in ``docs/quality-benchmark.md``;
    it is lowest for heavy-tailed areas and uncertainty-driven choice together.

    >>> sample = RatioSample.uniform([90, 80, 0, 70, 99, 60], [100, 100, 0, 100, 100, 80])
    >>> estimate = spotcheck(sample, population=600)
    >>> round(estimate.point, 3), round(estimate.lower, 2), round(estimate.upper, 2)
    (0.831, 0.53, 0.93)
    >>> spotcheck(sample, population=6).upper == estimate.point
    True
    >>> few = spotcheck(RatioSample.uniform([0, 9, 0, 0], [0, 10, 0, 0]), population=600)
    >>> few.status, few.needed, few.point
    ('too few labels', 4, None)

    Raises:
        ValueError: more labels than records, a level outside 0..1, or a bounded metric above 1 or below 0.
    """
    check(sample, level, bounded)
    units = design(sample, sample.numerator, sample.denominator, population, drawn)
    return conclude(sample, units, "spotcheck", population, level, bounded=bounded, signed=signed, drawn=drawn)


def check(sample: RatioSample, level: float, bounded: bool) -> None:
    """Raise ValueError for what no estimator takes."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    if bounded and ((sample.numerator < 0) | (sample.numerator > sample.denominator)).any():
        raise ValueError("a numerator of a bounded metric is negative or above its denominator")


def representing(sample: RatioSample, population: int | None) -> Floats:
    """Weights (n,), which add up to the population where there is one."""
    if population is None or not len(sample):
        return sample.weights
    return expansion(sample.weights, population)


def design(
    sample: RatioSample, numerator: Floats, denominator: Floats, population: int | None, drawn: Drawn = "records"
) -> Units:
    """Units over which (n,) unweighted numerators and denominators vary; sizes are the sample's own denominators."""
    weights = representing(sample, population)
    size = weights * sample.denominator
    record_size = unseen_size(weights, sample.denominator)
    missed = bool((2 * sample.numerator < sample.denominator).any())
    columns = (weights * numerator, weights * denominator, size)
    if population is not None and drawn == "records":
        return Units(*columns, 1 - 1 / weights, record_size, 1.0, len(sample), missed=missed)
    numerators, denominators, sizes = sums_by(sample.clusters, *columns)
    # Of sequences that were drawn whole, as much remains unseen as of the window's records.
    unseen = 1.0 if population is None else 1 - len(sample) / max(population, 1)
    count = len(sizes)
    return Units(numerators, denominators, sizes, np.full(count, unseen), record_size, 0.5, count, missed=missed)


def conclude(
    sample: RatioSample,
    units: Units,
    estimator: Estimator,
    population: int | None,
    level: float,
    *,
    bounded: bool,
    signed: bool = False,
    drawn: Drawn = "records",
) -> Estimate:
    """The estimate from its units, or what is missing for one."""
    clusters = len(np.unique(sample.clusters))
    by_records = population is not None and drawn == "records"
    estimand: Literal["window", "process"] = "process" if population is None else "window"
    with_class = int(np.count_nonzero(units.size[: units.counted] > 0))
    complete = population is not None and len(sample) == population
    owed = bounded and not by_records and len(sample) >= ALONE_LABELS and clusters >= ALONE_SEQUENCES
    if with_class == 1 and owed and not complete and units.totals[1] > 0:
        point = min(max(units.ratio, 0.0), 1.0)
        lower, upper = alone(point, level)
        return Estimate(
            point, lower, upper, len(sample), 1.0, clusters, "ok", 0, estimator, float(len(sample)), estimand, level
        )
    if not complete and (with_class < LEAST_UNITS or units.totals[1] <= 0):
        return Estimate(
            None, None, None, len(sample), 0.0, clusters, "too few labels", more_units(units.counted, with_class),
            estimator, 1.0, estimand, level, "labels" if by_records else "sequences",
        )  # fmt: skip
    if with_class == 0:
        return Estimate(
            None, None, None, len(sample), float(len(sample)), clusters, "absent", 0, estimator, 1.0, estimand, level
        )
    point = min(max(units.ratio, 0.0), 1.0) if bounded else units.ratio
    negative = signed or bool((units.numerator[: units.counted] < 0).any())
    lower, upper = bounds(units, level, scale="share" if bounded else "signed" if negative else "count")
    if signed:
        lower = min(max(lower, -1.0), point)
    effect = design_effect(sample, units, population)
    return Estimate(
        point, lower, upper, len(sample), len(sample) / effect, clusters, "ok", 0, estimator, effect, estimand, level
    )


def alone(point: float, level: float) -> tuple[float, float]:
    """Bounds from a single sequence with the class, by Markov's inequality: true, and next to useless.

    A value in 0..1 whose mean is below ``tail * point`` reaches ``point`` with a chance of less than ``tail``.

    >>> alone(0.8, 0.95)
    (0.020000000000000018, 0.995)
    """
    tail = (1 - level) / 2
    return tail * point, 1 - tail * (1 - point)


def design_effect(sample: RatioSample, units: Units, population: int | None) -> float:
    """Variance over that of as many labels drawn one by one with equal chances from the same population (Kish 1965)."""
    weights = representing(sample, population)
    ratio = sample.ratio() or 0.0
    residuals = sample.numerator - ratio * sample.denominator
    count, total = len(sample), float(weights @ sample.denominator)
    spread = float(weights @ residuals**2 / weights.sum())
    unseen = 1.0 if population is None else 1 - count / population
    plain = (weights.sum() / total) ** 2 * spread * unseen / count
    variance = units.variance(units.ratio)
    if not (plain > 0 and variance > 0):
        return 1.0
    # No assistance tells more than labels for all records would.
    return float(max(variance / plain, 0.0 if population is None else count / population))
