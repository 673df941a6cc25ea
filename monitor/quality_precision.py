"""COCO's average precision of a window's labelled records: no ratio of sums, so its interval is from resampling."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.quality.average_precision import AveragePrecision, Ranked
from detectors.quality.mean import mean_over
from detectors.quality.precision_bounds import LEAST, Resampled
from detectors.quality.ratio import Estimate, expansion, more_units
from monitor.quality_evidence import Evidence

PRECISION = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """What all of the metrics are taken from."""

    whole: AveragePrecision
    resampled: Resampled
    classes: int
    seen: NDArray[np.bool_]
    """(C,) classes with a label of any size."""
    labels: int
    sequences: int
    population: int | None

    @property
    def complete(self) -> bool:
        """Nothing of the population is without a label."""
        return self.population == self.labels

    def of_class(self, metric: str, column: int) -> Estimate:
        point = float(getattr(self.whole, metric)[column])
        if self.complete:
            return self._exactly(point)
        sizes = self.resampled.sizes(metric, column)
        with_class = int(np.count_nonzero(sizes))
        if with_class < LEAST:
            return self._estimate(None, None, None, more_units(len(sizes), with_class, LEAST))
        return self._estimate(point, *self.resampled.bounds(metric, column, point), 0)

    def of_all(self, metric: str, estimates: list[Estimate]) -> Estimate:
        """The mean over the classes that labels show; of one size, too, where each of them is known in that size."""
        if self.complete:
            return self._exactly(self.whole.mean(metric))
        columns = np.flatnonzero(self.seen).tolist()
        if not columns:
            return self._estimate(None, None, None, max(one.needed for one in estimates))
        known = [estimates[column] for column in columns]
        together = np.eye(len(known))
        if all(one.point is not None for one in known):
            together = self.resampled.correlations(metric, columns)
        # Few labels flatter AP in every class alike, so that its lower bounds have nothing to spare together.
        return mean_over(known, together, less_below=0.0)

    def _exactly(self, point: float) -> Estimate:
        return self._estimate(*(3 * (None if np.isnan(point) else point,)), 0)

    def _estimate(self, point: float | None, lower: float | None, upper: float | None, needed: int) -> Estimate:
        status: Literal["ok", "absent", "too few labels"]
        status = "ok" if point is not None else "too few labels" if needed else "absent"
        estimand: Literal["window", "process"] = "process" if self.population is None else "window"
        return Estimate(
            point, lower, upper, self.labels, float(self.labels), self.sequences, status, needed, "spotcheck", 1.0,
            estimand, needed_of="sequences" if self.population is None else "labels",
        )  # fmt: skip


def precision(
    evidence: Evidence, metrics: Collection[str] | None, population: int | None
) -> list[tuple[str | None, str, Estimate]]:
    """COCO's AP of each class and of all (None); those of ``metrics``, None for all.

    ``population`` as for `spotcheck`: the records of the window, drawn one by one, or None for the process, whose units
    are sequences.
    """
    wanted = [name for name in PRECISION if metrics is None or name in metrics]
    if not wanted or not evidence.instances:
        return []
    labelled = _labelled(evidence, population)
    found: list[tuple[str | None, str, Estimate]] = []
    for name in wanted:
        estimates = [labelled.of_class(name, column) for column in range(labelled.classes)]
        found += [(own, name, one) for own, one in zip(evidence.classes, estimates, strict=True)]
        found.append((None, name, labelled.of_all(name, estimates)))
    return found


def _labelled(evidence: Evidence, population: int | None) -> _Labelled:
    rows = np.array([row for row, *_ in evidence.instances])
    share = np.array([part for _, part, _ in evidence.instances])
    weights = share * evidence.weights[rows]
    ranked = Ranked.of([one for *_, one in evidence.instances], len(evidence.classes))
    records, place = np.unique(rows, return_inverse=True)
    clusters = evidence.clusters[records]
    sequences, unit = np.unique(clusters, return_inverse=True)
    unseen = np.ones(len(records))
    if population is not None:
        unit = np.arange(len(records))
        unseen = 1 - 1 / expansion(1 / evidence.probability[records], population)
    complete = population == len(records)
    return _Labelled(
        ranked.precision(weights),
        Resampled.of(ranked, weights, unit[place], unseen[place], *((0,) if complete else ())),
        len(evidence.classes),
        np.bincount(ranked.label_kind, minlength=len(evidence.classes)) > 0,
        len(records),
        len(sequences),
        population,
    )
