"""The geometry of masks from their runs, without painting a pixel: boundary, components, holes, overlap.

A mask of height H is a set of positions ``p = x * H + y``, kept as the intervals of its runs (column by column, as COCO
writes them). Its left neighbour is ``p - H``, and a run may go on from the foot of one column to the head of the next.
Everything here takes time and memory by the number of runs, never by the number of pixels.

*Boundary*: the sides of pixels between the mask and what is not the mask, the outside of the image included. A column's
interval has two of them above and below. To the left and right each pixel has two, less two for each pair of neighbours
``p, p + H`` in the mask; those pairs are the overlap of the intervals with themselves, moved by H.

*Components* (pixels that touch at a side or a corner belong together) *and holes* (what they enclose, joined at sides
alone): the intervals of one column, taken as closed rectangles, touch only those of the next column, and no three of
them meet in a point. So the mask has the shape of the graph of touching rectangles (nerve theorem): its components are
the graph's, found by union-find, and each edge within a component already joined closes a cycle around one hole.

Source: Freeman, Computer processing of line-drawing images, 1974 (boundaries of cells); Hatcher, Algebraic Topology,
2002, corollary 4G.3 (nerves).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.merge_sort import merge_sort


@dataclass(frozen=True, eq=False, slots=True)
class RunShapes:
    """What the runs of M masks of N records tell."""

    area: NDArray[np.int64]
    """(M,) pixels."""
    box: NDArray[np.int64]
    """(M, 4) x, y, width and height in pixels; zeros for empty masks."""
    boundary: NDArray[np.int64]
    """(M,) sides of pixels."""
    components: NDArray[np.float64]
    """(M,) and NaN where they were not looked for, as are the two below."""
    holes: NDArray[np.float64]
    overlap: NDArray[np.float64]
    """(N,) of the pixels of all instances, each counted as often as instances have it, the share that another instance
    of the same class has too. NaN for a record without pixels."""


def measure_runs(
    counts: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    height: NDArray[np.int64],
    offsets: NDArray[np.int64],
    kinds: NDArray[np.int64],
    dear: NDArray[np.bool_],
) -> RunShapes:
    """Measure M masks of N records.

    Args:
        counts: lengths of runs of zeros and ones in turn, of all masks.
        first, last: (M,) mask m has the counts ``[first[m], last[m])``, which are valid.
        height: (N,) of each record's masks, in pixels.
        offsets: (N + 1,) masks of record i are ``[offsets[i], offsets[i + 1])``.
        kinds: (M,) number of each mask's class.
        dear: (N,) whether to look for components, holes and overlap.

    >>> ring = np.array([0, 4, 1, 4])  # of 3 x 3, all but the middle
    >>> one = np.array([0])
    >>> found = measure_runs(ring, one, one + 4, one + 3, np.array([0, 1]), one, np.array([True]))
    >>> found.area.tolist(), found.boundary.tolist(), found.components.tolist(), found.holes.tolist()
    ([8], [16], [1.0], [1.0])
    """
    masks, records = len(first), len(dear)
    found = RunShapes(
        np.zeros(masks, np.int64),
        np.zeros((masks, 4), np.int64),
        np.zeros(masks, np.int64),
        np.full(masks, np.nan),
        np.full(masks, np.nan),
        np.full(records, np.nan),
    )
    outcome = (found.area, found.box, found.boundary, found.components, found.holes, found.overlap)
    _measure(counts, first, last, height, offsets, kinds, dear, *outcome)
    return found


@njit(cache=True, nogil=True)
def _measure(
    counts: Any,
    first: Any,
    last: Any,
    height: Any,
    offsets: Any,
    kinds: Any,
    dear: Any,
    area: Any,
    box: Any,
    boundary: Any,
    components: Any,
    holes: Any,
    overlap: Any,
) -> None:  # pragma: no cover
    starts, ends = np.empty(256, np.int64), np.empty(256, np.int64)
    nodes = np.empty((5, 256), np.int64)
    for record in range(len(dear)):
        begin, end = offsets[record], offsets[record + 1]
        room = 0
        for m in range(begin, end):
            room += (last[m] - first[m]) // 2
        if room > len(starts):
            starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        at = np.empty(end - begin + 1, np.int64)
        at[0] = 0
        n = np.int64(0)
        for m in range(begin, end):
            stop = _intervals(counts, first[m], last[m], starts, ends, n)
            at[m - begin + 1] = stop
            if stop > n:
                area[m], columns = _extent(starts, ends, n, stop, height[record], box[m])
                boundary[m] = 2 * (columns + area[m] - _neighbours(starts, ends, n, stop, height[record]))
            if dear[record]:
                if 3 * (stop - n) > nodes.shape[1]:
                    nodes = np.empty((5, 3 * (stop - n)), np.int64)
                components[m], holes[m] = _parts(starts, ends, n, stop, height[record], nodes)
            n = stop
        if dear[record]:
            overlap[record] = _overlap(starts, ends, at, kinds[begin:end])


@njit(cache=True, nogil=True)
def _intervals(counts: Any, first: Any, last: Any, starts: Any, ends: Any, n: Any) -> Any:  # pragma: no cover
    """Write the intervals of one mask from place n on, touching ones joined; the place after the last."""
    begin = n
    position = np.int64(0)
    for run in range(first + 1, last, 2):
        start = position + counts[run - 1]
        position = start + counts[run]
        if position == start:
            continue
        if n > begin and ends[n - 1] == start:
            ends[n - 1] = position
        else:
            starts[n], ends[n] = start, position
            n += 1
    return n


@njit(cache=True, nogil=True)
def _extent(starts: Any, ends: Any, begin: Any, stop: Any, height: Any, box: Any) -> Any:  # pragma: no cover
    """Pixels, and columns that the intervals cross, each counting for itself; writes the box.

    ``head`` is the position where the column begins in which an interval starts. Most start in the column after the
    last one's, so that a division is rare.
    """
    pixels, columns, x, head = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    left, right, top, bottom = np.int64(-1), np.int64(0), height, np.int64(0)
    for i in range(begin, stop):
        start, end = starts[i], ends[i]
        pixels += end - start
        if start - head >= height:
            step = np.int64(1) if start - head < 2 * height else (start - head) // height
            x += step
            head += step * height
        left = x if left < 0 else left
        if end - head <= height:
            columns += 1
            right = x
            top, bottom = min(top, start - head), max(bottom, end - head)
        else:
            right = x + (end - 1 - head) // height
            columns += right - x + 1
            top, bottom = np.int64(0), height
    box[0], box[1], box[2], box[3] = left, top, right - left + 1, bottom - top
    return pixels, columns


@njit(cache=True, nogil=True)
def _neighbours(starts: Any, ends: Any, begin: Any, stop: Any, height: Any) -> Any:  # pragma: no cover
    """Pairs of pixels side by side, without a branch: which of two intervals ends first is as good as random."""
    pairs = np.int64(0)
    i, j = begin, begin
    while i < stop and j < stop:
        moved, other = ends[i] + height, ends[j]
        pairs += max(np.int64(0), min(moved, other) - max(starts[i] + height, starts[j]))
        i += np.int64(moved <= other)
        j += np.int64(other <= moved)
    return pairs


@njit(cache=True, nogil=True)
def _parts(starts: Any, ends: Any, begin: Any, stop: Any, height: Any, nodes: Any) -> Any:  # pragma: no cover
    """Components and holes. ``nodes``: room for three rectangles an interval."""
    total = _rectangles(starts, ends, begin, stop, height, nodes)
    left, right, top, bottom, parent = nodes[0], nodes[1], nodes[2], nodes[3], nodes[4]
    components, holes = total, 0
    before, here = 0, 0
    # Both sides of the rectangles ascend, so that those that end where others start lie side by side.
    while here < total:
        x = left[here]
        after = here
        while after < total and left[after] == x:
            after += 1
        while right[before] < x:
            before += 1
        i, j = before, here
        while i < here and j < after and right[i] == x:
            if top[i] <= bottom[j] and top[j] <= bottom[i]:
                a, b = _root(parent, i), _root(parent, j)
                if a == b:
                    holes += 1
                else:
                    parent[max(a, b)] = min(a, b)
                    components -= 1
            if bottom[i] < bottom[j]:
                i += 1
            else:
                j += 1
        here = after
    return components, holes


@njit(cache=True, nogil=True)
def _rectangles(starts: Any, ends: Any, begin: Any, stop: Any, height: Any, nodes: Any) -> Any:  # pragma: no cover
    """An interval's first column, its full columns as one rectangle however many they are, and its last column."""
    left, right, top, bottom, parent = nodes[0], nodes[1], nodes[2], nodes[3], nodes[4]
    n, x, head = 0, np.int64(0), np.int64(0)
    for i in range(begin, stop):
        start, end = starts[i], ends[i]
        if start - head >= height:
            step = np.int64(1) if start - head < 2 * height else (start - head) // height
            x += step
            head += step * height
        y = start - head
        if end - head <= height:
            left[n], right[n], top[n], bottom[n], parent[n] = x, x + 1, y, end - head, n
            n += 1
            continue
        final = x + (end - 1 - head) // height
        foot = end - head - (final - x) * height
        full = x
        if y > 0:
            left[n], right[n], top[n], bottom[n], parent[n] = x, x + 1, y, height, n
            n += 1
            full += 1
        until = final + 1 if foot == height else final
        if until > full:
            left[n], right[n], top[n], bottom[n], parent[n] = full, until, 0, height, n
            n += 1
        if foot < height:
            left[n], right[n], top[n], bottom[n], parent[n] = final, final + 1, 0, foot, n
            n += 1
    return n


@njit(cache=True, nogil=True)
def _root(parent: Any, node: Any) -> Any:  # pragma: no cover
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True)
def _overlap(starts: Any, ends: Any, at: Any, kinds: Any) -> Any:  # pragma: no cover
    """Mask m has the intervals ``[at[m], at[m + 1])``."""
    total, covered = np.int64(0), np.int64(0)
    for i in range(at[-1]):
        total += ends[i] - starts[i]
    if total == 0:
        return np.nan
    order = np.argsort(kinds, kind="mergesort")
    a = 0
    while a < len(order):
        b = a
        size = np.int64(0)
        while b < len(order) and kinds[order[b]] == kinds[order[a]]:
            size += at[order[b] + 1] - at[order[b]]
            b += 1
        if b - a > 1:
            opened, closed = np.empty(size, np.int64), np.empty(size, np.int64)
            n = 0
            for k in range(a, b):
                for i in range(at[order[k]], at[order[k] + 1]):
                    opened[n], closed[n] = starts[i], ends[i]
                    n += 1
            merge_sort(opened)
            merge_sort(closed)
            covered += _covered(opened, closed)
        a = b
    return covered / total


@njit(cache=True, nogil=True)
def _covered(opened: Any, closed: Any) -> Any:  # pragma: no cover
    """Pixels in two intervals or more, each as often as it is covered; ends of intervals in ascending order."""
    covered, depth, position = np.int64(0), np.int64(0), np.int64(0)
    i, j = 0, 0
    while i < len(opened):
        starts = opened[i] < closed[j]
        now = opened[i] if starts else closed[j]
        if depth > 1:
            covered += depth * (now - position)
        position = now
        if starts:
            depth += 1
            i += 1
        else:
            depth -= 1
            j += 1
    while j < len(closed) and depth > 1:
        covered += depth * (closed[j] - position)
        position = closed[j]
        depth -= 1
        j += 1
    return covered
