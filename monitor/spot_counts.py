"""What spot checks add to the counters behind SLOs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_semantic import SemanticJudgement
from monitor.judgements import Judged
from monitor.tallies import (
    CORRECTIONS,
    IOU_BUCKETS,
    SPOTCHECK_CORRECTION,
    SPOTCHECK_IMAGES,
    SPOTCHECK_INSTANCES,
    SPOTCHECK_IOU_BUCKET,
    SPOTCHECK_IOU_SUM_NANO,
    VERDICTS,
    TallyKey,
    bucket_of,
    to_fixed,
)

MATCHED = 0.5
"""IoU from which on a prediction has found what was labelled."""


@dataclass(frozen=True, slots=True)
class ClassVerdict:
    """One record and class. Of a semantic map a class's region counts as one instance."""

    counts: tuple[int, int, int]
    """tp, fp, fn"""
    ious: tuple[float, ...]
    """Of each labelled instance: that of its match, 0 where it was missed. Of a map: the class's IoU."""


def verdicts_of(judged: Judged) -> dict[str, ClassVerdict] | None:
    """By class, from the annotation that leads: an audit, else the first one made; None where there is none."""
    settled = judged.settled
    if not settled:
        return None
    leading = min(settled, key=lambda one: (one.label_time_us, one.annotator))
    instances = leading.instance_judgement()
    semantic = leading.semantic_judgement()
    if instances is not None:
        return _of_instances(judged.classes, instances)
    return {} if semantic is None else _of_map(judged.classes, semantic)


def _of_instances(names: Sequence[str], judgement: InstanceJudgement) -> dict[str, ClassVerdict]:
    found: dict[str, ClassVerdict] = {}
    shared, union = judgement.matched_pixels
    counts = zip(judgement.true_positives, judgement.false_positives, judgement.false_negatives, strict=True)
    for position, (name, (tp, fp, fn)) in enumerate(zip(names, counts, strict=True)):
        if tp or fp or fn:
            own = (judgement.kind == position) & (union > 0)
            ious = [*(shared[own] / union[own]).tolist(), *([0.0] * int(fn))]
            found[name] = ClassVerdict((int(tp), int(fp), int(fn)), tuple(ious))
    return found


def _of_map(names: Sequence[str], judgement: SemanticJudgement) -> dict[str, ClassVerdict]:
    found: dict[str, ClassVerdict] = {}
    intersections, unions = judgement.intersection, judgement.union
    predicted, labelled = judgement.predicted_pixels, judgement.labelled_pixels
    for position in np.flatnonzero(unions).tolist():
        iou = float(intersections[position] / unions[position])
        hit = iou >= MATCHED
        invented, missed = not hit and bool(predicted[position]), not hit and bool(labelled[position])
        found[names[position]] = ClassVerdict((int(hit), int(invented), int(missed)), (iou,))
    return found


def add_first(tallies: Counter[TallyKey], model: str, version: str, verdicts: Mapping[str, ClassVerdict]) -> None:
    """A record that is spot-checked for the first time."""
    tallies[TallyKey(SPOTCHECK_IMAGES, model, version, "", 0)] += 1
    for name, verdict in verdicts.items():
        for bucket, count in enumerate(verdict.counts):
            if count:
                tallies[TallyKey(SPOTCHECK_INSTANCES, model, version, name, bucket)] += count
        for iou in verdict.ious:
            tallies[TallyKey(SPOTCHECK_IOU_BUCKET, model, version, name, bucket_of(iou, IOU_BUCKETS))] += 1
            tallies[TallyKey(SPOTCHECK_IOU_SUM_NANO, model, version, name, 0)] += to_fixed(iou, 10**9)


def add_correction(
    tallies: Counter[TallyKey],
    model: str,
    version: str,
    before: Mapping[str, Sequence[int]],
    after: Mapping[str, Sequence[int]],
) -> None:
    """What a later annotation changed: verdicts that went against those that came, the rest from or to ``none``."""
    for name in sorted({*before, *after}):
        old, new = before.get(name, (0, 0, 0)), after.get(name, (0, 0, 0))
        gone = [word for word, a, b in zip(VERDICTS, old, new, strict=True) for _ in range(max(0, a - b))]
        come = [word for word, a, b in zip(VERDICTS, old, new, strict=True) for _ in range(max(0, b - a))]
        length = max(len(gone), len(come))
        gone += ["none"] * (length - len(gone))
        come += ["none"] * (length - len(come))
        for pair in zip(gone, come, strict=True):
            tallies[TallyKey(SPOTCHECK_CORRECTION, model, version, name, CORRECTIONS.index(pair))] += 1
