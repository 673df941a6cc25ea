"""Small integer tables in bytes: each column in the narrowest numbers that hold it, with a checksum around them all."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from detectors.wire import Reader, Writer

CHECKSUM_BYTES = 4


def write_table(writer: Writer, rows: NDArray[np.int64]) -> None:
    """Append (K, columns) numbers >= 0. A function of the numbers alone: equal tables, equal bytes."""
    writer.number(len(rows))
    for column in rows.T:
        width = 1 << max(0, (int(column.max(initial=0)).bit_length() + 7) // 8 - 1).bit_length()
        writer.number(width)
        writer.raw(column.astype(f"<u{width}").tobytes())


def read_table(reader: Reader, columns: int) -> NDArray[np.int64]:
    """(K, columns) as written. Raises ValueError where the bytes do not back the lengths."""
    rows = reader.number()
    found = []
    for _ in range(columns):
        width = reader.number()
        if width not in (1, 2, 4, 8):
            raise ValueError(f"damaged {reader.what}: numbers of {width} bytes")
        found.append(np.frombuffer(reader.raw(rows * width), f"<u{width}").astype(np.int64))
    table = np.stack(found, axis=1)
    if (table < 0).any():
        raise ValueError(f"damaged {reader.what}: a number of more than 63 bits")
    return table


def ascending(keys: NDArray[np.int64]) -> bool:
    """Whether rows (K, 1 or 2) of numbers below 2^31 stand in strictly ascending order, the first column first.

    >>> ascending(np.array([[0, 5], [1, 2], [1, 3]])), ascending(np.array([[1, 3], [1, 3]]))
    (True, False)
    """
    one = keys[:, 0] << 32 | keys[:, -1]
    return bool((one[1:] > one[:-1]).all())


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
