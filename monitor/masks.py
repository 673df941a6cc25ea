"""COCO's three mask forms: checked without painting a pixel, measured, encoded, decoded.

The forms, as a record carries them:

- *polygons*: a list of ``[x1, y1, x2, y2, ...]``, in pixels, at least three points each;
- *uncompressed RLE*: ``{"size": [h, w], "counts": [n0, n1, ...]}``, the lengths of runs of zeros and ones in turn,
  column by column, zeros first (so n0 may be 0);
- *compressed RLE*: the same with ``counts`` as a string. Each number becomes groups of five bits, lowest first, written
as
  the character ``48 + bits + 32 * more``; bit 16 of the last group is the sign; from the fourth number on it is the
  difference to the number two before.

A mask is valid when its counts are non-negative and add up to ``h * w``. Nothing here allocates by what a mask *claims*
to be: a run length of 10^12 costs a comparison. The strings of a whole chunk of records are read by one compiled loop
over one buffer, since a call per mask would cost more than the work.

Source: Lin et al., Microsoft COCO, 2014; ``maskApi.c`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import msgspec
import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from monitor.errors import BadRecord

MAX_SIDE = 2**31 - 1
MAX_COUNT = 2**40
MAX_COORDINATE = 1e7
"""Largest absolute polygon coordinate. Far outside any image that could be decoded, near enough for exact areas."""
MAX_PIXELS = 50_000_000
MAX_GROUPS = 12
"""Groups of five bits in one number: 60 bits, more than any count that is allowed and less than overflows an int64."""

OK, SUM, CHARACTER, CUT, NEGATIVE, TOO_LARGE, SIZE, NO_POLYGON, POINTS, COORDINATE = range(10)

FAULTS: dict[int, tuple[str, str]] = {
    SUM: ("bad_mask", "the counts do not add up to height x width"),
    CHARACTER: ("bad_mask", "counts has a character outside '0'..'o'"),
    CUT: ("bad_mask", "counts ends within a number, or a number is too long"),
    NEGATIVE: ("bad_mask", "a count is negative"),
    TOO_LARGE: ("mask_too_large", "height x width is above the limit of pixels"),
    SIZE: ("bad_mask", "height and width must be at least 1"),
    NO_POLYGON: ("bad_mask", "there is no polygon in the list"),
    POINTS: ("bad_mask", "a polygon needs an even number of coordinates and at least three points"),
    COORDINATE: ("bad_mask", f"a coordinate is not finite, or beyond +-{MAX_COORDINATE:.0f}"),
}
"""What can be wrong with a mask: the record's reason and one sentence."""

Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Polygons = list[Annotated[list[float], Meta(min_length=6)]]


class Rle(msgspec.Struct, frozen=True, gc=False):
    """A run-length encoded mask; ``size`` is (height, width)."""

    size: tuple[Side, Side]
    counts: str | list[Count]


Mask = Rle | Polygons


@dataclass(frozen=True, eq=False, slots=True)
class MaskReport:
    """What is known of M masks without painting them.

    ``area`` is exact for RLE; for polygons it is the sum of their areas by the shoelace formula, so that overlapping
    polygons of one mask count twice, and parts outside the image count too.
    """

    fault: NDArray[np.uint8]
    """(M,) 0 for a valid mask, else a key of FAULTS."""
    area: NDArray[np.float64]
    """(M,) pixels; 0 for faulty masks."""
    bbox: NDArray[np.float64]
    """(M, 4) x, y, width, height in pixels; zeros for empty and faulty masks."""
    size: NDArray[np.int64]
    """(M, 2) height and width; zeros for polygons, which have none."""

    def __len__(self) -> int:
        return len(self.fault)


def find_faults(masks: Sequence[Mask], max_pixels: int = MAX_PIXELS) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What is wrong with each of M masks, (M,), and their sizes, (M, 2): ``fault`` and ``size`` of ``check_masks``.

    Compressed RLE, which nearly all masks are, is only read and added up here: a third of the work of measuring it.

    >>> find_faults([Rle((2, 2), "121"), Rle((2, 2), "1")])[0].tolist() == [OK, SUM]
    True
    """
    try:
        parts = [mask.counts for mask in masks]  # type: ignore[union-attr]
        text = bytes_of("".join(parts))  # type: ignore[arg-type]
    except (AttributeError, TypeError):  # polygons or lists of counts among them
        report = check_masks(masks, max_pixels)
        return report.fault, report.size
    size = _sizes_of(masks)
    fault = np.empty(len(masks), np.uint8)
    _check_texts(text, offsets_of([len(part) for part in parts]), size, max_pixels, fault)
    return fault, size


def check_masks(masks: Sequence[Mask], max_pixels: int = MAX_PIXELS) -> MaskReport:
    """Check and measure masks in bulk; ``masks`` as msgspec decoded them, so their types hold.

    >>> report = check_masks([Rle((2, 2), [1, 2, 1]), [[0.0, 0.0, 4.0, 0.0, 0.0, 3.0]], Rle((2, 2), "1")])
    >>> report.area.tolist(), [FAULTS[fault][1] for fault in report.fault if fault]
    ([2.0, 6.0, 0.0], ['the counts do not add up to height x width'])
    """
    total = len(masks)
    report = MaskReport(
        np.zeros(total, np.uint8), np.zeros(total), np.zeros((total, 4)), np.zeros((total, 2), np.int64)
    )
    strings_at: list[int] = []
    lists_at: list[int] = []
    polygons_at: list[int] = []
    for i, mask in enumerate(masks):
        if not isinstance(mask, Rle):
            polygons_at.append(i)
        elif type(mask.counts) is str:
            strings_at.append(i)
        else:
            lists_at.append(i)
    for rle_at in (strings_at, lists_at):
        if rle_at:
            _check_rle([masks[i] for i in rle_at], np.array(rle_at), max_pixels, report)
    if polygons_at:
        _check_polygons([masks[i] for i in polygons_at], np.array(polygons_at), report)
    return report


def _check_rle(masks: Sequence[Any], at: NDArray[np.int64], max_pixels: int, report: MaskReport) -> None:
    """Compressed strings are first read to counts, so that one loop measures both forms."""
    parts = [mask.counts for mask in masks]
    report.size[at] = _sizes_of(masks)
    offsets = offsets_of([len(part) for part in parts])
    if isinstance(parts[0], str):
        counts, offsets, fault = read_counts(bytes_of("".join(parts)), offsets)
    else:
        counts, fault = np.array(list(chain.from_iterable(parts)), np.int64), np.zeros(len(parts), np.uint8)
    _measure_runs(counts, offsets, fault, at, report.size, max_pixels, report.fault, report.area, report.bbox)


def _sizes_of(masks: Sequence[Any]) -> NDArray[np.int64]:
    sizes = chain.from_iterable([mask.size for mask in masks])
    return np.fromiter(sizes, np.int64, 2 * len(masks)).reshape(-1, 2)


def _check_polygons(masks: Sequence[Any], at: NDArray[np.int64], report: MaskReport) -> None:
    polygons = list(chain.from_iterable(masks))
    coordinates = np.array(list(chain.from_iterable(polygons)), np.float64)
    measure_polygons(
        coordinates,
        offsets_of([len(polygon) for polygon in polygons]),
        offsets_of([len(mask) for mask in masks]),
        at,
        report.fault,
        report.area,
        report.bbox,
    )


def bytes_of(text: str) -> NDArray[np.uint8]:
    """One byte a character; 0, which is never valid, for whatever is not ASCII."""
    try:
        return np.frombuffer(text.encode("ascii"), np.uint8)
    except UnicodeEncodeError:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return np.where(points < 128, points, 0).astype(np.uint8)


def offsets_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@numba.njit(cache=True, nogil=True)
def read_counts(text: Any, offsets: Any) -> tuple[Any, Any, Any]:
    """Compressed strings ``text[offsets[m]:offsets[m + 1]]`` to counts, their offsets, and a fault for each string.

    One flat loop over the characters, without a call or an early return a number: five times as fast as a function that
    reads one number. The sign is extended without a branch, because differences change sign at random and a
    mispredicted branch costs more than the number itself.
    """
    strings = len(offsets) - 1
    counts = np.empty(len(text), np.int64)
    count_offsets = np.zeros(strings + 1, np.int64)
    faults = np.zeros(strings, np.uint8)
    n = np.int64(0)
    for m in range(strings):
        first = n
        number, shift, fault = np.int64(0), np.int64(0), OK
        for p in range(offsets[m], offsets[m + 1]):
            character = np.int64(text[p]) - 48
            if character < 0 or character > 63:
                fault = CHARACTER
                break
            number |= (character & 31) << shift
            shift += 5
            if character & 32 == 0:
                number |= -((character >> 4) & 1) << shift
                if n - first > 2:
                    number += counts[n - 2]
                if number < 0:
                    fault = NEGATIVE
                    break
                if number > MAX_COUNT:
                    fault = SUM
                    break
                counts[n] = number
                n += 1
                number, shift = np.int64(0), np.int64(0)
            elif shift == 5 * MAX_GROUPS:
                fault = CUT
                break
        if fault == OK and shift > 0:
            fault = CUT
        faults[m] = fault
        count_offsets[m + 1] = n
    return counts[:n], count_offsets, faults


@numba.njit(cache=True, nogil=True)
def _check_texts(text: Any, offsets: Any, size: Any, max_pixels: int, faults: Any) -> None:
    """The fault of each compressed string: that of ``read_counts`` and ``_measure_runs``, with no count kept."""
    for m in range(len(faults)):
        height, width = size[m, 0], size[m, 1]
        if height < 1 or width < 1:
            faults[m] = SIZE
            continue
        if height > max_pixels // width:
            faults[m] = TOO_LARGE
            continue
        left, runs, last, before = height * width, 0, np.int64(0), np.int64(0)
        number, shift, fault = np.int64(0), np.int64(0), OK
        for p in range(offsets[m], offsets[m + 1]):
            character = np.int64(text[p]) - 48
            if character < 0 or character > 63:
                fault = CHARACTER
                break
            number |= (character & 31) << shift
            shift += 5
            if character & 32 == 0:
                number |= -((character >> 4) & 1) << shift
                if runs > 2:
                    number += before
                if number < 0:
                    fault = NEGATIVE
                    break
                if number > MAX_COUNT:
                    fault = SUM
                    break
                # Once below 0 it stays there: it cannot wrap around, and what comes later may still be malformed.
                left -= number if left >= 0 else 0
                runs, before, last = runs + 1, last, number
                number, shift = np.int64(0), np.int64(0)
            elif shift == 5 * MAX_GROUPS:
                fault = CUT
                break
        if fault == OK and shift > 0:
            fault = CUT
        faults[m] = SUM if fault == OK and left != 0 else fault


@numba.njit(cache=True, nogil=True)
def _measure_runs(
    counts: Any, offsets: Any, known: Any, at: Any, size: Any, max_pixels: int, fault: Any, area: Any, bbox: Any
) -> None:
    """Mask m has the counts ``[offsets[m], offsets[m + 1])``, the fault ``known[m]`` so far, and the row ``at[m]``.

    (x, y) is the pixel where the next run starts. Most runs end in their own column or the next, so that a division is
    rare.
    """
    for m in range(len(at)):
        i = at[m]
        height, width = size[i, 0], size[i, 1]
        if height < 1 or width < 1:
            fault[i] = SIZE
            continue
        if height > max_pixels // width:
            fault[i] = TOO_LARGE
            continue
        if known[m] != OK:
            fault[i] = known[m]
            continue
        left = height * width
        ones, x, y = np.int64(0), np.int64(0), np.int64(0)
        x0, y0, x1, y1 = width, height, np.int64(-1), np.int64(-1)
        status = OK
        foreground = False
        for run in range(offsets[m], offsets[m + 1]):
            count = counts[run]
            if count < 0 or count > left:
                status = NEGATIVE if count < 0 else SUM
                break
            end = y + count
            if foreground and count > 0:
                ones += count
                x0 = min(x0, x)
                if end <= height:
                    y0, x1, y1 = min(y0, y), max(x1, x), max(y1, end - 1)
                else:
                    y0, x1, y1 = np.int64(0), max(x1, x + (end - 1) // height), height - 1
            y = end
            if end >= 2 * height:
                x += end // height
                y = end % height
            elif end >= height:
                x += 1
                y = end - height
            left -= count
            foreground = not foreground
        if status == OK and left > 0:
            status = SUM
        fault[i] = status
        if status == OK and ones > 0:
            area[i] = ones
            bbox[i, 0], bbox[i, 1] = x0, y0
            bbox[i, 2], bbox[i, 3] = x1 - x0 + 1, y1 - y0 + 1


@numba.njit(cache=True, nogil=True)
def measure_polygons(
    coordinates: Any, polygon_offsets: Any, mask_offsets: Any, at: Any, fault: Any, area: Any, bbox: Any
) -> None:
    for m in range(len(at)):
        i = at[m]
        first, last = mask_offsets[m], mask_offsets[m + 1]
        if first == last:
            fault[i] = NO_POLYGON
            continue
        x0, y0, x1, y1, total, status = np.inf, np.inf, -np.inf, -np.inf, 0.0, OK
        for polygon in range(first, last):
            start, stop = polygon_offsets[polygon], polygon_offsets[polygon + 1]
            if stop - start < 6 or (stop - start) % 2:
                status = POINTS
                break
            twice = 0.0
            xp, yp = coordinates[stop - 2], coordinates[stop - 1]
            for p in range(start, stop, 2):
                x, y = coordinates[p], coordinates[p + 1]
                if not (abs(x) <= MAX_COORDINATE and abs(y) <= MAX_COORDINATE):  # also catches NaN
                    status = COORDINATE
                    break
                twice += xp * y - x * yp
                x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
                xp, yp = x, y
            if status != OK:
                break
            total += abs(twice) / 2
        fault[i] = status
        if status == OK:
            area[i] = total
            bbox[i, 0], bbox[i, 1], bbox[i, 2], bbox[i, 3] = x0, y0, x1 - x0, y1 - y0


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) bool to ``{"size": [h, w], "counts": str}``, byte for byte what pycocotools gives.

    >>> encode_rle(np.array([[False, True], [True, True]]))
    {'size': [2, 2], 'counts': '13'}
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"expected a mask (H, W) of bool with at least one pixel, got {mask.dtype} {mask.shape}")
    columns = np.ascontiguousarray(mask.T).view(np.uint8).reshape(-1)
    text = write_counts(_runs_of(columns)).tobytes()
    return {"size": [mask.shape[0], mask.shape[1]], "counts": text.decode("ascii")}


def decode_rle(size: Sequence[int], counts: str | Sequence[int], max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """(H, W) bool of an RLE mask of either form. Raises BadRecord (``bad_mask``, ``mask_too_large``)."""
    height, width = size
    plain = counts if isinstance(counts, str) else list(counts)
    report = check_masks([Rle((height, width), plain)], max_pixels)
    if report.fault[0]:
        raise BadRecord(*FAULTS[int(report.fault[0])])
    runs = counts_of(plain) if isinstance(plain, str) else np.array(plain, np.int64)
    columns: NDArray[np.bool_] = _paint(runs, height * width).view(np.bool_)
    return columns.reshape(width, height).T


def counts_of(text: str) -> NDArray[np.int64]:
    """The run lengths in a compressed string. Raises BadRecord (``bad_mask``).

    >>> counts_of("13").tolist()
    [1, 3]
    """
    counts, _, fault = read_counts(bytes_of(text), np.array([0, len(text)]))
    if fault[0]:
        raise BadRecord(*FAULTS[int(fault[0])])
    result: NDArray[np.int64] = counts
    return result


@numba.njit(cache=True, nogil=True)
def _runs_of(columns: Any) -> Any:
    changes = 0
    value = np.uint8(0)
    for pixel in columns:
        if pixel != value:
            changes += 1
            value = pixel
    counts = np.empty(changes + 1, np.int64)
    value, start, run = np.uint8(0), 0, 0
    for p in range(len(columns)):
        if columns[p] != value:
            counts[run] = p - start
            start = p
            run += 1
            value = columns[p]
    counts[run] = len(columns) - start
    return counts


@numba.njit(cache=True, nogil=True)
def write_counts(counts: Any) -> Any:
    text = np.empty(MAX_GROUPS * len(counts), np.uint8)
    p = 0
    for run in range(len(counts)):
        rest = counts[run] - (counts[run - 2] if run > 2 else 0)
        more = True
        while more:
            group = rest & 31
            rest >>= 5
            # The last group's bit 16 is the sign: go on until what is left is only that sign.
            more = rest != -1 if group & 16 else rest != 0
            text[p] = group + 48 + (32 if more else 0)
            p += 1
    return text[:p].copy()


@numba.njit(cache=True, nogil=True)
def _paint(counts: Any, pixels: int) -> Any:
    columns = np.zeros(pixels, np.uint8)
    position = 0
    for run in range(len(counts)):
        if run & 1:
            columns[position : position + counts[run]] = 1
        position += counts[run]
    return columns
