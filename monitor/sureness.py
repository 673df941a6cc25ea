"""How sure the model was of what it found: the same sums of a record whether it is counted or judged.

The assisted estimate compares what was expected of all records with what was expected of the labelled ones; any
difference in how the two are counted would be taken for a difference between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from detectors.quality.confusion import ClassTable, IndexMap
from detectors.quality.expected import ExpectedSums, semantic_confidence
from monitor.classes import Classes
from monitor.instances import Instances
from monitor.kept_masks import KeptMasks
from monitor.masks import MAX_PIXELS, MAX_SIDE, Mask, check_masks
from monitor.records import decode_semantic


def map_sureness(
    indices: IndexMap, confidence: NDArray[np.uint8], table: ClassTable, size: tuple[int, int]
) -> NDArray[np.int64]:
    """(C + 1, BINS) pixels of the image by class and confidence; ``size``: zeros where it is not known.

    Counted at the size of the maps and scaled to the image's: enlarging a map of 512 x 512 to 12 million pixels takes
    longer than decoding it.
    """
    counts = semantic_confidence(indices, confidence, table)
    height, width = size
    if not height or not width:
        return counts
    scaled: NDArray[np.int64] = np.rint(counts * (height * width / counts.sum())).astype(np.int64)
    return scaled


def whole_areas(areas: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M,) areas of masks in whole pixels. Of polygons that reach far out of their image no more than any image has:
    made to hurt, they would otherwise grow beyond what sums can hold."""
    whole: NDArray[np.int64] = np.rint(np.minimum(areas, MAX_PIXELS)).astype(np.int64)
    return whole


def mask_areas(masks: Sequence[Mask]) -> NDArray[np.int64]:
    """(M,) pixels of valid masks; of polygons what their outlines hold, which may be outside the image."""
    return whole_areas(check_masks(masks, MAX_SIDE * MAX_SIDE).area)


@dataclass(frozen=True, slots=True, eq=False)
class Sureness:
    """Of N records on their way into the statistics."""

    areas: NDArray[np.int64]
    """(M,) pixels of the masks of all their instances."""
    maps: Sequence[NDArray[np.int64] | None]
    """Of each record, as `map_sureness` counted it; None without a confidence map."""

    def where(self, chosen: NDArray[np.bool_], instances: NDArray[np.bool_]) -> Sureness:
        """Those of the records that are ``chosen`` (N,), and of their instances (M,)."""
        return Sureness(self.areas[instances], list(compress(self.maps, chosen)))

    def add_to(self, sums: ExpectedSums, rows: NDArray[np.int64], instances: Instances) -> None:
        """Add records ``rows`` (R,), whose instances are those of ``instances``."""
        listed = rows[instances.listed[rows]]
        sizes = instances.offsets[listed + 1] - instances.offsets[listed]
        # Positions of the rows' instances, one run after the other.
        ends = np.cumsum(sizes)
        at = np.arange(int(sizes.sum())) + np.repeat(instances.offsets[listed] - (ends - sizes), sizes)
        sums.add_instances(instances.kinds[at], instances.scores[at], self.areas[at], len(listed))
        for row in rows.tolist():
            counts = self.maps[row]
            if counts is not None:
                sums.add_semantic(counts)


def expected_of(kept: KeptMasks, classes: Classes, max_pixels: int) -> ExpectedSums:
    """The sums of one record, from what was kept of it."""
    sums = ExpectedSums(max(1, len(classes.names)))
    if kept.semantic is not None:
        indices, confidence = decode_semantic(kept.semantic, max_pixels)
        if confidence is not None:
            table = ClassTable.of(classes.indices, classes.ignore)
            sums.add_semantic(map_sureness(indices, confidence, table, (kept.height, kept.width)))
    if kept.instances is not None:
        position, unknown = classes.position, len(classes.names)
        sums.add_instances(
            np.array([position.get(one.class_name, unknown) for one in kept.instances], np.int64),
            np.array([one.score for one in kept.instances], np.float64),
            mask_areas([one.mask for one in kept.instances]),
        )
    return sums
