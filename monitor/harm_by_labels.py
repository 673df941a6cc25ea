"""Whether labels say that the model suffers: where there are enough of them, they overrule what confidence says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.harm import Harm
from detectors.quality.contrast import dropped
from monitor.quality_evidence import evidence_of, in_slice
from monitor.reference import Reference
from monitor.store.values import JudgedRow

ALPHA = 0.01
"""Of finding a drop in any class where there is none."""
TOLERATED = 0.05
"""IoU that a class may have lost, for the shift to count as harmless: with 95 % confidence in every class."""


def harm_by_labels(rows: Sequence[JudgedRow], records: int, reference: Reference | None, slice_key: str) -> Harm | None:
    """``likely`` where a class's pooled IoU is lower than on the baseline's records, ``unlikely`` where none can have
    lost much; None where labels cannot tell. ``rows``: judged records of the window."""
    if reference is None or not rows:
        return None
    evidence = evidence_of([row for row in rows if in_slice(row, slice_key)], records, ("iou",))
    sums = evidence.metrics.get("iou")
    if sums is None:
        return None
    found, upper = False, []
    seen = [column for column in range(len(evidence.classes)) if sums.denominator[:, column].any()]
    for column in seen:
        known = reference.of(evidence.classes[column])
        if known is None or known.point is None:
            continue
        sample = evidence.column(sums, column)
        contrast = dropped(sample, known.estimate(), max(records, len(sample)), alpha=ALPHA / len(seen), level=0.9)
        found = found or contrast.found
        upper.append(np.inf if contrast.upper is None else contrast.upper)
    if found:
        return "likely"
    return "unlikely" if upper and len(upper) == len(seen) and max(upper) <= TOLERATED else None
