"""How soon a drop of 0.05 in a critical class is found, and how often one is found that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.quality.coverage import Row
from bench.quality.scenarios import Floats
from detectors.quality.contrast import drop_evidence, dropped
from detectors.quality.ratio import RatioSample

LABELS = 200
DROP = 0.05
SPREAD = 0.18
"""Of a record's influence, in units of the mean union."""
ALPHA = 0.01
BEFORE = (0.6, 0.75, 0.85)
AREAS = {"equal areas": 0.0, "lognormal areas, sigma 0.5": 0.5}
FALSE_TO_POWER = 4
"""Repetitions without a drop for one with: 1 % wants more of them than 80 %."""


def draw(
    rng: np.random.Generator, rows: int, iou: float, sigma: float, spread: float = SPREAD
) -> tuple[Floats, Floats]:
    """Intersections and unions (rows, n): beta IoU around ``iou``, whose residuals have the wanted spread."""
    area = np.exp(sigma * rng.standard_normal((rows, LABELS)) - sigma**2 / 2)
    # The influence is area times the deviation: E area^2 = exp(sigma^2).
    deviation = spread / np.exp(sigma**2 / 2)
    concentration = iou * (1 - iou) / deviation**2 - 1
    return area * rng.beta(iou * concentration, (1 - iou) * concentration, area.shape), area


def drop_rows(repetitions: int) -> Iterator[Row]:
    """For each IoU and law of areas: found with a drop and without, by one look at the end and by looks at every label.

    The bound that the sequential test needs is 4 mean areas here; larger records are cut out of both settings.
    """
    for iou in BEFORE:
        for areas, sigma in AREAS.items():
            rng = np.random.default_rng([round(1000 * iou), round(100 * sigma)])
            row: Row = {"iou": iou, "areas": areas, "labels": LABELS, "drop": DROP, "spread": SPREAD, "alpha": ALPHA}
            for name, now, rows in (("found", iou - DROP, repetitions), ("false", iou, FALSE_TO_POWER * repetitions)):
                intersections, unions = draw(rng, rows, now, sigma)
                once, anytime, delays = 0, 0, []
                bound = 1.0 if sigma == 0 else 4.0
                for intersection, union in zip(intersections, unions, strict=True):
                    sample = RatioSample.uniform(intersection, union)
                    once += dropped(sample, iou, alpha=ALPHA).found
                    kept = union <= bound
                    sample = RatioSample.uniform(intersection[kept], union[kept])
                    over = np.flatnonzero(drop_evidence(sample, iou, bound, smallest_drop=DROP) >= 1 / ALPHA)
                    anytime += len(over) > 0
                    delays += [int(over[0]) + 1] if len(over) else []
                row |= {f"{name}_once": once / rows, f"{name}_anytime": anytime / rows, f"{name}_repetitions": rows}
                if name == "found":
                    row["median_labels_anytime"] = float(np.median(delays)) if delays else None
            yield row
