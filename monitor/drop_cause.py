"""Whose labels show a drop since the baseline, and what that says: a worse model, or somebody's new habit.

One annotator's labels alone cannot tell the two apart. What can: other annotators' labels of the same traffic, best of
the same records, and whether the annotator's habit is the one that the baseline was measured by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from detectors.quality.contrast import Contrast, dropped
from detectors.quality.ratio import Estimate, RatioSample, sums_by
from detectors.quality.spotcheck import spotcheck
from monitor.quality_evidence import Evidence
from monitor.reference import Reference

Cause = Literal["model", "annotators", "unknown"]

FEWEST_SHARED = 10
"""Sequences with records that both labelled from which on these alone are compared: t has a quantile of 2.8 there."""
ALPHA = 0.01
"""Of a difference between two annotators, one-sided; that of a drop, too."""


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the model's IoU by one annotator's labels lies below that by another's."""

    annotator: str
    other: str
    shared: int
    """Records labelled by both on which it rests; 0: each one's labels of the window's records at large."""
    point: float
    """Below 0 where the annotator's labels make the model look worse."""
    lower: float
    upper: float
    found: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "annotator": self.annotator,
            "other": self.other,
            "shared": self.shared,
            "point": self.point,
            "lower": self.lower,
            "upper": self.upper,
            "found": self.found,
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Each annotation that counts: (n,) whose it is, of which record, and its pixels of all classes together."""

    evidence: Evidence
    names: NDArray[np.str_]
    rows: NDArray[np.int64]
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    @classmethod
    def of(cls, evidence: Evidence) -> _Labels:
        rows = np.array([row for row, *_ in evidence.maps or evidence.instances], np.int64)
        return cls(evidence, np.array(evidence.annotators, np.str_), rows, *evidence.pooled_pixels())

    def sample(self, chosen: NDArray[np.bool_]) -> RatioSample:
        return self.evidence.sample(self.rows[chosen], self.numerator[chosen], self.denominator[chosen])


def drop_causes(evidence: Evidence, reference: Reference | None, population: int | None) -> dict[str, Any]:
    """``annotators``, ``annotator_differences`` and ``drop_cause`` as in ``segwatch quality --json``.

    ``population``: the window's records; None to speak of the process that made them.
    """
    labels = _Labels.of(evidence)
    samples = {name: labels.sample(labels.names == name) for name in sorted(set(evidence.annotators))}
    before = reference.overall if reference is not None else None
    contrasts: dict[str, Contrast] = {}
    told = []
    for name, sample in samples.items():
        size = None if population is None else max(population, len(sample))
        entry = {"annotator": name, **_brief(spotcheck(sample, size))}
        if before is not None and before.point is not None:
            contrast = dropped(sample, before.estimate(), size, alpha=ALPHA)
            if contrast.drop is not None:
                contrasts[name] = contrast
                entry["drop"] = {
                    "point": contrast.drop,
                    "lower": contrast.lower,
                    "upper": contrast.upper,
                    "found": contrast.found,
                }
        told.append(entry)
    lower = [name for name, one in contrasts.items() if one.found]
    others = [name for name in samples if name not in lower]
    differences = {
        (name, other): found
        for name in lower
        for other in others
        if (found := _difference(labels, name, other)) is not None
    }
    known = frozenset() if reference is None else frozenset(reference.evidence.annotators)
    return {
        "annotators": told,
        "annotator_differences": [one.to_json() for one in differences.values()],
        "drop_cause": _cause(contrasts, differences, known),
    }


def _cause(
    contrasts: Mapping[str, Contrast], differences: Mapping[tuple[str, str], Difference], known: frozenset[str]
) -> Cause | None:
    """The model, where everybody's labels show the drop whose labels are enough to; the annotators, where the labels of
    those who show it differ from the others' by more than chance; None without a drop."""
    lower = {name: one.drop or 0.0 for name, one in contrasts.items() if one.found}
    if not lower:
        return None
    # Those who would have shown a drop as large as the smallest that was found, and do not.
    firm = {
        name
        for name, one in contrasts.items()
        if not one.found
        and one.drop is not None
        and one.lower is not None
        and one.drop - one.lower < min(lower.values())
    }
    explained = {name for (name, other), one in differences.items() if one.found and (one.shared or other in firm)}
    left = lower.keys() - explained
    if not left:
        return "annotators"
    if firm:
        return "unknown"
    # With nobody to compare with, only habits that the baseline was measured by speak for a change of the model.
    return "model" if len(left) > 1 or left & known else "unknown"


def _difference(labels: _Labels, name: str, other: str) -> Difference | None:
    """On the records that both labelled, where there are enough of them: whoever got the harder ones is no matter."""
    own, others = labels.names == name, labels.names == other
    common = np.intersect1d(labels.rows[own], labels.rows[others])
    shared = len(np.unique(labels.evidence.clusters[common])) >= FEWEST_SHARED
    if shared:
        both = np.isin(labels.rows, common)
        own, others = own & both, others & both
    first, second = labels.sample(own), labels.sample(others)
    points = first.ratio(), second.ratio()
    if points[0] is None or points[1] is None:
        return None
    # What each record has to do with the difference of the two ratios, added up by sequence.
    influence = np.concatenate([_influence(first, points[0]), -_influence(second, points[1])])
    (sums,) = sums_by(np.concatenate([first.clusters, second.clusters]), influence)
    if len(sums) < FEWEST_SHARED:
        return None
    deviation = math.sqrt(float(sums @ sums) * len(sums) / (len(sums) - 1))
    point = points[0] - points[1]
    wide, strict = (float(stdtrit(len(sums) - 1, level)) * deviation for level in (0.975, 1 - ALPHA))
    count = len(common) if shared else 0
    return Difference(name, other, count, point, point - wide, point + wide, point + strict < 0)


def _influence(sample: RatioSample, ratio: float) -> NDArray[np.float64]:
    residuals = sample.weights * (sample.numerator - ratio * sample.denominator)
    influence: NDArray[np.float64] = residuals / float(sample.weights @ sample.denominator)
    return influence


def _brief(estimate: Estimate) -> dict[str, Any]:
    return {
        "point": estimate.point,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "labels": estimate.labels,
        "status": estimate.status.replace(" ", "_"),
    }
