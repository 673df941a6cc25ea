"""What the model itself leads one to expect of a window's records, by a calibration that the judged one had no part in.

The calibration is learnt from judged records in five parts, each used for the records of the others (by sequence), so
that no label speaks for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from detectors.quality.assisted import Expectation
from detectors.quality.expected import ExpectedSums
from detectors.quality.instance_expectation import InstanceExpectation, JudgedRecords
from detectors.quality.semantic_expectation import SemanticExpectation
from monitor.quality_evidence import Evidence

FOLDS = 5
AT_ONCE = 1000
"""Records whose counts are stacked: some megabytes of them."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A calibration learnt from judged records of one kind, lists or maps."""

    learnt: SemanticExpectation | InstanceExpectation

    def of(self, sums: ExpectedSums) -> tuple[Floats, Floats]:
        """Expected intersections and unions (C,) of the records in ``sums``."""
        if isinstance(self.learnt, SemanticExpectation):
            return self.learnt.expected(sums.pixels)
        return self.learnt.expected(sums.area, sums.instance_records)

    def of_each(self, sums: Sequence[ExpectedSums]) -> tuple[Floats, Floats]:
        """The same (n, C) of records one by one."""
        numerator, denominator = (np.zeros((len(sums), self.learnt.classes)) for _ in range(2))
        for start in range(0, len(sums), AT_ONCE):
            some = sums[start : start + AT_ONCE]
            place = slice(start, start + len(some))
            if isinstance(self.learnt, SemanticExpectation):
                found = self.learnt.expected(np.stack([one.pixels for one in some]))
            else:
                records = np.array([one.instance_records for one in some])
                found = self.learnt.expected(np.stack([one.area for one in some]), records)
            numerator[place], denominator[place] = found
        return numerator, denominator


class Calibrations:
    """What the judged records of a window teach, or some of them."""

    def __init__(self, evidence: Evidence, frequencies: Floats) -> None:
        """``frequencies``: (C,) of the classes."""
        judgements = evidence.maps or evidence.instances
        self._frequencies = frequencies
        self._rows = np.array([row for row, *_ in judgements], np.int64)
        self._weights = evidence.weights[self._rows] * [share for _, share, _ in judgements]
        self._maps = [one for *_, one in evidence.maps]
        lists = [] if evidence.maps else [one for *_, one in evidence.instances]
        self._lists = JudgedRecords.of(lists) if lists else None

    def learn(self, chosen: NDArray[np.bool_]) -> Calibrated:
        """``chosen``: (N,) records to learn from."""
        used = chosen[self._rows]
        weights = self._weights[used]
        if self._maps:
            maps = list(compress(self._maps, used.tolist()))
            return Calibrated(SemanticExpectation.fit(maps, self._frequencies, weights))
        if self._lists is None:
            return Calibrated(InstanceExpectation.unlabelled(len(self._frequencies)))
        return Calibrated(InstanceExpectation.fit(self._lists.where(used), weights))


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


def in_folds(evidence: Evidence, rows: NDArray[np.int64], frequencies: Floats) -> list[tuple[Calibrated, list[int]]]:
    """For each part of the records ``rows`` (n,) a calibration learnt from the others, and its places in ``rows``.

    Parts are made of whole sequences. Empty where there would be one part alone.
    """
    fold = evidence.clusters % min(FOLDS, len(np.unique(evidence.clusters)))
    numbers = np.unique(fold[rows]).tolist()
    if len(numbers) < 2:
        return []
    whole = Calibrations(evidence, frequencies)
    return [(whole.learn(fold != number), np.flatnonzero(fold[rows] == number).tolist()) for number in numbers]


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
        return None  # the window's sums are not weighed by it; whoever asks says so
    shape = (len(rows), sums.classes)
    numerator, denominator, middle, centre = (np.zeros(shape) for _ in range(4))
    parts = in_folds(evidence, rows, frequencies_of(sums))
    for calibrated, places in parts:
        expected, size = calibrated.of(sums)
        numerator[places], denominator[places] = calibrated.of_each([known[place] for place in places])
        middle[places], centre[places] = expected / records, size / records
    return CrossFitted(rows, numerator, denominator, middle, centre) if parts else None
