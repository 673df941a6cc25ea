"""Signal `cooccurrence`: which classes the model finds together in one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.features import Features

MOST_NAMED = 8
"""Up to so many classes every pair has its column: 28 at most."""
BUCKETS = 31
"""With the column of distinct classes 32; a prime."""
LABELS = np.array([pow(3, index, BUCKETS) for index in range(BUCKETS - 1)])
"""The label of class i is that of i mod 30. Powers of a primitive root are all different, and their sums spread: 3 of
the 36 pairs of 9 classes share a column at most, 7 of the 171 of 19."""
PRESENT_SHARE = 0.001
"""A semantic map shows a class that has more than this share of its pixels: 2,000 of 1920 x 1080. Less is often the
rim of something else."""


class Cooccurrence:
    """Per record and pair of classes whether both are there; for more than eight classes, counts of pairs.

    Then the pair of the i-th and j-th class (from 0) counts in column ``pairs_XX`` with XX = (3^i + 3^j) mod 31, and
    ``distinct`` is the number of distinct classes. As in the schedule of a round-robin tournament, of up to 30 classes
    none meets two others in one column, so that the pairs of one frequent class do not hide each other.
    `pairs_of` reads a column back.

    A class is there where the record lists an instance of it, or, without a list, where it has more than 0.1 % of the
    semantic map's pixels. Classes that the baseline does not know form no pairs. Neither list nor map: no value.
    """

    name = "cooccurrence"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        if len(classes) <= MOST_NAMED:
            return tuple(f"{_escaped(first)}+{_escaped(second)}" for first, second in combinations(classes, 2))
        return (*(f"pairs_{bucket:02}" for bucket in range(BUCKETS)), "distinct")

    def values(self, features: Features) -> NDArray[np.float64]:
        present = _present(features)
        known = features.has_instances | ~np.isnan(features.class_shares[:, 0])
        if features.classes <= MOST_NAMED:
            first, second = _pairs(features.classes)
            return np.where(known[:, None], present[:, first] & present[:, second], np.nan)
        out = np.zeros((len(features), BUCKETS + 1))
        _count(present, LABELS[np.arange(features.classes) % len(LABELS)], out)
        out[~known] = np.nan
        return out


def pairs_of(bucket: int, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that column ``pairs_XX`` counts, for more than eight classes.

    >>> pairs_of(10, ["sky", "road", "car", "tree", "rider", "bus", "sign", "wall", "pole"])
    [('sky', 'car')]
    """
    labels = LABELS[np.arange(len(classes)) % len(LABELS)]
    return [
        (first, classes[i + 1 + j])
        for i, first in enumerate(classes)
        for j in np.flatnonzero((labels[i] + labels[i + 1 :]) % BUCKETS == bucket).tolist()
    ]


@lru_cache(maxsize=MOST_NAMED + 1)
def _pairs(classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes of each column's pair, in the order of `itertools.combinations`."""
    return np.triu_indices(classes, 1)


def _escaped(name: str) -> str:
    """So that "a+b" with "c" is not "a" with "b+c"."""
    return name.replace("\\", "\\\\").replace("+", "\\+")


def _present(features: Features) -> NDArray[np.bool_]:
    """(N, C) whether a record shows a class that the baseline knows."""
    present = (features.class_shares > PRESENT_SHARE) & ~features.has_instances[:, None]
    owner = np.repeat(np.arange(len(features)), np.diff(features.instance_offsets))
    present[owner, features.instance_class] = True
    return present[:, :-1]


@njit(cache=True, nogil=True)
def _count(present, labels, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows, classes = present.shape
    found = np.empty(classes, dtype=np.int64)
    for row in range(rows):
        count = 0
        for j in range(classes):
            if present[row, j]:
                for i in range(count):
                    out[row, (labels[found[i]] + labels[j]) % BUCKETS] += 1
                found[count] = j
                count += 1
        out[row, BUCKETS] = count
