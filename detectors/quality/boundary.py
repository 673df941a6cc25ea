"""Boundary IoU: how well contours agree, where plain IoU of large masks hides it.

The boundary of a mask is its pixels within d of what is not the mask, the outside of the image included, counted in
king's moves: the mask less its erosion by a square of 2d + 1. d is 2 % of the image's diagonal, at least a pixel.
Boundary IoU is the IoU of two masks' boundaries. For a class, the boundaries of its instances are united on each side,
so that the line between two instances that touch counts, and missed and invented instances do as well. For one
instance a side this is the figure of the paper.

The erosion is done on runs: each column's intervals shrink by d above and below, and the intersection of 2d + 1
neighbouring columns comes by doubling (of 1, 2, 4, ... columns, each from the one before, moved). Nothing is decoded;
the time goes by runs times log d.

Source: Cheng et al., Boundary IoU, CVPR 2021 (arXiv 2103.16562), whose ratio 0.02 this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.quality.mask_runs import (
    CROWD,
    LABELLED,
    PREDICTED,
    SHIELD,
    MaskRuns,
    Rle,
    add_events,
    read_runs,
    sum_events,
)

RATIO = 0.02


def boundary_width(height: int, width: int, ratio: float = RATIO) -> int:
    """d in pixels.

    >>> boundary_width(480, 640), boundary_width(10, 10)
    (16, 1)
    """
    return max(1, round(ratio * float(np.hypot(height, width))))


def boundary_pixels(predicted: Sequence[Rle], labelled: Sequence[Rle], ratio: float = RATIO) -> tuple[int, int]:
    """Intersection and union, in pixels, of the boundaries of two sets of masks of one class.

    Raises:
        ValueError: as `read_runs`.

    >>> flat, square = {"size": [4, 5], "counts": b"5220003"}, {"size": [4, 5], "counts": b"5310003"}
    >>> boundary_pixels([flat], [square])  # 2 x 3 pixels, and 3 x 3 with one in the middle
    (5, 9)
    """
    runs = read_runs([*predicted, *labelled])
    roles = np.full(len(runs.area), LABELLED, np.int64)
    roles[: len(predicted)] = PREDICTED
    ((intersection, union),) = boundary_sums(runs, np.zeros(len(roles), np.int64), roles, 1, ratio).tolist()
    return intersection, union


def boundary_sums(
    runs: MaskRuns, kinds: NDArray[np.int64], roles: NDArray[np.int64], classes: int, ratio: float = RATIO
) -> NDArray[np.int64]:
    """(C, 2) intersection and union of each class's boundaries, in pixels; arguments as for `class_sums`."""
    sums = np.zeros((classes, 2), np.int64)
    height, width = runs.size
    _class_boundaries(
        runs.starts, runs.ends, runs.offsets, roles, kinds, height, boundary_width(height, width, ratio), sums
    )
    return sums


@njit(cache=True, nogil=True)
def _class_boundaries(
    starts: Any, ends: Any, offsets: Any, roles: Any, kinds: Any, height: Any, d: Any, sums: Any
) -> None:  # pragma: no cover
    order = np.argsort(kinds, kind="mergesort")
    a = 0
    while a < len(order):
        b, kind = a, kinds[order[a]]
        events, n = np.empty(256, np.int64), 0
        while b < len(order) and kinds[order[b]] == kind:
            m = order[b]
            b += 1
            first, last = offsets[m], offsets[m + 1]
            if kind >= len(sums) or first == last:
                continue
            inner, inner_ends = _erode(starts[first:last], ends[first:last], height, d)
            need = n + 4 * (last - first) + 2 * len(inner)
            if need > len(events):
                longer = np.empty(2 * need, np.int64)
                longer[:n] = events[:n]
                events = longer
            n = add_events(events, n, starts, ends, first, last, roles[m], 1)
            if roles[m] != CROWD:
                n = add_events(events, n, inner, inner_ends, 0, len(inner), roles[m], -1)
            if roles[m] == LABELLED:
                n = add_events(events, n, starts, ends, first, last, SHIELD, 1)
        if n > 0:
            predicted, labelled, both, _ = sum_events(events[:n])
            sums[kind, 0], sums[kind, 1] = both, predicted + labelled - both
        a = b


@njit(cache=True, nogil=True)
def _erode(starts: Any, ends: Any, height: Any, d: Any) -> Any:  # pragma: no cover
    """The runs whose pixels have the whole square of 2d + 1 around them in the mask."""
    here, here_ends = _shrink(starts, ends, height, d)
    columns = 1
    while columns < 2 * d + 1 and len(here) > 0:
        step = min(columns, 2 * d + 1 - columns)
        here, here_ends = _with_later(here, here_ends, step * height)
        columns += step
    return here + d * height, here_ends + d * height


@njit(cache=True, nogil=True)
def _shrink(starts: Any, ends: Any, height: Any, d: Any) -> Any:  # pragma: no cover
    """Each column's part of each run, without its first and last d pixels."""
    room = 0
    for run in range(len(starts)):
        room += (ends[run] - 1) // height - starts[run] // height + 1
    shrunk, shrunk_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    n = 0
    for run in range(len(starts)):
        position, end = starts[run], ends[run]
        while position < end:
            foot = min(end, (position // height + 1) * height)
            if foot - position > 2 * d:
                shrunk[n], shrunk_ends[n] = position + d, foot - d
                n += 1
            position = foot
    return shrunk[:n], shrunk_ends[:n]


@njit(cache=True, nogil=True)
def _with_later(starts: Any, ends: Any, shift: Any) -> Any:  # pragma: no cover
    """The intersection of runs with the same runs moved to the left by ``shift`` positions."""
    both, both_ends = np.empty(2 * len(starts), np.int64), np.empty(2 * len(starts), np.int64)
    i, j, n = np.int64(0), np.int64(0), np.int64(0)
    while i < len(starts) and j < len(starts):
        end_i, end_j = ends[i], ends[j] - shift
        first, last = max(starts[i], starts[j] - shift), min(end_i, end_j)
        both[n], both_ends[n] = first, last
        n += np.int64(first < last)
        i += np.int64(end_i <= end_j)
        j += np.int64(end_j <= end_i)
    return both[:n], both_ends[:n]
