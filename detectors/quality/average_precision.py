"""COCO's average precision over many images, from their judgements.

All predictions of a class, of all images, are ordered by score; walking down, the recall is the share of labels found
so far and the precision the share of predictions that found one. The precision at a recall is the best at that recall
or any higher one; its mean at the recalls 0, 0.01, ... 1 is the average precision at one IoU threshold. AP is the mean
over the thresholds 0.5, 0.55, ... 0.95; AR the mean of the recalls reached, with at most 100 predictions an image and
class. Areas are those of the masks.

With weights, each image's labels and predictions count that often, so that images drawn with unequal probability give
the value of all images. Of predictions with equal scores the earlier image's come first, as in pycocotools; a whole
weight is the same as repeating the image, unless two predictions of a class within the image have the same score.

Source: Lin et al., Microsoft COCO, 2014; ``cocoeval.py`` of pycocotools, with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.matching import AREA_RANGES, THRESHOLDS

RECALLS = np.linspace(0.0, 1.0, 101)
EPSILON = float(np.spacing(1))
"""Added to the number of predictions, so that none of them is no division by zero; as pycocotools has it."""


@dataclass(frozen=True, eq=False, slots=True)
class AveragePrecision:
    """Per class, each (C,) in 0..1 and NaN where there is no label to find (of that size)."""

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    ap75: NDArray[np.float64]
    ap_small: NDArray[np.float64]
    ap_medium: NDArray[np.float64]
    ap_large: NDArray[np.float64]
    ar: NDArray[np.float64]
    ar_small: NDArray[np.float64]
    ar_medium: NDArray[np.float64]
    ar_large: NDArray[np.float64]

    def mean(self, name: str) -> float:
        """COCO's figure: the mean over the classes that have one; NaN where none has.

        >>> nothing = average_precision([], 2)
        >>> nothing.ap.tolist(), nothing.mean("ap")
        ([nan, nan], nan)
        """
        values: NDArray[np.float64] = getattr(self, name)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, eq=False, slots=True)
class Ranked:
    """Labels and predictions of n images, brought into order once for any number of weightings."""

    images: int
    classes: int
    label_image: NDArray[np.int64]
    """(L,) of labels that are no crowd."""
    label_kind: NDArray[np.int64]
    label_area: NDArray[np.int64]
    firsts: NDArray[np.int64]
    """(C + 1,) class c has the predictions ``[firsts[c], firsts[c + 1])``, in descending order of score."""
    image: NDArray[np.int64]
    """(P,)"""
    true: NDArray[np.uint64]
    ignored: NDArray[np.uint64]

    @classmethod
    def of(cls, judgements: Sequence[InstanceJudgement], classes: int) -> Ranked:
        """``judgements``: in an order that settles equal scores.

        Raises:
            ValueError: a judgement of other than ``classes`` classes.
        """
        for judgement in judgements:
            if judgement.classes != classes:
                raise ValueError(f"a judgement has {judgement.classes} classes, expected {classes}")
        numbers = np.arange(len(judgements))
        counted = ~_joined(judgements, "label_crowd", np.bool_)
        label_image = np.repeat(numbers, [len(judgement.label_kind) for judgement in judgements])[counted]
        kind, score = _joined(judgements, "kind", np.int64), _joined(judgements, "score", np.float64)
        order = np.lexsort((-score, kind))
        return cls(
            len(judgements),
            classes,
            label_image,
            _joined(judgements, "label_kind", np.int64)[counted],
            _joined(judgements, "label_area", np.int64)[counted],
            np.searchsorted(kind[order], np.arange(classes + 1)),
            np.repeat(numbers, [len(judgement.kind) for judgement in judgements])[order],
            _joined(judgements, "true_bits", np.uint64)[order],
            _joined(judgements, "ignored_bits", np.uint64)[order],
        )

    def precision(self, weights: ArrayLike | None = None) -> AveragePrecision:
        """AP and AR of each class.

        Args:
            weights: (n,) finite and >= 0, 1 / inclusion probability; None for 1 each.

        Raises:
            ValueError: weights of another length, negative or not finite.
        """
        weight = np.ones(self.images) if weights is None else np.asarray(weights, np.float64)
        if weight.shape != (self.images,):
            raise ValueError(f"{self.images} judgements, weights of shape {weight.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ValueError("weights must be finite and >= 0")
        label_weight = weight[self.label_image]
        present = np.zeros((self.classes, len(AREA_RANGES)))
        for a, (low, high) in enumerate(AREA_RANGES):
            within = (self.label_area >= low) & (self.label_area <= high)
            present[:, a] = np.bincount(self.label_kind[within], label_weight[within], self.classes)
        shape = (self.classes, len(AREA_RANGES), len(THRESHOLDS))
        precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        _walk(self.firsts, self.true, self.ignored, weight[self.image], present, RECALLS, precision, recall)
        sizes = precision.mean(axis=2), recall.mean(axis=2)
        return AveragePrecision(sizes[0][:, 0], precision[:, 0, 0], precision[:, 0, 5], *sizes[0].T[1:], *sizes[1].T)


def average_precision(
    judgements: Sequence[InstanceJudgement], classes: int, weights: ArrayLike | None = None
) -> AveragePrecision:
    """AP and AR of each class, see `Ranked`.

    Raises:
        ValueError: a judgement of other than C classes; weights of another length, negative or not finite.
    """
    return Ranked.of(judgements, classes).precision(weights)


def _joined(judgements: Sequence[InstanceJudgement], name: str, dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(getattr(judgement, name) for judgement in judgements)])


@njit(cache=True, nogil=True)
def _walk(
    firsts: Any, true: Any, ignored: Any, weight: Any, present: Any, recalls: Any, precision: Any, recall: Any
) -> None:  # pragma: no cover
    """Rows ``[firsts[c], firsts[c + 1])`` are those of class c, in descending order of score."""
    classes, ranges, thresholds = precision.shape
    found, pure = np.empty(len(true)), np.empty(len(true))
    for c in range(classes):
        for a in range(ranges):
            if not present[c, a] > 0:
                continue
            for t in range(thresholds):
                bit = np.uint64(a * thresholds + t)
                right, wrong, n = 0.0, 0.0, 0
                for row in range(firsts[c], firsts[c + 1]):
                    if weight[row] == 0.0 or (ignored[row] >> bit) & np.uint64(1):
                        continue  # without weight it changes neither side
                    if (true[row] >> bit) & np.uint64(1):
                        right += weight[row]
                    else:
                        wrong += weight[row]
                    found[n] = right / present[c, a]
                    pure[n] = right / (wrong + right + EPSILON)
                    n += 1
                for row in range(n - 1, 0, -1):
                    pure[row - 1] = max(pure[row - 1], pure[row])
                row, total = 0, 0.0
                for level in recalls:
                    while row < n and found[row] < level:
                        row += 1
                    if row == n:
                        break
                    total += pure[row]
                precision[c, a, t] = total / len(recalls)
                recall[c, a, t] = found[n - 1] if n else 0.0
