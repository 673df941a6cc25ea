"""A metric as a ratio of sums over labelled records, and what may be said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Estimand = Literal["window", "process"]
Estimator = Literal["spotcheck", "assisted", "labelfree"]
Status = Literal["ok", "too few labels", "absent", "withdrawn"]

LEAST_UNITS = 2
"""Records (or sequences) with the class below which no interval is given: one alone says nothing of the spread."""


@dataclass(frozen=True, slots=True, eq=False)
class RatioSample:
    """Labelled records of one metric and class: ``sum(numerator) / sum(denominator)`` is the metric of many records.

    Pooled IoU has a record's intersection as numerator and its union as denominator, in pixels; recall has the pixels
    found and the pixels labelled; false positives per image have a count and 1. A record without the class has 0 and 0.

    ``weights`` are 1 over the probability with which the record was chosen for labelling (times that of having been
    recorded at all), ``clusters`` number the sequences; a record without one has a number of its own.

    >>> RatioSample.uniform([8, 0, 5], [10, 0, 5]).ratio()
    0.8666666666666667

    Raises:
        ValueError: lengths differ, a value is not finite, a denominator is negative, or a weight is below 1.
    """

    numerator: Floats
    """(n,)"""
    denominator: Floats
    """(n,) 0 or more."""
    weights: Floats
    """(n,) 1 or more."""
    clusters: NDArray[np.int64]
    """(n,)"""

    def __post_init__(self) -> None:
        shape = (len(self.numerator),)
        for name in ("numerator", "denominator", "weights", "clusters"):
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}, the numerator {shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} has values that are not finite")
        if (self.denominator < 0).any():
            raise ValueError("a denominator is negative")
        if (self.weights < 1 - 1e-9).any():
            raise ValueError("a weight is 1 over a probability: it cannot be below 1")

    @classmethod
    def of(cls, numerator: ArrayLike, denominator: ArrayLike, weights: ArrayLike, clusters: ArrayLike) -> RatioSample:
        """From anything that numpy takes as numbers."""
        return cls(
            np.asarray(numerator, dtype=np.float64),
            np.asarray(denominator, dtype=np.float64),
            np.asarray(weights, dtype=np.float64),
            np.asarray(clusters, dtype=np.int64),
        )

    @classmethod
    def uniform(
        cls, numerator: ArrayLike, denominator: ArrayLike, clusters: ArrayLike | None = None, weight: float = 1.0
    ) -> RatioSample:
        """Records that all had the same chance, each a sequence of its own where ``clusters`` are not given."""
        count = len(np.asarray(numerator))
        own = np.arange(count) if clusters is None else clusters
        return cls.of(numerator, denominator, np.full(count, weight), own)

    def __len__(self) -> int:
        return len(self.numerator)

    def ratio(self) -> float | None:
        """The weighted ratio; None where the weighted denominators add up to 0."""
        return quotient(float(self.weights @ self.numerator), float(self.weights @ self.denominator))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its interval, or the reason why there is none.

    ``point``, ``lower`` and ``upper`` are None together, unless ``status`` is ``ok``: "too few labels" (``needed``
    more are wanted, ``needed_of`` labels or sequences), "absent" (every record is labelled and none has the class), or
    "withdrawn" (``reason`` says why).
    """

    point: float | None
    lower: float | None
    upper: float | None
    labels: int
    """Labelled records, with the class or without."""
    effective_labels: float
    """Independent, equally likely labels that would tell as much: labels / design effect."""
    clusters: int
    """Sequences among the labels."""
    status: Status
    needed: int
    """More labels or sequences until a number is to be expected; 0 where there is one."""
    estimator: Estimator
    design_effect: float
    """Variance over that of as many independent, equally likely labels; 1 where it is not known."""
    estimand: Estimand = "window"
    level: float = 0.95
    needed_of: Literal["labels", "sequences"] = "labels"
    reason: str = ""

    @property
    def width(self) -> float | None:
        """Upper less lower bound."""
        return None if self.lower is None or self.upper is None else self.upper - self.lower


def quotient(numerator: float, denominator: float) -> float | None:
    """None where there is nothing to divide by."""
    return numerator / denominator if denominator > 0 else None


def expansion(weights: Floats, population: int) -> Floats:
    """Weights (n,) that add up to ``population``: each record stands for itself and for its share of the others.

    Only the part above 1 is scaled, so that a record that was certain to be labelled stands for itself alone. Where
    all weights are equal the result is N / n, whatever they were: a choice known only to have been uniform.

    >>> expansion(np.array([1.0, 4.0, 4.0]), 11)
    array([1., 5., 5.])

    Raises:
        ValueError: there are more labels than records.
    """
    unlabelled = population - len(weights)
    if unlabelled < 0:
        raise ValueError(f"{len(weights)} labels in a window of {population} records")
    others = weights - 1
    if others.sum() <= 0:
        return np.full(len(weights), population / len(weights))
    return np.asarray(1 + others * (unlabelled / others.sum()))


def sums_by(clusters: NDArray[np.int64], *columns: Floats) -> tuple[Floats, ...]:
    """Sums (k,) of each column (n,) over the records of each cluster."""
    numbers, inverse = np.unique(clusters, return_inverse=True)
    return tuple(np.bincount(inverse, values, len(numbers)).astype(np.float64) for values in columns)


def more_units(units: int, with_class: int, least: int = LEAST_UNITS) -> int:
    """How many more units until ``least`` with the class are to be expected, at the share seen so far.

    Where none was seen, a share of half a unit is taken, so that the number grows with what was looked at in vain.

    >>> more_units(units=50, with_class=1), more_units(units=50, with_class=0), more_units(units=0, with_class=0)
    (50, 200, 2)
    """
    if units == 0:
        return least
    share = max(with_class, 0.5) / units
    return max(1, int(np.ceil((least - with_class) / share)))
