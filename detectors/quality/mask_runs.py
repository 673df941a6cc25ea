"""The masks of one image as intervals of pixels: sizes, pairs that share pixels, and sums per class, never decoded.

A mask of height H is a set of positions ``p = x * H + y``, as COCO writes it: column by column, in runs of zeros and
ones. Here each run of ones is an interval ``[start, end)``. Intersections of two masks, and of unions of many, come
from one walk along their sorted ends, so everything takes time by the number of runs. Sums are exact integers.

pycocotools does the same for two masks at a time and gives their IoU as a float; what a judgement needs (the pixels of
every overlapping pair, and unions by class on both sides) takes dozens of its calls, each with its own parsing.

Source: Lin et al., Microsoft COCO, 2014 (the format); ``maskApi.c`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.merge_sort import merge_sort

MAX_PIXELS = 1 << 28
"""Of an image: far more than any camera has, and small enough that no sum overflows."""
MAX_PAIRS = 1 << 22
"""Of masks that share pixels, in one image: 2,000 predictions over 2,000 labels at one spot, in 200 MiB. Real images
have some hundreds."""
MAX_GROUPS = 12
"""Groups of five bits in one number: 60 bits, which an int64 holds."""

Rle = Mapping[str, Any]
"""``{"size": [h, w], "counts": bytes or str}``: COCO's compressed RLE."""


class DamagedMaskError(ValueError):
    """Counts that are damaged, or do not add up to the mask's size. ``mask`` is its number."""

    def __init__(self, mask: int, size: tuple[int, int]) -> None:
        super().__init__(f"mask {mask}: the counts are damaged, or do not add up to {size[0]} x {size[1]}")
        self.mask = mask


@dataclass(frozen=True, eq=False, slots=True)
class MaskRuns:
    """M masks of one image."""

    size: tuple[int, int]
    """Height and width; zeros where there is no mask."""
    starts: NDArray[np.int64]
    """(R,) first position of each run of ones, ascending within a mask; no run is empty or touches the next."""
    ends: NDArray[np.int64]
    """(R,) the position after each run's last."""
    offsets: NDArray[np.int64]
    """(M + 1,) mask m has the runs ``[offsets[m], offsets[m + 1])``."""
    area: NDArray[np.int64]
    """(M,) pixels."""
    box: NDArray[np.int64]
    """(M, 4) left, top, right and bottom in pixels, the last two exclusive; zeros for empty masks."""


@dataclass(frozen=True, eq=False, slots=True)
class SharedPixels:
    """The pairs of a predicted and a labelled mask that share pixels, by prediction, then by label."""

    predicted: NDArray[np.int64]
    """(P,)"""
    labelled: NDArray[np.int64]
    """(P,) counted from 0 for the first label."""
    pixels: NDArray[np.int64]
    """(P,) > 0"""


def read_runs(rles: Sequence[Rle]) -> MaskRuns:
    """The runs of an image's masks.

    Raises:
        ValueError: masks of different sizes, which it names; no compressed RLE.
        DamagedMaskError: counts that are damaged or do not add up to height x width.

    >>> runs = read_runs([{"size": [2, 3], "counts": b"13"}, {"size": [2, 3], "counts": "06"}])
    Traceback (most recent call last):
    ...
    detectors.quality.mask_runs.DamagedMaskError: mask 0: the counts are damaged, or do not add up to 2 x 3
    >>> runs = read_runs([{"size": [2, 3], "counts": b"132"}, {"size": [2, 3], "counts": "06"}])
    >>> runs.starts.tolist(), runs.ends.tolist(), runs.area.tolist(), runs.box.tolist()
    ([1, 0], [4, 6], [3, 6], [[0, 0, 2, 2], [0, 0, 3, 2]])
    """
    height, width = _one_size(rles)
    try:
        texts = [c if isinstance(c, bytes) else c.encode("ascii") for c in [rle["counts"] for rle in rles]]
    except (AttributeError, UnicodeEncodeError):
        raise ValueError("masks must be compressed RLE, with counts of ASCII bytes") from None
    text = np.frombuffer(b"".join(texts), np.uint8)
    at = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(part) for part in texts], out=at[1:])
    starts, ends = np.empty(len(text) // 2 + 1, np.int64), np.empty(len(text) // 2 + 1, np.int64)
    offsets, area = np.zeros(len(at), np.int64), np.zeros(len(texts), np.int64)
    box = np.zeros((len(texts), 4), np.int64)
    bad = _read(text, at, height, width, starts, ends, offsets, area, box)
    if bad >= 0:
        raise DamagedMaskError(int(bad), (height, width))
    used = offsets[-1]
    return MaskRuns((height, width), starts[:used], ends[:used], offsets, area, box)


def _one_size(rles: Sequence[Rle]) -> tuple[int, int]:
    sizes = {tuple(rle["size"]) for rle in rles}
    if not sizes:
        return 0, 0
    if len(sizes) > 1:
        named = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise ValueError(f"masks of one image must have one size, got {named}")
    height, width = (int(side) for side in sizes.pop())
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"masks of {height} x {width}, expected 1..{MAX_PIXELS} pixels")
    return height, width


@njit(cache=True, nogil=True)
def _read(
    text: Any, at: Any, height: Any, width: Any, starts: Any, ends: Any, offsets: Any, area: Any, box: Any
) -> Any:  # pragma: no cover
    """Fill in what `MaskRuns` holds; the first damaged mask, or -1.

    Each number is 5 bits a character, lowest first, 32 for more, bit 16 of the last group as sign; from the fourth on
    it is the difference to the number two before. ``head`` is where the column of the position begins: most runs end in
    their own column or the next, so that a division is rare.
    """
    pixels = height * width
    n = np.int64(0)
    for m in range(len(area)):
        begin, position, head, x = n, np.int64(0), np.int64(0), np.int64(0)
        number, shift, run = np.int64(0), np.int64(0), 0
        last, before = np.int64(0), np.int64(0)
        left, top, right, bottom = width, height, np.int64(0), np.int64(0)
        for p in range(at[m], at[m + 1]):
            character = np.int64(text[p]) - 48
            if character < 0 or character > 63 or shift == 5 * MAX_GROUPS:
                return m
            number |= (character & 31) << shift
            shift += 5
            if character & 32:
                continue
            number |= -((character >> 4) & 1) << shift
            if run > 2:
                number += before
            if number < 0 or number > pixels - position:
                return m
            end = position + number
            if run & 1 and number > 0:
                area[m] += number
                left = min(left, x)
                if end - head <= height:
                    top, bottom, right = min(top, position - head), max(bottom, end - head), max(right, x + 1)
                else:
                    top, bottom, right = np.int64(0), height, x + (end - head - 1) // height + 1
                if n > begin and ends[n - 1] == position:
                    ends[n - 1] = end
                else:
                    starts[n], ends[n] = position, end
                    n += 1
            if end - head >= height:
                step = np.int64(1) if end - head < 2 * height else (end - head) // height
                x += step
                head += step * height
            position, before, last = end, last, number
            run += 1
            number, shift = np.int64(0), np.int64(0)
        if shift > 0 or position != pixels:
            return m
        if n > begin:
            box[m, 0], box[m, 1], box[m, 2], box[m, 3] = left, top, right, bottom
        offsets[m + 1] = n
    return -1


def shared_pixels(runs: MaskRuns, predicted: int) -> SharedPixels:
    """The pairs of the first ``predicted`` masks and the others that share pixels, and how many.

    Raises:
        ValueError: more than `MAX_PAIRS` of them.

    >>> runs = read_runs([{"size": [2, 3], "counts": "132"}, {"size": [2, 3], "counts": "24"}])
    >>> pairs = shared_pixels(runs, predicted=1)
    >>> pairs.predicted.tolist(), pairs.labelled.tolist(), pairs.pixels.tolist()
    ([0], [0], [2])
    """
    found = _shared(runs.starts, runs.ends, runs.offsets, runs.box, predicted, MAX_PAIRS)
    if found.shape[1] > MAX_PAIRS:
        raise ValueError(f"more than {MAX_PAIRS} pairs of masks overlap in one image")
    return SharedPixels(found[0], found[1], found[2])


def mask_iou(predicted: Sequence[Rle], labelled: Sequence[Rle]) -> NDArray[np.float64]:
    """(M, N) intersection over union of each predicted with each labelled mask; 0 where both are empty.

    >>> mask_iou([{"size": [2, 3], "counts": "132"}], [{"size": [2, 3], "counts": "24"}]).tolist()
    [[0.4]]
    """
    runs = read_runs([*predicted, *labelled])
    pairs = shared_pixels(runs, len(predicted))
    union = runs.area[pairs.predicted] + runs.area[len(predicted) + pairs.labelled] - pairs.pixels
    result = np.zeros((len(predicted), len(labelled)))
    result[pairs.predicted, pairs.labelled] = pairs.pixels / union
    return result


@njit(cache=True, nogil=True)
def intersection_of(starts: Any, ends: Any, i: Any, stop_i: Any, j: Any, stop_j: Any) -> Any:  # pragma: no cover
    """Pixels shared by the runs ``[i, stop_i)`` and ``[j, stop_j)``.

    Without a branch on the ends: which of two runs ends first is as good as random.
    """
    if i == stop_i or j == stop_j:
        return np.int64(0)
    i += np.searchsorted(ends[i:stop_i], starts[j], side="right")
    if i == stop_i:
        return np.int64(0)
    j += np.searchsorted(ends[j:stop_j], starts[i], side="right")
    shared = np.int64(0)
    while i < stop_i and j < stop_j:
        end_i, end_j = ends[i], ends[j]
        shared += max(np.int64(0), min(end_i, end_j) - max(starts[i], starts[j]))
        i += np.int64(end_i <= end_j)
        j += np.int64(end_j <= end_i)
    return shared


@njit(cache=True, nogil=True)
def _shared(starts: Any, ends: Any, offsets: Any, box: Any, predicted: Any, most: Any) -> Any:  # pragma: no cover
    """Stops after one pair more than ``most``."""
    masks = len(box)
    found = np.empty((3, 4 * masks + 16), np.int64)
    n = 0
    for d in range(predicted):
        for g in range(predicted, masks):
            if box[d, 0] >= box[g, 2] or box[g, 0] >= box[d, 2] or box[d, 1] >= box[g, 3] or box[g, 1] >= box[d, 3]:
                continue
            pixels = intersection_of(starts, ends, offsets[d], offsets[d + 1], offsets[g], offsets[g + 1])
            if pixels == 0:
                continue
            if n == found.shape[1]:
                longer = np.empty((3, 2 * n), np.int64)
                longer[:, :n] = found
                found = longer
            found[0, n], found[1, n], found[2, n] = d, g - predicted, pixels
            n += 1
            if n > most:
                return found[:, :n]
    return found[:, :n]


PREDICTED, LABELLED, CROWD, SHIELD = range(4)
"""Roles of intervals in a class's sums. Pixels of a crowd that no shield or label covers are void: counted nowhere."""


@njit(cache=True, nogil=True)
def add_events(
    events: Any, n: Any, starts: Any, ends: Any, first: Any, last: Any, role: Any, sign: Any
) -> Any:  # pragma: no cover
    """Write the ends of the runs ``[first, last)`` from place n on; the place after the last.

    An event is ``8 * position + 2 * role``, plus 1 where the depth of its role goes down. With ``sign`` -1 the runs
    are taken away from their role instead of added to it.
    """
    opening, closing = np.int64(2 * role + (sign < 0)), np.int64(2 * role + (sign > 0))
    for run in range(first, last):
        events[n], events[n + 1] = 8 * starts[run] + opening, 8 * ends[run] + closing
        n += 2
    return n


@njit(cache=True, nogil=True)
def sum_events(events: Any) -> Any:  # pragma: no cover
    """Pixels predicted, labelled, both, and predicted twice or more; sorts ``events``."""
    merge_sort(events)
    depth = np.zeros(4, np.int64)
    predicted, labelled, both, twice = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    position = np.int64(0)
    for event in events:
        here = event >> 3
        void = depth[CROWD] > 0 and depth[LABELLED] == 0 and depth[SHIELD] == 0
        if here > position and not void:
            length = here - position
            if depth[PREDICTED] > 0:
                predicted += length
                twice += length * np.int64(depth[PREDICTED] > 1)
                both += length * np.int64(depth[LABELLED] > 0)
            labelled += length * np.int64(depth[LABELLED] > 0)
        position = here
        depth[(event >> 1) & 3] += 1 - 2 * (event & 1)
    return predicted, labelled, both, twice


@njit(cache=True, nogil=True)
def _class_sums(
    starts: Any,
    ends: Any,
    offsets: Any,
    roles: Any,
    kinds: Any,
    sums: Any,
) -> None:  # pragma: no cover
    order = np.argsort(kinds, kind="mergesort")
    a = 0
    while a < len(order):
        kind, b, runs = kinds[order[a]], a, np.int64(0)
        while b < len(order) and kinds[order[b]] == kind:
            runs += offsets[order[b] + 1] - offsets[order[b]]
            b += 1
        if kind < len(sums):
            events, n = np.empty(2 * runs, np.int64), 0
            for k in range(a, b):
                m = order[k]
                n = add_events(events, n, starts, ends, offsets[m], offsets[m + 1], roles[m], 1)
            sums[kind, 0], sums[kind, 1], sums[kind, 2], sums[kind, 3] = sum_events(events)
        a = b


def class_sums(runs: MaskRuns, kinds: NDArray[np.int64], roles: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(C, 4) pixels of each class predicted, labelled, both, and predicted by two instances or more.

    Args:
        kinds: (M,) the class of each mask; masks of class ``classes`` are left out.
        roles: (M,) `PREDICTED`, `LABELLED` or `CROWD`. What lies in a crowd and in no label is left out of all four.
    """
    sums = np.zeros((classes, 4), np.int64)
    _class_sums(runs.starts, runs.ends, runs.offsets, roles, kinds, sums)
    return sums
