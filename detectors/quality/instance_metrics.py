"""A window's figures for instance masks, each a ratio of two sums over judgements.

What the model emitted is judged, whatever its score; only `false_positives_per_image` looks at scores. Matches are
those at IoU 0.5 (matching.py). Predictions matched to a crowd count nowhere.

| Metric | Numerator | Denominator |
|---|---|---|
| `iou` | pixels in both | pixels in either |
| `dice` | twice the pixels in both | pixels predicted + pixels labelled |
| `instance_iou` | IoUs of the matched pairs | matched pairs |
| `boundary_iou` | boundary pixels in both | boundary pixels in either (boundary.py) |
| `precision`, `precision_SIZE` | predictions (of that size) that are matched | those and the unmatched |
| `recall`, `recall_SIZE` | labels (of that size) that are matched | labels (of that size), crowds apart |
| `false_positives_per_image` | unmatched predictions of at least a certain score | images |
| `count_error` | difference between predictions and labels, without its sign | labels |
| `count_bias` | the same with its sign: above 0 for too many | labels |
| `merge_rate` | predictions that merge labels (merge_split.py) | predictions |
| `split_rate` | labels that are split | labels |
| `overlap` | pixels in two or more predictions of the class | pixels predicted |

Counts are not compared where the label has a crowd of the class: nobody knows how many it holds. Weigh the rows by 1 /
inclusion probability, add each side up, then divide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.quality.instance_judgement import SIZES, InstanceJudgement, size_of
from detectors.quality.metric import Metric

Judgements = Sequence[InstanceJudgement]
Sums = NDArray[np.float64]
"""(n, C)"""
SCORE = 0.5
"""From which a false positive counts as one: what a model says with less than even odds is no alarm."""


def instance_metrics(score: float = SCORE) -> dict[str, Metric[InstanceJudgement]]:
    """The metrics by name, with false positives counted from ``score`` on.

    Each side takes n judgements of equally many classes, ValueError otherwise, and gives (n, C), of none (0, 0).
    """
    found: list[Metric[InstanceJudgement]] = [
        Metric("iou", _intersection, _union),
        Metric("dice", lambda given: 2 * _intersection(given), lambda given: _intersection(given) + _union(given)),
        Metric("instance_iou", _matched_iou, lambda given: _predictions(given, _true)),
        Metric("boundary_iou", _field("boundary_intersection"), _field("boundary_union")),
        Metric("precision", lambda given: _predictions(given, _true), _counted_predictions),
        *(_precision_at(place) for place in range(len(SIZES))),
        Metric("recall", _matched_labels, _labels),
        *(_recall_at(place) for place in range(len(SIZES))),
        Metric(
            "false_positives_per_image",
            lambda given: _predictions(given, lambda judgement: judgement.is_false & (judgement.score >= score)),
            lambda given: np.ones((len(given), _classes(given))),
        ),
        Metric("count_error", lambda given: np.abs(_surplus(given)), _comparable_labels),
        Metric("count_bias", _surplus, _comparable_labels),
        Metric("merge_rate", _field("merges"), _all_predictions),
        Metric("split_rate", _field("splits"), _labels),
        Metric("overlap", _field("overlap"), _field("predicted_pixels")),
    ]
    return {metric.name: metric for metric in found}


def _classes(judgements: Judgements) -> int:
    """C, which every metric asks for first."""
    found = {judgement.classes for judgement in judgements} or {0}
    if len(found) > 1:
        raise ValueError(f"expected judgements of one number of classes, got {sorted(found)}")
    return found.pop()


def _field(name: str) -> Callable[[Judgements], Sums]:
    def stacked(judgements: Judgements) -> Sums:
        shape = len(judgements), _classes(judgements)
        return np.array([getattr(judgement, name) for judgement in judgements], np.float64).reshape(shape)

    return stacked


_intersection = _field("intersection")
_union = _field("union")


def _summed(judgements: Judgements, rows: Sequence[NDArray[Any]], kinds: Sequence[NDArray[np.int64]]) -> Sums:
    """(n, C) sums of rows by judgement and class; rows of class C are left out."""
    classes = _classes(judgements)
    total = np.zeros((len(rows), classes + 1))
    for i, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        total[i] = np.bincount(kind, row, classes + 1)
    return total[:, :classes]


def _predictions(judgements: Judgements, chosen: Callable[[InstanceJudgement], NDArray[Any]]) -> Sums:
    """Predictions for which ``chosen`` says 1, or sums of what it says."""
    return _summed(judgements, [chosen(judgement) for judgement in judgements], [each.kind for each in judgements])


def _labels(judgements: Judgements, place: int | None = None) -> Sums:
    """Labels that are no crowd, of one size or of all."""
    rows = [~judgement.label_crowd & _of_size(judgement.label_area, place) for judgement in judgements]
    return _summed(judgements, rows, [judgement.label_kind for judgement in judgements])


def _matched_labels(judgements: Judgements, place: int | None = None) -> Sums:
    """Labels that a prediction is matched to: of equal class, so that they can be counted by either side."""

    def chosen(judgement: InstanceJudgement) -> NDArray[Any]:
        true = judgement.is_true
        true[true] = _of_size(judgement.label_area[judgement.label[true]], place)
        return true

    return _predictions(judgements, chosen)


def _of_size(area: NDArray[np.int64], place: int | None) -> NDArray[np.bool_]:
    return np.ones(len(area), np.bool_) if place is None else size_of(area) == place


def _true(judgement: InstanceJudgement) -> NDArray[Any]:
    return judgement.is_true


def _matched_iou(judgements: Judgements) -> Sums:
    def iou(judgement: InstanceJudgement) -> NDArray[Any]:
        shared, union = judgement.matched_pixels
        return shared / np.maximum(union, 1)

    return _predictions(judgements, iou)


def _counted_predictions(judgements: Judgements) -> Sums:
    return _predictions(judgements, lambda judgement: ~judgement.is_ignored)


def _all_predictions(judgements: Judgements) -> Sums:
    return _predictions(judgements, lambda judgement: np.ones(len(judgement.kind)))


def _precision_at(place: int) -> Metric[InstanceJudgement]:
    def of_size(judgement: InstanceJudgement) -> NDArray[np.bool_]:
        return _of_size(judgement.area, place)

    return Metric(
        f"precision_{SIZES[place]}",
        lambda given: _predictions(given, lambda judgement: judgement.is_true & of_size(judgement)),
        lambda given: _predictions(given, lambda judgement: ~judgement.is_ignored & of_size(judgement)),
    )


def _recall_at(place: int) -> Metric[InstanceJudgement]:
    return Metric(
        f"recall_{SIZES[place]}",
        lambda given: _matched_labels(given, place),
        lambda given: _labels(given, place),
    )


def _without_crowds(judgements: Judgements) -> NDArray[np.bool_]:
    """(n, C) where the label has no crowd of the class."""
    rows = [judgement.label_crowd for judgement in judgements]
    crowds = _summed(judgements, rows, [judgement.label_kind for judgement in judgements])
    return np.equal(crowds, 0)


def _surplus(judgements: Judgements) -> Sums:
    difference = _all_predictions(judgements) - _labels(judgements)
    return np.where(_without_crowds(judgements), difference, 0.0)


def _comparable_labels(judgements: Judgements) -> Sums:
    return np.where(_without_crowds(judgements), _labels(judgements), 0.0)


METRICS = instance_metrics()
"""The metrics by name, with false positives counted from a score of 0.5 on."""
