"""Boundary IoU of semantic maps: the same ratio as IoU, over the pixels that lie near an edge of their own mask.

IoU of a large region hardly notices a ragged outline; the pixels within ``d`` of the outline do. A pixel lies near the
edge of its class when the square of ``2 d + 1`` pixels around it reaches into another class or out of the image; this
is what ``d`` erosions with a 3 x 3 element take away. As every pixel has one class, one pass over the map finds the
edges of all classes: the square is of one class when ``2 d + 1`` rows in turn are so in ``2 d + 1`` columns, and those
rows agree.

Source: Cheng et al., Boundary IoU, CVPR 2021 (arXiv 2103.16562): d is 2 % of the image's diagonal, at least 1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from detectors.quality.boundary import boundary_width


def boundary_sums(
    predicted: NDArray[np.int32], labelled: NDArray[np.int32], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(C,) pixels of the intersections and of the unions of the boundary regions of each class.

    Args:
        predicted: (H, W) positions 0..C, in C order.
        labelled: (H, W) positions 0..C + 1, where C + 1 is void. Void is taken over into the prediction, so that its
            outline is the same on both sides and a prediction that is right everywhere else scores 1.
    """
    near = boundary_width(*predicted.shape)
    sums = np.zeros((3, classes + 2), np.int64)
    predicted = np.where(labelled == classes + 1, labelled, predicted)
    _add_boundaries(predicted, _inside(predicted, near), labelled, _inside(labelled, near), sums)
    intersection, first, second = sums[:, :classes]
    return intersection, first + second - intersection


@numba.njit(cache=True, nogil=True)
def _inside(positions: Any, near: int) -> Any:
    """(H, W) bool: the square around the pixel lies in the image and in one class."""
    height, width = positions.shape
    inside = np.zeros((height, width), np.bool_)
    side = 2 * near + 1
    if height < side or width < side:
        return inside
    held = np.zeros(width, np.int32)  # class of the row's stretch around the pixel, from 1; 0 where it is mixed
    stretch = np.empty(width, np.int32)
    agreeing = np.zeros(width, np.int32)  # rows in turn that have the same class there
    for y in range(height):
        stretch[:] = 0
        start = 0
        for x in range(1, width + 1):
            if x == width or positions[y, x] != positions[y, start]:
                for inner in range(start + near, x - near):
                    stretch[inner] = positions[y, start] + 1
                start = x
        for x in range(width):
            agreeing[x] = agreeing[x] + 1 if stretch[x] == held[x] else 1
            held[x] = stretch[x]
        if y >= side - 1:
            for x in range(width):
                inside[y - near, x] = (held[x] > 0) & (agreeing[x] >= side)
    return inside


@numba.njit(cache=True, nogil=True)
def _add_boundaries(predicted: Any, predicted_inside: Any, labelled: Any, labelled_inside: Any, sums: Any) -> None:
    for y in range(predicted.shape[0]):
        for x in range(predicted.shape[1]):
            first, second = predicted[y, x], labelled[y, x]
            near_first, near_second = not predicted_inside[y, x], not labelled_inside[y, x]
            sums[0, first] += near_first & near_second & (first == second)
            sums[1, first] += near_first
            sums[2, second] += near_second
