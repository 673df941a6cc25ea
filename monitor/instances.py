"""The instances of many records, column by column: what the signals and the totals behind the metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Columns over the M instances of N records.

    >>> columns = instances_of([["car", "cat"], None, ["car"]], [[0.9, 0.4], [], [0.5]], {"bus": 0, "car": 1})
    >>> columns.kinds.tolist(), columns.offsets.tolist(), columns.listed.tolist()
    ([1, 2, 1], [0, 2, 2, 3], [True, False, True])
    >>> columns.where(np.array([False, True, True])).scores.tolist()
    [0.5]
    """

    offsets: NDArray[np.int64]
    """(N + 1,) instances of record i are ``[offsets[i], offsets[i + 1])``."""
    kinds: NDArray[np.int64]
    """(M,) position of the class, 0..C; C for one that is not known."""
    scores: NDArray[np.float64]
    """(M,) in 0..1."""
    listed: NDArray[np.bool_]
    """(N,) whether the record has a list of instances at all; an empty one is a list."""

    def where(self, chosen: NDArray[np.bool_]) -> Instances:
        """Those of the records that are ``chosen``, (N,)."""
        sizes = np.diff(self.offsets)
        kept = np.repeat(chosen, sizes)
        return Instances(_offsets(sizes[chosen]), self.kinds[kept], self.scores[kept], self.listed[chosen])

    def mean_scores(self) -> list[float | None]:
        """Of each record; None for one without instances."""
        sizes = np.diff(self.offsets)
        means: list[float | None] = [None] * len(sizes)
        filled = np.flatnonzero(sizes)
        if len(filled):
            # Empty records own no scores, so the starts of the filled ones alone cut the column without gaps.
            sums = np.add.reduceat(self.scores, self.offsets[filled])
            for row, mean in zip(filled.tolist(), (sums / sizes[filled]).tolist(), strict=True):
                means[row] = mean
        return means


def instances_of(
    names: Sequence[Sequence[str] | None], scores: Sequence[Sequence[float]], position: Mapping[str, int]
) -> Instances:
    """Columns of N records' class names (None: no list of instances) and scores; ``position`` of the C classes."""
    unknown = len(position)
    every = list(chain.from_iterable(each for each in names if each))
    return Instances(
        _offsets(np.array([len(each) if each else 0 for each in names], dtype=np.int64)),
        np.array([position.get(name, unknown) for name in every], dtype=np.int64),
        np.array(list(chain.from_iterable(scores)), dtype=np.float64),
        np.array([each is not None for each in names], dtype=np.bool_),
    )


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
