"""The masks of one image, checked against its size before anything paints them.

Tools write polygons that reach a little over the image's edge, and painters clip them. Farther out a polygon is no
annotation of this image (coordinates of another scale, x and y swapped), and painting it would cost memory by its
length: pycocotools keeps 40 bytes for each pixel of an outline, inside the image or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from monitor.masks import FAULTS, Mask, Rle, check_masks, offsets_of

MAX_OUTLINE = 4_000_000
"""Pixels that the outlines of one image's masks may pass, all together: 160 MB in pycocotools where it is one mask. An
outline that follows every second column of a 2,000 x 4,000 image is as long."""


def first_fault(masks: Sequence[Mask], height: int, width: int, max_pixels: int) -> tuple[int, str] | None:
    """Position of the first mask that is not valid for an image of this size, and what is wrong with it.

    >>> first_fault([Rle((2, 2), "121"), Rle((2, 3), "33")], 2, 2, 100)
    (1, "size is [2, 3], the image's [2, 2]")
    """
    fault = check_masks(masks, max_pixels).fault
    for i, mask in enumerate(masks):
        if fault[i]:
            return i, FAULTS[int(fault[i])][1]
        if isinstance(mask, Rle) and mask.size != (height, width):
            return i, f"size is {list(mask.size)}, the image's {[height, width]}"
    at = [i for i, mask in enumerate(masks) if not isinstance(mask, Rle)]
    found = _first_outline([masks[i] for i in at], height, width) if at else None
    return None if found is None else (at[found[0]], found[1])


def _first_outline(masks: Sequence[Any], height: int, width: int) -> tuple[int, str] | None:
    """The same for polygons that are valid by themselves, all at once."""
    polygons = list(chain.from_iterable(masks))
    points = np.array(list(chain.from_iterable(polygons)), np.float64).reshape(-1, 2)
    offsets = offsets_of([len(polygon) // 2 for polygon in polygons])
    owner = np.repeat(np.arange(len(masks)), [len(mask) for mask in masks])
    first = offsets[:-1]
    low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    size = np.array([width, height], np.float64)
    outside = np.any((high < 0) | (low > size), axis=1)
    bad = outside | np.any((low < -size) | (high > 2 * size), axis=1)
    if bad.any():
        k = int(np.argmax(bad))
        place = k - int(np.searchsorted(owner, owner[k]))
        where = "lies outside" if outside[k] else "reaches more than an image's side out of"
        box = [round(float(value), 3) for value in (*low[k], *high[k])]
        what = f"polygon {place} {where} the image of {height} x {width}"
        return int(owner[k]), f"{what}: it spans x, y from {box[:2]} to {box[2:]}"
    after = np.arange(1, len(points) + 1)
    after[offsets[1:] - 1] = first
    passed = np.add.reduceat(np.abs(points[after] - points).max(axis=1), first)
    length = np.bincount(owner, passed)
    if length.sum() <= MAX_OUTLINE:
        return None
    i = int(np.argmax(np.cumsum(length) > MAX_OUTLINE))
    return i, f"outlines of {length.sum():.0f} pixels in one image, the limit is {MAX_OUTLINE}"
