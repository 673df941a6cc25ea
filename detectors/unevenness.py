"""How much the baseline differs from itself: what a shift must exceed to matter.

With enough records every difference is significant, also one that no day of the training set is free of. So the
baseline is cut into blocks, of whole sequences where it has sequences, and each block is compared with the rest. A
window that is no further from the baseline than three of four of its own blocks has not drifted in a way that
matters. A baseline of like records has blocks that differ by chance alone, and the condition then holds back next to
nothing: a block is larger than most windows, so that chance makes a window's divergence larger still.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.divergence import jensen_shannon
from detectors.sample import Sample

BLOCKS = 8
"""Few and large: the noise of a block must not be what shifts are measured against."""
QUANTILE = 0.75


@dataclass(frozen=True, eq=False)
class Unevenness:
    """``js``: (K, D) divergence of each of K blocks from the rest, bits, bias removed; K = 0 where there are no two."""

    js: NDArray[np.float64]

    def largest(self, start: int, stop: int) -> float:
        """Of the columns ``[start, stop)`` the largest js of a block: its upper quartile over the blocks."""
        return _quantile(self.js[:, start:stop].max(1)) if stop > start and len(self.js) else 0.0

    def total(self, start: int, stop: int) -> float:
        """The same for the sum over the columns: many that move a little."""
        return _quantile(self.js[:, start:stop].sum(1)) if len(self.js) else 0.0


def unevenness(sample: Sample, cells: int) -> Unevenness:
    """Cut a baseline's sample into blocks and compare each with the rest; ``cells`` bins a column.

    Records without a sequence are cut in the order of time; sequences go to a block as a whole.
    """
    owner = blocks_of(sample)
    dimensions = sample.codes.shape[1]
    blocks = int(owner.max(initial=-1)) + 1
    if blocks < 2 or not dimensions:
        return Unevenness(np.zeros((0, dimensions)))
    counts = np.zeros((blocks, dimensions * cells))
    offsets = np.arange(0, dimensions * cells, cells)
    for block in range(blocks):
        flat = (sample.codes[owner == block] + offsets).ravel()
        counts[block] = np.bincount(flat, minlength=dimensions * cells)
    counts = counts.reshape(blocks, dimensions, cells)
    rest = counts.sum(0) - counts
    return Unevenness(np.nan_to_num(jensen_shannon(counts, rest)))


def blocks_of(sample: Sample) -> NDArray[np.int64]:
    """(S,) the block of each row, 0.. without gaps."""
    singles = np.arange(sample.independent) * BLOCKS // max(sample.independent, 1)
    middles = np.cumsum(sample.lengths) - sample.lengths / 2
    of_sequence = (middles * BLOCKS / max(int(sample.lengths.sum()), 1)).astype(np.int64)
    owner = np.concatenate([singles, np.repeat(of_sequence, sample.lengths)]).astype(np.int64)
    return np.unique(owner, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _quantile(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, QUANTILE))
