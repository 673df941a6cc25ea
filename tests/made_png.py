"""PNG files for tests: written by Pillow, or by hand where Pillow has no way to write them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps, of the seven passes of an interlaced file."""


def png(samples: NDArray[Any], colours: int = 0, **options: Any) -> bytes:
    """By Pillow: greyscale of 8 or 16 bits, or with ``colours`` a palette of that many."""
    image = Image.fromarray(samples)
    if colours:
        image.putpalette(list(np.random.default_rng(5).integers(0, 256, 3 * colours)))
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(height: int, width: int, bits: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def assembled(head: bytes, rows: bytes, palette: bytes = b"") -> bytes:
    """A file from its header and its filtered rows."""
    middle = chunk(b"PLTE", palette) if palette else b""
    return SIGNATURE + head + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def filtered_png(samples: NDArray[np.uint8] | NDArray[np.uint16], kinds: list[int]) -> bytes:
    """Greyscale with the scanline filters ``kinds`` in turn, straight from the specification's definitions."""
    step = samples.dtype.itemsize
    rows = samples.astype(">u2").view(np.uint8) if step == 2 else samples
    height, row_bytes = rows.shape
    out = bytearray()
    for r in range(height):
        kind = kinds[r % len(kinds)]
        out.append(kind)
        for c in range(row_bytes):
            a = int(rows[r, c - step]) if c >= step else 0
            b = int(rows[r - 1, c]) if r else 0
            corner = int(rows[r - 1, c - step]) if r and c >= step else 0
            nearest = min((a, b, corner), key=lambda value: abs(a + b - corner - value))
            out.append((int(rows[r, c]) - (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
    return assembled(header(height, samples.shape[1], 8 * step), bytes(out))


def interlaced_png(samples: NDArray[np.uint8], palette: bool = False) -> bytes:
    """8-bit, in Adam7's seven passes."""
    rows = b""
    for row, column, down, across in ADAM7:
        for line in samples[row::down, column::across]:
            if len(line):
                rows += b"\0" + line.tobytes()
    return assembled(
        header(*samples.shape, colour=3 if palette else 0, interlace=1), rows, bytes(768) if palette else b""
    )
