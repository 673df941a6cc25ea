"""Merge and split errors: one prediction for several objects, several predictions for one.

*Merge*: one predicted instance covers at least half of each of two or more labels of its class.

*Split*: at least half of each of two or more predictions of a label's class lies in that label, and these are parts of
it rather than the same part twice: of two that share half of the smaller one or more, only the one with the higher
score counts. A prediction repeated is a false positive, not a split.

Hoover's under- and over-segmentation of range images, with overlap threshold 1/2 and without the demand that the parts
make up half of the whole: a mask over two objects and much background has merged them nevertheless.

Source: Hoover et al., An experimental comparison of range image segmentation algorithms, 1996, section 4 (definitions
of under- and over-segmentation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.quality.mask_runs import MaskRuns, SharedPixels, intersection_of


def count_merges(
    runs: MaskRuns,
    pairs: SharedPixels,
    predictions: int,
    kinds: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    classes: int,
) -> NDArray[np.int64]:
    """(C,) predicted instances that merge labels of their class.

    Args:
        runs: predictions first, then labels.
        pairs: of predictions and labels, of any class.
        predictions: M.
        kinds: (M + N,) classes.
        crowd: (N,) labels that are crowds take no part: to cover many objects of a crowd is no error.
        classes: C.
    """
    same = (kinds[pairs.predicted] == kinds[predictions + pairs.labelled]) & ~crowd[pairs.labelled]
    covered = same & (2 * pairs.pixels >= runs.area[predictions + pairs.labelled])
    labels_of = np.bincount(pairs.predicted[covered], minlength=predictions)
    return np.bincount(kinds[:predictions][labels_of >= 2], minlength=classes)[:classes].astype(np.int64)


def count_splits(
    runs: MaskRuns,
    pairs: SharedPixels,
    predictions: int,
    kinds: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    classes: int,
) -> NDArray[np.int64]:
    """(C,) labels that are split; arguments as for `count_merges`, the predictions in descending order of score."""
    same = (kinds[pairs.predicted] == kinds[predictions + pairs.labelled]) & ~crowd[pairs.labelled]
    within = np.flatnonzero(same & (2 * pairs.pixels >= runs.area[pairs.predicted]))
    candidates = np.bincount(pairs.labelled[within], minlength=len(crowd))
    splits = np.zeros(classes, np.int64)
    for label in np.flatnonzero(candidates >= 2):
        parts = pairs.predicted[within[pairs.labelled[within] == label]]
        if _is_split(parts, runs.starts, runs.ends, runs.offsets, runs.area):
            splits[kinds[predictions + label]] += 1
    return splits


@njit(cache=True, nogil=True)
def _is_split(parts: Any, starts: Any, ends: Any, offsets: Any, area: Any) -> Any:  # pragma: no cover
    kept, n = np.empty(len(parts), np.int64), 0
    for part in parts:
        repeated = False
        for k in range(n):
            other = kept[k]
            shared = intersection_of(starts, ends, offsets[part], offsets[part + 1], offsets[other], offsets[other + 1])
            repeated = repeated or 2 * shared >= min(area[part], area[other])
        if not repeated:
            if n == 1:
                return True
            kept[n] = part
            n += 1
    return False
