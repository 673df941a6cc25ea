"""A sort that no order of its input makes slow.

Numba's own takes the middle of three as its pivot, and there are orders on which that takes the square of the time;
positions that come out of somebody's masks may be in just such an order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def merge_sort(values: Any) -> None:  # pragma: no cover
    """Sort (n,) integers in place: natural merge sort, n log2(k) steps for k ascending stretches.

    >>> values = np.array([3, 5, 9, 1, 5, 7, 2])
    >>> merge_sort(values)
    >>> values.tolist()
    [1, 2, 3, 5, 5, 7, 9]

    Source: Knuth, The Art of Computer Programming, volume 3, section 5.2.4.
    """
    n = len(values)
    bounds = np.empty(n + 1, np.int64)
    bounds[0] = 0
    stretches = 0
    for i in range(1, n + 1):
        if i == n or values[i] < values[i - 1]:
            stretches += 1
            bounds[stretches] = i
    here, there = values, np.empty_like(values) if stretches > 1 else values
    while stretches > 1:
        merged = 0
        for pair in range(0, stretches, 2):
            first = bounds[pair]
            middle, last = bounds[min(pair + 1, stretches)], bounds[min(pair + 2, stretches)]
            _merge(here, there, first, middle, last)
            merged += 1
            bounds[merged] = last
        stretches = merged
        here, there = there, here
    values[:] = here


@njit(cache=True, nogil=True)
def _merge(here: Any, there: Any, first: Any, middle: Any, last: Any) -> None:  # pragma: no cover
    """Without a branch on the values, which are as good as random."""
    i, j, k = first, middle, first
    while i < middle and j < last:
        a, b = here[i], here[j]
        later = np.int64(b < a)
        there[k] = b if later else a
        i, j, k = i + 1 - later, j + later, k + 1
    there[k : k + middle - i] = here[i:middle]
    there[k + middle - i : last] = here[j:last]
