"""Lists and maps of one record as segments that share no pixel, for panoptic quality.

A class that the model's classes call one of things, or that either list names, is one: its segments are the instances,
the surest on top. Any other class is one of stuff: all its pixels of the map that no instance covers are one segment.
Pixels of a thing's class on which no instance lies belong to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.quality.confusion import enlarge
from detectors.quality.judge_instances import InstanceMasks
from detectors.quality.panoptic import Segments

Size = tuple[int, int]


def segments_of(
    positions: NDArray[np.int32], instances: InstanceMasks, things: frozenset[int], classes: int, size: Size
) -> Segments:
    """``positions``: (h, w) class of each pixel, 0..C-1 or higher for none; ``size``: height and width."""
    # Imported here: who only looks at drift need not load OpenCV.
    from detectors.quality.run_painter import paint_instances

    whole = enlarge(positions, size)
    stuff = np.array([kind for kind in np.unique(whole).tolist() if kind < classes and kind not in things], np.int64)
    number = np.zeros(int(max(whole.max(initial=0), classes)) + 1, np.int64)
    number[stuff] = np.arange(1, len(stuff) + 1)
    segments = number[whole]
    kinds = np.asarray(instances.kinds, np.int64)
    if len(instances):
        scores = np.ones(len(instances)) if instances.scores is None else instances.scores
        order = np.argsort(scores, kind="stable")
        masks: Sequence[Mapping[str, Any]] = [instances.rles[i] for i in order.tolist()]
        painted = np.asarray(paint_instances(masks), np.int64)
        back = np.concatenate([[0], len(stuff) + 1 + order])
        segments = np.where(painted > 0, back[painted], segments)
    crowd = np.zeros(len(instances), np.bool_) if instances.crowd is None else instances.crowd
    return Segments(segments, np.concatenate([stuff, kinds]), np.concatenate([np.zeros(len(stuff), np.bool_), crowd]))
