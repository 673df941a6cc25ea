"""Making objects unrecognisable in an image, by the masks that the model predicted of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.masks import Rle, decode_rle
from monitor.records import Prediction, decode_semantic

CELLS = 24
"""An image's longer side is blurred to so many cells: of a face that fills a quarter of it six remain."""
SMALLEST_CELL = 16
GREY = 127


def region_of(
    prediction: Prediction,
    classes: Classes,
    names: Collection[str],
    original: tuple[int, int],
    shown: tuple[int, int],
    max_pixels: int,
) -> NDArray[np.bool_]:
    """(h, w) where objects of these classes are, at whatever score the model saw them.

    ``original``: height and width of the image that the masks are of; ``shown``: those of the result. Raises BadRecord
    where a mask cannot be painted: then nobody knows where its object is.
    """
    painted = np.zeros(shown, np.uint8)
    for instance in prediction.instances or ():
        if instance.class_name in names:
            _paint(painted, instance.mask, original, max_pixels)
    if prediction.semantic is not None:
        indices, _ = decode_semantic(prediction.semantic, max_pixels)
        values = [value for value, at in classes.position_of_index.items() if classes.names[at] in names]
        painted[_touched(np.isin(indices, values), shown)] = 1
    return painted.astype(np.bool_)


def _paint(painted: NDArray[np.uint8], mask: Any, original: tuple[int, int], max_pixels: int) -> None:
    height, width = painted.shape
    if isinstance(mask, Rle):
        found = decode_rle(mask.size, mask.counts, max_pixels)
        if not found.size:
            raise BadRecord("bad_mask", "a mask of no pixels")
        painted[_touched(np.asarray(found, np.bool_), (height, width))] = 1
        return
    scale = np.array([width / max(1, original[1]), height / max(1, original[0])])
    for ring in mask:
        corners = np.rint(np.asarray(ring, np.float64).reshape(-1, 2) * scale)
        corners = np.clip(corners, -(2**15), 2**15).astype(np.int32)
        cv2.fillPoly(painted, [corners], (1,))
        cv2.polylines(painted, [corners], True, (1,))  # what is thinner than a pixel, too


def _touched(found: NDArray[np.bool_], shown: tuple[int, int]) -> NDArray[np.bool_]:
    """(h, w) pixels of the result that any pixel of ``found`` (H, W) lies in, be it in part.

    Nearest neighbour would lose what is thinner than a pixel of the result.
    """
    for axis, length in enumerate(shown):
        edges = np.arange(length + 1) * found.shape[axis]
        starts, last = edges[:-1] // length, -(-edges[1:] // length) - 1
        found = np.logical_or.reduceat(found, starts, axis=axis) | np.take(found, last, axis=axis)
    return found


def obscured(
    pixels: NDArray[np.uint8], region: NDArray[np.bool_], method: Literal["blur", "fill"], margin: float
) -> NDArray[np.uint8]:
    """The image with ``region``, widened by ``margin`` of the longer side, blurred or grey; (h, w, 3) as it came."""
    if not region.any():
        return pixels
    height, width = region.shape
    wider = math.ceil(margin * max(height, width))
    mask = region.astype(np.uint8)
    if wider:
        mask = np.asarray(cv2.dilate(mask, np.ones((2 * wider + 1, 2 * wider + 1), np.uint8)), np.uint8)
    chosen = mask.astype(np.bool_)[:, :, None]
    if method == "fill":
        return np.where(chosen, np.uint8(GREY), pixels)
    # Means of cells, and smooth between them: what is left of a cell is three numbers, so that nothing can be undone.
    cell = max(SMALLEST_CELL, max(height, width) // CELLS)
    few = (max(1, width // cell), max(1, height // cell))
    means = cv2.resize(pixels, few, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(chosen, np.asarray(soft, np.uint8), pixels)
