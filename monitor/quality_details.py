"""What is taken for what, and whether scores mean what they say: of a window's judged records, weighed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.quality.calibration import calibration_error, reliability
from detectors.quality.confidence_bins import BINS, bins_of, uniform
from monitor.quality_evidence import Evidence

OTHER, INVENTED, MISSED = "<other>", "<invented>", "<missed>"
"""A class that the model's baseline does not have; a prediction without a label; a label without a prediction."""

Floats = NDArray[np.float64]


def confusion(evidence: Evidence) -> dict[str, Any] | None:
    """Labelled class (rows) by predicted class (columns): pixels of maps, else instances matched at IoU 0.5; each cell
    an estimate over the window's records. None without any."""
    weights = evidence.weights
    total: Floats | None = None
    for row, share, judgement in evidence.maps:
        counts = share * weights[row] * judgement.confusion_counts()[:-1]
        total = counts if total is None else total + counts
    if total is not None:
        return _table(total, list(evidence.classes), [*evidence.classes, OTHER], "pixels")
    for row, share, lists in evidence.instances:
        counts = share * weights[row] * lists.confusion
        total = counts if total is None else total + counts
    if total is None:
        return None
    return _table(total, [*evidence.classes, INVENTED], [*evidence.classes, OTHER, MISSED], "instances")


def _table(counts: Floats, rows: list[str], columns: list[str], unit: str) -> dict[str, Any]:
    return {"unit": unit, "labelled": rows, "predicted": columns, "counts": counts.tolist()}


def calibration(evidence: Evidence) -> list[dict[str, Any]]:
    """Expected calibration error and reliability curve (16 bins) by class: of pixels of maps with confidence, else of
    instances, which are right where they match a label at IoU 0.5."""
    weights, classes = evidence.weights, len(evidence.classes)
    total, correct, confidence = (np.zeros((classes + 1, BINS)) for _ in range(3))
    if evidence.maps:
        for row, share, judgement in evidence.maps:
            sums = judgement.confidence_sums()
            if sums is not None:
                weight = share * weights[row]
                total += weight * sums[:, :, 0]
                correct += weight * sums[:, :, 1]
                confidence += weight * sums[:, :, 2] / 255
    else:
        for row, share, lists in evidence.instances:
            kinds, scores, matched = lists.calibration
            place, weight = (kinds, bins_of(scores)), share * weights[row]
            np.add.at(total, place, weight)
            np.add.at(correct, place, weight * matched)
            np.add.at(confidence, place, weight * scores)
    total, correct, confidence = uniform(total), uniform(correct), uniform(confidence)
    errors = calibration_error(total, correct, confidence)
    found = []
    for position, name in enumerate(evidence.classes):
        if not total[position].any():
            continue
        curve = reliability(total[position], correct[position], confidence[position])
        points = zip(curve.confidence.tolist(), curve.accuracy.tolist(), curve.weight.tolist(), strict=True)
        found.append(
            {
                "class": name,
                "ece": float(errors[position]),
                "curve": [{"confidence": c, "accuracy": a, "weight": w} for c, a, w in points],
            }
        )
    return found
