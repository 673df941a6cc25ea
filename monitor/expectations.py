"""What the model itself leads one to expect of a window's records, by a calibration that the judged one had no part in.

The calibration is learnt from judged records in five parts, each used for the records of the others (by sequence), so
that no label speaks for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality.assisted import Expectation
from detectors.quality.expected import ExpectedSums
from detectors.quality.instance_expectation import InstanceExpectation, JudgedRecords
from detectors.quality.semantic_expectation import SemanticExpectation
from monitor.quality_evidence import Evidence

FOLDS = 5
FEWEST = 10
"""Judged records below which nothing is learnt from them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CrossFitted:
    """Of n judged records and the whole window: numerators and denominators (n, C), and totals (C,)."""

    rows: NDArray[np.int64]
    numerator: Floats
    denominator: Floats
    centre_numerator: Floats
    """(n, C) mean over the window of what each record's own calibration expects."""
    centre_denominator: Floats

    def expectation(self, column: int) -> Expectation:
        """For `assisted`: of one class, centred on the window."""
        return Expectation(
            self.numerator[:, column] - self.centre_numerator[:, column],
            self.denominator[:, column] - self.centre_denominator[:, column],
            0.0,
            0.0,
        )


class Calibrated:
    """A calibration learnt from judged records of one kind, lists or maps."""

    def __init__(self, evidence: Evidence, chosen: NDArray[np.bool_], frequencies: Floats) -> None:
        """``chosen``: (N,) records of ``evidence`` to learn from; ``frequencies``: (C,) of the classes."""
        weights = 1 / (evidence.probability * evidence.sampling)
        self._maps: SemanticExpectation | None = None
        self._lists: InstanceExpectation | None = None
        if evidence.maps:
            used = [(share * weights[row], one) for row, share, one in evidence.maps if chosen[row]]
            self._maps = SemanticExpectation.fit(
                [one for _, one in used], frequencies, np.array([weight for weight, _ in used])
            )
        else:
            given = [(share * weights[row], one) for row, share, one in evidence.instances if chosen[row]]
            if given:
                judged = JudgedRecords.of([one for _, one in given])
                self._lists = InstanceExpectation.fit(judged, np.array([weight for weight, _ in given]))
            else:
                self._lists = InstanceExpectation.unlabelled(len(frequencies))

    def of(self, sums: ExpectedSums) -> tuple[Floats, Floats]:
        """Expected intersections and unions (C,) of the records in ``sums``."""
        if self._maps is not None:
            return self._maps.expected(sums.pixels)
        assert self._lists is not None
        return self._lists.expected(sums.area, sums.instance_records)


def frequencies_of(sums: ExpectedSums) -> Floats:
    """(C,) how much of each class the model found."""
    found = sums.pixels if sums.semantic_records else sums.area
    frequencies: Floats = found.sum(1)[: sums.classes].astype(np.float64)
    return frequencies


def found_per_record(sums: ExpectedSums) -> Floats:
    """(C,) pixels that the model found of each class, of a record on average."""
    mean: Floats = frequencies_of(sums) / max(sums.semantic_records or sums.instance_records, 1)
    return mean


def counted_records(evidence: Evidence, sums: ExpectedSums) -> int:
    """Records whose sureness is in the sums, of the kind that was judged."""
    return sums.semantic_records if evidence.maps else sums.instance_records


def cross_fitted(evidence: Evidence, sums: ExpectedSums, records: int) -> CrossFitted | None:
    """What is expected of the judged records and, by the same calibration, of the window's on average.

    None where records are too few, where some were judged without their sureness being known, or where the window's
    sums are not of all its records.
    """
    rows = np.array(sorted({row for row, *_ in (evidence.maps or evidence.instances)}), np.int64)
    own = [evidence.expected[row] for row in rows.tolist()]
    known = [one for one in own if one is not None and one.classes == sums.classes]
    if len(rows) < FEWEST or len(known) < len(rows) or counted_records(evidence, sums) != records:
        return None
    if len(np.unique(evidence.sampling)) > 1:
        return None  # the window's sums are not weighed by it
    fold = evidence.clusters % min(FOLDS, len(np.unique(evidence.clusters)))
    shape = (len(rows), sums.classes)
    numerator, denominator, middle, centre = (np.zeros(shape) for _ in range(4))
    frequencies = frequencies_of(sums)
    for number in np.unique(fold[rows]).tolist():
        outside = fold != number
        if not outside[rows].any():
            return None
        calibrated = Calibrated(evidence, outside, frequencies)
        expected, size = calibrated.of(sums)
        for place in np.flatnonzero(~outside[rows]).tolist():
            numerator[place], denominator[place] = calibrated.of(known[place])
            middle[place], centre[place] = expected / records, size / records
    return CrossFitted(rows, numerator, denominator, middle, centre)
