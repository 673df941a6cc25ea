"""How far confidence can be believed: reliability curve, ECE, and a map from confidence to probability.

A model that says .9 and is right in .7 of the cases is overconfident; what it expects of itself is then too good. The
reliability curve shows it, the expected calibration error (ECE) puts it into one number, and the calibration map takes
it out, as far as there are labels to learn it from.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (ECE); Zadrozny and Elkan, Transforming
Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002 (isotonic regression).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from detectors.quality.confidence_bins import BINS, CENTRES, bins_of
from detectors.quality.confusion import MAX_CLASSES
from detectors.quality.tables import seal, unseal
from detectors.wire import Writer

Sums = NDArray[np.int64] | NDArray[np.float64]

MAGIC = b"SWCM"
FORMAT_VERSION = 1
PRIOR_RECORDS = 1.0
"""So many records' worth of belief in what is known without the bin's own labels: enough that one odd image does not
decide what a class's confidence means. More would pull towards the model's own opinion, mostly too high: on the demo's
network with 50 labels, 4 instead of 1 moves the expected mIoU up by .005 on clean images and .008 on blurred ones."""
MIN_RECORDS = 5.0
"""With fewer labelled records in all, confidence is taken at its word."""


@dataclass(frozen=True, eq=False, slots=True)
class Reliability:
    """The reliability curve over the bins that hold anything, (B,) each, in ascending order of confidence."""

    confidence: NDArray[np.float64]
    """Mean confidence in the bin."""
    accuracy: NDArray[np.float64]
    """Share of the bin that is correct."""
    weight: NDArray[np.float64]
    """Pixels or instances in the bin."""


def reliability(total: Sums, correct: Sums, confidence: Sums) -> Reliability:
    """From (bins,) sums: what is in each bin, how much of it is correct, and the sum of its confidence in 0..1.

    Sums of several images or classes are added before. Put the bins together by `confidence_bins.uniform` for the
    sixteen of equal width that other tools show; the sums of a confidence map's bytes are divided by 255.

    >>> curve = reliability(np.array([0, 4]), np.array([0, 2]), np.array([0.0, 3.6]))
    >>> curve.confidence.tolist(), curve.accuracy.tolist()
    ([0.9], [0.5])
    """
    held = total > 0
    weight = total[held].astype(np.float64)
    return Reliability(confidence[held] / weight, correct[held] / weight, weight)


def calibration_error(total: Sums, correct: Sums, confidence: Sums) -> NDArray[np.float64]:
    """ECE from the same sums, (..., bins) to (...,): the mean distance of a bin's confidence from its accuracy, where
    a bin weighs what is in it. NaN where there is nothing.

    >>> float(calibration_error(np.array([6, 4]), np.array([3, 4]), np.array([3.6, 3.6])).round(9))
    0.1
    """
    held = total.sum(-1)
    error = np.full(held.shape, np.nan)
    np.divide(np.abs(confidence - correct).sum(-1), held, out=error, where=held > 0)
    return error


@dataclass(frozen=True, eq=False, slots=True)
class CalibrationMap:
    """Probability that a prediction is right, by predicted class and confidence bin; never falls as confidence rises.

    Per class: the share that was correct in each bin, drawn towards the share over all classes by `PRIOR_RECORDS`
    records, which in turn is drawn towards the bin's own confidence; then made monotone by isotonic regression weighted
    by records. Records count, not pixels: the 100,000 pixels of one image are right or wrong together.

    >>> plain = CalibrationMap.identity(classes=1)
    >>> bool((plain.probability == CENTRES).all())
    True
    """

    probability: NDArray[np.float64]
    """(C, BINS)"""

    def __post_init__(self) -> None:
        if self.probability.ndim != 2 or self.probability.shape[1] != BINS or not len(self.probability):
            raise ValueError(f"probabilities have shape {self.probability.shape}, expected (classes, {BINS})")
        if not ((self.probability >= 0) & (self.probability <= 1)).all():
            raise ValueError("probabilities must be in 0..1")
        if (np.diff(self.probability, axis=1) < 0).any():
            raise ValueError("a calibration map must not fall as confidence rises")

    @property
    def classes(self) -> int:
        return len(self.probability)

    @classmethod
    def identity(cls, classes: int) -> CalibrationMap:
        """Confidence taken at its word: the middle of each bin."""
        return cls(np.tile(CENTRES, (classes, 1)))

    @classmethod
    def fit(
        cls, total: Sums, correct: Sums, records: Sums, labelled: float, prior_records: float = PRIOR_RECORDS
    ) -> CalibrationMap:
        """From (C, BINS) sums over labelled records, which may be weighted by 1/inclusion probability.

        Args:
            total: pixels, area or instances predicted as the class with that confidence.
            correct: those of them that are right.
            records: labelled records in which there are any, unweighted; the evidence that the bin rests on.
            labelled: labelled records in all; below `MIN_RECORDS` the map is the identity.
            prior_records: strength of the shrinkage; 0 for none.

        Raises:
            ValueError: shapes that differ, negative sums, or more correct ones than there are.
        """
        if total.ndim != 2 or total.shape[1] != BINS or total.shape != correct.shape or total.shape != records.shape:
            raise ValueError(f"sums have shapes {total.shape}, {correct.shape} and {records.shape}, not (C, {BINS})")
        if (total < 0).any() or (correct < 0).any() or (correct > total * (1 + 1e-9)).any():
            raise ValueError("sums must be >= 0, and correct ones at most all of them")
        if labelled < MIN_RECORDS:
            return cls.identity(len(total))
        at_most = np.minimum(records.sum(0), labelled)
        pooled = _fit_bins(total.sum(0), correct.sum(0), at_most, CENTRES, prior_records)
        rows = [_fit_bins(*sums, pooled, prior_records) for sums in zip(total, correct, records, strict=True)]
        return cls(np.stack(rows))

    @classmethod
    def fit_scores(
        cls,
        classes: int,
        position: NDArray[np.integer],
        scores: NDArray[np.floating],
        correct: NDArray[np.floating] | NDArray[np.bool_],
        weights: NDArray[np.floating],
        record: NDArray[np.integer],
    ) -> CalibrationMap:
        """From M scored predictions, (M,) each: class 0..C-1, score in 0..1, whether (or how far, 0..1) it is right,
        weight, and the number of the record that it belongs to."""
        cell = position.astype(np.int64) * BINS + bins_of(scores)
        cells = classes * BINS
        total = np.bincount(cell, weights, cells).reshape(classes, BINS)
        right = np.bincount(cell, weights * correct, cells).reshape(classes, BINS)
        apart = np.unique(np.stack([cell, record.astype(np.int64)]), axis=1)
        records = np.bincount(apart[0], minlength=cells).reshape(classes, BINS)
        return cls.fit(total, right, records, len(np.unique(record)))

    def probabilities(self, position: NDArray[np.integer], scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """(M,) classes and scores in 0..1 to (M,) probabilities."""
        found: NDArray[np.float64] = self.probability[position, bins_of(scores)]
        return found

    def to_bytes(self) -> bytes:
        """The canonical form: equal maps give equal bytes."""
        content = Writer()
        content.number(self.classes)
        content.raw(self.probability.astype("<f8").tobytes())
        return seal(MAGIC, FORMAT_VERSION, content.data())

    @classmethod
    def from_bytes(cls, data: bytes) -> CalibrationMap:
        """The map that `to_bytes` wrote. Raises ValueError where the data is damaged or of another format."""
        reader = unseal(data, MAGIC, FORMAT_VERSION, "calibration map")
        classes = reader.number()
        if not 1 <= classes <= MAX_CLASSES + 1:
            raise ValueError(f"damaged {reader.what}: {classes} classes")
        values = np.frombuffer(reader.raw(8 * classes * BINS), "<f8").astype(np.float64)
        reader.end()
        return cls(values.reshape(classes, BINS))


def _fit_bins(
    total: Sums, correct: Sums, records: Sums, prior: NDArray[np.float64], prior_records: float
) -> NDArray[np.float64]:
    """(BINS,) shares that are correct, drawn towards the prior and then made monotone; empty bins have the prior."""
    share = np.divide(correct, total, out=prior.copy(), where=total > 0)
    evidence = np.where(total > 0, records, 0.0)
    # Without a prior, what an empty bin has must not move its neighbours.
    weight = np.maximum(evidence + prior_records, 1e-9)
    drawn = (evidence * share + (weight - evidence) * prior) / weight
    fitted = isotonic_regression(np.clip(drawn, 0.0, 1.0), weights=weight).x
    return np.clip(np.maximum.accumulate(fitted), 0.0, 1.0)
