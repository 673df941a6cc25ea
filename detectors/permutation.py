"""Few sequences on either side: those of baseline and window change places."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.divergence import cumulative_statistic, g_statistic
from detectors.resampling import NullStatistics

MOST_EXCHANGES = 2000
"""Of all ways to pick the window's sequences out of the pool, at most this many are tried."""
BLOCK_CELLS = 1 << 20


def exchange(baseline: BaselineStatistic, window: Sequence[NDArray[np.int64]]) -> NullStatistics:
    """Statistics of all exchanges of sequences between window and baseline; row 0 is the window as it is.

    ``window`` holds the counts (D, B + 1) of each of its sequences. Without drift any J of the M + J sequences could
    have been the window, so the rank of row 0 among all rows is a p-value without any approximation, down to
    ``1 / C(M + J, J)`` or 1 in 2,001. Drawing windows from the baseline's sequences (`detectors.resampling`) needs
    many: one that is itself part of a small baseline stands out far less than a new one does.
    A baseline sequence stands in as a run, from its middle, of the typical length of the window's.
    """
    size = np.mean([counts[0].sum() for counts in window])
    cells = baseline.binning.cells
    runs, wholes = [counts.astype(np.float64) for counts in window], []
    start = baseline.sample.independent
    offsets = np.arange(0, baseline.layout.width * cells, cells)
    for length in baseline.sample.lengths.tolist():
        rows = baseline.sample.codes[start : start + length]
        take = min(length, max(1, round(size)))
        first = (length - take) // 2
        runs.append(_count(rows[first : first + take] + offsets, cells) * (size / take))
        wholes.append(_count(rows + offsets, cells))
        start += length
    typical = float(np.mean(baseline.sample.lengths))
    wholes = [counts * (typical / counts[0].sum()) for counts in runs[: len(window)]] + wholes
    short, full = np.stack(runs), np.stack(wholes)
    always_finite = baseline.counts[:, -1] == 0
    short[:, always_finite, -1] = 0.0
    full[:, always_finite, -1] = 0.0
    picked = _picks(len(short), len(window), int(baseline.digest[:15], 16))
    step = max(1, BLOCK_CELLS // full[0].size)
    g, a = [], []
    for begin in range(0, len(picked), step):
        chosen = picked[begin : begin + step]
        inside, outside = np.tensordot(chosen, short, 1), np.tensordot(1 - chosen, full, 1)
        g.append(np.nan_to_num(g_statistic(inside, outside)))
        a.append(np.nan_to_num(cumulative_statistic(inside, outside)))
    return NullStatistics(np.concatenate(g), np.concatenate(a))


def _count(cells_of_rows: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    dimensions = cells_of_rows.shape[1]
    counts = np.bincount(cells_of_rows.ravel(), minlength=dimensions * cells)
    return counts.reshape(dimensions, cells).astype(np.float64)


def _picks(pool: int, size: int, seed: int) -> NDArray[np.float64]:
    """(R, pool), 1 for the units that make up the window: the first ``size`` in row 0, then the other ways."""
    observed = tuple(range(size))
    if comb(pool, size) <= MOST_EXCHANGES:
        picks = np.array([observed, *(pick for pick in combinations(range(pool), size) if pick != observed)])
    else:
        drawn = np.random.default_rng(seed).random((MOST_EXCHANGES, pool)).argsort(axis=1)[:, :size]
        picks = np.concatenate([[observed], drawn])
    picked = np.zeros((len(picks), pool))
    np.put_along_axis(picked, picks, 1.0, axis=1)
    return picked
