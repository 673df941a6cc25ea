"""Single-channel PNG files to arrays of their sample values: palette indices stay indices, nothing becomes a colour.

A semantic map is data that happens to travel as a PNG. Image libraries turn palettes into colours, scale narrow samples
to 0..255, and some hand out half a picture for a truncated file. This reader does none of that; it inflates at most as
many bytes as the header's dimensions need (a decompression bomb stops there), and releases the interpreter's lock while
it inflates and unfilters. Interlaced files, which are rare, go through Pillow after the same checks.

Source: W3C, Portable Network Graphics (Third Edition), 2025: chunks (5), scanline filters (9), interlacing (8).
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from monitor.errors import BadRecord

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR_AT, IHDR_BYTES = 8, 25
GREY, PALETTE = 0, 3
MAX_SIDE = 2**31 - 1
COLOURS = {GREY: "greyscale", 2: "colour", PALETTE: "palette", 4: "greyscale with alpha", 6: "colour with alpha"}
WIDTHS = {GREY: (8, 16), PALETTE: (1, 2, 4, 8)}
"""Allowed bits per sample. Narrow palettes are how Pillow writes maps of few classes; narrow greyscale is refused,
since half of the tools read a 1-bit 1 as 1 and the other half as 255."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first chunk (IHDR) claims; ``field`` is where the file stood in its record."""

    field: str
    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    def check(self, max_pixels: int) -> None:
        """Raises BadRecord: ``semantic_too_large`` above the limit, ``bad_semantic`` for a kind that is no index
        map."""
        if not 0 < self.width <= MAX_SIDE or not 0 < self.height <= MAX_SIDE:
            raise BadRecord("bad_semantic", f"{self.field}: impossible size {self.height} x {self.width}")
        if self.width * self.height > max_pixels:
            raise BadRecord(
                "semantic_too_large", f"{self.field}: {self.height} x {self.width} pixels, the limit is {max_pixels}"
            )
        if self.bits not in WIDTHS.get(self.colour, ()):
            kind = COLOURS.get(self.colour, f"colour type {self.colour}")
            raise BadRecord(
                "bad_semantic",
                f"{self.field}: {self.bits}-bit {kind}, not an 8- or 16-bit single-channel or palette PNG",
            )

    def check_confidence(self) -> None:
        """Raises BadRecord unless the samples are 8-bit greyscale."""
        if self.colour != GREY or self.bits != 8:
            raise BadRecord("bad_semantic", f"{self.field}: not an 8-bit greyscale PNG")

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 7) // 8


def read_header(data: bytes, field: str) -> Header:
    """The header, from 33 bytes. Raises BadRecord (``bad_semantic``)."""
    if not data.startswith(SIGNATURE):
        raise BadRecord("bad_semantic", f"{field}: not a PNG file ({len(data)} bytes)")
    if len(data) < IHDR_AT + IHDR_BYTES or data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\x0d":
        raise BadRecord("bad_semantic", f"{field}: cut short, or its header is damaged")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise BadRecord("bad_semantic", f"{field}: the header's checksum is wrong")
    return Header(
        field,
        width=int.from_bytes(data[16:20], "big"),
        height=int.from_bytes(data[20:24], "big"),
        bits=data[24],
        colour=data[25],
        interlaced=data[28] != 0,
    )


def read_samples(data: bytes, field: str, max_pixels: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) sample values; uint16 for 16-bit files. Raises BadRecord (``bad_semantic``, ``semantic_too_large``)."""
    header = read_header(data, field)
    header.check(max_pixels)
    if header.interlaced:
        return _read_interlaced(data, header)
    rows = _inflate(data, header)
    if not _unfilter(rows, max(1, header.bits // 8)):
        raise BadRecord("bad_semantic", f"{field}: unknown scanline filter")
    samples = rows[:, 1:]
    if header.bits == 16:
        return np.ascontiguousarray(samples).view(">u2").astype(np.uint16)
    if header.bits == 8:
        return np.ascontiguousarray(samples)
    per_byte = 8 // header.bits
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    unpacked = (samples[:, :, None] >> shifts) & np.uint8((1 << header.bits) - 1)
    return np.ascontiguousarray(unpacked.reshape(header.height, -1 if samples.size else per_byte)[:, : header.width])


def _inflate(data: bytes, header: Header) -> NDArray[np.uint8]:
    """(H, 1 + row_bytes) filtered rows, each with its filter's number in front."""
    wanted = header.height * (1 + header.row_bytes)
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(_image_data(data, header.field), wanted + 1)
    except zlib.error:
        raise BadRecord("bad_semantic", f"{header.field}: the compressed data is damaged") from None
    if len(raw) != wanted or not inflater.eof:
        raise BadRecord(
            "bad_semantic",
            f"{header.field}: cut short or overlong: {len(raw)} bytes of samples, {wanted} expected",
        )
    return np.frombuffer(bytearray(raw), np.uint8).reshape(header.height, 1 + header.row_bytes)


def _image_data(data: bytes, field: str) -> bytes:
    """The IDAT chunks, joined; their checksums are left to zlib's own (Adler-32), which covers the same bytes."""
    parts = []
    p = IHDR_AT + IHDR_BYTES
    while p + 12 <= len(data):
        length, kind = int.from_bytes(data[p : p + 4], "big"), data[p + 4 : p + 8]
        if kind == b"IDAT":
            parts.append(data[p + 8 : p + 8 + length])
        elif kind == b"IEND":
            return b"".join(parts)
        p += 12 + length
    raise BadRecord("bad_semantic", f"{field}: cut short")


def _read_interlaced(data: bytes, header: Header) -> NDArray[np.uint8] | NDArray[np.uint16]:
    try:
        # The plain reader, not Image.open: the size is checked already, and Image.open warns by limits of its own.
        image = PngImageFile(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow raises whatever its decoders happen to: SyntaxError, struct.error, OSError
        raise BadRecord("bad_semantic", f"{header.field}: {ascii(str(error))[1:-1][:160]}") from None
    if header.bits == 16:
        return np.asarray(image).astype(np.uint16)
    return np.asarray(image).astype(np.uint8)


@numba.njit(cache=True, nogil=True)
def _unfilter(rows: Any, step: int) -> bool:
    """Undo the scanline filters in place; ``step``: bytes from a sample to the one left of it. False: unknown
    filter."""
    height, width = rows.shape
    for r in range(height):
        kind = rows[r, 0]
        if kind == 0:
            continue
        if kind > 4:
            return False
        for c in range(1, width):
            left = np.int64(rows[r, c - step]) if c > step else np.int64(0)
            above = np.int64(rows[r - 1, c]) if r > 0 else np.int64(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) // 2
            else:
                corner = np.int64(rows[r - 1, c - step]) if r > 0 and c > step else np.int64(0)
                estimate = left + above - corner
                to_left, to_above, to_corner = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
                if to_left <= to_above and to_left <= to_corner:
                    guess = left
                elif to_above <= to_corner:
                    guess = above
                else:
                    guess = corner
            rows[r, c] = (np.int64(rows[r, c]) + guess) & 255
    return True
