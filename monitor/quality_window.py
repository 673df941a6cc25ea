"""What may be said of each class of a window from its labelled records: estimates with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detectors.harm import Harm
from detectors.quality.assisted import Expectation, assisted
from detectors.quality.contrast import Contrast, dropped
from detectors.quality.expected import ExpectedSums
from detectors.quality.labelfree import labelfree
from detectors.quality.planning import widest
from detectors.quality.ratio import Estimate, RatioSample
from detectors.quality.spotcheck import spotcheck
from monitor.expectations import cross_fitted, found_per_record
from monitor.quality_details import calibration, confusion
from monitor.quality_evidence import Evidence, Sums
from monitor.quality_precision import precision
from monitor.reference import SPLIT, Reference
from monitor.windows import Window, to_text

Population = Literal["window", "process"]
UNBOUNDED = frozenset({"false_positives_per_image", "count_error", "count_bias", "merge_rate", "overlap"})
"""Metrics that may lie outside 0..1, or whose numerator may be above its denominator in one record."""
MEAN = {"iou": "mean_iou", "dice": "mean_dice"}
"""Metric to the name of its mean over classes."""
COLLAPSED = 0.25
"""Share of a class's pixels on the baseline's records that must still be found for confidence alone to be believed."""
SPARED = 0.05
"""IoU that an annotator's labels can at most have lost, with 97.5 % confidence, for a drop to be called the others'."""
NO_LABELS = RatioSample.uniform([], [])


@dataclass(frozen=True, slots=True, eq=False)
class _LinearMean:
    """A mean over C' classes as a mean over n records, each with a value of

    ``mean of points + scale x mean over classes of (I - point U) / total``.
    """

    sample: RatioSample
    columns: Sequence[int]
    """(C',) of the classes."""
    points: NDArray[np.float64]
    """(C',) their ratios."""
    totals: NDArray[np.float64]
    """(C',) their weighted denominators."""
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class QualityWindow:
    """A window of one version with its labelled records."""

    model: str
    version: str
    slice: str
    window: Window
    records: int
    evidence: Evidence
    classes: tuple[str, ...]
    population: Population
    metrics: Collection[str] | None
    """Those to estimate; None for all."""
    reference: Reference | None = None
    """Quality on the baseline's records."""
    drift: Harm | None = None
    """The worst verdict of drift on the window; None without an alarm."""
    sums: ExpectedSums | None = None
    """How sure the model was of all the window's records; None where it is not known of some."""

    def to_json(self) -> dict[str, Any]:
        """As in the contract, under ``windows`` of ``segwatch quality --json``."""
        evidence = self.evidence
        return {
            "model": self.model,
            "version": self.version,
            "slice": self.slice or None,
            "start": to_text(self.window.start_us),
            "end": to_text(self.window.end_us),
            "records": self.records,
            "labelled": len(evidence.inputs),
            "label_times": _times(evidence.label_times_us),
            "left_out": evidence.left_out,
            "assumed_uniform": evidence.assumed,
            "population": self.population,
            "drift_harm": self.drift,
            **self._causes(),
            "classes": [one for name in self._names() for one in self._entries(name)]
            + precision(self.evidence, self.metrics),
            **self._details(),
        }

    def _details(self) -> dict[str, Any]:
        """Only where all metrics are asked for."""
        if self.metrics is not None:
            return {}
        return {"confusion": confusion(self.evidence), "calibration": calibration(self.evidence)}

    def _causes(self) -> dict[str, Any]:
        """By whom the labels are, and whether a drop since the baseline shows in everybody's or in some's only."""
        told: list[dict[str, Any]] = []
        contrasts: list[Contrast] = []
        reference = self.reference.overall if self.reference else None
        for name, sample in self._by_annotator().items():
            estimate = spotcheck(sample, self._size(len(sample)))
            told.append({"annotator": name, **_brief(estimate)})
            if reference is not None and reference.point is not None:
                contrasts.append(dropped(sample, reference.estimate(), self._size(len(sample))))
        cause = None
        if any(one.found for one in contrasts):
            # Somebody whose labels of the same records can have lost next to nothing speaks against the others.
            spared = any(one.upper is not None and one.upper <= SPARED for one in contrasts)
            cause = "annotators" if spared else "model"
        return {"annotators": told, "drop_cause": cause}

    def _by_annotator(self) -> dict[str, RatioSample]:
        """All classes together, by who made the labels."""
        evidence = self.evidence
        rows = np.array([row for row, *_ in evidence.maps or evidence.instances], np.int64)
        sides = evidence.pooled_pixels()
        names = np.array(evidence.annotators)
        found: dict[str, RatioSample] = {}
        for name in sorted(set(evidence.annotators)):
            own = names == name
            found[name] = evidence.sample(rows[own], *(side[own] for side in sides))
        return found

    def plan(self, price: float) -> list[dict[str, Any]]:
        """Labels that would halve each class's interval of IoU, or give it a first number; the widest first."""
        sums = self.evidence.metrics.get("iou")
        if sums is None:
            samples = dict.fromkeys(self.classes, NO_LABELS)
        else:
            samples = {name: self.evidence.column(sums, column) for column, name in enumerate(self.evidence.classes)}
        population = None if sums is None else self._size(len(sums.rows))
        return [
            {
                "class": one.name,
                "width": one.width,
                "target": one.target,
                "expected_width": one.expected_width,
                "labels": one.labels,
                "with_class": one.with_class,
                "cost": one.cost,
            }
            for one in widest(samples, population, price)
        ]

    def _names(self) -> list[str]:
        named = list(self.evidence.metrics) or ["iou"]
        return [name for name in named if self.metrics is None or name in self.metrics]

    def _entries(self, metric: str) -> list[dict[str, Any]]:
        sums = self.evidence.metrics.get(metric)
        if sums is None:
            nothing = spotcheck(NO_LABELS, None)
            found = [entry(name, metric, nothing) for name in self.classes]
            return found + self._labelfree({}, None) if metric == "iou" else found
        bounded = metric not in UNBOUNDED
        estimates = [self._estimate(sums, column, bounded) for column in range(sums.numerator.shape[1])]
        if len(estimates) != len(self.evidence.classes):  # over all classes at once
            return [entry(None, metric, estimates[0])]
        found = [entry(name, metric, estimate) for name, estimate in zip(self.evidence.classes, estimates, strict=True)]
        mean = None
        if metric in MEAN:
            mean = self._mean(sums, estimates)
            found.append(entry(None, MEAN[metric], mean))
        if metric == "iou":
            for column, one in enumerate(found[: len(estimates)]):
                one |= self._against_reference(sums, column)
            found += self._assisted(sums, estimates)
            found += self._labelfree(dict(zip(self.evidence.classes, estimates, strict=True)), mean)
        return found

    def _against_reference(self, sums: Sums, column: int) -> dict[str, Any]:
        """The class's IoU on the baseline's records, and whether it has dropped since; nothing without a reference."""
        name = self.evidence.classes[column]
        known = self.reference.of(name) if self.reference else None
        if self.reference is None or known is None:
            return {}
        told: dict[str, Any] = {"reference": known.to_json(), "drop": None}
        splits = [slice_name for slice_name in self.reference.figures if slice_name.startswith(SPLIT)]
        if splits:
            told["splits"] = {
                slice_name: own.to_json()
                for slice_name in splits
                if (own := self.reference.of(name, slice_name)) is not None
            }
        if known.point is not None:
            sample = self.evidence.column(sums, column)
            contrast = dropped(sample, known.estimate(), self._size(len(sample)))
            if contrast.drop is not None:
                told["drop"] = {
                    "point": contrast.drop,
                    "lower": contrast.lower,
                    "upper": contrast.upper,
                    "p_value": contrast.p_value,
                    "found": contrast.found,
                }
        return told

    def _labelfree(self, spots: Mapping[str, Estimate], mean: Estimate | None) -> list[dict[str, Any]]:
        """What calibrated confidence alone says, withdrawn where drift or the spot checks contradict it.

        ``spots`` by class, and ``mean`` over classes: what the spot checks say.
        """
        if self.reference is None or self.sums is None or not self.records:
            return []
        maps = bool(self.reference.evidence.maps)
        if (self.sums.semantic_records if maps else self.sums.instance_records) != self.records:
            return []
        fitted = self.reference.calibrated
        names = self.reference.evidence.classes
        if fitted is None or len(names) != self.sums.classes:
            return []
        calibrated, errors = fitted
        numerator, denominator = calibrated.of(self.sums)
        before, now = self.reference.found_per_record, found_per_record(self.sums)
        found: dict[str, Estimate] = {}
        for column, name in enumerate(names):
            if denominator[column] <= 0:
                continue
            found[name] = labelfree(
                float(numerator[column]),
                float(max(denominator[column], numerator[column])),
                self.records,
                errors[column],
                drifted=self.drift is not None,
                harm=self.drift or "unknown",
                last_spotcheck=spots.get(name),
            )
            if before is not None and found[name].status == "ok":
                share = now[column] / max(before[column], 1e-9)
                if share < COLLAPSED:
                    # What is no longer found leaves no confidence behind to tell of it.
                    reason = f"the model finds {share:.0%} of what it found of the class on the baseline's records"
                    found[name] = replace(
                        found[name], point=None, lower=None, upper=None, status="withdrawn", reason=reason
                    )
        told = [entry(name, "iou", estimate) for name, estimate in found.items()]
        return [*told, entry(None, MEAN["iou"], _mean_labelfree(found, mean))] if found else []

    def _assisted(self, sums: Sums, estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
        """The same with the help of what the model expects of the records without a label."""
        population = self._size(len(sums.rows))
        fitted = None
        if self.sums is not None and self.records:
            fitted = cross_fitted(self.evidence, self.sums, self.records)
        if fitted is None or not np.array_equal(fitted.rows, sums.rows):
            return []
        found = []
        for column, name in enumerate(self.evidence.classes):
            if estimates[column].point is None:
                continue  # help corrects a number, it does not make one
            sample = self.evidence.column(sums, column)
            helped = assisted(
                sample, fitted.expectation(column), population or self.records, process=population is None
            )
            found.append(entry(name, "iou", helped))
        linear = self._linear_mean(sums, estimates)
        if linear is not None:
            guessed = [fitted.expectation(column) for column in linear.columns]
            parts = [
                each.numerator - point * each.denominator for each, point in zip(guessed, linear.points, strict=True)
            ]
            mean = Expectation(
                linear.scale * (np.stack(parts, axis=1) / linear.totals).mean(1), np.zeros(len(sums.rows)), 0.0, 0.0
            )
            helped = assisted(
                linear.sample, mean, population or self.records, process=population is None, bounded=False
            )
            found.append(entry(None, MEAN["iou"], _clipped(helped)))
        return found

    def _size(self, labelled: int) -> int | None:
        return max(self.records, labelled) if self.population == "window" else None

    def _estimate(self, sums: Sums, column: int, bounded: bool) -> Estimate:
        sample = self.evidence.column(sums, column)
        return spotcheck(sample, self._size(len(sample)), bounded=bounded)

    def _mean(self, sums: Sums, estimates: Sequence[Estimate]) -> Estimate:
        """The mean over the classes that have a value."""
        linear = self._linear_mean(sums, estimates)
        if linear is None:
            return spotcheck(NO_LABELS, None)
        return _clipped(spotcheck(linear.sample, self._size(len(linear.sample)), bounded=False))

    def _linear_mean(self, sums: Sums, estimates: Sequence[Estimate]) -> _LinearMean | None:
        """The mean over classes by its influence: 1 record's part in each class's ratio. None without a mean."""
        evidence, rows = self.evidence, sums.rows
        weights, sampled = 1 / evidence.probability[rows], evidence.seen(rows)
        seen = [column for column, one in enumerate(estimates) if one.labels and sums.denominator[:, column].any()]
        known = [column for column in seen if estimates[column].point is not None]
        if not known or len(known) < len(seen):
            # A mean that leaves out the classes of which too little is known would flatter.
            return None
        points = np.array([estimates[column].point for column in known], np.float64)
        numerator = sums.numerator[:, known] * sampled[:, None]
        denominator = sums.denominator[:, known] * sampled[:, None]
        total = weights @ denominator
        influence = ((numerator - points * denominator) / total).mean(axis=1)
        scale = float(weights.sum())
        value = float(points.mean()) + scale * influence
        sample = RatioSample.of(value, np.ones(len(value)), weights, evidence.clusters[rows])
        return _LinearMean(sample, known, points, total, scale)


def _times(times_us: tuple[int, int] | None) -> list[str] | None:
    return None if times_us is None else [to_text(time_us) for time_us in times_us]


def _brief(estimate: Estimate) -> dict[str, Any]:
    return {
        "point": estimate.point,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "labels": estimate.labels,
        "status": estimate.status.replace(" ", "_"),
    }


def _clipped(estimate: Estimate) -> Estimate:
    if estimate.lower is None or estimate.upper is None:
        return estimate
    return replace(estimate, lower=max(0.0, estimate.lower), upper=min(1.0, estimate.upper))


def _mean_labelfree(found: Mapping[str, Estimate], spot: Estimate | None) -> Estimate:
    """The mean over classes of what confidence alone says: known where each of them is.

    Its bounds are the means of theirs, as if all classes were off in the same direction, which is what happens where
    confidence has changed its meaning; independent errors would give narrower ones.
    """
    for name, one in found.items():
        if one.status != "ok":
            return replace(one, reason=one.reason if one.reason.startswith("drift") else f"{name}: {one.reason}")
    point, lower, upper = (
        float(np.mean([getattr(one, side) for one in found.values()])) for side in ("point", "lower", "upper")
    )
    mean = replace(next(iter(found.values())), point=point, lower=lower, upper=upper)
    if spot is None or spot.lower is None or spot.upper is None or (spot.lower <= upper and lower <= spot.upper):
        return mean
    reason = f"spot checks say {spot.lower:.3f} to {spot.upper:.3f}, confidence alone {lower:.3f} to {upper:.3f}"
    return replace(mean, point=None, lower=None, upper=None, status="withdrawn", reason=reason)


def entry(class_name: str | None, metric: str, estimate: Estimate) -> dict[str, Any]:
    """One estimate as it stands in JSON; ``class`` is null for all classes together."""
    return {
        "class": class_name,
        "metric": metric,
        "estimator": estimate.estimator,
        "point": estimate.point,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "labels": estimate.labels,
        "effective_labels": round(estimate.effective_labels, 1),
        "sequences": estimate.clusters,
        "status": estimate.status.replace(" ", "_"),
        "needed": estimate.needed,
        "needed_of": estimate.needed_of,
        **({"reason": estimate.reason} if estimate.reason else {}),
    }
