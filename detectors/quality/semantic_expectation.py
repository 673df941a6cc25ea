"""Intersections and unions that a semantic model's own confidence leads one to expect, class by class, without labels.

A pixel predicted as c with probability p of being right adds p to the expected intersection of c. It adds 1 to the
union of c, and to the union of each other class the probability that it is that class: of these, a confidence map
knows the sum alone, 1 - p, which is spread over the other classes as labels have shown errors to be spread.

    I_c = sum_k p_ck n_ck        U_c = sum_k n_ck + sum_{j != c} share_jc sum_k (1 - p_jk) n_jk

It misleads where confidence stops meaning what it meant (concept shift): spot checks overrule it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.quality.calibration import PRIOR_RECORDS, CalibrationMap
from detectors.quality.confidence_bins import BINS
from detectors.quality.judge_semantic import SemanticJudgement


@dataclass(frozen=True, eq=False, slots=True)
class SemanticExpectation:
    """What `expected` multiplies a prediction's counts with."""

    calibration: CalibrationMap
    kept: NDArray[np.float64]
    """(C + 1, BINS): share of pixels with that prediction and confidence that is not void; others count as nothing."""
    shares: NDArray[np.float64]
    """(C + 1, C): for a wrong pixel of each predicted class, the probability of each true class; rows sum to 1."""

    @property
    def classes(self) -> int:
        return self.calibration.classes

    @classmethod
    def unlabelled(cls, frequencies: NDArray[np.floating]) -> SemanticExpectation:
        """Before there are labels: confidence at its word, no void, and errors in proportion to the baseline's (C,)
        frequencies of the classes."""
        classes = len(frequencies)
        return cls(CalibrationMap.identity(classes), np.ones((classes + 1, BINS)), _prior_shares(frequencies))

    @classmethod
    def fit(
        cls,
        judgements: Sequence[SemanticJudgement],
        frequencies: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        prior_records: float = PRIOR_RECORDS,
    ) -> SemanticExpectation:
        """From judged records; those without confidence say only which errors there are.

        Args:
            judgements: n of them.
            frequencies: (C,) of the classes in the baseline, any scale; classes that have none there get a little.
            weights: (n,) 1/inclusion probability; 1 by default.
            prior_records: so many records' worth of belief in what holds without labels; 0 for none.
        """
        classes = len(frequencies)
        weight = np.ones(len(judgements)) if weights is None else np.asarray(weights, np.float64)
        if weight.shape != (len(judgements),):
            raise ValueError(f"{len(judgements)} judgements, weights of shape {weight.shape}")
        other = next((judgement.classes for judgement in judgements if judgement.classes != classes), None)
        if other is not None:
            raise ValueError(f"a judgement has {other} classes, expected {classes}")
        errors, seen = np.zeros((classes + 1, classes)), np.zeros(classes + 1, np.int64)
        record, rows = _joined([judgement.confusion for judgement in judgements], 3)
        _add_errors(record, rows, weight, errors, seen)
        sums, records = np.zeros((classes + 1, BINS, 4)), np.zeros((classes + 1, BINS), np.int64)
        known = [i for i, judgement in enumerate(judgements) if judgement.confidence is not None]
        record, rows = _joined([c for judgement in judgements if (c := judgement.confidence) is not None], 6)
        _add_confidence(record, rows, weight[known], sums, records)
        labelled = len(known)
        total, correct, _, void = np.moveaxis(sums, 2, 0)
        # A bin where all is void says nothing about what is right.
        evidence = np.where(total > 0, records, 0)[:classes]
        calibration = CalibrationMap.fit(total[:classes], correct[:classes], evidence, labelled, prior_records)
        kept = _drawn(total, total + void, records, np.ones_like(total), prior_records)
        return cls(calibration, kept, _fit_shares(errors, seen, _prior_shares(frequencies), prior_records))

    def expected(self, counts: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts (..., C + 1, BINS), of one record, many or a whole window, to expected intersections and unions
        (..., C) in pixels.

        >>> counts = np.zeros((3, BINS), np.int64)
        >>> counts[0, 8] = 100
        >>> intersection, union = SemanticExpectation.unlabelled(np.array([0.5, 0.5])).expected(counts)
        >>> intersection.tolist(), union.tolist()
        ([53.125, 0.0], [100.0, 46.875])
        """
        if counts.shape[-2:] != self.kept.shape:
            raise ValueError(f"counts have shape {counts.shape}, expected (..., {self.classes + 1}, {BINS})")
        pixels = counts * self.kept
        predicted = pixels.sum(-1)
        intersection = (pixels[..., : self.classes, :] * self.calibration.probability).sum(-1)
        wrong = predicted.copy()
        wrong[..., : self.classes] -= intersection
        return intersection, predicted[..., : self.classes] + wrong @ self.shares


def _joined(tables: Sequence[NDArray[np.int64]], columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tables (K, columns) one below the other, and of each row (R,) the number of its table."""
    record = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return record, np.concatenate([np.empty((0, columns), np.int64), *tables])


@njit(cache=True, nogil=True)
def _add_errors(record: Any, rows: Any, weight: Any, errors: Any, seen: Any) -> None:  # pragma: no cover
    """Wrong pixels of confusions (R, 3) by predicted and by true class, and in how many records each was predicted."""
    last = np.full(len(seen), -1)
    for row in range(len(rows)):
        labelled, predicted = rows[row, 0], rows[row, 1]
        if labelled != predicted:
            errors[predicted, labelled] += weight[record[row]] * rows[row, 2]
            if last[predicted] != record[row]:
                seen[predicted] += 1
                last[predicted] = record[row]


@njit(cache=True, nogil=True)
def _add_confidence(record: Any, rows: Any, weight: Any, sums: Any, records: Any) -> None:  # pragma: no cover
    """Pixels of confidence tables (R, 6) by class and bin, and in how many records each was seen."""
    for row in range(len(rows)):
        position, code = rows[row, 0], rows[row, 1]
        records[position, code] += 1
        for side in range(4):
            sums[position, code, side] += weight[record[row]] * rows[row, 2 + side]


def _prior_shares(frequencies: NDArray[np.floating]) -> NDArray[np.float64]:
    """(C + 1, C): the frequencies of all classes but the row's own, adding up to 1."""
    classes = len(frequencies)
    if not classes or not np.isfinite(frequencies).all() or (frequencies < 0).any():
        raise ValueError("frequencies must be finite and >= 0, one a class")
    # A class that the baseline never saw is rare, not impossible.
    known = frequencies / max(float(frequencies.sum()), 1e-300) + 1e-6
    shares: NDArray[np.float64] = np.tile(known, (classes + 1, 1))
    np.fill_diagonal(shares, 0.0)
    totals = shares.sum(1, keepdims=True)
    # With a single class there is no other that a wrong pixel could be.
    np.divide(shares, totals, out=shares, where=totals > 0)
    return shares


def _fit_shares(
    errors: NDArray[np.float64], seen: NDArray[np.int64], prior: NDArray[np.float64], prior_records: float
) -> NDArray[np.float64]:
    """(C + 1, C) from weighted pixels predicted as the row that are the column; ``seen``: (C + 1,) records with any."""
    totals = errors.sum(1, keepdims=True)
    return _drawn(errors, np.broadcast_to(totals, errors.shape), seen[:, None], prior, prior_records)


def _drawn(
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    records: NDArray[np.int64],
    prior: NDArray[np.float64],
    prior_records: float,
) -> NDArray[np.float64]:
    """part / whole, drawn towards the prior by so many records; the prior where there is nothing."""
    share = np.divide(part, whole, out=prior.copy(), where=whole > 0)
    weight = np.broadcast_to(np.where(whole > 0, records, 0) + prior_records, share.shape)
    drawn = prior.copy()
    np.divide((weight - prior_records) * share + prior_records * prior, weight, out=drawn, where=weight > 0)
    return drawn
