"""COCO's average precision of a window's labelled records: no ratio of sums, so its interval is from resampling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from detectors.quality.average_precision import Ranked
from monitor.quality_evidence import Evidence

PRECISION = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")
RESAMPLES = 200
"""Times that sequences are drawn with replacement."""
LEAST_SEQUENCES = 10
"""Below which the spread of resampled ones says little."""


def precision(evidence: Evidence, metrics: Collection[str] | None) -> list[dict[str, Any]]:
    """COCO's AP of all classes and of each, as they stand in JSON; those of ``metrics``, None for all."""
    wanted = [name for name in PRECISION if metrics is None or name in metrics]
    if not wanted or not evidence.instances:
        return []
    rows = np.array([row for row, *_ in evidence.instances])
    share = np.array([part for _, part, _ in evidence.instances])
    weights = share * evidence.weights[rows]
    judgements = [one for *_, one in evidence.instances]
    ranked = Ranked.of(judgements, len(evidence.classes))
    whole = ranked.precision(weights)
    clusters = evidence.clusters[rows]
    numbers, place = np.unique(clusters, return_inverse=True)
    resampled = []
    if len(numbers) >= LEAST_SEQUENCES:
        rng = np.random.default_rng(0)
        for _ in range(RESAMPLES):
            drawn = np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
            resampled.append(ranked.precision(weights * drawn[place]))
    found = []
    for name in wanted:
        for column, class_name in enumerate((*evidence.classes, None)):
            point = whole.mean(name) if class_name is None else float(getattr(whole, name)[column])
            values = [one.mean(name) if class_name is None else getattr(one, name)[column] for one in resampled]
            found.append(_resampled(class_name, name, point, values, len(set(rows.tolist())), len(numbers)))
    return found


def _resampled(
    class_name: str | None, metric: str, point: float, values: Sequence[float], labels: int, sequences: int
) -> dict[str, Any]:
    good = np.array([value for value in values if np.isfinite(value)])
    known = bool(np.isfinite(point)) and len(good) >= RESAMPLES / 2
    lower, upper = np.quantile(good, [0.025, 0.975]).tolist() if known else (None, None)
    return {
        "class": class_name,
        "metric": metric,
        "estimator": "spotcheck",
        "point": point if known else None,
        "lower": lower,
        "upper": upper,
        "labels": labels,
        "effective_labels": float(labels),
        "sequences": sequences,
        "status": "ok" if known else "absent" if not np.isfinite(point) else "too_few_labels",
        "needed": 0 if known or not np.isfinite(point) else max(1, LEAST_SEQUENCES - sequences),
        "needed_of": "sequences",
    }
