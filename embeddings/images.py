"""Compressed images to network input: (size, size, 3) uint8 RGB.

A baseline's images and production's go through this one function, because another decoder or another filter
moves embeddings as much as a mild drift does. ``PREPROCESSING_VERSION`` is part of an embedder's identity, and
grows whenever the same bytes would give other pixels.

The whole image is resized, without a crop and without keeping its aspect ratio: a segmentation model is asked
about the whole image, and a crop would be blind to what happens at its edges. Orientation tags of cameras are
ignored, alpha is dropped (not blended), 16 bit is cut to its upper 8: the pixels as they are stored.

JPEG, the hot path, is decoded at the smallest of libjpeg's scales up to 1/2 that is still at least ``size`` in both
directions: the inverse cosine transform then makes fewer pixels, and high frequencies that the resize would
average away are never computed. Scales between 1/2 and 1 exist too, but take longer than the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from embeddings.headers import ImageError, MediaType, check_png_chunks, read_header

__all__ = [
    "PREPROCESSING_VERSION",
    "ImageError",
    "ImageLimits",
    "MediaType",
    "decode_within",
    "prepare",
    "prepare_sized",
    "probe",
]

PREPROCESSING_VERSION = 1

# Images are decoded by a pool of threads already; OpenCV's own threads on top would only fight with them.
cv2.setNumThreads(1)
# OpenCV reports each refused image on stderr; here the ImageError tells, and a hostile sender fills no log.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be; looked at before any decoding."""

    max_pixels: int = 50_000_000
    max_bytes: int = 32 * 1024 * 1024


DEFAULT_LIMITS = ImageLimits()


def probe(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[MediaType, int, int]:
    """(media type, width, height) of a JPEG, PNG, WebP or BMP from its header; microseconds.

    Raises ImageError: ``image_too_large`` beyond the limits, ``image_format``, ``image_truncated`` or
    ``image_undecodable``. That it returns does not mean that the pixels can be decoded.

    >>> probe(b"GIF89a")
    Traceback (most recent call last):
    embeddings.headers.ImageError: image_format: neither JPEG, PNG, WebP nor BMP: starts with 47 49 46 38 39 61
    """
    if len(data) > limits.max_bytes:
        raise ImageError("image_too_large", f"{len(data)} bytes, more than {limits.max_bytes}")
    media_type, width, stated_height = read_header(data)
    height = abs(stated_height)
    if width == 0 or height == 0:
        raise ImageError("image_undecodable", f"an image of {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageError("image_too_large", f"{width} x {height} pixels, more than {limits.max_pixels} in all")
    if stated_height < 0:
        raise ImageError("image_truncated", f"BMP of {width} x {height} pixels ends after {len(data)} bytes")
    return media_type, width, height


def prepare(data: bytes, size: int, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode and resize one image: (size, size, 3) uint8 RGB, contiguous.

    Safe to call from many threads; the decoders and the resize release the interpreter's lock.
    Raises ImageError as ``probe`` does, and where the pixels cannot be decoded to the last one.
    """
    return prepare_sized(data, size, limits)[0]


def prepare_sized(data: bytes, size: int, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[NDArray[np.uint8], int, int]:
    """What ``prepare`` gives, and the original's width and height; ``probe`` beside it would read the file twice."""
    media_type, width, height = probe(data, limits)
    if media_type == "image/jpeg":
        pixels = _decode_jpeg(data, size, width, height)
    else:
        if media_type == "image/png":
            check_png_chunks(data)
        pixels = _decode_other(data, media_type, width, height)
    return _resize(pixels, size), width, height


def decode_within(data: bytes, side: int, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[NDArray[np.uint8], int, int]:
    """For people rather than networks: (h, w, 3) uint8 RGB, and the original's width and height.

    The longer of h and w is at most ``side``, and their ratio the original's; smaller images stay as they are. Raises
    ImageError as ``prepare`` does.
    """
    media_type, width, height = probe(data, limits)
    scale = min(1.0, side / max(width, height))
    wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
    if media_type == "image/jpeg":
        pixels = _decode_jpeg(data, max(1, min(wanted)), width, height)
    else:
        if media_type == "image/png":
            check_png_chunks(data)
        pixels = _decode_other(data, media_type, width, height)
    if (pixels.shape[1], pixels.shape[0]) != wanted:
        pixels = np.asarray(cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return pixels, width, height


def _resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if pixels.shape == (size, size, 3):
        return pixels
    # From twice the size on, area averaging: every pixel counts, so fine texture does not alias. Below, where linear
    # interpolation reads every pixel as well, that: at a quarter of the time, in integers, the same on every CPU.
    is_large = max(pixels.shape[:2]) >= 2 * size
    filtering = cv2.INTER_AREA if is_large else cv2.INTER_LINEAR_EXACT
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=filtering), dtype=np.uint8)


def _decode_jpeg(data: bytes, size: int, width: int, height: int) -> NDArray[np.uint8]:
    # The minimum must not exceed the image: a small one is decoded as it is and enlarged afterwards.
    minimum = {"min_height": min(size, height), "min_width": min(size, width), "min_factor": 2}
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", **minimum)
    except ValueError as error:
        message = str(error)
        if "extraneous bytes before marker" not in message:
            cut = "remature end" in message or data.rfind(b"\xff\xd9") < len(data) // 2
            raise ImageError("image_truncated" if cut else "image_undecodable", f"JPEG: {message}") from None
        # Padding that some cameras write between segments; no pixel is missing, and every decoder takes it.
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=False, **minimum)
    return np.asarray(pixels, dtype=np.uint8)


def _decode_other(data: bytes, media_type: MediaType, width: int, height: int) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # BGR, 8 bit, without alpha, whatever is stored
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ImageError("image_undecodable", f"{media_type}: {str(error).splitlines()[0]}") from None
    if pixels is None:
        raise ImageError("image_undecodable", f"{media_type} of {width} x {height} pixels: damaged data")
    if pixels.shape != (height, width, 3):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ImageError("image_undecodable", f"{media_type}: header says {width} x {height}, data has {found}")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
