"""Matching predictions to labels as COCO does: greedily, by score, each label at most once.

At a threshold t, the prediction of the highest score takes the label with which its IoU is largest and at least t, of
equal ones the last; then the next prediction chooses among those left. A *crowd* is a label of many objects at once: it
can be matched again and again, its IoU is the share of the prediction that lies in it, and so is whatever lies outside
the area range it is *ignored*: chosen only where no other label fits, and then the prediction is neither right nor
wrong. Detections without a match outside the area range are ignored as well.

Source: Lin et al., Microsoft COCO, 2014; ``cocoeval.py`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""(T,) of IoU."""
AREA_RANGES = np.array([[0, 10**10], [0, 32**2], [32**2, 96**2], [96**2, 10**10]])
"""(A, 2) least and largest area in pixels, both within: all, small, medium, large."""
MAX_DETECTIONS = 100
"""Of an image and class: those of lower score are ignored."""
EVERY_BIT = (1 << len(THRESHOLDS) * len(AREA_RANGES)) - 1


def match_at_half(
    predictions: int, detection: NDArray[np.int64], label: NDArray[np.int64], iou: NDArray[np.float64], crowd: Any
) -> NDArray[np.int64]:
    """(M,) the label that each prediction is matched to at IoU 0.5, whatever their areas; -1 for none.

    Args:
        predictions: M.
        detection, label, iou: (P,) pairs that may match, by detection in descending order of score; of labels that fit
            equally well the last is taken.
        crowd: (N,) whether a label is a crowd.

    >>> pair = np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.6, 0.8, 0.7])
    >>> match_at_half(3, *pair, crowd=np.array([False, False])).tolist()
    [1, 0, -1]
    """
    matched = np.empty(predictions, np.int64)
    _match(_firsts(detection, predictions), label, iou, crowd, crowd, 0.5, matched)
    return matched


def match_for_precision(
    kinds: NDArray[np.int64],
    area: NDArray[np.int64],
    detection: NDArray[np.int64],
    label: NDArray[np.int64],
    iou: NDArray[np.float64],
    label_area: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What average precision needs of each prediction: (M,) true, (M,) ignored.

    Bit ``10 a + t`` is for area range a and threshold t. A prediction that is neither true nor ignored is false.

    Args:
        kinds, area: (M,) of the predictions in descending order of score.
        detection, label, iou: (P,) pairs of equal class, by detection, then by label.
        label_area, crowd: (N,) of the labels.
    """
    true, ignored = np.zeros(len(kinds), np.uint64), np.zeros(len(kinds), np.uint64)
    firsts = _firsts(detection, len(kinds))
    _match_all(kinds, area, firsts, label, iou, label_area, crowd, THRESHOLDS, AREA_RANGES, true, ignored)
    return true, ignored


def _firsts(detection: NDArray[np.int64], predictions: int) -> NDArray[np.int64]:
    """(M + 1,) where each prediction's pairs begin."""
    return np.searchsorted(detection, np.arange(predictions + 1))


@njit(cache=True, nogil=True)
def _match(
    firsts: Any, label: Any, iou: Any, crowd: Any, ignore: Any, threshold: Any, matched: Any
) -> None:  # pragma: no cover
    taken = np.zeros(len(crowd), np.bool_)
    for d in range(len(matched)):
        matched[d] = -1
        for ignored in (False, True):
            best = threshold
            for pair in range(firsts[d], firsts[d + 1]):
                g = label[pair]
                if ignore[g] == ignored and iou[pair] >= best and (crowd[g] or not taken[g]):
                    best, matched[d] = iou[pair], g
            if matched[d] >= 0:
                taken[matched[d]] = True
                break


@njit(cache=True, nogil=True)
def _match_all(
    kinds: Any,
    area: Any,
    firsts: Any,
    label: Any,
    iou: Any,
    label_area: Any,
    crowd: Any,
    thresholds: Any,
    ranges: Any,
    true: Any,
    ignored: Any,
) -> None:  # pragma: no cover
    matched, ignore = np.empty(len(kinds), np.int64), np.empty(len(crowd), np.bool_)
    bit = np.uint64(1)
    for a in range(len(ranges)):
        low, high = ranges[a, 0], ranges[a, 1]
        for g in range(len(crowd)):
            ignore[g] = crowd[g] or label_area[g] < low or label_area[g] > high
        for t in range(len(thresholds)):
            _match(firsts, label, iou, crowd, ignore, thresholds[t], matched)
            for d in range(len(kinds)):
                if matched[d] < 0:
                    if area[d] < low or area[d] > high:
                        ignored[d] |= bit
                elif ignore[matched[d]]:
                    ignored[d] |= bit
                else:
                    true[d] |= bit
            bit <<= np.uint64(1)
    _ignore_surplus(kinds, np.int64(bit) - 1, true, ignored)


@njit(cache=True, nogil=True)
def _ignore_surplus(kinds: Any, every: Any, true: Any, ignored: Any) -> None:  # pragma: no cover
    """Beyond the first `MAX_DETECTIONS` of a class; the greedy matches of those before do not depend on the rest."""
    if len(kinds) <= MAX_DETECTIONS:
        return
    seen = np.zeros(kinds.max() + 1, np.int64)
    for d in range(len(kinds)):
        seen[kinds[d]] += 1
        if seen[kinds[d]] > MAX_DETECTIONS:
            true[d], ignored[d] = np.uint64(0), np.uint64(every)
