"""Arrays to the files that records carry: images and maps as PNG."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monitor.adapters.mapping import ImageMap
from monitor.adapters.protocol import EntryError

MAGIC: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


def media_type(data: bytes, field: str) -> str:
    """Of an image file, by its first bytes. Raises EntryError for one that segwatch does not read."""
    for magic, name in MAGIC.items():
        if data.startswith(magic):
            return name
    raise EntryError(f"{field}: neither JPEG nor PNG")


def image_png(array: NDArray[Any], how: ImageMap, field: str) -> bytes:
    """``array``: (H, W, 3 or 1) or (3 or 1, H, W). Raises EntryError."""
    pixels = np.moveaxis(array, 0, -1) if how.layout == "chw" else array
    if pixels.shape[-1] not in (1, 3) or pixels.size == 0:
        raise EntryError(f"{field}: shape {list(array.shape)} is no {how.layout} image of 1 or 3 channels")
    if pixels.dtype.kind == "f":
        for name, values in (("mean", how.mean), ("std", how.std)):
            if len(values) not in (1, pixels.shape[-1]):
                raise EntryError(f"{field}: {pixels.shape[-1]} channels, image.{name} has {len(values)}")
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = (pixels * np.asarray(how.std) + np.asarray(how.mean)) * how.scale
        if not np.isfinite(pixels).all():
            raise EntryError(f"{field}: a pixel is not finite")
    # Integers of plain JSON are of any width; a cast would wrap what is out of range.
    if pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return png(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def png(array: NDArray[Any]) -> bytes:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
