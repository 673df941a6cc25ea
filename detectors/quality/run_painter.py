"""Instance masks to one map, painted run by run from their compressed strings: no mask is ever decoded.

A mask of 50,000 pixels is some 200 runs. Decoding makes an image of bytes out of them, and painting through it reads
every pixel of the image once for each mask; here each run is read from its string and written where it belongs. Later
masks lie over earlier ones.

Each number of a string is groups of five bits, lowest first, as the character ``48 + bits + 32 * more``; bit 16 of the
last group is the sign; from the fourth number on it is the difference to the number two before. Numbers are lengths of
runs of zeros and ones in turn, column by column.

Source: ``maskApi.c`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

LabelMap = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]

MAX_SIDE = 2**31 - 1
MAX_PIXELS = 50_000_000
MAX_SHIFT = 60
"""Twelve groups of five bits are more than any count may have, and overflow nothing."""
OK = -1


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
    kind = next(kind for kind in (np.uint8, np.uint16, np.int32) if highest <= np.iinfo(kind).max)
    texts = [_text(mask["counts"]) for mask in masks]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    columns = np.full((width, height), background, kind)
    faulty = _paint(np.frombuffer(b"".join(texts), np.uint8), offsets, values.astype(kind), columns.reshape(-1))
    if faulty != OK:
        raise ValueError(f"mask {faulty} is no compressed RLE of {height} x {width} pixels")
    return cv2.transpose(columns)  # type: ignore[return-value]


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
def _paint(text: Any, offsets: Any, values: Any, pixels: Any) -> int:
    """Paint masks ``text[offsets[m]:offsets[m + 1]]`` in turn; returns the first that is faulty, or OK."""
    total = len(pixels)
    for m in range(len(values)):
        value = values[m]
        at, runs, last, before = np.int64(0), 0, np.int64(0), np.int64(0)
        number, shift = np.int64(0), np.int64(0)
        for p in range(offsets[m], offsets[m + 1]):
            character = np.int64(text[p]) - 48
            if character < 0 or character > 63 or shift == MAX_SHIFT:
                return m
            number |= (character & 31) << shift
            shift += 5
            if character & 32 == 0:
                number |= -((character >> 4) & 1) << shift
                if runs > 2:
                    number += before
                if number < 0 or number > total - at:
                    return m
                if runs % 2:
                    pixels[at : at + number] = value
                at += number
                runs, before, last = runs + 1, last, number
                number, shift = np.int64(0), np.int64(0)
        if shift > 0 or at != total:
            return m
    return OK
