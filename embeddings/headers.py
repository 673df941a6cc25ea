"""What an image's header says, read from its first bytes, before anything is decoded.

A decoder allocates what the header asks for, so the header is read first, by code that allocates nothing: a
PNG of 100 bytes that claims 100,000 x 100,000 pixels (a decompression bomb) costs microseconds to refuse.
Each reader also makes sure that the file is whole where its container says how long it should be, because
decoders differ between versions in whether they refuse a cut file or fill it up with grey.

Sources: ITU T.81 (JPEG) annex B, W3C PNG 3rd edition section 5, RFC 9649 (WebP), Microsoft's BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

MediaType = Literal["image/jpeg", "image/png", "image/webp", "image/bmp"]
Reason = Literal["image_format", "image_truncated", "image_too_large", "image_undecodable"]

MAX_SCANS = 100
"""A progressive JPEG stores an image in some 10 scans; thousands of empty ones cost a pass over all pixels each."""

_STANDALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # TEM, RST0..RST7, SOI: markers without a length
_START_OF_FRAME = frozenset(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC})  # without DHT, JPG, DAC
_PNG_BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_BMP_BITS_PER_PIXEL = (1, 4, 8, 16, 24, 32)


class ImageError(ValueError):
    """An image that is not read.

    ``reason`` is one of four short words (a metric's label value): ``image_format`` (no JPEG, PNG, WebP or
    BMP), ``image_truncated``, ``image_too_large`` (more pixels or bytes than the limits), and
    ``image_undecodable`` (anything else that is wrong). ``detail`` says what, for a person.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def read_header(data: bytes) -> tuple[MediaType, int, int]:
    """(media type, width, height) in pixels, as the header states them. Raises ImageError."""
    if data[:2] == b"\xff\xd8":
        return "image/jpeg", *_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png", *_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", *_webp(data)
    if data[:2] == b"BM":
        return "image/bmp", *_bmp(data)
    raise ImageError("image_format", f"neither JPEG, PNG, WebP nor BMP: starts with {data[:8].hex(' ') or 'nothing'}")


def check_png_chunks(data: bytes) -> None:
    """Walk a PNG's chunks to its end: whole, and every critical chunk's CRC right. Raises ImageError.

    Done after the limits, as it reads all bytes (1 GB/s); OpenCV before 5 took a PNG without its end.
    """
    position = 8
    while True:
        if position + 12 > len(data):
            raise ImageError("image_truncated", f"PNG ends after {len(data)} bytes without its IEND chunk")
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            raise ImageError("image_truncated", f"PNG chunk {kind!r} goes on to byte {end}, the file has {len(data)}")
        is_critical = not kind[0] & 0x20  # a capital first letter
        if is_critical:
            (stated,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != stated:
                raise ImageError("image_undecodable", f"PNG chunk {kind!r} at byte {position}: its checksum is wrong")
        if kind == b"IEND":
            return
        position = end


def _jpeg(data: bytes) -> tuple[int, int]:
    position = 2
    while True:
        while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] == b"\xff":
            position += 1  # fill bytes before a marker
        if position + 4 > len(data):
            raise ImageError("image_truncated", f"JPEG ends after {len(data)} bytes, before its frame header")
        prefix, marker = data[position], data[position + 1]
        if prefix != 0xFF or marker in (0x00, 0xD9, 0xDA):
            raise ImageError("image_undecodable", f"JPEG without a frame header: marker {prefix:02x}{marker:02x}")
        if marker in _STANDALONE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if length < 2:
            raise ImageError("image_undecodable", f"JPEG segment {marker:02x} of length {length}")
        if marker in _START_OF_FRAME:
            if position + 9 > len(data):
                raise ImageError("image_truncated", f"JPEG ends after {len(data)} bytes, in its frame header")
            height, width = struct.unpack_from(">HH", data, position + 5)
            # In compressed data FF is followed by 00, so FFDA can only be the start of a scan (or of a thumbnail's).
            if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
                raise ImageError("image_undecodable", f"JPEG of {scans} scans, more than {MAX_SCANS}")
            return width, height
        position += 2 + length


def _png(data: bytes) -> tuple[int, int]:
    if len(data) < 33:
        raise ImageError("image_truncated", f"PNG ends after {len(data)} bytes, in its header")
    length, kind, width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if length != 13 or kind != b"IHDR":
        raise ImageError("image_undecodable", f"PNG starts with a chunk {kind!r} of {length} bytes, not with IHDR")
    if bits not in _PNG_BIT_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ImageError("image_undecodable", f"PNG of colour type {colour} with {bits} bits does not exist")
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    if len(data) < 30:
        raise ImageError("image_truncated", f"WebP ends after {len(data)} bytes, in its header")
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    if riff_bytes + 8 > len(data):
        raise ImageError("image_truncated", f"WebP of {riff_bytes + 8} bytes ends after {len(data)}")
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ImageError("image_undecodable", f"WebP without a picture: first chunk {kind!r}")


def _bmp(data: bytes) -> tuple[int, int]:
    if len(data) < 54:
        raise ImageError("image_truncated", f"BMP ends after {len(data)} bytes, in its header")
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_bytes >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        height = abs(height)  # negative: rows from top to bottom
    else:
        raise ImageError("image_undecodable", f"BMP with an information header of {header_bytes} bytes")
    if width <= 0 or bits not in _BMP_BITS_PER_PIXEL:
        raise ImageError("image_undecodable", f"BMP of width {width} and {bits} bits a pixel")
    if compression not in (0, 3):  # BI_RGB, BI_BITFIELDS; run-length coding and embedded JPEG are not read
        raise ImageError("image_format", f"BMP with compression {compression}; only uncompressed ones are read")
    row_bytes = (width * bits + 31) // 32 * 4
    if pixels_at + row_bytes * height > len(data):
        # Also what stops a bomb: an uncompressed picture cannot claim more pixels than it has bytes for. The limits
        # are looked at first, so that a huge one is named as such.
        return width, -height
    return width, height
