"""Bins of a probability: sixteen of equal width, the highest cut again where well-trained models live.

Most pixels of a good model have a confidence above 15/16. With one bin for all of them a fall from .999 to .95 could
not be seen, so that bin is cut at 248, 252, 254 and 255 of 255: as fine as the bytes of a confidence map are. Where
figures are compared with other tools' (reliability, ECE), the parts are put together again.

Bins are open below and closed above, as in scikit-learn's ``calibration_curve``; 0 is in the lowest.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

UNIFORM_BINS = 16
EDGES: NDArray[np.float64] = np.concatenate(
    [np.arange(1, UNIFORM_BINS) / UNIFORM_BINS, np.array([247.5, 251.5, 253.5, 254.5]) / 255]
)
"""Upper edges of all bins but the highest."""
EDGES.setflags(write=False)
BINS = len(EDGES) + 1
CENTRES: NDArray[np.float64] = (np.concatenate([[0.0], EDGES]) + np.concatenate([EDGES, [1.0]])) / 2
CENTRES.setflags(write=False)


def bins_of(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """The bin of every probability in 0..1.

    >>> bins_of(np.array([0.0, 0.0625, 0.07, 0.95, 1.0])).tolist()
    [0, 0, 1, 15, 19]
    """
    return np.searchsorted(EDGES, probabilities, side="left")


BIN_OF_BYTE: NDArray[np.uint8] = bins_of(np.arange(256) / 255).astype(np.uint8)
"""(256,): the bin of every value of a confidence map. No value lies on an edge, so rounding cannot decide."""
BIN_OF_BYTE.setflags(write=False)


def uniform(counts: NDArray[Any]) -> NDArray[Any]:
    """(..., BINS) sums to (..., UNIFORM_BINS)."""
    last = UNIFORM_BINS - 1
    return np.concatenate([counts[..., :last], counts[..., last:].sum(-1, keepdims=True)], axis=-1)


def confidence_counts(predicted: NDArray[np.int32], confidence: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(C + 1, BINS) pixels by predicted class and bin of the confidence.

    Args:
        predicted: (H, W) positions 0..C.
        confidence: (H, W), 0..255 for 0..1.

    >>> confidence_counts(np.array([[0, 1]], np.int32), np.array([[255, 3]], np.uint8), 1)[:, [0, 19]].tolist()
    [[0, 1], [1, 0]]
    """
    counts = np.zeros((classes + 1, BINS), np.int64)
    _count(np.ascontiguousarray(predicted).reshape(-1), np.ascontiguousarray(confidence).reshape(-1), counts)
    return counts


def judged_confidence(
    predicted: NDArray[np.int32], labelled: NDArray[np.int32], confidence: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """(C + 1, BINS, 4): pixels, correct pixels, sum of their confidence bytes, and pixels that are void.

    The first three are of pixels that are not void. ``labelled``: (H, W) positions 0..C + 1, where C + 1 is void.
    """
    sums = np.zeros((classes + 1, BINS, 4), np.int64)
    _judge(
        np.ascontiguousarray(predicted).reshape(-1),
        np.ascontiguousarray(labelled).reshape(-1),
        np.ascontiguousarray(confidence).reshape(-1),
        sums,
    )
    return sums


@numba.njit(cache=True, nogil=True)
def _count(predicted: Any, confidence: Any, counts: Any) -> None:
    for p in range(len(predicted)):
        counts[predicted[p], BIN_OF_BYTE[confidence[p]]] += 1


@numba.njit(cache=True, nogil=True)
def _judge(predicted: Any, labelled: Any, confidence: Any, sums: Any) -> None:
    void = len(sums)
    for p in range(len(predicted)):
        cell = sums[predicted[p], BIN_OF_BYTE[confidence[p]]]
        if labelled[p] == void:
            cell[3] += 1
        else:
            cell[0] += 1
            cell[1] += predicted[p] == labelled[p]
            cell[2] += confidence[p]
