"""The figures of semantic maps as ratios of sums over records: one line a metric.

Each gives (n, C) sums for n judgements, but for ``pixel_accuracy``, which is over all classes at once and gives (n, 1).
The figure over all classes (mIoU and its like) is the mean of the classes that have a value, taken after pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.quality.judge_semantic import SemanticJudgement
from detectors.quality.metric import Metric

Sums = NDArray[np.int64]
Judgements = Sequence[SemanticJudgement]


def _intersection(judgements: Judgements) -> Sums:
    record, labelled, predicted, pixels = _cells(judgements)
    return _table(judgements, record, labelled, np.where(labelled == predicted, pixels, 0))


def _labelled(judgements: Judgements) -> Sums:
    record, labelled, _, pixels = _cells(judgements)
    return _table(judgements, record, labelled, pixels)


def _predicted(judgements: Judgements) -> Sums:
    record, _, predicted, pixels = _cells(judgements)
    known = predicted < _classes(judgements)
    return _table(judgements, record[known], predicted[known], pixels[known])


def _both(judgements: Judgements) -> Sums:
    return _predicted(judgements) + _labelled(judgements)


def _union(judgements: Judgements) -> Sums:
    return _both(judgements) - _intersection(judgements)


def _boundary(column: int) -> Callable[[Judgements], Sums]:
    def sums(judgements: Judgements) -> Sums:
        rows = _rows([judgement.boundary for judgement in judgements])
        return _table(judgements, rows[:, 0], rows[:, 1], rows[:, 1 + column])

    return sums


def _cells(judgements: Judgements) -> tuple[Sums, Sums, Sums, Sums]:
    """Of all confusions: record, labelled class, predicted class and pixels, (K,) each."""
    record, labelled, predicted, pixels = _rows([judgement.confusion for judgement in judgements]).T
    return record, labelled, predicted, pixels


def _rows(tables: Sequence[Sums]) -> Sums:
    """Tables of three columns one below the other, the number of the table in front."""
    record = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return np.column_stack([record, np.concatenate([np.empty((0, 3), np.int64), *tables])])


def _table(judgements: Judgements, record: Sums, position: Sums, pixels: Sums) -> Sums:
    """(n, C). Exact: a sum in floating point is, up to 2^53 pixels, and an image has fewer."""
    shape = (len(judgements), _classes(judgements))
    sums = np.bincount(record * shape[1] + position, pixels, shape[0] * shape[1])
    return sums.astype(np.int64).reshape(shape)


def _classes(judgements: Judgements) -> int:
    """C; 0 without a judgement, when there is nothing that could have a class."""
    found = sorted({judgement.classes for judgement in judgements})
    if len(found) > 1:
        raise ValueError(f"judgements of {found[0]} and of {found[-1]} classes cannot be added")
    return found[0] if found else 0


METRICS: dict[str, Metric[SemanticJudgement]] = {
    metric.name: metric
    for metric in (
        Metric("iou", _intersection, _union),
        Metric("dice", lambda judged: 2 * _intersection(judged), _both),
        Metric("boundary_iou", _boundary(1), _boundary(2)),
        Metric("precision", _intersection, _predicted),
        Metric("recall", _intersection, _labelled),
        Metric(
            "pixel_accuracy",
            lambda judged: _intersection(judged).sum(1, keepdims=True),
            lambda judged: _labelled(judged).sum(1, keepdims=True),
        ),
    )
}
"""Metric name to what each judgement adds to it."""


def pooled(metric: Metric[SemanticJudgement], judgements: Sequence[SemanticJudgement]) -> NDArray[np.float64]:
    """(C,) or (1,): the ratio of unweighted sums; NaN for a class without a pixel in the denominator.

    >>> pooled(METRICS["iou"], [])
    array([], dtype=float64)
    """
    numerator, denominator = metric.numerator(judgements).sum(0), metric.denominator(judgements).sum(0)
    ratio = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
