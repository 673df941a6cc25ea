"""What labels say of single records, and of a window's records together, for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality import instance_metrics, semantic_metrics
from detectors.quality.ratio import Estimate
from detectors.quality.spotcheck import spotcheck
from monitor.judgements import Judged, from_payload
from monitor.quality_evidence import evidence_of, in_slice
from monitor.store.values import JudgedRow


@dataclass(frozen=True, slots=True)
class JudgedRecord:
    """A record with its IoU over all classes together (0..1); None where neither side has a pixel."""

    input_id: str
    iou: float | None
    judged: Judged


def records_of(rows: Sequence[JudgedRow], slice_key: str = "") -> list[JudgedRecord]:
    """Those that a label could judge, the worst first."""
    found = []
    for row in rows:
        judged = from_payload(row.payload)
        if judged.settled and in_slice(row, slice_key):
            found.append(JudgedRecord(row.input_id, _iou(judged), judged))
    return sorted(found, key=lambda one: (1.0 if one.iou is None else one.iou, one.input_id))


def pooled_iou(rows: Sequence[JudgedRow], records: int) -> Estimate | None:
    """IoU of all classes together over a window's records, from its labels by chance; None without any."""
    evidence = evidence_of(rows, records, {"iou"})
    judged = evidence.maps or evidence.instances
    if not judged:
        return None
    share = np.array([part for _, part, _ in judged])
    at = np.array([row for row, *_ in judged], np.int64)
    numerator, denominator = evidence.pooled_pixels()
    places, where = np.unique(at, return_inverse=True)
    sums = np.zeros((2, len(places)))
    np.add.at(sums[0], where, numerator * share)
    np.add.at(sums[1], where, denominator * share)
    return spotcheck(evidence.sample(places, sums[0], sums[1]), max(records, len(places)))


def in_cell(judged: Judged, row: int, column: int) -> bool:
    """Whether a record adds to a cell of the window's table of confusion."""
    for one in judged.settled:
        semantic, instances = one.semantic_judgement(), one.instance_judgement()
        table: NDArray[np.int64] | None = None
        if semantic is not None:
            table = semantic.confusion_counts()[:-1]
        elif instances is not None:
            table = instances.confusion
        if table is not None and row < table.shape[0] and column < table.shape[1] and table[row, column] > 0:
            return True
    return False


def _iou(judged: Judged) -> float | None:
    both = either = 0.0
    for one in judged.settled:
        semantic, instances = one.semantic_judgement(), one.instance_judgement()
        if semantic is not None:
            both += float(semantic_metrics.METRICS["iou"].numerator([semantic]).sum())
            either += float(semantic_metrics.METRICS["iou"].denominator([semantic]).sum())
        elif instances is not None:
            both += float(instance_metrics.METRICS["iou"].numerator([instances]).sum())
            either += float(instance_metrics.METRICS["iou"].denominator([instances]).sum())
    return both / either if either else None
