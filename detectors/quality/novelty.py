"""How unlike the baseline's records a record is: what a model has not seen it may be sure of, and wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOTABLE = 0.5
"""From where on a record is called novel: more than 1.85 times as far as the baseline's are on average."""


def novelty(where: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) 0..1, rising with the distance from the middle of the baseline's records.

    A record of the baseline lies at a squared distance of K on average, in K components of standard deviation 1: so
    far nothing is novel. Beyond it novelty is ``(1 - K / distance^2)^2``.

    It misleads where the baseline's records lie in several clusters far from their middle: between them nothing is
    novel by this measure, however empty it is there.

    Args:
        where: (N, K) components in the baseline's standard deviations; rows of zeros are not known, and not novel.

    >>> novelty(np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 1.0], [30.0, 10.0]])).round(2).tolist()
    [0.0, 0.0, 0.64, 1.0]
    """
    squared = (where**2).sum(axis=1)
    share = np.divide(where.shape[1], squared, out=np.ones(len(where)), where=squared > where.shape[1])
    found: NDArray[np.float64] = (1 - share) ** 2
    return found
