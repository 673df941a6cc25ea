"""Polygons as runs: which pixels of which column lie in them, without painting.

A pixel belongs to a polygon when its centre does, by the even-odd rule; a mask of several polygons is their union. Each
edge is cut with the centre lines of the columns that it spans; sorted, the cuts of a column are its runs' ends. The
cost goes by the number of cuts, so a record may ask for `MAX_CUTS` of them and no more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.merge_sort import merge_sort

MAX_CUTS = 1 << 17
"""Of a record's polygons together: 500 instances 130 columns wide, and 1 MiB. Three points may span 10^7 columns."""


def measure_outlines(
    coordinates: NDArray[np.float64], polygons: NDArray[np.int64], masks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(M,) sum over the edges of ``|dx| + |dy|``: the sides of pixels along an outline, were the pixels small.

    Mask m has the polygons ``[masks[m], masks[m + 1])``, polygon p the coordinates ``[polygons[p], polygons[p + 1])``,
    which are ``x1, y1, x2, y2, ...`` in pixels.

    >>> measure_outlines(np.array([0.0, 0, 4, 0, 0, 3]), np.array([0, 6]), np.array([0, 1])).tolist()
    [14.0]
    """
    lengths = np.zeros(len(masks) - 1)
    _outlines(coordinates, polygons, masks, lengths)
    return lengths


def polygon_runs(
    coordinates: NDArray[np.float64],
    polygons: NDArray[np.int64],
    masks: NDArray[np.int64],
    canvas: NDArray[np.int64],
    records: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The runs of M masks of N records, each record's on its canvas.

    Args:
        coordinates, polygons, masks: as for `measure_outlines`.
        canvas: (N, 4) x, y, width and height in pixels; what lies outside is cut off.
        records: (N + 1,) masks of record i are ``[records[i], records[i + 1])``.

    Returns:
        Counts of zeros and ones in turn, without the zeros at the end; (M + 1,) where each mask's begin; (N,) whether
        a record has runs: False where it would take more than `MAX_CUTS` cuts.

    >>> square, one = np.array([1.0, 0, 3, 0, 3, 2, 1, 2]), np.array([0, 1])
    >>> counts, offsets, done = polygon_runs(square, np.array([0, 8]), one, np.array([[0, 0, 5, 4]]), one)
    >>> counts.tolist(), offsets.tolist(), done.tolist()
    ([4, 2, 2, 2], [0, 4], [True])
    """
    cuts = np.zeros(len(canvas), np.int64)
    _count_cuts(coordinates, polygons, masks, canvas, records, cuts)
    done = cuts <= MAX_CUTS
    counts = np.empty(int(cuts[done].sum()), np.int64)
    offsets = np.zeros(len(masks), np.int64)
    used = _runs(coordinates, polygons, masks, canvas, records, done, int(cuts[done].max(initial=0)), counts, offsets)
    return counts[:used], offsets, done


@njit(cache=True, nogil=True)
def _outlines(coordinates: Any, polygons: Any, masks: Any, lengths: Any) -> None:  # pragma: no cover
    for m in range(len(lengths)):
        for polygon in range(masks[m], masks[m + 1]):
            first, last = polygons[polygon], polygons[polygon + 1]
            xp, yp = coordinates[last - 2], coordinates[last - 1]
            for p in range(first, last, 2):
                x, y = coordinates[p], coordinates[p + 1]
                lengths[m] += abs(x - xp) + abs(y - yp)
                xp, yp = x, y


@njit(cache=True, nogil=True)
def _columns(a: Any, b: Any, x: Any, width: Any) -> Any:  # pragma: no cover
    """Columns ``[first, last)`` of the canvas whose centre lines lie in [min(a, b), max(a, b))."""
    first = np.int64(np.ceil(min(a, b) - 0.5)) - x
    last = np.int64(np.ceil(max(a, b) - 0.5)) - x
    return max(np.int64(0), first), min(width, last)


@njit(cache=True, nogil=True)
def _count_cuts(
    coordinates: Any, polygons: Any, masks: Any, canvas: Any, records: Any, cuts: Any
) -> None:  # pragma: no cover
    for record in range(len(cuts)):
        x, width = canvas[record, 0], canvas[record, 2]
        for polygon in range(masks[records[record]], masks[records[record + 1]]):
            first, last = polygons[polygon], polygons[polygon + 1]
            before = coordinates[last - 2]
            for p in range(first, last, 2):
                low, high = _columns(before, coordinates[p], x, width)
                cuts[record] += max(np.int64(0), high - low)
                before = coordinates[p]


@njit(cache=True, nogil=True)
def _runs(
    coordinates: Any,
    polygons: Any,
    masks: Any,
    canvas: Any,
    records: Any,
    done: Any,
    room: Any,
    counts: Any,
    offsets: Any,
) -> Any:  # pragma: no cover
    cuts = np.empty(room, np.int64)
    starts, ends = np.empty(room // 2, np.int64), np.empty(room // 2, np.int64)
    used = 0
    for record in range(len(done)):
        for m in range(records[record], records[record + 1]):
            if done[record]:
                found = 0
                for polygon in range(masks[m], masks[m + 1]):
                    part = coordinates[polygons[polygon] : polygons[polygon + 1]]
                    found = _fill(part, canvas[record], cuts, starts, ends, found)
                used = _write(starts[:found], ends[:found], masks[m + 1] - masks[m] > 1, counts, used)
            offsets[m + 1] = used
    return used


@njit(cache=True, nogil=True)
def _fill(part: Any, canvas: Any, cuts: Any, starts: Any, ends: Any, found: Any) -> Any:  # pragma: no cover
    """Write one polygon's intervals from place ``found`` on; the place after the last.

    A cut is one integer, its column times (height + 1) plus the first row whose centre lies below it, so that sorting
    brings each column's cuts together; a closed outline has an even number of them in each.
    """
    left, top, width, height = canvas[0], canvas[1], canvas[2], canvas[3]
    n = 0
    xp, yp = part[-2], part[-1]
    for p in range(0, len(part), 2):
        x, y = part[p], part[p + 1]
        low, high = _columns(xp, x, left, width)
        for column in range(low, high):
            cut = yp + (y - yp) * ((column + left + 0.5 - xp) / (x - xp))
            row = np.int64(np.ceil(cut - 0.5)) - top
            cuts[n] = column * (height + 1) + min(max(row, np.int64(0)), height)
            n += 1
        xp, yp = x, y
    merge_sort(cuts[:n])
    for k in range(0, n, 2):
        if cuts[k + 1] > cuts[k]:
            column = cuts[k] // (height + 1)  # each column before this one has one place more than it has rows
            starts[found], ends[found] = cuts[k] - column, cuts[k + 1] - column
            found += 1
    return found


@njit(cache=True, nogil=True)
def _write(starts: Any, ends: Any, mixed: Any, counts: Any, used: Any) -> Any:  # pragma: no cover
    """The union of intervals as counts; ``mixed``: they come from several polygons and are in no order."""
    if mixed:
        order = np.argsort(starts, kind="mergesort")
        starts, ends = starts[order], ends[order]
    position = np.int64(0)
    k = 0
    while k < len(starts):
        start, end = starts[k], ends[k]
        k += 1
        while k < len(starts) and starts[k] <= end:
            end = max(end, ends[k])
            k += 1
        counts[used], counts[used + 1] = start - position, end - start
        used += 2
        position = end
    return used
