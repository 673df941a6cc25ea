"""One prediction against one label, both instance masks: the judgement that a window's quality is added up from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality.boundary import boundary_sums
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.mask_runs import CROWD, LABELLED, PREDICTED, Rle, class_sums, read_runs, shared_pixels
from detectors.quality.matching import match_at_half, match_for_precision
from detectors.quality.merge_split import count_merges, count_splits


@dataclass(frozen=True, eq=False, slots=True)
class InstanceMasks:
    """M instances of one image, predicted or labelled."""

    kinds: NDArray[np.int64]
    """(M,) classes 0..C-1; for predictions also C, a class that the ontology does not know."""
    rles: Sequence[Rle]
    """M masks as compressed RLE, all of one size. They may overlap."""
    scores: NDArray[np.float64] | None = None
    """(M,) of predictions, finite; None counts as 1 for each."""
    crowd: NDArray[np.bool_] | None = None
    """(M,) of labels: regions of many objects that nobody told apart; None for none."""

    def __len__(self) -> int:
        return len(self.rles)


def judge_instances(predicted: InstanceMasks, labelled: InstanceMasks, classes: int) -> InstanceJudgement:
    """Judge predicted against labelled instances of one image.

    Raises:
        ValueError: masks of different sizes, which it names; damaged masks; arrays of other lengths than the masks;
            classes out of range; scores that are not finite; millions of pairs of masks that overlap.

    >>> left, all_but_one = {"size": [2, 3], "counts": "042"}, {"size": [2, 3], "counts": "051"}
    >>> one = np.array([0])
    >>> judgement = judge_instances(InstanceMasks(one, [left], np.array([0.9])), InstanceMasks(one, [all_but_one]), 1)
    >>> judgement.intersection.tolist(), judgement.union.tolist(), judgement.true_positives.tolist()
    ([4], [5], [1])
    >>> len(judgement.to_bytes()) < 100
    True
    """
    scores = np.ones(len(predicted)) if predicted.scores is None else np.asarray(predicted.scores, np.float64)
    crowd = np.zeros(len(labelled), np.bool_) if labelled.crowd is None else np.array(labelled.crowd, np.bool_)
    _check(predicted, labelled, scores, crowd, classes)
    order = np.argsort(-scores, kind="stable")
    runs = read_runs([*(predicted.rles[i] for i in order.tolist()), *labelled.rles])
    count = len(order)
    label_kind = np.array(labelled.kinds, np.int64)
    kinds = np.concatenate([np.asarray(predicted.kinds, np.int64)[order], label_kind])
    kind, area, label_area = kinds[:count], runs.area[:count], runs.area[count:]

    roles = np.concatenate([np.full(count, PREDICTED), np.where(crowd, CROWD, LABELLED)])
    pixels = class_sums(runs, kinds, roles, classes)
    boundary = boundary_sums(runs, kinds, roles, classes)

    pairs = shared_pixels(runs, count)
    whole = np.where(crowd[pairs.labelled], 0, label_area[pairs.labelled] - pairs.pixels) + area[pairs.predicted]
    near = 2 * pairs.pixels >= whole
    detection, label, common = pairs.predicted[near], pairs.labelled[near], pairs.pixels[near]
    iou = common / whole[near]
    same = kind[detection] == label_kind[label]
    of_class = detection[same], label[same], iou[same]

    matched = match_at_half(count, *of_class, crowd)
    true_bits, ignored_bits = match_for_precision(kind, area, *of_class, label_area, crowd)
    # Of labels that fit equally well the last is taken: let that be one of the prediction's own class.
    own_last = np.lexsort((same, detection))
    chosen = label == matched[detection]
    shared = np.zeros(count, np.int64)
    shared[detection[chosen]] = common[chosen]
    return InstanceJudgement(
        predicted_pixels=pixels[:, 0],
        labelled_pixels=pixels[:, 1],
        intersection=pixels[:, 2],
        overlap=pixels[:, 3],
        boundary_intersection=boundary[:, 0],
        boundary_union=boundary[:, 1],
        merges=count_merges(runs, pairs, count, kinds, crowd, classes),
        splits=count_splits(runs, pairs, count, kinds, crowd, classes),
        label_kind=label_kind,
        label_area=label_area,
        label_crowd=crowd,
        kind=kind,
        score=scores[order],
        area=area,
        label=matched,
        shared=shared,
        any_label=match_at_half(count, detection, label[own_last], iou[own_last], crowd),
        true_bits=true_bits,
        ignored_bits=ignored_bits,
    )


def _check(
    predicted: InstanceMasks,
    labelled: InstanceMasks,
    scores: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    classes: int,
) -> None:
    if classes < 1:
        raise ValueError(f"{classes} classes, expected at least 1")
    for side, masks, values in (("predicted", predicted, scores), ("labelled", labelled, crowd)):
        if not len(masks) == len(masks.kinds) == len(values):
            name = "scores" if side == "predicted" else "crowd flags"
            raise ValueError(f"{len(masks)} {side} masks with {len(masks.kinds)} classes and {len(values)} {name}")
    _check_kinds("predicted", predicted.kinds, classes)
    _check_kinds("labelled", labelled.kinds, classes - 1)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    _check_sizes(predicted, labelled)


def _check_kinds(side: str, kinds: NDArray[np.int64], highest: int) -> None:
    if len(kinds) and not (np.min(kinds) >= 0 and np.max(kinds) <= highest):
        raise ValueError(f"{side} classes must be 0..{highest}, got {np.min(kinds)}..{np.max(kinds)}")


def _check_sizes(predicted: InstanceMasks, labelled: InstanceMasks) -> None:
    """Names the side as well, since a prediction and a label of different sizes is the fault that happens."""
    ours, theirs = ({tuple(rle["size"]) for rle in masks.rles} for masks in (predicted, labelled))
    if len(ours | theirs) > 1:
        named = [", ".join(f"{h} x {w}" for h, w in sorted(sizes)) or "none" for sizes in (ours, theirs)]
        raise ValueError(f"masks of one image must have one size: predicted {named[0]}, labelled {named[1]}")
