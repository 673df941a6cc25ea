"""Masks as CVAT has them: lengths of runs of zeros and ones in turn, row by row within the mask's box, zeros first.

The box is what the mask spans; an empty mask has a box of one pixel at the origin. Runs along the columns of the whole
image, as COCO's RLE has them, are turned into these and back without painting.

Source: CVAT's ``cvat_sdk.masks`` (points of a shape of type ``mask``, less the box at their end), and its XML format.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.run_order import MAX_RUNS, Runs, transpose_runs


class Box(NamedTuple):
    """In pixels of the image."""

    left: int
    top: int
    width: int
    height: int


def box_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int) -> tuple[NDArray[np.int64], Box]:
    """Runs down the columns of an image of this height to counts within their box.

    >>> counts, box = box_runs(np.array([5, 8]), np.array([6, 9]), height=3)
    >>> counts.tolist(), box
    ([0, 2], Box(left=1, top=2, width=2, height=1))
    """
    if not len(starts):
        return np.array([1]), Box(0, 0, 1, 1)
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    first = starts // height
    crosses = ends > (first + 1) * height
    top = 0 if crosses.any() else int((starts - first * height).min())
    bottom = height if crosses.any() else int((ends - first * height).max())
    box = Box(left, top, right - left, bottom - top)
    rows = transpose_runs(starts, ends, height, box.width, line_shift=-left, place_shift=-top)
    return counts_of_runs(*rows, box.width * box.height), box


def runs_of_box(counts: NDArray[np.int64], box: Box, height: int, width: int, most: int = MAX_RUNS) -> Runs:
    """Runs down the columns of an image, from counts within a box.

    Raises:
        ValueError: the box is empty or leaves the image; counts that are negative or do not add up to the box; more
            than ``most`` runs.

    >>> starts, ends = runs_of_box(np.array([0, 2]), Box(1, 2, 2, 1), height=3, width=4)
    >>> starts.tolist(), ends.tolist()
    ([5, 8], [6, 9])
    """
    if box.width < 1 or box.height < 1 or box.left < 0 or box.top < 0:
        raise ValueError(f"a box of {box.width} x {box.height} at {box.left}, {box.top}")
    if box.left + box.width > width or box.top + box.height > height:
        raise ValueError(f"the box leaves the image of {height} x {width}")
    pixels = box.width * box.height
    if len(counts) and (int(counts.min()) < 0 or int(counts.max()) > pixels):
        raise ValueError("a count is negative, or more than the box has pixels")
    if int(counts.sum()) != pixels:
        raise ValueError(f"the counts add up to {int(counts.sum())}, the box has {pixels} pixels")
    starts, ends = runs_of_counts(counts)
    return transpose_runs(starts, ends, box.width, height, line_shift=box.top, place_shift=box.left, most=most)


def counts_of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Lengths of zeros and ones in turn, zeros first; zeros at the end are there where there are any.

    >>> counts_of_runs(np.array([1]), np.array([3]), 4).tolist()
    [1, 2, 1]
    >>> counts_of_runs(np.array([0]), np.array([4]), 4).tolist()
    [0, 4]
    """
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, pixels
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    counts = np.diff(edges)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def runs_of_counts(counts: NDArray[np.int64]) -> Runs:
    """The ones among lengths of zeros and ones in turn; empty runs are left out, and those that touch are joined.

    >>> starts, ends = runs_of_counts(np.array([1, 2, 0, 1]))
    >>> starts.tolist(), ends.tolist()
    ([1], [4])
    """
    edges = np.concatenate([[0], np.cumsum(counts)])
    starts, ends = edges[1:-1:2], edges[2::2]
    kept = ends > starts
    starts, ends = starts[kept], ends[kept]
    apart = np.flatnonzero(starts[1:] != ends[:-1])
    return starts[np.concatenate([[0], apart + 1])[: len(starts)]], ends[np.append(apart, len(ends) - 1)[: len(ends)]]
