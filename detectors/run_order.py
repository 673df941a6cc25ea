"""Runs of pixels from one reading order to the other: column by column to row by row, and back.

A mask is a set of intervals of positions along *lines* (columns, or rows) of equal length. A run across the lines
begins where a line has a pixel and the line before has not, and ends where it is the other way round: so it is enough
to look at what differs between neighbouring lines. The cost goes by the runs that come in and go out, never by pixels,
and lines that are full or empty from end to end are stepped over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_RUNS = 1 << 24
"""Across the lines, of one mask, before those that touch are joined: 256 MiB. A 16-megapixel chequer-board has half."""

Runs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(R,) starts and (R,) ends (exclusive) of intervals that ascend and neither touch nor are empty."""


def transpose_runs(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    length: int,
    stride: int,
    *,
    line_shift: int = 0,
    place_shift: int = 0,
    most: int = MAX_RUNS,
) -> Runs:
    """The same pixels in the other order: ``line * length + place`` becomes
    ``(place + place_shift) * stride + line + line_shift``.

    Args:
        starts, ends: runs along the lines, ascending and apart.
        length: places of a line.
        stride: lines that the result counts for each place.
        line_shift, place_shift: where the result's origin lies, for a box within a larger image.
        most: runs that the result may have before those that touch are joined.

    Raises:
        ValueError: more than ``most`` runs.

    >>> starts, ends = transpose_runs(np.array([1, 3]), np.array([2, 6]), length=3, stride=2)
    >>> starts.tolist(), ends.tolist()
    ([1, 5], [4, 6])
    """
    if not len(starts):
        return starts, ends
    low, high = _places(starts, ends, length)
    opened, cursor = np.zeros(high - low, np.bool_), np.zeros(high - low, np.int64)
    nothing = np.empty(0, np.int64)
    if not _walk(starts, ends, length, low, opened, cursor, nothing, nothing, stride, line_shift, place_shift, most):
        raise ValueError(f"more than {most} runs in the other reading order")
    total = int(cursor.sum())
    cursor = np.cumsum(cursor) - cursor
    out_starts, out_ends = np.empty(total, np.int64), np.empty(total, np.int64)
    opened[:] = False
    _walk(starts, ends, length, low, opened, cursor, out_starts, out_ends, stride, line_shift, place_shift, most)
    used = _join(out_starts, out_ends)
    return out_starts[:used], out_ends[:used]


@njit(cache=True, nogil=True)
def _places(starts: Any, ends: Any, length: Any) -> Any:  # pragma: no cover
    """The first place that is used, and the one after the last."""
    low, high = length, np.int64(0)
    for run in range(len(starts)):
        line = starts[run] // length
        if ends[run] > (line + 1) * length:
            return np.int64(0), length
        low, high = min(low, starts[run] - line * length), max(high, ends[run] - line * length)
    return low, high


@njit(cache=True, nogil=True)
def _walk(
    starts: Any,
    ends: Any,
    length: Any,
    low: Any,
    opened: Any,
    cursor: Any,
    out_starts: Any,
    out_ends: Any,
    stride: Any,
    line_shift: Any,
    place_shift: Any,
    most: Any,
) -> Any:  # pragma: no cover
    """Count each place's runs in ``cursor``; with room in ``out_starts`` write them, from ``cursor`` on, instead.

    False where there are more than ``most``. ``before`` and ``now`` are the ends of two lines' intervals.
    """
    fill = len(out_starts) > 0
    room = min(length, 2 * len(starts)) + 2
    before, now = np.empty(room, np.int64), np.empty(room, np.int64)
    n_before, total = 0, np.int64(0)
    run, line = 0, starts[0] // length
    while True:
        base = line * length
        n, k = 0, run
        while k < len(starts) and starts[k] < base + length:
            now[n], now[n + 1] = max(starts[k] - base, np.int64(0)), min(ends[k] - base, length)
            n += 2
            k += 1
        i, j, inside, place = 0, 0, False, np.int64(0)
        while i < n_before or j < n:  # the ends that only one of the two lines has bound what differs
            if j >= n or (i < n_before and before[i] < now[j]):
                end = before[i]
                i += 1
            elif i >= n_before or now[j] < before[i]:
                end = now[j]
                j += 1
            else:
                i += 1
                j += 1
                continue
            if inside:
                for at in range(place - low, end - low):
                    if not opened[at]:
                        opened[at] = True
                        total += 1
                        if fill:
                            out_starts[cursor[at]] = (at + low + place_shift) * stride + line + line_shift
                        else:
                            cursor[at] += 1
                    else:
                        opened[at] = False
                        if fill:
                            out_ends[cursor[at]] = (at + low + place_shift) * stride + line + line_shift
                            cursor[at] += 1
                if total > most:
                    return False
            inside, place = not inside, end
        while run < len(starts) and ends[run] <= base + length:
            run += 1
        if run == len(starts) and n == 0:
            return True
        following = line + 1
        if run < len(starts):
            if n == 0:
                following = starts[run] // length  # empty lines in between change nothing
            elif n == 2 and now[0] == 0 and now[1] == length and starts[run] <= base:
                following = ends[run] // length  # nor do full ones
        before, now, n_before, line = now, before, n, following


@njit(cache=True, nogil=True)
def _join(starts: Any, ends: Any) -> Any:  # pragma: no cover
    """Join runs that touch, in place; how many are left."""
    used = 0
    for run in range(1, len(starts)):
        if starts[run] == ends[used]:
            ends[used] = ends[run]
        else:
            used += 1
            starts[used], ends[used] = starts[run], ends[run]
    return used + 1
