"""Masks as Label Studio has them: a stream of bits that packs the bytes of an RGBA picture, of which alpha is the mask.

The stream, highest bits first: the number of words (32 bits), bits of a word less 1 (5), four times bits of a length
less 1 (4 each), then records: one bit whether a word repeats, two bits which of the four sizes the length has, the
length less 1, and the word, once where it repeats, else as many as the length says. Words are the picture's bytes, row
by row, red, green, blue, alpha. A pixel belongs to the mask where its alpha is not 0.

What is written here equals the bytes that Label Studio's SDK writes of the same mask, its zero byte at the end
included.

Source: the layout of rle-pack (https://github.com/thi-ng/umbrella), which Label Studio's editor uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.box_runs import counts_of_runs
from detectors.run_order import MAX_RUNS, Runs, transpose_runs

CHANNELS = 4
HEADER_BITS = 32 + 5 + 4 * 4
SIZES = (3, 4, 8, 16)
"""Bits of a length less 1, as Label Studio's own files have them."""
MAX_WORDS = 2**32 - 1

_OK, _CUT, _WORDS, _WIDE = range(4)


def brush_bytes(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> NDArray[np.uint8]:
    """Runs down the columns of an image to the stream, (B,) bytes.

    Raises:
        ValueError: an image of more than 2^30 pixels, which the stream cannot count.

    >>> brush_bytes(np.array([0]), np.array([2]), 1, 2).tolist()
    [0, 0, 0, 8, 57, 27, 252, 255, 224]
    """
    words = height * width * CHANNELS
    if words > MAX_WORDS:
        raise ValueError(f"an image of {height} x {width} has more pixels than the stream can count")
    counts = counts_of_runs(*transpose_runs(starts, ends, height, width), height * width)
    data: NDArray[np.uint8] = _write(CHANNELS * counts, words)
    return data


def brush_runs(data: NDArray[np.uint8], height: int, width: int, most: int = MAX_RUNS) -> Runs:
    """Runs down the columns of an image, from the stream.

    Raises:
        ValueError: the stream is of another picture, cut short, or has words of more than 16 bits; more than ``most``
            runs.

    >>> starts, ends = brush_runs(np.array([0, 0, 0, 8, 57, 27, 252, 255, 224], np.uint8), 1, 2)
    >>> starts.tolist(), ends.tolist()
    ([0], [2])
    """
    words = height * width * CHANNELS
    starts, ends, status = _read(data, words)
    if status == _CUT:
        raise ValueError("the stream ends too early")
    if status == _WORDS:
        raise ValueError(f"the stream is of another picture than one of {height} x {width} with four channels")
    if status == _WIDE:
        raise ValueError("the stream has words of more than 16 bits")
    return transpose_runs(starts, ends, width, height, most=most)


@njit(cache=True, nogil=True)
def _put(data: Any, at: Any, value: Any, size: Any) -> Any:  # pragma: no cover
    """Write the ``size`` lowest bits of a value; the place after them."""
    for bit in range(size - 1, -1, -1):
        data[at >> 3] |= ((value >> bit) & 1) << (7 - (at & 7))
        at += 1
    return at


@njit(cache=True, nogil=True)
def _write(lengths: Any, words: Any) -> Any:  # pragma: no cover
    """``lengths`` of words of zeros and of ones in turn, zeros first."""
    longest = np.int64(1) << SIZES[3]
    records = np.int64(0)
    for length in lengths:
        records += (length + longest - 1) // longest
    data = np.zeros((HEADER_BITS + records * (3 + SIZES[3] + 8)) // 8 + 1, np.uint8)
    at = _put(data, np.int64(0), words, 32)
    at = _put(data, at, np.int64(7), 5)
    for size in SIZES:
        at = _put(data, at, np.int64(size - 1), 4)
    for k in range(len(lengths)):
        length, value = lengths[k], np.int64(255 * (k & 1))
        which = np.int64(3)  # what is left of a long run keeps the size of its first part
        if length <= 1 << SIZES[0]:
            which = np.int64(0)
        elif length <= 1 << SIZES[1]:
            which = np.int64(1)
        elif length <= 1 << SIZES[2]:
            which = np.int64(2)
        while length > 0:
            part = min(length, longest)
            at = _put(data, at, 4 + which, 3)
            at = _put(data, at, part - 1, SIZES[which])
            at = _put(data, at, value, 8)
            length -= part
    return data[: (at >> 3) + 1]


@njit(cache=True, nogil=True)
def _take(data: Any, at: Any, size: Any) -> Any:  # pragma: no cover
    """The next ``size`` bits, 32 at most; all of them must be there."""
    value = np.int64(0)
    while size > 0:
        offset = at & 7
        part = min(size, 8 - offset)
        bits = (np.int64(data[at >> 3]) >> (8 - offset - part)) & ((1 << part) - 1)
        value = (value << part) | bits
        at += part
        size -= part
    return value


@njit(cache=True, nogil=True)
def _read(data: Any, words: Any) -> Any:  # pragma: no cover
    """Runs of pixels along the rows, and what is wrong with the stream.

    Of the words ``[i, j)`` the alpha values are those of the pixels ``[i // 4, j // 4)``.
    """
    starts, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    n, bits, at = 0, 8 * len(data), np.int64(HEADER_BITS)
    if bits < HEADER_BITS:
        return starts[:0], ends[:0], _CUT
    if _take(data, np.int64(0), 32) != words:
        return starts[:0], ends[:0], _WORDS
    word_bits = _take(data, np.int64(32), 5) + 1
    if word_bits > 16:
        return starts[:0], ends[:0], _WIDE
    sizes = np.empty(4, np.int64)
    for which in range(4):
        sizes[which] = _take(data, np.int64(37 + 4 * which), 4) + 1
    position = np.int64(0)
    while position < words:
        if at + 3 > bits:
            return starts[:0], ends[:0], _CUT
        head = _take(data, at, 3)
        size = sizes[head & 3]
        if at + 3 + size > bits:
            return starts[:0], ends[:0], _CUT
        length = _take(data, at + 3, size) + 1
        at += 3 + size
        if length > words - position:
            return starts[:0], ends[:0], _WORDS
        repeats = head >= 4
        if at + word_bits * (1 if repeats else length) > bits:
            return starts[:0], ends[:0], _CUT
        parts, step = (np.int64(1), length) if repeats else (length, np.int64(1))
        for _ in range(parts):
            value = _take(data, at, word_bits)
            at += word_bits
            first, last = position >> 2, (position + step) >> 2
            position += step
            if value == 0 or first == last:
                continue
            if n > 0 and ends[n - 1] == first:
                ends[n - 1] = last
                continue
            if n == len(starts):
                longer = np.empty(2 * n, np.int64)
                longer[:n] = starts
                starts = longer
                longer = np.empty(2 * n, np.int64)
                longer[:n] = ends
                ends = longer
            starts[n], ends[n] = first, last
            n += 1
    return starts[:n], ends[:n], _OK
