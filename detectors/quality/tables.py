"""Small integer tables in bytes: each column in the narrowest numbers that hold it, with a checksum around them all."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.wire import Reader, Writer

CHECKSUM_BYTES = 4
ENDS_EARLY, TOO_LARGE, NO_WIDTH = -1, -2, -3
FAULTS = {ENDS_EARLY: "it ends early", TOO_LARGE: "a number is too large", NO_WIDTH: "no such width of numbers"}
"""What compiled code gives in the place of a position."""


def write_table(writer: Writer, rows: NDArray[np.int64]) -> None:
    """Append (K, columns) numbers >= 0. A function of the numbers alone: equal tables, equal bytes."""
    writer.number(len(rows))
    for column in rows.T:
        width = 1 << max(0, (int(column.max(initial=0)).bit_length() + 7) // 8 - 1).bit_length()
        writer.number(width)
        writer.raw(column.astype(f"<u{width}").tobytes())


def read_table(reader: Reader, columns: int) -> NDArray[np.int64]:
    """(K, columns) as written. Raises ValueError where the bytes do not back the lengths."""
    data, at = reader.unread
    table, end = _table(np.frombuffer(data, np.uint8), at, columns)
    if end < 0:
        raise ValueError(f"damaged {reader.what}: {FAULTS[end]}")
    reader.skip(end)
    found: NDArray[np.int64] = table
    return found


def read_lists(reader: Reader, lists: int, limit: int) -> list[NDArray[np.int64]]:
    """So many lists of numbers below ``limit`` (at most 2^62), each written as its length and its numbers.

    Raises ValueError where the bytes do not back the lengths, or a number is too large.
    """
    data, at = reader.unread
    # Each number takes a byte at least, so that a length that is not there takes no memory.
    values, ends = np.empty(len(data) - at, np.int64), np.empty(lists, np.int64)
    end = _lists(np.frombuffer(data, np.uint8), at, limit, values, ends)
    if end < 0:
        raise ValueError(f"damaged {reader.what}: {FAULTS[end]}")
    reader.skip(end)
    places = [0, *ends.tolist()]
    return [values[start:stop] for start, stop in pairwise(places)]


def ordered(table: NDArray[np.int64], ends: tuple[int, ...]) -> bool:
    """Whether the first one or two columns (K, 1..) are below ``ends``, their rows in strictly ascending order.

    >>> ordered(np.array([[0, 5], [1, 2], [1, 3]]), (2, 6)), ordered(np.array([[1, 3], [1, 3]]), (2, 6))
    (True, False)
    >>> ordered(np.array([[0, 5], [1, 2]]), (2,)), ordered(np.array([[0, 5], [2, 2]]), (2,))
    (True, False)
    """
    first, second = (*ends, 1)[:2]
    return bool(_ordered(table, first, second, len(ends)))


@njit(cache=True, nogil=True)
def _number(data: Any, at: Any) -> Any:  # pragma: no cover
    """A number of 7 bits a byte, lowest first, and the place after it; a fault in that place."""
    value, shift = np.int64(0), 0
    while at < len(data):
        bits = np.int64(data[at] & 0x7F)
        if (shift == 63 and bits) or shift > 63:
            return value, TOO_LARGE
        value |= bits << shift if shift < 63 else np.int64(0)
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    return value, ENDS_EARLY


@njit(cache=True, nogil=True)
def _lists(data: Any, at: Any, limit: Any, values: Any, ends: Any) -> Any:  # pragma: no cover
    """The place after the lists, or a fault."""
    n = 0
    for number in range(len(ends)):
        length, at = _number(data, at)
        if at < 0:
            return at
        for _ in range(length):
            value, at = _number(data, at)
            if at < 0:
                return at
            if value >= limit:
                return TOO_LARGE
            values[n] = value
            n += 1
        ends[number] = n
    return at


@njit(cache=True, nogil=True)
def _table(data: Any, at: Any, columns: Any) -> Any:  # pragma: no cover
    """The table and the place after it, or a fault."""
    nothing = np.empty((0, columns), np.int64)
    rows, at = _number(data, at)
    if at < 0:
        return nothing, at
    if rows > len(data) - at:
        return nothing, ENDS_EARLY
    table = np.empty((rows, columns), np.int64)
    for column in range(columns):
        width, at = _number(data, at)
        if at < 0:
            return nothing, at
        if width != 1 and width != 2 and width != 4 and width != 8:
            return nothing, NO_WIDTH
        if rows * width > len(data) - at:
            return nothing, ENDS_EARLY
        for row in range(rows):
            value = np.int64(0)
            for byte in range(width):
                value |= np.int64(data[at + byte]) << (8 * byte)
            if value < 0:
                return nothing, TOO_LARGE
            table[row, column] = value
            at += width
    return table, at


@njit(cache=True, nogil=True)
def _ordered(table: Any, first: Any, second: Any, keys: Any) -> Any:  # pragma: no cover
    last, last_second = np.int64(-1), np.int64(-1)
    for row in range(len(table)):
        one = table[row, 0]
        other = table[row, 1] if keys == 2 else np.int64(0)
        if one >= first or other >= second or one < last or (one == last and other <= last_second):
            return False
        last, last_second = one, other
    return True


def seal(magic: bytes, version: int, content: bytes) -> bytes:
    """Magic, format version, content and its CRC-32."""
    return magic + bytes([version]) + content + zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def unseal(data: bytes, magic: bytes, version: int, what: str) -> Reader:
    """A reader of what `seal` closed. Raises ValueError: another kind of data, another format, or damage."""
    start, end = len(magic) + 1, len(data) - CHECKSUM_BYTES
    if data[: len(magic)] != magic or end < start:
        raise ValueError(f"not a {what}")
    if data[len(magic)] != version:
        raise ValueError(f"{what} has format {data[len(magic)]}, this release reads format {version}")
    content = data[start:end]
    if zlib.crc32(content) != int.from_bytes(data[end:], "little"):
        raise ValueError(f"damaged {what}: its checksum is wrong")
    return Reader(content, what)
