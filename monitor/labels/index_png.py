"""Arrays of class indices to the PNG files that records carry."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def index_png(indices: NDArray[np.uint16]) -> bytes:
    """(H, W) values as greyscale PNG, of 8 bits where they suffice, else of 16."""
    samples: NDArray[Any] = indices.astype(np.uint8) if int(indices.max()) < 256 else indices
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "png")
    return buffer.getvalue()


def base64_text(data: bytes) -> str:
    """As JSON carries bytes."""
    return base64.b64encode(data).decode("ascii")
