"""Intersections and unions that an instance model's own scores lead one to expect, class by class, without labels.

An instance adds to the expected intersection of its class the share of its mask that is expected to lie on a label of
its class, which scores tell also among instances that are all found, but some better than others. To the union it adds
its mask, and what labels have shown to be missed beside masks of such a score: the rest of the object that it is
matched to, and its share, by area, of what else was not found in its record, since a model that is unsure of what it
finds also misses more. Of objects in records in which nothing at all is found no score can tell: each record adds what
labels have shown of these.

    I_c = hit_c sum_k p_ck area_ck
    U_c = covered_c sum_k area_ck + missed_c sum_k g_k area_ck + blank_c records

It misleads where the model misses more, at equal scores, than it did when labels were last seen, and where a class has
become rarer, so that more of what is taken for it is not: spot checks overrule it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from detectors.quality.calibration import PRIOR_RECORDS, CalibrationMap
from detectors.quality.confidence_bins import BINS, bins_of
from detectors.quality.instance_judgement import InstanceJudgement


@dataclass(frozen=True, eq=False, slots=True)
class JudgedRecords:
    """What the fit needs of n judged records, and of the M instances predicted in them."""

    record: NDArray[np.int64]
    """(M,) 0..n-1, to which record the instance belongs."""
    position: NDArray[np.int64]
    """(M,) predicted class 0..C; those of no class of the model, C, are left out."""
    score: NDArray[np.float64]
    """(M,) in 0..1."""
    shared: NDArray[np.int64]
    """(M,) pixels of the mask that lie on the label of the class that it is matched to; 0 where it is not."""
    spilled: NDArray[np.int64]
    """(M,) pixels of that label beside the mask; 0 where it is not matched."""
    ignored: NDArray[np.bool_]
    """(M,) neither right nor wrong, as on a crowd: not used for calibration, but part of what is predicted."""
    area: NDArray[np.int64]
    """(M,) pixels of the mask."""
    intersection: NDArray[np.int64]
    """(n, C) pixels that prediction and label share."""
    union: NDArray[np.int64]
    """(n, C)"""
    predicted_pixels: NDArray[np.int64]
    """(n, C) pixels of the union of all masks of the class."""

    @classmethod
    def of(cls, judgements: Sequence[InstanceJudgement]) -> JudgedRecords:
        """Raises ValueError without a judgement, which would leave the number of classes open."""
        if not judgements:
            raise ValueError("without a judgement the number of classes is not known")
        many = [len(judgement.kind) for judgement in judgements]
        return cls(
            np.repeat(np.arange(len(judgements)), many),
            np.concatenate([judgement.kind for judgement in judgements]),
            np.concatenate([judgement.score for judgement in judgements]),
            np.concatenate([np.where(judgement.is_true, judgement.shared, 0) for judgement in judgements]),
            np.concatenate([_spilled(judgement) for judgement in judgements]),
            np.concatenate([judgement.is_ignored for judgement in judgements]),
            np.concatenate([judgement.area for judgement in judgements]),
            np.stack([judgement.intersection for judgement in judgements]),
            np.stack([judgement.union for judgement in judgements]),
            np.stack([judgement.predicted_pixels for judgement in judgements]),
        )

    def where(self, chosen: NDArray[np.bool_]) -> JudgedRecords:
        """Those of the records that are ``chosen`` (n,)."""
        rows = chosen[self.record]
        return JudgedRecords(
            (np.cumsum(chosen) - 1)[self.record[rows]],
            self.position[rows],
            self.score[rows],
            self.shared[rows],
            self.spilled[rows],
            self.ignored[rows],
            self.area[rows],
            self.intersection[chosen],
            self.union[chosen],
            self.predicted_pixels[chosen],
        )


@dataclass(frozen=True, eq=False, slots=True)
class InstanceExpectation:
    """What `expected` multiplies a prediction's sums with."""

    calibration: CalibrationMap
    hit: NDArray[np.float64]
    """(C,) pixels of intersection for each pixel that is expected to lie on a matched label: others overlap, too."""
    covered: NDArray[np.float64]
    """(C,) pixels predicted as the class for each pixel of its masks: below 1 where masks of a class overlap."""
    beside: NDArray[np.float64]
    """(BINS,) labelled pixels that no mask of their class covers, for each pixel of a mask; falls as scores rise."""
    missed: NDArray[np.float64]
    """(C,) what this has to be multiplied with for masks of the class."""
    blank: NDArray[np.float64]
    """(C,) pixels a record that are labelled in records without any mask."""

    @property
    def classes(self) -> int:
        return self.calibration.classes

    @classmethod
    def unlabelled(cls, classes: int) -> InstanceExpectation:
        """Before there are labels: scores at their word, and nothing missed. A bound from above, no more."""
        return cls(
            CalibrationMap.identity(classes),
            np.ones(classes),
            np.ones(classes),
            np.zeros(BINS),
            np.ones(classes),
            np.zeros(classes),
        )

    @classmethod
    def fit(
        cls, judged: JudgedRecords, weights: NDArray[np.floating] | None = None, prior_records: float = PRIOR_RECORDS
    ) -> InstanceExpectation:
        """On the judged records themselves the expectation adds up to what was judged, but for the shrinkage.

        Args:
            judged: n records; none at all gives `unlabelled`.
            weights: (n,) 1/inclusion probability; 1 by default.
            prior_records: so many records' worth of belief in the figure over all classes; 0 for none.
        """
        total, classes = judged.intersection.shape
        if not total:
            return cls.unlabelled(classes)
        weight = np.ones(total) if weights is None else np.asarray(weights, np.float64)
        known = judged.position < classes
        record, position, score = judged.record[known], judged.position[known], judged.score[known]
        area = weight[record] * judged.area[known]
        calibration = _calibrate(judged, weight, prior_records)
        seen = np.bincount(np.unique(position * total + record) // total, minlength=classes)
        right = _sums(position, area * calibration.probabilities(position, score), classes)
        masks = _sums(position, area, classes)
        missed = judged.union - judged.predicted_pixels
        blank = _sums(judged.record, judged.area.astype(np.float64), total) == 0
        beside = _beside(judged, weight, missed, prior_records)
        return cls(
            calibration,
            _ratio(weight @ judged.intersection, right, seen, prior_records),
            _ratio(weight @ judged.predicted_pixels, masks, seen, prior_records),
            beside,
            _ratio(
                (weight * ~blank) @ missed, _sums(position, area * beside[bins_of(score)], classes), seen, prior_records
            ),
            (weight * blank) @ missed / weight.sum(),
        )

    def expected(
        self, area: NDArray[np.integer], records: int | NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected intersections and unions (..., C) in pixels.

        Args:
            area: (..., C + 1, BINS) pixels of masks by class and score, as `ExpectedSums.area`.
            records: how many records they are of, (...,) or one number.

        >>> area = np.zeros((2, BINS), np.int64)
        >>> area[0, 8] = 100
        >>> [each.tolist() for each in InstanceExpectation.unlabelled(1).expected(area, records=1)]
        [[53.125], [100.0]]
        """
        if area.shape[-2:] != (self.classes + 1, BINS):
            raise ValueError(f"areas have shape {area.shape}, expected (..., {self.classes + 1}, {BINS})")
        known = area[..., : self.classes, :]
        intersection = self.hit * (known * self.calibration.probability).sum(-1)
        missed = self.missed * (known * self.beside).sum(-1) + np.asarray(records)[..., None] * self.blank
        union = self.covered * known.sum(-1) + missed
        return intersection, np.maximum(union, intersection)


def _calibrate(judged: JudgedRecords, weight: NDArray[np.float64], prior_records: float) -> CalibrationMap:
    """By area, since it is pixels that are expected."""
    total, classes = judged.intersection.shape
    used = (judged.position < classes) & ~judged.ignored
    record, cells = judged.record[used], classes * BINS
    cell = judged.position[used] * BINS + bins_of(judged.score[used])
    area, shared = weight[record] * judged.area[used], weight[record] * judged.shared[used]
    evidence = np.bincount(np.unique(cell * total + record) // total, minlength=cells)
    return CalibrationMap.fit(
        _sums(cell, area, cells).reshape(classes, BINS),
        _sums(cell, shared, cells).reshape(classes, BINS),
        evidence.reshape(classes, BINS),
        total,
        prior_records,
    )


def _beside(
    judged: JudgedRecords, weight: NDArray[np.float64], missed: NDArray[np.int64], prior_records: float
) -> NDArray[np.float64]:
    """(BINS,), all classes together: drawn towards the ratio over all bins, then made monotone.

    ``missed``: (n, C) labelled pixels of each record that no mask of their class covers.
    """
    total, classes = judged.intersection.shape
    known = judged.position < classes
    record, score = judged.record[known], judged.score[known]
    area = judged.area[known].astype(np.float64)
    spilled = judged.spilled[known]
    # Masks of one class may overlap, so that what is beside the one lies on the other.
    whole = np.maximum(missed.sum(1) - _sums(record, spilled.astype(np.float64), total), 0.0)
    share = np.divide(area, _sums(record, area, total)[record], out=np.zeros(len(area)), where=area > 0)
    bins = bins_of(score)
    part = _sums(bins, weight[record] * (spilled + share * whole[record]), BINS)
    held = _sums(bins, weight[record] * area, BINS)
    seen = np.bincount(np.unique(bins * total + record) // total, minlength=BINS)
    if not held.any():
        return np.zeros(BINS)
    fitted = isotonic_regression(
        _ratio(part, held, seen, prior_records),
        # Without a prior, what an empty bin has must not move its neighbours.
        weights=np.where(held > 0, seen, 0) + max(prior_records, 1e-9),
        increasing=False,
    ).x
    return np.asarray(fitted, np.float64)


def _spilled(judgement: InstanceJudgement) -> NDArray[np.int64]:
    true = judgement.is_true
    spilled = np.zeros_like(judgement.area)
    spilled[true] = judgement.label_area[judgement.label[true]] - judgement.shared[true]
    return spilled


def _sums(index: NDArray[np.int64], values: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """(cells,): what the values with each index add up to."""
    return np.bincount(index, values, cells).astype(np.float64)


def _ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64], records: NDArray[np.int64], prior_records: float
) -> NDArray[np.float64]:
    """(C,) part / whole, drawn towards the ratio over all classes; that ratio, or 1, where there is nothing."""
    overall = float(part.sum() / whole.sum()) if whole.sum() > 0 else 1.0
    share = np.divide(part, whole, out=np.full(len(part), overall), where=whole > 0)
    evidence = np.where(whole > 0, records, 0)
    weight = evidence + prior_records
    drawn: NDArray[np.float64] = np.full(len(part), overall)
    np.divide(evidence * share + prior_records * overall, weight, out=drawn, where=weight > 0)
    return drawn
