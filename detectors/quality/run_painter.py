"""Instance masks to one map, painted run by run: no mask is ever decoded.

A mask of 50,000 pixels is some 200 runs. Decoding makes an image of bytes out of them, and painting through it reads
every pixel of the image once for each mask; here each run is written where it belongs. Later
masks lie over earlier ones.

Source: ``maskApi.c`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from detectors.quality.mask_runs import DamagedMaskError, read_runs

LabelMap = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]

MAX_SIDE = 2**31 - 1
MAX_PIXELS = 50_000_000


def paint_classes(masks: Sequence[Mapping[str, Any]], positions: Sequence[int], background: int) -> LabelMap:
    """(H, W) class positions: ``positions[m]`` where mask m is the last to cover the pixel, else ``background``.

    Args:
        masks: M COCO compressed RLE masks, ``{"size": [h, w], "counts": bytes or str}``, at least one.
        positions: M class positions, 0..2^31 - 1.
        background: the value of pixels without a mask.

    Returns:
        The narrowest of uint8, uint16 and int32 that holds all values.

    Raises:
        ValueError: no mask, masks of different size, too large an image, or a string that is no mask of that size.

    >>> square = {"size": [2, 2], "counts": b"04"}
    >>> left = {"size": [2, 2], "counts": b"022"}
    >>> paint_classes([square, left], [7, 3], background=255).tolist()
    [[3, 7], [3, 7]]
    """
    height, width = _common_size(masks)
    values = np.asarray(positions, np.int64)
    if values.shape != (len(masks),):
        raise ValueError(f"{len(masks)} masks, but positions of shape {values.shape}")
    lowest, highest = min(background, int(values.min())), max(background, int(values.max()))
    if lowest < 0 or highest > MAX_SIDE:
        raise ValueError(f"values of a map are 0..{MAX_SIDE}, got {lowest}..{highest}")
    kind: Any = next(kind for kind in (np.uint8, np.uint16, np.int32) if highest <= np.iinfo(kind).max)
    try:
        runs = read_runs([{"size": (height, width), "counts": _text(mask["counts"])} for mask in masks])
    except DamagedMaskError as error:
        raise ValueError(f"mask {error.mask} is no compressed RLE of {height} x {width} pixels") from None
    columns = np.full((width, height), background, kind)
    _paint(runs.starts, runs.ends, runs.offsets, values.astype(kind), columns.reshape(-1))
    painted: LabelMap = np.empty((height, width), kind)
    cv2.transpose(columns, painted)
    return painted


def paint_instances(masks: Sequence[Mapping[str, Any]]) -> LabelMap:
    """(H, W): m + 1 where mask m is the last to cover the pixel, 0 where none does. Raises as `paint_classes` does.

    >>> paint_instances([{"size": [2, 2], "counts": b"022"}]).tolist()
    [[1, 0], [1, 0]]
    """
    return paint_classes(masks, range(1, len(masks) + 1), background=0)


def _common_size(masks: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    if not masks:
        raise ValueError("without a mask the size of the map is not known")
    height, width = masks[0]["size"]
    for mask in masks:
        if tuple(mask["size"]) != (height, width):
            raise ValueError(f"masks of different size: {[height, width]} and {list(mask['size'])}")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE) or height * width > MAX_PIXELS:
        raise ValueError(f"a map of {height} x {width} pixels, expected 1..{MAX_PIXELS} of them")
    return int(height), int(width)


def _text(counts: str | bytes) -> bytes:
    """What is not ASCII becomes bytes that no mask has."""
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts


@numba.njit(cache=True, nogil=True)
def _paint(starts: Any, ends: Any, offsets: Any, values: Any, pixels: Any) -> None:  # pragma: no cover
    """Paint the runs of each mask in turn."""
    for m in range(len(values)):
        for run in range(offsets[m], offsets[m + 1]):
            pixels[starts[run] : ends[run]] = values[m]
