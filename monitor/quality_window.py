"""What may be said of each class of a window from its labelled records: estimates with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from detectors.harm import Harm
from detectors.quality.assisted import assisted, assisted_units
from detectors.quality.contrast import dropped
from detectors.quality.expected import ExpectedSums
from detectors.quality.labelfree import labelfree
from detectors.quality.mean import correlations, mean_over
from detectors.quality.planning import widest
from detectors.quality.ratio import Estimate, Estimator, RatioSample
from detectors.quality.spotcheck import design, spotcheck
from monitor.drop_cause import drop_causes
from monitor.expectations import cross_fitted, found_per_record
from monitor.quality_details import calibration, confusion
from monitor.quality_evidence import Evidence, Sums
from monitor.quality_precision import precision
from monitor.reference import SPLIT, Reference
from monitor.windows import Window, to_text

Population = Literal["window", "process"]
SIGNED = frozenset({"count_bias"})
"""Metrics that may be below 0, though not below -1."""
UNBOUNDED = frozenset({"false_positives_per_image", "count_error"}) | SIGNED
"""Metrics that may lie outside 0..1, or whose numerator may be above its denominator in one record."""
MEAN = {"iou": "mean_iou", "dice": "mean_dice"}
"""Metric to the name of its mean over classes."""
COLLAPSED = 0.25
"""Share of a class's pixels on the baseline's records that must still be found for confidence alone to be believed."""
NO_LABELS = RatioSample.uniform([], [])


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
    sampled: tuple[float, float] | None = None
    """The lowest and the highest ``sampling_probability`` of its records; None where that was not looked up."""

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
            **drop_causes(self.evidence, self.reference, self.records if self.population == "window" else None),
            "classes": [one for name in self._names() for one in self._entries(name)]
            + [entry(*one) for one in precision(self.evidence, self.metrics, self._size(len(self.evidence.inputs)))],
            **self._details(),
        }

    def _details(self) -> dict[str, Any]:
        """Only where all metrics are asked for."""
        if self.metrics is not None:
            return {}
        return {"confusion": confusion(self.evidence), "calibration": calibration(self.evidence)}

    def plan(self, price: float, presence: Callable[[], Mapping[str, float]] | None = None) -> list[dict[str, Any]]:
        """Labels that would halve each class's interval of IoU, or give it a first number; the widest first.

        ``presence``: in what share of the records the model finds each class; asked only where one has no label.
        """
        sums = self.evidence.metrics.get("iou")
        if sums is None:
            samples = dict.fromkeys(self.classes, NO_LABELS)
        else:
            samples = {name: self.evidence.column(sums, column) for column, name in enumerate(self.evidence.classes)}
        population = self._size(0 if sums is None else len(sums.rows))
        known = None
        if presence is not None and not all(one.denominator.any() for one in samples.values()):
            known = presence()
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
            for one in widest(samples, population, price, presence=known)
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
        estimates = [self._estimate(metric, sums, column) for column in range(sums.numerator.shape[1])]
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
        unweighed = self._unweighed()
        if unweighed:
            return [entry(name, "iou", _withdrawn(unweighed)) for name in names] + [
                entry(None, MEAN["iou"], _withdrawn(unweighed))
            ]
        calibrated, errors = fitted
        numerator, denominator = calibrated.of(self.sums)
        before, now = self.reference.found_per_record, found_per_record(self.sums)
        found: dict[str, Estimate] = {}
        for column, name in enumerate(names):
            if denominator[column] <= 0:
                known = self.reference.of(name)
                if known is not None and known.labels:
                    found[name] = _withdrawn("the model finds nothing of the class, which the baseline's records have")
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
                    found[name] = _withdrawn(reason)
        told = [entry(name, "iou", estimate) for name, estimate in found.items()]
        return [*told, entry(None, MEAN["iou"], _mean_labelfree(found, mean))] if found else []

    def _assisted(self, sums: Sums, estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
        """The same with the help of what the model expects of the records without a label."""
        population = self._size(len(sums.rows))
        unweighed = self._unweighed()
        if self.sums is not None and unweighed:
            known = [name for name, one in zip(self.evidence.classes, estimates, strict=True) if one.point is not None]
            withdrawn = _withdrawn(unweighed, "assisted")
            return [entry(name, "iou", withdrawn) for name in known] + [entry(None, MEAN["iou"], withdrawn)]
        fitted = None
        if self.sums is not None and self.records:
            fitted = cross_fitted(self.evidence, self.sums, self.records)
        if fitted is None or not np.array_equal(fitted.rows, sums.rows):
            return []
        found, means, units = [], [], []
        for column, name in enumerate(self.evidence.classes):
            if estimates[column].point is None:
                continue  # help corrects a number, it does not make one
            sample = self.evidence.column(sums, column)
            given = sample, fitted.expectation(column), population or self.records
            helped = assisted(*given, process=population is None)
            found.append(entry(name, "iou", helped))
            means.append(helped)
            units.append(assisted_units(*given, process=population is None))
        if len(means) == len(self._seen(sums)) > 0:
            found.append(entry(None, MEAN["iou"], mean_over(means, correlations(units))))
        return found

    def _unweighed(self) -> str:
        """Why the sums of all records' confidence do not stand for the traffic; "" where they do."""
        told = [*(self.sampled or ()), *self.evidence.sampling.tolist()]
        least, most = min(told, default=1.0), max(told, default=1.0)
        if least == most:
            return ""
        return (
            f"records were sampled with probabilities from {least:g} to {most:g},"
            " and what is kept of all records' confidence is not weighed by them"
        )

    def _size(self, labelled: int) -> int | None:
        return max(self.records, labelled) if self.population == "window" else None

    def _estimate(self, metric: str, sums: Sums, column: int) -> Estimate:
        sample = self.evidence.column(sums, column)
        bounded, signed = metric not in UNBOUNDED, metric in SIGNED
        return spotcheck(sample, self._size(len(sample)), bounded=bounded, signed=signed)

    def _mean(self, sums: Sums, estimates: Sequence[Estimate]) -> Estimate:
        """The mean over the classes that were seen."""
        seen = self._seen(sums)
        if not seen:
            return spotcheck(NO_LABELS, None)
        samples = [self.evidence.column(sums, column) for column in seen]
        units = [design(one, one.numerator, one.denominator, self._size(len(one))) for one in samples]
        return mean_over([estimates[column] for column in seen], correlations(units))

    def _seen(self, sums: Sums) -> list[int]:
        """Columns of the classes that are in any labelled record, or found in one."""
        return np.flatnonzero(sums.denominator.any(axis=0)).tolist()


def _times(times_us: tuple[int, int] | None) -> list[str] | None:
    return None if times_us is None else [to_text(time_us) for time_us in times_us]


def _withdrawn(reason: str, estimator: Estimator = "labelfree") -> Estimate:
    return Estimate(None, None, None, 0, 0.0, 0, "withdrawn", 0, estimator, 1.0, "window", reason=reason)


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
    return _withdrawn(reason)


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
