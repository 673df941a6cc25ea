"""Semantic maps in sums: which share of the pixels has which value, and how sure the model was.

Shares need no image-sized map: a smaller one, enlarged by nearest neighbour, has the same shares up to rounding at the
edges.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from monitor.masks import MAX_PIXELS
from monitor.records.png import read_header, read_samples
from monitor.records.types import Semantic

IndexMap = NDArray[np.uint8] | NDArray[np.uint16]


def decode_semantic(semantic: Semantic, max_pixels: int = MAX_PIXELS) -> tuple[IndexMap, NDArray[np.uint8] | None]:
    """``(indices (H, W), confidence (h, w) uint8 or None)``; the two may differ in size.

    Raises BadRecord (``bad_semantic``, ``semantic_too_large``) before anything of the claimed size is allocated.
    """
    indices = read_samples(semantic.classes_png, "semantic.classes_png", max_pixels)
    if semantic.confidence_png is None:
        return indices, None
    read_header(semantic.confidence_png, "semantic.confidence_png").check_confidence()
    confidence = read_samples(semantic.confidence_png, "semantic.confidence_png", max_pixels)
    return indices, confidence.astype(np.uint8, copy=False)


def semantic_summary(indices: IndexMap, confidence: NDArray[np.uint8] | None) -> tuple[dict[int, float], float | None]:
    """``(share of pixels by value, mean confidence 0..1 or None)``, both from integer sums and so the same anywhere.

    >>> semantic_summary(np.array([[0, 0], [7, 0]], np.uint8), np.array([[255, 0]], np.uint8))
    ({0: 0.75, 7: 0.25}, 0.5)
    """
    counts = _histogram(indices.reshape(-1), 256 if indices.dtype == np.uint8 else 65_536)
    values = np.flatnonzero(counts)
    shares = dict(zip(values.tolist(), (counts[values] / indices.size).tolist(), strict=True))
    if confidence is None:
        return shares, None
    return shares, int(confidence.sum(dtype=np.int64)) / (255 * confidence.size)


@numba.njit(cache=True, nogil=True)
def _histogram(values: Any, bins: int) -> Any:
    """Two tables in turn: neighbours are mostly equal, and counting into one would wait for its own last store."""
    even, odd = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    pairs = len(values) // 2
    for p in range(pairs):
        even[values[2 * p]] += 1
        odd[values[2 * p + 1]] += 1
    if len(values) % 2:
        even[values[-1]] += 1
    return even + odd
