"""Where two versions of a model find different things in one input: no label is needed to see that one is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from detectors.quality.agreement import Disagreement, Shared, disagreements
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judging import Verdict, image_size, judge
from monitor.kept_masks import KeptMasks, kept
from monitor.records import Label, LabelInstance
from monitor.store.candidates import Pair


@dataclass(frozen=True, slots=True)
class Differing:
    """An input, and the class that the versions disagree on most."""

    pair: Pair
    class_name: str
    iou: float
    """Of the class's pixels between the two."""
    disputed: int
    """Pixels that one of the two alone has found."""


def differing(pairs: Iterable[Pair], classes: Classes, max_pixels: int, below_iou: float) -> list[Differing]:
    """Pairs whose most disputed class has a lower IoU than ``below_iou``, the largest dispute first.

    Pairs that cannot be compared (other classes, sizes, or a list against a map) are left out.
    """
    found = []
    for pair in pairs:
        try:
            first, second = kept(pair.first_masks), kept(pair.second_masks)
            worst = _worst(first, second, classes, max_pixels)
        except (BadRecord, ValueError):
            continue
        if worst is not None and worst.iou < below_iou:
            found.append(Differing(pair, classes.names[worst.position], worst.iou, worst.disputed))
    return sorted(found, key=lambda one: (-one.disputed, one.pair.input_id))


def _worst(first: KeptMasks, second: KeptMasks, classes: Classes, max_pixels: int) -> Disagreement | None:
    stand_in = _as_label(second)
    shared = _shared(judge(first, stand_in, classes, max_pixels), image_size(first, stand_in))
    found = [] if shared is None else disagreements(shared, 1)
    return found[0] if found else None


def _as_label(masks: KeptMasks) -> Label:
    """A prediction in the place of a label: neither is the truth, and pixels are counted the same both ways."""
    instances = None
    if masks.instances is not None:
        instances = [LabelInstance(one.class_name, one.mask) for one in masks.instances]
    size = (masks.height, masks.width) if masks.height and masks.width else None
    return Label(
        input_id="",
        annotator="",
        annotation_version=0,
        label_time=datetime.now(UTC),
        instances=instances,
        semantic=masks.semantic,
        image_size=size,
    )


def _shared(verdict: Verdict, size: tuple[int, int]) -> Shared | None:
    if verdict.semantic is not None:
        return Shared.of_semantic([verdict.semantic])
    if verdict.instances is None:
        return None
    found = verdict.instances
    both, one, other = (each[None, :] for each in (found.intersection, found.predicted_pixels, found.labelled_pixels))
    return Shared(both, one, other, np.array([size[0] * size[1]], np.int64))
