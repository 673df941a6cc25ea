"""Records of two versions to the units of the sequential test: sequences, in the order in which they were labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.canary.sequential import Differences
from detectors.quality.ratio import Floats


@dataclass(frozen=True, slots=True, eq=False)
class VersionSums:
    """One version's numerators and denominators, weighted and added up by sequence; K sequences, C classes."""

    numerator: Floats
    """(K, C)"""
    denominator: Floats
    """(K, C)"""
    images: NDArray[np.int64]
    """(K,) records."""


def by_sequence(numerator: Floats, denominator: Floats, weights: Floats, clusters: NDArray[np.int64]) -> VersionSums:
    """Sums over records (n, C) in the order given; sequences come in the order of their first record.

    >>> sums = by_sequence(np.ones((3, 1)), np.full((3, 1), 2.0), np.ones(3), np.array([7, 4, 7]))
    >>> sums.denominator.tolist(), sums.images.tolist()
    ([[4.0], [2.0]], [2, 1])
    """
    numbers, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    rank = np.empty(len(numbers), np.int64)
    rank[np.argsort(first)] = np.arange(len(numbers))
    place = rank[inverse]
    shape = (len(numbers), numerator.shape[1])
    sums = np.zeros((2, *shape))
    for total, values in zip(sums, (numerator, denominator), strict=True):
        np.add.at(total, place, values * weights[:, None])
    return VersionSums(sums[0], sums[1], np.bincount(place, minlength=len(numbers)).astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class ClassUnits:
    """A class's differences, and at which of all K units each of them stands."""

    places: NDArray[np.int64]
    differences: Differences


def units_of(stable: VersionSums, canary: VersionSums, *, paired: bool) -> tuple[list[ClassUnits], ClassUnits]:
    """Each class's units, and those of the mean over classes.

    Paired: unit k is sequence k of both versions. A version without any pixel of the class in a sequence where the
    other has some was right or wrong by that alone: its IoU is 1 where the label has none either (denominator 0). The
    unit's size is the larger denominator.

    Otherwise the k-th sequence of one version meets the k-th of the other, which is fair where traffic is split at
    random; its size is the harmonic mean, so that a class which only one of the two has counts for nothing.

    The mean over classes weighs each class's unit by its `Differences.capped`: a few invented pixels of a class that
    is not there count as few.
    """
    count = min(len(stable.images), len(canary.images))
    first, second = (one.denominator[:count] for one in (stable, canary))
    size = np.maximum(first, second) if paired else _harmonic(first, second)
    difference = _ratio(canary.numerator[:count], second) - _ratio(stable.numerator[:count], first)
    images = np.maximum(stable.images[:count], canary.images[:count])
    classes = []
    weighted, shares = np.zeros(count), np.zeros(count)
    for column in range(size.shape[1]):
        places = np.flatnonzero(size[:, column] > 0)
        units = Differences(difference[places, column], size[places, column], images[places])
        classes.append(ClassUnits(places, units))
        weighted[places] += units.capped * units.difference
        shares[places] += units.capped
    places = np.flatnonzero(shares > 0)
    mean = Differences(weighted[places] / shares[places], shares[places], images[places])
    return classes, ClassUnits(places, mean)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    ratio = np.ones_like(numerator)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return np.clip(ratio, 0.0, 1.0)


def _harmonic(first: Floats, second: Floats) -> Floats:
    mean = np.zeros_like(first)
    np.divide(2 * first * second, first + second, out=mean, where=first + second > 0)
    return mean
