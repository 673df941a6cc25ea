"""Panoptic quality: every pixel belongs to one segment, and a segment is found when its IoU is above one half.

Above one half no segment can fit two others, so that the matching needs no choice. With TP matched pairs, FP predicted
and FN labelled segments of a class left over,

    SQ = sum of the matched IoUs / TP,   RQ = TP / (TP + FP/2 + FN/2),   PQ = SQ * RQ.

Pixels that the label leaves void take no part: they are not counted in a predicted segment's area when it is compared,
and a predicted segment that no label matches and that lies for more than half in void, or in crowds of its class, is
forgotten. A crowd is never matched and never missed.

Source: Kirillov et al., Panoptic Segmentation, CVPR 2019 (arXiv 1801.00868), sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.quality.metric import Metric
from detectors.wire import Reader, Writer

MAGIC = b"SWPJ"
VERSION = 1
IOU_UNITS = 10**9
"""IoUs are added up in whole billionths, so that the order of adding never shows."""
MAX_CLASSES = 1 << 16
LIMIT = 1 << 60
"""Above every number that is written, and within an int64."""


@dataclass(frozen=True, eq=False, slots=True)
class Segments:
    """S segments of one image that share no pixel."""

    map: NDArray[Any]
    """(H, W) integers: 0 for void, s + 1 for segment s."""
    kinds: NDArray[np.int64]
    """(S,) classes 0..C-1; for predictions also C, a class that the ontology does not know."""
    crowd: NDArray[np.bool_] | None = None
    """(S,) of labels; None for none."""


@dataclass(frozen=True, eq=False, slots=True)
class PanopticJudgement:
    """One image's predicted segments against its labelled ones, each (C,)."""

    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]
    iou_billionths: NDArray[np.int64]
    """Sum of the matched pairs' IoUs, each rounded to whole billionths."""

    @property
    def classes(self) -> int:
        """C"""
        return len(self.true_positives)

    def to_bytes(self) -> bytes:
        writer = Writer()
        writer.raw(MAGIC + bytes([VERSION]))
        writer.number(self.classes)
        for column in (self.true_positives, self.false_positives, self.false_negatives, self.iou_billionths):
            for value in column.tolist():
                writer.number(value)
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> PanopticJudgement:
        """Raises ValueError where the data are damaged, of another kind or another format."""
        reader = Reader(data, "panoptic judgement")
        if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
            raise ValueError(f"not a {reader.what}")
        reader.raw(len(MAGIC))
        version, classes = reader.raw(1)[0], reader.number()
        if version != VERSION:
            raise ValueError(f"{reader.what} has format {version}, this release reads format {VERSION}")
        if not 1 <= classes <= MAX_CLASSES:
            raise ValueError(f"damaged {reader.what}: {classes} classes")
        columns = [[reader.number() for _ in range(classes)] for _ in range(4)]
        reader.end()
        if max(max(column) for column in columns) >= LIMIT:
            raise ValueError(f"damaged {reader.what}: a number is too large")
        true, false, missed, iou = np.array(columns, np.int64)
        if (iou > true.astype(np.float64) * IOU_UNITS).any():
            raise ValueError(f"damaged {reader.what}: IoUs above 1")
        return cls(true, false, missed, iou)


def judge_panoptic(predicted: Segments, labelled: Segments, classes: int) -> PanopticJudgement:
    """Match the segments of one image.

    Raises:
        ValueError: maps of different sizes, which it names, or with values of no segment; classes out of range.

    >>> labelled = Segments(np.array([[1, 1, 2, 2]]), np.array([0, 1]))
    >>> predicted = Segments(np.array([[1, 1, 1, 2]]), np.array([0, 1]))
    >>> judgement = judge_panoptic(predicted, labelled, 2)
    >>> judgement.true_positives.tolist(), judgement.iou_billionths.tolist(), judgement.false_negatives.tolist()
    ([1, 0], [666666667, 0], [0, 1])
    """
    _check(predicted, labelled, classes)
    kinds, label_kinds = np.asarray(predicted.kinds, np.int64), np.asarray(labelled.kinds, np.int64)
    crowd = np.zeros(len(label_kinds), np.bool_) if labelled.crowd is None else np.asarray(labelled.crowd, np.bool_)
    shared = np.zeros((len(label_kinds) + 1, len(kinds) + 1), np.int64)
    _count_pairs(np.ascontiguousarray(labelled.map), np.ascontiguousarray(predicted.map), shared)
    area, label_area = shared[:, 1:].sum(axis=0), shared[1:].sum(axis=1)
    void, pairs = shared[0, 1:], shared[1:, 1:]

    union = label_area[:, None] + (area - void)[None, :] - pairs
    same = label_kinds[:, None] == kinds[None, :]
    found, by = np.nonzero(same & ~crowd[:, None] & (2 * pairs > union))
    iou = np.rint(pairs[found, by] / union[found, by] * IOU_UNITS).astype(np.int64)

    undecided = void + np.where(same & crowd[:, None], pairs, 0).sum(axis=0)
    false = (2 * undecided <= area) & (area > 0)
    false[by] = False
    missed = ~crowd & (label_area > 0)
    missed[found] = False
    summed = np.zeros(classes, np.int64)
    np.add.at(summed, label_kinds[found], iou)
    return PanopticJudgement(
        true_positives=_per_class(label_kinds[found], classes),
        false_positives=_per_class(kinds[false], classes),
        false_negatives=_per_class(label_kinds[missed], classes),
        iou_billionths=summed,
    )


def _per_class(kinds: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return np.bincount(kinds, minlength=classes)[:classes].astype(np.int64)


def _check(predicted: Segments, labelled: Segments, classes: int) -> None:
    if predicted.map.shape != labelled.map.shape or predicted.map.ndim != 2:
        raise ValueError(
            f"maps of one image must have one size (H, W): predicted {predicted.map.shape}, "
            f"labelled {labelled.map.shape}"
        )
    for side, segments, highest in (("predicted", predicted, classes), ("labelled", labelled, classes - 1)):
        count = len(segments.kinds)
        if not np.issubdtype(segments.map.dtype, np.integer):
            raise ValueError(f"the {side} map is of {segments.map.dtype}, expected integers")
        if segments.map.size and not (segments.map.min() >= 0 and segments.map.max() <= count):
            raise ValueError(f"the {side} map has values outside 0..{count}, and {count} segments")
        if count and not (np.min(segments.kinds) >= 0 and np.max(segments.kinds) <= highest):
            raise ValueError(f"{side} classes must be 0..{highest}")
        if segments.crowd is not None and len(segments.crowd) != count:
            raise ValueError(f"{count} {side} segments with {len(segments.crowd)} crowd flags")


@njit(cache=True, nogil=True)
def _count_pairs(labelled: Any, predicted: Any, shared: Any) -> None:  # pragma: no cover
    """Neighbours are mostly of the same pair: a stretch of them is added at once."""
    rows, columns = labelled.shape
    for y in range(rows):
        start = 0
        for x in range(1, columns + 1):
            if x == columns or labelled[y, x] != labelled[y, start] or predicted[y, x] != predicted[y, start]:
                shared[np.int64(labelled[y, start]), np.int64(predicted[y, start])] += x - start
                start = x


def _summed(judgements: Sequence[PanopticJudgement], **times: float) -> NDArray[np.float64]:
    """(n, C) the named fields, each so many times, added up."""
    rows = [[factor * getattr(judgement, name) for name, factor in times.items()] for judgement in judgements]
    return np.array(rows, np.float64).sum(axis=1) if rows else np.empty((0, 0))


def _quality(judgements: Sequence[PanopticJudgement]) -> NDArray[np.float64]:
    return _summed(judgements, iou_billionths=1 / IOU_UNITS)


def _true(judgements: Sequence[PanopticJudgement]) -> NDArray[np.float64]:
    return _summed(judgements, true_positives=1.0)


def _segments(judgements: Sequence[PanopticJudgement]) -> NDArray[np.float64]:
    return _summed(judgements, true_positives=1.0, false_positives=0.5, false_negatives=0.5)


METRICS: dict[str, Metric[PanopticJudgement]] = {
    metric.name: metric
    for metric in (
        Metric("panoptic_quality", _quality, _segments),
        Metric("segmentation_quality", _quality, _true),
        Metric("recognition_quality", _true, _segments),
    )
}
"""PQ, SQ and RQ by class, each the ratio of two sums over judgements."""
