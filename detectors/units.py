"""Units of a baseline: what single records, blocks of them and whole sequences score where nothing has changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from detectors.baseline import BaselineStatistic
from detectors.direction import whitening

SCALE = 1024
"""Scores of codes are whole multiples of 1/SCALE: sums over a unit do not depend on the order of its records."""
MOST_BLOCKS = 4096
MOST_SEQUENCES = 1024
"""More units of the baseline than these are not ranked against: state and time would grow, and little else."""
FEWEST = 2
KEPT = 64
"""Sizes whose scores are kept at hand."""


@dataclass(frozen=True, eq=False)
class UnitScores:
    """Scores of the baseline's M units of one size, each row ascending, and what energies are taken about."""

    columns: NDArray[np.float64]
    """(T, M): location of each column, then its spread, then each signal's spread. Blocks have the last kind alone."""
    energy: NDArray[np.float64]
    """(S, M)"""
    centre: NDArray[np.float64]
    """(D,) mean location of the units."""

    @property
    def units(self) -> int:
        return int(self.energy.shape[1])


class BaselineUnits:
    """How a baseline's own units score.

    A code k scores the normal quantile ``z_k`` of its mid-rank in its column of the baseline. A unit's location in a
    column is the mean of z over its records, its spread the mean of z squared (a signal's: averaged over its columns),
    and a signal's energy ``sum over columns (location - centre)^2``: it sees many columns that each move a little in
    whatever direction. A unit of the baseline is held against the centre of the others, as a new one is.

    Raises:
        ValueError: the baseline has no columns.
    """

    def __init__(self, baseline: BaselineStatistic) -> None:
        if baseline.layout.width == 0:
            raise ValueError("a baseline without columns has nothing to rank")
        sample, self.baseline = baseline.sample, baseline
        self.seed = np.uint64(int(baseline.digest[:16], 16))
        self.starts = np.array([columns.start for columns in baseline.layout.signals])
        self.widths = np.array([len(columns.dimensions) for columns in baseline.layout.signals])
        if (self.widths == 0).any():
            raise ValueError("a signal without columns has nothing to rank")
        counts = baseline.counts
        middle = (np.cumsum(counts, axis=1) - counts / 2 + 0.5) / (baseline.records + 1)
        z = ndtri(middle)
        self.location = np.rint(z * SCALE).astype(np.int64)
        self.spread = np.rint(z * z * SCALE).astype(np.int64)
        ends = sample.independent + np.cumsum(sample.lengths)
        self._runs = np.stack([ends - sample.lengths, ends], axis=1)[:MOST_SEQUENCES]
        if len(self._runs) < FEWEST:
            self._runs = self._runs[:0]
        # Without single records, one of each sequence stands for them: two of one sequence would not be independent.
        rows = np.arange(sample.independent) if sample.independent else (ends - sample.lengths + ends) // 2
        self.singles = sample.codes[rows]
        self.single_counts = counts if not baseline.sequences else count(self.singles, counts.shape[1])
        self._blocks_of = _Kept(self._score_blocks)
        self._runs_of = _Kept(self._score_runs)
        self._whitening: dict[int, NDArray[np.float64]] = {}

    @property
    def sequences(self) -> int:
        """Sequences to rank against; 0 where there are fewer than two."""
        return len(self._runs)

    @property
    def signals(self) -> int:
        return len(self.starts)

    def weights(self) -> NDArray[np.float64]:
        """(D,) adding up to 1: signals share alike, and so do the columns of each."""
        return np.repeat(1 / (self.signals * self.widths), self.widths)

    def whitening(self, signal: int) -> NDArray[np.float64]:
        """`detectors.direction.whitening` of a signal's columns."""
        if signal not in self._whitening:
            part = slice(int(self.starts[signal]), int(self.starts[signal] + self.widths[signal]))
            self._whitening[signal] = whitening(self.singles[:, part], self.single_counts[part])
        return self._whitening[signal]

    def blocks_at_most(self, size: int) -> int:
        """How many blocks of ``size`` single records the baseline has, as far as they are used."""
        return min(MOST_BLOCKS, len(self.singles) // size)

    def blocks(self, size: int) -> UnitScores | None:
        """Scores of blocks of ``size`` single records; None where the baseline has fewer than two."""
        return self._blocks_of(size) if self.blocks_at_most(size) >= FEWEST else None

    def runs(self, length: int) -> UnitScores:
        """Scores of runs of ``length`` records from the middle of each of the baseline's sequences, or all of it."""
        return self._runs_of(min(length, int((self._runs[:, 1] - self._runs[:, 0]).max())))

    def kind(self, length: int) -> int:
        """0 for sequences that every one of the baseline's can match in length, else the octave of the length.

        Longer ones' means spread less than the shorter ones they are compared with. Were they to count as the past of
        sequences that spread as the baseline's do, those would look extreme.
        """
        return 0 if length <= (self._runs[:, 1] - self._runs[:, 0]).min() else int(length).bit_length()

    def record_sums(self, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(N, D + S): each record's scores in every column, and its squared ones added up over each signal."""
        column = np.arange(codes.shape[1])
        squares = np.add.reduceat(self.spread[column, codes], self.starts, axis=1)
        return np.concatenate([self.location[column, codes], squares], axis=1)

    def group_sums(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums of z and of z squared (D,) over the records that ``counts`` (D, B + 1) hold."""
        return (self.location * counts).sum(1), (self.spread * counts).sum(1)

    def energies(self, location: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, S) from locations (N, D)."""
        return np.add.reduceat((location - centre) ** 2, self.starts, axis=1)

    def column_scores(self, location: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2 D + S) from locations and spreads (N, D)."""
        return np.concatenate([location, spread, np.add.reduceat(spread, self.starts, axis=1)], axis=1)

    def _score_blocks(self, size: int) -> UnitScores:
        number = self.blocks_at_most(size)
        sums = np.empty((number, len(self.location) + self.signals), dtype=np.int64)
        step = max(1, 4096 // size)  # a few thousand records at a time: the sums of all would take 8 D bytes a record
        for first in range(0, number, step):
            part = self.record_sums(self.singles[first * size : min(first + step, number) * size])
            sums[first : first + step] = part.reshape(-1, size, part.shape[1]).sum(1)
        means = sums / (size * SCALE)
        width = len(self.location)
        return self._of(means[:, :width], means[:, width:])

    def _score_runs(self, length: int) -> UnitScores:
        location = np.empty((len(self._runs), len(self.location)))
        spread = np.empty_like(location)
        for index, (start, stop) in enumerate(self._runs.tolist()):
            take = min(length, stop - start)
            first = start + (stop - start - take) // 2
            held = count(self.baseline.sample.codes[first : first + take], self.location.shape[1])
            sums = self.group_sums(held)
            location[index], spread[index] = sums[0] / (take * SCALE), sums[1] / (take * SCALE)
        return self._of(location, self.column_scores(location, spread))

    def _of(self, location: NDArray[np.float64], columns: NDArray[np.float64]) -> UnitScores:
        centre, units = location.mean(0), len(location)
        others = (units * centre - location) / (units - 1)
        energy = self.energies(location, others)
        return UnitScores(np.sort(columns.T, axis=1), np.sort(energy.T, axis=1), centre)


def count(codes: NDArray[np.uint8], cells: int) -> NDArray[np.int64]:
    """(D, cells) from codes (N, D)."""
    width = codes.shape[1]
    flat = codes + np.arange(0, width * cells, cells)
    return np.bincount(flat.ravel(), minlength=width * cells).reshape(width, cells)


class _Kept:
    """A function of a size whose latest results stay at hand."""

    def __init__(self, work: Callable[[int], UnitScores]) -> None:
        self._work = work
        self._done: OrderedDict[int, UnitScores] = OrderedDict()

    def __call__(self, size: int) -> UnitScores:
        if size in self._done:
            self._done.move_to_end(size)
        else:
            self._done[size] = self._work(size)
            if len(self._done) > KEPT:
                self._done.popitem(last=False)
        return self._done[size]
